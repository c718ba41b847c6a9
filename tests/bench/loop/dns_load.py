"""Paced DNS queries from one socket; prints what came back and how late, as JSON."""

import json
import select
import socket
import sys
import time

import dnslib

from tests.bench.loop.samples import Samples


def run(port: int, rate: float, seconds: float, services: int, subject: int) -> dict[str, object]:
    """Ask ``rate`` questions a second for A of ``service-N.mesh``, each checked by its id."""
    questions = [bytes(dnslib.DNSRecord.question(f"service-{i}.mesh").pack())[2:] for i in range(services)]
    sent = [(0.0, 0.0)] * 65536
    samples = Samples(subject)
    wrong = count = answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        begin = time.perf_counter()
        end = begin + seconds
        while (now := time.perf_counter()) < end + 0.3:
            due = min(int((min(now, end) - begin) * rate), int(seconds * rate))
            while count < due:
                ident = count & 0xFFFF
                sent[ident] = samples.begin()
                sock.send(ident.to_bytes(2) + questions[count % services])
                count += 1
            samples.tick()
            try:
                while True:
                    packet = sock.recv(2048)
                    samples.end(sent[int.from_bytes(packet[:2])])
                    answered += 1
                    wrong += packet[3] & 0xF != 0
            except BlockingIOError:
                pass
            select.select([sock], [], [], 0.0005)
    return {"sent": count, "lost": count - answered, "wrong": wrong, **samples.summary()}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))))
