import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.dns import wire
from meshd.dns.cache import ENTRY_BYTES, MAX_SHARE, Cache, is_due, key_of
from meshd.dns.reply import Reply
from tests.dns.support import query

KEY = (b"\1a\0", 1, 1, 0)
OTHER = (b"\1b\0", 1, 1, 0)


def reply(ttl_s: int = 60, *, rcode: int = 0, size: int = 10) -> Reply:
    return Reply(0x8180, rcode, (1, 0, 0), b"x" * size, (), ttl_s)


def cache(entries: int = 10, size: int = 1 << 20, max_stale_s: float = 100.0) -> Cache:
    return Cache(entries, size, max_stale_s)


def test_a_reply_is_fresh_for_its_ttl_then_stale_then_gone() -> None:
    kept = cache()
    kept.put(KEY, reply(60), 10.0)
    assert kept.fresh(KEY, 69.9) is not None
    assert kept.fresh(KEY, 70.0) is None
    assert kept.stale(KEY, 169.9) is not None
    assert kept.stale(KEY, 170.0) is None


def test_an_error_is_kept_but_never_told_after_its_time_and_does_not_replace_an_answer() -> None:
    kept = cache()
    kept.put(KEY, reply(1, rcode=wire.SERVFAIL), 0.0)
    assert kept.fresh(KEY, 0.5) is not None
    assert kept.stale(KEY, 2.0) is None
    kept.put(KEY, reply(60), 2.0)
    kept.put(KEY, reply(1, rcode=wire.SERVFAIL), 70.0)
    found = kept.stale(KEY, 71.0)
    assert found is not None
    assert found.reply.rcode == wire.NOERROR


def test_what_may_not_be_kept_replaces_what_was() -> None:
    kept = cache()
    kept.put(KEY, reply(60), 0.0)
    kept.put(KEY, reply(0), 1.0)
    assert (len(kept), kept.size) == (0, 0)


def test_the_one_not_asked_for_the_longest_goes() -> None:
    kept = cache(entries=2)
    kept.put(KEY, reply(), 0.0)
    kept.put(OTHER, reply(), 0.0)
    kept.fresh(KEY, 1.0)
    kept.put((b"\1c\0", 1, 1, 0), reply(), 2.0)
    assert kept.fresh(OTHER, 3.0) is None
    assert kept.fresh(KEY, 3.0) is not None


def test_one_entry_may_not_take_everything() -> None:
    kept = cache(size=MAX_SHARE * (ENTRY_BYTES + 100))
    kept.put(KEY, reply(size=101), 0.0)
    assert len(kept) == 0
    kept.put(KEY, reply(size=100), 0.0)
    assert len(kept) == 1


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2000), st.integers(0, 90)), max_size=60))
def test_bounds_hold_whatever_is_kept(replies: list[tuple[int, int, int]]) -> None:
    kept = cache(entries=8, size=20_000)
    for now, (name, size, ttl_s) in enumerate(replies):
        kept.put((bytes((1, name)), 1, 1, 0), reply(ttl_s, size=size), float(now))
        assert len(kept) <= 8
        assert kept.size <= 20_000
    assert kept.size == sum(entry.size for entry in kept._entries.values())


@pytest.mark.parametrize(
    ("ttl_s", "hits", "now", "due"),
    [(60, 3, 54.0, True), (60, 3, 53.9, False), (60, 2, 59.0, False), (4, 9, 3.9, False)],
)
def test_a_hot_name_is_due_in_the_last_part_of_its_time(ttl_s: int, hits: int, now: float, due: bool) -> None:
    kept = cache()
    kept.put(KEY, reply(ttl_s), 0.0)
    for _ in range(hits):
        entry = kept.fresh(KEY, 1.0)
    assert entry is not None
    assert is_due(entry, now) == due


def test_spelling_id_and_edns_share_an_answer_and_wishes_do_not() -> None:
    def key(*args: object, **more: object) -> object:
        return key_of(wire.parse_query(query(*args, **more)))  # type: ignore[arg-type]

    plain = key("example.org")
    assert key("EXAMPLE.org", ident=9) == plain
    assert key("example.org", edns=1232) == plain
    for other in (
        key("example.org", "AAAA"),
        key("example.org", edns=1232, do=True),
        key("example.org", flags=0x0110),
        key("example.org", flags=0x0120),
        key("example.org", flags=0x0000),
    ):
        assert other != plain
