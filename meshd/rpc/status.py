"""gRPC status codes, the error that carries one, and how other errors translate to a status."""

from collections.abc import Iterator
from enum import IntEnum

from meshd.model.errors import (
    ConflictError,
    DeniedError,
    InvalidError,
    MeshdError,
    NotFoundError,
    PeerError,
    UnavailableError,
)


class Status(IntEnum):
    """The codes of ``grpc-status``. Source: gRPC ``doc/statuscodes.md``."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(MeshdError):
    """A call ended, or is to end, with a status other than OK.

    Raised by a handler to end its stream so, and by a client's ``receive`` when the server ended the stream so.
    A lost connection is no status: it raises ``UnavailableError``.
    """

    def __init__(self, status: Status, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(f"{status.name}: {message}" if message else status.name)


_STATUS_OF: tuple[tuple[type[MeshdError], Status], ...] = (
    (InvalidError, Status.INVALID_ARGUMENT),
    (NotFoundError, Status.NOT_FOUND),
    (ConflictError, Status.ABORTED),
    (DeniedError, Status.PERMISSION_DENIED),
    (PeerError, Status.INVALID_ARGUMENT),
    (UnavailableError, Status.UNAVAILABLE),
)


def as_rpc_error(error: BaseException) -> RpcError | None:
    """The status with which ``error``, raised by a handler, ends its call; None if it is a bug.

    Only errors that meshd raises on purpose have one. A group has one if all its leaves have; the first counts, since
    the others are mostly its consequence.
    """
    if isinstance(error, BaseExceptionGroup):
        found = [as_rpc_error(leaf) for leaf in leaves(error)]
        return None if None in found else found[0]
    if isinstance(error, RpcError):
        return error
    for kind, status in _STATUS_OF:
        if isinstance(error, kind):
            return RpcError(status, str(error))
    return None


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group, however deep."""
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from leaves(inner)
        else:
            yield inner


def status_of_code(value: str) -> Status:
    """The status that a ``grpc-status`` header names; UNKNOWN for what is no known code."""
    try:
        return Status(int(value))
    except ValueError:
        return Status.UNKNOWN


# Source: gRPC doc/PROTOCOL-HTTP2.md "Errors", the table of HTTP/2 error codes a client may receive in RST_STREAM.
_STATUS_OF_RESET = {
    7: Status.UNAVAILABLE,
    8: Status.CANCELLED,
    11: Status.RESOURCE_EXHAUSTED,
    12: Status.PERMISSION_DENIED,
}

# Source: gRPC doc/http-grpc-status-mapping.md.
_STATUS_OF_HTTP = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}


def status_of_reset(error_code: int) -> Status:
    """The status a client reports for a stream that the server reset with an HTTP/2 ``error_code``."""
    return _STATUS_OF_RESET.get(error_code, Status.INTERNAL)


def status_of_http(code: int) -> Status:
    """The status a client reports for an answer that is no gRPC but an HTTP ``code``."""
    return _STATUS_OF_HTTP.get(code, Status.UNKNOWN)
