"""The upstream servers: asked in the configured order, by UDP and after truncation by TCP, and believed with care.

Every attempt has a socket, and with it a source port, of its own. A server that takes longer than it does as a rule is
not given up: the next one is asked as well, and the first good answer counts.
"""

import logging
import secrets
import socket as stdlib_socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from meshd.dns import forward
from meshd.dns.forward import Health, Sent, Verdict
from meshd.dns.metrics import Tally
from meshd.dns.reply import Reply, parse_reply
from meshd.dns.resolv_conf import nameservers
from meshd.dns.settings import Address, is_self
from meshd.dns.wire import MalformedError, Query

log = logging.getLogger(__name__)

ATTEMPT_S = 1.5
"""How long one server may take to answer one packet."""
TCP_ATTEMPT_S = 2.0
TOTAL_S = 4.0
"""Under the 5 s after which stub resolvers (glibc, dig) give up, so that they hear of the failure."""
ROUNDS = 2
"""How often each server is asked: a packet may be lost."""
MAX_REPLY_BYTES = 65535
LOOK_AT_FILE_S = 1.0
"""How old what is known of resolv.conf may be when it is used."""


@dataclass(eq=False, slots=True)
class Race:
    """One question to several servers: which attempts run (how many a server), which have ended, and what came of it.

    ``out`` are servers that said that they cannot answer, or not all, ``error`` is the first of these answers.
    """

    running: int = 0
    ended: set[Address] = field(default_factory=set)
    late: dict[Address, Health] = field(default_factory=dict)
    out: set[Address] = field(default_factory=set)
    winner: Address | None = None
    reply: Reply | None = None
    error: Reply | None = None
    news: trio.Event = field(default_factory=trio.Event)

    async def next(self) -> None:
        """Wait until an attempt has ended."""
        await self.news.wait()
        self.news = trio.Event()


@dataclass(eq=False, slots=True)
class Exchange:
    """A query on its way to a server by UDP: the socket, connected and non-blocking, and what came of it so far."""

    sock: stdlib_socket.socket
    sent: Sent
    edns: bool
    began: float
    before: Health
    found: Reply | Verdict | None = None
    error: OSError | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.found is not None or self.error is not None


class Servers:
    """Asks servers, and knows how they do. Lives in one loop.

    ``addresses`` are the servers; or they are those that ``resolv_conf`` names, read again when it changes. ``listen``
    is where this resolver itself listens: it does not ask itself.
    """

    def __init__(
        self, addresses: Sequence[Address], tally: Tally, *, resolv_conf: Path | None, listen: Address | None
    ) -> None:
        self._addresses: tuple[Address, ...] = ()
        self._health: dict[Address, Health] = {}
        self._resolv_conf = resolv_conf
        self._listen = listen
        self._seen_file: object = None
        self._look_at = 0.0
        self._tally = tally
        self._use(tuple(addresses))

    def who_is_up(self) -> dict[str, bool]:
        """Which servers are asked as a matter of course. May be called by another thread."""
        health = self._health.copy()
        return {str(address): health[address].is_up for address in self._addresses if address in health}

    def any_to_ask(self, *, probes: bool) -> bool:
        """Whether anybody would be asked now. ``probes``: also servers that are down, if it is time."""
        return bool(self._turn(probes=probes))

    def any_due(self) -> bool:
        """Whether a server that is down is to be tried again."""
        return bool(forward.due(self._healths(), trio.current_time()))

    async def ask(self, query: Query, *, probes: bool) -> Reply | None:
        """The first answer, else the first error, else None; at once if there is nobody to ask.

        Those that are up are asked in order, the next one when one says that it cannot answer, or nothing in time;
        with ``probes`` also those that are down and to be tried again. Deadlines are the caller's.
        """
        turn = self._turn(probes=probes)
        if not turn:
            return None
        begun = self._begin(turn[0], query)
        if begun is None:
            return await self._race(turn, query, None)
        try:
            # The common case, without the cost of a race: the first one answers in time.
            with trio.move_on_after(begun.before.patience_s):
                await self._receive(turn[0], begun, query)
            found = begun.found
            if isinstance(found, Reply) and found.is_answer and not found.is_truncated:
                self._tally.asked(str(turn[0]), "reply")
                self._note(turn[0], begun.before, answered=True, took_s=trio.current_time() - begun.began)
                return found
            return await self._race(turn, query, begun)
        finally:
            begun.sock.close()

    async def _race(self, turn: list[Address], query: Query, begun: Exchange | None) -> Reply | None:
        """As ``ask``; ``begun`` is what was sent to the first one already, and had its time if nothing was found."""
        race = Race()
        async with trio.open_nursery() as nursery:
            for address in turn * ROUNDS:
                if address in race.out or address not in self._health:
                    continue
                race.running += 1
                race.ended.discard(address)
                nursery.start_soon(self._attempt, race, address, query, begun)
                before = begun.before if begun is not None else self._health[address]
                had_its_time = begun is not None and not begun.is_over
                begun = None
                with trio.move_on_after(0 if had_its_time else before.patience_s) as patience:
                    while race.winner is None and address not in race.ended:
                        await race.next()
                if race.winner is not None:
                    break
                if patience.cancelled_caught:
                    race.late.setdefault(address, before)
            while race.running and race.winner is None:
                await race.next()
            nursery.cancel_scope.cancel()
        for address, before in race.late.items():
            # It had its time, and another one was quicker: that is no answer, as far as clients are concerned.
            if race.winner not in (None, address) and address not in race.ended:
                self._note(address, before, answered=False, took_s=0.0)
        return race.reply or race.error

    # -- which servers

    def _use(self, addresses: tuple[Address, ...]) -> None:
        """Ask these from now on; what is known of those that stay stays."""
        self._addresses = addresses
        self._health = {a: self._health.get(a, Health()) for a in addresses}

    def _healths(self) -> list[Health]:
        return [self._health[a] for a in self._addresses]

    def _turn(self, *, probes: bool) -> list[Address]:
        now = trio.current_time()
        self._look_at_file(now)
        healths = self._healths()
        turn = (*forward.up(healths), *(forward.due(healths, now) if probes else ()))
        return [self._addresses[i] for i in turn]

    def _look_at_file(self, now: float) -> None:
        """Take the servers of resolv.conf, if it has changed; one that is gone or empty changes nothing."""
        if self._resolv_conf is None or now < self._look_at:
            return
        self._look_at = now + LOOK_AT_FILE_S
        text = ""
        try:
            found = self._resolv_conf.stat()
            seen: object = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen == self._seen_file:
                return
            text = self._resolv_conf.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            seen = str(error)
            if seen == self._seen_file:
                return
        self._seen_file = seen
        listen = self._listen
        addresses = tuple(a for a in nameservers(text) if listen is None or not is_self(a, listen))
        if not addresses:
            still = ", ".join(map(str, self._addresses)) or "nobody"
            log.warning("dns: %s names no server that could be asked; asking %s", self._resolv_conf, still)
        elif addresses != self._addresses:
            self._use(addresses)
            log.info("dns: upstreams of %s: %s", self._resolv_conf, ", ".join(map(str, addresses)))

    # -- one attempt

    async def _attempt(self, race: Race, address: Address, query: Query, begun: Exchange | None) -> None:
        """Ask one server once, or go on with what was begun; keeps its health and tells the race."""
        before = begun.before if begun is not None else self._health[address]
        began = begun.began if begun is not None else trio.current_time()
        if begun is None:
            self._health[address] = before.probing(began)
        reply: Reply | None = None
        try:
            reply = await self._ask_one(address, query, begun)
            event = "timeout" if reply is None else "reply" if reply.is_answer else "error"
        except OSError as error:
            # ECONNREFUSED (nobody listens), ENETUNREACH and their like: known at once.
            log.debug("dns: upstream %s: %s", address, error)
            event = "unreachable"
        self._tally.asked(str(address), event)
        self._note(address, before, answered=reply is not None, took_s=trio.current_time() - began)
        race.running -= 1
        race.ended.add(address)
        if reply is not None and reply.is_answer and not reply.is_truncated:
            if race.winner is None:
                race.winner, race.reply = address, reply
        elif reply is not None:
            race.out.add(address)
            race.error = race.error or reply
        race.news.set()

    def _note(self, address: Address, before: Health, *, answered: bool, took_s: float) -> None:
        """Keep what an attempt says of a server; ``before`` is how it was when the attempt began."""
        now = self._health.get(address)
        if now is None:
            return  # resolv.conf does not name it any more
        others_up = any(self._health[a].is_up for a in self._addresses if a != address)
        if answered and (before.is_up or took_s <= forward.PATIENCE_S or not others_up):
            self._health[address] = now.answered(took_s)
        elif before.is_up:
            # A probe that fails has been counted when it began.
            self._health[address] = now.failed(trio.current_time())
        after = self._health[address]
        if now.is_up and not after.is_up:
            log.warning("dns: upstream %s does not answer in time; asking the others", address)
        elif after.is_up and not now.is_up:
            log.info("dns: upstream %s answers again", address)

    def _learn(self, address: Address, *, keeps_case: bool = True, has_edns: bool = True) -> None:
        """Keep how a server speaks."""
        now = self._health.get(address)
        if now is None:
            return
        self._health[address] = replace(
            now, keeps_case=now.keeps_case and keeps_case, has_edns=now.has_edns and has_edns
        )
        what = "repeats names in another letter case" if not keeps_case else "does not know EDNS"
        log.info("dns: upstream %s %s; it is asked without from now on", address, what)

    def _begin(self, address: Address, query: Query) -> Exchange | None:
        """Send a query; None if that fails, or if the server is down and so is only to be tried: then by ``_race``."""
        before = self._health[address]
        if not before.is_up:
            return None
        try:
            return self._send(address, query, edns=before.has_edns)
        except OSError:
            return None

    async def _ask_one(self, address: Address, query: Query, begun: Exchange | None) -> Reply | None:
        """One server's reply; without EDNS if it does not know that. What was begun stays the caller's to close."""
        if begun is not None:
            reply, edns = await self._by_udp(address, query, begun), begun.edns
        else:
            edns = self._health[address].has_edns
            reply = await self._by_udp_anew(address, query, edns=edns)
        if reply is not None and forward.lacks_edns(reply, edns=edns):
            self._learn(address, has_edns=False)
            reply = await self._by_udp_anew(address, query, edns=False)
        return reply

    async def _by_udp_anew(self, address: Address, query: Query, *, edns: bool) -> Reply | None:
        exchange = self._send(address, query, edns=edns)
        try:
            return await self._by_udp(address, query, exchange)
        finally:
            exchange.sock.close()

    def _send(self, address: Address, query: Query, *, edns: bool) -> Exchange:
        """Send a query on a socket of its own: the kernel picks a random port, and drops what comes from elsewhere.

        Raises:
            OSError: it cannot be sent.
        """
        health = self._health.get(address, Health())
        sent = forward.upstream_query(query, new_ident(), new_case(query) if health.keeps_case else 0, edns=edns)
        sock = stdlib_socket.socket(family_of(address), stdlib_socket.SOCK_DGRAM | stdlib_socket.SOCK_NONBLOCK)
        try:
            sock.connect((address.host, address.port))  # a literal address, and nothing is sent: does not block
            sock.send(sent.message)
        except BaseException:
            sock.close()
            raise
        return Exchange(sock, sent, edns, trio.current_time(), health)

    async def _receive(self, address: Address, exchange: Exchange, query: Query) -> None:
        """Wait until something was found; deadlines are the caller's.

        Keeps listening after what is not believed: a forged packet must not end the wait for the true one.
        """
        while not exchange.is_over:
            try:
                packet = exchange.sock.recv(MAX_REPLY_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(exchange.sock)
            except OSError as error:
                exchange.error = error  # ECONNREFUSED: nobody listens
            else:
                exchange.found = self._judged(address, packet, exchange.sent, query)
                if exchange.found is None:
                    await trio.lowlevel.checkpoint()  # a flood of lies is not to hold up the loop

    async def _by_udp(self, address: Address, query: Query, exchange: Exchange) -> Reply | None:
        """A believable reply, or None after ``ATTEMPT_S``; by TCP in the end, where UDP's is not whole or not sure.

        Raises:
            OSError: nobody listens there.
        """
        with trio.move_on_at(exchange.began + ATTEMPT_S):
            await self._receive(address, exchange, query)
        if exchange.error is not None:
            raise exchange.error
        found, edns = exchange.found, exchange.edns
        match found:
            case Reply() if found.is_truncated:
                # Under another id and spelling; the cut answer has to do if that fails.
                whole = await self._by_tcp(address, query, edns=edns)
                return whole if isinstance(whole, Reply) else found
            case Verdict.FOLDED:
                # Forged, or a server that folds names: who is not on the path cannot speak TCP in its place.
                whole = await self._by_tcp(address, query, edns=edns)
                if not isinstance(whole, Reply):
                    self._learn(address, keeps_case=False)
                    return None
                return whole
            case Reply():
                return found
        return None

    async def _by_tcp(self, address: Address, query: Query, *, edns: bool) -> Reply | None:
        """The whole reply by TCP, or None."""
        sent = forward.upstream_query(query, new_ident(), new_case(query), edns=edns)
        packet: bytes | None = None
        try:
            with trio.move_on_after(TCP_ATTEMPT_S), trio.socket.socket(family_of(address)) as sock:
                await sock.connect((address.host, address.port))
                stream = trio.SocketStream(sock)
                await stream.send_all(len(sent.message).to_bytes(2) + sent.message)
                packet = await receive_message(stream)
        except (OSError, trio.BrokenResourceError) as error:
            log.debug("dns: upstream %s by TCP: %s", address, error)
        verdict = forward.judge(packet, sent) if packet is not None else Verdict.MISMATCH
        if packet is not None and verdict is not Verdict.MISMATCH:
            try:
                reply = parse_reply(packet, query)
            except MalformedError as error:
                log.debug("dns: upstream %s by TCP: %s", address, error)
            else:
                if verdict is Verdict.FOLDED:
                    self._learn(address, keeps_case=False)
                self._tally.asked(str(address), "tcp_reply")
                return reply
        self._tally.asked(str(address), "tcp_failed")
        return None

    def _judged(self, address: Address, packet: bytes, sent: Sent, query: Query) -> Reply | Verdict | None:
        """What a packet says; FOLDED if only its spelling is wrong; None for one that is not believed, counted."""
        verdict = forward.judge(packet, sent)
        event = verdict.value
        if verdict is Verdict.BELIEVED or (verdict is Verdict.FOLDED and not sent.has_case):
            try:
                return parse_reply(packet, query)
            except MalformedError as error:
                log.debug("dns: upstream %s: %s", address, error)
                verdict, event = Verdict.MISMATCH, "broken"
        self._tally.asked(str(address), event)
        return verdict if verdict is Verdict.FOLDED else None


def new_ident() -> int:
    """A message id that nobody can guess."""
    return secrets.randbelow(0x10000)


def new_case(query: Query) -> int:
    """The letter case of a question, which nobody can guess: a bit for each byte of its name."""
    return secrets.randbits(len(query.name))


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
