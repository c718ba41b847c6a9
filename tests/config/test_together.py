import pytest

from meshd.config import ConfigErrors, check_together, unreadable_files
from meshd.config.together import overlap
from tests.config.support import load

A = """\
store: {type: memory}
multizone: {zone: {name: a}}
apiServer: {http: {port: 1}}
diagnostics: {serverPort: 2}
dnsServer: {CIDR: 127.1.0.0/16, listen: "127.0.0.1:3"}
dpServer: {port: 4}
"""
B = """\
store: {type: memory}
multizone: {zone: {name: b}}
apiServer: {http: {port: 11}}
diagnostics: {serverPort: 12}
dnsServer: {CIDR: 127.2.0.0/16, listen: "127.0.0.1:13"}
dpServer: {port: 14}
"""
VIPS = "proxies: [{vips: true, resource: {type: Dataplane, mesh: default, name: vm}}]\n"
INGRESS = "proxies: [{resource: {type: ZoneIngress, name: i, networking: {address: 127.0.0.1, port: 1}}}]\n"


def clashes(tmp_path, *texts):
    configs = load(tmp_path, *texts)
    try:
        check_together(configs)
    except ConfigErrors as error:
        return [str(p).replace(f"{tmp_path}/", "") for p in error.problems]
    return []


def test_roles_of_their_own_fit(tmp_path):
    assert clashes(tmp_path, A, B) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("port: 11", "port: 1"),
         ("1.yaml:3: apiServer.http.port: 127.0.0.1:1 is also apiServer.http.port (127.0.0.1:1)"
         " at 0.yaml:3; choose another port or address")),
        (("serverPort: 12", "serverPort: 3, serverInterface: 0.0.0.0"),
         "1.yaml:4: diagnostics.serverPort: 0.0.0.0:3 is also dnsServer.listen (127.0.0.1:3)"),
        (("port: 14", "port: 4"), "1.yaml:6: dpServer.port: 0.0.0.0:4 is also dpServer.port (0.0.0.0:4) at 0.yaml:6"),
        (("127.0.0.1:13", "127.0.0.1:3"), "1.yaml:5: dnsServer.listen: 127.0.0.1:3 is also dnsServer.listen"),
        (("127.2.0.0/16", "127.1.8.0/24"), "1.yaml:5: dnsServer.CIDR: 127.1.8.0/24 overlaps 127.1.0.0/16 of"),
        (("name: b", "name: a"), "1.yaml:2: multizone.zone.name: 'a' is also the name of the zone in"),
    ],
)  # fmt: skip
def test_a_clash_between_roles_is_refused(tmp_path, change, expected):
    found = clashes(tmp_path, A, B.replace(*change))
    assert any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize("change", [("port: 14", "port: 0"), ("port: 14", "port: 4, enabled: false")])
def test_a_dp_server_that_is_out_of_the_way_fits(tmp_path, change):
    assert clashes(tmp_path, A, B.replace(*change)) == []


def test_the_same_database_is_refused(tmp_path):
    sqlite = ("type: memory", "type: sqlite, sqlite: {path: x.db}")
    found = clashes(tmp_path, A.replace(*sqlite), B.replace(*sqlite))
    assert len(found) == 1
    assert found[0].startswith("1.yaml:1: store.sqlite.path: ")


def test_two_logs_are_refused(tmp_path):
    (found,) = clashes(tmp_path, A, B + "logging: {level: debug}\n")
    assert found.startswith("1.yaml:7: logging.level: ")


def test_zones_inside_127_8_own_their_vips_side_by_side(tmp_path):
    assert clashes(tmp_path, A + VIPS, B + VIPS) == []


@pytest.mark.parametrize("outside", ["127.1.0.0/16", "127.2.0.0/16"])
def test_outside_127_8_a_process_has_one_owner_of_the_vips(tmp_path, outside):
    (found,) = clashes(tmp_path, (A + VIPS).replace(outside, "240.0.0.0/4"), (B + VIPS).replace(outside, "240.0.0.0/4"))
    assert found.startswith("1.yaml:7: proxies: vips: true is already in ")
    assert "240.0.0.0/4" in found


def test_a_proxy_in_the_way_of_a_server_is_refused(tmp_path):
    (found,) = clashes(tmp_path, A + INGRESS)
    assert found.startswith("0.yaml:7: ZoneIngress i networking.port: 127.0.0.1:1 is also apiServer.http.port")


def test_port_zero_never_clashes(tmp_path):
    zero = A.replace("port: 1", "port: 0").replace("serverPort: 2", "serverPort: 0")
    assert clashes(tmp_path, zero) == []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.2", True),
        ("::", "127.0.0.2", True),
        ("::1", "0.0.0.0", False),
        ("vm.example", "vm.example", True),
        ("vm.example", "10.0.0.1", False),
    ],
)
def test_overlap(one, other, expected):
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected


def test_certificates_that_are_not_there_are_named(tmp_path):
    (tmp_path / "k.pem").write_text("key")
    text = "mode: global\nmultizone: {global: {kds:\n  {tlsCertFile: c.pem,\n   tlsKeyFile: k.pem}}}"
    (problem,) = unreadable_files(load(tmp_path, text))
    assert (problem.line, problem.key) == (3, "multizone.global.kds.tlsCertFile")
    assert problem.message == f"cannot read {tmp_path}/c.pem: No such file or directory"


def test_files_of_the_dp_server_that_are_not_there_are_named(tmp_path):
    text = """\
dpServer: {tlsCertFile: c.pem, tlsKeyFile: k.pem}
bootstrapServer: {params: {corefileTemplatePath: corefile}}
"""
    assert [(p.line, p.key) for p in unreadable_files(load(tmp_path, text))] == [
        (2, "bootstrapServer.params.corefileTemplatePath"),
        (1, "dpServer.tlsCertFile"),
        (1, "dpServer.tlsKeyFile"),
    ]
