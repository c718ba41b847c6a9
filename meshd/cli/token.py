"""``meshd token zone|dataplane|user``: tokens issued by a control plane, on standard output and nothing else."""

from collections.abc import Mapping
from typing import Any

import click

from meshd.cli.remote import ControlPlane

VALID_FOR = click.option("--valid-for", default="720h", show_default=True, help="A duration such as 24h.")


@click.group()
def token() -> None:
    """Issue a token, signed by the control plane."""


@token.command()
@click.argument("zone")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("cp",),
    show_default=True,
    type=click.Choice(["cp", "ingress", "egress"]),
    help="What the token is for; repeatable.",
)
@VALID_FOR
@click.pass_obj
def zone(control_plane: ControlPlane, zone: str, scopes: tuple[str, ...], valid_for: str) -> None:
    """A token with which ZONE proves its name to the global (scope cp), or its ingress or egress to the zone."""
    _issue(control_plane, "zone", {"zone": zone, "scope": list(scopes), "validFor": valid_for})


@token.command()
@click.option("-m", "--mesh", default="default", show_default=True)
@click.option("--name", default="", help="Only for the Dataplane of this name.")
@click.option(
    "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Only for a Dataplane with this tag; repeatable."
)
@click.option("--type", "proxy_type", default="", help="dataplane, ingress or egress.")
@click.option("--workload", default="", help="Only for this workload.")
@VALID_FOR
@click.pass_obj
def dataplane(
    control_plane: ControlPlane,
    mesh: str,
    name: str,
    tags: tuple[str, ...],
    proxy_type: str,
    workload: str,
    valid_for: str,
) -> None:
    """A token with which a proxy proves which Dataplane it is."""
    wanted: dict[str, list[str]] = {}
    for tag in tags:
        key, equals, value = tag.partition("=")
        if not equals or not key or not value:
            raise click.UsageError(f"--tag must be KEY=VALUE, not {tag!r}")
        wanted.setdefault(key, []).append(value)
    body = {"mesh": mesh, "name": name, "tags": wanted, "type": proxy_type, "workload": workload}
    _issue(control_plane, "dataplane", {**body, "validFor": valid_for})


@token.command()
@click.argument("name")
@click.option("--group", "groups", multiple=True, help="A group of the user; repeatable.")
@VALID_FOR
@click.pass_obj
def user(control_plane: ControlPlane, name: str, groups: tuple[str, ...], valid_for: str) -> None:
    """A token with which the user NAME calls the REST API."""
    _issue(control_plane, "user", {"name": name, "groups": list(groups), "validFor": valid_for})


def _issue(control_plane: ControlPlane, what: str, body: Mapping[str, Any]) -> None:
    click.echo(control_plane.request("POST", f"/tokens/{what}", json=dict(body)).text.strip())
