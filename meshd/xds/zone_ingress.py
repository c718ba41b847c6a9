"""The ZoneIngresses of a zone: mesh TLS of other zones passed on, by SNI, to the instances of this one.

Nothing is decrypted. What is exposed is the view's ``ingress_services``, of all meshes.

Source: reference/dataplane.md 3.10; Kuma ``pkg/xds/generator/ingress_generator.go`` (behaviour).
"""

import json
from typing import cast

from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.resource import Resource
from meshd.topology.view import MeshView
from meshd.xds import listeners
from meshd.xds.abilities import Abilities
from meshd.xds.clusters import AddressOf, literal
from meshd.xds.encode import PREFIX, Document
from meshd.xds.resources import XdsResource
from meshd.xds.sni import Services, SniRenderer, chain_of

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
