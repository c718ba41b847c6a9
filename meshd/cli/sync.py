"""``meshd sync``: whether a global and its zones have the same, as the control plane that is asked sees it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from meshd.cli import output
from meshd.cli.remote import ControlPlane

WAYS = ("sent", "received")
CALM = ("in sync", "waiting")
"""States that need no attention: who has nothing of a kind may say nothing of it."""
UNKNOWN = "unknown"
"""The state of what the other end had when it was last heard of."""
SHOWN_DIGITS = 12


@click.command()
@click.argument("zone", required=False)
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Also the kinds that are in sync, or not known of an offline zone."
)
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)
@click.pass_obj
def sync(control_plane: ControlPlane, zone: str | None, everything: bool, form: str) -> None:
    """Show how far global and ZONE (default: all of them) have the same, by kind and direction.

    Exit code 1 if a zone is offline or a kind is not in sync.
    """
    zones = [zone] if zone else zones_of(control_plane)
    found = [control_plane.get(f"/zones/{quote(name, safe='')}/_sync") for name in zones]
    if form != "table":
        output.show(found[0] if zone else {"total": len(found), "items": found}, form)
    else:
        for one in found:
            show(one, everything=everything)
        if not found:
            click.echo("nothing to synchronize: no zone has joined, or this zone has no global")
    if not all(one["online"] and not troubled(one) for one in found):
        raise SystemExit(1)


def zones_of(control_plane: ControlPlane) -> list[str]:
    """The zones whose streams the control plane has: all of a global, its own in a zone that has a global."""
    config = control_plane.get("/config")
    if config["mode"] == "global":
        return [str(zone["name"]) for zone in control_plane.items("/zones")]
    zone = config["multizone"]["zone"]
    return [str(zone["name"])] if zone["globalAddress"] else []


def kinds(one: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every kind with its way."""
    for way in WAYS:
        for kind in one[way]:
            yield way, kind


def troubled(one: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The kinds that are not in sync."""
    return [(way, kind) for way, kind in kinds(one) if kind["state"] not in CALM]


def show(one: Mapping[str, Any], *, everything: bool) -> None:
    """A zone in one line, and its kinds in a table."""
    word = "online" if one["online"] else f"offline ({one['reason']})"
    wrong = troubled(one)
    total = sum(1 for _ in kinds(one))
    summary = f"{len(wrong)} of {total} kinds not in sync" if wrong else f"{total} kinds in sync"
    since = f" since {one['since']}" if one["since"] else ""
    click.echo(f"zone {one['zone']}: {word}{since}, {summary}")
    # Of a zone that is offline nothing more is known of any kind than that.
    rows = list(kinds(one)) if everything else [row for row in wrong if one["online"] or row[1]["state"] != UNKNOWN]
    if rows:
        now = datetime.now(UTC)
        output.table(
            ["DIRECTION", "KIND", "STATUS", "SEQUENCE", "COUNT", "DIGEST", "AGE"],
            [
                [
                    way,
                    kind["kind"],
                    kind["status"],
                    str(kind["sequence"]),
                    str(kind["count"]),
                    kind["digest"][:SHOWN_DIGITS],
                    output.age(kind["at"], now),
                ]
                for way, kind in rows
            ],
        )
