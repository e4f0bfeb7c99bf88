"""Rules and dashboard say what the server shows, and alerts say what to do."""

from __future__ import annotations

import re

import dashboard
import pytest
import yaml
from observed import (
    DASHBOARD,
    ROOT,
    RULES_TEST,
    alerts,
    dashboard_queries,
    exposed,
    named,
    recorded,
    rules,
)


def anchors(page: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_name_what_there_is(rule: dict[str, str]) -> None:
    assert named(rule["expr"]) <= exposed() | recorded()
    assert named(rule["expr"]) or rule["alert"] == "MemplanDown"


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_alerts_say_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert anchor in anchors(page)


def test_every_alert_is_seen_firing_in_a_test() -> None:
    tests = yaml.safe_load(RULES_TEST.read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    fired = {case["alertname"] for case in cases if case.get("exp_alerts")}
    assert fired == {alert["alert"] for alert in alerts()}


def test_the_dashboard_is_the_one_from_the_code() -> None:
    assert DASHBOARD.read_text() == dashboard.text(), "to update: make dashboard"


def test_the_dashboard_shows_what_there_is() -> None:
    queries = list(dashboard_queries())
    shown = set().union(*map(named, queries))
    assert all(map(named, queries))
    assert shown <= exposed()
    # What it leaves out is left out on purpose.
    names = {re.sub("_(bucket|sum|count)$", "", name) for name in shown}
    missing = {re.sub("_(bucket|sum|count)$", "", n) for n in exposed()} - names
    assert {name for name in missing if not name.endswith("_created")} == {
        "memplan_cache_size_bytes",
        "memplan_gpu_info",
        "memplan_job_micro_batch_size",
        "memplan_profile_duration_seconds",
    }


@pytest.mark.parametrize(
    ("query", "metrics"),
    [
        ('sum(memplan_a_total{method=~"memplan.+"})', {"memplan_a_total"}),
        (
            "gpu_type:memplan_b:sum > bool memplan:c:rate5m",
            {"gpu_type:memplan_b:sum", "memplan:c:rate5m"},
        ),
    ],
)
def test_names_are_found(query: str, metrics: set[str]) -> None:
    assert named(query) == metrics
