"""The command tree, and running control planes."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import click

from meshd import __version__
from meshd.cli.check import check, report
from meshd.cli.known import decode
from meshd.cli.remote import ControlPlane
from meshd.cli.resources import apply, delete, get
from meshd.cli.token import token
from meshd.config import ConfigErrors, LoadedConfig, check_together, load_files, unreadable_files
from meshd.runtime import log as process_log

log = logging.getLogger(__name__)


@click.group(invoke_without_command=True)
@click.option(
    "--config",
    "configs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Run the control plane that FILE describes; repeatable, several roles in one process.",
    metavar="FILE",
)
@click.option(
    "--cp",
    envvar="MESHD_CP",
    default="http://127.0.0.1:5681",
    show_default=True,
    help="The control plane that commands talk to; also MESHD_CP.",
)
@click.option("--token", "user_token", envvar="MESHD_TOKEN", default="", help="A user token; also MESHD_TOKEN.")
@click.version_option(__version__, prog_name="meshd", message="%(prog)s %(version)s")
@click.pass_context
def root(context: click.Context, configs: tuple[Path, ...], cp: str, user_token: str) -> None:
    """A multi-zone service mesh control plane in one process."""
    if context.invoked_subcommand is not None:
        if configs:
            raise click.UsageError(f"--config runs a control plane; it does not go with {context.invoked_subcommand}")
        context.obj = context.obj or ControlPlane(cp, user_token)
        return
    if not configs:
        click.echo(context.get_help())
        raise SystemExit(2)
    raise SystemExit(run(configs))


for command in (check, apply, get, delete, token):
    root.add_command(command)


def run(paths: Sequence[Path]) -> int:
    """Load, check and run; everything wrong is said, with exit code 2, before anything starts."""
    loaded = load(paths)
    settings = loaded[0].config.logging
    process_log.set_up(settings.level, settings.format)
    for one in loaded:
        for warning in one.warnings:
            log.warning("%s", warning)
    from meshd.app import run as run_roles  # noqa: PLC0415  # client commands start without the servers' imports

    return run_roles(loaded)


def load(paths: Sequence[Path]) -> tuple[LoadedConfig, ...]:
    """The roles to run, which fit together and whose files are there; ends the process with code 2 otherwise."""
    loaded: tuple[LoadedConfig, ...] = ()
    try:
        loaded = load_files(paths, os.environ, decode())
        check_together(loaded)
    except ConfigErrors as error:
        report(error.problems)
    report(unreadable_files(loaded))
    return loaded


def main() -> int:
    """The entry point of the ``meshd`` command."""
    root(prog_name="meshd")
    return 0
