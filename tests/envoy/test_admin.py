"""The answers of the admin interface."""

import pytest

from meshd.envoy.admin import ServerInfo, open_connections, parse_listeners, parse_server_info

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
