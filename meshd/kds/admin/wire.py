"""What is asked about an Envoy, and the messages of the three streams. Source: reference/kds.md 1.3."""

import enum
from dataclasses import dataclass

from meshd.discovery.fields import VARINT, bytes_field, fields, string_field, text, varint_field
from meshd.model.resource import ResourceKey

PROXY_KINDS = ("Dataplane", "ZoneIngress", "ZoneEgress")
_ID, _KIND, _NAME, _MESH, _OPTION, _USED_ONLY = 1, 2, 3, 4, 5, 6
_ERROR, _BODY = 2, 3


class What(enum.Enum):
    """What may be asked; the value is the method of ``GlobalKDSService``."""

    CONFIG_DUMP = "StreamXDSConfigs"
    STATS = "StreamStats"
    CLUSTERS = "StreamClusters"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about which proxy, which is named as in its own zone.

    ``include_eds`` is of config dumps, ``used_only`` of stats; ``as_json`` of stats and clusters, which are plain text
    without it.
    """

    what: What
    proxy: ResourceKey
    include_eds: bool = False
    as_json: bool = False
    used_only: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What Envoy said; ``error`` is why it said nothing, and empty if it did."""

    body: bytes = b""
    error: str = ""


def encode_question(request_id: str, question: Question) -> bytes:
    """The request message."""
    proxy = question.proxy
    option = question.include_eds if question.what is What.CONFIG_DUMP else question.as_json
    return (
        string_field(_ID, request_id)
        + string_field(_KIND, proxy.kind)
        + string_field(_NAME, proxy.name)
        + string_field(_MESH, proxy.mesh)
        + varint_field(_OPTION, int(option))
        + (varint_field(_USED_ONLY, 1) if question.used_only and question.what is What.STATS else b"")
    )


def decode_question(what: What, data: bytes) -> tuple[str, Question]:
    """The request id and the question.

    Raises:
        ValueError: the bytes are no request.
    """
    texts: dict[int, str] = {}
    options: dict[int, bool] = {}
    for number, wire, value in fields(data):
        if isinstance(value, bytes) and number in (_ID, _KIND, _NAME, _MESH):
            texts[number] = text(value)
        elif wire == VARINT:
            options[number] = bool(value)
    option = options.get(_OPTION, False)
    proxy = ResourceKey(texts.get(_KIND, ""), texts.get(_MESH, ""), texts.get(_NAME, ""))
    question = Question(
        what,
        proxy,
        include_eds=option and what is What.CONFIG_DUMP,
        as_json=option and what is not What.CONFIG_DUMP,
        used_only=options.get(_USED_ONLY, False) and what is What.STATS,
    )
    return texts.get(_ID, ""), question


def encode_answer(request_id: str, answer: Answer) -> bytes:
    """The response message."""
    result = bytes_field(_ERROR, answer.error.encode()) if answer.error else bytes_field(_BODY, answer.body)
    return string_field(_ID, request_id) + result


def decode_answer(data: bytes) -> tuple[str, Answer]:
    """The request id and the answer; of error and body the last one counts.

    Raises:
        ValueError: the bytes are no response.
    """
    request_id, answer = "", Answer(error="the answer is empty")
    for number, _, value in fields(data):
        if not isinstance(value, bytes):
            continue
        if number == _ID:
            request_id = text(value)
        elif number == _ERROR:
            answer = Answer(error=text(value) or "the zone gives no reason")
        elif number == _BODY:
            answer = Answer(body=value)
    return request_id, answer
