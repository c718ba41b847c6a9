import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.config.fields import MAX_LISTED
from meshd.dns.metrics import STATE_GAUGES, State
from meshd.dns.pipe import (
    MAX_REPORT_BYTES,
    NAMES_A_MESSAGE,
    SERVE,
    Pending,
    Start,
    framed,
    frames,
    order,
    read_order,
    report,
)
from meshd.dns.settings import DnsSettings
from meshd.dns.table import Change, Entry
from meshd.dns.watch import name_text

ENTRY = Entry(b"\xf0\0\0\1", ((80, "http"),), (("zone-a", 1),))


@given(st.lists(st.binary(max_size=20)), st.binary(max_size=3))
def test_frames_are_whole_messages_and_the_rest(messages: list[bytes], rest: bytes) -> None:
    assert frames(b"".join(map(framed, messages)) + rest) == (messages, rest)


def test_a_frame_over_the_limit_is_an_error_before_it_has_come() -> None:
    with pytest.raises(ValueError, match="longer than 10"):
        frames(b"\0\0\0\x0b", 10)


def test_the_longest_names_that_clients_can_ask_for_fit_into_a_report() -> None:
    label = b"\x3f" + b"\xff" * 63
    longest = name_text(label * 3 + b"\x3d" + b"\xff" * 61 + b"\0")
    top = [(longest, "NXDOMAIN", 10**9)] * MAX_LISTED
    state = State(dict.fromkeys(STATE_GAUGES, 2**40), {}, top)
    (message,), _ = frames(report({"counts": {}, "state": state.as_json()}), MAX_REPORT_BYTES // 4)
    assert len(message) > MAX_LISTED * 1000


@pytest.mark.parametrize(
    "what",
    [
        Change({b"\1a\4mesh\0": ENTRY, b"\1b\4mesh\0": None}, {b"\xf0\0\0\1": b"\1a\4mesh\0"}, is_known=True),
        Start(DnsSettings(), b"secret", False, 4, (5, 6), "info", "text"),
        SERVE,
    ],
)
def test_orders_are_read_as_they_were_given(what: Change | Start | str) -> None:
    (message,), rest = frames(order(what))
    assert (read_order(message), rest) == (what, b"")


def test_only_the_newest_of_each_name_waits_and_that_all_are_known_comes_last() -> None:
    pending = Pending()
    assert not pending
    pending.add(Change(is_known=True))
    for i in range(3):
        pending.add(Change({b"n%d" % k: ENTRY if i else None for k in range(NAMES_A_MESSAGE + 1)}, {b"addr": b"n0"}))
    assert pending
    changes = list(pending.take())
    assert not pending
    assert [len(change.names) for change in changes] == [NAMES_A_MESSAGE, 1, 0, 0]
    assert all(entry is ENTRY for change in changes for entry in change.names.values())
    assert [change.is_known for change in changes] == [None, None, None, True]
