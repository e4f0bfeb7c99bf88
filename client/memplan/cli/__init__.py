"""The `memplan` command. Needs the extra `cli`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Entry point of the `memplan` script; exits with a code of `memplan.cli.exits`."""
    missing = [name for name in ("click", "rich", "yaml") if find_spec(name) is None]
    if missing:
        sys.exit(f"memplan: {missing[0]} is not installed. Run: pip install 'memplan[cli]'")
    # gRPC writes to stderr about connections; what matters comes as an exception.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from memplan.cli.commands import cli
    except KeyboardInterrupt:  # within the tenth of a second that it takes
        sys.stderr.write("memplan: interrupted\n")
        sys.exit(130)
    cli()
