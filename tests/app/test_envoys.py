"""What becomes of Envoys, and how they are started."""

from pathlib import Path

import pytest

from meshd.app.envoys import bootstrap_params, is_kept, options, system_ca
from meshd.config.tree import OnStop, ProxyEntry
from meshd.envoy.command import Version
from meshd.envoy.service import Surroundings
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.resource import Resource, ResourceKey
from meshd.xds.bootstrap import ControlPlaneAt, bootstrap_document

WEB = ResourceKey("Dataplane", "default", "web-1")
INGRESS = ResourceKey("ZoneIngress", "", "in")
TO = ControlPlaneAt("127.0.0.1", 5678, b"ca")

STOP = {"stopped": True, "by_hand": False, "started": True, "adopted": False}


@pytest.mark.parametrize(
    ("on_stop", "change", "kept"),
    [
        (OnStop.DRAIN, {}, False),
        (OnStop.DRAIN, {"adopted": True}, False),
        (OnStop.KEEP, {}, True),
        (OnStop.KEEP, {"by_hand": True}, False),
        (OnStop.KEEP, {"started": False}, True),
        # nobody stopped it: it fails
        (OnStop.DRAIN, {"stopped": False}, True),
        (OnStop.DRAIN, {"stopped": False, "started": False}, False),
        (OnStop.DRAIN, {"stopped": False, "started": False, "adopted": True}, True),
        (OnStop.KEEP, {"stopped": False, "started": False}, False),
    ],
)
def test_who_goes_on_without_meshd(on_stop, change, kept):
    assert is_kept(on_stop, **{**STOP, **change}) is kept


def test_options(tmp_path):
    program = tmp_path / "envoy"
    program.write_text("")
    program.chmod(0o755)
    entry = ProxyEntry.model_validate(
        {"engine": "envoy", "binary": str(program), "concurrency": 3, "logLevel": "debug"}
    )
    found = options(entry, 7.5, {})
    assert (found.binary, found.drain_s, found.log_level, found.concurrency) == (program, 7.5, "debug", 3)
    program.unlink()
    assert options(entry, 1, {}).binary == program  # it may come back


def test_options_that_are_left_out(monkeypatch):
    monkeypatch.setattr("meshd.app.envoys.wheel_binary", lambda: None)
    found = options(ProxyEntry.model_validate({"engine": "envoy"}), 1, {"PATH": ""})
    assert (found.binary, found.log_level, found.concurrency) == (Path("envoy"), "warning", None)


def about(proxy):
    version = Version("1.40.0", "0a/1.40.0/Clean")
    return Surroundings(proxy, Path("/s/x/admin.sock"), Path("/s/x"), "meshd-internal-00", version)


def web(**networking):
    inbounds = [{"port": 80, "servicePort": 81, "tags": {"kuma.io/service": s}} for s in ("web", "api")]
    spec = {"networking": {"address": "10.0.0.1", "inbound": inbounds, **networking}}
    return Resource(WEB, Dataplane.model_validate(spec))


def document(proxy, resource, **also):
    options = {"owns_vips": False, "has_hds": True, "system_ca": "/ca.crt"} | also
    return bootstrap_document(bootstrap_params(about(proxy), TO, resource, **options))


def test_the_bootstrap_of_a_dataplane():
    found = document(WEB, web())
    assert found["node"]["id"] == "default.web-1"
    assert found["node"]["cluster"] == "api"
    metadata = found["node"]["metadata"]
    assert metadata["features"] == ["feature-delta-grpc", "feature-reuse-port", "feature-strict-inbound-ports"]
    assert metadata["version"] == {"envoy": {"version": "1.40.0", "build": "0a/1.40.0/Clean"}}
    assert metadata["dataplane.admin.socketPath"] == "/s/x/admin.sock"
    assert metadata["dataplane.admin.port"] == "0"
    assert metadata["systemCaPath"] == "/ca.crt"
    assert "dataplane.resource" not in metadata
    assert found["admin"]["address"] == {"pipe": {"path": "/s/x/admin.sock", "mode": 0o600}}
    ads = found["dynamicResources"]["adsConfig"]
    assert ads["apiType"] == "DELTA_GRPC"
    assert ads["grpcServices"][0]["initialMetadata"] == [{"key": "authorization", "value": "meshd-internal-00"}]
    assert "hdsConfig" in found
    assert document(WEB, web()) == found


def test_the_owner_of_the_vips_binds_them():
    assert document(WEB, web(), owns_vips=True)["node"]["metadata"]["features"][-1] == "feature-bind-outbounds"


def test_an_admin_port_of_the_resource_is_told():
    assert document(WEB, web(admin={"port": 9902}))["node"]["metadata"]["dataplane.admin.port"] == "9902"


def test_the_bootstrap_of_an_ingress():
    found = document(INGRESS, Resource(INGRESS, ZoneIngress()))
    assert (found["node"]["id"], found["node"]["cluster"]) == (".in", "ingress")
    assert found["node"]["metadata"]["dataplane.proxyType"] == "ingress"
    assert "hdsConfig" not in found


def test_one_that_has_just_gone_has_a_bootstrap_all_the_same():
    assert document(WEB, None)["node"]["cluster"] == "dataplane"


def test_without_hds():
    assert "hdsConfig" not in document(WEB, web(), has_hds=False)


def test_the_authorities_of_this_host_are_a_file_or_nothing():
    assert not system_ca() or Path(system_ca()).is_file()
