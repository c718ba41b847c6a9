"""The state of synchronization as plain data, for ``GET /_kds`` and ``GET /zones/ZONE/_sync``."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from meshd.kds.client import ZoneKds
from meshd.kds.keeper import Quarantine
from meshd.kds.ledger import KindSync
from meshd.kds.quarantine import Direction
from meshd.kds.server import GlobalKds


def global_status(kds: GlobalKds) -> Mapping[str, Any]:
    """Every zone, those that were turned away, and what is held back."""
    return {
        "zones": [
            {
                "name": zone.name,
                "online": zone.online,
                "since": timestamp(zone.since),
                "reason": zone.reason,
                "address": zone.address,
                "instanceId": zone.instance_id,
                "authenticated": zone.authenticated,
            }
            for _, zone in sorted(kds.zones.value.items())
        ],
        "refused": [
            {"zone": r.zone, "address": r.address, "at": timestamp(r.at), "reason": r.reason} for r in kds.refused.value
        ],
        "withheld": [{"kind": kind, "unreadable": keys} for kind, keys in sorted(kds.withheld.items())],
        "quarantine": quarantined(kds.quarantine),
    }


def zone_status(kds: ZoneKds | None) -> Mapping[str, Any]:
    """The link to the global; a standalone zone has none."""
    if kds is None:
        return {"global": None}
    status = kds.status.value
    return {
        "global": {
            "connected": status.connected,
            "synced": status.synced,
            "since": timestamp(status.since),
            "error": status.error,
        },
        "quarantine": quarantined(kds.quarantine),
    }


def global_sync(kds: GlobalKds, zone: str) -> Mapping[str, Any] | None:
    """How a zone and this global agree, kind by kind; None if there is no such Zone."""
    sync = kds.sync_of(zone)
    if sync is None:
        if not kds.has_zone(zone):
            return None
        link = {"online": False, "since": None, "reason": "it has not connected since this global started"}
        return synced(zone, link, dict.fromkeys(Direction, ()))
    state = kds.zones.value[zone]
    link = {"online": state.online, "since": timestamp(state.since), "reason": state.reason}
    return synced(zone, link, sync)


def zone_sync(kds: ZoneKds | None, own: str, zone: str) -> Mapping[str, Any] | None:
    """The same as the zone itself sees it; None for another zone, and in a zone without a global."""
    if kds is None or zone != own:
        return None
    status = kds.status.value
    link = {"online": status.connected, "since": timestamp(status.since), "reason": status.error}
    return synced(zone, link, kds.sync())


def synced(zone: str, link: Mapping[str, Any], sync: Mapping[Direction, tuple[KindSync, ...]]) -> Mapping[str, Any]:
    """The state of one zone's streams, ``sent`` and ``received`` as seen from here."""
    return {
        "zone": zone,
        **link,
        **{way.value: [kind_sync(one) for one in sync[way]] for way in (Direction.SENT, Direction.RECEIVED)},
    }


def kind_sync(one: KindSync) -> Mapping[str, Any]:
    """One kind on one way. ``status`` is for people, the rest for programs."""
    return {
        "kind": one.kind,
        "status": one.words,
        "state": one.state.value,
        "sequence": one.sequence,
        "count": one.sum.count,
        "digest": one.sum.digest,
        "at": timestamp(one.at) if one.at else None,
        "behind": one.behind,
        "since": timestamp(one.since) if one.since else None,
        "reason": one.reason,
    }


def quarantined(quarantine: Quarantine) -> list[dict[str, str]]:
    """What is held back now, with its reason."""
    return [
        {
            "zone": item.zone,
            "direction": item.direction.value,
            "kind": item.kind,
            "mesh": item.mesh,
            "name": item.name,
            "reason": item.reason,
        }
        for item in quarantine.items.value
    ]


def timestamp(at: datetime) -> str:
    """RFC 3339, UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
