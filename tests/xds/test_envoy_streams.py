"""A real Envoy at both forms of the protocol: nothing is rejected, nothing stays warming, bad ones are isolated."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml

from meshd.discovery import Node
from meshd.xds.auth import Authn
from meshd.xds.hds import HealthSettings
from meshd.xds.resources import CLUSTER, LISTENER, resource
from meshd.xds.service import Settings
from tests.l4.envoy import binary
from tests.ports import free_port
from tests.xds.ads import WEB, Lab, cluster, document, endpoints, lab, listener

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
FORMS = pytest.mark.parametrize("form", ["GRPC", "DELTA_GRPC"])


def bootstrap(form: str, server: int, admin: int, node: Node, *, hds: bool) -> dict[str, Any]:
    grpc = {
        "apiType": form,
        "transportApiVersion": "V3",
        "setNodeOnFirstMessageOnly": True,
        "grpcServices": [{"envoyGrpc": {"clusterName": "ads_cluster"}}],
    }
    address = {"socketAddress": {"address": "127.0.0.1", "portValue": server}}
    h2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicitHttpConfig": {"http2ProtocolOptions": {}},
    }
    ads = {
        "name": "ads_cluster",
        "type": "STATIC",
        "connectTimeout": "1s",
        "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": h2},
        "loadAssignment": {
            "clusterName": "ads_cluster",
            "endpoints": [{"lbEndpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    source = {"ads": {}, "initialFetchTimeout": "0s", "resourceApiVersion": "V3"}
    services = {key: value for key, value in grpc.items() if key != "apiType"} | {"apiType": "GRPC"}
    return {
        "node": {"id": node.id, "cluster": "web", "metadata": node.metadata},
        "admin": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": admin}}},
        "dynamicResources": {"adsConfig": grpc, "cdsConfig": source, "ldsConfig": source},
        "staticResources": {"clusters": [ads]},
        **({"hdsConfig": services} if hds else {}),
    }


class Envoy:
    """A running Envoy as its admin API shows it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def get(self, path: str) -> str:
        answer = await self._http.get(path)
        return answer.text

    async def post(self, path: str) -> None:
        (await self._http.post(path)).raise_for_status()

    async def stats(self, *names: str) -> dict[str, int]:
        lines = (
            await self.get("/stats?usedonly=false&filter=" + "|".join(n.replace(".", r"\.") for n in names))
        ).splitlines()
        found = dict(line.split(": ", 1) for line in lines if ": " in line)
        return {name: int(found.get(name, 0)) for name in names}

    async def clusters(self) -> dict[str, str]:
        """Active clusters by name, with their connect timeouts."""
        dump = json.loads(await self.get("/config_dump?resource=dynamic_active_clusters"))
        found = [c["cluster"] for c in dump.get("configs", [])]
        return {c["name"]: c["connect_timeout"] for c in found}

    async def endpoints(self, name: str) -> list[int]:
        shown = json.loads(await self.get("/clusters?format=json"))
        return sorted(
            h["address"]["socket_address"]["port_value"]
            for c in shown["cluster_statuses"]
            if c["name"] == name
            for h in c.get("host_statuses", [])
        )

    async def listeners(self) -> set[str]:
        shown = json.loads(await self.get("/listeners?format=json"))
        return {item["name"] for item in shown.get("listener_statuses", [])}

    async def rejected(self) -> int:
        found = await self.stats("cluster_manager.cds.update_rejected", "listener_manager.lds.update_rejected")
        return sum(found.values())

    async def eventually(self, wanted: Any, of: Callable[[], Any], seconds: float = 10) -> None:
        """Wait until ``of`` gives what is wanted."""
        seen: Any = None
        with trio.move_on_after(seconds):
            while True:
                try:
                    seen = await of()
                except (httpx.HTTPError, json.JSONDecodeError, KeyError) as error:
                    seen = error
                if seen == wanted:
                    return
                await trio.sleep(0.02)
        assert seen == wanted


@asynccontextmanager
async def on_socket(it: Lab, port: int) -> AsyncIterator[None]:
    """The lab's newest control plane at a port."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(it.grpc.serve, listeners)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def envoy(
    form: str, server: int, node: Node, directory: Path, *, hds: bool = False, admin: int = 0
) -> AsyncIterator[Envoy]:
    admin = admin or free_port()
    config = directory / f"envoy-{admin}.yaml"
    config.write_text(yaml.safe_dump(bootstrap(form, server, admin, node, hds=hds)))
    command = [binary(), "-c", str(config), "--disable-hot-restart", "-l", "warning", "--concurrency", "1"]
    with (directory / "envoy.log").open("wb") as log:
        process = await trio.lowlevel.open_process(command, stdout=log, stderr=log)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin}") as http:
                yield Envoy(http)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def who() -> Node:
    return Node("default.web-1", metadata={"dataplane.resource": json.dumps(document())})


@FORMS
async def test_a_cluster_that_changes_does_not_stay_warming(form: str, tmp_path: Path) -> None:
    port, inbound = free_port(), free_port()
    async with lab() as it:
        layer = it.shelf.layer
        layer.put([listener("in", inbound)])
        async with on_socket(it, port), envoy(form, port, who(), tmp_path) as proxy:
            await proxy.eventually({"a": "1s", "b": "1s"}, proxy.clusters)
            await proxy.eventually({"in"}, proxy.listeners)
            assert await proxy.endpoints("a") == [1]
            layer.put([cluster("a", "2s")])
            await proxy.eventually({"a": "2s", "b": "1s"}, proxy.clusters)
            assert await proxy.stats("cluster_manager.warming_clusters") == {"cluster_manager.warming_clusters": 0}
            layer.put([endpoints("a", 1, 3)])
            await proxy.eventually([1, 3], lambda: proxy.endpoints("a"))
            # everything at once, with the order of events that a new route makes
            layer.put([cluster("c"), endpoints("c", 7), cluster("a", "3s"), listener("in", inbound, "c")])
            layer.remove(CLUSTER, ["b"])
            await proxy.eventually({"a": "3s", "c": "1s"}, proxy.clusters)
            assert await proxy.endpoints("c") == [7]
            assert await proxy.rejected() == 0
            await trio.sleep(0.3)
            outcomes = it.counted("meshd_xds_responses_total", "outcome")
            assert outcomes["ack"] == outcomes["sent"]
            assert "nack" not in outcomes


@FORMS
@pytest.mark.parametrize("how", ["named", "whole"])
async def test_a_bad_cluster_leaves_the_others_in_place(form: str, how: str, tmp_path: Path) -> None:
    port = free_port()
    eds = {"edsConfig": {"ads": {}, "resourceApiVersion": "V3"}}
    bad = {"name": "bad", "type": "EDS", "connectTimeout": "1s"}
    if how == "whole":
        bad |= {"connectTimeout": "-1s", "edsClusterConfig": eds}
    async with lab() as it:
        layer = it.shelf.layer
        layer.remove(LISTENER, ["in"])
        layer.put([resource(CLUSTER, bad)])
        async with on_socket(it, port), envoy(form, port, who(), tmp_path) as proxy:
            await proxy.eventually({"a": "1s", "b": "1s"}, proxy.clusters)
            layer.put([cluster("a", "2s"), resource(CLUSTER, {**bad, "altStatName": "still_bad"}), cluster("z")])
            layer.put([endpoints("z", 9)])
            await proxy.eventually({"a": "2s", "b": "1s", "z": "1s"}, proxy.clusters)
            await trio.sleep(0.3)
            refused = it.insight().metadata["refused"]
            assert list(refused) == ["Cluster bad"]
            count = await proxy.rejected()
            await trio.sleep(1)
            assert await proxy.rejected() == count
            good = {**bad, "connectTimeout": "1s", "edsClusterConfig": eds}
            layer.put([resource(CLUSTER, good), endpoints("bad", 4)])
            await proxy.eventually([4], lambda: proxy.endpoints("bad"))
            await trio.sleep(0.3)
            assert it.insight().metadata is None


@FORMS
async def test_a_bad_listener_leaves_the_others_in_place(form: str, tmp_path: Path) -> None:
    port, inbound, other = free_port(), free_port(), free_port()
    async with lab() as it:
        layer = it.shelf.layer
        layer.put([listener("in", inbound), listener("out", other)])
        async with on_socket(it, port), envoy(form, port, who(), tmp_path) as proxy:
            await proxy.eventually({"in", "out"}, proxy.listeners)
            assert it.xds.accepted(WEB, "type.googleapis.com/envoy.config.listener.v3.Listener").keys() == {"in", "out"}
            document = {
                "name": "in",
                "address": {"socketAddress": {"address": "no address", "portValue": 1}},
                "filterChains": [{"filters": []}],
            }
            layer.put([resource("type.googleapis.com/envoy.config.listener.v3.Listener", document)])
            layer.put([listener("more", free_port())])
            await proxy.eventually({"in", "out", "more"}, proxy.listeners)
            await trio.sleep(0.3)
            assert list(it.insight().metadata["refused"]) == ["Listener in"]
            layer.put([listener("in", inbound, "b")])
            await trio.sleep(0.5)
            assert it.insight().metadata is None


@FORMS
async def test_a_restart_of_the_control_plane_sends_nothing(form: str, tmp_path: Path) -> None:
    port, inbound = free_port(), free_port()
    async with lab() as it:
        it.shelf.layer.put([listener("in", inbound)])
        async with envoy(form, port, who(), tmp_path) as proxy:
            async with on_socket(it, port):
                await proxy.eventually({"in"}, proxy.listeners)
                await proxy.eventually({"a": "1s", "b": "1s"}, proxy.clusters)
            async with it.running(), on_socket(it, port):
                with trio.fail_after(20):
                    while len(it.insight().subscriptions) < 2 or not it.insight().is_online:
                        await trio.sleep(0.05)
                await trio.sleep(0.5)
                sent = it.counted("meshd_xds_resources_sent_total", "type")
                assert sum(sent.values()) == 0, sent
                it.shelf.layer.put([endpoints("a", 1, 3)])
                await proxy.eventually([1, 3], lambda: proxy.endpoints("a"))
                assert await proxy.rejected() == 0


async def test_a_service_probe_decides_whether_an_inbound_is_ready(tmp_path: Path) -> None:
    port, application = free_port(), free_port()
    probed = {"port": 80, "servicePort": application, "serviceAddress": "127.0.0.1", "serviceProbe": {"tcp": {}}}
    passed = document()
    passed["networking"]["inbound"] = [
        {**probed, "tags": {"kuma.io/service": "web"}},
        {"port": 81, "tags": {"kuma.io/service": "b"}},
    ]
    settings = replace(Settings(Authn("zone-1", False, False)), health=HealthSettings(report=timedelta(seconds=1)))

    async def states(it: Lab) -> list[str]:
        return [i.state.value for i in it.dataplane().networking.inbound]

    async with lab(settings=settings) as it, on_socket(it, port):
        admin = free_port()
        metadata = {"dataplane.resource": json.dumps(passed), "dataplane.admin.port": str(admin)}
        who = Node("default.web-1", metadata=metadata)
        async with envoy("DELTA_GRPC", port, who, tmp_path, hds=True, admin=admin) as proxy:
            with trio.fail_after(10):
                while it.dataplane() is None:
                    await trio.sleep(0.02)
            assert await states(it) == ["NotReady", "Ready"]
            listeners = await trio.open_tcp_listeners(application, host="127.0.0.1")
            await proxy.eventually(["Ready", "Ready"], lambda: states(it))
            for item in listeners:
                await item.aclose()
            await proxy.eventually(["NotReady", "Ready"], lambda: states(it))
            # an Envoy that drains takes all of its inbounds along
            await proxy.post("/healthcheck/fail")
            await proxy.eventually(["NotReady", "NotReady"], lambda: states(it))
            await proxy.post("/healthcheck/ok")
            await proxy.eventually(["NotReady", "Ready"], lambda: states(it))


@FORMS
async def test_of_many_bad_listeners_every_one_is_known(form: str, tmp_path: Path) -> None:
    """Envoy's complaint about them is longer than what it says of it."""
    port, taken = free_port(), free_port()
    async with lab() as it:
        layer = it.shelf.layer
        layer.remove(LISTENER, ["in"])
        layer.put([listener("first", taken)])
        async with on_socket(it, port), envoy(form, port, who(), tmp_path) as proxy:
            await proxy.eventually({"first"}, proxy.listeners)
            layer.put([listener(f"bad-{n:02}", taken, "b") for n in range(40)])
            layer.put([listener(f"good-{n}", free_port()) for n in range(3)])
            await proxy.eventually({"first", "good-0", "good-1", "good-2"}, proxy.listeners)

            async def refused() -> set[str]:
                insight = it.insight()
                return set(insight.metadata["refused"]) if insight is not None and insight.metadata else set()

            await proxy.eventually({f"Listener bad-{n:02}" for n in range(40)}, refused)
