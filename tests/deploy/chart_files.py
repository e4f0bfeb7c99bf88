"""Writes what follows from other files: run by `make chart`, and compared by tests.

- `$defs.settings` of the chart's values.schema.json, from the server's settings;
- the tables of the chart's README.md, from the comments of values.yaml;
- the plain manifests in deploy/kubernetes/, from the chart: whoever has no Helm applies those, and
  the tests that need no Helm read them.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import helm_program
import yaml

from memplan_server import settings as server

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "memplan"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
PLAIN = ROOT / "deploy" / "kubernetes"

OWNED = {
    "listen": "`ports.grpc`",
    "metrics_port": "`ports.metrics`",
    "data_dir": "the image; `dataSize` is its size",
    "tls_cert": "`tls.existingSecret`",
    "tls_key": "`tls.existingSecret`",
    "tls_client_ca": "`tls.clientCertificates`",
    "node_name": "the chart: the name of the pod's node",
    "profile_store_url": "`profileStore.existingSecret`",
}
"""Settings that other values of the chart make."""

PLAIN_VALUES: dict[str, dict[str, str]] = {
    "estimator": {},
    "webhook": {
        "webhook.enabled": "true",
        "webhook.certificates.mode": "existing",
        "webhook.certificates.existingSecret": "memplan-webhook",
    },
    "kueue": {"kueue.enabled": "true", "kueue.admissionCheck.create": "false"},
}
"""Folders of templates that are rendered as plain manifests, and the values they take."""

SIZE = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": "^[1-9][0-9]* ?([KMG]iB)?$"},
    ]
}
SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400}
SCHEMAS: dict[Any, dict[str, Any]] = {
    server.byte_size: SIZE,
    server.seconds: SECONDS,
    server.pause: {"type": "number", "minimum": 0, "maximum": 86_400},
    server.count: {"type": "integer", "minimum": 1, "maximum": 10_000},
    server.large_count: {"type": "integer", "minimum": 1, "maximum": 10_000_000},
    server.port: {"type": "integer", "minimum": 0, "maximum": 65_535},
    Path: {"type": "string", "pattern": "^/"},
    server.truth: {"type": "boolean"},
    server.targets: {"type": "array", "items": {"type": "string", "pattern": "^[^,\\s]+$"}},
}
"""What values.schema.json says of each parser of settings."""


def camel(name: str) -> str:
    """`job_time_limit` as the chart writes it: `jobTimeLimit`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def settings_schema() -> dict[str, Any]:
    """JSON schema of `estimator.settings` and `profiler.settings`."""
    properties = {
        camel(spec.name): _schema_of(spec.metadata["parse"])
        | {"description": spec.metadata["help"]}
        for spec in fields(server.Settings)
        if spec.name not in OWNED
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _schema_of(parse: Any) -> dict[str, Any]:
    if parse in SCHEMAS:
        return SCHEMAS[parse]
    choices = inspect.getclosurevars(parse).nonlocals.get("choices")
    assert choices, f"say in SCHEMAS what {parse.__name__} takes"
    return {"enum": list(choices)}


def schema() -> str:
    """values.schema.json with the server's settings as they are."""
    whole = json.loads(SCHEMA.read_text())
    whole["$defs"]["settings"] = settings_schema()
    return json.dumps(whole, indent=2) + "\n"


def described(text: str) -> Iterator[tuple[str, str]]:
    """Path and description of each value that has a comment above it."""
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        found = re.match(r"( *)([\w]+):", line)
        if line.strip().startswith("# "):
            comment.append(line.strip().removeprefix("# "))
        elif found and not line.strip().startswith("- "):
            indent = len(found[1])
            path = [*(part for part in path if part[0] < indent), (indent, found[2])]
            if comment:
                yield ".".join(name for _, name in path), " ".join(comment)
            comment = []
        else:
            comment = []


def values_table() -> str:
    """Every value, its default and what it is."""
    text = (CHART / "values.yaml").read_text()
    defaults = yaml.safe_load(text)
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for path, meaning in described(text):
        default: Any = defaults
        for part in path.split("."):
            default = default[part]
        escaped = meaning.replace("|", "\\|")
        lines.append(f"| `{path}` | `{json.dumps(default)}` | {escaped} |")
    return "\n".join(lines)


def owned_table() -> str:
    """Settings that are not in `settings`, and which value makes them."""
    rows = [f"| `MEMPLAN_{name.upper()}` | {value} |" for name, value in OWNED.items()]
    return "\n".join(["| variable | made by |", "|---|---|", *rows])


def readme() -> str:
    """README.md of the chart with its tables as they are."""
    text = README.read_text()
    for name, table in {"values": values_table(), "owned": owned_table()}.items():
        marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(marks[0])
        text = f"{before}{marks[0]}\n{table}\n{marks[1]}{rest.partition(marks[1])[2]}"
    return text


def plain_manifests() -> dict[Path, str]:
    """Files of deploy/kubernetes/ and what `helm template` makes of the chart for each."""
    written = {}
    for folder, values in PLAIN_VALUES.items():
        rendered = helm_program.template(values)
        for document in re.split(r"^---\n", rendered, flags=re.M)[1:]:
            source, _, body = document.partition("\n")
            name = re.fullmatch(rf"# Source: memplan/templates/{folder}/(.+)", source)
            if name:
                where = PLAIN if folder == "estimator" else PLAIN / folder
                written[where / name[1]] = _without_helm(body)
    return written


def _without_helm(text: str) -> str:
    """A manifest without the labels that say that Helm looks after it, and without empty lines."""
    helm = ("app.kubernetes.io/managed-by: ", "helm.sh/chart: ")
    kept = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(helm)
    ]
    return "\n".join(kept) + "\n"


def main() -> None:
    """Write them all."""
    SCHEMA.write_text(schema())
    README.write_text(readme())
    written = plain_manifests()
    for path in PLAIN.rglob("*.yaml"):
        if path not in written:
            path.unlink()
    for path, text in written.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
