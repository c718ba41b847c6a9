"""``rules`` with ``matches``: other timeouts for the requests of some clients of an inbound.

The identity of a connection's client is noted when its handshake is done; every route gets a sister for each condition,
which is tried before it. A client's certificate has several URIs, each of which is compared by itself: Envoy shows them
joined by commas, and Kuma compares that, so that its ``Exact`` is met by no certificate of the mesh's CA.
"""

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy

from meshd.model.duration import format_duration
from meshd.policies.mesh_timeout.spec import Conf
from meshd.rules.client_match import SpiffeIdMatch, SpiffeIdMatchType
from meshd.rules.inbound import InboundRule
from meshd.rules.merge import merge_confs
from meshd.xds.encode import PREFIX, Document
from meshd.xds.matchers import regex
from meshd.xds.shaping import ChainDraft

STATE = "kuma.mesh_timeout.match.spiffe_id"
"""Where the identity is noted; Kuma's name."""
_FILTER = "envoy.filters.network.set_filter_state"
_CONFIG = PREFIX + "envoy.extensions.filters.network.set_filter_state.v3.Config"


def for_some_clients(chain: ChainDraft, rules: Sequence[InboundRule[Conf]]) -> None:
    """Give the routes of a chain their sisters."""
    special = list(confs_by_client(rules))
    if chain.hcm is None or not special:
        return
    for host in chain.hcm["routeConfig"]["virtualHosts"]:
        host["routes"] = [made for route in host["routes"] for made in (*_sisters(route, special), route)]
    chain.filters.insert(0, _NOTE_IDENTITY)


def confs_by_client(rules: Sequence[InboundRule[Conf]]) -> Iterator[tuple[SpiffeIdMatch, Conf]]:
    """The conditions on clients with what holds for them, the most specific condition first.

    A client gets the merge of all conditions that hold for it. One on the SNI is met by none: the SNIs of mesh mTLS are
    no DNS names.
    """
    about = [
        (rule.match.spiffe_id, rule.conf)
        for rule in rules
        if rule.match is not None and rule.match.spiffe_id is not None and rule.match.sni is None
    ]
    about = [(match, conf) for match, conf in about if conf.http is not None]
    about.sort(key=lambda pair: _rank(pair[0]))
    done: list[SpiffeIdMatch] = []
    for match, _ in reversed(about):
        if match not in done:
            done.append(match)
            yield match, merge_confs([conf for other, conf in about if _includes(other, match)])


def _rank(match: SpiffeIdMatch) -> tuple[bool, int]:
    return match.type is SpiffeIdMatchType.EXACT, len(match.value) if match.type is SpiffeIdMatchType.PREFIX else 0


def _includes(match: SpiffeIdMatch, other: SpiffeIdMatch) -> bool:
    """Whether every client that ``other`` is about is one that ``match`` is about."""
    if match.type is SpiffeIdMatchType.PREFIX:
        return other.value.startswith(match.value)
    return match == other


def _sisters(route: Document, special: Sequence[tuple[SpiffeIdMatch, Conf]]) -> Iterator[Document]:
    if "route" not in route:
        return
    for match, conf in special:
        sister = deepcopy(route)
        condition = {"key": STATE, "stringMatch": regex(_pattern(match))}
        sister["match"].setdefault("filterState", []).append(condition)
        if conf.http is not None and conf.http.request_timeout is not None:
            sister["route"]["timeout"] = format_duration(conf.http.request_timeout)
        if conf.http is not None and conf.http.stream_idle_timeout is not None:
            sister["route"]["idleTimeout"] = format_duration(conf.http.stream_idle_timeout)
        yield sister


def _pattern(match: SpiffeIdMatch) -> str:
    """One of the URIs between the commas is, or begins with, the value."""
    rest = "(,.*)?" if match.type is SpiffeIdMatchType.EXACT else ".*"
    return f"(.*,)?{re.escape(match.value)}{rest}"


_NOTE_IDENTITY: Document = {
    "name": _FILTER,
    "typedConfig": {
        "@type": _CONFIG,
        "onDownstreamTlsHandshake": [
            {
                "objectKey": STATE,
                "factoryKey": "envoy.string",
                "formatString": {"textFormatSource": {"inlineString": "%DOWNSTREAM_PEER_URI_SAN%"}},
                "skipIfEmpty": True,
            }
        ],
    },
}
