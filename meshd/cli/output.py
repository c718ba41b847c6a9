"""What commands print: tables for people, JSON and YAML for programs."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table

from meshd.model import labels as label

TIME = "creationTime"
WIDE = 10_000
OFFLINE = "Offline"


def show(data: Any, form: str) -> None:
    """Print plain data as ``json`` or ``yaml``."""
    if form == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns. Without a terminal nothing is cut or wrapped."""
    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in header:
        grid.add_column(name, no_wrap=True)
    for row in rows:
        grid.add_row(*(cell or "-" for cell in row))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=WIDE)
    with console.capture() as captured:
        console.print(grid)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def columns(
    kind: str, items: Sequence[Mapping[str, Any]], now: datetime, offline: Collection[str] = ()
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a list of resources (or overviews) of one kind.

    ``offline`` are zones that are away: what was last heard of their proxies is not what they are now.
    """
    with_mesh = any("mesh" in item for item in items)
    header = [*(["MESH"] if with_mesh else []), "NAME", *EXTRA.get(kind, {}), "AGE"]
    rows = []
    for item in items:
        extra = [cell(item) for cell in EXTRA.get(kind, {}).values()]
        if kind in OF_A_ZONE and extra[0] and zone_of(item) in offline:
            extra[0] = OFFLINE
        name = [str(item.get("mesh", ""))] if with_mesh else []
        rows.append([*name, str(item.get("name", "")), *extra, age(item.get(TIME), now)])
    return header, rows


def age(created: object, now: datetime) -> str:
    """How long ago, in one unit: 5s, 3m, 2h, 9d."""
    if not isinstance(created, str):
        return ""
    try:
        seconds = int((now - datetime.fromisoformat(created).astimezone(UTC)).total_seconds())
    except ValueError:
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"


def status(item: Mapping[str, Any]) -> str:
    """Online if any subscription is open: it has begun and not ended. With how much of it is refused, if any."""
    insight: Mapping[str, Any] = next((item[k] for k in INSIGHTS if item.get(k)), {})
    subscriptions = insight.get("subscriptions") or ()
    word = "Online" if any("connectTime" in s and "disconnectTime" not in s for s in subscriptions) else OFFLINE
    refused = (insight.get("metadata") or {}).get("refused")
    return f"{word} ({len(refused)} refused)" if refused else word


def known_status(item: Mapping[str, Any]) -> str:
    """As ``status``; unknown without an insight, as in a zone of itself and of another zone's ingress."""
    return status(item) if any(item.get(k) for k in INSIGHTS) else ""


def offline_zones(zones: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The names of those zones, of their overviews, that are known to be away."""
    return frozenset(str(zone["name"]) for zone in zones if known_status(zone) == OFFLINE)


def zone_status(item: Mapping[str, Any]) -> str:
    """As ``known_status``, with a zone that was disabled said so."""
    disabled = (item.get("zone") or {}).get("enabled") is False
    return (known_status(item) or "-") + (" (disabled)" if disabled else "")


def services(item: Mapping[str, Any]) -> str:
    """The services of a Dataplane."""
    networking = (item.get("dataplane") or item).get("networking") or {}
    tagged = [networking.get("gateway") or {}, *(networking.get("inbound") or ())]
    found = [(part.get("tags") or {}).get(label.SERVICE) for part in tagged]
    return ",".join(dict.fromkeys(s for s in found if s))


def address(item: Mapping[str, Any]) -> str:
    """Where other zones or proxies reach a zone proxy."""
    proxy = item.get("zoneIngress") or item.get("zoneEgress") or item
    networking = proxy.get("networking") or {}
    host = networking.get("advertisedAddress") or networking.get("address", "")
    return f"{host}:{networking.get('advertisedPort') or networking.get('port', '')}"


def zone_of(item: Mapping[str, Any]) -> str:
    """The zone that a resource comes from."""
    proxy = item.get("zoneIngress") or item.get("zoneEgress") or item
    return str(proxy.get("zone") or (item.get("labels") or {}).get(label.ZONE, ""))


def backend(item: Mapping[str, Any]) -> str:
    """A mesh's mTLS backend."""
    return str((item.get("mtls") or {}).get("enabledBackend", ""))


INSIGHTS = ("zoneInsight", "dataplaneInsight", "zoneIngressInsight", "zoneEgressInsight")
EXTRA: Mapping[str, Mapping[str, Any]] = {
    "Mesh": {"MTLS": backend},
    "Zone": {"STATUS": zone_status},
    "Dataplane": {"STATUS": status, "SERVICES": services, "ZONE": zone_of},
    "ZoneIngress": {"STATUS": known_status, "ADDRESS": address, "ZONE": zone_of},
    "ZoneEgress": {"STATUS": known_status, "ADDRESS": address, "ZONE": zone_of},
}
OF_A_ZONE = ("Dataplane", "ZoneIngress", "ZoneEgress")
"""Kinds of which each belongs to a zone; STATUS is their first column."""
OVERVIEWS = ("Zone", "Dataplane", "ZoneIngress", "ZoneEgress")
"""Kinds whose table is made of overviews, which know who is online."""
