"""Lets the kernel find out whether the other host is still there; that costs us nothing."""

import socket
from contextlib import suppress
from dataclasses import dataclass

import trio


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds of silence before the kernel asks, between two questions, and how many go unanswered.

    ``unacknowledged_s``: what was sent may be so long without a sign that it arrived; 0: as long as the kernel likes.
    """

    silent_s: int
    again_s: int
    questions: int
    unacknowledged_s: int = 0


WITH_A_CROWD = Patience(15, 5, 3)
"""Of a server: it has many connections, and asks those that matter by itself."""
WITH_ONE = Patience(5, 2, 2, unacknowledged_s=10)
"""Of a client: gone hosts are noticed within 10 s, and a host that is back tells within 5 s that it forgot us."""


def keep_alive(stream: trio.SocketStream, patience: Patience) -> None:
    """Set the options of a connected socket."""
    options = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, patience.silent_s),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, patience.again_s),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, patience.questions),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience.unacknowledged_s * 1000),
    ]
    with suppress(OSError):  # it has gone already
        for level, option, value in options:
            stream.socket.setsockopt(level, option, value)
