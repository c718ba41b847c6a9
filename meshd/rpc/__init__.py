"""gRPC under Trio, at the level of bytes: the codec is the caller's. The only importer of h2 and grpclib.

::

    transport (TCP, TLS, memory) -> guard (whole frames, floods) -> h2 -> http2.Connection -> stream.Stream -> framing
                                                                          server.GrpcServer: a handler task per call
                                                                          client.Channel:    calls over one connection

A server that is given an ``HttpHandler`` speaks plain HTTP on the same port: ``exchange`` carries a request on a stream
of an HTTP/2 connection, ``http1`` a whole HTTP/1.1 connection, and ALPN or the first bytes say which it is.

h2 keeps the protocol's state, three tasks a connection drive it (``http2``), and everything runs over any trio stream,
so tests of many control planes run in memory and in virtual time. Why not grpclib for the transport:
``docs/adr/002-grpc-under-trio.md``.
"""

from meshd.rpc.client import Channel, ClientStream, channel_over, open_channel
from meshd.rpc.headers import Metadata
from meshd.rpc.http import HttpHandler, HttpRequest, HttpResponse, refusal
from meshd.rpc.http2 import Connection
from meshd.rpc.limits import CLIENT_LIMITS, DEFAULT_LIMITS, DP_SERVER_LIMITS, Limits
from meshd.rpc.metrics import RpcMetrics
from meshd.rpc.server import GrpcServer, Handler, ServerStream
from meshd.rpc.status import RpcError, Status

__all__ = [
    "CLIENT_LIMITS",
    "DEFAULT_LIMITS",
    "DP_SERVER_LIMITS",
    "Channel",
    "ClientStream",
    "Connection",
    "GrpcServer",
    "Handler",
    "HttpHandler",
    "HttpRequest",
    "HttpResponse",
    "Limits",
    "Metadata",
    "RpcError",
    "RpcMetrics",
    "ServerStream",
    "Status",
    "channel_over",
    "open_channel",
    "refusal",
]
