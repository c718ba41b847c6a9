import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.kds.admin.wire import (
    Answer,
    Question,
    What,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
)
from meshd.model.resource import ResourceKey
from meshd.proto.kuma.mesh import v1alpha1 as proto

WEB = ResourceKey("Dataplane", "default", "web-1")
IN = ResourceKey("ZoneIngress", "", "in-1")
NAMES = {"request_id": "1", "resource_type": "Dataplane", "resource_name": "web-1", "resource_mesh": "default"}
JSON = proto.AdminOutputFormat.JSON

QUESTIONS = [
    (Question(What.CONFIG_DUMP, WEB, include_eds=True), proto.XdsConfigRequest(**NAMES, include_eds=True)),
    (Question(What.CONFIG_DUMP, WEB), proto.XdsConfigRequest(**NAMES)),
    (Question(What.STATS, WEB, as_json=True, used_only=True), proto.StatsRequest(**NAMES, format=JSON, used_only=True)),
    (Question(What.STATS, WEB, used_only=True), proto.StatsRequest(**NAMES, used_only=True)),
    (Question(What.CLUSTERS, WEB, as_json=True), proto.ClustersRequest(**NAMES, format=JSON)),
    (
        Question(What.CLUSTERS, IN),
        proto.ClustersRequest(request_id="1", resource_type="ZoneIngress", resource_name="in-1"),
    ),
]


@pytest.mark.parametrize(("question", "message"), QUESTIONS)
def test_questions_are_kumas_messages(question, message):
    assert type(message).parse(encode_question("1", question)) == message
    assert decode_question(question.what, bytes(message)) == ("1", question)


ANSWERS = [
    (Answer(b"{}"), proto.XdsConfigResponse(request_id="1", config=b"{}")),
    (Answer(b""), proto.StatsResponse(request_id="1", stats=b"")),
    (Answer(error="no"), proto.ClustersResponse(request_id="1", error="no")),
]


@pytest.mark.parametrize(("answer", "message"), ANSWERS)
def test_answers_are_kumas_messages(answer, message):
    assert type(message).parse(encode_answer("1", answer)) == message
    assert decode_answer(bytes(message)) == ("1", answer)


def test_an_answer_without_a_result_is_an_error():
    assert decode_answer(bytes(proto.StatsResponse(request_id="1"))) == ("1", Answer(error="the answer is empty"))


@given(st.binary(max_size=60), st.sampled_from(What))
def test_random_bytes_are_a_value_error_at_worst(data, what):
    with contextlib.suppress(ValueError):
        decode_answer(data)
    with contextlib.suppress(ValueError):
        decode_question(what, data)
