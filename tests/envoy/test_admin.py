"""The answers of the admin interface."""

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
  "ads": {"initial_metadata": [{"key": "authorization", "value": "e.y.J"}, {"key": "other", "value": "seen"}]},
  "hds": {"call_credentials": [{"access_token": "s3cret"}], "key": "authorization"},
  "again": "Bearer e.y.J"}}]
}"""


def test_tokens_are_not_in_a_config_dump_and_all_else_is():
    shown = redacted(DUMP)
    assert b"e.y.J" not in shown
    assert b"s3cret" not in shown
    assert shown == DUMP.replace(b"e.y.J", b"[redacted]").replace(b"s3cret", b"[redacted]")


def test_a_config_dump_that_is_no_json_is_not_passed_on():
    with pytest.raises(ValueError):
        redacted(b"e.y.J")
