"""One HTTP/2 connection over a trio stream: h2 keeps the protocol's state, this drives it.

Three tasks and no more: a reader, a writer, a keepalive timer. Only the writer touches the transport's sending side,
so a cancelled sender never cuts a frame. What waits to be written is bounded: senders wait above ``send_buffer_bytes``,
and above twice that the reader waits too, so a peer that makes us answer without reading costs itself only.
"""

import itertools
import logging
import struct
from contextlib import suppress

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import trio
from hyperframe.frame import GoAwayFrame

from meshd.model.errors import UnavailableError
from meshd.rpc.guard import ENHANCE_YOUR_CALM, PROTOCOL_ERROR, Bucket, FrameGuard, GoAway, RefusedError
from meshd.rpc.headers import Header, Metadata, decode_headers
from meshd.rpc.limits import Limits
from meshd.rpc.metrics import RpcMetrics
from meshd.rpc.outbox import Outbox
from meshd.rpc.status import RpcError, status_of_reset
from meshd.rpc.stream import Stream

log = logging.getLogger(__name__)
logging.getLogger("hpack").setLevel(logging.INFO)  # at DEBUG it writes every header's value, tokens among them

READ_BYTES = 64 * 1024
LINGER_S = 1.0
"""A connection that is being closed has so long to take its last frames."""
INITIAL_WINDOW_BYTES = 65535
"""HTTP/2's; the connection's own can only be opened further by an update."""
REFUSED_STREAM = 7
_TRANSPORT_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
_connection_ids = itertools.count(1)
_ping_ids = itertools.count(1)


class Connection:
    """What all streams of one connection share. ``run`` serves it until it ends.

    ``id`` is unique in the process; ``peer`` is ``ip:port``.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        *,
        peer: str,
        endpoint: str,
        limits: Limits,
        metrics: RpcMetrics,
        is_client: bool,
    ) -> None:
        self.id = next(_connection_ids)
        self.peer = peer
        self.endpoint = endpoint
        self.limits = limits
        self.metrics = metrics
        self.streams: dict[int, Stream] = {}
        self.ended = ""
        """Why the connection ended or is ending; empty while it lives."""
        self.going_away = False
        """One side has said goodbye: running calls go on, new ones do not begin."""
        self.ready = trio.Event()
        """The peer's settings have come, or the connection has ended before."""
        self.stream_closed = trio.lowlevel.ParkingLot()
        self._transport = transport
        self._is_client = is_client
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=is_client,
                header_encoding=None,
                validate_outbound_headers=False,  # ours are written here, metadata is checked by encode_metadata
                normalize_outbound_headers=False,
            )
        )
        now = trio.current_time()
        self._guard = FrameGuard(limits, now, expect_preface=not is_client)
        self._resets = Bucket(limits.resets_burst, limits.resets_per_s, now)
        self._out = Outbox(transport, limits.send_buffer_bytes, self._wake_senders)
        self._uncredited = 0
        self._pings: dict[bytes, trio.Event] = {}
        self._last_read = now
        self._last_stream_id = 0
        self._scope = trio.CancelScope()
        self._received = metrics.messages.labels(endpoint, "received")
        self._sent = metrics.messages.labels(endpoint, "sent")
        self._received_bytes = metrics.message_bytes.labels(endpoint, "received")
        self._sent_bytes = metrics.message_bytes.labels(endpoint, "sent")

    # -- for users

    async def ping(self, timeout_s: float) -> bool:
        """Ask the peer for a sign of life by an HTTP/2 PING; True if it answers in time.

        A real Kuma global ends connections that ping it more often than every 15 s.
        """
        if self.ended:
            return False
        payload = struct.pack(">Q", next(_ping_ids))
        answered = self._pings[payload] = trio.Event()
        try:
            self._h2.ping(payload)
            self._flush()
            with trio.move_on_after(timeout_s):
                await answered.wait()
            return answered.is_set() and not self.ended
        finally:
            self._pings.pop(payload, None)

    def close(self, reason: str) -> None:
        """End the connection now; its streams fail with ``reason``. The peer is told by a GOAWAY if it still reads."""
        self._end(reason, 0)

    def say_goodbye(self) -> None:
        """Send a GOAWAY: running calls may end, no new one begins."""
        if not self.ended and not self.going_away:
            self.going_away = True
            self._queue_goaway(0, "")

    # -- for streams

    @property
    def congested(self) -> bool:
        """Too much waits for the transport; wait on the stream's ``writable``."""
        return self._out.congested

    def window(self, stream: Stream) -> int:
        """Bytes the peer lets this stream send now."""
        return self._h2.local_flow_control_window(stream.id)

    def open_stream(self, headers: list[Header], stream: Stream) -> None:
        """Begin a call: give ``stream`` its id and send its headers."""
        stream.id = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream.id, headers)
        self.streams[stream.id] = stream
        self._flush()

    @property
    def has_room(self) -> bool:
        """Whether the peer lets us open one more stream."""
        return self._h2.open_outbound_streams < self._h2.remote_settings.max_concurrent_streams

    def send_headers(self, stream: Stream, headers: list[Header], *, end: bool = False) -> None:
        """Send a block of headers; ``end`` ends our side."""
        self._h2.send_headers(stream.id, headers, end_stream=end)
        if end:
            self._ended_locally(stream)
        self._flush()

    def send_data(self, stream: Stream, data: memoryview, *, end: bool) -> None:
        """Send bytes that fit into ``window``; ``end`` ends our side."""
        size = self._h2.max_outbound_frame_size
        frames = 0
        if not data:
            self._h2.send_data(stream.id, b"", end_stream=end)
        for start in range(0, len(data), size):
            last = start + size >= len(data)
            self._h2.send_data(stream.id, data[start : start + size], end_stream=end and last)
            frames += 1
        self._guard.moved(frames)
        if end:
            self._ended_locally(stream)
        self._flush()

    def reset_stream(self, stream: Stream, error_code: int) -> None:
        """Send a RST_STREAM and forget the stream."""
        if self.streams.pop(stream.id, None) is not None and not self.ended:
            self._reset(stream.id, error_code)
            self._flush()
        self.stream_closed.unpark_all()

    def credit(self, stream: Stream, size: int) -> None:
        """``size`` bytes of the stream were read: let the peer send more, in steps of a quarter window."""
        stream.uncredited += size
        if stream.uncredited * 4 < self.limits.stream_window_bytes or stream.remote_ended:
            return
        if stream.id in self.streams and not self.ended:
            self._h2.increment_flow_control_window(stream.uncredited, stream.id)
            self._flush()
        stream.uncredited = 0

    def count_message(self, direction: str, size: int) -> None:
        """Count one message ``sent`` or ``received``."""
        if direction == "sent":
            self._sent.inc()
            self._sent_bytes.inc(size)
        else:
            self._received.inc()
            self._received_bytes.inc(size)

    # -- for server and client, who subclass

    def on_request(self, stream_id: int, headers: Metadata) -> None:
        """The peer opened a stream (servers only)."""
        raise NotImplementedError

    def refuse_stream(self, stream_id: int) -> None:
        """Say that a stream was not looked at; the peer may try elsewhere."""
        self._reset(stream_id, REFUSED_STREAM)

    def _reset(self, stream_id: int, error_code: int) -> None:
        with suppress(h2.exceptions.StreamClosedError):  # a later frame of the same read may have closed it already
            self._h2.reset_stream(stream_id, error_code)

    def on_running(self, nursery: trio.Nursery) -> None:
        """``run`` has begun; ``nursery`` lives as long as the connection, for what calls need."""

    # -- the three tasks

    async def run(self) -> None:
        """Serve the connection until it ends, then close the transport. Raises nothing that the peer can cause."""
        try:
            async with trio.open_nursery() as writing:
                self._start()
                writing.start_soon(self._write)
                try:
                    with self._scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._read_loop)
                            nursery.start_soon(self._keepalive)
                            self.on_running(nursery)
                finally:
                    self._end("this side is shutting down", 0)
        finally:
            await trio.aclose_forcefully(self._transport)

    def _start(self) -> None:
        limits = self.limits
        codes = h2.settings.SettingCodes
        values = {
            codes.MAX_CONCURRENT_STREAMS: limits.max_streams,
            codes.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            codes.MAX_FRAME_SIZE: limits.max_frame_bytes,
            codes.MAX_HEADER_LIST_SIZE: limits.max_header_bytes,
        }
        if self._is_client:
            values[codes.ENABLE_PUSH] = 0
        self._h2.local_settings = h2.settings.Settings(client=self._is_client, initial_values=values)
        self._h2.decoder.max_header_list_size = limits.max_header_bytes
        self._h2.max_inbound_frame_size = limits.max_frame_bytes  # h2 sets it only from settings changed later
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(limits.connection_window_bytes - INITIAL_WINDOW_BYTES)
        self._flush()

    async def _read_loop(self) -> None:
        try:
            while not self.ended:
                data = await self._transport.receive_some(READ_BYTES)
                if not data:
                    self._end("the peer closed the connection", 0, linger_s=0.0)
                    return
                self._last_read = trio.current_time()
                for number, block in enumerate(self._guard.feed(bytes(data), self._last_read)):
                    if number:
                        await trio.lowlevel.checkpoint()
                    if isinstance(block, GoAway):
                        self._on_goaway(block)
                    else:
                        self._feed(block)
                    if self._is_over():
                        return
                await self._out.wait_for_room()
        except RefusedError as error:
            self.refuse(error.reason, str(error), error.error_code)
        except _TRANSPORT_ERRORS as error:
            self._end(f"connection lost: {_why(error)}", 0)

    def _feed(self, block: bytes) -> None:
        try:
            events = self._h2.receive_data(block)
        except h2.exceptions.ProtocolError as error:
            self._h2.clear_outbound_data_buffer()  # its GOAWAY; _end writes one that says why
            raise RefusedError("protocol", int(error.error_code), f"{type(error).__name__}: {error}") from error
        except Exception as error:  # request edge: bytes that h2 trips over cost this connection
            self._h2.clear_outbound_data_buffer()
            raise RefusedError("protocol", PROTOCOL_ERROR, f"h2 failed on it: {error!r}") from error
        for event in events:
            self._on_event(event)
        self._flush()

    async def _write(self) -> None:
        try:
            await self._out.run()
        except _TRANSPORT_ERRORS as error:
            self._end(f"connection lost: {_why(error)}", 0, linger_s=0.0)

    def _wake_senders(self) -> None:
        for stream in self.streams.values():
            stream.writable.unpark_all()

    async def _keepalive(self) -> None:
        limits = self.limits
        with trio.move_on_after(limits.first_byte_s):
            await self.ready.wait()
        if not self.ready.is_set():
            self.refuse("silent", f"no HTTP/2 preface within {limits.first_byte_s:g} s", 0)
            return
        while True:
            await trio.sleep_until(self._last_read + limits.keepalive_s)
            asked = trio.current_time()
            if asked < self._last_read + limits.keepalive_s:
                continue
            answered = await self.ping(limits.keepalive_timeout_s)
            if not answered and self._last_read < asked:
                self._end(
                    f"the peer was silent and answered no ping for {limits.keepalive_timeout_s:g} s", 0, linger_s=0.0
                )
                return

    # -- events

    def _on_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._on_data(event)
            case h2.events.RequestReceived():
                self._last_stream_id = max(self._last_stream_id, event.stream_id)
                self.on_request(event.stream_id, decode_headers(event.headers))
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                if stream := self.streams.get(event.stream_id):
                    stream.on_headers(decode_headers(event.headers))
            case h2.events.StreamEnded():
                if stream := self.streams.get(event.stream_id):
                    stream.on_end()
                    self._forget_if_done(stream)
            case h2.events.StreamReset():
                self._on_reset(event)
            case h2.events.WindowUpdated():
                self._on_window(event.stream_id)
            case h2.events.RemoteSettingsChanged():
                self.ready.set()
                self._on_window(0)
                self.stream_closed.unpark_all()
            case h2.events.PingAckReceived():
                if (waiting := self._pings.get(event.ping_data)) is not None:
                    waiting.set()
            case _:  # acknowledged settings, answered pings, priorities, 1xx, unknown frames: nothing to do
                pass

    def _on_data(self, event: h2.events.DataReceived) -> None:
        size = event.flow_controlled_length
        self._uncredited += size
        if self._uncredited * 2 >= self.limits.connection_window_bytes:
            self._h2.increment_flow_control_window(self._uncredited)
            self._uncredited = 0
        if stream := self.streams.get(event.stream_id):
            stream.on_data(event.data, size)

    def _on_reset(self, event: h2.events.StreamReset) -> None:
        stream = self.streams.pop(event.stream_id, None)
        if stream is None:
            return
        self.stream_closed.unpark_all()
        code = int(event.error_code)
        stream.fail(RpcError(status_of_reset(code), f"the peer reset the call (HTTP/2 error {code})"))
        if not self._resets.take(self._last_read):
            raise RefusedError("flood", ENHANCE_YOUR_CALM, "too many calls were reset by the peer")

    def _on_window(self, stream_id: int) -> None:
        if stream_id:
            if stream := self.streams.get(stream_id):
                stream.writable.unpark_all()
        else:
            self._wake_senders()

    def _on_goaway(self, goodbye: GoAway) -> None:
        log.debug(
            "endpoint=%s peer=%s said goodbye: code=%d %r", self.endpoint, self.peer, goodbye.error_code, goodbye.debug
        )
        self.going_away = True
        self.stream_closed.unpark_all()
        if self._is_client:
            why = f": {goodbye.debug}" if goodbye.debug else ""
            for stream in [s for s in self.streams.values() if s.id > goodbye.last_stream_id]:
                del self.streams[stream.id]
                stream.fail(UnavailableError(f"{self.peer} is going away and did not begin this call{why}"))

    def _ended_locally(self, stream: Stream) -> None:
        stream.local_ended = True
        self._forget_if_done(stream)

    def _forget_if_done(self, stream: Stream) -> None:
        if stream.local_ended and stream.remote_ended:
            self.streams.pop(stream.id, None)
            self.stream_closed.unpark_all()

    # -- output and end

    def _is_over(self) -> bool:
        return bool(self.ended)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._out.put(data)

    def _queue_goaway(self, error_code: int, debug: str) -> None:
        # Not by h2's close_connection, which forgets the streams that may still end.
        goodbye = GoAwayFrame(0, self._last_stream_id, error_code, debug.encode("ascii", "replace")[:200])
        self._out.put(goodbye.serialize())

    def refuse(self, reason: str, message: str, error_code: int) -> None:
        """End the connection for what the peer did: counted by ``reason``, one debug line."""
        if not self.ended:
            self.metrics.refused.labels(self.endpoint, reason).inc()
            log.debug("endpoint=%s peer=%s refused: %s", self.endpoint, self.peer, message)
            self._end(f"the peer broke the protocol: {message}", error_code)

    def _end(self, reason: str, error_code: int, *, linger_s: float = LINGER_S) -> None:
        if self.ended:
            return
        self.ended = reason
        self.going_away = True
        self._queue_goaway(error_code, reason if error_code else "")
        self.ready.set()
        for stream in list(self.streams.values()):
            stream.fail(UnavailableError(f"{self.peer}: {reason}"))
        self.streams.clear()
        for waiting in self._pings.values():
            waiting.set()
        self.stream_closed.unpark_all()
        self._out.close(linger_s)
        self._scope.cancel()


def _why(error: BaseException) -> str:
    return str(error.__cause__ or error) or type(error).__name__
