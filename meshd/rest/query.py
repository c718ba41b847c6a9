"""Paging and filters of lists. Source: reference/dataplane.md 6.1."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlencode

from meshd.kinds.dataplane import Dataplane, GatewayType
from meshd.kinds.external_service import ExternalService
from meshd.kinds.service_insight import ServiceType
from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.rest.errors import LIST, RequestError, bad_request

DEFAULT_SIZE = 100
MAX_SIZE = 1000
MAX_DIGITS = 9
_LABEL_FILTER = re.compile(r"filter\[labels\.([^\]]+)\]")
TAGGED = ("Dataplane", "ExternalService")
"""Kinds whose lists can be filtered by tags."""

Pairs = Sequence[tuple[str, str]]
"""The query as (name, value), decoded, repeated names kept."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: ``size`` items from ``offset`` on."""

    size: int
    offset: int


def read_page(query: Pairs) -> Page:
    """The page that a query asks for.

    Raises:
        RequestError: 400, the size is not 1..1000 or the offset is not ours.
    """
    values = dict(query)
    size_text = values.get("size") or str(DEFAULT_SIZE)
    size = int(size_text) if is_number(size_text) else 0
    if not 1 <= size <= MAX_SIZE:
        violation = Violation("size", f"must be a number from 1 to {MAX_SIZE}, not '{size_text}'")
        raise RequestError(400, LIST, "Invalid page size", [violation])
    offset = values.get("offset") or "0"
    if not is_number(offset):
        violation = Violation("offset", f"must be one that 'next' of a list gave, not '{offset}'")
        raise RequestError(400, LIST, "Invalid offset", [violation])
    return Page(size, int(offset))


def is_number(text: str) -> bool:
    """Whether it is a small non-negative number in plain digits."""
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def next_link(base: str, query: Pairs, page: Page, total: int) -> str | None:
    """The absolute URL of the page after ``page``; None after the last. ``base`` is scheme, host and path."""
    after = page.offset + page.size
    if after >= total:
        return None
    pairs = [*((k, v) for k, v in query if k != "offset"), ("offset", str(after))]
    return f"{base}?{urlencode(sorted(pairs, key=lambda pair: pair[0]))}"


Test = Callable[[Resource], bool]


def read_filters(query: Pairs, kind: str) -> tuple[Test, ...]:
    """Every condition of a query; an item must meet them all. A ``tag`` that is not KEY:VALUE is none, as in Kuma.

    Raises:
        RequestError: 400, an unknown filter, or one that the kind does not have.
    """
    tests: list[Test] = []
    tags: dict[str, str] = {}
    for name, value in query:
        if name == "name" and value:
            tests.append(lambda r, v=value: v in r.key.name or v in r.display_name)  # type: ignore[misc]
        elif name.startswith("filter["):
            wanted = _LABEL_FILTER.fullmatch(name)
            if wanted is None:
                raise refused(name, "filters are only supported on labels, as filter[labels.KEY]=VALUE")
            tests.append(lambda r, k=wanted[1], v=value: r.labels.get(k) == v)  # type: ignore[misc]
        elif name == "tag" and kind in TAGGED and ":" in value:
            key, _, tags[key] = value.partition(":")
        elif name == "gateway" and kind == "Dataplane" and value:
            tests.append(gateway_test(value.lower()))
    if tags:
        tests.append(lambda r: has_tags(r, tags))
    return tuple(tests)


def refused(name: str, why: str) -> RequestError:
    """400 for a parameter of a query."""
    return RequestError(400, LIST, "Resource is not valid", [Violation(name, why)])


def read_service_types(value: str) -> frozenset[str]:
    """The types of services that a list of them, with commas, names.

    Raises:
        RequestError: 400, one of them is none.
    """
    types = frozenset(part.strip().lower() for part in value.split(","))
    if unknown := types - frozenset(ServiceType):
        allowed = ", ".join(ServiceType)
        raise bad_request(f"unsupported service type '{min(unknown)}': choose from {allowed}")
    return types


def gateway_test(value: str) -> Test:
    """The condition that ``gateway=`` asks for.

    Raises:
        RequestError: 400, an unknown value.
    """
    choices: dict[str, tuple[GatewayType | None, ...]] = {
        "true": tuple(GatewayType),
        "false": (None,),
        "builtin": (GatewayType.BUILTIN,),
        "delegated": (GatewayType.DELEGATED,),
    }
    if value not in choices:
        raise refused("gateway", f"must be one of {', '.join(choices)}, not '{value}'")
    wanted = choices[value]

    def test(resource: Resource) -> bool:
        gateway = cast("Dataplane", resource.spec).networking.gateway
        return (gateway.type if gateway else None) in wanted

    return test


def has_tags(resource: Resource, wanted: Mapping[str, str]) -> bool:
    """Whether an inbound, the gateway or the external service has all tags, with these in their values (``*``: any)."""
    if isinstance(resource.spec, ExternalService):
        tagged = [resource.spec.tags]
    else:
        networking = cast("Dataplane", resource.spec).networking
        tagged = [inbound.tags for inbound in networking.inbound]
        tagged += [networking.gateway.tags] if networking.gateway else []
    return any(all(k in tags and (v == "*" or v in tags[k]) for k, v in wanted.items()) for tags in tagged)


def select(items: Iterable[Resource], tests: Sequence[Test]) -> list[Resource]:
    """The items that meet every test, in order."""
    return [item for item in items if all(test(item) for test in tests)]
