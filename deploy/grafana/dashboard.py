"""Writes memplan.json, the dashboard, beside this file: `make dashboard`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FILE = Path(__file__).with_name("memplan.json")
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24
J = 'job=~"$job"'
RATE = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Graph:
    """Lines over time."""

    title: str
    unit: str
    legend: str
    query: str
    description: str = ""

    def panel(self) -> timeseries.Panel:
        """As Grafana has it."""
        target = Dataquery().expr(self.query).ref_id("A").datasource(SOURCE)
        target.legend_format(self.legend)
        legend = VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM)
        panel = timeseries.Panel().title(self.title).unit(self.unit).datasource(SOURCE)
        return (
            panel.description(self.description)
            .min(0)
            .fill_opacity(10)
            .with_target(target)
            .legend(legend)
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of now."""

    title: str
    unit: str
    query: str
    description: str = ""

    def panel(self) -> stat.Panel:
        """As Grafana has it."""
        target = Dataquery().expr(self.query).instant().ref_id("A").datasource(SOURCE)
        panel = stat.Panel().title(self.title).unit(self.unit).datasource(SOURCE)
        return (
            panel.description(self.description)
            .no_value("none")
            .with_target(target)
            .graph_mode(BigValueGraphMode.NONE)
        )


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of now: the labels of the queries, and a column of bytes for each title."""

    title: str
    columns: tuple[tuple[str, str], ...]
    """Title and query."""
    hidden: tuple[str, ...] = ()
    """Labels that are no column."""
    description: str = ""

    def panel(self) -> table.Panel:
        """As Grafana has it."""
        panel = table.Panel().title(self.title).datasource(SOURCE).description(self.description)
        panel.show_header(True)
        names = {}
        for ref, (title, query) in zip("ABCDEFG", self.columns, strict=False):
            target = Dataquery().expr(query).instant().ref_id(ref).datasource(SOURCE)
            panel.with_target(target.format(PromQueryFormat.TABLE))
            names[f"Value #{ref}"] = title
            panel.override_by_name(title, [DynamicConfigValue(id_val="unit", value=units.BytesIEC)])
        hidden = dict.fromkeys(("Time", *self.hidden), True)
        for name, options in (
            ("merge", {}),
            ("organize", {"renameByName": names, "excludeByName": hidden}),
        ):
            panel.with_transformation(DataTransformerConfig(id_val=name, options=options))
        return panel


Row = tuple[str, int, tuple[Graph | Figure | Table, ...]]
"""Title, height, and what is side by side."""

_METHODS = f'{J},method=~"memplan.+"'
_FAULT = 'code=~"INTERNAL|UNKNOWN|UNAVAILABLE"'


def _planned(metric: str) -> str:
    """Of the jobs that have a verdict, with it and what the job is as labels."""
    verdict = "on (job, instance, job_digest, gpu_type) group_left (verdict) memplan_job_verdict"
    what = "on (job, instance, job_digest) group_left (model, optimizer, precision)"
    return f"{metric}{{{J}}} * {verdict} * {what} memplan_job_info"


ROWS: tuple[Row, ...] = (
    (
        "Now",
        4,
        (
            Figure("Servers", units.Short, f"count(memplan_build_info{{{J}}})"),
            Figure(
                "Calls that failed",
                units.PercentUnit,
                f"(sum(rate(memplan_requests_total{{{_METHODS},{_FAULT}}}[1h])) or vector(0)) "
                f"/ (sum(rate(memplan_requests_total{{{_METHODS}}}[1h])) > 0)",
                "In the last hour, by the server's fault.",
            ),
            Figure("Calls under way", units.Short, f"sum(memplan_requests_in_flight{{{J}}})"),
            Figure("Profiles that wait", units.Short, f"sum(memplan_profiles_queued{{{J}}})"),
            Figure(
                "Databases of profiles that do not answer",
                units.Short,
                f"count(memplan_profile_store_up{{{J}}} == 0) or vector(0)",
            ),
        ),
    ),
    (
        "GPUs",
        8,
        (
            Graph(
                "Free memory by GPU type",
                units.BytesIEC,
                "{{gpu_type}}",
                "sum by (gpu_type) (min by (node, gpu_type, uuid) "
                f"(memplan_gpu_memory_free_bytes{{{J}}}))",
            ),
            Graph(
                "Share that is free",
                units.PercentUnit,
                "{{gpu_type}}",
                "sum by (gpu_type) (min by (node, gpu_type, uuid) "
                f"(memplan_gpu_memory_free_bytes{{{J}}})) / sum by (gpu_type) "
                f"(max by (node, gpu_type, uuid) (memplan_gpu_memory_total_bytes{{{J}}}))",
            ),
            Table(
                "GPUs",
                (
                    (
                        "free",
                        f"min by (node, gpu_type, uuid) (memplan_gpu_memory_free_bytes{{{J}}})",
                    ),
                    (
                        "total",
                        f"max by (node, gpu_type, uuid) (memplan_gpu_memory_total_bytes{{{J}}})",
                    ),
                ),
            ),
        ),
    ),
    (
        "Jobs",
        10,
        (
            Table(
                "Jobs planned last",
                (
                    ("expected", _planned("memplan_job_predicted_peak_bytes")),
                    ("at most", _planned("memplan_job_upper_bound_bytes")),
                ),
                hidden=("job",),
                description="The last 50 of each server, at the micro-batch size asked about last.",
            ),
            Graph(
                "Verdicts",
                units.Short,
                "{{gpu_type}} {{verdict}}",
                f"sum by (gpu_type, verdict) (increase(memplan_verdicts_total{{{J}}}[1h]))",
                "Placements answered in an hour.",
            ),
        ),
    ),
    (
        "Calls",
        8,
        (
            Graph(
                "Calls by method",
                units.RequestsPerSecond,
                "{{method}}",
                f"sum by (method) (rate(memplan_requests_total{{{_METHODS}}}{RATE}))",
            ),
            Graph(
                "Calls that were not answered",
                units.RequestsPerSecond,
                "{{code}}",
                f'sum by (code) (rate(memplan_requests_total{{{_METHODS},code!="OK"}}{RATE}))',
            ),
            Graph(
                "Time of 99% of the calls",
                units.Seconds,
                "{{method}}",
                "histogram_quantile(0.99, sum by (method, le) "
                f"(rate(memplan_request_duration_seconds_bucket{{{_METHODS}}}{RATE})))",
            ),
            Graph(
                "Look-ups that hit",
                units.PercentUnit,
                "{{cache}}",
                f'sum by (cache) (rate(memplan_cache_requests_total{{{J},result="hit"}}{RATE})) '
                f"/ sum by (cache) (rate(memplan_cache_requests_total{{{J}}}{RATE}))",
            ),
        ),
    ),
    (
        "Workers",
        8,
        (
            Graph("Workers", units.Short, "{{state}}", f"sum by (state) (memplan_workers{{{J}}})"),
            Graph(
                "Tasks that wait",
                units.Short,
                "{{instance}}",
                f"memplan_worker_tasks_queued{{{J}}}",
            ),
            Graph(
                "Workers that ended",
                units.Short,
                "{{reason}}",
                f"sum by (reason) (increase(memplan_worker_ends_total{{{J}}}{RATE}))",
            ),
            Graph(
                "Time of 90% of the tasks",
                units.Seconds,
                "90%",
                "histogram_quantile(0.9, sum by (le) "
                f"(rate(memplan_simulation_duration_seconds_bucket{{{J}}}{RATE})))",
            ),
        ),
    ),
    (
        "Profiles",
        8,
        (
            Graph(
                "Devices",
                units.Short,
                "{{device_type}} {{gpu_type}} {{state}}",
                f"sum by (device_type, gpu_type, state) (memplan_profile_devices{{{J}}})",
            ),
            Graph(
                "Profiles that wait",
                units.Short,
                "{{instance}}",
                f"memplan_profiles_queued{{{J}}}",
            ),
            Graph(
                "Profiles that ended",
                units.Short,
                "{{outcome}}",
                f"sum by (outcome) (increase(memplan_profiles_total{{{J}}}[1h]))",
                "In an hour.",
            ),
            Graph(
                "Estimated by measured",
                units.PercentUnit,
                "{{gpu_type}}",
                f"sum by (gpu_type) (increase(memplan_prediction_ratio_sum{{{J}}}[1d])) "
                f"/ sum by (gpu_type) (increase(memplan_prediction_ratio_count{{{J}}}[1d]))",
                "Mean of a day; below 100% jobs take more than was expected.",
            ),
        ),
    ),
    (
        "Tenants",
        8,
        (
            Graph(
                "Calls let in",
                units.RequestsPerSecond,
                "{{tenant}}",
                f"sum by (tenant) (rate(memplan_tenant_requests_total{{{J}}}[5m]))",
            ),
            Graph(
                "Refused by a quota",
                units.Short,
                "{{tenant}} {{quota}}",
                f"sum by (tenant, quota) (increase(memplan_tenant_refusals_total{{{J}}}[1h]))",
                "In an hour.",
            ),
            Graph(
                "Time for which jobs were measured",
                units.Seconds,
                "{{tenant}}",
                f"sum by (tenant) (increase(memplan_tenant_measuring_seconds_total{{{J}}}[1h]))",
                "In an hour.",
            ),
        ),
    ),
)


def dashboard() -> build.Dashboard:
    """The whole."""
    source = build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    job = build.QueryVariable("job").label("Job").datasource(SOURCE).include_all(True).multi(True)
    job.all_value(".*")
    job.query("label_values(memplan_build_info, job)").refresh(
        VariableRefresh.ON_TIME_RANGE_CHANGED
    )
    made = build.Dashboard("memplan").uid("memplan").tags(["memplan", "gpu"]).readonly()
    made.refresh("1m").time("now-6h", "now").timezone("browser")
    made.with_variable(source).with_variable(job)
    for title, height, panels in ROWS:
        made.with_row(build.Row(title))
        for index, panel in enumerate(panels):
            width = WIDTH * (index + 1) // len(panels) - WIDTH * index // len(panels)
            made.with_panel(panel.panel().height(height).span(width))
    return made


def text() -> str:
    """The content of the file."""
    return JSONEncoder(indent=2, sort_keys=True).encode(dashboard().build()) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
