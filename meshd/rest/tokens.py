"""Bodies of the token endpoints: strict, every violation at once. Source: reference/dataplane.md 6.4."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from meshd.ca import access
from meshd.model.duration import parse_duration
from meshd.model.errors import InvalidError, Violation
from meshd.store.store import Store


class _Body:
    """Reads fields of a body and collects what is wrong with them."""

    def __init__(self, data: Any, known: tuple[str, ...]) -> None:
        self.violations: list[Violation] = []
        self._data: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        if not isinstance(data, Mapping):
            self.violations.append(Violation("", "must be an object"))
        self.violations += [Violation(str(k), "unknown field") for k in self._data if k not in known]

    def _read(self, field: str, kind: Callable[[Any], bool], what: str, default: Any) -> Any:
        value = self._data.get(field)
        if value is None:
            return default
        if not kind(value):
            self.violations.append(Violation(field, f"must be {what}"))
            return default
        return value

    def text(self, field: str) -> str:
        """A text, empty if absent."""
        value: str = self._read(field, lambda v: isinstance(v, str), "text", "")
        return value

    def texts(self, field: str) -> list[str]:
        """A list of texts, empty if absent."""
        value: list[str] = self._read(field, is_texts, "a list of texts", [])
        return value

    def tags(self, field: str) -> dict[str, list[str]]:
        """Tag -> values."""
        value: dict[str, list[str]] = self._read(
            field, lambda v: isinstance(v, dict) and all(map(is_texts, v.values())), "an object of lists of texts", {}
        )
        return value

    def valid_for(self, default: timedelta | None) -> timedelta:
        """How long the token lives; required without a default."""
        text = self.text("validFor")
        if not text:
            if default is None and not any(v.field == "validFor" for v in self.violations):
                self.violations.append(Violation("validFor", "cannot be empty; give a duration such as 24h"))
            return default or timedelta()
        try:
            return parse_duration(text)
        except ValueError as error:
            self.violations.append(Violation("validFor", str(error)))
            return timedelta()

    def check(self, what: str) -> None:
        """Raise everything that was found."""
        if self.violations:
            raise InvalidError(what, self.violations)


def is_texts(value: Any) -> bool:
    """Whether it is a list of texts."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def zone_token(store: Store, data: Any, now: datetime) -> str:
    """``POST /tokens/zone``.

    Raises:
        InvalidError: the body is wrong; NotFoundError: no signing key here.
    """
    body = _Body(data, ("zone", "scope", "validFor"))
    zone, scope, valid_for = body.text("zone"), body.texts("scope"), body.valid_for(None)
    body.check("zone token")
    return access.issue_zone_token(store, zone, scope, valid_for, now)


def dataplane_token(store: Store, data: Any, now: datetime) -> str:
    """``POST /tokens/dataplane``; without validFor ten years, as kumactl's users know.

    Raises:
        InvalidError: the body is wrong; NotFoundError: no such mesh, or no signing key here.
    """
    body = _Body(data, ("name", "mesh", "tags", "type", "workload", "validFor"))
    name, mesh, proxy_type, workload = (body.text(f) for f in ("name", "mesh", "type", "workload"))
    tags, valid_for = body.tags("tags"), body.valid_for(access.DEFAULT_VALID_FOR)
    body.check("dataplane token")
    return access.issue_dataplane_token(
        store, mesh, valid_for, now, name=name, tags=tags, proxy_type=proxy_type, workload=workload
    )


def user_token(store: Store, data: Any, now: datetime) -> str:
    """``POST /tokens/user``.

    Raises:
        InvalidError: the body is wrong; NotFoundError: no signing key here.
    """
    body = _Body(data, ("name", "groups", "validFor"))
    name, groups, valid_for = body.text("name"), body.texts("groups"), body.valid_for(None)
    body.check("user token")
    return access.issue_user_token(store, name, groups, valid_for, now)
