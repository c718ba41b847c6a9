"""Sources and sinks: plain sockets in processes of their own, so that the proxy is what is measured."""

import contextlib
import multiprocessing
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

CHUNK = 1 << 18
LOCAL = "127.0.0.1"


def client_hello(name: str) -> bytes:
    """A real first flight for ``name``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["kuma"])
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name.encode()).do_handshake()
    return outgoing.read()


def swallow(sock: socket.socket) -> None:
    """Answer one byte, read to the end, tell how much it was."""
    buffer, total = bytearray(1 << 20), 0
    with sock, contextlib.suppress(OSError):  # the look whether a proxy listens ends at once
        sock.sendall(b"!")
        while count := sock.recv_into(buffer):
            total += count
        sock.sendall(total.to_bytes(8, "big"))


def repeat(sock: socket.socket) -> None:
    """Send back one message and end."""
    with sock, contextlib.suppress(OSError):
        sock.sendall(sock.recv(100))


def serve(sock: socket.socket, handler: Callable[[socket.socket], None], *, threaded: bool) -> None:
    while True:
        connection, _ = sock.accept()
        if threaded:
            threading.Thread(target=handler, args=(connection,), daemon=True).start()
        else:
            handler(connection)


def start_server(handler: Callable[[socket.socket], None], *, threaded: bool) -> tuple[int, multiprocessing.Process]:
    sock = socket.create_server((LOCAL, 0), backlog=1024)
    process = multiprocessing.get_context("fork").Process(
        target=serve, args=(sock, handler), kwargs={"threaded": threaded}, daemon=True
    )
    process.start()
    port = sock.getsockname()[1]
    sock.close()
    return port, process


def push(port: int, first: bytes, seconds: float) -> float:
    """Gbit/s that arrive at the other end of one connection, from the first byte back to the last byte read."""
    with socket.create_connection((LOCAL, port)) as sock:
        sock.sendall(first)
        assert sock.recv(1) == b"!"
        data = bytes(CHUNK)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        total = int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")
        return total * 8 / (time.monotonic() - began) / 1e9


def connect_again_and_again(port: int, seconds: float, results: "multiprocessing.Queue[tuple[int, int]]") -> None:
    done = failed = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection((LOCAL, port), timeout=5) as sock:
                sock.sendall(b"x")
                good = sock.recv(10) == b"x"
        except OSError:
            good = False
        done += good
        failed += not good
    results.put((done, failed))


def connection_rate(port: int, seconds: float, clients: int = 8) -> tuple[float, int]:
    """(new connections with an exchange per second, how many failed)."""
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[tuple[int, int]] = context.Queue()
    processes = [
        context.Process(target=connect_again_and_again, args=(port, seconds, results), daemon=True)
        for _ in range(clients)
    ]
    for process in processes:
        process.start()
    counts = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(d for d, _ in counts) / seconds, sum(f for _, f in counts)


def cpu_seconds(pid: int) -> float:
    """What a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
