"""The application of the conformance suite: HTTP/1.0 and 1.1 over TCP, and over TLS; it counts who speaks HTTP/2 to it.

Usage: python application.py NAME PORT... [--tls PORT CERTIFICATE KEY]

Answers with its name; by path:

    /headers      the request's headers, one a line, names in lower case
    /slow/N       after N milliseconds
    /flaky/KEY    503 the first time that it is asked for this KEY, its name afterwards
    /stream       ticks until the connection ends
    /prefaces     how many connections began with the preface of HTTP/2
"""

import contextlib
import itertools
import socket
import ssl
import sys
import threading
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\n"


class Application:
    """What all connections share."""

    def __init__(self, name):
        self.name = name
        self.prefaces = 0
        self.seen = set()

    def serve(self, listener):
        while True:
            with contextlib.suppress(OSError):  # a TLS handshake that fails
                connection, _ = listener.accept()
                threading.Thread(target=self.connection, args=[connection], daemon=True).start()

    def connection(self, connection):
        with contextlib.suppress(OSError), connection:
            buffered = b""
            while True:
                while b"\r\n\r\n" not in buffered:
                    chunk = connection.recv(65536)
                    if not chunk:
                        return
                    buffered += chunk
                if buffered.startswith(PREFACE):
                    self.prefaces += 1
                    return
                head, _, buffered = buffered.partition(b"\r\n\r\n")
                first, *headers = head.decode("latin-1").split("\r\n")
                _, path, version = first.split(" ")
                goes_on = version == "HTTP/1.1" and "connection: close" not in (h.lower() for h in headers)
                if path == "/stream":
                    self.stream(connection)
                status, body = self.answer(path, headers)
                text = f"{body}\n"
                ends = "" if goes_on else "Connection: close\r\n"
                answer = f"{version} {status} -\r\nContent-Length: {len(text)}\r\nX-By: {self.name}\r\n{ends}\r\n{text}"
                connection.sendall(answer.encode())
                if not goes_on:
                    return

    def answer(self, path, headers):
        _, what, *rest = path.split("/")
        if what == "headers":
            pairs = (header.partition(":") for header in headers)
            return 200, "\n".join(f"{name.lower()}:{value}" for name, _, value in pairs)
        if what == "prefaces":
            return 200, str(self.prefaces)
        if what == "slow":
            time.sleep(int(rest[0]) / 1000)
        if what == "flaky" and rest[0] not in self.seen:
            self.seen.add(rest[0])
            return 503, "not yet"
        return 200, self.name

    def stream(self, connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for count in itertools.count():
            tick = f"{self.name} {count}\n"
            connection.sendall(f"{len(tick):x}\r\n{tick}\r\n".encode())
            time.sleep(0.05)


def main():
    name, *words = sys.argv[1:]
    application = Application(name)
    listeners = []
    if "--tls" in words:
        at = words.index("--tls")
        words, (port, certificate, key) = words[:at], words[at + 1 :]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        listeners.append(context.wrap_socket(socket.create_server(("127.0.0.1", int(port))), server_side=True))
    listeners += [socket.create_server(("127.0.0.1", int(port)), backlog=1024) for port in words]
    for listener in listeners[1:]:
        threading.Thread(target=application.serve, args=[listener], daemon=True).start()
    application.serve(listeners[0])


if __name__ == "__main__":
    main()
