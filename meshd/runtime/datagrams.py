"""Datagrams in batches: one system call receives up to 64, one sends the answers.

Two reasons. A call a packet is most of what an answer costs; and each call of Python's socket module gives the
interpreter away, so that beside a busy thread every packet waits for it twice. These calls do not block and keep it
(docs/adr/004-one-loop.md). Where ``recvmmsg`` cannot be used as expected, plain calls do the same.
"""

import ctypes
import errno
import logging
import os
import socket
import struct
from typing import Any, Protocol

log = logging.getLogger(__name__)

BATCH = 64
"""Datagrams a call: well under a millisecond of work if all answers are ready."""
NAME_BYTES = 28
"""A socket address of IPv4 or IPv6."""
MSG_DONTWAIT = 0x40
CROWDED = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM})


class Datagrams(Protocol):
    """Receives a batch into numbered slots and answers some of them. The socket stays the caller's to close."""

    def receive(self) -> int:
        """Take what waits, at most ``BATCH`` datagrams; how many there are, 0 for none. Ends the batch before.

        Raises:
            OSError: the kernel had something to say about the socket; it goes on working.
        """

    def message(self, slot: int) -> bytes:
        """What came in a slot, cut off at the length that was asked for."""

    def peer(self, slot: int) -> Any:
        """Who sent it, as the socket module has it."""

    def answer(self, slot: int, message: bytes) -> None:
        """Send a message to a slot's sender, with the others at ``flush``; at most one a slot."""

    def flush(self) -> int:
        """Send the answers; how many could not be sent. They are not tried again."""


def datagrams(sock: socket.socket, max_bytes: int) -> Datagrams:
    """The best that works here for a non-blocking UDP socket. ``max_bytes`` is the longest message, either way."""
    if batches_work():
        return Batched(sock, max_bytes)
    log.warning("no usable recvmmsg here: each datagram is a system call of its own")
    return Plain(sock, max_bytes)


class Plain:
    """``Datagrams`` by recvfrom and sendto."""

    def __init__(self, sock: socket.socket, max_bytes: int) -> None:
        self._sock = sock
        self._max_bytes = max_bytes
        self._received: list[tuple[bytes, Any]] = []
        self._answers: list[tuple[int, bytes]] = []

    def receive(self) -> int:
        """See ``Datagrams``."""
        self._received.clear()
        while len(self._received) < BATCH:
            try:
                self._received.append(self._sock.recvfrom(self._max_bytes))
            except BlockingIOError:
                break
            except OSError:
                if not self._received:
                    raise
                break
        return len(self._received)

    def message(self, slot: int) -> bytes:
        """See ``Datagrams``."""
        return self._received[slot][0]

    def peer(self, slot: int) -> Any:
        """See ``Datagrams``."""
        return self._received[slot][1]

    def answer(self, slot: int, message: bytes) -> None:
        """See ``Datagrams``."""
        self._answers.append((slot, message))

    def flush(self) -> int:
        """See ``Datagrams``."""
        failed = 0
        for slot, message in self._answers:
            try:
                self._sock.sendto(message, self._received[slot][1])
            except OSError:
                failed += 1
        self._answers.clear()
        return failed


class IoVec(ctypes.Structure):
    """``struct iovec`` of <sys/uio.h>."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class MsgHdr(ctypes.Structure):
    """``struct msghdr`` of <sys/socket.h> as the kernel has it."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(IoVec)),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class MMsgHdr(ctypes.Structure):
    """``struct mmsghdr`` of recvmmsg(2)."""

    _fields_ = (("header", MsgHdr), ("length", ctypes.c_uint32))


class Ring:
    """``BATCH`` slots of memory, each with its buffer and address, described once for the kernel.

    ``words`` and ``iov_words`` are the descriptions as numbers: reading a field so costs a third of ctypes' way.
    """

    WORDS = ctypes.sizeof(MMsgHdr) // 4
    LENGTH = MMsgHdr.length.offset // 4
    NAME_LENGTH = MsgHdr.name_length.offset // 4

    def __init__(self, max_bytes: int, names: "ctypes.Array[ctypes.c_char] | None" = None) -> None:
        self.max_bytes = max_bytes
        self.buffer = ctypes.create_string_buffer(BATCH * max_bytes)
        self.names = names or ctypes.create_string_buffer(BATCH * NAME_BYTES)
        self.iovs = (IoVec * BATCH)()
        self.headers = (MMsgHdr * BATCH)()
        for slot in range(BATCH):
            self.iovs[slot].base = ctypes.addressof(self.buffer) + slot * max_bytes
            self.iovs[slot].length = max_bytes
            header = self.headers[slot].header
            header.iov = ctypes.pointer(self.iovs[slot])
            header.iov_count = 1
        self.data = memoryview(self.buffer).cast("B")
        self.addresses = memoryview(self.names).cast("B")
        self.words = memoryview(self.headers).cast("B").cast("I")
        self.iov_words = memoryview(self.iovs).cast("B").cast("L")

    def name_at(self, slot: int, source: int, length: int) -> None:
        """Let a slot's address be that of another slot."""
        header = self.headers[slot].header
        header.name = ctypes.addressof(self.names) + source * NAME_BYTES
        header.name_length = length


class Batched:
    """``Datagrams`` by recvmmsg and sendmmsg."""

    def __init__(self, sock: socket.socket, max_bytes: int) -> None:
        # PyDLL: the interpreter is kept during the call, which cannot block.
        libc = ctypes.PyDLL(None, use_errno=True)
        self._receive, self._send = libc.recvmmsg, libc.sendmmsg
        self._fd = sock.fileno()
        self._name_length = NAME_BYTES if sock.family == socket.AF_INET6 else 16
        self._in = Ring(max_bytes)
        self._out = Ring(max_bytes, self._in.names)
        for slot in range(BATCH):
            self._in.name_at(slot, slot, NAME_BYTES)
        self._named = [-1] * BATCH
        self._received = 0
        self._queued = 0

    def receive(self) -> int:
        """See ``Datagrams``."""
        for slot in range(self._received):
            self._in.words[slot * Ring.WORDS + Ring.NAME_LENGTH] = NAME_BYTES
        count = int(self._receive(self._fd, self._in.headers, BATCH, MSG_DONTWAIT, None))
        self._received = max(count, 0)
        if count < 0 and (number := ctypes.get_errno()) not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number))
        return self._received

    def message(self, slot: int) -> bytes:
        """See ``Datagrams``."""
        begin = slot * self._in.max_bytes
        return bytes(self._in.data[begin : begin + self._in.words[slot * Ring.WORDS + Ring.LENGTH]])

    def peer(self, slot: int) -> Any:
        """See ``Datagrams``."""
        name = bytes(self._in.addresses[slot * NAME_BYTES : (slot + 1) * NAME_BYTES])
        (port,) = struct.unpack_from("!H", name, 2)
        if self._name_length == NAME_BYTES:
            (flow,) = struct.unpack_from("!I", name, 4)
            (scope,) = struct.unpack_from("=I", name, 24)
            return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, flow, scope
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port

    def answer(self, slot: int, message: bytes) -> None:
        """See ``Datagrams``."""
        out, place = self._out, self._queued
        begin = place * out.max_bytes
        out.data[begin : begin + len(message)] = message
        out.iov_words[2 * place + 1] = len(message)
        if self._named[place] != slot:
            out.name_at(place, slot, self._name_length)
            self._named[place] = slot
        self._queued += 1

    def flush(self) -> int:
        """See ``Datagrams``."""
        sent, failed, queued = 0, 0, self._queued
        self._queued = 0
        size = ctypes.sizeof(MMsgHdr)
        while sent < queued:
            rest = ctypes.byref(self._out.headers, sent * size)
            count = int(self._send(self._fd, rest, queued - sent, MSG_DONTWAIT))
            if count > 0:
                sent += count
            elif ctypes.get_errno() in CROWDED:
                return failed + queued - sent
            else:  # the first of the rest cannot be sent; the others perhaps can
                sent += 1
                failed += 1
        return failed


def batches_work() -> bool:
    """Whether the structures above are this system's: two datagrams there and back over loopback.

    Another libc or architecture may lay them out differently; then nobody should find out by garbled answers.
    """
    if not hasattr(ctypes.PyDLL(None), "recvmmsg") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
        ):
            ours.bind(("127.0.0.1", 0))
            theirs.bind(("127.0.0.1", 0))
            theirs.settimeout(1.0)
            for message in (b"one", b"second"):
                theirs.sendto(message, ours.getsockname())
            batch = Batched(ours, 64)
            received = [(batch.message(i), batch.peer(i)) for i in range(batch.receive())]
            if received != [(b"one", theirs.getsockname()), (b"second", theirs.getsockname())]:
                return False
            batch.answer(1, b"to the second")
            batch.answer(0, b"to one")
            return batch.flush() == 0 and [theirs.recv(64), theirs.recv(64)] == [b"to the second", b"to one"]
    except OSError as error:
        log.debug("recvmmsg cannot be tried: %s", error)
        return False
