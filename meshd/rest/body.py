"""A request body as data. Bounded: its size by the server, its depth and its number of values here."""

import json
import re
from typing import Any

from meshd.model.documents import MAX_DEPTH, load_documents
from meshd.model.errors import InvalidError
from meshd.rest.errors import RequestError, bad_request

MAX_BYTES = 2 * 2**20
LONG_BYTES = 64 * 1024
"""A body beyond this is read beside the loop: it takes a while, and nobody needs to log in to send one."""
MAX_YAML_BYTES = 256 * 1024
"""YAML takes 50 times as long to read as JSON; no resource that a person writes is so long."""
YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")

SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def read_body(data: bytes, content_type: str) -> Any:
    """JSON, or YAML if the content type says so.

    Refused are numbers that JSON does not have (NaN), duplicate keys, and halves of characters (U+D800 to U+DFFF),
    which no answer, log or database could hold.

    Raises:
        RequestError: 400, it cannot be read; says where. 413, it is YAML and too long.
    """
    is_yaml = content_type.partition(";")[0].strip().lower() in YAML
    if is_yaml and len(data) > MAX_YAML_BYTES:
        detail = f"the body is longer than {MAX_YAML_BYTES} bytes of YAML; send it as JSON, up to {MAX_BYTES} bytes"
        raise RequestError(413, "Bad Request", detail)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8 at byte {error.start}") from None
    if is_yaml:
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
    if SURROGATE_ESCAPE.search(text) and has_surrogates(value):
        raise bad_request("the body has half a character: an escape of \\ud800 to \\udfff that is no pair")
    return value


def has_surrogates(value: Any) -> bool:
    """Whether a text in the data, a key or a value, is not Unicode; UTF-8 cannot say it. Bounded by ``too_deep``."""
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return any(has_surrogates(key) or has_surrogates(inner) for key, inner in value.items())
    return isinstance(value, list) and any(has_surrogates(inner) for inner in value)


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
