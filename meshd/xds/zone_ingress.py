"""The ZoneIngresses of a zone: mesh TLS of other zones passed on, by SNI, to the instances of this one.

Nothing is decrypted. What is exposed is the view's ``ingress_services``, of all meshes.

Clients may ask for instances by their tags. What routes say is known in every zone, and each such subset has a chain
and a cluster. What the outbounds of another zone say is not: so every combination of tags that the instances here have
is a name of the chain for the instances that have it, as far as there are not too many. An Envoy cannot look into a
name.

Source: reference/dataplane.md 3.10; Kuma ``pkg/xds/generator/ingress_generator.go`` (behaviour).
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import prod
from typing import cast

from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.topology.view import Group, MeshView, ServiceView
from meshd.xds import listeners
from meshd.xds.abilities import Abilities
from meshd.xds.clusters import AddressOf, literal
from meshd.xds.encode import PREFIX, Document
from meshd.xds.resources import XdsResource
from meshd.xds.sni import Part, Services, SniRenderer, Tags, chain_of

MAX_COMBINATIONS = 32
"""So many names has a service for its subsets, and the same again with the zone in them: for five tags, all of them."""
_NOT_ASKED_FOR = (label.SERVICE, label.PROTOCOL)
_DIRECT_RESPONSE = PREFIX + "envoy.extensions.filters.network.direct_response.v3.Config"


class IngressRenderer(SniRenderer):
    """What all ZoneIngresses of ``zone`` share, and the listener of each."""

    # Within a zone an instance answers at once. It must be given up before the client gives up on all the way here.
    connect_timeout = "1s"

    def __init__(self, zone: str, address_of: AddressOf = literal) -> None:
        super().__init__(address_of)
        self._zone = zone

    def services_of(self, view: MeshView) -> Services:
        """See ``SniRenderer``."""
        return view.ingress_services

    def also_asked_for(self, service: ServiceView) -> Iterable[Part]:
        """See ``SniRenderer``. External services have names only by routes: their egress has no others."""
        if service.external is not None:
            return ()
        return parts_of([group for groups in service.groups.values() for group in groups])

    def listener(self, proxy: Resource, abilities: Abilities) -> XdsResource | None:
        """The listener of one ingress, None if it listens at a name that is not known yet.

        With nothing exposed it says so to whoever connects: it needs a chain.
        """
        networking = cast("ZoneIngress", proxy.spec).networking
        chains = self.chains() or [chain_of("", self._nothing(proxy))]
        return self.listener_at(networking.address, networking.port, abilities, chains)

    def _nothing(self, proxy: Resource) -> Document:
        text = json.dumps({"proxy": f".{proxy.key.name}", "zone": self._zone}, separators=(",", ":"))
        answer = {"@type": _DIRECT_RESPONSE, "response": {"inlineString": text}}
        return listeners.chain([listeners.network_filter(answer)])


def parts_of(groups: Sequence[Group]) -> list[Part]:
    """The parts of a service that can be asked for by tags, in lower case, and how.

    Fewest tags first, and of these the ones of which there are few values: what tells versions apart goes before what
    tells single instances apart. The zone comes first and alone: it is what most ask for, and is always the same.
    """
    tagged = [{k.lower(): v.lower() for k, v in g.tags.items() if k not in _NOT_ASKED_FOR} for g in groups]
    parts: list[Part] = []
    zones = {tags.get(label.ZONE) for tags in tagged}
    zone = zones.pop() if len(zones) == 1 else None
    everywhere: Tags = ((label.ZONE, zone),) if zone else ()
    if everywhere:
        parts.append(Part((everywhere,), is_all=True))
        tagged = [{k: v for k, v in tags.items() if k != label.ZONE} for tags in tagged]
    members: dict[frozenset[int], list[Tags]] = {}
    for combination, having in _combinations(tagged).items():
        members.setdefault(frozenset(having), []).append(combination)
    for some, subsets in members.items():
        with_zone = [tuple(sorted((*tags, *everywhere))) for tags in subsets] if everywhere else []
        parts.append(Part((*subsets, *with_zone), is_all=len(some) == len(tagged)))
    return parts


def _combinations(tagged: Sequence[Mapping[str, str]]) -> dict[Tags, list[int]]:
    """Combinations of tags, in order of preference, and which of ``tagged`` have them."""
    values = Counter(key for key, _ in {pair for tags in tagged for pair in tags.items()})
    found: dict[Tags, list[int]] = {}
    for size in range(1, max((len(tags) for tags in tagged), default=0) + 1):
        having: dict[Tags, list[int]] = {}
        for at, tags in enumerate(tagged):
            for combination in combinations(sorted(tags.items()), size):
                having.setdefault(combination, []).append(at)
        for combination in sorted(having, key=lambda c: (prod(values[key] for key, _ in c), c)):
            if len(found) == MAX_COMBINATIONS:
                return found
            found[combination] = having[combination]
    return found
