"""Who may connect, and as which zone."""

from ipaddress import ip_network

import pytest

from meshd.kds.admission import (
    AdmittedZone,
    Caller,
    Holder,
    caller_of,
    check_duplicate,
    check_features,
    check_tokenless,
    host_of,
    needs_ping,
    within,
)
from meshd.rpc import RpcError, Status

LEGACY = (AdmittedZone("legacy", ip_network("10.1.0.0/16")), AdmittedZone("six", ip_network("fd00::/8")))


@pytest.mark.parametrize("header", ["abc", "Bearer abc", "bearer abc"])
def test_a_token_may_come_raw_or_as_bearer(header: str) -> None:
    caller = caller_of([("client-id", "zone-1"), ("authorization", header)], "10.0.0.1:99")
    assert caller == Caller("zone-1", "abc", "10.0.0.1:99")
    assert "abc" not in repr(caller)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "0 times"),
        ([("client-id", "a"), ("client-id", "b")], "2 times"),
        ([("client-id", "")], "no DNS name"),
        ([("client-id", "Zone_1")], "no DNS name"),
        ([("client-id", "a" * 64)], "no DNS name"),
        ([("client-id", "a\n")], "no DNS name"),
        ([("client-id", "a"), ("authorization", "x"), ("authorization", "y")], "more than once"),
    ],
)
def test_a_call_that_names_no_zone_is_refused(metadata: list, reason: str) -> None:
    with pytest.raises(RpcError, match=reason) as caught:
        caller_of(metadata, "")
    assert caught.value.status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("zone", "peer", "shown", "reason"),
    [
        ("legacy", "10.1.2.3:5", False, ""),
        ("legacy", "[::ffff:10.1.2.3]:5", False, ""),
        ("six", "[fd00::1]:5", False, ""),
        ("legacy", "10.2.0.1:5", False, "comes from 10.2.0.1"),
        ("legacy", "memory", False, "comes from memory"),
        ("six", "10.1.2.3:5", False, "comes from 10.1.2.3"),
        ("other", "10.1.2.3:5", False, "shows no zone token"),
        ("legacy", "10.1.2.3:5", True, "has shown a zone token before"),
    ],
)
def test_without_a_token_only_listed_zones_come_in(zone: str, peer: str, shown: bool, reason: str) -> None:
    def check() -> None:
        check_tokenless(Caller(zone, "", peer), LEGACY, token_shown_before=shown)

    if not reason:
        check()
        return
    with pytest.raises(RpcError, match=reason) as caught:
        check()
    assert caught.value.status is Status.UNAUTHENTICATED


def test_a_zone_that_does_not_hash_names_is_refused() -> None:
    check_features("z", [("features", "zone-ping-health"), ("features", "hash-suffix")])
    with pytest.raises(RpcError, match="hash-suffix"):
        check_features("z", [("features", "zone-ping-health,hash-suffix")])


@pytest.mark.parametrize(
    ("holder", "instance", "authenticated", "replaced"),
    [
        (Holder("i-1", "a", same_connection=False), "i-1", False, True),
        (Holder("i-1", "a", same_connection=False), "i-2", False, False),
        (Holder("i-1", "a", same_connection=False, answers=True), "i-2", True, False),
        (Holder("i-1", "a", same_connection=False, answers=False), "i-2", True, True),
        (Holder("i-1", "a", same_connection=False, answers=False), "i-2", False, False),
        (Holder("", "a", same_connection=False), "", False, False),
        (Holder("i-1", "a", same_connection=True), "i-2", False, True),
        (Holder("i-1", "a", same_connection=False, is_silent=True), "i-2", False, True),
    ],
)
def test_a_second_connection_under_a_name(holder: Holder, instance: str, authenticated: bool, replaced: bool) -> None:
    if replaced:
        assert check_duplicate(holder, "zone-a", instance, authenticated=authenticated)
        return
    with pytest.raises(RpcError, match="'zone-a' is connected already, from a") as caught:
        check_duplicate(holder, "zone-a", instance, authenticated=authenticated)
    assert caught.value.status is Status.ALREADY_EXISTS


def test_the_holder_is_pinged_only_if_it_matters() -> None:
    holder = Holder("i-1", "a", same_connection=False)
    assert needs_ping(holder, "i-2", authenticated=True)
    assert not needs_ping(holder, "i-2", authenticated=False)
    assert not needs_ping(holder, "i-1", authenticated=True)
    assert not needs_ping(Holder("i-1", "a", same_connection=False, is_silent=True), "i-2", authenticated=True)


def test_hosts_of_peers() -> None:
    assert host_of("10.0.0.1:80") == "10.0.0.1"
    assert host_of("[fd00::1]:80") == "fd00::1"
    assert not within("nonsense", ip_network("0.0.0.0/0"))
