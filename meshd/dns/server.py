"""The sockets: UDP drained in batches, TCP with pipelining; a bad packet or peer costs only itself."""

import logging
import socket as stdlib_socket
from typing import Any

import trio

from meshd.dns import answer, forward, wire
from meshd.dns.client import Upstreams
from meshd.dns.metrics import Tally
from meshd.dns.settings import DnsSettings
from meshd.dns.table import NameTable
from meshd.dns.wire import Query
from meshd.runtime.datagrams import datagrams
from meshd.runtime.listen import accept_loop

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


class Current:
    """The table in force: replaced whole by one writer (maybe in another thread), taken once a batch by the readers."""

    __slots__ = ("table",)

    def __init__(self, table: NameTable) -> None:
        self.table = table


class Server:
    """Answers on one UDP socket and some TCP listeners, which stay the caller's to close."""

    def __init__(
        self,
        udp: stdlib_socket.socket,
        listeners: list[trio.SocketListener],
        current: Current,
        settings: DnsSettings,
        tally: Tally,
    ) -> None:
        self._udp = udp
        self._listeners = listeners
        self._current = current
        self._settings = settings
        self._tally = tally
        self._datagrams = datagrams(udp, MAX_UDP_BYTES)
        self._upstreams = Upstreams(settings, tally)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled. Owns the connections and the forwarded queries, which end with it."""
        async with trio.open_nursery() as nursery:
            for listener in self._listeners:
                nursery.start_soon(self._accept, listener, nursery)
            await nursery.start(self._upstreams.run)
            task_status.started()
            while True:
                await trio.lowlevel.wait_readable(self._udp)
                self._drain(nursery)

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        await accept_loop(
            listener,
            self._serve_connection,
            nursery,
            name="dns",
            limit=self._settings.max_tcp_connections,
            on_event=self._tally.connection,
        )

    def _drain(self, nursery: trio.Nursery) -> None:
        """Answer what waits in the socket, at most one batch."""
        table = self._current.table
        batch = self._datagrams
        try:
            count = batch.receive()
        except OSError as error:
            # An ICMP error for an earlier answer, or memory pressure; the socket is as good as before.
            log.debug("dns: receive: %s", error)
            self._tally.drop("receive_error")
            return
        for slot in range(count):
            message = batch.message(slot)
            outcome = self._known(message, table) or self._respond(message, table)
            if isinstance(outcome, answer.Answer):
                batch.answer(slot, outcome.wire)
            elif isinstance(outcome, answer.Forward):
                if (kept := self._upstreams.cached(outcome.query)) is not None:
                    batch.answer(slot, self._to_client(kept, outcome.query, outcome.query.udp_limit))
                elif self._upstreams.is_full:
                    batch.answer(slot, self._failed(outcome.query))
                else:
                    nursery.start_soon(self._forward_udp, outcome.query, batch.peer(slot))
        for _ in range(batch.flush()):
            # A packet that finds no room is the client's to ask for again.
            self._tally.drop("send_error")

    def _known(self, message: bytes, table: NameTable) -> answer.Answer | None:
        """The fast road, counted."""
        ready = answer.fast(message, table)
        if ready is None:
            return None
        kind = "A" if message[-3 - answer.OPT_BYTES * message[11]] == wire.A else "AAAA"
        self._tally.query(kind, "NOERROR", "fast")
        return answer.Answer(ready, kind, "NOERROR")

    def _respond(self, message: bytes, table: NameTable) -> answer.Answer | answer.Forward | answer.Drop:
        """The slow road, counted and contained."""
        try:
            outcome = answer.respond(message, table)
        except Exception:  # request edge: a bug here costs one packet
            log.exception("dns: a query of %d bytes failed", len(message))
            outcome = answer.Drop("failed")
        if isinstance(outcome, answer.Answer):
            self._tally.query(outcome.qtype, outcome.rcode, "slow")
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

    async def _forward_udp(self, query: Query, peer: Any) -> None:
        self._send(await self._forwarded(query, query.udp_limit), peer)

    async def _forwarded(self, query: Query, limit: int) -> bytes:
        """The upstreams' answer as the client must see it; SERVFAIL if there is none."""
        reply = await self._upstreams.ask(query)
        if reply is None:
            return self._failed(query)
        return self._to_client(reply, query, limit)

    def _to_client(self, reply: bytes, query: Query, limit: int) -> bytes:
        outcome = forward.to_client(reply, query, self._current.table, limit)
        self._tally.query(outcome.qtype, outcome.rcode, "forwarded")
        return outcome.wire

    def _failed(self, query: Query) -> bytes:
        outcome = answer.failure(query, self._current.table)
        self._tally.query(outcome.qtype, outcome.rcode, "forwarded")
        return outcome.wire

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        """Answer one TCP connection until it ends or idles; answers may overtake each other (RFC 7766)."""
        sending = trio.Lock()
        slots = trio.Semaphore(MAX_PIPELINED)

        async def send(messages: list[bytes]) -> None:
            async with sending:
                with trio.fail_after(TCP_SEND_S):
                    await stream.send_all(b"".join(len(m).to_bytes(2) + m for m in messages))

        async def forward_one(query: Query) -> None:
            try:
                await send([await self._forwarded(query, MAX_TCP_BYTES)])
            finally:
                slots.release()

        async with trio.open_nursery() as nursery:
            data = b""
            # Only a whole query proves that somebody is there; a byte now and then does not.
            deadline = trio.current_time() + self._settings.tcp_idle_s
            while True:
                with trio.move_on_at(deadline) as idle:
                    more = await stream.receive_some(TCP_READ_BYTES)
                if idle.cancelled_caught:
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
                answers: list[bytes] = []
                for message in messages:
                    outcome = self._known(message, self._current.table) or self._respond(message, self._current.table)
                    if isinstance(outcome, answer.Answer):
                        answers.append(outcome.wire)
                    elif isinstance(outcome, answer.Forward):
                        await slots.acquire()
                        nursery.start_soon(forward_one, outcome.query)
                    else:
                        # No client that speaks DNS sends this; closing beats guessing where its next message starts.
                        nursery.cancel_scope.cancel()
                if answers:
                    await send(answers)


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
