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
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from typing import Any

log = logging.getLogger(__name__)

BATCH = 64
"""Datagrams a call: well under a millisecond of work if all answers are ready."""
NAME_BYTES = 28
"""A socket address of IPv4 or IPv6."""
MSG_DONTWAIT = 0x40
CROWDED = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM})


class Slots:
    """Room for ``BATCH`` messages, each of which becomes its answer in the same place.

    Slot i's message is ``memory[begins[i] : begins[i] + sizes[i]]``, its sender's packed address is
    ``names[hosts[i]]``. ``memory`` and ``names`` are written by who answers, and by nobody else in between.
    """

    def __init__(self, max_bytes: int, *, is_v6: bool = False) -> None:
        self.max_bytes = max_bytes
        # A slice of it is bytes at once, unlike one of other buffers.
        self.memory = mmap.mmap(-1, BATCH * max_bytes)
        self.names = mmap.mmap(-1, BATCH * NAME_BYTES)
        self.begins = tuple(range(0, BATCH * max_bytes, max_bytes))
        host, length = (8, 16) if is_v6 else (4, 4)
        self.hosts = tuple(slice(n + host, n + host + length) for n in range(0, BATCH * NAME_BYTES, NAME_BYTES))
        self.heads = tuple(slice(begin + 2, begin + 12) for begin in self.begins)
        """The second to twelfth byte of each slot: a DNS header without its id."""
        self.sizes: list[int] = []
        self._bytes = memoryview(self.memory)
        self._lengths = memoryview(bytearray(BATCH * 8)).cast("L")
        self._answered: list[int] = []

    def message(self, slot: int) -> bytes:
        """What came in a slot, cut off at ``max_bytes``."""
        begin = self.begins[slot]
        return self.memory[begin : begin + self.sizes[slot]]

    def peek(self, offset: int) -> list[int]:
        """One byte of each slot, in a single call; of a message that is shorter, any."""
        return self._bytes[offset :: self.max_bytes].tolist()

    def host(self, slot: int) -> bytes:
        """The packed IP address of who sent it."""
        return self.names[self.hosts[slot]]

    def answer(self, slot: int, message: bytes) -> None:
        """Put a message into a slot, as its answer; at most one a slot."""
        begin = self.begins[slot]
        self.memory[begin : begin + len(message)] = message
        self._lengths[slot] = len(message)
        self._answered.append(slot)

    def fill(self, messages: Sequence[bytes], name: bytes) -> None:
        """Begin anew with at most ``BATCH`` messages, all from one sender, of ``hosts``' kind of address."""
        self._answered.clear()
        self.sizes = [min(len(message), self.max_bytes) for message in messages]
        for begin, size, message, host in zip(self.begins, self.sizes, messages, self.hosts, strict=False):
            self.memory[begin : begin + size] = message[:size]
            self.names[host] = name

    def answers(self) -> list[bytes]:
        """Those that there are, in the order in which they were made."""
        begins, lengths = self.begins, self._lengths
        return [self.memory[begins[slot] : begins[slot] + lengths[slot]] for slot in self._answered]

    def answered(self, lengths: list[int], left: list[int]) -> None:
        """The messages have become answers of so many bytes, but for the slots that are left."""
        self._lengths[: len(lengths)] = array("L", lengths)
        slots = range(len(lengths))
        self._answered += sorted(set(slots).difference(left)) if left else slots


class Datagrams(Slots, ABC):
    """Receives a batch into the slots and answers some of them. The socket stays the caller's to close."""

    @abstractmethod
    def receive(self) -> int:
        """Take what waits, at most ``BATCH`` datagrams; how many there are, 0 for none. Ends the batch before.

        Raises:
            OSError: the kernel had something to say about the socket; it goes on working.
        """

    @abstractmethod
    def peer(self, slot: int) -> Any:
        """Who sent it, as the socket module has it."""

    @abstractmethod
    def flush(self) -> int:
        """Send the answers; how many could not be sent. They are not tried again."""


def datagrams(sock: socket.socket, max_bytes: int) -> Datagrams:
    """The best that works here for a non-blocking UDP socket. ``max_bytes`` is the longest message, either way."""
    if batches_work():
        return Batched(sock, max_bytes)
    log.warning("no usable recvmmsg here: each datagram is a system call of its own")
    return Plain(sock, max_bytes)


class Plain(Datagrams):
    """``Datagrams`` by recvfrom and sendto."""

    def __init__(self, sock: socket.socket, max_bytes: int) -> None:
        super().__init__(max_bytes, is_v6=sock.family == socket.AF_INET6)
        self._sock = sock
        self._peers: list[Any] = []

    def receive(self) -> int:
        """See ``Datagrams``."""
        self._answered.clear()
        self._peers.clear()
        self.sizes = []
        while len(self.sizes) < BATCH:
            try:
                message, peer = self._sock.recvfrom(self.max_bytes)
            except BlockingIOError:
                break
            except OSError:
                if not self.sizes:
                    raise
                break
            slot = len(self.sizes)
            self.memory[self.begins[slot] : self.begins[slot] + len(message)] = message
            self.names[self.hosts[slot]] = socket.inet_pton(self._sock.family, peer[0].partition("%")[0])
            self.sizes.append(len(message))
            self._peers.append(peer)
        return len(self.sizes)

    def peer(self, slot: int) -> Any:
        """See ``Datagrams``."""
        return self._peers[slot]

    def flush(self) -> int:
        """See ``Datagrams``."""
        failed = 0
        for slot in self._answered:
            begin = self.begins[slot]
            try:
                self._sock.sendto(self.memory[begin : begin + self._lengths[slot]], self._peers[slot])
            except OSError:
                failed += 1
        self._answered.clear()
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

    ``words``, ``received`` and ``lengths`` are the same memory as numbers: all of it, the lengths that the kernel wrote
    and those of the buffers. Reading a field so costs a third of ctypes' way, and all of a kind less than one.
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
        self.received = self.words[LENGTH::WORDS]
        self.lengths = memoryview(self.iovs).cast("B").cast("L")[1::2]


class Batched(Datagrams):
    """``Datagrams`` by recvmmsg and sendmmsg."""

    def __init__(self, sock: socket.socket, max_bytes: int) -> None:
        is_v6 = sock.family == socket.AF_INET6
        super().__init__(max_bytes, is_v6=is_v6)
        # PyDLL: the interpreter is kept during the call, which cannot block.
        libc = ctypes.PyDLL(None, use_errno=True)
        self._receive, self._send = libc.recvmmsg, libc.sendmmsg
        self._fd = sock.fileno()
        self._is_v6 = is_v6
        # All addresses of a socket are of one length, so what the kernel writes into ``name_length`` is what it was.
        places = (address_of(self.memory), max_bytes, address_of(self.names), NAME_BYTES if is_v6 else 16)
        self._in, self._out, self._some = Headers(*places), Headers(*places), Headers(*places)
        self._lengths = self._out.lengths

    def receive(self) -> int:
        """See ``Datagrams``."""
        self._answered.clear()
        count = int(self._receive(self._fd, self._in.headers, BATCH, MSG_DONTWAIT, None))
        self.sizes = self._in.received[: max(count, 0)].tolist()
        if count < 0 and (number := ctypes.get_errno()) not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number))
        return len(self.sizes)

    def peer(self, slot: int) -> Any:
        """See ``Datagrams``."""
        name = self.names[slot * NAME_BYTES : (slot + 1) * NAME_BYTES]
        port = int.from_bytes(name[2:4])
        if self._is_v6:
            flow, scope = int.from_bytes(name[4:8]), int.from_bytes(name[24:28], sys.byteorder)
            return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, flow, scope
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port

    def flush(self) -> int:
        """See ``Datagrams``."""
        sent, failed, queued = 0, 0, len(self._answered)
        out = self._out
        if queued != len(self.sizes):
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
            batch.memory[2:8] = b"inking"
            batch.answered([8], [])
            return batch.flush() == 0 and theirs.recv(64) == b"thinking"
    except OSError as error:
        log.debug("recvmmsg cannot be tried: %s", error)
        return False
