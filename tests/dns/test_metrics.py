import json

from prometheus_client import CollectorRegistry

from meshd.dns.metrics import State, Tally, state_of


def test_what_another_tally_counts_between_snapshots_is_added() -> None:
    ours, theirs = Tally(None), Tally(None)
    theirs.query("A", "SERVFAIL", "slow")
    theirs.fast["AAAA", "NXDOMAIN"] += 2
    theirs.drop("short")
    theirs.took(0.003, 2)
    before = json.loads(json.dumps(theirs.snapshot()))
    ours.absorb({}, before)
    theirs.drop("short", 2)
    theirs.connection("idle")
    ours.absorb(before, json.loads(json.dumps(theirs.snapshot())))
    assert ours.snapshot() == theirs.snapshot()
    assert ours.answered() == {("A", "SERVFAIL", "slow"): 1, ("AAAA", "NXDOMAIN", "fast"): 2}


def test_counts_and_gauges_are_collected() -> None:
    registry = CollectorRegistry()
    tally = Tally(registry)
    tally.query("A", "NOERROR", "fast", 3)
    tally.query("A", "NOERROR", "fast")
    tally.drop("short")
    tally.asked("10.0.0.2:53", "timeout")
    tally.connection("idle")
    tally.gauges["meshd_dns_names"] = ("Names that are answered.", lambda: 7)
    value = registry.get_sample_value
    assert value("meshd_dns_queries_total", {"type": "A", "rcode": "NOERROR", "path": "fast"}) == 4
    assert value("meshd_dns_dropped_total", {"reason": "short"}) == 1
    assert value("meshd_dns_upstream_events_total", {"upstream": "10.0.0.2:53", "event": "timeout"}) == 1
    assert value("meshd_dns_tcp_connections_total", {"event": "idle"}) == 1
    assert value("meshd_dns_names") == 7


def test_servers_in_several_processes_are_told_as_one() -> None:
    registry = CollectorRegistry()
    tally = Tally(registry)
    tally.top_size, tally.is_known = 2, lambda name: name == "web.mesh"
    gauges = {"forwarding": 1, "cache_entries": 2, "cache_bytes": 1000}
    one = State(gauges, {"a:53": True, "b:53": True}, [("web.mesh", "NOERROR", 3), ("x.org", "NOERROR", 2)])
    two = State(gauges, {"a:53": True, "b:53": False}, [("web.mesh", "SERVFAIL", 4), ("web.mesh", "NOERROR", 2)])
    tally.states[1], tally.states[2] = (lambda: one), (lambda: state_of(json.loads(json.dumps(two.as_json()))))
    value = registry.get_sample_value
    assert [value("meshd_dns_upstream_up", {"upstream": u}) for u in ("a:53", "b:53")] == [1, 0]
    assert [value(f"meshd_dns_{n}") for n in ("forwarding", "cache_entries", "cache_bytes")] == [2, 4, 2000]
    assert tally.state().top == [("web.mesh", "NOERROR", 5), ("web.mesh", "SERVFAIL", 4)]
    # Each series once, and none for a name that somebody else made up.
    assert value("meshd_dns_top_name_queries", {"name": "web.mesh"}) == 5
    assert value("meshd_dns_top_name_queries", {"name": "x.org"}) is None
    del tally.states[2]
    assert value("meshd_dns_upstream_up", {"upstream": "b:53"}) == 1
    assert value("meshd_dns_cache_entries") == 2
