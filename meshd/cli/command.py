"""The command tree. What a command needs is imported when it is called: most of what a command takes is imports."""

import importlib
from pathlib import Path

import click

from meshd import __version__

COMMANDS = {
    "apply": "resources",
    "check": "check",
    "delete": "resources",
    "dns": "dns",
    "get": "resources",
    "sync": "sync",
    "token": "token",
}
"""Every command, and the module of this package that has it under the same name."""


class Commands(click.Group):
    """Has the commands of ``COMMANDS``, as they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Every command, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"meshd.cli.{COMMANDS[cmd_name]}"), cmd_name)
        return command


@click.group(cls=Commands, invoke_without_command=True)
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
        from meshd.cli.remote import ControlPlane  # noqa: PLC0415

        context.obj = context.obj or ControlPlane(cp, user_token)
        return
    if not configs:
        click.echo(context.get_help())
        raise SystemExit(2)
    from meshd.cli.run import run  # noqa: PLC0415

    raise SystemExit(run(configs))


def main() -> int:
    """The entry point of the ``meshd`` command."""
    root(prog_name="meshd")
    return 0
