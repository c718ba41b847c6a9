"""Merging the confs of several policies into the one that applies."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from meshd.model.resource import Spec

ConfT = TypeVar("ConfT", bound=Spec)
APPEND = "append"
"""Lists in fields whose name begins so are joined over all policies; other lists are replaced."""


def merge_patch(target: Any, patch: Any) -> Any:
    """``patch`` applied to ``target``, both plain JSON values; neither is changed. Source: RFC 7396, section 2."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def merge_documents(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge JSON objects, later over earlier, joining the ``append*`` lists of all of them (also of nested objects)."""
    merged: dict[str, Any] = {}
    for document in documents:
        merged = _merge_two(merged, document)
    return merged


def merge_confs(confs: Sequence[ConfT]) -> ConfT:
    """Merge confs of one type, given from the least to the most specific; fields that were not set override nothing.

    Raises:
        ValueError: no confs.
    """
    if not confs:
        raise ValueError("nothing to merge")
    if len(confs) == 1:
        return confs[0]
    merged: ConfT = _merged(_Same(tuple(confs)))
    return merged


class _Same:
    """Confs as a key: equal to the same objects only. Holds them, so that none of them can become another one."""

    __slots__ = ("confs",)

    def __init__(self, confs: tuple[Spec, ...]) -> None:
        self.confs = confs

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.confs)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same) or len(self.confs) != len(other.confs):
            return False
        return all(one is another for one, another in zip(self.confs, other.confs, strict=True))


@lru_cache(maxsize=1024)
def _merged(key: _Same) -> Any:
    # A thousand services under the same policies ask for the same merge.
    confs = key.confs
    documents = [conf.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True) for conf in confs]
    return type(confs[0]).model_validate(merge_documents(documents))


def _merge_two(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(earlier)
    for key, value in later.items():
        before = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = _merge_two(before if isinstance(before, Mapping) else {}, value)
        elif key.startswith(APPEND) and isinstance(value, list) and isinstance(before, list):
            merged[key] = [*before, *value]
        else:
            merged[key] = value
    return merged
