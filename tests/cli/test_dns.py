import json
import socket
import threading
from pathlib import Path

import dnslib
import pytest

from meshd.cli import changes
from meshd.cli.changes import RECORD, State
from tests.cli.support import run
from tests.rest.support import STANDALONE, Plane

RESOLV_CONF = b"search example.org\nnameserver 10.0.0.2\r\n\xff no newline at the end"
ON_53 = ("--server", "127.0.0.1:53")


@pytest.fixture
def host(tmp_path):
    """A host's files."""
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc/resolv.conf"
    file.write_bytes(RESOLV_CONF)
    file.chmod(0o640)
    return tmp_path


def tree(root: Path) -> dict[str, object]:
    """Everything under a root."""
    return {
        str(p.relative_to(root)): str(p.readlink()) if p.is_symlink() else (p.read_bytes(), p.stat().st_mode)
        if p.is_file() else "directory"
        for p in sorted(root.rglob("*"))
    }  # fmt: skip


def meshd_dns(host, *args):
    return run("dns", args[0], "--root", str(host), *args[1:])


METHODS = [("resolved",), ("resolved-dropin",), ("dnsmasq",), ("resolv.conf", *ON_53)]


@pytest.mark.parametrize("method", METHODS)
def test_uninstall_puts_everything_back_byte_by_byte(host, method):
    before = tree(host)
    result = meshd_dns(host, "install", "--method", *method)
    assert (result.exit_code, result.stderr.count("error")) == (0, 0)
    assert tree(host) != before
    assert meshd_dns(host, "uninstall").exit_code == 0
    assert tree(host) == before


@pytest.mark.parametrize("method", METHODS)
def test_a_dry_run_says_what_and_does_nothing(host, method):
    before = tree(host)
    result = meshd_dns(host, "install", "--dry-run", "--method", *method)
    assert result.exit_code == 0
    assert "create /etc/" in result.output
    assert tree(host) == before
    meshd_dns(host, "install", "--method", *method)
    installed = tree(host)
    assert "/etc/" in meshd_dns(host, "uninstall", "--dry-run").output
    assert tree(host) == installed


def test_what_others_changed_since_is_not_undone(host):
    meshd_dns(host, "install", "--method", "resolv.conf", *ON_53)
    (host / "etc/resolv.conf").write_text("nameserver 10.9.9.9\n")
    changed = tree(host)
    for dry in ((), ("--dry-run",)):
        result = meshd_dns(host, "uninstall", *dry)
        assert result.exit_code == 1
        assert "changed by somebody else since it was installed: /etc/resolv.conf" in result.stderr
    assert tree(host) == changed
    assert "/etc/resolv.conf: changed by somebody else" in meshd_dns(host, "status").output


def test_what_others_put_beside_it_stays(host):
    meshd_dns(host, "install", "--method", "dnsmasq")
    (host / "etc/dnsmasq.d/other.conf").write_text("x")
    assert meshd_dns(host, "uninstall").exit_code == 0
    assert [p.name for p in (host / "etc/dnsmasq.d").iterdir()] == ["other.conf"]


def test_an_installation_that_was_cut_short_can_be_undone(host):
    before = tree(host)
    meshd_dns(host, "install", "--method", "resolv.conf", *ON_53)
    (host / "etc/resolv.conf").write_bytes(RESOLV_CONF)
    (host / "etc/resolv.conf").chmod(0o640)
    assert "as before the installation" in meshd_dns(host, "status").output
    assert meshd_dns(host, "uninstall").exit_code == 0
    assert tree(host) == before


def test_it_is_not_installed_twice_and_not_uninstalled_twice(host):
    meshd_dns(host, "install", "--method", "dnsmasq")
    result = meshd_dns(host, "install", "--method", "resolved")
    assert (result.exit_code, "is installed already (method dnsmasq)" in result.stderr) == (1, True)
    meshd_dns(host, "uninstall")
    assert meshd_dns(host, "uninstall").output == "is not installed\n"


def test_what_cannot_be_done_is_refused_and_nothing_is_done(host):
    before = tree(host)
    result = meshd_dns(host, "install", "--method", "resolv.conf")
    assert (result.exit_code, "libc asks port 53 only" in result.stderr) == (2, True)
    result = meshd_dns(host, "install", "--server", "nowhere", "--domain", "a..b", "--cidr", "1")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 4)
    assert tree(host) == before


def test_a_link_is_put_back_as_a_link(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/x").symlink_to("nowhere")
    before = changes.read(tmp_path / "etc/x")
    changes.write(tmp_path / "etc/x", State(b"text"))
    changes.write(tmp_path / "etc/x", before)
    assert str((tmp_path / "etc/x").readlink()) == "nowhere"


def test_a_record_of_somebody_else_is_refused(host):
    (host / RECORD).parent.mkdir(parents=True)
    (host / RECORD).write_text('{"version": 9}')
    result = meshd_dns(host, "uninstall")
    assert (result.exit_code, "is no record of an installation: version 9, not 1" in result.stderr) == (1, True)


def test_settings_come_from_the_configuration(host, tmp_path):
    file = tmp_path / "zone.yaml"
    file.write_text("mode: zone\ndnsServer: {domain: corp, listen: '127.0.0.7:5300', CIDR: 127.1.0.0/16}\n")
    result = run("dns", "install", "--root", str(host), "--config", str(file), "--method", "dnsmasq", "--dry-run",
                 env={"HOME": str(tmp_path)})  # fmt: skip
    assert "server=/corp/127.0.0.7#5300" in result.output
    assert "server=/1.127.in-addr.arpa/127.0.0.7#5300" in result.output


@pytest.mark.parametrize("command", [("install", "--method", "dnsmasq", "--dry-run"), ("kubernetes",)])
def test_the_configuration_must_be_a_zones(tmp_path, command):
    file = tmp_path / "global.yaml"
    file.write_text("mode: global\nmultizone: {global: {kds: {tlsEnabled: false, interface: 127.0.0.1}}}\n")
    result = run("dns", *command, "--config", str(file), env={"HOME": str(tmp_path)})
    assert (result.exit_code, "mode: is global: only a zone answers names" in result.stderr) == (2, True)


@pytest.mark.e2e
@pytest.mark.parametrize(("authoritative", "says", "code"), [(1, "answers", 0), (0, "is it meshd?", 1)])
def test_status_asks_the_server(host, authoritative, says, code):
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def serve():
            message, peer = server.recvfrom(4096)
            reply = dnslib.DNSRecord.parse(message).reply(aa=authoritative)
            reply.add_answer(*dnslib.RR.fromZone("mesh 5 SOA a b 1 1 1 1 1"))
            server.sendto(reply.pack(), peer)

        meshd_dns(host, "install", "--method", "dnsmasq", "--server", address)
        thread = threading.Thread(target=serve)
        thread.start()
        result = meshd_dns(host, "status")
        thread.join()
    assert (result.exit_code, f"{address}: {says}" in result.output or says in result.output) == (code, True)


def test_status_without_anything(host):
    result = meshd_dns(host, "status")
    assert (result.exit_code, result.output) == (1, "not installed\n")


def test_kubernetes_prints_a_block_and_a_map():
    assert "forward . 10.0.0.9:5653" in run("dns", "kubernetes", "--server", "10.0.0.9:5653").output
    assert "coredns-custom" in run("dns", "kubernetes", "--server", "10.0.0.9:5653", "--custom").output
    result = run("dns", "kubernetes")
    assert (result.exit_code, "pods can reach" in result.stderr) == (2, True)


TOLD = {
    "name": "backend.mesh", "type": "A", "mesh": "default", "rcode": "NOERROR",
    "answers": ["backend.mesh.           30      IN      A       240.0.0.1"],
    "vip": "240.0.0.1", "names": ["backend.mesh"], "alsoWantedBy": ["a"],
    "services": [
        {"port": 80, "service": "backend", "protocol": "http", "zones": {"zone-a": 2, "zone-b": 3},
         "dataplanes": ["d-1", "d-2"], "moreDataplanes": 4},
        {"port": 443, "service": "ext", "protocol": "tcp", "externalService": "e", "addresses": ["192.0.2.1:443"]},
    ],
}  # fmt: skip


def test_a_query_is_explained(tmp_path):
    plane = Plane(tmp_path, STANDALONE, explain_name=lambda _, qtype: TOLD | {"type": qtype})
    assert run("dns", "query", "backend.mesh", plane=plane).output.splitlines() == [
        "backend.mesh A: NOERROR",
        "  backend.mesh. 30 IN A 240.0.0.1",
        "virtual IP 240.0.0.1 of mesh default, known as backend.mesh",
        "port 80: service backend (http)",
        "  instances: 2 in zone-a, 3 in zone-b",
        "  dataplanes here: d-1, d-2 and 4 more",
        "port 443: service ext (tcp)",
        "  external service e: 192.0.2.1:443",
        "also wanted by: a",
    ]
    assert json.loads(run("dns", "query", "backend.mesh", "AAAA", "-o", "json", plane=plane).output)["type"] == "AAAA"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("240.0.0.1",), "1.0.0.240.in-addr.arpa PTR"),
        (("::1",), f"{'0.' * 31}ip6.arpa PTR".replace("0.", "1.0.", 1)),
        (("240.0.0.1", "A"), "240.0.0.1 A"),
        (("web.mesh",), "web.mesh A"),
    ],
)
def test_an_address_is_asked_as_its_reverse_name(tmp_path, asked, expected):
    told = {"mesh": "default", "rcode": "NOERROR", "answers": ["x"]}
    plane = Plane(tmp_path, STANDALONE, explain_name=lambda name, qtype: told | {"name": name, "type": qtype})
    assert run("dns", "query", *asked, plane=plane).output.splitlines()[0] == f"{expected}: NOERROR"


def test_no_name_is_not_asked(tmp_path):
    result = run("dns", "query", "", plane=Plane(tmp_path, STANDALONE))
    assert (result.exit_code, "say which NAME" in result.stderr) == (2, True)


def test_a_query_without_an_answer_says_why_and_fails(tmp_path):
    told = {"name": "x.mesh", "type": "A", "mesh": "default", "rcode": "NXDOMAIN", "answers": [], "reason": "no such"}
    plane = Plane(tmp_path, STANDALONE, explain_name=lambda *_: told)
    result = run("dns", "query", "x.mesh", plane=plane)
    assert (result.exit_code, result.output) == (1, "x.mesh A: NXDOMAIN\n  no such\n")


def test_the_names_that_are_asked_for_most_are_listed(tmp_path):
    told = {
        "listen": "127.0.0.1:5653", "domain": "mesh", "mesh": "default", "names": 2, "workers": 0, "forwarding": 0,
        "namesRefused": {"x": "name 'x' is too long"}, "upstreams": [{"address": "10.0.0.2:53", "isUp": False}],
        "cache": {"entries": 3, "bytes": 1700},
        "topNames": [{"name": "web.mesh", "rcode": "NOERROR", "queries": 7}],
    }  # fmt: skip
    plane = Plane(tmp_path, STANDALONE, dns_status=lambda: told)
    assert run("dns", "top", plane=plane).output.splitlines() == [
        "127.0.0.1:5653: 2 names of mesh, mesh default",
        "upstream 10.0.0.2:53: down",
        "not answered: name 'x' is too long",
        "kept: 3 answers, 1700 bytes",
        "       7 NOERROR  web.mesh",
    ]
    assert json.loads(run("dns", "top", "-o", "json", plane=plane).output) == told
    far = Plane(tmp_path, STANDALONE, peer="10.0.0.9", host="cp.example:5681", dns_status=lambda: told)
    assert run("dns", "top", plane=far).output.splitlines()[-2:] == [
        "kept: 3 answers, 1700 bytes",
        "the names asked for most are told to administrators",
    ]
    without = run("dns", "top", plane=Plane(tmp_path, STANDALONE))
    assert (without.exit_code, "answers no names" in without.stderr) == (1, True)


def test_a_control_plane_without_names_says_so(tmp_path):
    result = run("dns", "query", "x.mesh", plane=Plane(tmp_path, STANDALONE))
    assert (result.exit_code, "answers no names" in result.stderr) == (1, True)
