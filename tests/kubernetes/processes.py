"""`memplan` as a process that serves."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMPLAN = Path(sys.executable).with_name("memplan")


@contextmanager
def running(*words: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """The process and the ports that it is ready on; it has ended well when the block has."""
    with subprocess.Popen([str(MEMPLAN), *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            ready = re.fullmatch(r"memplan: ready on port (\d+)(?: and (\d+))?\n", line)
            assert ready is not None, line + process.stderr.read()
            yield process, [int(port) for port in ready.groups() if port]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                _, log = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode == 0, log
    assert "Traceback" not in log, log
