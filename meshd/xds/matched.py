"""The policies that apply to one proxy or one of its inbounds, with what they do to Envoy's resources."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from meshd.kinds.dataplane import Inbound
from meshd.model.resource import Resource, ResourceKey
from meshd.rules import match
from meshd.xds.shaping import ClusterDraft, Destination, HttpRoute, InboundDraft, OutboundDraft, Routes, Shaper

Shapers = Sequence[tuple[str, Shaper]]
"""Policy kinds and what they do, in the order in which policies take effect."""
Policies = Mapping[str, tuple[Resource, ...]]
"""The policies of a mesh by kind, as in ``MeshView``."""


@dataclass(frozen=True, eq=False)
class Matched:
    """For each shaper the policies of its kind that apply, least specific first."""

    shaped: tuple[tuple[Shaper, tuple[Resource, ...]], ...]

    @cached_property
    def identity(self) -> tuple[tuple[tuple[ResourceKey, int], ...], ...]:
        """Equal for proxies to which the same versions of the same policies apply."""
        return tuple(tuple((p.key, p.version) for p in policies) for _, policies in self.shaped)

    def routes(self, destination: Destination, protocols: Mapping[str, str]) -> Routes:
        """What the route policies say; of each part the first that says anything counts."""
        http: tuple[HttpRoute, ...] | None = None
        tcp = None
        for shaper, policies in self.shaped:
            found = shaper.routes(policies, destination, protocols)
            if found is not None:
                http = found.http if http is None else http
                tcp = found.tcp if tcp is None else tcp
        return Routes(http, tcp)

    def cluster(self, draft: ClusterDraft) -> None:
        """Let all policies change an outbound cluster."""
        for shaper, policies in self.shaped:
            shaper.cluster(draft, policies)

    def outbound(self, draft: OutboundDraft) -> None:
        """Let all policies change an outbound listener."""
        for shaper, policies in self.shaped:
            shaper.outbound(draft, policies)

    def idle(self, *, has_mtls: bool) -> Iterator[tuple[Resource, str]]:
        """The policies about an inbound that have no effect there, and why."""
        for shaper, policies in self.shaped:
            for policy in policies:
                if why := shaper.idle(policy, has_mtls=has_mtls):
                    yield policy, why

    def inbound(self, draft: InboundDraft) -> None:
        """Let all policies change an inbound."""
        for shaper, policies in self.shaped:
            shaper.inbound(draft, policies)


def of_proxy(shapers: Shapers, policies: Policies, dataplane: Resource) -> Matched:
    """What applies to what a Dataplane sends."""
    return Matched(tuple((shaper, match.of_proxy(policies.get(kind, ()), dataplane)) for kind, shaper in shapers))


def of_inbound(shapers: Shapers, policies: Policies, dataplane: Resource, inbound: Inbound) -> Matched:
    """What applies to what an inbound takes."""
    return Matched(
        tuple((shaper, match.of_inbound(policies.get(kind, ()), dataplane, inbound)) for kind, shaper in shapers)
    )


def of_tags(shapers: Shapers, policies: Policies, tags: Mapping[str, str]) -> Matched:
    """What applies to an external service at an egress."""
    return Matched(tuple((shaper, match.of_tags(policies.get(kind, ()), tags)) for kind, shaper in shapers))
