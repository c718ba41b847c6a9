"""The proxies that a configuration file owns: from ``proxies[]`` to resources, and what their engine cannot do."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from meshd.config.document import Document, parse
from meshd.config.problem import Problem
from meshd.config.tree import Engine, ProxyEntry
from meshd.model import labels as label
from meshd.model.errors import InvalidError
from meshd.model.resource import Resource

KINDS = ("Dataplane", "ZoneIngress", "ZoneEgress")
LAYER_7 = ("http", "http2", "grpc", "kafka")

Decode = Callable[[Mapping[str, Any]], Resource]
"""``functools.partial(meshd.model.codec.decode_document, registry=...)``: strict, InvalidError with all violations."""


@dataclass(frozen=True, slots=True)
class OwnProxy:
    """One proxy that this process runs. ``resource`` carries the label that says a file owns it.

    ``entry`` is what the configuration says of it, ``document`` the resource as written; ``source`` and ``line`` where.
    """

    entry: ProxyEntry
    resource: Resource
    document: Mapping[str, Any]
    source: str
    line: int

    @property
    def engine(self) -> Engine:
        """What carries its traffic."""
        return self.entry.engine

    @property
    def vips(self) -> bool:
        """Whether it owns the host's virtual IPs."""
        return self.entry.vips

    def listens(self) -> Iterator[tuple[str, str, int]]:
        """Every (path in the document, address, port) that this proxy will bind."""
        networking = self.document.get("networking") or {}
        address = networking.get("address", "")
        if self.resource.key.kind != "Dataplane":
            yield "networking.port", address, networking.get("port", 0)
            return
        for index, inbound in enumerate(networking.get("inbound") or ()):
            yield f"networking.inbound[{index}].port", inbound.get("address") or address, inbound.get("port", 0)
        for index, outbound in enumerate(networking.get("outbound") or ()):
            at = outbound.get("address") or "127.0.0.1"
            yield f"networking.outbound[{index}].port", at, outbound.get("port", 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of ``proxies`` with its place in the list; not ``is_whole`` if some of it could not be read."""

    index: int
    entry: ProxyEntry
    is_whole: bool = True


def readable_entries(data: Any) -> Iterator[Entry]:
    """What can be read of ``proxies`` in a configuration in which something is wrong; that itself is not said here."""
    for index, raw in enumerate(data if isinstance(data, list) else ()):
        if not isinstance(raw, dict):
            continue
        try:
            yield Entry(index, ProxyEntry.model_validate(raw))
        except ValidationError as error:
            wrong = {detail["loc"][0] for detail in error.errors(include_url=False)}
            rest = {key: value for key, value in raw.items() if key not in wrong}
            yield Entry(index, ProxyEntry.model_validate(rest), is_whole=False)


def resolve_proxies(
    entries: Iterable[Entry], config: Document, show: Callable[[Path], str], decode: Decode
) -> tuple[list[OwnProxy], list[Problem]]:
    """Read and decode every entry. ``config`` is where they stand; ``show`` names a file for people."""
    proxies: list[OwnProxy] = []
    problems: list[Problem] = []
    for one in entries:
        at, entry = f"proxies[{one.index}]", one.entry
        useless = _only_for_envoy(entry) if one.is_whole else ()
        problems += [config.problem(f"{at}.{key}", "does nothing with engine: builtin; remove it") for key in useless]
        if [entry.file, entry.resource, entry.dataplanes].count(None) != 2:
            if one.is_whole:  # else the wrong key may have been meant for the missing one
                problems.append(config.problem(at, "needs exactly one of file, resource and dataplanes"))
            continue
        if entry.dataplanes is not None:
            if entry.vips:
                message = "needs one Dataplane, in file or resource; it cannot go to a selection"
                problems.append(config.problem(f"{at}.vips", message))
            continue
        found, base = [config], f"{at}.resource"
        if entry.file is not None:
            base = ""
            found, wrong = _read(entry.file, config, f"{at}.file", show)
            problems += wrong
        if not found:
            continue
        document = found[0]
        data = entry.resource if entry.resource is not None else document.data
        resource, wrong = decode_at(document, base, data, decode)
        problems += wrong
        if resource is None:
            continue
        proxy = OwnProxy(
            entry,
            replace(resource, labels={**resource.labels, label.MANAGED_BY_FILE: "true"}),
            data,
            document.source,
            document.line_of(base),
        )
        refused = [document.problem(_join(base, path), message) for path, message in refusals(proxy)]
        problems += refused
        if not refused:
            proxies.append(proxy)
    problems += _duplicates(proxies)
    return proxies, problems


def _only_for_envoy(entry: ProxyEntry) -> list[str]:
    """The settings of a builtin engine that it does not have."""
    given = {"binary": entry.binary, "concurrency": entry.concurrency, "logLevel": entry.log_level}
    return [key for key, value in given.items() if value is not None and entry.engine is Engine.BUILTIN]


def decode_at(document: Document, base: str, data: Any, decode: Decode) -> tuple[Resource | None, list[Problem]]:
    """Decode the resource that stands at ``base`` of a document; violations become problems with their lines."""
    if not isinstance(data, Mapping):
        return None, [document.problem(base, f"must be a resource (a mapping with type and name), not {data!r:.60}")]
    try:
        return decode(data), []
    except InvalidError as error:
        return None, [document.problem(_join(base, v.field), v.message) for v in error.violations]


def refusals(proxy: OwnProxy) -> Iterator[tuple[str, str]]:
    """What its engine cannot carry, as (path in the document, message). Source: design section 1."""
    kind, networking = proxy.resource.key.kind, proxy.document.get("networking") or {}
    if kind not in KINDS:
        yield "type", f"must be one of {', '.join(KINDS)}, not {kind}"
        return
    if proxy.vips and kind != "Dataplane":
        yield "type", f"must be Dataplane for a proxy with vips: true, not {kind}"
    if kind != "Dataplane":
        return
    is_redirected = proxy.engine is Engine.ENVOY and bool(networking.get("transparentProxying"))
    if is_redirected and proxy.vips:
        yield "networking.transparentProxying", "brings VIPs to Envoy without vips: true; remove one of the two"
    for index, inbound in enumerate(networking.get("inbound") or ()):
        at = f"networking.inbound[{index}]"
        if proxy.engine is Engine.BUILTIN:
            yield from _above_layer_4(at, inbound)
        if not is_redirected:
            yield from _where_its_application_is(at, inbound, networking.get("address"))
    gateway = networking.get("gateway") or {}
    if gateway.get("type") == "BUILTIN":
        yield "networking.gateway.type", "BUILTIN is not available in this version of meshd; use DELEGATED"


def _above_layer_4(at: str, inbound: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    protocol = inbound.get("protocol") or (inbound.get("tags") or {}).get(label.PROTOCOL, "tcp")
    if protocol in LAYER_7:
        yield (
            at,
            (
                f"declares protocol {protocol}, but the builtin engine carries connections (L4); Envoy peers would"
                f" send it HTTP/2; use {label.PROTOCOL}: tcp, or engine: envoy"
            ),
        )


def _where_its_application_is(at: str, inbound: Mapping[str, Any], address: object) -> Iterator[tuple[str, str]]:
    listen = (inbound.get("address") or address, inbound.get("port"))
    # Kuma's defaults: the application is at the inbound's own address and port unless it says otherwise.
    behind = (inbound.get("serviceAddress") or listen[0], inbound.get("servicePort") or listen[1])
    if listen == behind:
        yield (
            at,
            (
                f"would listen on {listen[0]}:{listen[1]}, where its own application is; set servicePort or"
                " serviceAddress to the application's"
            ),
        )


def _read(path: Path, config: Document, at: str, show: Callable[[Path], str]) -> tuple[list[Document], list[Problem]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        return [], [config.problem(at, f"cannot read {show(path)}: {reason}")]
    documents, problems = parse(text, show(path))
    if not problems and len(documents) != 1:
        problems = [config.problem(at, f"{show(path)} must hold exactly one resource, not {len(documents)}")]
    return documents[:1], problems


def _duplicates(proxies: list[OwnProxy]) -> Iterator[Problem]:
    first: dict[object, OwnProxy] = {}
    owner: OwnProxy | None = None
    for proxy in proxies:
        before = first.setdefault(proxy.resource.key, proxy)
        if before is not proxy:
            message = f"{proxy.resource.key} is also at {before.source}:{before.line}; give it another name"
            yield Problem(proxy.source, proxy.line, "proxies", message)
        if proxy.vips and owner is not None:
            message = f"vips: true is already at {owner.source}:{owner.line}; one Dataplane a zone can own the VIPs"
            yield Problem(proxy.source, proxy.line, "proxies", message)
        owner = owner or (proxy if proxy.vips else None)


def _join(base: str, field: str) -> str:
    return f"{base}.{field}" if base and field else base or field
