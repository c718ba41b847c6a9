"""Ports and address ranges of loopback that nobody has: no outgoing connection, no other test worker."""

import contextlib
import itertools
import os
import random
import socket

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_own = range(11000 + _worker, 31000, _workers)
_second_octets = itertools.cycle(random.Random(os.getpid()).sample(range(10, 250), 240))
_ports = itertools.cycle(random.Random(os.getpid()).sample(_own, len(_own)))
"""Below the range that the kernel gives to outgoing connections, so that none of them takes a port before it is bound;
each test worker has ports of its own, so that none takes what another has found to be free; in an order of each
process's own, so that two runs seldom meet."""


def free_port(address="127.0.0.1"):
    """A port that nothing uses now, and no outgoing connection will."""
    for port in _ports:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind((address, port))
            return port
    raise AssertionError("unreachable: the cycle has no end")


def free_range():
    """A /16 of 127/8 that no other lab has, and the socket that holds it until closed."""
    for octet in itertools.islice(_second_octets, 240):
        s = socket.socket()
        try:
            s.bind((f"127.{octet}.255.254", 10999))
        except OSError:
            s.close()
        else:
            return f"127.{octet}.0.0/16", s
    raise AssertionError("every /16 of 127.10.0.0 to 127.249.0.0 is taken by other labs")


def free_udp_tcp_port(address="127.0.0.1"):
    """A port that is free for both UDP and TCP."""
    while True:
        port = free_port(address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s, contextlib.suppress(OSError):
            s.bind((address, port))
            return port
