"""The answers of the admin interface."""

import contextlib
import json

import pytest

from meshd.envoy.admin import ServerInfo, node_id, open_connections, parse_listeners, parse_server_info, redacted

STATS = b"""\
listener.127.0.0.1_18997.downstream_cx_active: 2
listener.127.0.0.1_18997.worker_0.downstream_cx_active: 2
listener.[__1]_80.downstream_cx_active: 3
listener.[__1]_80.worker_0.downstream_cx_active: 1
listener.[__1]_80.worker_11.downstream_cx_active: 2
listener.admin.downstream_cx_active: 1
listener.admin.main_thread.downstream_cx_active: 1
"""


@pytest.mark.parametrize(("body", "count"), [(STATS, 5), (b"", 0), (b"nonsense\n\xff", 0)])
def test_open_connections_are_those_of_listeners_once(body, count):
    assert open_connections(body) == count


def test_listeners():
    one = b'{"name": "outbound:127.0.0.2:80", "local_address": {"socket_address": {"address": "127.0.0.2"}}}'
    assert parse_listeners(b'{"listener_statuses": [' + one + b', {"name": "a"}]}') == {"outbound:127.0.0.2:80", "a"}
    assert parse_listeners(b"{}") == frozenset()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"listener_statuses": {}}', b'{"listener_statuses": [1]}', b"\xff"])
def test_something_else_is_no_list_of_listeners(body):
    with pytest.raises(ValueError):
        parse_listeners(body)


def test_server_info():
    assert parse_server_info(b'{"version": "a/1.40.0/Clean", "state": "LIVE", "x": 1}') == ServerInfo(
        "a/1.40.0/Clean", "LIVE"
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"state": "LIVE"}', b"\xff"])
def test_something_else_is_no_server_info(body):
    with pytest.raises(ValueError):
        parse_server_info(body)


def test_which_proxy_an_envoy_is():
    assert node_id(b'{"node": {"id": "default.web-1"}, "state": "LIVE"}') == "default.web-1"
    assert node_id(b'{"node": {}}') == ""


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"node": 1}'])
def test_something_else_is_no_envoy(body):
    with pytest.raises(ValueError):
        node_id(body)


DUMP = b"""{
 "configs": [{"bootstrap": {
  "ads": {"initial_metadata": [{"key": "authorization", "value": "eyJ.eyJ.sig"}, {"key": "other", "value": "seen"}]},
  "hds": {"call_credentials": [{"access_token": "s3cret"}], "key": "authorization"},
  "again": "Bearer eyJ.eyJ.sig"}}]
}"""


def test_tokens_are_not_in_a_config_dump_and_all_else_is():
    shown = redacted(DUMP)
    assert b"eyJ" not in shown
    assert b"s3cret" not in shown
    assert shown == DUMP.replace(b"eyJ.eyJ.sig", b"[redacted]").replace(b"s3cret", b"******")


def test_a_config_dump_that_is_no_json_is_not_passed_on():
    with pytest.raises(ValueError):
        redacted(b"e.y.J")


def tokens(words):
    return json.dumps({"all": "".join(words) * 100, "shown": [{"access_token": word} for word in words]}).encode()


def test_tokens_that_are_in_what_stands_for_others_make_nothing_longer():
    dump = tokens(["a-long-enough-one", *"redact", *"[]"])
    shown = redacted(dump)
    assert len(shown) <= len(dump)
    assert b"a-long" not in shown


def test_who_shows_more_tokens_than_any_envoy_is_not_searched_for_them():
    with pytest.raises(ValueError, match="shows 101 different tokens"):
        redacted(tokens([f"t{n:03}" for n in range(101)]))


@pytest.mark.parametrize("read", [redacted, node_id, parse_server_info, parse_listeners])
def test_what_is_nested_too_deeply_is_no_answer(read):
    """An error of another sort would end the process: who asks takes it for a bug of ours."""
    with pytest.raises(ValueError, match="nested too deeply"):
        read(nested(100_000))


def test_what_can_just_be_read_is_not_too_deep_to_be_searched_or_no_answer_either():
    for levels in range(850, 1000, 10):
        with contextlib.suppress(ValueError):
            redacted(nested(levels))


def nested(levels):
    return b'{"a":' * levels + b"1" + b"}" * levels
