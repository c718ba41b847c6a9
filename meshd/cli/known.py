"""The kinds that this build of meshd knows, for files that are checked or sent."""

from functools import cache, partial

from meshd.config.proxies import Decode
from meshd.kinds.declare import KINDS
from meshd.model.codec import decode_document
from meshd.model.registry import Registry
from meshd.model.resource_type import ResourceType
from meshd.policies import discover


@cache
def registry() -> Registry:
    """Every kind and every policy."""
    return Registry((*KINDS, *(policy.type for policy in discover())))


def decode() -> Decode:
    """Resource document -> Resource, strictly."""
    return partial(decode_document, registry=registry())


def find_kind(word: str) -> ResourceType | None:
    """The type that a user means: its kind (or its plural), REST path or short name; case and dashes do not count."""
    word = _plain(word)
    for type_ in registry():
        names = (type_.kind, f"{type_.kind}s", type_.path, type_.short, *type_.aliases)
        if type_.path and word in (_plain(name) for name in names if name):
            return type_
    return None


def kind_words() -> list[str]:
    """What ``find_kind`` finds, for suggestions."""
    return [word for t in registry() if t.path for word in (t.path, t.kind.lower(), t.short) if word]


def paths() -> list[str]:
    """The REST path of every kind, sorted: the names that ``meshd get`` has for them."""
    return sorted(type_.path for type_ in registry() if type_.path)


def _plain(word: str) -> str:
    return word.lower().replace("-", "")
