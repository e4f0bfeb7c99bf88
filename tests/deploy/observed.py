"""The rules, the dashboard and the queries of the docs, and which metrics they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from memplan_server.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
RULES_TEST = RULES.with_name("rules_test.yaml")
DASHBOARD = ROOT / "deploy" / "grafana" / "memplan.json"
_OF_TYPE = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "info": ("_info",),
}


@cache
def exposed() -> frozenset[str]:
    """Names of all samples that a server may show."""
    families = Metrics().registry.collect()
    return frozenset(f.name + end for f in families for end in _OF_TYPE.get(f.type, ("",)))


def rules() -> list[dict[str, Any]]:
    """Every rule."""
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    """Every alerting rule."""
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    """Names of what the rules record."""
    return {rule["record"] for rule in rules() if "record" in rule}


def dashboard_queries() -> Iterator[str]:
    """Every query of the dashboard, Grafana's variables filled in."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets") or ():
            yield target["expr"].replace("$job", ".*").replace("$__rate_interval", "5m")


def named(query: str) -> set[str]:
    """The metrics that a query names."""
    return set(re.findall(r"(?:[a-z_0-9]+:)?\bmemplan[a-z_0-9:]+", re.sub(r'"[^"]*"', "", query)))
