"""What kuma-dp fetches from its Envoy: documents that a listener on a socket of the work directory answers with.

kuma-dp asks every second and says what it has (``If-None-Match``), so an unchanged document costs nothing.

Source: reference/dataplane.md 1.7, 3.6; Kuma ``pkg/xds/dynconf/listener.go`` (behaviour).
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshd.xds import listeners, names, static_http
from meshd.xds.abilities import Abilities
from meshd.xds.encode import Document
from meshd.xds.resources import LISTENER, XdsResource, resource

SOCKET = "kuma-mesh-metric-config"


@dataclass(frozen=True, slots=True)
class Answer:
    """A document at a path: ``etag`` is the hash of ``body``."""

    path: str
    body: str
    etag: str


def answer(path: str, body: str) -> Answer:
    """What is answered at a path."""
    return Answer(path, body, hashlib.sha256(body.encode()).hexdigest())


def dynamic_config(answers: Iterable[Answer], abilities: Abilities) -> Iterator[XdsResource]:
    """The listener with these documents; nothing if there are none."""
    by_path = {found.path: found for found in answers}
    if not by_path:
        return
    routes = [route for _, found in sorted(by_path.items()) for route in _routes(found)]
    configuration = listeners.route_configuration("", names.DYNAMIC_CONFIG, routes)
    # Envoy refuses a route whose answer is larger than what this says, 4 KiB if it says nothing.
    configuration["maxDirectResponseBodySizeBytes"] = max(len(found.body.encode()) for found in by_path.values())
    manager = static_http.manager(names.DYNAMIC_CONFIG, configuration, abilities)
    listener: Document = {
        "name": names.DYNAMIC_CONFIG,
        "address": {"pipe": {"path": names.socket_path(abilities.workdir, SOCKET)}},
        "filterChains": [listeners.chain([listeners.network_filter(manager)])],
    }
    yield resource(LISTENER, listener)


def _routes(found: Answer) -> tuple[Document, Document]:
    """For who has it already, and for who has not."""
    known = {"name": "If-None-Match", "stringMatch": {"exact": found.etag}}
    unchanged: Document = {"match": {"path": found.path, "headers": [known]}, "directResponse": {"status": 304}}
    whole: Document = {
        "name": f"{names.DYNAMIC_CONFIG}:{found.path}",
        "match": {"path": found.path},
        "responseHeadersToAdd": [{"header": {"key": "Etag", "value": found.etag}}],
        "directResponse": {"status": 200, "body": {"inlineString": found.body}},
    }
    return unchanged, whole
