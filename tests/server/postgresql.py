"""A PostgreSQL server of Debian's package, which a test may start, kill and start again."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

PASSWORD = "correct-horse"
USER = "postgres"
"""Who runs it where the tests run as root, which it refuses to."""
STARTED_WITHIN_S = 60


class PostgreSql:
    """A server of the tests' own, on a free port of the loopback address."""

    def __init__(self) -> None:
        self._programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        # Not in pytest's folders, which only root may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="memplan-postgresql-"))
        self._names = (f"memplan_{n}" for n in itertools.count())
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if os.getuid() == 0:
            for path in (self._folder, password):
                shutil.chown(path, USER)
        self._run(
            "initdb",
            *("--pgdata", self._folder / "data", "--username", "tester", "--encoding", "UTF8"),
            *("--auth", "scram-sha-256", "--pwfile", password, "--no-sync"),
        )
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "port": self._port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "fsync": "off",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [self._programs / "postgres", "-D", self._folder / "data", *words]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log, **_as_user())
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not self._answers():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self._run("pg_isready", "--host=127.0.0.1", f"--port={self._port}")
        except subprocess.CalledProcessError:
            return False
        return True

    def kill(self) -> None:
        """End it as a power cut would, as far as its clients can tell."""
        assert self._process is not None
        # SIGQUIT: at once, without a checkpoint, but with its child processes.
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(STARTED_WITHIN_S)
        self._process = None

    def stop(self) -> None:
        """End it for good."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = next(self._names)
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        self._run(
            *("createdb", "--host=127.0.0.1", f"--port={self._port}", "--username=tester", name),
            env=environment,
        )
        return f"postgresql://tester:{PASSWORD}@127.0.0.1:{self._port}/{name}"

    def _run(self, program: str, *words: object, **kwargs: Any) -> None:
        command = [self._programs / program, *map(str, words)]
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            timeout=STARTED_WITHIN_S,
            **_as_user(),
            **kwargs,
        )


def _as_user() -> dict[str, Any]:
    return {"user": USER, "cwd": "/"} if os.getuid() == 0 else {"cwd": "/"}
