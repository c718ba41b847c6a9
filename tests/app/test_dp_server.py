"""The dp-server as the configuration says, and on a socket."""

import base64
import json
import math
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
import trio
import yaml
from prometheus_client import CollectorRegistry

from meshd.app import dp_server
from meshd.app.server import DpListener
from meshd.ca.server_certificate import issue_server, new_authority, wanted_names
from meshd.ca.x509 import load_signer
from meshd.cli.known import decode, registry
from meshd.config import load_files
from meshd.model.codec import decode_document
from meshd.rpc import RpcError, RpcMetrics, ServerStream, Status, open_channel
from meshd.runtime.latest import Latest
from meshd.runtime.tls_files import TlsFilesError
from meshd.store.memory import MemoryStore
from meshd.store.store import Put
from meshd.xds.bootstrap import Admin
from tests.xds.bootstraps import DATAPLANE, MESH, REQUEST

NOW = datetime.now(UTC)
HERE = [ip_address("127.0.0.1"), ip_address("10.0.0.7")]


def configured(tmp_path, **sections):
    document = {"mode": "zone", "store": {"type": "memory"}, "multizone": {"zone": {"name": "zone-a"}}, **sections}
    path = tmp_path / "zone.yaml"
    path.write_text(yaml.safe_dump(document))
    (loaded,) = load_files([path], {"HOME": str(tmp_path)}, decode())
    return loaded.config


def prepare(config, hostname="vm-7"):
    return dp_server.prepare(config, hostname, HERE, NOW)


def own_certificate(tmp_path, *names):
    """A certificate that the operator has made, and its CA."""
    authority = new_authority("ours", NOW)
    leaf = issue_server(load_signer(authority), wanted_names("", [], *names), NOW)
    (tmp_path / "c.pem").write_bytes(leaf.cert_pem)
    (tmp_path / "k.pem").write_bytes(leaf.key_pem)
    return leaf, {"tlsCertFile": "c.pem", "tlsKeyFile": "k.pem"}


def test_a_zone_makes_its_own_certificate_and_keeps_it(tmp_path):
    config = configured(tmp_path, bootstrapServer={"params": {"xdsHost": "cp.example"}})
    prepared = prepare(config)
    assert prepared.names == wanted_names("vm-7", HERE, "cp.example")
    assert prepare(config).ca_pem == prepared.ca_pem
    assert (config.state_dir / "dp-server" / "ca.crt").read_bytes() == prepared.ca_pem
    assert prepared.tls.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("section", ["dpServer", "general"])
def test_a_configured_certificate_is_served_and_given_to_proxies(tmp_path, section):
    leaf, files = own_certificate(tmp_path, "cp.example")
    config = configured(tmp_path, **{"dpServer": {"tlsMinVersion": "TLSv1_3"}, section: files})
    prepared = prepare(config)
    assert prepared.ca_pem == leaf.cert_pem
    assert prepared.names.sorted() == ("cp.example", "localhost")
    assert not Path(tmp_path / ".meshd").exists()


def test_a_name_that_is_not_in_the_certificate_is_refused(tmp_path):
    _, files = own_certificate(tmp_path, "cp.example")
    config = configured(tmp_path, dpServer=files, bootstrapServer={"params": {"xdsHost": "other.example"}})
    with pytest.raises(
        TlsFilesError, match=r"xdsHost: 'other\.example' is not in the certificate .*c\.pem, which is fo"
    ):
        prepare(config)


def test_files_that_are_not_there_are_named(tmp_path):
    config = configured(tmp_path, dpServer={"tlsCertFile": "c.pem", "tlsKeyFile": "k.pem"})
    with pytest.raises(TlsFilesError, match=r"dpServer\.tlsCertFile: cannot read .*c\.pem"):
        prepare(config)
    config = configured(tmp_path, bootstrapServer={"params": {"corefileTemplatePath": "core"}})
    with pytest.raises(TlsFilesError, match=r"corefileTemplatePath: cannot read .*core: No such file"):
        prepare(config)


def test_what_proxies_are_told_follows_the_configuration(tmp_path):
    (tmp_path / "core").write_text("corefile")
    config = configured(
        tmp_path,
        dpServer={
            "authn": {"dpProxy": {"type": "none"}, "zoneProxy": {"type": "none"}, "enableReloadableTokens": True},
            "hds": {"enabled": False},
            "readHeaderTimeout": "0s",
        },
        bootstrapServer={
            "params": {
                "adminAddress": "127.0.0.2",
                "adminPort": 9,
                "adminAccessLogPath": "/log",
                "envoyAdminUnixSocket": False,
                "xdsHost": "cp.example",
                "xdsPort": 7,
                "xdsConnectTimeout": "2s",
                "xdsGrpcMaxReceiveMessageBytes": 8,
                "corefileTemplatePath": "core",
            }
        },
    )
    told = dp_server.settings(config, prepare(config), 5678)
    assert told.admin == Admin(9, "127.0.0.2", "", "/log")
    assert (told.xds_host, told.xds_port, told.xds_connect_timeout) == ("cp.example", 7, timedelta(seconds=2))
    assert (told.max_receive_bytes, told.corefile_template) == (8, b"corefile")
    switches = (told.has_admin_socket, told.needs_dataplane_token, told.needs_zone_token, told.has_hds)
    assert switches == (False, False, False, False)
    assert told.has_reloadable_tokens
    assert dp_server.limits(config).head_s == math.inf
    plain = configured(tmp_path)
    told = dp_server.settings(plain, prepare(plain), 5678)
    assert (told.xds_host, told.xds_port, told.has_reloadable_tokens) == ("", 5678, False)
    assert told.has_admin_socket
    assert told.needs_dataplane_token
    assert told.needs_zone_token
    assert told.has_hds
    assert dp_server.limits(plain).head_s == 5


@pytest.mark.parametrize(
    ("interface", "address", "host"),
    [
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7"),
        ("::", "::1", "localhost"),
        ("10.0.0.8", "10.0.0.8", "localhost"),
    ],
)
def test_where_an_envoy_of_this_host_connects(tmp_path, interface, address, host):
    config = configured(tmp_path, dpServer={"interface": interface})
    at = dp_server.from_this_host(config, prepare(config), 5678)
    assert (at.address, at.host, at.port) == (address, host, 5678)


async def echo(stream: ServerStream) -> None:
    while (message := await stream.receive()) is not None:
        await stream.send(message)


async def test_one_port_serves_bootstraps_and_streams(tmp_path):
    config = configured(tmp_path, dpServer={"interface": "127.0.0.1", "port": 0})
    store = MemoryStore(lambda: NOW)
    await store.write([Put(decode_document(document, registry())) for document in (MESH, DATAPLANE)])
    metrics = RpcMetrics(CollectorRegistry())
    here = Latest(None)
    listener = DpListener(config, {"/t/echo": echo}, store, registry(), metrics, "vm-7", lambda: NOW, here)
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.run)
        at = here.value
        assert at is not None
        trust = ssl.create_default_context(cadata=at.ca_pem.decode())
        url = f"https://127.0.0.1:{at.port}"
        async with httpx.AsyncClient(verify=trust, headers={"accept": "application/json"}, base_url=url) as client:
            answer = await client.post("/bootstrap", json=REQUEST)
            missing = await client.post("/bootstrap", json=REQUEST | {"name": "web-2"})
            elsewhere = await client.get("/")
        async with open_channel("127.0.0.1", at.port, trust) as channel:
            assert await channel.unary("/t/echo", b"x") == b"x"
            with pytest.raises(RpcError) as caught:
                await channel.unary("/t/none", b"x")
        nursery.cancel_scope.cancel()
    document = json.loads(base64.b64decode(answer.json()["bootstrap"]))
    clusters = {cluster["name"]: cluster for cluster in document["staticResources"]["clusters"]}
    (endpoint,) = clusters["ads_cluster"]["loadAssignment"]["endpoints"][0]["lbEndpoints"]
    assert endpoint["endpoint"]["address"]["socketAddress"] == {"address": "127.0.0.1", "portValue": at.port}
    assert (missing.status_code, missing.content) == (404, b"")
    assert (elsewhere.status_code, elsewhere.text) == (404, "404: Page Not Found")
    assert caught.value.status is Status.UNIMPLEMENTED
