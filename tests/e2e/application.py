"""The example HTTP service of the tests: answers every request with its name; keeps /stream open and ticking.

Usage: python application.py ADDRESS PORT NAME
"""

import contextlib
import socket
import sys
import threading
import time


def answer(connection, name):
    with connection:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(4096)
            if not chunk:
                return
            data += chunk
        path = data.split(b" ", 2)[1]
        if path == b"/stream":
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            while True:
                connection.sendall(b"tick\n")
                time.sleep(0.05)
        body = name.encode() + b"\n"
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def contained(connection, name):
    with contextlib.suppress(OSError):
        answer(connection, name)


def main():
    address, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    with socket.create_server((address, port), backlog=1024) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=contained, args=(connection, name), daemon=True).start()


if __name__ == "__main__":
    main()
