"""A worker process of the resolver: ``python -m meshd.dns.app``, started by ``keeper.py``.

Its standard input is its end of a socket. It ends when the other end is closed, which is when its parent ends, however
that comes.
"""

import gc
import signal
import socket as stdlib_socket

import trio

from meshd.dns.cookies import Cookies
from meshd.dns.metrics import Tally
from meshd.dns.pipe import SERVE, Start, frames, read_order, report
from meshd.dns.server import Server
from meshd.dns.table import Change, NameTable
from meshd.runtime.log import set_up

READ_BYTES = 1 << 16
REPORT_S = 1.0


async def run(parent: trio.SocketStream) -> None:
    """Serve as the parent says, until it is gone."""
    data = b""
    table: NameTable | None = None
    server: Server | None = None
    tally = Tally(None)
    async with trio.open_nursery() as nursery:
        while more := await parent.receive_some(READ_BYTES):
            orders, data = frames(data + more)
            for order in map(read_order, orders):
                if isinstance(order, Start):
                    set_up(order.log_level, order.log_format)
                    settings = order.settings
                    tally.top_size = settings.top_names
                    table = NameTable(settings.domain, recursive=order.recursive, is_known=False, cidr=settings.vips)
                    server = server_of(order, table, tally)
                elif isinstance(order, Change) and table is not None:
                    table.change(order)
                elif order == SERVE and server is not None:
                    # The table is there to stay: a search for garbage that goes through it would hold up every query.
                    gc.collect()
                    gc.freeze()
                    await nursery.start(server.run)
                    await parent.send_all(report({"serving": True}))
                    nursery.start_soon(report_counts, parent, tally)
        nursery.cancel_scope.cancel()


def server_of(start: Start, table: NameTable, tally: Tally) -> Server:
    """The server of the sockets that the parent bound."""
    udp = stdlib_socket.socket(fileno=start.udp)
    udp.setblocking(False)
    listeners = []
    for number in start.tcp:
        sock = stdlib_socket.socket(fileno=number)
        sock.setblocking(False)
        listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
    return Server(udp, listeners, table, start.settings, tally, Cookies(start.secret))


async def report_counts(parent: trio.SocketStream, tally: Tally) -> None:
    """Tell the parent what was counted, as long as it listens."""
    while True:
        await trio.sleep(REPORT_S)
        await parent.send_all(report({"counts": tally.snapshot(), "state": tally.state().as_json()}))


def main() -> None:
    """Run on the socket at standard input."""
    # The parent decides when it is over: it may still need this process while it drains.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sock = stdlib_socket.socket(fileno=0)
    sock.setblocking(False)

    async def serve() -> None:
        try:
            await run(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the parent is gone

    trio.run(serve)


if __name__ == "__main__":
    main()
