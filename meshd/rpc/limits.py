"""What a connection may cost: sizes, counts and deadlines, with the defaults for a control plane."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every connection of one server, or of one channel.

    A stream whose reader is idle holds at most ``stream_window_bytes``; one that is reading, a message more. The
    connection's own window is given back as bytes arrive, so a reader that is slow holds up no other stream.
    """

    max_message_bytes: int = 10 * MIB
    """A message that is received, compressed and inflated. Kuma's default in both roles."""
    max_sent_bytes: int = 10 * MIB
    """A message that is sent."""
    max_header_bytes: int = 32 * 1024
    """One block of headers, on the wire and decoded (HTTP/2's counting: 32 bytes more a field)."""
    max_streams: int = 128
    """Calls at a time on one connection; a Kuma zone has six open."""
    max_connections: int = 4096
    """Connections at a time on one server; the next one is closed at once."""
    stream_window_bytes: int = 512 * 1024
    connection_window_bytes: int = 4 * MIB
    max_frame_bytes: int = 64 * 1024
    """The largest HTTP/2 frame we accept; fewer, larger frames cost less."""
    send_buffer_bytes: int = 256 * 1024
    """Bytes waiting for the transport, over all streams; senders wait, and above twice this reading waits too."""
    handshake_s: float = 10.0
    """TLS handshake."""
    first_byte_s: float = 10.0
    """From the handshake to the peer's complete HTTP/2 preface and settings."""
    keepalive_s: float = 15.0
    """A connection silent for so long is pinged, with or without calls (Kuma's default)."""
    keepalive_timeout_s: float = 15.0
    """A pinged connection silent for so long is dead."""
    idle_s: float = 60.0
    """A server ends a connection without calls after so long; control planes and proxies always have some open."""
    drain_s: float = 2.0
    """On shutdown calls have so long to end by themselves, then they end with UNAVAILABLE."""
    idle_frames_burst: int = 1000
    idle_frames_per_s: float = 200.0
    """PING, SETTINGS, WINDOW_UPDATE and the like while no payload moves. Go's bandwidth probes ride on payload."""
    resets_burst: int = 256
    resets_per_s: float = 50.0
    """Calls that the peer opened and reset while they were running (CVE-2023-44487, "rapid reset")."""

    max_body_bytes: int = MIB
    """The body of a plain HTTP request, where the server takes them. A bootstrap request holds a Dataplane and a CA."""
    head_s: float = 5.0
    """From its first byte to the end of a plain request's head; also until the first request. Kuma's default."""
    body_s: float = 10.0
    """The body of a plain request."""
    response_s: float = 30.0
    """An answer to a plain request may take so long to be taken."""


DEFAULT_LIMITS = Limits()
DP_SERVER_LIMITS = Limits(
    max_connections=16384,
    max_streams=1024,
    max_message_bytes=4 * MIB,
    max_sent_bytes=64 * MIB,
    keepalive_s=120.0,
)
"""Proxies: two connections or three each, and all configuration of a large mesh in one message (state of the world).
What they send is much less: the names of what they have or want, 40 bytes or so each, and one resource of their own.

Thousands of them have nothing to say for hours, and pings would be most of what that costs. TCP's own keepalive finds
hosts that are gone sooner, and whoever takes the name of a proxy has its connection pinged.
"""
CLIENT_LIMITS = Limits(keepalive_s=20.0)
"""A Kuma global ends connections that ping more often than every 15 s; 20 s keeps clear of its clock."""
