"""The upstream servers: asked one after the other, by UDP and after truncation by TCP, and believed with care."""

import logging
import secrets
import socket as stdlib_socket
from collections.abc import Sequence

import trio

from meshd.dns import forward, wire
from meshd.dns.metrics import Tally
from meshd.dns.settings import Address
from meshd.dns.wire import Query

log = logging.getLogger(__name__)

ATTEMPT_S = 1.0
"""How long one server may take to answer one packet."""
TCP_ATTEMPT_S = 2.0
TOTAL_S = 4.0
"""Under the 5 s after which stub resolvers (glibc, dig) give up, so that they hear of the failure."""
ROUNDS = 2
"""How often each server is asked: a packet may be lost."""
MAX_REPLY_BYTES = 65535


class Upstreams:
    """Asks the configured servers. Lives in one loop; at most ``max_outstanding`` queries are in flight."""

    def __init__(self, addresses: Sequence[Address], max_outstanding: int, tally: Tally) -> None:
        self._addresses = tuple(addresses)
        self._health = [forward.Health() for _ in addresses]
        self._max_outstanding = max_outstanding
        self._outstanding = 0
        self._tally = tally
        tally.gauges["meshd_dns_forwarding"] = ("Forwarded DNS queries in flight.", lambda: self._outstanding)
        tally.gauges["meshd_dns_upstreams_up"] = (
            "Upstream DNS servers that answer.",
            lambda: sum(health.is_up for health in self._health),
        )

    @property
    def is_full(self) -> bool:
        """Whether one more query would be one too many."""
        return self._outstanding >= self._max_outstanding

    async def ask(self, query: Query) -> bytes | None:
        """The first good reply, else a server's own error, else None. Takes at most ``TOTAL_S`` seconds.

        The reply is a whole message with an id of ours and maybe the question in another case.
        """
        if self.is_full:
            self._tally.asked("none", "overload")
            return None
        self._outstanding += 1
        try:
            return await self._ask_in_turn(query)
        finally:
            self._outstanding -= 1

    async def _ask_in_turn(self, query: Query) -> bytes | None:
        error: bytes | None = None
        refused: set[int] = set()
        with trio.move_on_after(TOTAL_S):
            for _ in range(ROUNDS):
                for index in forward.order(self._health, trio.current_time()):
                    if index in refused:
                        continue
                    reply = await self._ask_one(index, query)
                    if reply is None:
                        continue
                    if forward.flags_of(reply) & 0xF not in forward.NEXT_SERVER_RCODES:
                        return reply
                    refused.add(index)
                    error = error or reply
        return error

    async def _ask_one(self, index: int, query: Query) -> bytes | None:
        """One server's reply; keeps its health."""
        before = self._health[index]
        self._health[index] = before.probing(trio.current_time())
        label = str(self._addresses[index])
        try:
            reply = await self._by_udp(self._addresses[index], query)
        except OSError as error:
            # ECONNREFUSED (nobody listens), ENETUNREACH and their like: known at once.
            log.debug("dns: upstream %s: %s", label, error)
            reply, event = None, "unreachable"
        else:
            event = "timeout" if reply is None else "reply"
        self._tally.asked(label, event)
        if reply is None:
            # A probe that fails has been counted when it began.
            after = before.failed(trio.current_time()) if before.is_up else self._health[index]
        else:
            after = forward.Health()
        self._health[index] = after
        if before.is_up and not after.is_up:
            log.warning("dns: upstream %s does not answer; asking the others", label)
        elif after.is_up and not before.is_up:
            log.info("dns: upstream %s answers again", label)
        if reply is not None and forward.flags_of(reply) & wire.TC:
            return await self._by_tcp(self._addresses[index], query) or reply
        return reply

    async def _by_udp(self, address: Address, query: Query) -> bytes | None:
        """A believable reply by UDP, or None after ``ATTEMPT_S``.

        Each attempt has a socket of its own, so the kernel picks a random port, and drops what comes from elsewhere.
        """
        ident = secrets.randbelow(0x10000)
        with trio.socket.socket(family_of(address), stdlib_socket.SOCK_DGRAM) as sock:
            await sock.connect((address.host, address.port))
            with trio.move_on_after(ATTEMPT_S):
                await sock.send(forward.upstream_query(query, ident))
                while True:
                    packet = await sock.recv(MAX_REPLY_BYTES)
                    if forward.is_reply(packet, ident, query):
                        return packet
                    # Keep listening: a forged packet must not end the wait for the true one.
                    self._tally.asked(str(address), "mismatch")
        return None

    async def _by_tcp(self, address: Address, query: Query) -> bytes | None:
        """The whole reply by TCP, or None; the truncated one then has to do."""
        ident = secrets.randbelow(0x10000)
        message = forward.upstream_query(query, ident)
        packet: bytes | None = None
        try:
            with trio.move_on_after(TCP_ATTEMPT_S):
                sock = trio.socket.socket(family_of(address), stdlib_socket.SOCK_STREAM)
                with sock:
                    await sock.connect((address.host, address.port))
                    stream = trio.SocketStream(sock)
                    await stream.send_all(len(message).to_bytes(2) + message)
                    packet = await receive_message(stream)
        except (OSError, trio.BrokenResourceError) as error:
            log.debug("dns: upstream %s by TCP: %s", address, error)
        if packet is None or not forward.is_reply(packet, ident, query):
            self._tally.asked(str(address), "tcp_failed")
            return None
        self._tally.asked(str(address), "tcp_reply")
        return packet


async def receive_message(stream: trio.abc.ReceiveStream) -> bytes | None:
    """One length-prefixed message; None if the stream ends first."""
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2]):
        more = await stream.receive_some(MAX_REPLY_BYTES)
        if not more:
            return None
        data += more
    return data[2 : 2 + int.from_bytes(data[:2])]


def family_of(address: Address) -> int:
    """The socket family of an IP address."""
    return stdlib_socket.AF_INET6 if ":" in address.host else stdlib_socket.AF_INET
