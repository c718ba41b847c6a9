"""Envoy's log lines and the bound on them."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.envoy.logs import BURST, LINES_PER_S, MAX_LINE, Allowance, Line, Lines, explains, parse_line


@pytest.mark.parametrize(
    ("raw", "line", "shown"),
    [
        (b"info|main|all clusters initialized", Line(logging.INFO, "main", "all clusters initialized"), None),
        (b"warning|config|a|b", Line(logging.WARNING, "config", "a|b"), "config: a|b"),
        (b"trace|http|x", Line(logging.DEBUG, "http", "x"), None),
        (b"debug|http|x", Line(logging.DEBUG, "http", "x"), None),
        (b"error|config|x", Line(logging.ERROR, "config", "x"), None),
        (b"critical|main|x\r", Line(logging.ERROR, "main", "x"), None),
        (b"warning|main|caught ENVOY_SIGTERM", Line(logging.INFO, "main", "caught ENVOY_SIGTERM"), None),
        (b"exiting", Line(logging.WARNING, "", "exiting"), "exiting"),
        (b"odd|main|x", Line(logging.WARNING, "", "odd|main|x"), "odd|main|x"),
        (b"info|main", Line(logging.WARNING, "", "info|main"), None),
        (b"info|main|\xff", Line(logging.INFO, "main", "\ufffd"), None),
    ],
)
def test_a_line(raw, line, shown):
    assert parse_line(raw) == line
    if shown:
        assert str(line) == shown


@given(st.binary(max_size=200), st.integers(1, 50))
def test_lines_are_the_same_however_they_arrive(data, size):
    whole = list(Lines().feed(data + b"\n"))
    lines = Lines()
    cut = [line for at in range(0, len(data) + 1, size) for line in lines.feed((data + b"\n")[at : at + size])]
    rest = (data + b"\n")[len(range(0, len(data) + 1, size)) * size :]
    assert cut + list(lines.feed(rest)) == whole
    assert len(whole) == len([part for part in data.split(b"\n") if part.strip()])


def test_a_long_line_is_cut_and_costs_no_memory():
    lines = Lines()
    for _ in range(100):
        assert not list(lines.feed(b"x" * MAX_LINE))
    (long,) = lines.feed(b"\n")
    assert len(long.text) == MAX_LINE
    assert [line.text for line in lines.feed(b"info|main|next\n")] == ["next"]


def test_a_backtrace_explains_with_what_happened_alone():
    assert explains(parse_line(b"critical|backtrace|Caught Segmentation fault, suspect faulting address 0x0"))
    assert not explains(parse_line(b"critical|backtrace|#0: [0x7fa5e512f050]"))
    assert explains(parse_line(b"error|config|cannot bind"))
    assert not explains(parse_line(b"warning|config|odd"))


def test_a_burst_and_then_a_rate():
    allowance = Allowance(0)
    assert sum(allowance.take(0) for _ in range(BURST + 50)) == BURST
    assert allowance.dropped() == 50
    assert allowance.dropped() == 0
    assert sum(allowance.take(1) for _ in range(100)) == LINES_PER_S
    assert allowance.dropped() == 100 - LINES_PER_S
    assert sum(allowance.take(1e9) for _ in range(BURST + 1)) == BURST
