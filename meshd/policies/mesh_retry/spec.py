"""The spec of a MeshRetry, field for field as Kuma 2.14 has it."""

import enum
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from meshd.model.fields import GoDuration, UInt32
from meshd.model.resource import Spec
from meshd.rules.header_match import HeaderMatch
from meshd.rules.target_ref import TargetRef

Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class Tcp(Spec):
    """``max_connect_attempt``: how often a connection is tried in all."""

    max_connect_attempt: UInt32 | None = None


class BackOff(Spec):
    """Waiting between tries: ``base_interval`` (25 ms), doubling up to ``max_interval`` (ten times that), jittered."""

    base_interval: GoDuration | None = None
    max_interval: GoDuration | None = None


class RateLimitFormat(enum.StrEnum):
    """What the number in a reset header says: how long to wait, or until when."""

    SECONDS = "Seconds"
    UNIX_TIMESTAMP = "UnixTimestamp"


class ResetHeader(Spec):
    """A response header that says when to come again."""

    name: str
    format: RateLimitFormat


class RateLimitedBackOff(Spec):
    """Waiting as the server says in the first of ``reset_headers`` that can be read, ``max_interval`` at most."""

    reset_headers: tuple[ResetHeader, ...] | None = None
    max_interval: GoDuration | None = None


class PredicateType(enum.StrEnum):
    """Which instances a retry leaves out."""

    OMIT_PREVIOUS_HOSTS = "OmitPreviousHosts"
    OMIT_HOSTS_WITH_TAGS = "OmitHostsWithTags"
    OMIT_PREVIOUS_PRIORITIES = "OmitPreviousPriorities"


class Predicate(Spec):
    """``tags`` belong to OmitHostsWithTags, ``update_frequency`` to OmitPreviousPriorities."""

    predicate: PredicateType
    tags: Mapping[str, str] | None = None
    update_frequency: Int32 = 2

    @model_validator(mode="after")
    def _written_out(self) -> Self:
        self.write_out("update_frequency")
        return self


class Http(Spec):
    """Retries of HTTP requests; ``retry_on`` has conditions, methods ("HttpMethodGet") and status codes ("503").

    ``per_try_timeout`` of 0 is none; ``host_selection`` says which instances a retry leaves out, and
    ``host_selection_max_attempts`` how often another one is looked for.
    """

    num_retries: UInt32 | None = None
    per_try_timeout: GoDuration | None = None
    back_off: BackOff | None = None
    rate_limited_back_off: RateLimitedBackOff | None = None
    retry_on: tuple[str, ...] | None = None
    retriable_response_headers: tuple[HeaderMatch, ...] | None = None
    retriable_request_headers: tuple[HeaderMatch, ...] | None = None
    host_selection: tuple[Predicate, ...] | None = None
    host_selection_max_attempts: Int64 | None = None


class GrpcRetryOn(enum.StrEnum):
    """A gRPC status in the headers of a response."""

    CANCELED = "Canceled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    INTERNAL = "Internal"
    RESOURCE_EXHAUSTED = "ResourceExhausted"
    UNAVAILABLE = "Unavailable"


class Grpc(Spec):
    """Retries of gRPC requests; as ``Http``."""

    num_retries: UInt32 | None = None
    per_try_timeout: GoDuration | None = None
    back_off: BackOff | None = None
    rate_limited_back_off: RateLimitedBackOff | None = None
    retry_on: tuple[GrpcRetryOn, ...] | None = None


class Conf(Spec):
    """By the protocol of the destination."""

    tcp: Tcp | None = None
    http: Http | None = None
    grpc: Grpc | None = None


class To(Spec):
    """The retries towards some destinations."""

    target_ref: TargetRef
    default: Conf = Conf()


class MeshRetry(Spec):
    """``target_ref`` are the clients."""

    target_ref: TargetRef | None = None
    to: tuple[To, ...] | None = None
