"""Reading specs from JSON data: strictly for our own users, with every mistake named; leniently for peers."""

import difflib
import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from meshd.model.errors import Violation
from meshd.model.resource import Spec

S = TypeVar("S", bound=Spec)

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_strict(spec: type[S], data: Mapping[str, Any]) -> S:
    """The spec that JSON ``data`` says: no unknown field, no conversion ("80" is no port); null means absent.

    Raises:
        ShapeError: carries every violation.
    """
    try:
        text = json.dumps(without_nulls(spec, data), allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise ShapeError([Violation("", f"is not JSON data: {error}")]) from None
    try:
        value = spec.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        found = [_violation(spec, details) for details in error.errors(include_url=False)]
        raise ShapeError(found) from None
    unknown = list(unknown_fields(value))
    if unknown:
        raise ShapeError(unknown)
    return value


def unknown_fields(spec: Spec, at: tuple[str | int, ...] = ()) -> Iterator[Violation]:
    """A violation for each field that a spec kept without knowing it; one that knows none may have any."""
    known = aliases(type(spec))
    for name in (spec.model_extra or ()) if known else ():
        yield Violation(join_path([*at, name]), "unknown field" + suggestion(name, known))
    for attribute, info in type(spec).model_fields.items():
        value: object = getattr(spec, attribute)
        here = (*at, info.alias or attribute)
        if isinstance(value, Spec):
            yield from unknown_fields(value, here)
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, Spec):
                    yield from unknown_fields(item, (*here, index))


def read_lenient(spec: type[S], text: bytes | str) -> S:
    """The spec that JSON ``text`` of a peer says; fields we do not know are left out, wrong types are errors.

    Raises:
        ValueError: not JSON, or not of this shape; says what and where.
    """
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError("is not JSON: nested too deep") from error
    if not isinstance(data, dict):
        raise ValueError(f"is not a JSON object: {type(data).__name__}")  # noqa: TRY004 - callers catch ValueError
    try:
        return spec.model_validate_json(
            json.dumps(without_nulls(spec, data)), strict=True, extra=_extra(spec), by_alias=True, by_name=False
        )
    except ValidationError as error:
        found = [str(_violation(spec, details)) for details in error.errors(include_url=False)]
        raise ValueError("; ".join(found)) from None


def _extra(spec: type[Spec]) -> Literal["allow", "ignore"]:
    """What becomes of fields that a peer has and we do not know: some specs keep them."""
    return "allow" if spec.model_config.get("extra") == "allow" else "ignore"


class ShapeError(ValueError):
    """Data that is not of its schema's shape."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(str(v) for v in self.violations))


def join_path(parts: Iterable[str | int]) -> str:
    """A field path as users read it: ``networking.inbound[0].tags["kuma.io/service"]``."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            path += f".{part}" if path else part
        else:
            path += f'["{part}"]'
    return path


def suggestion(name: str, known: Iterable[str]) -> str:
    """'; did you mean "x"?' for the known name that looks most like ``name``, or nothing."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""


def aliases(spec: type[Spec]) -> Mapping[str, Any]:
    """The JSON field names of a spec and their annotations."""
    return {info.alias or name: info.annotation for name, info in spec.model_fields.items()}


def without_nulls(annotation: Any, data: Any) -> Any:
    """JSON data without the nulls that stand for an absent field, as Kuma reads them; nulls elsewhere stay."""
    spec = _unwrap(annotation)
    if isinstance(spec, type) and issubclass(spec, Spec) and isinstance(data, Mapping):
        fields = aliases(spec)
        return {
            key: without_nulls(fields.get(key), value)
            for key, value in data.items()
            if value is not None or key not in fields
        }
    if get_origin(spec) is tuple and isinstance(data, list):
        return [without_nulls(get_args(spec)[0], item) for item in data]
    if _is_mapping(spec) and isinstance(data, Mapping):
        return {key: without_nulls(get_args(spec)[1], value) for key, value in data.items()}
    return data


def _unwrap(annotation: Any) -> Any:
    """The first alternative of ``X | None``; anything else as it is."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next((a for a in get_args(annotation) if a is not type(None)), annotation)
    return annotation


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping) and len(get_args(annotation)) == 2


def _parent(spec: type[Spec], location: tuple[int | str, ...]) -> Any:
    """What holds the last part of ``location``: a spec class, a mapping's annotation, or None if unknown."""
    here: Any = spec
    for part in location[:-1]:
        here = _unwrap(here)
        if isinstance(here, type) and issubclass(here, Spec):
            here = aliases(here).get(str(part))
        elif get_origin(here) is tuple:
            here = get_args(here)[0]
        elif _is_mapping(here):
            here = get_args(here)[1]
        else:
            return None
    return _unwrap(here)


def _violation(spec: type[Spec], details: Any) -> Violation:
    location = tuple(part for part in details["loc"] if part != "[key]")
    path = join_path(location)
    parent = _parent(spec, location)
    if location and _is_mapping(parent):
        path = f'{join_path(location[:-1])}["{location[-1]}"]'
    if details["type"] == "extra_forbidden":
        known = aliases(parent) if isinstance(parent, type) and issubclass(parent, Spec) else ()
        return Violation(path, "unknown field" + suggestion(str(location[-1]), known))
    return Violation(path, _message(details))


_WANTED = {
    "int_type": "must be a whole number without quotes",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number without quotes",
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "mapping_type": "must be an object",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "missing": "is required",
}


def _message(details: Any) -> str:
    kind, given = details["type"], details.get("input")
    context = details.get("ctx", {})
    if kind == "missing":
        return _WANTED[kind]
    if kind in _WANTED:
        return f"{_WANTED[kind]}, not {_shown(given)}"
    if kind == "enum":
        return f"must be one of {context['expected'].replace(chr(39), chr(34))}, not {_shown(given)}"
    if kind == "value_error":
        return str(context["error"])
    text: str = details["msg"]
    return f"{text[:1].lower()}{text[1:]}, not {_shown(given)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
