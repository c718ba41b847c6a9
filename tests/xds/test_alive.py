"""The small listeners in a running Envoy: what they answer."""

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import httpx
import pytest

from meshd.model.steps import finished
from meshd.topology.view import Vip
from meshd.xds.abilities import Abilities, Redirect
from meshd.xds.admin import admin
from meshd.xds.dns import Form, Names, listener, records, updated
from meshd.xds.dynconf import dynamic_config
from meshd.xds.resources import CLUSTER, LISTENER
from meshd.xds.transparent import passthrough
from tests.l4.envoy import envoy
from tests.ports import free_port
from tests.xds.support import by_name, dataplane, mesh

pytestmark = pytest.mark.e2e

LOCAL = "127.0.0.1"
VIPS = {
    f"service_{i}": Vip(IPv4Address("240.0.0.0") + i, {80: f"service_{i}"}, (f"service_{i}.mesh", f"service.{i}.mesh"))
    for i in range(300)
} | {
    "host": Vip(IPv4Address("240.1.0.0"), {80: "host"}, ("host", "host.example.com")),
    "odd!": Vip(IPv4Address("240.1.0.1"), {80: "odd!"}, ("odd!.mesh", "o'dd*|~.mesh")),
}


def running(tmp_path, resources):
    found = list(resources)
    return envoy(tmp_path, list(by_name(found, LISTENER).values()), list(by_name(found, CLUSTER).values()))


def ask(port, name, rdtype):
    answer = dns.query.udp(dns.message.make_query(name, rdtype), LOCAL, port=port, timeout=5)
    return dns.rcode.to_text(answer.rcode()), {item.to_text() for rrset in answer.answer for item in rrset}


def test_envoy_resolves_names(tmp_path):
    port = free_port()
    names = finished(updated(Names(Form.ENVOY, ipv6=True), VIPS))

    with running(tmp_path, [listener(names, port)]):
        assert ask(port, "service_7.mesh", "A") == ("NOERROR", {"240.0.0.7"})
        assert ask(port, "service.7.mesh", "AAAA") == ("NOERROR", {"::ffff:240.0.0.7"})
        assert ask(port, "host.example.com", "A") == ("NOERROR", {"240.1.0.0"})
        assert ask(port, "host", "A") == ("NOERROR", {"240.1.0.0"})
        assert ask(port, "unknown.mesh", "A") == ("NXDOMAIN", set())


def test_envoy_without_names_says_so(tmp_path):
    port = free_port()

    with running(tmp_path, [listener(Names(Form.ENVOY, ipv6=True), port)]):
        assert ask(port, "web.mesh", "A") == ("NXDOMAIN", set())


def test_kuma_dp_fetches_names_once(tmp_path):
    """Far more than the 4 KiB that Envoy would answer unasked."""
    known = records(finished(updated(Names(Form.KUMA_DP, ipv6=True), VIPS)), (("mesh", "default"),))

    with running(tmp_path, dynamic_config([known], Abilities(workdir=str(tmp_path)))):
        transport = httpx.HTTPTransport(uds=str(tmp_path / "kuma-mesh-metric-config.sock"))
        with httpx.Client(transport=transport, base_url="http://localhost") as client:
            first = client.get("/dns")
            assert len(json.loads(first.text)["records"]) == 2 * len(VIPS)
            again = client.get("/dns", headers={"If-None-Match": first.headers["etag"]})
            other = client.get("/dns", headers={"If-None-Match": "older"})
            nothing = client.get("/meshmetric")

    assert (again.status_code, again.text) == (304, "")
    assert other.text == first.text == known.body
    assert nothing.status_code == 404


def test_envoy_lets_nothing_out_where_the_mesh_says_so(tmp_path):
    port = free_port()
    closed = mesh({"networking": {"outbound": {"passthrough": False}}}).spec
    abilities = Abilities(redirect=Redirect(0, port, ipv6=False))

    with (
        running(tmp_path, passthrough(closed, dataplane(), abilities)),
        socket.create_connection((LOCAL, port), timeout=5) as connection,
        suppress(ConnectionResetError),
    ):  # as good as an orderly end
        assert connection.recv(1) == b""


class Ready(BaseHTTPRequestHandler):
    """As kuma-dp's reporter."""

    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()

    def log_message(self, *args):
        pass


def test_envoy_tells_readiness_and_nothing_more(tmp_path):
    port, readiness = free_port(), free_port()
    abilities = Abilities(admin_port=port, readiness_port=readiness)
    server = ThreadingHTTPServer((LOCAL, readiness), Ready)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with running(tmp_path, admin("127.0.0.2", abilities, None)):
            at = f"http://127.0.0.2:{port}"
            assert httpx.get(f"{at}/ready").status_code == 200
            assert {httpx.get(at + path).status_code for path in ("/", "/stats", "/quitquitquit")} == {404}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
