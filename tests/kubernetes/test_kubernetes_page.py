"""docs/kubernetes.md: its commands are run, with a kubectl that only writes down what it is asked.

Manifests are checked against schemas, and what the page says of its Job is what the webhook makes
of it, with the certificate and the settings of the page.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from fake_cluster import TEXT, strict
from reviewing import ROOT, Pair, load, patched, serving, until_planned

from memplan import jobfile
from memplan.cli.commands import cli
from memplan.endpoint import VARIABLES
from memplan.kubernetes import annotations as names
from memplan.kubernetes.kueue.check import CONTROLLER
from memplan.kubernetes.metrics import KueueMetrics, WebhookMetrics
from memplan_server.app import RunningServer

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
NEWEST = kubernetes_validate.latest_version().rpartition(".")[0]
ADMISSION_CHECK = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "kueue.x-k8s.io/v1beta2"},
    kind={"const": "AdmissionCheck"},
    metadata=strict(["name"], name=TEXT),
    spec=strict(["controllerName"], controllerName={"const": CONTROLLER}),
)
Object = dict[str, Any]


def table(heading: str) -> dict[str, list[str]]:
    """Rows of the table below a heading, by their first cell."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows[2:]]
    return {first: rest for first, *rest in cells}


class Ran:
    """What the page's commands asked of kubectl."""

    def __init__(self, folder: Path) -> None:
        calls = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        self.calls: list[list[str]] = [call["arguments"] for call in calls]
        self.applied: list[Object] = [
            item for call in calls for item in yaml.safe_load_all(call["input"]) if item
        ]

    def option(self, *words: str, name: str) -> str:
        """The value of an option in the first call that begins so."""
        call = next(call for call in self.calls if call[: len(words)] == list(words))
        return call[call.index(name) + 1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Every command of the page, one block after the other in one shell."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl, which the page uses")
    folder = tmp_path_factory.mktemp("page")
    for name in ("bin", "calls", "tmp"):
        (folder / name).mkdir()
    (folder / "bin" / "kubectl").symlink_to(Path(__file__).parent / "kubectl")
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.M | re.S)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(blocks)],
        cwd=ROOT,
        env=os.environ
        | {"PATH": path, "KUBECTL_CALLS": str(folder / "calls"), "TMPDIR": str(folder / "tmp")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Ran(folder / "calls")


def test_what_is_applied_is_valid(ran: Ran) -> None:
    assert [item["kind"] for item in ran.applied] == ["Job", "AdmissionCheck"]
    for item in ran.applied:
        if item["kind"] == "AdmissionCheck":
            jsonschema.validate(item, ADMISSION_CHECK)
        else:
            kubernetes_validate.validate(item, NEWEST, strict=True)


def test_files_that_are_applied_are_there(ran: Ran) -> None:
    files = [call[call.index("--filename") + 1] for call in ran.calls if "--filename" in call]
    folders = [Path(file) for file in files if file != "-"]
    assert [str(folder) for folder in folders] == [
        "deploy/kubernetes",
        "deploy/kubernetes/webhook",
        "deploy/kubernetes/kueue",
    ]
    assert all(list((ROOT / folder).glob("*.yaml")) for folder in folders)


def test_every_webhook_gets_the_certificate_that_is_trusted(ran: Ran) -> None:
    file = ROOT / "deploy/kubernetes/webhook/mutatingwebhookconfiguration.yaml"
    count = len(yaml.safe_load(file.read_text())["webhooks"])
    patches = [json.loads(call[-1]) for call in ran.calls if call[:2] == ["patch", file.stem]]
    assert [p[0]["path"] for p in patches] == [
        f"/webhooks/{n}/clientConfig/caBundle" for n in range(count)
    ]
    cert = Path(ran.option("create", "secret", name="--cert")).read_bytes()
    assert {base64.b64decode(p[0]["value"]) for p in patches} == {cert}


@pytest.mark.slow
def test_the_job_gets_what_the_page_says(ran: Ran, server: RunningServer) -> None:
    cert, key = (Path(ran.option("create", "secret", name=f"--{n}")) for n in ("cert", "key"))
    [setting] = [call[-1] for call in ran.calls if call[:2] == ["set", "env"]]
    variable, _, value = setting.partition("=")
    assert variable == "MEMPLAN_WEBHOOK_GPU"
    gpus = [word for name in value.split() for word in ("--gpu", name)]
    review = load("job")
    review["request"]["object"] = job = ran.applied[0]
    target = f"127.0.0.1:{server.port}"
    with serving(Pair(cert=cert, key=key), target, *gpus, "--patience", "25") as webhook:
        planned = patched(review, until_planned(webhook, review))  # by the name in the certificate
        file = job["metadata"]["annotations"][names.JOB]
        job["metadata"]["annotations"][names.JOB] = file.replace("144", "8192")
        warnings = until_planned(webhook, review)["warnings"]
    kubernetes_validate.validate(planned, NEWEST, strict=True)
    shown = re.search(r"^```text\n(memplan\.dev/.*?)^```$", PAGE, flags=re.M | re.S)
    assert shown is not None
    for line in shown[1].splitlines():
        name, value = line.split(": ")
        assert planned["metadata"]["annotations"][name] == value
    spec = planned["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert len(spec["containers"][0]["env"]) == 2
    assert spec["tolerations"]
    assert "nodeAffinity" in spec["affinity"]
    assert warnings[0].startswith("It does not fit on any GPU asked about")
    assert "Warning: It does not fit on any GPU asked about" in PAGE


@pytest.mark.slow
def test_the_command_of_memplan_runs(server: RunningServer, tmp_path: Path) -> None:
    [line] = re.findall(r"^memplan (.*)$", PAGE, flags=re.M)
    job = re.search(r"memplan.dev/job: \|\n((?: {6}.*\n)+)", PAGE)
    assert job is not None
    text = re.sub(r"^ {6}", "", job[1], flags=re.M)
    jobfile.parse(text)
    (tmp_path / "job.yaml").write_text(text)
    done = subprocess.run(
        [Path(sys.executable).with_name("memplan"), *line.split()],
        cwd=tmp_path,
        env=os.environ | {"MEMPLAN_SERVER": f"127.0.0.1:{server.port}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [pod] = yaml.safe_load_all(done.stdout)
    kubernetes_validate.validate(pod, NEWEST, strict=True)


def test_every_setting_is_documented() -> None:
    options = {option.opts[0]: option.envvar or "" for option in cli.commands["webhook"].params}
    rows = table("Settings of the webhook")
    documented = {
        flag: variable.strip("`")
        for flags, (variable, _) in rows.items()
        for flag in re.findall(r"--[\w-]+", flags)
    }
    assert documented == options
    section = PAGE.partition("## Kueue\n")[2].partition("\n## ")[0]
    how = {variable for name, variable in VARIABLES.items() if name != "target"}
    assert how <= set(options.values())
    for option in cli.commands["kueue"].params:
        if option.envvar in how:  # as of the webhook
            continue
        assert option.opts[0] in section, option
        assert f"`{option.envvar}`" in section or option.envvar in (None, "MEMPLAN_SERVER")


def test_every_annotation_is_documented() -> None:
    known = {
        text
        for text in vars(names).values()
        if isinstance(text, str) and text.startswith(names.PREFIX) and text != names.PREFIX
    }
    assert {name.strip("`") for name in table("Annotations")} == known


def test_every_metric_is_documented() -> None:
    found = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metrics in (WebhookMetrics(), KueueMetrics())
        for metric in metrics.registry.collect()
    }
    assert {name.strip("`") for name in table("Metrics")} == found
