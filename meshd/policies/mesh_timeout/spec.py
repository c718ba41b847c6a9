"""The spec of a MeshTimeout, field for field as Kuma 2.14 has it."""

from pydantic import Field

from meshd.model.fields import GoDuration
from meshd.model.resource import Spec
from meshd.rules.client_match import ClientMatch
from meshd.rules.target_ref import TargetRef


class Http(Spec):
    """What is timed in HTTP only; 0 switches a timeout off.

    ``request_timeout``: until the response has begun. ``stream_idle_timeout``: a stream without activity.
    ``max_stream_duration`` and ``max_connection_duration``: whatever happens. ``request_headers_timeout``: until the
    headers of a request are complete.
    """

    request_timeout: GoDuration | None = None
    stream_idle_timeout: GoDuration | None = None
    max_stream_duration: GoDuration | None = None
    max_connection_duration: GoDuration | None = None
    request_headers_timeout: GoDuration | None = None


class Conf(Spec):
    """``connection_timeout``: until TCP is connected. ``idle_timeout``: a connection without traffic, 0 for ever."""

    connection_timeout: GoDuration | None = None
    idle_timeout: GoDuration | None = None
    http: Http | None = None


class To(Spec):
    """The timeouts of a client towards some destinations."""

    target_ref: TargetRef
    default: Conf = Conf()


class From(Spec):
    """The timeouts of a server; ``target_ref`` is always the whole mesh."""

    target_ref: TargetRef
    default: Conf = Conf()


class Rule(Spec):
    """The timeouts of a server, for all clients or those that one of ``matches`` is about."""

    matches: tuple[ClientMatch, ...] | None = None
    default: Conf = Conf()


class MeshTimeout(Spec):
    """``target_ref`` are the proxies; ``to`` is for their outbounds, ``from`` and ``rules`` for their inbounds."""

    target_ref: TargetRef | None = None
    to: tuple[To, ...] | None = None
    from_: tuple[From, ...] | None = Field(default=None, alias="from")
    rules: tuple[Rule, ...] | None = None
