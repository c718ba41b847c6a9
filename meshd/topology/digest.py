"""Content hashes that cost what changed, not what there is."""

import hashlib
import json

from meshd.model.resource import Resource
from meshd.topology.view import ServiceView, Vip

_SIZE = 32
_MODULUS = 1 << (8 * _SIZE)


class Digest:
    """The hash of a mapping of items, whatever the order they were set in; setting one item costs one item."""

    __slots__ = ("_items", "_total")

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], int] = {}
        self._total = 0

    def set(self, section: str, name: str, content: str | None) -> None:
        """Replace the content of an item; None removes it."""
        key = (section, name)
        before = self._items.pop(key, 0)
        after = 0
        if content is not None:
            text = json.dumps([section, name, content]).encode()
            after = int.from_bytes(hashlib.blake2b(text, digest_size=_SIZE).digest())
            self._items[key] = after
        self._total = (self._total - before + after) % _MODULUS

    @property
    def value(self) -> str:
        """The hash as text."""
        return f"{self._total:0{2 * _SIZE}x}"[:32]


def of_resource(resource: Resource) -> str:
    """What a resource says, without the store's version and times: canonical text."""
    spec = resource.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return json.dumps([str(resource.key), sorted(resource.labels.items()), spec], sort_keys=True)


def of_service(service: ServiceView) -> str:
    """Everything in a service's view: canonical text."""
    endpoints = [
        (e.address, e.port, e.zone, e.weight, e.priority, e.reach.value, sorted(e.tags.items()))
        for e in service.endpoints
    ]
    remote = sorted(service.remote_instances.items())
    external = of_resource(service.external) if service.external is not None else ""
    groups = [
        (zone, [(sorted(group.tags.items()), group.instances) for group in groups])
        for zone, groups in sorted(service.groups.items())
    ]
    return repr((service.name, service.protocol, endpoints, service.local_instances, remote, external, groups))


def of_vip(vip: Vip) -> str:
    """Everything in a VIP: canonical text."""
    return repr((str(vip.address), sorted(vip.ports.items()), vip.names))
