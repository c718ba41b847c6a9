"""Who is online, and what of it is on record."""

from datetime import UTC, datetime, timedelta

from meshd.discovery import Waiting
from meshd.kds.admin.wire import What
from meshd.kds.health import (
    ADMIN_STREAMS,
    Counts,
    all_closed,
    introduction,
    overdue,
    status_of,
    with_health_check,
    with_streams,
    with_subscription,
)
from meshd.kinds.zone_insight import EnvoyAdminStreams, KdsSubscription, ZoneInsight

AT = datetime(2026, 1, 1, tzinfo=UTC)


def subscription(name: str, minute: int = 0) -> KdsSubscription:
    return KdsSubscription(id=name, connect_time=AT + timedelta(minutes=minute))


def test_the_oldest_response_over_the_limit_is_named() -> None:
    waiting = {"Mesh": Waiting("1", 5.0), "Secret": Waiting("2", 3.0)}
    assert overdue(waiting, 12.9, 10) == ""
    assert overdue(waiting, 13.0, 10) == "Secret"
    assert overdue(waiting, 20.0, 10) == "Secret"
    assert overdue({}, 1e9, 10) == ""


def test_a_new_connection_closes_those_before_it() -> None:
    insight = with_subscription(with_subscription(ZoneInsight(), subscription("a")), subscription("b", 5))
    first, second = insight.subscriptions
    assert first.disconnect_time == second.connect_time
    assert second.is_open
    assert insight.is_online


def test_the_same_connection_is_replaced_and_ten_are_kept() -> None:
    insight = ZoneInsight()
    for number in range(15):
        insight = with_subscription(insight, subscription(str(number), number))
    assert [s.id for s in insight.subscriptions] == [str(n) for n in range(5, 15)]
    ended = insight.subscriptions[-1].model_copy(update={"disconnect_time": AT})
    insight = with_subscription(insight, ended)
    assert len(insight.subscriptions) == 10
    assert not insight.is_online


def test_a_global_that_starts_has_no_connections() -> None:
    assert not all_closed(with_subscription(ZoneInsight(), subscription("a")), AT).is_online


def test_counts_add_up_and_are_sorted() -> None:
    status = status_of({"Secret": Counts(2, 1, 1), "Mesh": Counts(3, 3, 0)}, AT)
    assert list(status.stat) == ["Mesh", "Secret"]
    assert (status.total.responses_sent, status.total.responses_acknowledged, status.total.responses_rejected) == (
        5,
        4,
        1,
    )


def test_streams_and_health_checks_are_on_record() -> None:
    insight = with_health_check(with_streams(ZoneInsight(), "g-1", {"global_to_zone": AT, "stats": AT}), AT)
    assert insight.kds_streams.global_to_zone.connect_time == AT
    assert insight.kds_streams.zone_to_global is None
    assert insight.kds_streams.stats.global_instance_id == "g-1"
    assert insight.envoy_admin_streams == EnvoyAdminStreams(stats_global_instance_id="g-1")
    assert insight.health_check.time == AT
    assert with_health_check(insight, None) is insight
    assert with_streams(insight, "g-1", {}).envoy_admin_streams is None


def test_admin_streams_are_named_as_what_is_asked_on_them() -> None:
    assert {what.name.lower() for what in What} == set(ADMIN_STREAMS)


def test_an_introduction_takes_only_what_has_the_right_type() -> None:
    said = introduction(
        {
            "features": ["hash-suffix", 3.0, None],
            "control-plane-id": "host-1",
            "config": 7.0,
            "version": {"kumaCp": {"version": "2.14.3", "gitTag": False}},
        }
    )
    assert said.features == {"hash-suffix"}
    assert (said.instance_id, said.config) == ("host-1", "")
    assert (said.version.kuma_cp.version, said.version.kuma_cp.git_tag) == ("2.14.3", "")
    assert introduction({"features": "hash-suffix", "version": [1.0]}).features == frozenset()


def test_an_introduction_is_bounded() -> None:
    """Ten of them are stored with each zone, and its words go into logs."""
    build = {"version": "v" * 1000, "gitTag": "a\nb", "gitCommit": "ok"}
    said = introduction({"control-plane-id": "x" * 1000, "config": "{" * 100_000, "version": {"kumaCp": build}})
    assert (said.instance_id, said.config) == ("", "")
    assert said.version.kuma_cp.model_dump(exclude_defaults=True) == {"gitCommit": "ok"}
    assert introduction({"control-plane-id": "a\nb", "config": "{}" * 1000}).instance_id == ""
