"""A program that pretends to be an Envoy: its command line, its admin interface, its log; started in milliseconds.

How it behaves is in its bootstrap, under ``pretend``: ``exit`` (code, at once), ``never_ready``, ``stubborn`` (no end
on SIGTERM), ``connections`` (how often it is asked before nothing is open), ``deaf`` (no admin interface). What it was
asked is appended to the file ``asked`` beside its bootstrap.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from itertools import pairwise
from pathlib import Path

BUILD = os.environ.get("PRETEND_BUILD", "0a1b/1.40.0/Clean/RELEASE/BoringSSL")


def main(argv):
    if argv == ["--version"]:
        print(f"pretender  version: {BUILD}")
        return 0
    options = dict(pairwise(argv))
    config = Path(options["--config-path"])
    bootstrap = json.loads(config.read_text())
    pretend = bootstrap.get("pretend", {})
    log = os.open(options["--log-path"], os.O_WRONLY)

    def say(level, text):
        with contextlib.suppress(BrokenPipeError):
            os.write(log, f"{level}|main|{text}\n".encode())

    print("to standard error", file=sys.stderr, flush=True)
    if "exit" in pretend:
        say("critical", "cannot go on")
        return pretend["exit"]
    state = "INITIALIZING" if pretend.get("never_ready") else "LIVE"
    left = pretend.get("connections", 0)
    if pretend.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if pretend.get("deaf"):
        signal.pause()
    pipe = bootstrap["admin"]["address"]["pipe"]
    path = Path(pipe["path"])
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    path.chmod(pipe["mode"])
    server.listen()
    say("warning", "up")
    while True:
        client, _ = server.accept()
        with client:
            method, target = client.recv(4096).decode().split(" ")[:2]
            with config.with_name("asked").open("a") as file:
                file.write(f"{method} {target}\n")
            body = "OK\n"
            if target == "/server_info":
                body = json.dumps({"version": BUILD, "state": state})
            elif target.startswith("/stats"):
                body = f"listener.127.0.0.1_80.downstream_cx_active: {left}\n"
                left = max(0, left - 1)
            elif target.startswith("/listeners"):
                body = json.dumps({"listener_statuses": [{"name": "outbound:127.0.0.2:80"}]})
            elif target.startswith("/healthcheck/"):
                state = "LIVE" if target.endswith("/ok") else "DRAINING"
            elif target == "/drain_listeners":
                say("error", "listeners closed")
            answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}"
            client.sendall(answer.encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
