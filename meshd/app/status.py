"""The state of synchronization as plain data, for ``GET /_kds``."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from meshd.kds.client import ZoneKds
from meshd.kds.keeper import Quarantine
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
            "waitingFor": sorted(status.wanted - status.complete),
            "rejected": dict(sorted(status.rejected.items())),
        },
        "quarantine": quarantined(kds.quarantine),
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
