"""Errors as Kuma's JSON: AIP-193-like fields, and the duplicates that old clients read.

Source: reference/dataplane.md 6.1.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from meshd.model.errors import (
    ConflictError,
    DeniedError,
    InvalidError,
    MeshdError,
    NotFoundError,
    UnavailableError,
    Violation,
)

GET = "Could not retrieve a resource"
LIST = "Could not retrieve resources"
CREATE = "Could not create a resource"
PROCESS = "Could not process a resource"
DELETE = "Could not delete a resource"
MESH = "Failed to retrieve Mesh"


@dataclass(eq=False)
class RequestError(MeshdError):
    """An answer that says no, ready to be sent."""

    status: int
    title: str
    detail: str
    violations: Sequence[Violation] = ()

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        answer: dict[str, Any] = {
            "type": "/std-errors",
            "status": self.status,
            "title": self.title,
            "detail": self.detail,
            "details": self.detail,
        }
        if self.violations:
            answer["invalid_parameters"] = [{"field": v.field, "reason": v.message} for v in self.violations]
            answer["causes"] = [{"field": v.field, "message": v.message} for v in self.violations]
        return answer


def answer(refused: RequestError, headers: Mapping[str, str] | None = None) -> Response:
    """The response that says no, whatever characters a request has put into it: a half one is escaped."""
    text = json.dumps(refused.body(), ensure_ascii=False, separators=(",", ":"))
    content = text.encode(errors="backslashreplace")  # U+D800 becomes \ud800, as JSON wants it
    return Response(content, refused.status, dict(headers or {}), "application/json")


def explain(error: MeshdError, title: str) -> RequestError:
    """The answer to an error that came up while doing what ``title`` says could not be done."""
    match error:
        case RequestError():
            return error
        case InvalidError():
            return RequestError(400, title, "Resource is not valid", error.violations)
        case NotFoundError():
            return RequestError(404, title, "Not found")
        case ConflictError():
            return RequestError(409, "Conflict", str(error))
        case DeniedError():
            return RequestError(403, "Access Denied", str(error))
        case UnavailableError():
            return RequestError(503, "Service unavailable", str(error))
        case _:
            return RequestError(500, title, "Internal Server Error")


def not_found(title: str) -> RequestError:
    """404."""
    return RequestError(404, title, "Not found")


def bad_request(detail: str) -> RequestError:
    """400 for what cannot even be read."""
    return RequestError(400, "Bad Request", detail)


def not_allowed(detail: str) -> RequestError:
    """405."""
    return RequestError(405, "Method not allowed", detail)
