"""Paths of one Envoy, and the limit of a Unix socket's."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.envoy.places import SOCKET_PATH_LIMIT, home, places, places_of, runtime_directory, slug
from meshd.model.resource import ResourceKey

WEB = ResourceKey("Dataplane", "default", "web-1")
RUNTIME = Path("/run/user/1000/meshd")


def test_everything_is_in_a_directory_of_the_proxy():
    at = places(Path("/var/lib/meshd/zone-a"), WEB, RUNTIME)
    assert at.directory == Path("/var/lib/meshd/zone-a/envoy") / slug(WEB)
    assert {at.bootstrap.parent, at.secret.parent, at.log.parent, at.admin_socket.parent} == {at.directory}
    assert at == places_of(at.directory, RUNTIME)
    assert home(Path("/s")) == Path("/s/envoy")


def test_a_slug_tells_people_which_proxy_it_is_and_is_unique():
    keys = [
        WEB,
        ResourceKey("Dataplane", "other", "web-1"),
        ResourceKey("ZoneIngress", "", "web-1"),
        ResourceKey("Dataplane", "default", "web-1" + "x" * 200),
        ResourceKey("Dataplane", "default", "web-1" + "x" * 201),
    ]
    slugs = [slug(key) for key in keys]
    assert len(set(slugs)) == len(keys)
    assert slugs[0].startswith("dataplane-web-1-")
    assert slugs[2].startswith("zoneingress-web-1-")
    assert max(map(len, slugs)) < 60


@given(st.integers(0, 250), st.sampled_from("aä"))
def test_sockets_have_room_in_any_state_directory(depth, letter):
    state = Path("/" + letter * min(depth, 120)) / ("b" * max(1, depth - 120))
    at = places(state, WEB, RUNTIME)
    for name in ("admin.sock", "kuma-mesh-metric-config.sock"):
        assert len(bytes(at.sockets / name)) <= SOCKET_PATH_LIMIT
    assert at.directory.is_relative_to(state)
    assert at == places(state, WEB, RUNTIME)


def test_long_paths_do_not_share_a_socket():
    deep = Path("/" + "x" * 100)
    one, other = places(deep, WEB, RUNTIME), places(deep / "y", WEB, RUNTIME)
    assert one.sockets.parent == other.sockets.parent == RUNTIME
    assert one.admin_socket != other.admin_socket
    assert one.bootstrap.parent == one.directory


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/meshd"),
        ({"XDG_RUNTIME_DIR": ""}, "/tmp/meshd-7"),
        ({"XDG_RUNTIME_DIR": "relative"}, "/tmp/meshd-7"),
        ({"XDG_RUNTIME_DIR": "/" + "x" * 60}, "/tmp/meshd-7"),
        ({}, "/tmp/meshd-7"),
    ],
)
def test_the_short_directory_is_the_sessions_or_under_tmp(env, expected):
    assert runtime_directory(env, 7) == Path(expected)
