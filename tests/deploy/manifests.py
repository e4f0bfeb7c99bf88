"""Manifests: read, validated against the schemas of Kubernetes and of the operators used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

__all__ = ["NEWEST", "OLDEST", "Manifest", "containers", "pods", "read", "validate"]

Manifest = dict[str, Any]
OLDEST = "1.34"
NEWEST = kubernetes_validate.latest_version().rpartition(".")[0]
SCHEMAS = Path(__file__).parent / "schemas"


def read(text: str) -> list[Manifest]:
    """The documents of a YAML file, empty ones left out."""
    return [document for document in yaml.safe_load_all(text) if document]


def validate(manifest: Manifest, version: str) -> None:
    """Raises kubernetes_validate.ValidationError or jsonschema.ValidationError where a field is
    wrong or unknown, kubernetes_validate.SchemaNotFoundError where the kind is."""
    validator = _operators().get((manifest.get("apiVersion"), manifest.get("kind")))
    if validator is None:
        kubernetes_validate.validate(manifest, version, strict=True)
    else:
        validator.validate(manifest)


@cache
def _operators() -> dict[tuple[str, str], jsonschema.Draft202012Validator]:
    schemas = [json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")]
    return {
        tuple(schema["properties"][name]["const"] for name in ("apiVersion", "kind")): (
            jsonschema.Draft202012Validator(schema)
        )
        for schema in schemas
    }


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Name and pod spec of everything that runs."""
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Pod":
            yield name, manifest["spec"]
        elif "template" in manifest.get("spec", {}):
            yield name, manifest["spec"]["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    """All containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]
