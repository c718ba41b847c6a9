"""The difference of two JSON values as a JSON Patch, in the operations that Kuma's API knows. Pure.

Its clients know ``test``, ``remove`` and ``add``, each with a value, so what is replaced is removed and added. Source:
RFC 6902; Kuma 2.14.3 ``api/openapi/specs/common/jsonpatch.yaml``.
"""

from collections.abc import Iterator
from typing import Any

Operation = dict[str, Any]


def patch(before: Any, after: Any, path: str = "") -> Iterator[Operation]:
    """The operations that, one after the other, make ``after`` of ``before``; keys in the order of the alphabet."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            at = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            if key in before and key in after:
                yield from patch(before[key], after[key], at)
            elif key in before:
                yield from _removed(before[key], at)
            else:
                yield {"op": "add", "path": at, "value": after[key]}
    elif isinstance(before, list) and isinstance(after, list):
        yield from _lists(before, after, path)
    elif before != after or type(before) is not type(after):
        yield from _removed(before, path)
        yield {"op": "add", "path": path, "value": after}


def _removed(value: Any, path: str) -> Iterator[Operation]:
    yield {"op": "test", "path": path, "value": value}
    yield {"op": "remove", "path": path, "value": value}


def _lists(before: list[Any], after: list[Any], path: str) -> Iterator[Operation]:
    """What is between the items that both lists begin and end with; lists of one length item by item."""
    if len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from patch(old, new, f"{path}/{index}")
        return
    shorter = min(len(before), len(after))
    head = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    tail = next((i for i in range(shorter - head) if before[-1 - i] != after[-1 - i]), shorter - head)
    for old in before[head : len(before) - tail]:
        yield from _removed(old, f"{path}/{head}")
    for index, new in enumerate(after[head : len(after) - tail], start=head):
        yield {"op": "add", "path": f"{path}/{index}", "value": new}
