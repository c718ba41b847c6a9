"""In which order a stream is told what refers to what, in both forms."""

import pytest

from meshd.discovery import DeltaRequest, Entry, Rejection, Sender, StateRequest
from meshd.xds import session
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ORDER
from meshd.xds.session import DELTA, LATE, NEEDS, RENEWS, STATE_OF_THE_WORLD


class Proxy:
    """A machine, what it is about, and a proxy that asks for all clusters and listeners."""

    def __init__(self, form, **types):
        self.form = form
        self.types = {CLUSTER: {}, LISTENER: {}, ENDPOINTS: {}, **types}
        self.machine = form.machine(self, "cp")
        for type_url in (CLUSTER, LISTENER):
            self.ask(type_url)
        self.settle()

    def get(self, type_url, name):
        version = self.types[type_url].get(name)
        return None if version is None else Entry(name, version, b"x" * 100)

    def names(self, type_url):
        return self.types[type_url]

    def ask(self, type_url, **more):
        self.machine.receive((DeltaRequest if self.form is DELTA else StateRequest)(type_url, **more))

    def put(self, type_url, name, version):
        self.types[type_url][name] = version
        self.machine.changed(type_url, [name])

    def remove(self, type_url, name):
        del self.types[type_url][name]
        self.machine.changed(type_url, [name])

    def poll(self):
        return self.machine.poll(0, ORDER, LATE)

    def answer(self, response, error=""):
        self.ask(response.type_url, nonce=response.nonce, error=Rejection(error) if error else None)

    def settle(self):
        """Take and answer everything; the types in order."""
        found = []
        while (response := self.poll()) is not None:
            self.answer(response)
            found.append(response.type_url)
        return found


forms = pytest.mark.parametrize("form", [DELTA, STATE_OF_THE_WORLD], ids=lambda form: form.name)


@forms
def test_a_listener_waits_for_clusters_that_wait_for_an_answer(form):
    proxy = Proxy(form, **{CLUSTER: {"a": "1"}, LISTENER: {"in": "1"}})
    proxy.put(CLUSTER, "b", "1")
    first = proxy.poll()
    proxy.put(CLUSTER, "c", "1")
    proxy.put(LISTENER, "in", "2, to c")

    assert first.type_url == CLUSTER
    assert proxy.poll() is None
    proxy.answer(first)
    assert proxy.settle() == [CLUSTER, LISTENER]


@forms
def test_clusters_that_are_to_go_keep_no_listener_waiting(form):
    proxy = Proxy(form, **{CLUSTER: {"a": "1", "b": "1"}, LISTENER: {"in": "1"}})
    proxy.put(CLUSTER, "a", "2")
    first = proxy.poll()
    proxy.remove(CLUSTER, "b")
    proxy.put(LISTENER, "in", "2")

    assert first.type_url == CLUSTER
    assert proxy.poll().type_url == LISTENER


@forms
def test_what_a_refused_listener_led_to_before_stays(form):
    proxy = Proxy(form, **{CLUSTER: {"a": "1", "b": "1"}, LISTENER: {"in": "1, to a"}})
    proxy.put(LISTENER, "in", "bad, to b")
    proxy.answer(proxy.poll(), "Error adding/updating listener(s) in: no")
    proxy.remove(CLUSTER, "a")
    assert proxy.poll() is None

    proxy.put(LISTENER, "in", "2, to b")

    assert proxy.settle() == [LISTENER, CLUSTER]


def test_endpoints_do_not_wait_for_the_rest_of_the_clusters(monkeypatch):
    """An Envoy answers when the clusters that it got are warm, and they warm when they have their endpoints."""
    monkeypatch.setattr(session, "RESPONSE_BYTES", 150)
    names = {f"c{n}": "1" for n in range(4)}
    proxy = Proxy(DELTA, **{CLUSTER: dict(names), ENDPOINTS: dict(names)})
    proxy.ask(ENDPOINTS, subscribe=tuple(names))
    proxy.settle()
    for name in names:
        proxy.put(CLUSTER, name, "2")
    proxy.put(LISTENER, "in", "1")

    sent = [proxy.poll(), proxy.poll(), proxy.poll()]

    assert isinstance(proxy.machine, Sender)
    assert [(r.type_url, [e.name for e in r.resources]) for r in sent if r is not None] == [
        (CLUSTER, ["c0", "c1"]),
        (ENDPOINTS, ["c0", "c1"]),
    ]
    assert (NEEDS[LISTENER], RENEWS) == ((CLUSTER,), {CLUSTER: ENDPOINTS})
