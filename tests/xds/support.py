"""What tests of xds share: from encoded resources back to documents, goldens, and builders."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from meshd.discovery.wire import any_parts
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.mesh import Mesh
from meshd.model.resource import Resource, ResourceKey
from meshd.model.shape import read_strict
from meshd.xds import decode
from meshd.xds.resources import ORDER, XdsResource

GOLDENS = Path(__file__).parent / "goldens"


def document_of(resource: XdsResource) -> dict[str, Any]:
    """What the bytes of a resource say, read by the generated classes: a proto-JSON document with ``@type``."""
    type_url, _ = any_parts(resource.entry.body)
    assert type_url == resource.type_url
    return {"@type": type_url, **decode.document_of(resource)}


def documents_of(resources: Iterable[XdsResource]) -> list[dict[str, Any]]:
    """Clusters first, as they are sent, then by name."""
    return [document_of(r) for r in sorted(resources, key=lambda r: (ORDER.index(r.type_url), r.name))]


def by_name(resources: Iterable[XdsResource], type_url: str) -> dict[str, dict[str, Any]]:
    """The documents of one type, without ``@type``."""
    found = {r.name: document_of(r) for r in resources if r.type_url == type_url}
    return {name: {k: v for k, v in document.items() if k != "@type"} for name, document in found.items()}


class Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the base class's signature
        return True


def golden_text(resources: Iterable[XdsResource]) -> str:
    """The golden file of these resources; ``golden(GOLDENS / "case.yaml", golden_text(...))`` compares with it."""
    return yaml.dump_all(documents_of(resources), Dumper=Dumper, width=120, allow_unicode=True)


def mesh(spec: dict[str, Any] | None = None, name: str = "default") -> Resource:
    """A Mesh of proto-JSON."""
    return Resource(ResourceKey("Mesh", "", name), read_strict(Mesh, spec or {}))


def dataplane(
    spec: dict[str, Any] | None = None, name: str = "web-1", mesh: str = "default", labels: dict[str, str] | None = None
) -> Resource:
    """A Dataplane of proto-JSON; without a ``networking`` one with an inbound ``web`` at 192.168.0.1:80 for 8080."""
    inbound = {"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web"}}
    found = {"networking": {"address": "192.168.0.1", "inbound": [inbound]}, **(spec or {})}
    return Resource(ResourceKey("Dataplane", mesh, name), read_strict(Dataplane, found), labels=labels or {})


def mtls(mode: str = "STRICT") -> dict[str, Any]:
    """The ``spec`` of a Mesh with a builtin CA."""
    return {"mtls": {"enabledBackend": "ca", "backends": [{"name": "ca", "type": "builtin", "mode": mode}]}}
