"""What Envoy's admin interface answers. Source: Envoy's documentation of its admin interface, and trying it (1.40).

The Envoy may be anybody's who runs a proxy: whatever it says must cost no more than an error.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LIVE, DRAINING = "LIVE", "DRAINING"
CONNECTIONS = r"/stats?filter=^listener\..*\.downstream_cx_active$"
"""Open connections by listener; ``server.total_connections`` lags behind by the five seconds of a flush."""
LISTENERS = "/listeners?format=json"
"""Those that take connections: one that waits for its secrets is not among them."""

REDACTED = b"[redacted]"
TOO_DEEP = "it is nested too deeply"
MAX_TOKENS = 100
"""Different ones in a config dump; an Envoy has one or two."""

_OF_A_LISTENER = re.compile(r"^listener\.(?P<listener>\S+)\.downstream_cx_active: (?P<count>\d+)$", re.MULTILINE)
_OF_A_WORKER = re.compile(r"\.(worker_\d+|main_thread)$")


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """``build`` as ``command.Version`` has it; ``state`` LIVE, DRAINING, PRE_INITIALIZING or INITIALIZING."""

    build: str
    state: str


def parse_server_info(body: bytes) -> ServerInfo:
    """The answer of ``/server_info``.

    Raises:
        ValueError: it is none.
    """
    document = _read(body)
    if not isinstance(document, dict) or not {"version", "state"} <= document.keys():
        raise ValueError(f"no server info: {body[:80]!r}")
    return ServerInfo(str(document["version"]), str(document["state"]))


def parse_listeners(body: bytes) -> frozenset[str]:
    """The names of an Envoy's listeners, from the answer of ``LISTENERS``.

    Raises:
        ValueError: it is none.
    """
    document = _read(body)
    statuses = document.get("listener_statuses", []) if isinstance(document, dict) else None
    if not isinstance(statuses, list) or not all(isinstance(s, dict) and "name" in s for s in statuses):
        raise ValueError(f"no listeners: {body[:80]!r}")
    return frozenset(str(status["name"]) for status in statuses)


def open_connections(body: bytes) -> int:
    """How many connections the listeners of an Envoy have, from the answer of ``CONNECTIONS``.

    The admin interface is no listener of it, and what is counted by worker is counted once more for the whole.
    """
    found = _OF_A_LISTENER.finditer(body.decode(errors="replace"))
    return sum(int(m["count"]) for m in found if m["listener"] != "admin" and not _OF_A_WORKER.search(m["listener"]))


def node_id(body: bytes) -> str:
    """Which proxy an Envoy is, from the answer of ``/server_info``.

    Raises:
        ValueError: it is none.
    """
    document = _read(body)
    node = document.get("node") if isinstance(document, dict) else None
    if not isinstance(node, dict):
        raise ValueError(f"no server info: {body[:80]!r}")  # noqa: TRY004 - callers catch ValueError
    return str(node.get("id", ""))


def redacted(config_dump: bytes) -> bytes:
    """A config dump without the tokens that an Envoy shows to its control plane; all else is as it came.

    Private keys Envoy leaves out itself.

    Raises:
        ValueError: it is no JSON, or has more tokens than any Envoy.
    """
    document = _read(config_dump)
    try:
        tokens = set(_tokens(document))
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if len(tokens) > MAX_TOKENS:
        raise ValueError(f"it shows {len(tokens)} different tokens; at most {MAX_TOKENS} are looked for")
    for token in sorted(tokens, key=lambda token: (-len(token), token)):
        told = json.dumps(token)[1:-1].encode()
        # Never longer than it was: tokens that are in what stands for others would make it grow without end.
        config_dump = config_dump.replace(told, REDACTED if len(told) >= len(REDACTED) else b"*" * len(told))
    return config_dump


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def _tokens(value: Any) -> Iterator[str]:
    """The values of ``authorization`` metadata and of access tokens, wherever they are."""
    if isinstance(value, list):
        for item in value:
            yield from _tokens(item)
    elif isinstance(value, dict):
        is_authorization = str(value.get("key", "")).lower() == "authorization"
        for name, inner in value.items():
            is_secret = name in ("access_token", "accessToken") or (is_authorization and name == "value")
            if is_secret and isinstance(inner, str) and inner:
                yield inner
            else:
                yield from _tokens(inner)
