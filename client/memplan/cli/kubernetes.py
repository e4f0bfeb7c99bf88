"""`memplan webhook` and `memplan kueue`: what Kubernetes asks before it takes a job."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from memplan.cli import exits
from memplan.cli.options import connection_options
from memplan.cli.values import Shorthand
from memplan.types import GpuTarget

__all__ = ["kueue", "webhook"]

_SECRET = Path("/etc/memplan/webhook")
_FILE = click.Path(dir_okay=False, path_type=Path)


def _planner_options(prefix: str) -> Callable[[Any], Any]:
    """Whom to ask, and about which GPUs."""
    options = [
        click.option(
            "--gpu",
            "gpus",
            type=Shorthand(GpuTarget, "NAME[:FREE]"),
            multiple=True,
            envvar=f"{prefix}_GPU",
            show_envvar=True,
            help="GPU type of the cluster, for jobs that name none; a value of the node label "
            "nvidia.com/gpu.product will do. Repeatable; blanks between several in the variable. "
            "Default: every type of the catalog.",
        ),
        click.option(
            "--server",
            envvar="MEMPLAN_SERVER",
            default="",
            metavar="HOST:PORT",
            show_envvar=True,
            help="The planner. Default: localhost:50051.",
        ),
        connection_options,
    ]

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _port_option(variable: str) -> Callable[[Any], Any]:
    return click.option(
        "--metrics-port",
        type=click.IntRange(0, 65_535),
        envvar=variable,
        show_envvar=True,
        metavar="N",
        help="Port of the metrics, HTTP. Default: no metrics.",
    )


def _setting(name: str, **options: Any) -> Callable[[Any], Any]:
    variable = f"MEMPLAN_WEBHOOK_{name.upper()}"
    return click.option(
        f"--{name}", envvar=variable, show_envvar=True, show_default=True, **options
    )


@click.command(short_help="Plan jobs when they are created in Kubernetes.")
@_setting("listen", default="0.0.0.0:8443", metavar="HOST:PORT", help="Address to serve HTTPS on.")
@_setting("cert", type=_FILE, default=_SECRET / "tls.crt", help="Its certificate chain, PEM.")
@_setting("key", type=_FILE, default=_SECRET / "tls.key", help="Key of it, PEM.")
@_port_option("MEMPLAN_WEBHOOK_METRICS_PORT")
@_setting(
    "policy",
    type=click.Choice(["warn", "reject"]),
    default="warn",
    help="What becomes of jobs that fit on no GPU, or are described wrongly.",
)
@_setting(
    "placement",
    type=click.Choice(["affinity", "mig", "dra"]),
    default="affinity",
    help="How GPUs are asked for.",
)
@_setting(
    "patience",
    type=click.FloatRange(0.1, 29),
    default=8.0,
    metavar="SECONDS",
    help="Longest time to wait for a plan that the planner is working on; less than the "
    "timeoutSeconds of the webhook.",
)
@_planner_options("MEMPLAN_WEBHOOK")
def webhook(**options: Any) -> int:
    """Plan jobs when they are created in Kubernetes: a mutating admission webhook.

    Runs until it is told to stop. Needs the extra `kubernetes`. The files of the certificate may be
    renewed meanwhile.
    """
    _require("aiohttp", "prometheus_client")
    from memplan.kubernetes.annotations import Placing, Policy
    from memplan.kubernetes.review import Reviewer
    from memplan.kubernetes.webhook import serve

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        with _connected(options) as client:
            reviewer = Reviewer(
                client,
                gpus=options["gpus"],
                placing=Placing(options["placement"]),
                policy=Policy(options["policy"]),
                patience_s=options["patience"],
            )
            running = serve(
                reviewer,
                listen=_address(options["listen"]),
                cert=options["cert"],
                key=options["key"],
                metrics_port=options["metrics_port"],
                patience_s=options["patience"],
                ready=_announce,
            )
            try:
                asyncio.run(running)
            finally:
                reviewer.close()
    except (OSError, ValueError) as error:
        click.echo(f"memplan: {_said(error)}", err=True)
        return exits.BAD_REQUEST
    return exits.FITS


@click.command(short_help="Hold workloads of Kueue until they are planned.")
@click.option(
    "--controller-name",
    default="memplan.dev/planner",
    envvar="MEMPLAN_KUEUE_CONTROLLER_NAME",
    show_envvar=True,
    show_default=True,
    metavar="NAME",
    help="spec.controllerName of the AdmissionChecks that are answered.",
)
@click.option(
    "--kubeconfig",
    type=_FILE,
    envvar="KUBECONFIG",
    show_envvar=True,
    help="The cluster. Default: the one that this runs in.",
)
@_port_option("MEMPLAN_KUEUE_METRICS_PORT")
@click.option(
    "--patience",
    type=click.FloatRange(0.1, 3600),
    default=30.0,
    envvar="MEMPLAN_KUEUE_PATIENCE",
    show_envvar=True,
    show_default=True,
    metavar="SECONDS",
    help="So long a planner that is away is waited for; then the workload gives its quota back and "
    "is tried again by Kueue.",
)
@_planner_options("MEMPLAN_KUEUE")
def kueue(**options: Any) -> int:
    """Hold the workloads of Kueue until they are planned: the controller of an AdmissionCheck.

    Runs until it is told to stop. Needs the extra `kubernetes`.
    """
    _require("aiohttp", "kubernetes", "prometheus_client")
    from memplan.kubernetes.kueue.cluster import connect
    from memplan.kubernetes.kueue.controller import Controller, serve
    from memplan.kubernetes.metrics import KueueMetrics

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        with _connected(options) as client:
            metrics = KueueMetrics()
            controller = Controller(
                connect(options["kubeconfig"]),
                client,
                metrics,
                name=options["controller_name"],
                gpus=options["gpus"],
                patience_s=options["patience"],
            )
            asyncio.run(serve(controller, metrics, options["metrics_port"], _announce))
    except (OSError, ValueError) as error:
        click.echo(f"memplan: {_said(error)}", err=True)
        return exits.BAD_REQUEST
    return exits.FITS


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read: {error.strerror}"
    return str(error)


def _connected(options: dict[str, Any]) -> Any:
    """The client of the planner."""
    from memplan.cli.server import connection_arguments
    from memplan.scheduling.planner import connect

    return connect(options["server"], **connection_arguments(options))


def _require(*modules: str) -> None:
    """Say how to install what is not there. Raises click.ClickException."""
    for module in modules:
        if find_spec(module) is None:
            raise click.ClickException(
                f"{module} is not installed. Run: pip install 'memplan[cli,kubernetes]'"
            )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"--listen is {text!r}, not HOST:PORT")
    return host.strip("[]"), int(port)


def _announce(*ports: int | None) -> None:
    """Say where it serves: first HTTPS, if it does, and then the metrics."""
    known = " and ".join(str(port) for port in ports if port is not None)
    click.echo(f"memplan: ready on port {known}" if known else "memplan: ready", err=True)
