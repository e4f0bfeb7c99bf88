"""The `memplan` command. Needs the extra `cli`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the `memplan` script; exits with a code of `memplan.cli.exits`."""
    try:
        from memplan.cli.commands import cli
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich", "yaml"):
            raise
        sys.exit(f"memplan: {error.name} is not installed. Run: pip install 'memplan[cli]'")
    cli()
