import json
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshd.topology.vips import (
    TOMBSTONES_CONFIG,
    Book,
    Pool,
    VipKey,
    VipType,
    allocate,
    config_text,
    entries_of,
    mesh_of_config,
    read_book,
    tombstones_text,
    vips_of,
)
from tests.topology.builders import external

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POOL = Pool("10.1.0.0/28")


def key(name: str, mesh: str = "default") -> VipKey:
    return VipKey(mesh, VipType.SERVICE, name)


def keys(*names: str) -> list[VipKey]:
    return [key(name) for name in names]


def given_out(book: Book) -> dict[str, str]:
    return {k.name: str(a) for k, a in book.addresses.items()}


def test_new_names_sorted_take_the_lowest_addresses_of_one_pool_for_all_meshes():
    book = allocate(Book(), [key("b"), key("a", "other"), key("a")], POOL, NOW).book
    assert {(k.mesh, k.name): str(a) for k, a in book.addresses.items()} == {
        ("default", "a"): "10.1.0.1",
        ("default", "b"): "10.1.0.2",
        ("other", "a"): "10.1.0.3",
    }


def test_a_dead_name_keeps_its_address_from_others_for_an_hour_and_gets_it_back():
    first = allocate(Book(), keys("a", "b"), POOL, NOW).book
    dead = allocate(first, keys("b"), POOL, NOW).book
    almost = NOW + timedelta(minutes=59, seconds=59)
    assert given_out(allocate(dead, keys("b", "c"), POOL, almost).book) == {"b": "10.1.0.2", "c": "10.1.0.3"}
    assert given_out(allocate(dead, keys("a", "b"), POOL, almost).book) == {"a": "10.1.0.1", "b": "10.1.0.2"}
    assert given_out(allocate(dead, keys("b", "c"), POOL, NOW + timedelta(hours=1)).book) == {
        "b": "10.1.0.2",
        "c": "10.1.0.1",
    }


def test_a_book_that_fits_is_returned_as_it_is():
    book = allocate(Book(), keys("a"), POOL, NOW).book
    assert allocate(book, keys("a"), POOL, NOW + timedelta(days=9)).book is book


def test_exhaustion_leaves_the_last_names_out_and_says_so():
    pool = Pool("10.1.0.0/30")
    allocation = allocate(Book(), keys("d", "a", "c", "b"), pool, NOW)
    assert given_out(allocation.book) == {"a": "10.1.0.1", "b": "10.1.0.2"}
    assert allocation.without == (key("c"), key("d"))
    freed = allocate(allocation.book, keys("b", "c", "d"), pool, NOW)
    assert freed.without == (key("c"), key("d")), "a's address waits for its hour"
    later = allocate(freed.book, keys("b", "c", "d"), pool, NOW + timedelta(hours=2))
    assert (given_out(later.book), later.without) == ({"b": "10.1.0.2", "c": "10.1.0.1"}, (key("d"),))


def test_another_cidr_moves_exactly_the_names_outside_of_it():
    book = allocate(Book(), keys(*"abcdef"), POOL, NOW).book
    moved = allocate(book, keys(*"abcdef"), Pool("10.1.0.4/30"), NOW)
    assert given_out(moved.book) == {"e": "10.1.0.5", "f": "10.1.0.6"}
    assert [k.name for k in moved.without] == list("abcd")
    wider = allocate(book, keys(*"abcdefg"), Pool("10.1.0.0/16"), NOW).book
    assert wider.addresses.items() > book.addresses.items()


@pytest.mark.parametrize(
    ("cidr", "first", "size"),
    [
        ("240.0.0.0/4", "240.0.0.1", 2**28 - 2),
        ("127.0.0.0/8", "127.0.1.0", 2**24 - 257),
        ("127.5.0.0/16", "127.5.0.1", 2**16 - 2),
        ("10.0.0.0/31", "10.0.0.0", 2),
        ("10.0.0.7/32", "10.0.0.7", 1),
        (IPv4Network("10.0.0.0/30"), "10.0.0.1", 2),
    ],
)
def test_pools(cidr, first, size):
    pool = Pool(cidr)
    assert str(next(pool.free(()))) == first
    assert len(pool) == size
    assert IPv4Address(first) in pool
    assert IPv4Address("127.0.0.1") not in pool


@pytest.mark.parametrize("cidr", ["127.0.0.0/24", "127.0.0.8/29", "10.0.0.1/24", "fd00::/64", "x", ""])
def test_bad_pools_are_refused(cidr):
    with pytest.raises(ValueError, match=r"no address|not an IPv4"):
        Pool(cidr)


def test_names_and_ports():
    externals = [
        external("x", "ext", "API.example:443"),
        external("y", "ext2", "api.example:8443"),
        external("z", "ext3", "api.example:443"),
        external("quiet", "quiet", "quiet.example:1", host_entry=False),
        external("literal", "literal", "192.0.2.1:5432"),
    ]
    services = ["web", "a_b_svc_80", "a.b_svc_80", "a.b.svc.80", "ext", "ext2", "ext3", "quiet", "literal"]
    entries = entries_of("default", services, externals)
    addresses = {entry.key: IPv4Address(i + 1) for i, entry in enumerate(entries)}
    vips = vips_of(entries, addresses, "mesh", 80)
    assert {name: (dict(vip.ports), vip.names) for name, vip in vips.items()} == {
        "web": ({80: "web"}, ("web.mesh",)),
        # own names first; of two that make the same name with dots neither gets what is a service's own
        "a.b.svc.80": ({80: "a.b.svc.80"}, ("a.b.svc.80.mesh",)),
        "a.b_svc_80": ({80: "a.b_svc_80"}, ("a.b_svc_80.mesh",)),
        "a_b_svc_80": ({80: "a_b_svc_80"}, ("a_b_svc_80.mesh",)),
        "ext": ({80: "ext", 443: "ext"}, ("ext.mesh",)),
        "ext2": ({80: "ext2", 8443: "ext2"}, ("ext2.mesh",)),
        "ext3": ({80: "ext3", 443: "ext3"}, ("ext3.mesh",)),
        "quiet": ({80: "quiet", 1: "quiet"}, ("quiet.mesh",)),
        "literal": ({80: "literal", 5432: "literal"}, ("literal.mesh",)),
        # one host, two ports; of two services on one port the first resource by name
        "api.example": ({80: "ext", 443: "ext", 8443: "ext2"}, ("api.example",)),
    }


def test_dots_for_underscores_and_upper_case():
    entries = entries_of("default", ["Back_End"], [])
    vips = vips_of(entries, {entries[0].key: IPv4Address("240.0.0.1")}, "mesh", 8080)
    assert vips["Back_End"].names == ("back.end.mesh", "back_end.mesh")
    assert vips["Back_End"].ports == {8080: "Back_End"}


def test_a_host_named_like_a_service_shares_its_vip():
    entries = entries_of("default", ["api.example", "web"], [external("x", "web", "api.example:443")])
    assert [(e.key.type.name, e.key.name) for e in entries] == [("SERVICE", "api.example"), ("SERVICE", "web")]
    vips = vips_of(entries, {e.key: IPv4Address(i + 1) for i, e in enumerate(entries)}, "mesh", 80)
    assert vips["api.example"].names == ("api.example", "api.example.mesh")
    assert vips["api.example"].ports == {80: "api.example", 443: "web"}


def test_kumas_config_format():
    entries = entries_of("default", ["backend", "ext"], [external("x", "ext", "api.example:443")])
    addresses = {entry.key: IPv4Address("240.0.0.1") + i for i, entry in enumerate(entries)}
    assert json.loads(config_text(entries, addresses)) == {
        "0:backend": {
            "address": "240.0.0.1",
            "outbounds": [{"Port": 0, "TagSet": {"kuma.io/service": "backend"}, "Origin": "service"}],
        },
        "0:ext": {
            "address": "240.0.0.2",
            "outbounds": [
                {"Port": 0, "TagSet": {"kuma.io/service": "ext"}, "Origin": "service"},
                {"Port": 443, "TagSet": {"kuma.io/service": "ext"}, "Origin": "service"},
            ],
        },
        "1:api.example": {
            "address": "240.0.0.3",
            "outbounds": [{"Port": 443, "TagSet": {"kuma.io/service": "ext"}, "Origin": "external-service:x"}],
        },
    }


def test_what_was_written_is_read_again():
    entries = {m: entries_of(m, ["a", "b_c"], [external("x", "a", "h.example:1", mesh=m)]) for m in ("m1", "m2")}
    book = allocate(Book(), [e.key for es in entries.values() for e in es], POOL, NOW).book
    book = allocate(book, [e.key for e in entries["m1"]], POOL, NOW).book
    configs = {"kuma-m1-dns-vips": config_text(entries["m1"], book.addresses)}
    configs[TOMBSTONES_CONFIG] = tombstones_text(book.tombstones)
    assert len(book.tombstones) == 3
    assert read_book(configs) == (book, ())


def test_a_broken_or_doubled_config_is_named_and_the_rest_is_read():
    good = '{"0:a":{"address":"240.0.0.1","outbounds":[]},"2:fqdn":{"address":"240.0.0.9"},"0:none":{}}'
    book, problems = read_book(
        {
            "kuma-m1-dns-vips": good,
            "kuma-m2-dns-vips": good,
            "kuma-m3-dns-vips": "{",
            "kuma-m4-dns-vips": '{"0:a":{"address":"x"}}',
            "kuma-m5-dns-vips": "[]",
            "kuma-cluster-id": "whatever",
            TOMBSTONES_CONFIG: "[1]",
        }
    )
    assert given_out(book) == {"a": "240.0.0.1"}
    assert list(book.addresses) == [key("a", "m1")]
    assert [p.split(":")[0] for p in problems] == [
        "Config kuma-m3-dns-vips",
        "Config kuma-m4-dns-vips",
        "Config kuma-m5-dns-vips",
        "Config kuma-m2-dns-vips",
        "Config meshd-dns-vip-tombstones",
    ]


def test_config_names():
    assert mesh_of_config("kuma-a-b-dns-vips") == "a-b"
    assert mesh_of_config("kuma-cluster-id") is None
    assert mesh_of_config("kuma--dns-vips") is None


NAMES = st.sets(st.sampled_from([key(n, m) for n in "abcdefgh" for m in ("m1", "m2")]))


@settings(max_examples=80)
@given(NAMES, NAMES, NAMES)
def test_changes_of_others_move_nobody(first, second, third):
    pool = Pool("10.0.0.0/24")
    one = allocate(Book(), first, pool, NOW).book
    two = allocate(one, second, pool, NOW).book
    three = allocate(two, third, pool, NOW).book
    assert all(two.addresses[k] == one.addresses[k] for k in first & second)
    assert all(three.addresses[k] == one.addresses[k] for k in first & third), (
        "dead for less than an hour or not at all"
    )
    assert three.addresses.keys() == third


class VipLife(RuleBasedStateMachine):
    """Names come and go, time passes, the process restarts; the pool is small enough to run out."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.now = NOW
        self.wanted: frozenset[VipKey] = frozenset()
        self.pool = Pool("10.0.0.0/29")
        self.history: dict[IPv4Address, tuple[VipKey, datetime]] = {}

    @rule(wanted=NAMES)
    def change(self, wanted):
        before = self.book
        allocation = allocate(before, wanted, self.pool, self.now)
        self.book, self.wanted = allocation.book, frozenset(wanted)
        assert set(allocation.without) == wanted - self.book.addresses.keys()
        for k, address in self.book.addresses.items():
            if k in before.addresses:
                assert address == before.addresses[k]
            elif address in self.history and self.history[address][0] != k:
                assert self.now - self.history[address][1] >= timedelta(hours=1)
        for k, address in before.addresses.items():
            if k not in wanted:
                self.history[address] = (k, self.now)
        if allocation.without:
            reserved = len(self.book.addresses) + len(self.book.tombstones)
            assert reserved == len(self.pool), "left out only when there is no address"

    @rule(minutes=st.integers(1, 90))
    def wait(self, minutes):
        self.now += timedelta(minutes=minutes)

    @rule()
    def restart(self):
        meshes = {k.mesh for k in self.book.addresses}
        entries = {m: entries_of(m, [k.name for k in self.book.addresses if k.mesh == m], []) for m in meshes}
        configs = {f"kuma-{m}-dns-vips": config_text(es, self.book.addresses) for m, es in entries.items()}
        configs[TOMBSTONES_CONFIG] = tombstones_text(self.book.tombstones)
        read, problems = read_book(configs)
        assert (read, problems) == (self.book, ())

    @invariant()
    def nobody_shares(self):
        held = [*self.book.addresses.values(), *(s.address for s in self.book.tombstones.values())]
        assert len(held) == len(set(held))
        assert all(address in self.pool for address in held)
        assert not self.book.addresses.keys() & self.book.tombstones.keys()


VipLife.TestCase.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestVipLife = VipLife.TestCase


def test_a_host_under_the_domain_gets_no_name_of_a_service():
    hosts = [
        external("x", "ext", "web.mesh:443"),
        external("y", "ext", "a.b.mesh:443"),
        external("z", "ext", "free.mesh:443"),
    ]
    entries = entries_of("default", ["web", "a_b", "ext"], hosts)
    vips = vips_of(entries, {e.key: IPv4Address(i + 1) for i, e in enumerate(entries)}, "mesh", 80)
    assert {key: vip.names for key, vip in vips.items()} == {
        "a_b": ("a.b.mesh", "a_b.mesh"),
        "ext": ("ext.mesh",),
        "web": ("web.mesh",),
        "free.mesh": ("free.mesh",),
    }


def test_entries_that_did_not_change_stay_the_same():
    hosts = [external("x", "ext", "h.example:443")]
    before = entries_of("default", ["web", "ext"], hosts)
    after = entries_of("default", ["web", "ext", "new"], hosts, before)
    assert {id(e) for e in before} < {id(e) for e in after}
