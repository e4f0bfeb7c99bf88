"""The `memplan-server` command: flags to settings, serve, drain on SIGTERM; and its others."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.util import find_spec

from memplan_server import logs
from memplan_server.settings import Settings, SettingsError

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM or SIGINT. Exits 2 for wrong settings, 1 when it cannot start.

    `memplan-server compare ...` compares a job with its simulation instead, `memplan-server token`
    makes a token for a tenant, and both exit.
    """
    if sys.argv[1:2] == ["compare"]:
        sys.exit(_compare(sys.argv[2:]))
    if sys.argv[1:2] == ["token"]:
        from memplan_server.tenancy.command import main as make_token

        sys.exit(make_token(sys.argv[2:]))
    from memplan_server.app import serve  # gRPC, which a comparison does without

    try:
        settings = Settings.parse(sys.argv[1:], os.environ)
    except SettingsError as error:
        sys.exit(_complaint(str(error), 2))
    logs.configure(settings)
    asked_to_end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_end.set())
    try:
        server = serve(settings)
    except (OSError, ValueError) as error:  # an address, or what is in a file
        sys.exit(_complaint(_said(error), 1))
    asked_to_end.wait()
    server.stop(settings.drain_time, delay=settings.shutdown_delay)


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used: {error.strerror}"
    return str(error)


def _compare(arguments: list[str]) -> int:
    missing = [name for name in ("click", "yaml") if find_spec(name) is None]
    if missing:
        return _complaint(f"{missing[0]} is not installed. Run: pip install 'memplan[cli]'", 1)
    from memplan_server.measure.command import main as compare

    return compare(arguments)


def _complaint(text: str, status: int) -> int:
    sys.stderr.write(f"memplan-server: {text}\n")
    return status


if __name__ == "__main__":
    main()
