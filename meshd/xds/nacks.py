"""What an Envoy says when it does not take a response.

Envoy takes clusters and listeners one by one, and names those it did not take. What it cannot decode or validate at all
makes it drop the whole response, and then the message names a field, not a resource. Source: Envoy
``source/common/upstream/cds_api_helper.cc``, ``source/common/listener_manager/lds_api.cc``.
"""

import re
from collections.abc import Collection, Mapping

from meshd.discovery import Refused, Rejection
from meshd.model.errors import Violation

_PREFIX = re.compile(r"Error adding/updating (?:cluster|listener)\(s\) ")
_CUT = "...(truncated)"
"""How a message ends of which Envoy says the first 4096 characters only (``Utility::truncateGrpcStatusMessage``)."""
WORDS = 300
"""Characters of a reason that are shown."""


def blame(type_url: str, error: Rejection, names: Collection[str]) -> Mapping[str, str]:
    """Which of these Envoy says it did not take, and why, having taken the others; empty if it says so of none.

    Empty also if Envoy cut its words short: there may be more that it did not take.
    """
    del type_url
    start = _PREFIX.search(error.message)
    if start is None or error.message.endswith(_CUT):
        return {}
    said = error.message[start.end() :]
    found: list[tuple[int, str]] = []
    for name in names:
        at = said.find(f"{name}: ")
        while at >= 0:
            # at the start, or where the reason for another one has ended
            if at == 0 or said.startswith((", ", "\n"), at - (2 if said[at - 1] == " " else 1)):
                found.append((at, name))
                break
            at = said.find(f"{name}: ", at + 1)
    if not found:
        return {}
    found.sort()
    ends = [at for at, _ in found[1:]] + [len(said)]
    return {name: said[at + len(name) + 2 : end].strip(" ,\n") for (at, name), end in zip(found, ends, strict=True)}


def violations(refusals: Mapping[str, Mapping[str, Refused]]) -> tuple[Violation, ...]:
    """What a proxy does not take, for people: by type and name, with the reason."""
    return tuple(
        Violation(f"{type_url.rpartition('.')[2]} {name}", _shown(refused))
        for type_url, by_name in sorted(refusals.items())
        for name, refused in sorted(by_name.items())
    )


def _shown(refused: Refused) -> str:
    words = "".join(c if c.isprintable() else "?" for c in " ".join(refused.reason.split()))
    kept = "keeps the last version it took" if refused.held else "has none"
    return f"{words[:WORDS] or 'no reason given'} (the proxy {kept})"
