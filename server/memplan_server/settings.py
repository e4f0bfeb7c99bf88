"""The server's settings: flags, environment variables, defaults.

Each field of `Settings` is a flag (`data_dir`: `--data-dir`) and an environment variable
(`MEMPLAN_DATA_DIR`); the flag wins.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Settings", "SettingsError"]

GIB = 1 << 30
MIB = 1 << 20
PREFIX = "MEMPLAN_"
_UNITS = {"KIB": 1 << 10, "MIB": MIB, "GIB": GIB, "": 1}
_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no")


class SettingsError(ValueError):
    """A setting that cannot be, with the flag or variable that holds it."""


def byte_size(text: str) -> int:
    """Bytes: `8GiB`, `512 MiB`, `1048576`."""
    number = text.rstrip("KMGIBkmgib ")
    unit = text[len(number) :].strip().upper()
    if unit not in _UNITS or not number.isdecimal() or not int(number):
        raise ValueError("is not a size such as 8GiB, 512MiB or a number of bytes")
    return int(number) * _UNITS[unit]


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise ValueError("is not a number of seconds above 0 and up to a day")
    return value


def pause(text: str) -> float:
    """A number of seconds, which may be none."""
    return 0.0 if text.strip() == "0" else seconds(text)


def count(text: str, most: int = 10_000) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise ValueError(f"is not a whole number from 1 to {most:,}")
    return int(text)


def large_count(text: str) -> int:
    """A whole number of at least 1, for what there are many of."""
    return count(text, 10_000_000)


def port(text: str) -> int:
    """A port; 0 stands for any that is free."""
    if not text.isdecimal() or int(text) > 65_535:
        raise ValueError("is not a port from 0 to 65535")
    return int(text)


def address(text: str) -> str:
    """`host:port`, or `unix:PATH`; gRPC would take what has no port for port 443."""
    host, _, number = text.rpartition(":")
    try:
        if not text.startswith("unix:"):
            port(number if host else "")
    except ValueError:
        raise ValueError("is not host:port, such as 0.0.0.0:50051") from None
    return text


def targets(text: str) -> tuple[str, ...]:
    """gRPC targets, with commas between them."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise ValueError("has an empty part between its commas")
    return found


def database_url(text: str) -> str:
    """The URL of a PostgreSQL database. What it raises repeats nothing of it."""
    scheme, _, rest = text.partition("://")
    try:
        parts = urlsplit(text)
        # A password with one of /?# in it ends the host early: what follows must not be taken for
        # a database, whose name is logged.
        readable = parts.port != 0 and len(parts.path) > 1 and "@" not in parts.path
    except ValueError:
        readable = False
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg") or not readable:
        raise ValueError(
            "is not a URL such as postgresql://user:password@host/database, in which what is "
            "special in a password is percent-encoded"
        )
    return f"postgresql://{rest}"


def truth(text: str) -> bool:
    """`true` or `false`, also as yes/no and 1/0."""
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError("is neither true nor false")
    return text.lower() in _TRUE


def one_of(*choices: str) -> Callable[[str], str]:
    """One of `choices`, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"is none of {', '.join(choices)}")
        return text.lower()

    return parse


def available_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_directory() -> Path:
    """`memplan` in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "memplan"


def about(parse: Callable[[str], Any], text: str, default: str = "") -> dict[str, Any]:
    """What `--help` and the parser know of a field; `default` where str() does not show it well."""
    return {"parse": parse, "help": text, "shown": default}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything that can be set. Sizes in bytes, times in seconds."""

    listen: str = field(
        default="127.0.0.1:50051",
        metadata=about(address, "Address to serve on, host:port; port 0 takes any that is free."),
    )
    metrics_port: int | None = field(
        default=None,
        metadata=about(port, "Port of the metrics, on the host of --listen.", "no metrics"),
    )
    node_name: str = field(
        default_factory=socket.gethostname,
        metadata=about(str, "What metrics call this machine.", "the host's name"),
    )
    data_dir: Path = field(
        default_factory=cache_directory,
        metadata=about(Path, "Directory of what survives a restart.", "the user's cache directory"),
    )
    workers: int = field(
        default_factory=lambda: min(available_cpus(), 8),
        metadata=about(count, "Processes that simulate.", "one per CPU, at most 8"),
    )
    worker_memory_limit: int = field(
        default=8 * GIB, metadata=about(byte_size, "Memory that each of them may take.", "8GiB")
    )
    job_time_limit: float = field(
        default=120.0, metadata=about(seconds, "Longest time to simulate one job.", "120")
    )
    call_time_limit: float = field(
        default=600.0, metadata=about(seconds, "Longest time for one call.", "600")
    )
    prestart_workers: bool = field(
        default=False,
        metadata=about(truth, "Start them with the server, not with the first job.", "false"),
    )
    max_concurrent_calls: int = field(
        default=64, metadata=about(count, "Calls worked on at once; more are told to try again.")
    )
    max_request_size: int = field(
        default=4 * MIB, metadata=about(byte_size, "Largest request.", "4MiB")
    )
    answer_cache_size: int = field(
        default=64 * MIB, metadata=about(byte_size, "Memory for answers.", "64MiB")
    )
    timeline_cache_size: int = field(
        default=256 * MIB, metadata=about(byte_size, "Memory for timelines.", "256MiB")
    )
    store_size: int = field(
        default=GIB, metadata=about(byte_size, "Space for timelines in --data-dir.", "1GiB")
    )
    profiler: tuple[str, ...] = field(
        default=(),
        metadata=about(
            targets,
            "Server that measures jobs for this one, host:port; may be repeated, or several with "
            "commas. Without a GPU here, profiles are left to them.",
            "none",
        ),
    )
    profiler_ca: Path | None = field(
        default=None,
        metadata=about(
            Path, "Authorities for the certificates of profilers, PEM.", "profilers without TLS"
        ),
    )
    profiler_token_file: Path | None = field(
        default=None,
        metadata=about(Path, "Token to show to profilers; read again when it changes.", "no token"),
    )
    profile_queue_length: int = field(
        default=16, metadata=about(count, "Profiles that may wait; more are told to try again.")
    )
    profile_time_limit: float = field(
        default=600.0, metadata=about(seconds, "Longest time that one may ask for.", "600")
    )
    profile_memory_limit: int = field(
        default=8 * GIB,
        metadata=about(byte_size, "Memory that one on the CPU may take.", "8GiB"),
    )
    profile_store_url: str | None = field(
        default=None,
        repr=False,
        metadata=about(
            database_url,
            "PostgreSQL database of profiles, postgresql://user:password@host/database; several "
            "servers may share it.",
            "a file in --data-dir",
        )
        | {"secret": True},
    )
    profiles_kept: int = field(
        default=10_000, metadata=about(large_count, "Profiles that are stored; the oldest leave.")
    )
    shutdown_delay: float = field(
        default=0.0,
        metadata=about(
            pause,
            "Time from SIGTERM, when health checks begin to fail, until calls are taken no more: "
            "what a load balancer needs to notice.",
            "0",
        ),
    )
    drain_time: float = field(
        default=30.0,
        metadata=about(seconds, "Time that calls under way get to finish on SIGTERM.", "30"),
    )
    tls_cert: Path | None = field(
        default=None,
        metadata=about(Path, "Certificate chain, PEM; read again when it changes.", "no TLS"),
    )
    tls_key: Path | None = field(
        default=None, metadata=about(Path, "Private key of the certificate, PEM.", "no TLS")
    )
    tls_client_ca: Path | None = field(
        default=None,
        metadata=about(
            Path, "Authorities one of which clients must show a certificate of.", "none"
        ),
    )
    tenants: Path | None = field(
        default=None,
        metadata=about(
            Path,
            "File of those who may ask, TOML, their tokens and quotas; read again when it changes.",
            "anybody, without limits",
        ),
    )
    log_level: str = field(
        default="info",
        metadata=about(
            one_of("debug", "info", "warning", "error"), "debug, info, warning or error."
        ),
    )
    log_format: str = field(default="text", metadata=about(one_of("text", "json"), "text or json."))

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingsError("--tls-cert and --tls-key belong together: give both or neither.")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise SettingsError("--tls-client-ca needs --tls-cert and --tls-key.")
        if self.profiler_token_file is not None and not self.profiler:
            raise SettingsError("--profiler-token-file needs --profiler.")
        if self.profile_store_url is not None and find_spec("psycopg") is None:
            raise SettingsError(
                "--profile-store-url needs psycopg. Run: pip install 'memplan[postgresql]'"
            )

    @classmethod
    def parse(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
        """From the command line and the environment. Raises SettingsError; exits for --help."""
        given = vars(_parser().parse_args(arguments))
        values: dict[str, Any] = {}
        for spec in fields(cls):
            name = spec.name
            variable = PREFIX + name.upper()
            if name in given:
                text = given[name]
                joined = ",".join(text) if isinstance(text, list) else text
                values[name] = _parsed(spec, joined, _flag(name))
            elif environment.get(variable):
                values[name] = _parsed(spec, environment[variable], variable)
        return cls(**values)


def _parsed(spec: Field[Any], text: str, source: str) -> Any:
    try:
        return spec.metadata["parse"](text)
    except ValueError as error:
        if spec.metadata.get("secret"):
            raise SettingsError(f"{source}: what it holds {error}.") from None
        hint = ""
        if source.startswith(PREFIX) and "://" in text:
            hint = " (Kubernetes sets it for a Service of that name; see enableServiceLinks.)"
        raise SettingsError(f"{source}: {text!r} {error}.{hint}") from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="memplan-server",
        description="Answers how much GPU memory a training job takes, over gRPC.",
        epilog="Every flag has an environment variable: --data-dir is MEMPLAN_DATA_DIR. "
        "`memplan-server compare --help`: run a job on this machine's GPU and compare. "
        "`memplan-server token --help`: make a token for a tenant.",
        argument_default=argparse.SUPPRESS,
    )
    for spec in fields(Settings):
        info = spec.metadata
        default = info["shown"] or spec.default
        assert default is not MISSING
        bare: dict[str, Any] = {"nargs": "?", "const": "true"} if info["parse"] is truth else {}
        if info["parse"] is targets:
            bare = {"action": "append"}
        parser.add_argument(
            _flag(spec.name),
            metavar=spec.name.rpartition("_")[2].upper(),
            help=f"{info['help']} Default: {default}.",
            **bare,
        )
    return parser
