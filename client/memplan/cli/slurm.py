"""`memplan slurm`: the resident helper of the Slurm plugins."""

from __future__ import annotations

import logging
import signal

import click

from memplan.cli import exits

__all__ = ["slurm"]


@click.command(short_help="Serve the plugins of Slurm.")
@click.option(
    "--config",
    default="/etc/slurm/memplan.toml",
    show_default=True,
    metavar="FILE",
    help="Its settings: the server, the socket, and what the GPUs of the cluster are.",
)
def slurm(config: str) -> int:
    """Serve the plugins of Slurm in deploy/slurm until it is told to stop.

    Runs beside slurmctld, as its user, and on every node from which people submit.
    """
    from memplan.slurm.config import ConfigError, load
    from memplan.slurm.helper import Helper

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # before threads, which inherit it
    try:
        with Helper(load(config)).running():
            click.echo("memplan: ready", err=True)
            signal.sigwait(stop)
    except (ConfigError, OSError, ValueError) as error:
        click.echo(f"memplan: {error}", err=True)
        return exits.BAD_REQUEST
    return exits.FITS
