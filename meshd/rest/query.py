"""Paging and filters of lists. Source: reference/dataplane.md 6.1."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlencode

from meshd.kinds.dataplane import Dataplane, GatewayType
from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.rest.errors import LIST, RequestError, bad_request

DEFAULT_SIZE = 100
MAX_SIZE = 1000
MAX_DIGITS = 9
_LABEL_FILTER = re.compile(r"filter\[labels\.(.+)\]")

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
    return f"{base}?{urlencode([*((k, v) for k, v in query if k != 'offset'), ('offset', str(after))])}"


Test = Callable[[Resource], bool]


def read_filters(query: Pairs, kind: str) -> tuple[Test, ...]:
    """Every condition of a query; an item must meet them all.

    Raises:
        RequestError: 400, an unknown filter, or one that the kind does not have.
    """
    tests: list[Test] = []
    for name, value in query:
        if name == "name" and value:
            tests.append(lambda r, v=value: v in r.key.name or v in r.display_name)  # type: ignore[misc]
        elif name.startswith("filter["):
            wanted = _LABEL_FILTER.fullmatch(name)
            if wanted is None:
                raise bad_request(f"{name}: filters are only supported on labels, as filter[labels.KEY]=VALUE")
            tests.append(lambda r, k=wanted[1], v=value: r.labels.get(k) == v)  # type: ignore[misc]
        elif name == "tag" and kind == "Dataplane":
            key, colon, tag_value = value.partition(":")
            if not colon or not key:
                raise bad_request(f"tag must be KEY:VALUE, not '{value}'")
            tests.append(lambda r, k=key, v=tag_value: has_tag(r, k, v))  # type: ignore[misc]
        elif name == "gateway" and kind == "Dataplane" and value:
            tests.append(gateway_test(value))
    return tuple(tests)


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
        raise bad_request(f"gateway must be one of {', '.join(choices)}, not '{value}'")
    wanted = choices[value]

    def test(resource: Resource) -> bool:
        gateway = cast("Dataplane", resource.spec).networking.gateway
        return (gateway.type if gateway else None) in wanted

    return test


def has_tag(resource: Resource, key: str, value: str) -> bool:
    """Whether an inbound or the gateway of a Dataplane carries a tag."""
    networking = cast("Dataplane", resource.spec).networking
    tagged = [networking.gateway.tags] if networking.gateway else [i.tags for i in networking.inbound]
    return any(tags.get(key) == value for tags in tagged)


def select(items: Iterable[Resource], tests: Sequence[Test]) -> list[Resource]:
    """The items that meet every test, in order."""
    return [item for item in items if all(test(item) for test in tests)]
