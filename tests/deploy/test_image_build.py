"""The image, really built and run: as its own user, without rights, on a read-only root."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import image_build
import pytest

import memplan

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2 * image_build.TIMEOUT_S)]

USER = "10001:10001"
# Arguments: root file system, user, group, data directory, then the command.
RUN = r"""
root=$1 uid=$2 gid=$3 data=$4; shift 4
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o "uid=$uid,gid=$gid" data "$root$data"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
exec chroot "$root" setpriv --reuid="$uid" --regid="$gid" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all -- "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Image:
    root: Path
    configuration: dict[str, Any]

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Run a command as Kubernetes would: the image's user and environment, no rights."""
        uid, gid = self.configuration["User"].split(":")
        made = dict(entry.split("=", 1) for entry in self.configuration["Env"])
        data = made["MEMPLAN_DATA_DIR"]
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-ec", RUN, "run", self.root, uid, gid, data, *command],
            env=made | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if os.geteuid() != 0:
        pytest.skip("building an image without an engine needs root")
    buildah = image_build.Buildah(folder=tmp_path_factory.mktemp("image"))
    try:
        configuration = buildah.build()
        yield Image(root=buildah.mount(), configuration=configuration)
    finally:
        buildah.remove()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_it_says_who_it_runs_as(image: Image) -> None:
    assert image.configuration["User"] == USER
    assert image.configuration["Entrypoint"] == ["memplan-server"]


def test_nothing_in_it_can_be_written_to(image: Image) -> None:
    code = (
        "import os\n"
        "for place in ('/', '/opt/memplan', '/etc', '/tmp', '/var/lib/memplan'):\n"
        "    print(place, os.access(place, os.W_OK))\n"
        "print(os.getuid(), os.getgid(), os.getgroups())\n"
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('CapBnd')])\n"
    )
    process = image.start("python", "-c", code)
    said, _ = process.communicate(timeout=120)
    assert said.splitlines() == [
        *("/ False", "/opt/memplan False", "/etc False", "/tmp True", "/var/lib/memplan True"),
        "10001 10001 []",
        "['0000000000000000']",
    ]


def test_it_has_every_command_that_manifests_name(image: Image) -> None:
    wanted = ("memplan", "memplan-server", "python3", "openssl")
    process = image.start("sh", "-c", 'for name; do command -v "$name"; done', "sh", *wanted)
    said, _ = process.communicate(timeout=60)
    assert [Path(line).name for line in said.splitlines()] == list(wanted)


def test_it_plans_for_those_outside(image: Image) -> None:
    port, metrics_port = free_port(), free_port()
    server = image.start(
        *image.configuration["Entrypoint"],
        MEMPLAN_LISTEN=f"127.0.0.1:{port}",
        MEMPLAN_METRICS_PORT=str(metrics_port),
        MEMPLAN_WORKERS="1",
        MEMPLAN_DRAIN_TIME="5",
    )
    try:
        plan = asked(port)
        with urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30) as page:
            metrics = page.read().decode()
        server.send_signal(signal.SIGTERM)
        said, _ = server.communicate(timeout=60)
    finally:
        server.kill()
        server.wait()
    (placement,) = plan.placements
    assert placement.verdict is memplan.Verdict.FITS
    assert plan.estimate.model_state.parameter_count == 25_557_032
    called = 'memplan_requests_total{code="OK",method="memplan.v1.MemoryPlanner/PlanJob"} 1.0'
    assert called in metrics
    assert (server.returncode, "stopped" in said) == (0, True), said


def asked(port: int) -> memplan.PlanJobResponse:
    """The plan of ResNet-50, once the server serves."""
    job = memplan.TrainingJob(
        model=memplan.Model(catalog=memplan.CatalogModel(name="torchvision/resnet50")),
        inputs=(memplan.InputTensor(shape=(3, 224, 224)),),
        micro_batch_size=16,
    )
    end = time.monotonic() + 120
    with memplan.Client(f"127.0.0.1:{port}") as client:
        while True:
            try:
                return client.plan_job(job, ["nvidia-t4"], timeout=180)
            except memplan.UnavailableError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
