"""What clients of the mesh do: single requests, many of them, traffic that goes on, and connections that stay open."""

import http.client
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """``status`` 0: none came, and ``body`` says why."""

    status: int
    body: str
    headers: dict = field(default_factory=dict)

    @property
    def is_ok(self):
        return self.status == 200


def ask(place, path="/", *, method="GET", headers=None, timeout_s=10.0, connection=None):
    """One HTTP/1.1 request to (address, port), over a connection of its own unless one is given."""
    own = connection or http.client.HTTPConnection(*place, timeout=timeout_s)
    try:
        own.request(method, path, headers={"Connection": "keep-alive" if connection else "close", **(headers or {})})
        response = own.getresponse()
        body = response.read().decode().strip()
        return Answer(response.status, body, {k.lower(): v for k, v in response.getheaders()})
    except (OSError, http.client.HTTPException) as error:
        own.close()  # a connection that is kept would still wait for this answer
        return Answer(0, f"{type(error).__name__}: {error}")
    finally:
        if connection is None or own.sock is None:
            own.close()


def spread(place, count, path="/", **how):
    """Who answered ``count`` requests over new connections; failures are counted by their status."""
    answers = (ask(place, path, **how) for _ in range(count))
    return Counter(a.body if a.is_ok else a.status for a in answers)


@dataclass
class Request:
    """One of a traffic: ``at`` and ``took`` in seconds, ``at`` since its beginning."""

    at: float
    took: float
    answer: Answer


class Traffic:
    """Requests that go on in the background, over new connections and over one that is kept."""

    def __init__(self, place, every_s, path):
        self.place = place
        self.path = path
        self.every_s = every_s
        self.requests: list[Request] = []
        self.kept: list[Request] = []
        self.began = time.monotonic()
        self.marked = 0.0
        """Some moment since the beginning that a case looks back to."""
        self._over = threading.Event()

    def __len__(self):
        return len(self.requests) + len(self.kept)

    @property
    def failed(self):
        return [r for r in [*self.requests, *self.kept] if not r.answer.is_ok]

    @property
    def slowest_s(self):
        return max(r.took for r in [*self.requests, *self.kept])

    def now(self):
        return time.monotonic() - self.began

    def after(self, seconds):
        """Those that began so long after the beginning."""
        return [r for r in [*self.requests, *self.kept] if r.at > seconds]

    def last_not_by(self, name):
        """When, after ``marked``, the last request began that somebody else answered."""
        others = [r.at for r in self.after(self.marked) if r.answer.is_ok and r.answer.body != name]
        return max(others, default=self.marked) - self.marked

    def says(self):
        return f"{len(self)} requests, {len(self.failed)} failed, slowest {self.slowest_s:.2f} s"

    def more(self, count, within_s=20.0):
        """Wait for so many more."""
        wanted, give_up = len(self) + count, time.monotonic() + within_s
        while len(self) < wanted:
            assert time.monotonic() < give_up, f"only {self.says()}"
            time.sleep(0.01)

    def _run(self, rows, connection):
        while not self._over.is_set():
            began = time.monotonic()
            answer = ask(self.place, self.path, connection=connection)
            rows.append(Request(began - self.began, time.monotonic() - began, answer))
            self._over.wait(self.every_s)

    @contextmanager
    def running(self, *, kept):
        mine = http.client.HTTPConnection(*self.place, timeout=10)
        jobs = [(self.requests, None), *([(self.kept, mine)] if kept else [])]
        threads = [threading.Thread(target=self._run, args=job, daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join(15)
            mine.close()


def traffic(place, path="/", *, every_s=0.01, kept=True):
    """``with traffic(place) as t``: requests to a place until the end of the block."""
    return Traffic(place, every_s, path).running(kept=kept)


@contextmanager
def stream(place):
    """A request that is answered for ever; yields the socket, once the first byte has come."""
    with socket.create_connection(place, 10) as s:
        s.sendall(b"GET /stream HTTP/1.1\r\nHost: any\r\n\r\n")
        s.settimeout(10)
        first = s.recv(4096)
        assert first.startswith(b"HTTP/1.1 200"), first
        yield s


def ends(s, within_s=10.0):
    """Whether an open connection comes to its end, and soon."""
    give_up = time.monotonic() + within_s
    try:
        while time.monotonic() < give_up:
            if not s.recv(4096):
                return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return False
