"""Whom the commands ask: the server named, or one started for the command."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from memplan.client import Client
from memplan.errors import UnavailableError

__all__ = ["connected", "connection_arguments"]

_SETTINGS = (
    "data_dir",
    "workers",
    "worker_memory_limit",
    "job_time_limit",
    "store_size",
    "profile_store_url",
)
"""Settings of the server that the embedded one takes from its environment variables."""
_ARGUMENTS = {
    "tls": "tls",
    "tls_ca": "root_certificates",
    "tls_cert": "client_certificate",
    "tls_key": "client_key",
    "tls_server_name": "server_name",
    "token_file": "token_file",
    "plaintext_token": "plaintext_token",
    "keepalive": "keepalive",
    "retries": "retries",
}
"""Arguments of the client by option."""
_OPTIONS = {argument: option for option, argument in _ARGUMENTS.items()}
_ARGUMENT = re.compile(rf"\b(?<!-)({'|'.join(_OPTIONS)})\b")
_LOG_BYTES = 1 << 20


@contextmanager
def connected(options: Mapping[str, Any]) -> Iterator[Client]:
    """A client of --server, or of an embedded server that ends with the block.

    Raises UnavailableError where no server is named and none can be started, and where files or
    names of servers cannot be read; ValueError for options that do not go together.
    """
    with ExitStack() as stack:
        if options["server"]:
            client = _named(options)
        else:
            port = stack.enter_context(_embedded())
            client = Client(
                f"127.0.0.1:{port}",
                timeout=options["timeout"],
                options=[("grpc.enable_http_proxy", 0)],
            )
        yield stack.enter_context(client)


def connection_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of `options.connection_options`, what `Client` takes besides its target."""
    return {argument: options[option] for option, argument in _ARGUMENTS.items()}


def _named(options: Mapping[str, Any]) -> Client:
    arguments = connection_arguments(options)
    try:
        return Client(options["server"], timeout=options["timeout"], **arguments)
    except OSError as error:
        raise UnavailableError(f"{options['server']} cannot be asked: {error}") from error
    except ValueError as error:
        raise ValueError(_ARGUMENT.sub(_as_option, str(error))) from error


def _as_option(named: re.Match[str]) -> str:
    return "--" + _OPTIONS[named[0]].replace("_", "-")


@contextmanager
def _embedded() -> Iterator[int]:
    """The port of a server in this process, on the loopback address only."""
    try:
        from memplan_server.app import serve
        from memplan_server.settings import Settings
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise UnavailableError(
            f"There is no server here: {missing} is not installed. Run "
            "`pip install 'memplan[server,models]'`, or name a server with --server."
        ) from error
    variables = {f"MEMPLAN_{name.upper()}" for name in _SETTINGS}
    environment = {name: value for name, value in os.environ.items() if name in variables}
    try:
        settings = Settings.parse(["--listen", "127.0.0.1:0"], environment)
        _log_to_file(settings.data_dir)
        server = serve(settings)
    except (OSError, ValueError) as error:
        raise UnavailableError(f"The embedded server cannot start: {error}") from error
    try:
        yield server.port
    finally:
        server.stop(0)


def _log_to_file(directory: Path) -> None:
    """Send the embedded server's log to a file: stderr is the command's own."""
    log = logging.getLogger("memplan_server")
    path = directory / "embedded.log"
    handler: logging.Handler
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    except OSError:  # a container without a home: the server does without what it keeps there too
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    log.addHandler(handler)
    log.propagate = False
