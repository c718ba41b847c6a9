"""The composition root: what it reads by itself, and how the process ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from meshd.app.role import read_data_source
from meshd.app.xds import uris_of
from meshd.app.zone import read_token
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.external_service import DataSource
from meshd.kinds.secret import Secret
from meshd.model.resource import Resource, ResourceKey
from meshd.store.memory import MemoryStore
from meshd.store.store import Put
from tests.e2e.lab import eventually
from tests.ports import free_port, free_udp_tcp_port
from tests.rest.support import NOW


def dataplane(**networking):
    spec = Dataplane.model_validate({"networking": {"address": "10.0.0.1", **networking}})
    return Resource(ResourceKey("Dataplane", "default", "a"), spec)


# ---- what it reads


@pytest.mark.parametrize(
    ("source", "content"),
    [
        (DataSource(secret="s"), b"of the secret"),
        (DataSource(file="{dir}/f"), b"of the file"),
        (DataSource(file="f"), b"of the file"),
        (DataSource(inline=b"inline"), b"inline"),
        (DataSource(inline_string="text"), b"text"),
    ],
)
async def test_a_data_source_is_a_secret_of_the_mesh_a_file_or_itself(tmp_path, source, content):
    (tmp_path / "f").write_bytes(b"of the file")
    store = MemoryStore(lambda: NOW)
    await store.write([Put(Resource(ResourceKey("Secret", "default", "s"), Secret(data=b"of the secret")))])
    here = source.model_copy(update={"file": source.file.format(dir=tmp_path)} if source.file else {})
    assert read_data_source(store, tmp_path, "default", here) == content


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataSource(secret="s"), "mesh 'other' has no Secret 's'"),
        (DataSource(file="/nowhere/f"), "cannot read /nowhere/f: No such file or directory"),
        (DataSource(file="/" + "long" * 100), "cannot read /long.*: File name too long"),
        (DataSource(file="/dev/zero"), "cannot read /dev/zero: it is no regular file"),
    ],
)
async def test_a_data_source_that_is_not_there_is_named(source, message):
    store = MemoryStore(lambda: NOW)
    await store.write([Put(Resource(ResourceKey("Secret", "default", "s"), Secret(data=b"x")))])
    with pytest.raises(ValueError, match=message):
        read_data_source(store, Path("/"), "other", source)


@pytest.mark.parametrize("name", ["{dir}/key", "../key", "/proc/self/environ", "link", "{dir}/inside-not/../key"])
def test_only_files_below_the_directory_are_read(tmp_path, name):
    (tmp_path / "inside").mkdir()
    (tmp_path / "key").write_bytes(b"of the host")
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "key")
    source = DataSource(file=name.format(dir=tmp_path))
    with pytest.raises(ValueError, match=r"it is not below general\.dataSourceDir, .*/inside"):
        read_data_source(MemoryStore(lambda: NOW), tmp_path / "inside", "default", source)


def test_without_a_directory_no_file_is_read(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"f is not read: .* general\.dataSourceDir, which is not set"):
        read_data_source(MemoryStore(lambda: NOW), None, "default", DataSource(file=str(tmp_path / "f")))


def test_a_token_is_read_without_its_line_end_and_named_if_it_cannot_be(tmp_path):
    path = tmp_path / "token"
    with pytest.raises(OSError, match=r"tokenFile: cannot read the zone token .*/token: No such file"):
        read_token(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match=r"tokenFile: cannot read the zone token .*/token: is no token"):
        read_token(path)
    with pytest.raises(OSError, match=r"tokenFile: .* Is a directory"):
        read_token(tmp_path)
    path.write_text("a.b.c\n")
    assert read_token(path) == "a.b.c"


def test_a_dataplane_without_a_service_has_no_identity():
    assert uris_of(dataplane()) == ()
    tagged = dataplane(inbound=[{"port": 1, "tags": {"kuma.io/service": "web"}}])
    assert uris_of(tagged) == ("spiffe://default/web", "kuma://kuma.io/service/web")


# ---- how the process ends

ZONE = """\
mode: zone
general: {{workDir: {dir}/work}}
store: {{type: memory}}
multizone: {{zone: {{name: a}}}}
apiServer: {{http: {{port: {rest}}}}}
diagnostics: {{serverPort: {diagnostics}}}
dnsServer: {{CIDR: 127.77.0.0/16, listen: "127.0.0.1:{dns}"}}
dpServer: {{interface: 127.0.0.1, port: {dp}}}
"""
GLOBAL = """\
mode: global
general: {{workDir: {dir}/work}}
store: {{type: memory}}
multizone: {{global: {{kds: {{grpcPort: {kds}, interface: 127.0.0.1, tlsEnabled: false}}}}}}
apiServer: {{http: {{port: {rest}}}}}
diagnostics: {{serverPort: {diagnostics}}}
"""
SQLITE = ("type: memory", "type: sqlite, sqlite: {{path: {dir}/x.db}}")
INGRESS = (
    "proxies: [{{resource: {{type: ZoneIngress, name: in, networking: {{address: 127.0.0.1, port: {taken}}}}}}}]\n"
)
ENVOY = (
    "proxies: [{{engine: envoy, binary: none, resource: {{type: ZoneIngress, name: in, networking: {{port: 1}}}}}}]\n"
)
CERTIFICATES = ("tlsEnabled: false", "tlsCertFile: {dir}/none.pem, tlsKeyFile: {dir}/none.key")
IN_USE = "127.0.0.1:{taken} is in use by another process; stop it or choose another port"


@pytest.fixture
def taken():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        yield s.getsockname()[1]


def command(tmp_path, text, **ports):
    numbers = (
        {name: free_port() for name in ("rest", "diagnostics", "kds", "dp")} | {"dns": free_udp_tcp_port()} | ports
    )
    path = tmp_path / "c.yaml"
    path.write_text(text.format(dir=tmp_path, **numbers))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MESHD_")} | {"HOME": str(tmp_path)}
    return numbers, {
        "args": [sys.executable, "-m", "meshd", "--config", "c.yaml"],
        "cwd": tmp_path,
        "env": environment,
        "text": True,
    }


def replaced(text, *changes):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (replaced(ZONE, ("{rest}", "{taken}")), f"meshd: apiServer.http: {IN_USE}"),
        (replaced(ZONE, ("{diagnostics}", "{taken}")), f"meshd: diagnostics: {IN_USE}"),
        (replaced(ZONE, ("{dns}", "{taken}")), f"meshd: dnsServer.listen: {IN_USE}"),
        (replaced(ZONE, ("{dp}", "{taken}")), f"meshd: dpServer.port: {IN_USE}"),
        (
            replaced(ZONE, ("port: {dp}", "port: {dp}, tlsCertFile: {dir}/none.pem, tlsKeyFile: {dir}/none.key")),
            "c.yaml:8: dpServer.tlsCertFile: cannot read {dir}/none.pem: No such file or directory",
        ),
        (replaced(GLOBAL, ("{kds}", "{taken}")), f"meshd: multizone.global.kds.grpcPort: {IN_USE}"),
        (ZONE + INGRESS, f"meshd: ZoneIngress in: networking: {IN_USE}"),
        (
            ZONE + ENVOY,
            "meshd: c.yaml:9: proxies[0].binary: {dir}/none does not exist; correct the path, or leave it out and pip",
        ),
        (replaced(ZONE, SQLITE), "meshd: database {dir}/x.db: is not a SQLite database; move it away"),
        (
            replaced(GLOBAL, CERTIFICATES),
            "c.yaml:4: multizone.global.kds.tlsCertFile: cannot read {dir}/none.pem: No such file or directory",
        ),
        (
            replaced(ZONE, ("{dir}/work", "{dir}/x.db")),
            "meshd: c.yaml:2: general.workDir: cannot keep state in {dir}/x.db/a: Not a directory",
        ),
    ],
    ids=[
        "rest",
        "diagnostics",
        "dns",
        "dp",
        "dp-certificate",
        "kds",
        "proxy",
        "envoy",
        "sqlite",
        "certificate",
        "work-dir",
    ],
)
def test_what_an_operator_can_set_right_is_one_line_and_code_2(tmp_path, taken, text, said):
    (tmp_path / "x.db").write_bytes(b"no database" * 100)
    _, options = command(tmp_path, text, taken=taken)
    done = subprocess.run(**options, capture_output=True, timeout=60)
    assert done.returncode == 2, done.stderr
    expected = said.format(dir=tmp_path, taken=taken)
    assert len([line for line in done.stderr.splitlines() if line.startswith(expected)]) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "x.db").read_bytes() == b"no database" * 100


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_in_order_with_code_0(tmp_path, number):
    ports, options = command(tmp_path, ZONE)
    with subprocess.Popen(**options, stderr=subprocess.PIPE) as process:
        try:
            eventually(lambda: socket.create_connection(("127.0.0.1", ports["rest"]), 1).close() is None, 30)
            metrics = httpx.get(f"http://127.0.0.1:{ports['diagnostics']}/metrics", trust_env=False).text
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert f"{number.name}: stopping" in said
    assert " a: stopped" in said
    assert "meshd_rest_requests_total" in metrics
    assert "_created" not in metrics
    assert "Traceback" not in said
