"""The spec of a MeshHTTPRoute, field for field as Kuma 2.14 has it."""

import enum
from typing import Self

from pydantic import model_validator

from meshd.model.fields import NumberOrText
from meshd.model.resource import Spec
from meshd.rules.backend_ref import BackendRef
from meshd.rules.header_match import HeaderMatch
from meshd.rules.target_ref import TargetRef


class PathMatchType(enum.StrEnum):
    """How a path is compared: all of it, its first segments, or by a regular expression (RE2) for all of it."""

    EXACT = "Exact"
    PATH_PREFIX = "PathPrefix"
    REGULAR_EXPRESSION = "RegularExpression"


class PathMatch(Spec):
    """A condition on the path of a request, without the query."""

    value: str
    type: PathMatchType


class Method(enum.StrEnum):
    """A method of HTTP."""

    CONNECT = "CONNECT"
    DELETE = "DELETE"
    GET = "GET"
    HEAD = "HEAD"
    OPTIONS = "OPTIONS"
    PATCH = "PATCH"
    POST = "POST"
    PUT = "PUT"
    TRACE = "TRACE"


class QueryParamsMatchType(enum.StrEnum):
    """How a query parameter is compared."""

    EXACT = "Exact"
    REGULAR_EXPRESSION = "RegularExpression"


class QueryParamsMatch(Spec):
    """A condition on a parameter in the query of a request."""

    type: QueryParamsMatchType
    name: str
    value: str


class Match(Spec):
    """A condition on a request: all that is set must hold; one with nothing set is met by every request."""

    path: PathMatch | None = None
    method: Method | None = None
    query_params: tuple[QueryParamsMatch, ...] | None = None
    headers: tuple[HeaderMatch, ...] | None = None


class HeaderKeyValue(Spec):
    """A header to send."""

    name: str
    value: str


class HeaderModifier(Spec):
    """Headers to ``set`` in place of what is there, to ``add`` to it, and to ``remove``; a name once in all three."""

    set: tuple[HeaderKeyValue, ...] | None = None
    add: tuple[HeaderKeyValue, ...] | None = None
    remove: tuple[str, ...] | None = None


class PathRewriteType(enum.StrEnum):
    """Which part of a path is replaced."""

    REPLACE_FULL_PATH = "ReplaceFullPath"
    REPLACE_PREFIX_MATCH = "ReplacePrefixMatch"


class PathRewrite(Spec):
    """The new path, or what stands in place of the prefix that was matched; the query stays."""

    type: PathRewriteType
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class RequestRedirect(Spec):
    """An answer that sends the client elsewhere; what is not set stays as in the request."""

    scheme: str | None = None
    hostname: str | None = None
    path: PathRewrite | None = None
    port: int | None = None
    status_code: int = 302

    @model_validator(mode="after")
    def _written_out(self) -> Self:
        self.write_out("status_code")
        return self


class UrlRewrite(Spec):
    """What the server sees in place of what the client sent."""

    hostname: str | None = None
    path: PathRewrite | None = None
    host_to_backend_hostname: bool | None = None


class RequestMirror(Spec):
    """Sends a copy of ``percentage`` of the requests (all without it) to another place; its answers are not used."""

    percentage: NumberOrText | None = None
    backend_ref: BackendRef


class FilterType(enum.StrEnum):
    """Which field of a filter is set."""

    REQUEST_HEADER_MODIFIER = "RequestHeaderModifier"
    RESPONSE_HEADER_MODIFIER = "ResponseHeaderModifier"
    REQUEST_REDIRECT = "RequestRedirect"
    URL_REWRITE = "URLRewrite"
    REQUEST_MIRROR = "RequestMirror"


class Filter(Spec):
    """Something done to a request or response on its way."""

    type: FilterType
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: UrlRewrite | None = None
    request_mirror: RequestMirror | None = None


class RuleConf(Spec):
    """What is done with the requests of a rule; without ``backend_refs`` they go where they were sent."""

    filters: tuple[Filter, ...] | None = None
    backend_refs: tuple[BackendRef, ...] | None = None


class Rule(Spec):
    """The requests that any of ``matches`` is about, and what is done with them."""

    matches: tuple[Match, ...]
    default: RuleConf


class To(Spec):
    """The rules for requests to some destinations; ``hostnames`` belong to built-in gateways."""

    hostnames: tuple[str, ...] | None = None
    target_ref: TargetRef
    rules: tuple[Rule, ...]


class MeshHTTPRoute(Spec):
    """``target_ref`` are the clients."""

    target_ref: TargetRef | None = None
    to: tuple[To, ...] | None = None
