"""How soon a change of the view is answered, and whether anything is answered wrongly meanwhile.

    python -m tests.bench.dns.live [--names 100000] [--workers N] [--changes 100] [--kill]

A resolver in this process follows a view of so many names. From another process one client waits for each change, by
asking for its name until the answer is the new one, while others ask for names that stay: each answer but the right one
is wrong, and each that does not come in time is lost. ``--kill`` kills a worker a second instead of changing names.
"""

import argparse
import gc
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from dataclasses import replace
from ipaddress import IPv4Address
from types import MappingProxyType

import trio
from prometheus_client import CollectorRegistry

from meshd.dns.service import Resolver
from meshd.dns.settings import Address, DnsSettings
from meshd.dns.wire import A, name_to_wire, query_message
from meshd.runtime.latest import Latest
from meshd.topology.view import Vip
from tests.bench.dns.names import addresses
from tests.bench.dns.subject import view

TIMEOUT_S = 1.0
WAIT_S = 0.0005
MOVED = (IPv4Address("240.200.0.1"), IPv4Address("240.200.0.2"))


def client(port: int, names: int, per_s: int) -> None:
    """Ask for names that stay, at a rate, each by a socket of its own so that it may come to any worker.

    Prints at the end, which is that of standard input, what came of it.
    """
    rng = random.Random(7)
    known = list(addresses(names))
    sent, wrong, lost, slow = 0, 0, 0, []
    os.set_blocking(0, False)
    begin = time.monotonic()
    while True:
        try:
            if sys.stdin.read() == "":
                break
        except (BlockingIOError, TypeError):
            pass
        name, address = known[rng.randrange(len(known) // 2, len(known))]
        message = struct.pack("!H", rng.randrange(65536)) + query_message(name_to_wire(name), A)[2:]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(TIMEOUT_S)
            sock.connect(("127.0.0.1", port))
            began = time.monotonic()
            sent += 1
            try:
                sock.send(message)
                reply = sock.recv(512)
                if reply[:2] != message[:2] or reply[-4:] != address.packed:
                    wrong += 1
            except OSError:
                lost += 1
            slow.append(time.monotonic() - began)
        pause = begin + sent / per_s - time.monotonic()
        if pause > 0:
            time.sleep(pause)
    print(json.dumps({"sent": sent, "wrong": wrong, "lost": lost, "slowest_ms": round(max(slow) * 1000, 1)}))


def waiter(port: int) -> None:
    """For each line (a name, its old and its new address, the old one maybe "-"): when the new one was answered.

    Counts answers that are neither.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(("127.0.0.1", port))
        for line in sys.stdin:
            name, old, new = line.split()
            message, neither = query_message(name_to_wire(name), A), 0
            while True:
                sock.send(message)
                reply = sock.recv(512)
                now = time.monotonic()
                said = str(IPv4Address(reply[-4:])) if reply[3] & 0xF == 0 and reply[7] else "-"
                if said == new:
                    break
                neither += said != old
                time.sleep(WAIT_S)
            print(now, neither, flush=True)


def started(*words: str) -> "subprocess.Popen[str]":
    """Another process of this program, spoken to by lines."""
    command = [sys.executable, "-m", "tests.bench.dns.live", *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def changes(resolver: Resolver, views: Latest, names: int, count: int) -> None:
    """New names, names that move and names that go, in turns."""
    with started("--waiter", str(resolver.address.port)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        now = views.value["default"]
        last = f"service-{names - 1}"
        process.stdin.write(f"{last}.mesh - {now.vips[last].address}\n")
        process.stdin.flush()
        await trio.to_thread.run_sync(process.stdout.readline)  # it is up
        took: list[float] = []
        neither = 0
        for i in range(count):
            key = f"service-{i % (names // 2)}" if i % 3 else f"new-{i}"
            before = now.vips.get(key)
            vips = dict(now.vips)
            gone = i % 3 == 2 and before is not None
            address = MOVED[i % 2]
            if gone:
                del vips[key]
            else:
                vips[key] = Vip(address, MappingProxyType({80: key}), (f"{key}.mesh",))
            now = replace(now, vips=vips, version=str(i))
            old, new = str(before.address) if before else "-", "-" if gone else str(address)
            process.stdin.write(f"{key}.mesh {old} {new}\n")
            process.stdin.flush()
            await trio.sleep(0.02)  # it asks by then
            began = time.monotonic()
            views.publish({"default": now})
            line = await trio.to_thread.run_sync(process.stdout.readline)
            ended, odd = line.split()
            took.append(float(ended) - began)
            neither += int(odd)
        process.stdin.close()
    took.sort()
    middle, late, most = (round(s * 1000, 1) for s in (statistics.median(took), took[int(count * 0.99) - 1], took[-1]))
    print(f"change to answer, ms: p50 {middle}, p99 {late}, most {most}")
    print(f"answers that are neither the old nor the new: {neither}")


async def kills(resolver: Resolver, seconds: int) -> None:
    """A worker a second."""
    for i in range(seconds):
        await trio.sleep(1)
        worker = resolver._workers[i % len(resolver._workers)]
        if worker.pid:
            os.kill(worker.pid, signal.SIGKILL)
    print(f"killed {seconds}")


async def main(given: argparse.Namespace) -> None:
    """See the module."""
    views: Latest = Latest({"default": view(given.names)})
    settings = DnsSettings(listen=Address("127.0.0.1", 0), workers=given.workers)
    resolver = Resolver(settings, views, "default", Latest(None), CollectorRegistry())
    async with trio.open_nursery() as nursery:
        await nursery.start(resolver.run)
        while given.workers and not all(worker.pid for worker in resolver._workers):
            await trio.sleep(0.05)
        gc.collect()
        gc.freeze()
        words = ("--client", str(resolver.address.port), "--names", str(given.names), "--rate", str(given.rate))
        with started(*words) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            await trio.sleep(1)
            if given.kill:
                await kills(resolver, given.changes)
            else:
                await changes(resolver, views, given.names, given.changes)
            process.stdin.close()
            print("others meanwhile:", await trio.to_thread.run_sync(process.stdout.read))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--changes", type=int, default=100, help="or kills")
    parser.add_argument("--rate", type=int, default=200, help="questions a second for names that stay")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--waiter", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        client(options.client, options.names, options.rate)
    elif options.waiter:
        waiter(options.waiter)
    else:
        trio.run(main, options)
