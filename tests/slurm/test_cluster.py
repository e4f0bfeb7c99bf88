"""Jobs submitted to a real Slurm with the plugins."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable

import pytest
from slurm_cluster import Cluster, Result

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

RESNET = "model: torchvision/resnet50, inputs: [3x224x224], optimizer: adam"
SCRIPT = "--output=/var/log/slurm-example/%j.out --gres=gpu:1 --wrap='env; true'"
PATIENCE_S = 1.0


def annotated(text: str) -> str:
    return f"--comment='memplan:{{{RESNET}, {text}}}'"


def job(cluster: Cluster, submitted: Result) -> dict[str, str]:
    """The job's record once it has run, and its environment in it."""
    assert submitted.code == 0, submitted.text
    match = re.search(r"Submitted batch job (\d+)", submitted.text)
    assert match is not None, submitted.text
    record = cluster.run(f"scontrol show job {match[1]}").text
    output = cluster.run(f"cat /var/log/slurm-example/{match[1]}.out").text
    return dict(re.findall(r"^ *(\w+)=(.*?) *$", record + output, flags=re.M))


def submit(cluster: Cluster, options: str, **environment: str) -> dict[str, str]:
    return job(cluster, cluster.run(f"sbatch --wait {options} {SCRIPT}", **environment))


def test_the_page_shows_what_happens(cluster: Cluster) -> None:
    *_, first, inline, refused = cluster.outputs.values()
    assert "on large: 144 x 8\n" in first.text
    assert "memplan: micro-batch 144 x 8 steps" in first.text
    assert "memplan: Recommended there" in inline.text
    assert "It does not fit on any GPU here." in refused.text


def test_a_job_that_fits_on_the_large_gpu_only_gets_it(cluster: Cluster) -> None:
    found = submit(cluster, annotated("batch_size: 144"))
    assert found["NodeList"] == "large"
    assert found["TresPerNode"] == "gres:gpu:a100:1"
    assert found["AdminComment"].startswith("memplan: FITS nvidia-a100-40gb: Takes")
    assert found["MEMPLAN_MICRO_BATCH_SIZE"] == "144"
    assert found["MEMPLAN_ACCUMULATION_STEPS"] == "1"


def test_a_job_that_fits_everywhere_keeps_its_request(cluster: Cluster) -> None:
    found = submit(cluster, annotated("batch_size: 16"))
    assert found["TresPerNode"] == "gres:gpu:1"
    assert found["AdminComment"].startswith("memplan: FITS nvidia-t4")


def test_an_oversized_job_is_refused_with_its_reason(cluster: Cluster) -> None:
    result = cluster.run(f"sbatch {annotated('batch_size: 4096')} {SCRIPT}")
    assert result.code != 0
    assert re.search(r"does not fit on any GPU here. nvidia-a100-40gb: Takes .* GiB", result.text)
    assert "It fits with micro-batch" in result.text


def test_the_controller_refuses_by_itself(cluster: Cluster) -> None:
    # Nobody is made to have the client's plugin, which is why the other one enforces.
    conf = "sed /CliFilter/d /etc/slurm/slurm.conf > /run/without.conf"
    command = f"SLURM_CONF=/run/without.conf sbatch {annotated('batch_size: 4096')} {SCRIPT}"
    result = cluster.run(f"{conf}; {command}")
    assert result.code != 0
    assert "does not fit on any GPU here" in result.text


def test_a_type_that_is_too_small_is_refused_and_another_named(cluster: Cluster) -> None:
    script = SCRIPT.replace("gpu:1", "gpu:t4:1")
    result = cluster.run(f"sbatch {annotated('batch_size: 256')} {script}")
    assert result.code != 0
    assert "does not fit on gpu:t4" in result.text
    assert "It fits on gpu:a100." in result.text


def test_a_job_without_annotation_is_left_alone(cluster: Cluster) -> None:
    found = submit(cluster, "--comment='a run'")
    assert found["TresPerNode"] == "gres:gpu:1"
    assert found["Comment"] == "a run"
    assert "AdminComment" not in found
    assert not [name for name in found if name.startswith("MEMPLAN_")]


def test_a_job_file_beside_a_comment_of_ones_own(cluster: Cluster) -> None:
    found = submit(cluster, "--comment='a run'", MEMPLAN_JOB="/var/tmp/job.yaml")
    assert found["Comment"].startswith('a run memplan:{"model":')
    assert found["MEMPLAN_ACCUMULATION_STEPS"] == "8"


HOSTILE = [
    "memplan:{$(touch /run/broken)}",
    "memplan:`touch /run/broken`",
    "memplan:{model: \"'; touch /run/broken; '\", batch_size: 1}",
    "memplan:{model: 'a\\nset gres gpu:9', batch_size: 1}",
    "memplan:{model: [[[[",
    "memplan: -rf /",
    "memplan:/etc/munge/munge.key",
]


@pytest.mark.parametrize("comment", HOSTILE)
def test_no_comment_breaks_out_of_its_place(cluster: Cluster, comment: str) -> None:
    found = job(
        cluster, cluster.run(f'sbatch --wait --comment="$COMMENT" {SCRIPT}', COMMENT=comment)
    )
    assert found["TresPerNode"] == "gres:gpu:1"
    assert cluster.run("test ! -e /run/broken").code == 0


def test_a_frozen_service_holds_nobody_up(cluster: Cluster, frozen: Callable[[], None]) -> None:
    frozen()
    unplanned = annotated("batch_size: 33")
    for _ in range(2):
        result = cluster.run(f"sbatch {unplanned} {SCRIPT}")
        assert result.code == 0, result.text
        assert "no plan in time; the job is submitted as it is" in result.text
        assert result.seconds < PATIENCE_S


def test_a_helper_that_is_frozen_or_away_holds_nobody_up(cluster: Cluster) -> None:
    helper = cluster.run("pgrep --uid slurm --full 'bin/memplan slurm'").text.split()[0]
    for hinder in (f"kill -STOP {helper}", f"kill -CONT {helper}; kill {helper}; sleep 0.5"):
        assert cluster.run(hinder).code == 0
        # The client's plugin may wait for a sign of life, and then the controller's for an answer.
        result = cluster.run(f"sbatch {annotated('batch_size: 16')} {SCRIPT}")
        assert result.code == 0, result.text
        assert result.seconds < PATIENCE_S + 0.4
    start = "runuser -u slurm -- /opt/memplan/bin/memplan slurm > /run/memplan.log 2>&1 &"
    ready = "timeout 20 sh -c 'until test -S /run/memplan/slurm.sock; do sleep 0.1; done'"
    assert cluster.run(f"{start}\n{ready}").code == 0


def test_planning_adds_less_than_150_ms(cluster: Cluster) -> None:
    plain = f"sbatch --comment=run {SCRIPT}"
    planned = f"sbatch {annotated('batch_size: 16')} {SCRIPT}"
    cluster.run(planned)
    times: dict[str, list[float]] = {plain: [], planned: []}
    for _ in range(9):
        for command, seconds in times.items():
            seconds.append(cluster.run(command).seconds)
    without, with_plan = (statistics.median(seconds) for seconds in times.values())
    print(f"submit {1000 * without:.0f} ms, planned {1000 * with_plan:.0f} ms")
    assert with_plan - without < 0.150
