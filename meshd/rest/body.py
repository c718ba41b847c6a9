"""A request body as data. Bounded: its size by the server, its depth and its number of values here."""

import json
from typing import Any

from meshd.model.documents import MAX_DEPTH, load_documents
from meshd.model.errors import InvalidError
from meshd.rest.errors import bad_request

MAX_BYTES = 2 * 2**20
YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


def read_body(data: bytes, content_type: str) -> Any:
    """JSON, or YAML if the content type says so. Numbers that JSON does not have (NaN) and duplicate keys are refused.

    Raises:
        RequestError: 400, it cannot be read; says where.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8 at byte {error.start}") from None
    if content_type.partition(";")[0].strip().lower() in YAML:
        try:
            documents = load_documents(text, "body")
        except InvalidError as error:
            raise bad_request(f"the body is not YAML: {'; '.join(str(v) for v in error.violations)}") from None
        if len(documents) != 1:
            raise bad_request(f"the body must hold one document, not {len(documents)}")
        return documents[0].data
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise bad_request("the body is nested too deep") from None
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from None
    if too_deep(value):
        raise bad_request(f"the body is nested deeper than {MAX_DEPTH}")
    return value


def too_deep(value: Any) -> bool:
    """Whether data is nested deeper than anything here needs."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"field {json.dumps(key)} is there twice")
            seen.add(key)
    return result


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON value")
