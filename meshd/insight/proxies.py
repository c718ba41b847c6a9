"""The insight of a proxy that this process runs itself: its connections, its version, its certificate. Pure.

A proxy of the built-in engine has no stream to its control plane; it shares its process. One run of the process is one
subscription: open while the proxy runs, ended in order at shutdown, and found open and ended by the next run after a
crash.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, cast

from pydantic import JsonValue

from meshd import __version__
from meshd.kinds import proxy_insights
from meshd.kinds.proxy_insights import DataplaneInsight, DiscoverySubscription, ZoneEgressInsight, ZoneIngressInsight
from meshd.model.errors import Violation, shortened
from meshd.model.fields import Struct
from meshd.model.resource import Resource, ResourceKey

MAX_SUBSCRIPTIONS = 5
"""How many runs are remembered."""
INSIGHTS: dict[str, type[DataplaneInsight] | type[ZoneIngressInsight] | type[ZoneEgressInsight]] = {
    "Dataplane": DataplaneInsight,
    "ZoneIngress": ZoneIngressInsight,
    "ZoneEgress": ZoneEgressInsight,
}

REFUSED = "refused"
MAX_REASONS = 50
"""How many reasons an insight has."""

VERSION = proxy_insights.Version(
    kuma_dp=proxy_insights.KumaDpVersion(version=__version__, kuma_cp_compatible=True),
    dependencies={"engine": "builtin"},
)


def is_builtin(insight: Resource | None) -> bool:
    """Whether the built-in engine runs the proxy of this insight, or did so last: there is no Envoy to ask."""
    spec = insight.spec if insight is not None else None
    if not isinstance(spec, DataplaneInsight | ZoneIngressInsight | ZoneEgressInsight) or not spec.subscriptions:
        return False
    version = spec.subscriptions[-1].version
    return version is not None and version.dependencies == VERSION.dependencies


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be said of a proxy of this process.

    ``is_carried``: connections are taken for it, so it is online. ``refused`` are the parts of its resource that are
    not carried, and the policies that are not followed, with the reasons. ``has_stream``: whether it is online, and
    with which certificate, is said by whoever serves its stream.
    """

    is_carried: bool = True
    refused: tuple[Violation, ...] = ()
    has_stream: bool = False


class Certificate(Protocol):
    """What is reported of a certificate."""

    @property
    def not_after(self) -> datetime:
        """Its end, UTC."""


class Shown(Protocol):
    """What a proxy shows its peers (``meshd.ca`` has the value)."""

    @property
    def identity(self) -> Certificate | None:
        """Its certificate, if it has one."""


class Insight(Protocol):
    """What the three kinds of insight have in common."""

    subscriptions: tuple[DiscoverySubscription, ...]
    metadata: Struct | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a control plane: ``instance`` is new for every one."""

    instance: str
    subscription: str


def insight_key(proxy: ResourceKey) -> ResourceKey:
    """The key of a proxy's insight: same mesh, same name."""
    return ResourceKey(f"{proxy.kind}Insight", proxy.mesh, proxy.name)


def connected(proxy: ResourceKey, stored: Resource | None, run: Run, now: datetime) -> Resource:
    """The insight of a proxy that runs from ``now`` on; whatever an earlier run left open is ended."""
    opened = DiscoverySubscription(
        id=run.subscription,
        control_plane_instance_id=run.instance,
        connect_time=now,
        status=proxy_insights.DiscoverySubscriptionStatus(last_update_time=now),
        version=VERSION,
    )
    if stored is None:
        spec = INSIGHTS[proxy.kind](subscriptions=(opened,))
        return Resource(insight_key(proxy), spec, owner=proxy)
    earlier = [s for s in ended(stored, "", now).spec.subscriptions if s.id != run.subscription]  # type: ignore[attr-defined]
    return with_subscriptions(stored, (*earlier, opened)[-MAX_SUBSCRIPTIONS:])


def never_connected(proxy: ResourceKey) -> Resource:
    """The insight of a proxy that has not run."""
    return Resource(insight_key(proxy), INSIGHTS[proxy.kind](), owner=proxy)


def reported(stored: Resource, refused: tuple[Violation, ...], said: Mapping[str, JsonValue] | None = None) -> Resource:
    """The insight with the refused parts under ``metadata.refused``, by field; the same value if it has them.

    Insights are stored and sent to the global: the first ``MAX_REASONS`` are shown, with the beginning of each.
    ``said`` is what the proxy says of itself; None: as before.
    """
    before = cast("Insight", stored.spec).metadata
    kept = (before or {}) if said is None else said
    metadata: dict[str, JsonValue] = {k: v for k, v in kept.items() if k != REFUSED}
    if refused:
        shown: dict[str, JsonValue] = {shortened(v.field): shortened(v.message) for v in refused[:MAX_REASONS]}
        if len(refused) > MAX_REASONS:
            shown["..."] = f"and {len(refused) - MAX_REASONS} more; see the log"
        metadata[REFUSED] = shown
    if metadata == (before or {}):
        return stored
    return replace(stored, spec=stored.spec.model_copy(update={"metadata": metadata or None}))


def ended(stored: Resource, keep_instance: str, now: datetime) -> Resource:
    """The insight with every open subscription ended at ``now``, but those of the run ``keep_instance``."""
    subscriptions = tuple(
        s.model_copy(update={"disconnect_time": now})
        if s.is_open and (not keep_instance or s.control_plane_instance_id != keep_instance)
        else s
        for s in cast("Insight", stored.spec).subscriptions
    )
    return with_subscriptions(stored, subscriptions)


def with_subscriptions(stored: Resource, subscriptions: tuple[DiscoverySubscription, ...]) -> Resource:
    """The insight with other subscriptions; the same value if they are the same."""
    if cast("Insight", stored.spec).subscriptions == subscriptions:
        return stored
    return replace(stored, spec=stored.spec.model_copy(update={"subscriptions": subscriptions}))


def certified(stored: Resource, credentials: Shown, backend: str, backends: tuple[str, ...], now: datetime) -> Resource:
    """A DataplaneInsight with the certificate that its proxy shows; the same value if it is the one it has.

    ``backend`` is the CA that issued it and ``backends`` are all that are trusted.
    """
    spec = cast("DataplaneInsight", stored.spec)
    identity, before = credentials.identity, spec.mtls
    if identity is None:
        mtls = None
    elif before is not None and before.certificate_expiration_time == identity.not_after:
        mtls = before.model_copy(update={"issued_backend": backend, "supported_backends": backends})
    else:
        mtls = proxy_insights.Mtls(
            certificate_expiration_time=identity.not_after,
            last_certificate_regeneration=now,
            certificate_regenerations=(before.certificate_regenerations if before else 0) + 1,
            issued_backend=backend,
            supported_backends=backends,
        )
    if mtls == before:
        return stored
    return replace(stored, spec=spec.model_copy(update={"mtls": mtls}))
