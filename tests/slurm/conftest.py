"""A Slurm cluster of Debian's packages, made by the commands of docs/slurm.md.

They run as they stand there, in a mount and a process namespace of their own: when the tests end,
what they installed is gone and what they started has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from slurm_cluster import ROOT, Cluster, blocks, service_arguments

PRIVATE = ("/etc/slurm", "/opt/memplan", "/run", "/var/spool", "/var/log", "/var/tmp")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """The service, where the page says."""
    data = str(tmp_path_factory.mktemp("data"))
    arguments = [*service_arguments(), "--data-dir", data, "--workers", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "memplan_server", *arguments],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'client'}:{ROOT / 'server'}"},
    ) as server:
        try:
            with grpc.insecure_channel(service_arguments()[1]) as channel:
                grpc.channel_ready_future(channel).result(60)
            yield server
        finally:
            server.send_signal(signal.SIGCONT)
            server.terminate()


@pytest.fixture(scope="session")
def cluster(service: subprocess.Popen[bytes]) -> Iterator[Cluster]:
    """The cluster, after every command of the page."""
    if os.geteuid():
        pytest.skip("a cluster needs root: users, device files, namespaces")
    Path("/opt/memplan").mkdir(exist_ok=True)
    mounts = " && ".join(f"mount -t tmpfs -o mode=755 memplan-test {path}" for path in PRIVATE)
    options = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = f"{mounts} && echo ready && exec sleep infinity"
    with subprocess.Popen(
        ["unshare", *options, "sh", "-c", command], stdout=subprocess.PIPE
    ) as outside:
        try:
            assert outside.stdout is not None
            assert outside.stdout.readline() == b"ready\n"
            children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text()
            found = Cluster(inside=int(children.split()[0]), server=service)
            for block in blocks():
                result = found.run(block)
                assert result.code == 0, f"{block}\n{result.text}"
                found.outputs[block] = result
            yield found
        finally:
            outside.kill()  # the namespace's first process, and with it all others, end too
    with suppress(OSError):
        Path("/opt/memplan").rmdir()


@pytest.fixture
def frozen(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """What freezes the service until the test ends."""
    yield lambda: cluster.server.send_signal(signal.SIGSTOP)
    cluster.server.send_signal(signal.SIGCONT)
    time.sleep(2.5)  # for so long the helper takes it for away
