"""Virtual probes: one plaintext port at which an orchestrator asks for the health of applications behind mTLS.

Source: reference/dataplane.md 3.13; Kuma ``pkg/xds/generator/probe_generator.go`` (behaviour).
"""

from collections.abc import Iterator
from typing import cast
from urllib.parse import urlsplit

from meshd.kinds.dataplane import Dataplane, ProbeEndpoint
from meshd.model.resource import Resource
from meshd.xds import listeners, names, static_http
from meshd.xds.abilities import Abilities
from meshd.xds.encode import Document
from meshd.xds.inbound import has_listener
from meshd.xds.resources import LISTENER, XdsResource, resource

VIRTUAL_HOST = "probe"


def probes(dataplane: Resource, abilities: Abilities) -> Iterator[XdsResource]:
    """A listener with a route for each virtual probe; nothing if kuma-dp answers probes itself."""
    spec = cast("Dataplane", dataplane.spec)
    if spec.probes is None or not spec.probes.port or abilities.answers_probes:
        return
    served = {i.application_port for i in spec.networking.inbound if has_listener(i)}
    routes = [_route(endpoint, is_served=endpoint.inbound_port in served) for endpoint in spec.probes.endpoints]
    configuration = listeners.route_configuration(names.PROBE_ROUTES, VIRTUAL_HOST, routes)
    listener = static_http.inbound_listener(names.PROBES, spec.networking.address, spec.probes.port, abilities)
    if abilities.is_redirected:
        listener["bindToPort"] = False
    manager = static_http.manager(names.PROBES, configuration, abilities)
    listener["filterChains"] = [listeners.chain([listeners.network_filter(manager)])]
    yield resource(LISTENER, listener)


def _route(endpoint: ProbeEndpoint, *, is_served: bool) -> Document:
    """To the application; or, for a port that is no inbound's, a redirect to it, which a kubelet follows."""
    path = urlsplit(endpoint.inbound_path).path
    match: Document = {
        "path": urlsplit(endpoint.path).path,
        "headers": [{"name": ":method", "stringMatch": {"exact": "GET"}}],
    }
    if not is_served:
        return {"match": match, "redirect": {"portRedirect": endpoint.inbound_port, "pathRedirect": path}}
    route = listeners.route_to(names.local_cluster(endpoint.inbound_port), match)
    # In a substitution, backslashes refer to groups.
    route["route"]["regexRewrite"] = {"pattern": {"regex": ".*"}, "substitution": path.replace("\\", "\\\\")}
    return route
