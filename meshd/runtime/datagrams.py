"""Datagrams in batches: one system call receives up to 64, one sends the answers.

Two reasons. A call a packet is most of what an answer costs; and each call of Python's socket module gives the
interpreter away, so that beside a busy thread every packet waits for it twice. These calls do not block and keep it
(docs/adr/004-one-loop.md). Where ``recvmmsg`` cannot be used as expected, plain calls do the same.
"""

import ctypes
import errno
import logging
import mmap
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

log = logging.getLogger(__name__)

BATCH = 64
"""Datagrams a call: well under a millisecond of work if all answers are ready."""
NAME_BYTES = 28
"""A socket address of IPv4 or IPv6."""
T = TypeVar("T")
Parts = tuple[bytes, int, bytes, T]
"""What replaces a message's bytes from the third on, up to where this ends; where the bytes that are kept end; and what
follows them. The fourth is for the caller, who gets it back."""
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

    def host(self, slot: int) -> bytes:
        """The packed IP address of who sent it."""

    def splice(self, ready: Callable[[bytes, int], Parts[T] | None]) -> tuple[list[T], list[int]]:
        """Answer each message, with its slot, by changing it as ``ready`` says; the slots where that is None are left.

        Gives the fourth parts of those that were answered, and the slots that are left.
        """

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

    def host(self, slot: int) -> bytes:
        """See ``Datagrams``."""
        return socket.inet_pton(self._sock.family, self._received[slot][1][0].partition("%")[0])

    def splice(self, ready: Callable[[bytes, int], Parts[T] | None]) -> tuple[list[T], list[int]]:
        """See ``Datagrams``."""
        done: list[T] = []
        left = []
        for slot, (message, _) in enumerate(self._received):
            parts = ready(message, slot)
            if parts is None:
                left.append(slot)
            else:
                head, end, tail, own = parts
                self.answer(slot, message[:2] + head + message[2 + len(head) : end] + tail)
                done.append(own)
        return done, left

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


WORDS = ctypes.sizeof(MMsgHdr) // 4
LENGTH = MMsgHdr.length.offset // 4


class Headers:
    """``BATCH`` headers for the kernel, each with one buffer and one address.

    ``words`` and ``lengths`` are the same memory as numbers: reading a field so costs a third of ctypes' way.
    """

    def __init__(self, buffers: int, max_bytes: int, names: int, name_length: int) -> None:
        self.iovs = (IoVec * BATCH)()
        self.headers = (MMsgHdr * BATCH)()
        for slot in range(BATCH):
            self.iovs[slot].base = buffers + slot * max_bytes
            self.iovs[slot].length = max_bytes
            header = self.headers[slot].header
            header.iov = ctypes.pointer(self.iovs[slot])
            header.iov_count = 1
            header.name = names + slot * NAME_BYTES
            header.name_length = name_length
        self.words = memoryview(self.headers).cast("B").cast("I")
        self.lengths = memoryview(self.iovs).cast("B").cast("L")


class Batched:
    """``Datagrams`` by recvmmsg and sendmmsg. A slot's answer is made in the memory of its message."""

    def __init__(self, sock: socket.socket, max_bytes: int) -> None:
        # PyDLL: the interpreter is kept during the call, which cannot block.
        libc = ctypes.PyDLL(None, use_errno=True)
        self._receive, self._send = libc.recvmmsg, libc.sendmmsg
        self._fd = sock.fileno()
        self._is_v6 = sock.family == socket.AF_INET6
        self._max_bytes = max_bytes
        # A slice of it is bytes at once, unlike one of other buffers.
        self._memory = mmap.mmap(-1, BATCH * max_bytes)
        self._names = mmap.mmap(-1, BATCH * NAME_BYTES)
        # All addresses of a socket are of one length, so what the kernel writes into ``name_length`` is what it was.
        places = (address_of(self._memory), max_bytes, address_of(self._names), NAME_BYTES if self._is_v6 else 16)
        self._in, self._out, self._some = Headers(*places), Headers(*places), Headers(*places)
        self._received = 0
        self._answered: list[int] = []

    def receive(self) -> int:
        """See ``Datagrams``."""
        self._answered.clear()
        count = int(self._receive(self._fd, self._in.headers, BATCH, MSG_DONTWAIT, None))
        self._received = max(count, 0)
        if count < 0 and (number := ctypes.get_errno()) not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number))
        return self._received

    def message(self, slot: int) -> bytes:
        """See ``Datagrams``."""
        begin = slot * self._max_bytes
        return self._memory[begin : begin + self._in.words[slot * WORDS + LENGTH]]

    def peer(self, slot: int) -> Any:
        """See ``Datagrams``."""
        name = self._names[slot * NAME_BYTES : (slot + 1) * NAME_BYTES]
        port = int.from_bytes(name[2:4])
        if self._is_v6:
            flow, scope = int.from_bytes(name[4:8]), int.from_bytes(name[24:28], sys.byteorder)
            return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, flow, scope
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port

    def host(self, slot: int) -> bytes:
        """See ``Datagrams``."""
        begin = slot * NAME_BYTES
        return self._names[begin + 8 : begin + 24] if self._is_v6 else self._names[begin + 4 : begin + 8]

    def splice(self, ready: Callable[[bytes, int], Parts[T] | None]) -> tuple[list[T], list[int]]:
        """See ``Datagrams``."""
        memory, words, lengths, size = self._memory, self._in.words, self._out.lengths, self._max_bytes
        done: list[T] = []
        left = []
        add = done.append
        begin = 0
        for slot in range(self._received):
            parts = ready(memory[begin : begin + words[slot * WORDS + LENGTH]], slot)
            if parts is None:
                left.append(slot)
            else:
                head, end, tail, own = parts
                memory[begin + 2 : begin + 2 + len(head)] = head
                length = end + len(tail)
                memory[begin + end : begin + length] = tail
                lengths[2 * slot + 1] = length
                add(own)
            begin += size
        gone = set(left)
        self._answered += (
            [slot for slot in range(self._received) if slot not in gone] if gone else range(self._received)
        )
        return done, left

    def answer(self, slot: int, message: bytes) -> None:
        """See ``Datagrams``."""
        begin = slot * self._max_bytes
        self._memory[begin : begin + len(message)] = message
        self._out.lengths[2 * slot + 1] = len(message)
        self._answered.append(slot)

    def flush(self) -> int:
        """See ``Datagrams``."""
        sent, failed, queued = 0, 0, len(self._answered)
        out = self._out
        if queued != self._received:
            # Not all are answered: their headers close ranks, each with its buffer and address.
            out, size = self._some, WORDS
            for place, slot in enumerate(self._answered):
                out.words[place * size : (place + 1) * size] = self._out.words[slot * size : (slot + 1) * size]
        self._answered.clear()
        while sent < queued:
            rest = ctypes.byref(out.headers, sent * ctypes.sizeof(MMsgHdr))
            count = int(self._send(self._fd, rest, queued - sent, MSG_DONTWAIT))
            if count > 0:
                sent += count
            elif ctypes.get_errno() in CROWDED:
                return failed + queued - sent
            else:  # the first of the rest cannot be sent; the others perhaps can
                sent += 1
                failed += 1
        return failed


def address_of(memory: mmap.mmap) -> int:
    """Where it begins. It is not freed while the object that this was asked of lives and is not closed."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


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
            if batch.flush() or theirs.recv(64) != b"to the second":
                return False
            theirs.sendto(b"than", ours.getsockname())
            batch.receive()
            batch.splice(lambda *_: (b"i", 4, b"king", None))
            return batch.flush() == 0 and theirs.recv(64) == b"thinking"
    except OSError as error:
        log.debug("recvmmsg cannot be tried: %s", error)
        return False
