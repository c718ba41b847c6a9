"""Any document that Envoy's API has, as far as it is made of the messages that proxies get. Made from the schema."""

import base64
import string
from collections.abc import Callable
from functools import cache
from typing import Any

from hypothesis import strategies as st

from meshd.xds.encode import PREFIX, json_name, message_class
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, RUNTIME, SECRET

TOP = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, RUNTIME)
FILTERS = PREFIX + "envoy.extensions.filters."
IN_ANY = (
    FILTERS + "network.tcp_proxy.v3.TcpProxy",
    FILTERS + "network.http_connection_manager.v3.HttpConnectionManager",
    FILTERS + "network.rbac.v3.RBAC",
    FILTERS + "network.direct_response.v3.Config",
    FILTERS + "http.router.v3.Router",
    FILTERS + "http.grpc_stats.v3.FilterConfig",
    FILTERS + "http.rbac.v3.RBAC",
    FILTERS + "listener.tls_inspector.v3.TlsInspector",
    FILTERS + "udp.dns_filter.v3.DnsFilterConfig",
    PREFIX + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    PREFIX + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    PREFIX + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
)
"""What stands in an Any somewhere in a proxy's resources."""

MISNAMED = frozenset(
    {
        "acceptHttp10",
        "consecutive5xx",
        "defaultHostForHttp10",
        "enforcingConsecutive5xx",
        "ignoreHttp11Upgrade",
        "normalizePathRfc3986",
        "proxy100Continue",
    }
)
"""Fields that the generated classes do not find by their JSON names."""

DEPTH = 5
"""How deep documents go: listener, chain, filter, its configuration, and what is in it."""


def _sorted(mapping: dict[str, Any]) -> dict[str, Any]:
    """In the order in which we write maps; the generated classes write them as they come."""
    return dict(sorted(mapping.items()))


texts = st.text(max_size=12)
words = st.text(string.ascii_lowercase, min_size=1, max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2).map(_sorted),
    max_leaves=4,
)


def _integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": texts,
    "bytes": st.binary(max_size=6).map(lambda raw: base64.b64encode(raw).decode()),
    "bool": st.booleans(),
    "uint32": _integers(32, signed=False),
    "uint64": _integers(64, signed=False),
    "int32": _integers(32, signed=True),
    "int64": _integers(64, signed=True),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "double": st.floats(allow_nan=False, allow_infinity=False),
}
# -0.0 equals the default, so we leave it out; the generated classes write it.
SCALARS["double"] = SCALARS["double"].map(lambda value: value + 0.0)
SCALARS["float"] = SCALARS["float"].map(lambda value: value + 0.0)

WELL_KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "BoolValue": SCALARS["bool"],
    "UInt32Value": SCALARS["uint32"],
    "UInt64Value": SCALARS["uint64"],
    "Int32Value": SCALARS["int32"],
    "Int64Value": SCALARS["int64"],
    "FloatValue": SCALARS["float"],
    "DoubleValue": SCALARS["double"],
    "StringValue": texts,
    "BytesValue": SCALARS["bytes"],
    "Duration": st.integers(0, 10**7).map(lambda ms: f"{ms // 1000}.{ms % 1000:03}s"),
    "Struct": st.dictionaries(words, json_values, max_size=3).map(_sorted),
    "Value": json_values,
}


@st.composite
def documents(draw: st.DrawFn, type_url: str, depth: int = DEPTH) -> dict[str, Any]:
    """A document of a type: some of its fields, one of each oneof."""
    document: dict[str, Any] = {}
    groups: set[str] = set()
    fields = _fields(type_url)
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=5, unique=True)) if fields else ():
        group, is_message, make = fields[name]
        if group in groups or (is_message and depth == 0):
            continue
        if group:
            groups.add(group)
        document[name] = draw(make(depth - 1))
    return document


Make = Callable[[int], st.SearchStrategy[Any]]
"""The depth that is left -> values."""


@cache
def _fields(type_url: str) -> dict[str, tuple[str, bool, Make]]:
    """Of each field by its JSON name: its oneof ("" for none), whether it is a message, and its values."""
    betterproto = message_class(type_url)._betterproto
    found: dict[str, tuple[str, bool, Make]] = {}
    for attribute, meta in betterproto.meta_by_field_name.items():
        name = json_name(attribute)
        if name in MISNAMED:
            continue
        cls = betterproto.cls_by_field[attribute]
        if meta.map_meta is not None and meta.map_meta[0].proto_type != "string":
            continue
        if meta.map_meta is not None:
            value = _values(meta.map_meta[1], cls._betterproto.cls_by_field["value"])
            found[name] = ("", True, _maps(value))
            continue
        value = _values(meta, cls)
        is_message = meta.proto_type == "message"
        found[name] = (meta.group or "", is_message, _lists(value) if meta.repeated else value)
    return found


def _maps(value: Make) -> Make:
    return lambda depth: st.dictionaries(words, value(depth), max_size=2).map(_sorted)


def _lists(value: Make) -> Make:
    return lambda depth: st.lists(value(depth), max_size=2)


def _values(meta: Any, cls: Any) -> Make:
    if meta.proto_type == "enum":
        renamed = cls.betterproto_value_to_renamed_proto_names()
        names = sorted({renamed.get(member.value, member.name) for member in cls})
        return lambda _: st.sampled_from(names)
    if meta.proto_type != "message":
        return lambda _: SCALARS[meta.proto_type]
    if meta.unwrap is not None:
        cls = meta.unwrap()
    is_well_known = cls.__module__.endswith(".google.protobuf")
    if is_well_known and cls.__name__ == "Any":
        return lambda depth: st.deferred(lambda: any_documents(max(depth, 0)))
    if is_well_known and cls.__name__ in WELL_KNOWN:
        return lambda _: WELL_KNOWN[cls.__name__]
    type_url = _type_url(cls)
    return lambda depth: st.deferred(lambda: documents(type_url, max(depth, 0)))


def _type_url(cls: Any) -> str:
    pool = __import__("envoy_data_plane.message_pool", fromlist=["default_message_pool"]).default_message_pool
    return str(pool.type_to_url[cls])


@st.composite
def any_documents(draw: st.DrawFn, depth: int) -> dict[str, Any]:
    """One with ``@type``."""
    type_url = draw(st.sampled_from(IN_ANY))
    return {"@type": type_url, **draw(documents(type_url, depth))}


@st.composite
def resources(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A type that proxies get, and a document of it."""
    type_url = draw(st.sampled_from(TOP))
    return type_url, draw(documents(type_url))
