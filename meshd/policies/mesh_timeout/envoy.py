"""What a MeshTimeout does to clusters, routes and inbounds of an Envoy.

Source: Kuma ``pkg/plugins/policies/meshtimeout/plugin`` (behaviour, not code). Where nothing is said, the values of
``values.py`` are in force, also for a destination that no policy is about. Connections of clients are never closed for
being idle by the connection manager: the idle timeout is the clusters'.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import cast

from meshd.model.duration import format_duration
from meshd.model.resource import Resource, Spec
from meshd.policies.mesh_timeout.by_client import for_some_clients
from meshd.policies.mesh_timeout.spec import Conf, Http, MeshTimeout
from meshd.policies.mesh_timeout.values import CONNECTION, IDLE, REQUEST, STREAM_IDLE
from meshd.rules.inbound import Item, conf_for_all, inbound_rules
from meshd.rules.outbound import conf_of, to_entries
from meshd.rules.target_ref import TargetRef
from meshd.xds.clusters import HTTP_OPTIONS
from meshd.xds.encode import Document
from meshd.xds.shaping import ClusterDraft, InboundDraft, OutboundDraft, Shaper

NEVER = "0s"


class TimeoutShaper(Shaper):
    """See the module."""

    def cluster(self, draft: ClusterDraft, matched: Sequence[Resource]) -> None:
        """How long connecting takes, and a connection may be idle."""
        _cluster(draft.document, conf_of(to_entries(matched, to_items), draft.destination.service) or Conf())

    def outbound(self, draft: OutboundDraft, matched: Sequence[Resource]) -> None:
        """How long requests, or connections without any, may take; of a route what is said about it."""
        entries = to_entries(matched, to_items)
        service = draft.destination.service
        conf = conf_of(entries, service) or Conf()
        if draft.tcp is not None:
            _tcp(draft.tcp, conf)
        if draft.hcm is not None:
            _manager(draft.hcm, conf)
            for route in draft.routes:
                _route(route.document, conf_of(entries, service, route.origins) or Conf())

    def inbound(self, draft: InboundDraft, matched: Sequence[Resource]) -> None:
        """The same at the server."""
        if draft.dataplane is None:
            return
        rules = inbound_rules(matched, inbound_items)
        if not rules or any(rule.match is None for rule in rules):
            conf = conf_for_all(rules) or Conf()
            _cluster(draft.cluster, conf)
            for chain in draft.chains:
                if chain.tcp is not None:
                    _tcp(chain.tcp, conf)
                if chain.hcm is not None:
                    _manager(chain.hcm, conf)
                    for host in chain.hcm["routeConfig"]["virtualHosts"]:
                        for route in host["routes"]:
                            _route(route, conf)
        for chain in draft.chains:
            if chain.is_mtls:
                for_some_clients(chain, rules)


def to_items(spec: Spec) -> list[tuple[TargetRef, Conf]]:
    """The entries of ``to``."""
    return [(item.target_ref, item.default) for item in cast("MeshTimeout", spec).to or ()]


def from_items(spec: Spec) -> list[tuple[TargetRef, Conf]]:
    """The entries of ``from``."""
    return [(item.target_ref, item.default) for item in cast("MeshTimeout", spec).from_ or ()]


def inbound_items(spec: Spec) -> list[Item[Conf]]:
    """The entries of ``rules``, of ``from`` if there are none."""
    policy = cast("MeshTimeout", spec)
    if policy.rules:
        return [(rule.matches or (), rule.default) for rule in policy.rules]
    return [((), item.default) for item in policy.from_ or ()]


def _cluster(document: Document, conf: Conf) -> None:
    http = conf.http or Http()
    document["connectTimeout"] = _or(conf.connection_timeout, CONNECTION)
    options = document.get("typedExtensionProtocolOptions", {}).get(HTTP_OPTIONS)
    if options is None:
        return
    common: Document = options.setdefault("commonHttpProtocolOptions", {})
    common["idleTimeout"] = _or(conf.idle_timeout, IDLE)
    for field, length in (
        ("maxStreamDuration", http.max_stream_duration),
        ("maxConnectionDuration", http.max_connection_duration),
    ):
        common.pop(field, None)
        if length:  # 0 is no limit, which Envoy says by saying nothing
            common[field] = format_duration(length)


def _tcp(document: Document, conf: Conf) -> None:
    document["idleTimeout"] = _or(conf.idle_timeout, IDLE)


def _manager(document: Document, conf: Conf) -> None:
    document.setdefault("commonHttpProtocolOptions", {})["idleTimeout"] = NEVER
    document.pop("requestHeadersTimeout", None)
    headers = (conf.http or Http()).request_headers_timeout
    if headers:
        document["requestHeadersTimeout"] = format_duration(headers)


def _route(document: Document, conf: Conf) -> None:
    action = document.get("route")
    if action is None:
        return
    http = conf.http or Http()
    action["timeout"] = _or(http.request_timeout, REQUEST)
    action["idleTimeout"] = _or(http.stream_idle_timeout, STREAM_IDLE)


def _or(length: timedelta | None, default: timedelta) -> str:
    return format_duration(default if length is None else length)
