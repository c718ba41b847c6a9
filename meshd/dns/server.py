"""The sockets: UDP drained in batches, TCP with pipelining; a bad packet or peer costs only itself."""

import contextlib
import logging
import os
import random
import socket as stdlib_socket
import time
from collections import Counter
from ipaddress import ip_address, ip_network
from typing import Any

import trio

from meshd.dns import answer, forward, wire
from meshd.dns.client import FORWARDED, Told, Upstreams
from meshd.dns.cookies import Cookies
from meshd.dns.guard import Guard, Network, Verdict
from meshd.dns.metrics import State, Tally
from meshd.dns.quick import Quick
from meshd.dns.settings import DnsSettings
from meshd.dns.table import NameTable
from meshd.dns.top import TopNames
from meshd.dns.watch import Sampler, Seen, Watch, json_line, question_of, text_line
from meshd.dns.wire import Query
from meshd.runtime.datagrams import BATCH, Slots, datagrams
from meshd.runtime.lines import Lines
from meshd.runtime.listen import accept_loop
from meshd.runtime.log import is_json

log = logging.getLogger(__name__)

MAX_UDP_BYTES = wire.MAX_QUERY_BYTES + 1
"""One more than is taken for a query, so that a longer one is seen to be that."""
MAX_TCP_BYTES = 65535
TCP_SEND_S = 5.0
"""A client that does not take its answers for so long is gone."""
TCP_READ_BYTES = 4096
"""At most some hundred queries, so that one client's burst does not hold up the loop."""
MAX_PIPELINED = 32
"""Forwarded queries in flight on one connection; one that sends more waits."""
MAX_LEAVING = 64
"""Connections over the limit that may be on their way out; when there are more, a new one is closed at once."""
MAX_BATCHES = 4
"""Answered in one turn of the loop while there are more: a turn costs as much as some ten answers."""
DROPS = {Verdict.BY_TCP: "rate_slipped", Verdict.DROP: "rate_limited", Verdict.REFUSE: "not_allowed"}
"""The reasons by which what was not answered in full is counted."""


class Server:
    """Answers on one UDP socket and some TCP listeners, which stay the caller's to close.

    ``table`` is changed by its one writer, maybe in another thread, while it is read here. ``cookies`` are those of all
    servers that share the port.
    """

    def __init__(
        self,
        udp: stdlib_socket.socket,
        listeners: list[trio.SocketListener],
        table: NameTable,
        settings: DnsSettings,
        tally: Tally,
        cookies: Cookies,
    ) -> None:
        self._udp = udp
        self._listeners = listeners
        self._table = table
        self._settings = settings
        self._tally = tally
        self._cookies = cookies
        self._guard = None if settings.is_on_loopback else Guard(allowed(settings), settings.rate_limit)
        self._held_back: dict[int, Verdict] = {}
        self._datagrams = datagrams(udp, MAX_UDP_BYTES)
        self._by_tcp = {bits: Slots(MAX_UDP_BYTES, is_v6=bits == 128) for bits in (32, 128)}
        self._quick = Quick(table, cookies)
        self._upstreams = Upstreams(settings, tally)
        self._connections: dict[trio.SocketStream, tuple[bytes, trio.CancelScope]] = {}
        """Those by TCP; the one that asked last is the last."""
        self._lines: Lines[Seen] | None = None
        self._watch: Watch | None = None
        self._seen: list[tuple[bytes, bytes, str, str]] = []
        if settings.query_log is not None or settings.top_names:
            self._watch = self._watching()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled. Owns the connections and the forwarded queries, which end with it."""
        async with trio.open_nursery() as nursery:
            for listener in self._listeners:
                nursery.start_soon(self._accept, listener, nursery)
            await nursery.start(self._upstreams.run)
            if self._lines is not None:
                await nursery.start(self._lines.run)
            self._tally.states[self] = self.state
            task_status.started()
            try:
                while True:
                    await trio.lowlevel.wait_readable(self._udp)
                    for _ in range(MAX_BATCHES):
                        if not self._drain(nursery):
                            break
            finally:
                del self._tally.states[self]

    def state(self) -> State:
        """What it has now. May be called by another thread."""
        top = self._watch.ranking(time.time()) if self._watch is not None else []
        return State(self._upstreams.gauges(), self._upstreams.who_is_up(), top)

    # -- for those who want to see the queries

    def _watching(self) -> Watch:
        settings = self._settings
        top = TopNames(settings.top_names) if settings.top_names else None
        put, one_in = None, 1
        if (wanted := settings.query_log) is not None:
            render = json_line if is_json() else text_line
            self._lines = Lines(wanted.file, render, self._tally.logged)
            put, one_in = self._lines.put, wanted.one_in
        return Watch(put, Sampler(one_in, random.randint), top)

    def _notice(self, slots: Slots, left: list[int]) -> None:
        """Note what the fast road answered: its answers lie where the queries did, after the same question."""
        for slot in sorted(set(range(len(slots.sizes))).difference(left)):
            message = slots.message(slot)
            self._seen.append((slots.host(slot), question_of(message), answer.RCODES[message[3] & 0xF], "fast"))

    def _note_all(self, transport: str, began: float) -> None:
        """Show what was answered since ``began``."""
        if self._watch is not None and self._seen:
            at, took_s = time.time(), time.perf_counter() - began
            for host, question, rcode, path in self._seen:
                self._watch.note(host, transport, question, rcode, path, at=at, took_s=took_s)
            self._seen.clear()

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        await accept_loop(
            listener,
            self._serve_connection,
            nursery,
            name="dns",
            # Those that were displaced end within a turn or so.
            limit=self._settings.max_tcp_connections + MAX_LEAVING,
            on_event=self._tally.connection,
        )

    def _drain(self, nursery: trio.Nursery) -> int:
        """Answer what waits in the socket, at most one batch; how many packets that were."""
        batch = self._datagrams
        begin = time.perf_counter()
        try:
            count = batch.receive()
        except OSError as error:
            # An ICMP error for an earlier answer, or memory pressure; the socket is as good as before.
            log.debug("dns: receive: %s", error)
            self._tally.drop("receive_error")
            return 0
        self._cookies.tick(time.time())
        sizes = batch.sizes if self._guard is None else self._allowed(self._guard, int(begin))
        left = self._quick.answer(batch, sizes, self._tally.fast)
        if self._watch is not None:
            self._notice(batch, left)
        for slot in left:
            self._answer_slowly(slot, nursery)
        failed = batch.flush()
        if failed:
            # A packet that finds no room is the client's to ask for again.
            self._tally.drop("send_error", failed)
        self._note_all("udp", begin)
        if count:
            self._tally.took(time.perf_counter() - begin, count)
        return count

    def _allowed(self, guard: Guard, second: int) -> list[int]:
        """The sizes of what is in the slots, 0 for what is not to be answered like that."""
        batch = self._datagrams
        sizes = list(batch.sizes)
        for slot in range(len(sizes)):
            verdict = guard.judge(batch.host(slot), second)
            if verdict is not Verdict.ANSWER:
                self._held_back[slot] = verdict
                sizes[slot] = 0
        return sizes

    def _answer_slowly(self, slot: int, nursery: trio.Nursery) -> None:
        """Answer what the fast road left, if it is to be answered."""
        batch = self._datagrams
        message, host = batch.message(slot), batch.host(slot)
        verdict = self._held_back.pop(slot, Verdict.ANSWER)
        if verdict is not Verdict.ANSWER and not (verdict is not Verdict.REFUSE and self._knows(message, host)):
            self._tally.drop(DROPS[verdict])
            if verdict is not Verdict.DROP:
                short = answer.short(message, refuse=verdict is Verdict.REFUSE)
                if short is not None:
                    batch.answer(slot, short)
            return
        outcome = self._respond(message, host, by_udp=True)
        if isinstance(outcome, answer.Answer):
            batch.answer(slot, outcome.wire)
        elif isinstance(outcome, answer.Forward):
            if (kept := self._upstreams.cached(outcome.query)) is not None:
                batch.answer(slot, self._to_client(kept, outcome.query, outcome.query.udp_limit, host))
            elif self._upstreams.is_full:
                batch.answer(slot, self._failed(outcome.query, host))
            else:
                nursery.start_soon(self._forward_udp, outcome.query, batch.peer(slot), host)

    def _knows(self, message: bytes, host: bytes) -> bool:
        """Whether a client that is over the limit proves by a cookie that it is who it says, and may ask."""
        return bool(self._guard and self._guard.may(host)) and self._cookies.is_ours(answer.cookie_of(message), host)

    def _respond(self, message: bytes, host: bytes, *, by_udp: bool) -> answer.Answer | answer.Forward | answer.Drop:
        """The slow road, counted and contained."""
        try:
            outcome = answer.respond(
                message, self._table, lambda cookie: self._cookies.option(cookie, host), by_udp=by_udp
            )
        except Exception:  # request edge: a bug here costs one packet
            log.exception("dns: a query of %d bytes failed", len(message))
            outcome = answer.Drop("failed")
        if isinstance(outcome, answer.Answer):
            self._tally.query(outcome.qtype, outcome.rcode, "slow")
            if self._watch is not None:
                self._seen.append((host, question_of(message), outcome.rcode, "slow"))
        elif isinstance(outcome, answer.Drop):
            self._tally.drop(outcome.reason)
        return outcome

    def _send(self, message: bytes, peer: Any) -> None:
        """Send by UDP or not at all."""
        try:
            self._udp.sendto(message, peer)
        except OSError as error:
            log.debug("dns: send: %s", error)
            self._tally.drop("send_error")

    async def _forward_udp(self, query: Query, peer: Any, host: bytes) -> None:
        began = time.perf_counter()
        answered = await self._forwarded(query, query.udp_limit, host)
        self._send(answered, peer)
        self._note_all("udp", began)

    async def _forwarded(self, query: Query, limit: int, host: bytes) -> bytes:
        """The upstreams' answer as the client must see it; SERVFAIL if there is none."""
        told = await self._upstreams.ask(query)
        if told is None:
            return self._failed(query, host)
        return self._to_client(told, query, limit, host)

    def _to_client(self, told: Told, query: Query, limit: int, host: bytes) -> bytes:
        reply, how = told
        option = self._cookie_option(query, host)
        outcome = forward.to_client(reply, query, self._table, limit - len(option))
        self._tally.query(outcome.qtype, outcome.rcode, "forwarded")
        if self._watch is not None:
            self._seen.append((host, query.question, outcome.rcode, how))
        return answer.with_option(outcome.wire, option)

    def _failed(self, query: Query, host: bytes) -> bytes:
        outcome = answer.failure(query, self._table)
        self._tally.query(outcome.qtype, outcome.rcode, "forwarded")
        if self._watch is not None:
            self._seen.append((host, query.question, outcome.rcode, FORWARDED))
        return answer.with_option(outcome.wire, self._cookie_option(query, host))

    def _cookie_option(self, query: Query, host: bytes) -> bytes:
        """What answers the client's cookie, if it sent one: it may not believe an answer without (RFC 7873, 5.3)."""
        cookie = query.edns.cookie if query.edns else b""
        return self._cookies.option(cookie, host) if cookie else b""

    def _answer_messages(self, messages: list[bytes], host: bytes) -> tuple[list[bytes], list[Query], bool]:
        """What can be answered of a connection's messages now, what must be forwarded, and whether all are queries."""
        self._cookies.tick(time.time())
        began = time.perf_counter()
        slots = self._by_tcp[len(host) * 8]
        answers: list[bytes] = []
        forwarded: list[Query] = []
        is_dns = True
        for first in range(0, len(messages), BATCH):
            slots.fill(messages[first : first + BATCH], host)
            left = self._quick.answer(slots, slots.sizes, self._tally.fast)
            if self._watch is not None:
                self._notice(slots, left)
            answers += slots.answers()
            for slot in left:
                outcome = self._respond(messages[first + slot], host, by_udp=False)
                if isinstance(outcome, answer.Answer):
                    answers.append(outcome.wire)
                elif isinstance(outcome, answer.Forward):
                    forwarded.append(outcome.query)
                else:
                    is_dns = False
                    break
            if not is_dns:
                break
        self._note_all("tcp", began)
        return answers, forwarded, is_dns

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        """Answer one TCP connection until it ends, idles, or another one needs its place."""
        host = ip_address(stream.socket.getpeername()[0].partition("%")[0]).packed
        if self._guard is not None and self._guard.may(host) is False:
            self._tally.connection("forbidden")
            return
        connections = self._connections
        if len(connections) >= self._settings.max_tcp_connections:
            # Who holds connections without asking must not keep out who asks, nor who opens many those with few.
            ((most, _),) = Counter(owner for owner, _ in connections.values()).most_common(1)
            longest = next(held for held, (owner, _) in connections.items() if owner == most)
            connections.pop(longest)[1].cancel()
            self._tally.connection("displaced")
        with trio.CancelScope() as scope:
            connections[stream] = (host, scope)
            try:
                await self._converse(stream, host)
            finally:
                connections.pop(stream, None)

    async def _converse(self, stream: trio.SocketStream, host: bytes) -> None:
        """Answer what comes; answers may overtake each other (RFC 7766)."""
        sender = Sender(stream)
        slots = trio.Semaphore(MAX_PIPELINED)

        async def forward_one(query: Query) -> None:
            began = time.perf_counter()
            try:
                answered = await self._forwarded(query, MAX_TCP_BYTES, host)
                self._note_all("tcp", began)
                await sender.send([answered])
            finally:
                slots.release()

        async with trio.open_nursery() as nursery:
            data = b""
            # Only a whole query proves that somebody is there; a byte now and then does not.
            deadline = trio.current_time() + self._settings.tcp_idle_s
            while True:
                more = await received(stream, deadline)
                if more is None:
                    if slots.value == MAX_PIPELINED:
                        self._tally.connection("idle")
                        return
                    # A client that waits for a forwarded answer does not idle.
                    deadline = trio.current_time() + self._settings.tcp_idle_s
                    continue
                if not more:
                    return  # the nursery still sends what is under way
                messages, data = split(data + more)
                if messages:
                    deadline = trio.current_time() + self._settings.tcp_idle_s
                    if (held := self._connections.pop(stream, None)) is not None:
                        self._connections[stream] = held
                answers, forwarded, is_dns = self._answer_messages(messages, host)
                for query in forwarded:
                    await slots.acquire()
                    nursery.start_soon(forward_one, query)
                if not is_dns:
                    # No client that speaks DNS sends this; closing beats guessing where its next message starts.
                    nursery.cancel_scope.cancel()
                if answers:
                    await sender.send(answers)


class Sender:
    """The answers' way back on one connection, for several tasks."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._file = stream.socket.fileno()
        self._sending = trio.Lock()

    async def send(self, messages: list[bytes]) -> None:
        """Send messages, each with its length before it."""
        data = b"".join([part for message in messages for part in (len(message).to_bytes(2), message)])
        if not self._sending.locked():
            # There is room as a rule; then there is nothing to wait for.
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self._file, data) :]
            if not data:
                return
        async with self._sending:
            with trio.fail_after(TCP_SEND_S):
                await self._stream.send_all(data)


async def received(stream: trio.SocketStream, deadline: float) -> bytes | None:
    """What comes next, empty at the end; None if nothing came until then.

    Waiting first, and reading past the stream, takes one turn of the loop for each burst, not three.
    """
    with trio.move_on_at(deadline):
        while True:
            await trio.lowlevel.wait_readable(stream.socket)
            with contextlib.suppress(BlockingIOError):
                return os.read(stream.socket.fileno(), TCP_READ_BYTES)
    return None


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole length-prefixed messages at the front of the bytes, and the rest."""
    messages = []
    offset = 0
    while len(data) - offset >= 2:
        end = offset + 2 + int.from_bytes(data[offset : offset + 2])
        if end > len(data):
            break
        messages.append(data[offset + 2 : end])
        offset = end
    return messages, data[offset:]


def allowed(settings: DnsSettings) -> tuple[Network, ...]:
    """Who may ask besides loopback: as configured, and the address itself that is listened on, which is this host's."""
    host = ip_address(settings.listen.host)
    return settings.allow if host.is_unspecified else (*settings.allow, ip_network(host))
