"""Conditions on text and headers as Envoy has them."""

from collections.abc import Iterable

from meshd.rules.header_match import HeaderMatch, HeaderMatchType
from meshd.xds.encode import Document


def exact(text: str) -> Document:
    """A StringMatcher for just this text."""
    return {"exact": text}


def regex(pattern: str) -> Document:
    """A StringMatcher for text that the RE2 pattern describes as a whole."""
    return {"safeRegex": {"regex": pattern}}


def header(match: HeaderMatch) -> Document:
    """A HeaderMatcher."""
    match match.type:
        case HeaderMatchType.PRESENT:
            return {"name": match.name, "presentMatch": True}
        case HeaderMatchType.ABSENT:
            return {"name": match.name, "presentMatch": False}
        case HeaderMatchType.REGULAR_EXPRESSION:
            return {"name": match.name, "stringMatch": regex(match.value)}
        case HeaderMatchType.PREFIX if match.value:
            return {"name": match.name, "stringMatch": {"prefix": match.value}}
        case HeaderMatchType.PREFIX:  # Envoy refuses an empty prefix, which every value has
            return {"name": match.name, "presentMatch": True}
        case _:
            return {"name": match.name, "stringMatch": exact(match.value)}


def methods(names: Iterable[str]) -> list[Document]:
    """A HeaderMatcher for each method."""
    return [{"name": ":method", "stringMatch": exact(name)} for name in names]
