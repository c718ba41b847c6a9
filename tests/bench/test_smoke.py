"""Every bench runs to its end and prints figures of the right shape; how large they are is for people to read."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]


def bench(name: str, *arguments: str) -> list[str]:
    """The lines that a bench prints."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout.splitlines()


def row(lines: list[str], start: str, bars: str | None = None) -> list[str]:
    """What follows ``start`` on its only line, by words, or by the ``bars`` of a table."""
    (line,) = [line for line in lines if line.removeprefix("| ").lstrip().startswith(start)]
    return [c.strip() for c in line.strip("| ").split(bars)][1:] if bars else line.partition(start)[2].split()


@pytest.mark.parametrize(
    ("options", "hops"),
    [((), ["Dataplane/default/client-zone-a"]), (("--through-egress",), ["ZoneEgress/egress-zone-a"])],
)
def test_propagation(options, hops):
    lines = bench("propagation", "--count", "3", *options)
    put, resolved, answered, total = (
        [float(v) for v in row(lines, part)]
        for part in ("PUT answered", "then the name resolves", "then a request is answered", "total  ")
    )
    for p50, p99, most in (put, resolved, answered, total):
        assert 0 < p50 <= p99 <= most
    assert total[2] <= put[2] + resolved[2] + answered[2] + 0.2
    connections = " ".join(row(lines, "connections:"))
    for hop in [*hops, "ZoneIngress/ingress-zone-b-0", "the services"]:
        # One for each service; one more where an attempt came too early and was made again.
        assert int(re.search(rf"{re.escape(hop)} (\d+)", connections)[1]) >= 3, connections
    assert ("ZoneEgress" in connections) == bool(options)


def test_dns_during_bulk():
    lines = bench("l4.dns_during_bulk", "--rounds", "1", "--seconds", "1", "--rate", "100")
    for phase in ("idle", "beside", "through"):
        cells = row(lines, f"{phase} ", bars="|")
        assert float(cells[0].split()[0]) > 0
        assert (float(cells[5]) > 0) == (phase != "idle")


def test_l4():
    lines = bench("l4", "--only", "meshd", "--rounds", "1", "--seconds", "0.5")
    figures = [line.split() for line in lines if line.strip().startswith("meshd")]
    assert len(figures) == 3
    for _, value, *_ in figures:
        assert float(value) > 0


def test_loop():
    lines = bench(
        "loop", "--rounds", "1", "--seconds", "2", "--rate", "100", "--connections", "3", "--variants", "dns thread"
    )
    phases = [line.split("|")[2].strip() for line in lines if line.startswith("| dns thread")]
    assert phases == ["idle", "50/s", "200/s", "1,000/s", "all it can"]


@pytest.mark.skipif(shutil.which("dnsperf") is None, reason="dnsperf is not installed")
def test_dns():
    lines = bench(
        "dns", "--names", "50", "--rounds", "1", "--seconds", "0.3", "--servers", "meshd", "--kinds", "plain", "tcp",
        "--layouts", "thread, busy", "worker, busy",
    )  # fmt: skip
    flood = next(line for line in lines if line.startswith("| meshd |"))
    for cell in flood.strip("| ").split("|")[1:]:
        assert all(float(value) > 0 for value in cell.split(";"))
    for layout in ("thread, busy", "worker, busy"):
        p50, p99, _ = (float(v) for v in row(lines, f"meshd, {layout}", bars="|"))
        assert 0 < p50 <= p99


def test_dns_fuzz():
    assert "no failure" in bench("dns.fuzz", "--seconds", "2")[-1]


@pytest.mark.parametrize("reference", ["NSD", "Knot"])
def test_dns_differential(reference):
    if not shutil.which({"NSD": "nsd", "Knot": "knotd"}[reference]):
        pytest.skip(f"{reference} is not installed")
    assert "answers differ" in bench("dns.differential", "--queries", "300", "--reference", reference)[0]


def test_xds():
    lines = bench("xds", "--proxies", "20", "--services", "20", "--changes", "2", "--idle", "1")
    for phase in ("first configuration", "one new service", "one MeshTimeout for all", "all come back"):
        figures = dict(cell.rsplit(" ", 1) for cell in " ".join(row(lines, f"{phase}  ")).split(", "))
        assert 0 < float(figures["half s"]) <= float(figures["all s"])
        assert float(figures["messages"]) >= 20
        assert float(figures["RSS MB"]) > 0
        if phase == "one new service":
            assert float(figures["resources"]) == 60  # cluster, endpoints, listener
        if phase == "all come back":
            assert float(figures["resources"]) == 0  # they have all of it
    moves = dict(cell.rsplit(" ", 1) for cell in " ".join(row(lines, "one endpoint moves")).split(", "))
    assert 0 < float(moves["p50 ms"]) <= float(moves["p99 ms"])
