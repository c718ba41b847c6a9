"""The insight of a proxy that is connected by a stream."""

from datetime import timedelta

from meshd.insight.proxies import MAX_REASONS
from meshd.insight.streams import Counts, Stream, streaming, touched
from meshd.kinds.proxy_insights import Version
from meshd.model.errors import MAX_REASON, Violation
from meshd.model.resource import ResourceKey
from tests.rest.support import NOW

WEB = ResourceKey("Dataplane", "default", "a")


def stream(name: str, minute: int = 0, **more) -> Stream:
    return Stream(WEB, name, Version(), NOW + timedelta(minutes=minute), **more)


def test_a_first_stream_makes_the_insight():
    one = stream("1", counts={"cds": Counts(3, 2, 1), "sds": Counts(1, 1, 0)})
    touched(one, NOW + timedelta(seconds=9))
    made = streaming(one, None, "cp-1")
    assert (made.key.kind, made.owner) == ("DataplaneInsight", WEB)
    [subscription] = made.spec.subscriptions
    assert (subscription.id, subscription.control_plane_instance_id, subscription.generation) == ("1", "cp-1", 1)
    assert subscription.is_open
    status = subscription.status
    assert (status.total.responses_sent, status.total.responses_acknowledged) == (4, 3)
    assert (status.cds.responses_rejected, status.eds.responses_sent) == (1, 0)
    assert status.last_update_time == NOW + timedelta(seconds=9)


def test_two_streams_are_remembered_and_the_one_before_is_ended():
    stored = None
    for name, minute in (("1", 0), ("2", 1), ("3", 2)):
        stored = streaming(stream(name, minute), stored, "cp-1")
    first, second = stored.spec.subscriptions
    assert (first.id, second.id) == ("2", "3")
    assert first.disconnect_time == NOW + timedelta(minutes=2)
    assert second.is_open


def test_the_end_of_an_earlier_stream_changes_nothing_of_a_later_one():
    old, new = stream("1"), stream("2", 1, refused=(Violation("Cluster a", "bad"),))
    stored = streaming(new, streaming(old, None, "cp"), "cp")
    old.disconnected = NOW + timedelta(minutes=3)
    after = streaming(old, stored, "cp")
    assert [s.is_open for s in after.spec.subscriptions] == [False, True]
    assert after.spec.metadata == {"refused": {"Cluster a": "bad"}}


def test_all_that_is_refused_is_shown_and_goes_when_it_is_over():
    one = stream("1", refused=(Violation("Cluster a", "bad"),), lacking=(Violation("networking.listeners", "none"),))
    shown = streaming(one, None, "cp", (Violation("policy", "not here"),))
    assert shown.spec.metadata == {
        "refused": {"policy": "not here", "networking.listeners": "none", "Cluster a": "bad"}
    }
    one.refused = one.lacking = ()
    assert streaming(one, shown, "cp").spec.metadata is None


def test_reasons_are_bounded_in_number_and_length():
    many = tuple(Violation(f"outbound {n:03}", "x" * 10_000) for n in range(200))
    shown = streaming(stream("1", unrendered=many), None, "cp")
    refused = shown.spec.metadata["refused"]
    assert len(refused) == MAX_REASONS + 1
    assert refused["..."] == f"and {200 - MAX_REASONS} more; see the log"
    assert {len(why) for where, why in refused.items() if where != "..."} == {MAX_REASON}
    assert streaming(stream("1", unrendered=many), shown, "cp") == shown


def test_what_a_proxy_says_of_itself_is_shown_and_cannot_pass_for_a_reason():
    one = stream("1", metadata={"workdir": "/w", "refused": {"a": "b"}})
    shown = streaming(one, None, "cp")
    assert shown.spec.metadata == {"workdir": "/w"}
    later = streaming(stream("2", 1, metadata={"workdir": "/v"}, unrendered=(Violation("a", "b"),)), shown, "cp")
    assert later.spec.metadata == {"workdir": "/v", "refused": {"a": "b"}}
