"""`memplan-server token`: a new token for a tenant."""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from memplan_server.tenancy.tenants import NAME

__all__ = ["main", "parser"]

PREFIX = "memplan_"
"""By which scanners of repositories and logs find tokens that leaked."""
RANDOM_BYTES = 32


def main(arguments: Sequence[str]) -> int:
    """Print the lines for the file of tenants on stdout and the token on stderr."""
    asked = parser().parse_args(arguments)
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    expires = ""
    if asked.days is not None:
        end = datetime.now(UTC) + timedelta(days=asked.days)
        expires = f", expires = {end:%Y-%m-%dT%H:%M:%SZ}"
    print(f'[{asked.name}]\ntokens = [{{ sha256 = "{digest}"{expires} }}]')
    sys.stdout.flush()
    print(f"The token of {asked.name}, which is shown this once:\n{token}", file=sys.stderr)
    return 0


def parser() -> argparse.ArgumentParser:
    """Of its command line."""
    made = argparse.ArgumentParser(
        prog="memplan-server token",
        description="Make a token for a tenant. The lines for the file of --tenants go to standard "
        "output, the token to standard error, where it is shown once: it is kept nowhere.",
    )
    made.add_argument("name", type=_name, metavar="TENANT", help="Who will ask with it.")
    made.add_argument("--days", type=_days, metavar="N", help="Days after which it expires.")
    return made


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("is not up to 63 of a-z, 0-9 and -")
    return text


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 36_500:
        raise argparse.ArgumentTypeError("is not a whole number from 1 to 36500")
    return int(text)
