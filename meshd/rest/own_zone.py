"""What a federated zone says of itself in the overview of its own Zone: its link to the global. Pure.

A global stores a ZoneInsight of each zone; a zone has none, and would look as if it were offline. Kuma's zones have one
of their own, in which the global is the subscriber.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from meshd.kinds.zone_insight import (
    KdsServiceStats,
    KdsSubscription,
    KdsSubscriptionStatus,
    KumaCpVersion,
    Version,
    ZoneInsight,
)
from meshd.model.versions import KUMA

IN_SYNC = "in sync"
REFUSED = "refused"


def insight_of(sync: Mapping[str, Any], instance_id: str) -> ZoneInsight:
    """The insight that a zone's own ``zone_sync`` says; ``instance_id`` is this control plane's.

    A response counts as acknowledged while the global has what its kind has here.
    """
    sent = [kind for kind in sync["sent"] if kind["sequence"]]
    stat = {kind["kind"]: _stat(kind) for kind in sent}
    total = KdsServiceStats(
        responses_sent=sum(s.responses_sent for s in stat.values()),
        responses_acknowledged=sum(s.responses_acknowledged for s in stat.values()),
        responses_rejected=sum(s.responses_rejected for s in stat.values()),
    )
    since = _moment(sync["since"])
    status = KdsSubscriptionStatus(
        last_update_time=max((at for kind in sent if (at := _moment(kind["at"])) is not None), default=None),
        total=total,
        stat=dict(sorted(stat.items())),
    )
    subscription = KdsSubscription(
        id=instance_id,
        connect_time=since,
        disconnect_time=None if sync["online"] else since,
        status=status,
        zone_instance_id=instance_id,
        version=Version(kuma_cp=KumaCpVersion(version=KUMA, kuma_cp_global_compatible=True)),
    )
    return ZoneInsight(subscriptions=(subscription,))


def _stat(kind: Mapping[str, Any]) -> KdsServiceStats:
    sequence = kind["sequence"]
    return KdsServiceStats(
        responses_sent=sequence,
        responses_acknowledged=sequence if kind["state"] == IN_SYNC else sequence - 1,
        responses_rejected=int(kind["state"] == REFUSED),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
