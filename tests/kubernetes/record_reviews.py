"""Records the AdmissionReviews of `reviews/`: python tests/kubernetes/record_reviews.py

What is created is in `objects/`; a real API server fills in its defaults and asks.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from control_plane import ControlPlane, control_plane, wait_for
from recorder import Recorder, recording
from reviewing import REVIEWS

Object = dict[str, Any]
FOLDER = Path(__file__).parent
CHANGING = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|default-token-[a-z0-9]{5}"
    r'|(?<="resourceVersion": ")\d+'
)
"""Identifiers, versions and times, which are others each time."""


def manifest(name: str) -> Object:
    """An object of the folder."""
    found: Object = yaml.safe_load((FOLDER / "objects" / f"{name}.yaml").read_text())
    return found


def custom_resources(plane: ControlPlane, name: str) -> None:
    """Have kinds that Kubernetes does not have."""
    path = FOLDER / "crds" / f"{name}.yaml"
    names = [item["metadata"]["name"] for item in yaml.safe_load_all(path.read_text())]
    plane.kubectl("apply", "--filename", str(path))
    crds = [f"customresourcedefinition/{one}" for one in names]
    plane.kubectl("wait", "--for", "condition=Established", "--timeout", "30s", *crds)


@contextmanager
def recorded_by(plane: ControlPlane, folder: Path) -> Iterator[Recorder]:
    """Reviews are recorded within the block."""
    with recording(folder) as (recorder, configuration):
        plane.kubectl("apply", "--filename", "-", given=configuration)
        wait_for(lambda: _asks(plane, recorder), "the API server does not ask the recorder")
        yield recorder
        plane.kubectl("delete", "--filename", "-", given=configuration)


def _asks(plane: ControlPlane, recorder: Recorder) -> bool:
    """A webhook is asked a moment after it was configured."""
    _create(plane, manifest("pod-not-annotated"), "apply", "--dry-run=server")
    return bool(recorder.reviews)


def record(plane: ControlPlane, recorder: Recorder) -> dict[str, Object]:
    """The reviews by their names."""
    names = sorted(path.stem for path in (FOLDER / "objects").glob("*.yaml"))
    found = {name: _review(plane, recorder, manifest(name)) for name in names}
    job = manifest("job")
    found["job-dry-run"] = _review(plane, recorder, job, "apply", "--dry-run=server")
    found["job-server-side"] = _review(plane, recorder, job, "apply", "--server-side")
    found["job-generated-name"] = _review(plane, recorder, _generated(job), "create")
    found["job-update"] = _updated(plane, recorder, job)
    found["pod-of-a-job"] = _pod_of_a_job(plane, recorder, job)
    return found


def _create(plane: ControlPlane, item: Object, *words: str) -> None:
    plane.kubectl(*words, "--namespace", "ml", "--filename", "-", given=item)


def _review(plane: ControlPlane, recorder: Recorder, item: Object, *words: str) -> Object:
    """The one of an object that is created, and then deleted again."""
    recorder.reviews.clear()
    _create(plane, item, *(words or ("apply",)))
    review = recorder.of(item)[0]
    plane.kubectl("delete", item["kind"], "--all", "--namespace", "ml", "--wait=false")
    return review


def _generated(item: Object) -> Object:
    """Without a name of its own."""
    found = copy.deepcopy(item)
    found["metadata"]["generateName"] = f"{found['metadata'].pop('name')}-"
    return found


def _updated(plane: ControlPlane, recorder: Recorder, job: Object) -> Object:
    recorder.reviews.clear()
    name = job["metadata"]["name"]
    _create(plane, job, "apply")
    wait_for(lambda: "active" in plane.get("job", name)["status"], "the Job gets no Pod")
    plane.kubectl("label", "job", name, "team=vision", "--namespace", "ml")
    updates = recorder.of(job, "UPDATE")
    return next(r for r in updates if "labels" in r["request"]["object"]["metadata"])


def _pod_of_a_job(plane: ControlPlane, recorder: Recorder, job: Object) -> Object:
    """As the controller of Jobs makes it, of an annotated template."""
    job = copy.deepcopy(job)
    own = job["metadata"].pop("annotations")
    job["metadata"]["name"] = "template"
    job["spec"]["template"]["metadata"] = {"annotations": own}
    recorder.reviews.clear()
    _create(plane, job, "apply")
    pod = {"kind": "Pod", "metadata": {"generateName": "template-"}}
    wait_for(lambda: bool(recorder.of(pod)), "the Job gets no Pod")
    return recorder.of(pod)[0]


def settled(review: Object) -> Object:
    """Without what is different each time."""
    found: Object = json.loads(CHANGING.sub("*", json.dumps(review)))
    return found


def main() -> None:
    """Write them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with control_plane(folder) as plane, recorded_by(plane, folder) as recorder:
            custom_resources(plane, "trainjobs")
            for stem, review in record(plane, recorder).items():
                (REVIEWS / f"{stem}.json").write_text(json.dumps(review, indent=2) + "\n")


if __name__ == "__main__":
    main()
