"""What checkov says of everything that the chart makes: nothing but what is listed here."""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path
from typing import Any

import helm_program
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

VERSION = "3.3.30"
KEPT = helm_program.ROOT / ".pytest_cache" / "checkov" / VERSION
"""An environment of its own: checkov pins versions that the server does not take."""
VALUES = Path(__file__).parent / "values"

ONE_SHOT = {"test", "webhook-certificate"}
EVERYONE = {"estimator", "profiler", "webhook", "kueue", "monitoring"} | ONE_SHOT
ACCEPTED = {
    # Who installs says with --namespace where to; manifests name none.
    "CKV_K8S_21": EVERYONE,
    # Tags are versions, which do not change: what a node has need not be pulled.
    "CKV_K8S_15": EVERYONE,
    # The image is built by who installs: the values take its digest, the defaults cannot know it.
    "CKV_K8S_43": EVERYONE,
    # The server takes the URL of its database from the environment.
    "CKV_K8S_35": {"estimator", "profiler"},
    # They talk to the Kubernetes API.
    "CKV_K8S_38": {"kueue", "webhook-certificate"},
    # The Job that names the authority in one webhook configuration, which its rule names.
    "CKV_K8S_155": {"webhook-certificate"},
    # They end by themselves, and listen on nothing.
    "CKV_K8S_8": ONE_SHOT,
    "CKV_K8S_9": ONE_SHOT,
    "CKV2_K8S_6": ONE_SHOT,
}
ROOT_POD = """
apiVersion: v1
kind: Pod
metadata: {name: wrong, labels: {app.kubernetes.io/component: wrong}}
spec: {containers: [{name: wrong, image: "a:1", securityContext: {privileged: true}}]}
"""


@pytest.fixture(scope="module")
def checkov() -> list[Path | str]:
    """The command, installed once."""
    python = KEPT / "bin" / "python"
    if not (KEPT / "installed").exists():
        venv.create(KEPT, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, f"checkov=={VERSION}"], check=True, timeout=800)
        (KEPT / "installed").touch()
    return [python, KEPT / "bin" / "checkov"]


def failed(checkov: list[Path | str], folder: Path) -> set[tuple[str, str]]:
    """Checks that fail, with the component that they fail for."""
    options = ["--skip-download", "--framework", "kubernetes", "--output", "json", "--quiet"]
    result = subprocess.run(
        [*checkov, *options, "--directory", folder],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode in (0, 1), result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["summary"]["parsing_errors"] == 0
    return {
        (check["check_id"], component_of(check, folder))
        for check in report["results"]["failed_checks"]
    }


def component_of(check: dict[str, Any], folder: Path) -> str:
    """By the label, which is in the lines that the report names."""
    first, last = check["file_line_range"]
    lines = (folder / Path(check["file_path"]).name).read_text().splitlines()[first - 1 : last]
    (label, *_) = [line for line in lines if "app.kubernetes.io/component:" in line]
    return label.rpartition("component:")[2].strip(" }")


def test_it_finds_nothing_else(checkov: list[Path | str], tmp_path: Path) -> None:
    for path in VALUES.glob("*.yaml"):
        (tmp_path / path.name).write_text(helm_program.template({}, path))
    (tmp_path / "wrong.yaml").write_text(ROOT_POD)
    found = failed(checkov, tmp_path)
    of_wrong = {check for check, component in found if component == "wrong"}
    assert {"CKV_K8S_16", "CKV_K8S_20"} <= of_wrong  # it is awake: privileged, may escalate
    accepted = {(check, name) for check, names in ACCEPTED.items() for name in names}
    rest = {(check, name) for check, name in found if name != "wrong"}
    assert rest <= accepted
    assert {check for check, _ in rest} == set(ACCEPTED), "take out what is no longer found"
