"""Google's own gRPC and protobuf as clients of the control plane, over a socket."""

import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import trio

from meshd.discovery import Rejection
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER
from meshd.xds.server import DELTA_AGGREGATED, STREAM_AGGREGATED
from tests.discovery import reference
from tests.ports import free_port
from tests.xds.ads import cluster, document, endpoints, lab, listener, node
from tests.xds.test_envoy_streams import on_socket

pytestmark = pytest.mark.e2e
SILENCE_S = 0.3


class Client:
    """One stream of grpcio, whose threads are its own; to be used in a thread."""

    def __init__(self, port: int, path: str, request: Any, response: Any) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._requests: queue.Queue[Any] = queue.Queue()
        self._responses: queue.Queue[Any] = queue.Queue()
        self._request = request
        call = self._channel.stream_stream(path, lambda m: m.SerializeToString(), response.FromString)
        self._call = call(iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        who = node(passed=document())
        self._node = reference.Request().node
        self._node.id = who.id
        self._node.metadata.update(who.metadata)

    def _read(self) -> None:
        try:
            for response in self._call:
                self._responses.put(response)
        except grpc.RpcError as error:
            self._responses.put(error)

    def send(self, *, with_node: bool = False, error: Rejection | None = None, **fields: Any) -> None:
        request = self._request(**fields)
        if with_node:
            request.node.CopyFrom(self._node)
        if error is not None:
            request.error_detail.code, request.error_detail.message = error.code, error.message
        self._requests.put(request)

    def take(self) -> Any:
        got = self._responses.get(timeout=10)
        if isinstance(got, Exception):
            raise got
        return got

    def is_silent(self) -> bool:
        try:
            self._responses.get(timeout=SILENCE_S)
        except queue.Empty:
            return True
        return False

    def close(self) -> None:
        self._call.cancel()
        self._requests.put(None)
        self._reader.join()
        self._channel.close()


def client(port: int, path: str) -> Client:
    delta = path == DELTA_AGGREGATED
    types = (reference.Request, reference.Response) if delta else (reference.StateRequest, reference.StateResponse)
    return Client(port, path, *types)


def named(response: Any) -> tuple[str, list[str], list[str]]:
    return response.type_url, [r.name for r in response.resources], list(response.removed_resources)


Publish = Callable[..., None]


@asynccontextmanager
async def served() -> AsyncIterator[Callable[[str, Callable[[Client, Publish], None]], Awaitable[None]]]:
    """A control plane at a port; gives ``converse(path, talk)``, which runs ``talk`` with a client in a thread."""
    port = free_port()
    async with lab() as it, on_socket(it, port):

        def publish(*resources: Any) -> None:
            trio.from_thread.run_sync(it.shelf.layer.put, resources)

        def with_client(path: str, talk: Callable[[Client, Publish], None]) -> None:
            proxy = client(port, path)
            try:
                talk(proxy, publish)
            finally:
                proxy.close()

        async def converse(path: str, talk: Callable[[Client, Publish], None]) -> None:
            await trio.to_thread.run_sync(with_client, path, talk)

        yield converse


# ---------------------------------------------------------------- delta


async def test_delta_subscriptions() -> None:
    def talk(proxy: Client, publish: Publish) -> None:
        proxy.send(type_url=CLUSTER, with_node=True)
        first = proxy.take()
        assert named(first) == (CLUSTER, ["a", "b"], [])
        assert first.control_plane.identifier == "cp-1"
        assert first.resources[0].resource.type_url == CLUSTER
        proxy.send(type_url=CLUSTER, response_nonce=first.nonce)
        proxy.send(type_url=ENDPOINTS, resource_names_subscribe=["a", "none"])
        second = proxy.take()
        assert named(second) == (ENDPOINTS, ["a"], ["none"])
        proxy.send(type_url=ENDPOINTS, response_nonce=second.nonce)
        publish(endpoints("b", 7), endpoints("a", 8))
        third = proxy.take()
        assert named(third) == (ENDPOINTS, ["a"], [])
        proxy.send(type_url=ENDPOINTS, response_nonce=third.nonce, resource_names_subscribe=["b"])
        fourth = proxy.take()
        assert named(fourth) == (ENDPOINTS, ["b"], [])
        proxy.send(type_url=ENDPOINTS, response_nonce=fourth.nonce, resource_names_unsubscribe=["a"])
        publish(endpoints("a", 9))
        assert proxy.is_silent()

    async with served() as converse:
        await converse(DELTA_AGGREGATED, talk)


async def test_delta_nack() -> None:
    def talk(proxy: Client, publish: Publish) -> None:
        proxy.send(type_url=CLUSTER, with_node=True)
        proxy.send(type_url=CLUSTER, response_nonce=proxy.take().nonce)
        publish(cluster("a", "2s"))
        reason = Rejection("Error adding/updating cluster(s) a: bad", 13)
        proxy.send(type_url=CLUSTER, response_nonce=proxy.take().nonce, error=reason)
        assert proxy.is_silent()
        publish(cluster("b", "2s"))
        response = proxy.take()
        assert named(response) == (CLUSTER, ["b"], [])
        proxy.send(type_url=CLUSTER, response_nonce=response.nonce)
        publish(cluster("a", "3s"))
        assert named(proxy.take()) == (CLUSTER, ["a"], [])

    async with served() as converse:
        await converse(DELTA_AGGREGATED, talk)


async def test_delta_reconnect() -> None:
    held: dict[str, str] = {}

    def talk(proxy: Client, publish: Publish) -> None:
        proxy.send(type_url=CLUSTER, with_node=True)
        response = proxy.take()
        proxy.send(type_url=CLUSTER, response_nonce=response.nonce)
        held.update({r.name: r.version for r in response.resources})

    def talk_again(proxy: Client, publish: Publish) -> None:
        proxy.send(type_url=CLUSTER, with_node=True, initial_resource_versions={**held, "gone": "1"})
        answer = proxy.take()
        assert named(answer) == (CLUSTER, [], [])  # nothing that is current
        proxy.send(type_url=CLUSTER, response_nonce=answer.nonce)
        assert named(proxy.take()) == (CLUSTER, [], ["gone"])

    async with served() as converse:
        await converse(DELTA_AGGREGATED, talk)
        await converse(DELTA_AGGREGATED, talk_again)


# ---------------------------------------------------------------- state of the world


async def test_sotw_subscriptions() -> None:
    def talk(proxy: Client, publish: Publish) -> None:
        proxy.send(type_url=CLUSTER, with_node=True)
        first = proxy.take()
        assert (first.type_url, len(first.resources)) == (CLUSTER, 2)
        proxy.send(type_url=CLUSTER, version_info=first.version_info, response_nonce=first.nonce)
        proxy.send(type_url=ENDPOINTS, resource_names=["a"])
        second = proxy.take()
        assert (second.type_url, len(second.resources)) == (ENDPOINTS, 1)
        done = {"version_info": second.version_info, "response_nonce": second.nonce}
        proxy.send(type_url=ENDPOINTS, resource_names=["a"], **done)
        assert proxy.is_silent()
        # changed names are answered at once, a stale nonce is not
        proxy.send(type_url=ENDPOINTS, resource_names=["a", "b"], **{**done, "response_nonce": "stale"})
        assert proxy.is_silent()
        proxy.send(type_url=ENDPOINTS, resource_names=["a", "b"], **done)
        third = proxy.take()
        assert len(third.resources) == 1
        done = {"version_info": third.version_info, "response_nonce": third.nonce}
        proxy.send(type_url=ENDPOINTS, resource_names=["b"], **done)
        publish(endpoints("a", 9))
        assert proxy.is_silent()

    async with served() as converse:
        await converse(STREAM_AGGREGATED, talk)


async def test_sotw_nack() -> None:
    def talk(proxy: Client, publish: Publish) -> None:
        proxy.send(type_url=LISTENER, with_node=True)
        first = proxy.take()
        proxy.send(type_url=LISTENER, version_info=first.version_info, response_nonce=first.nonce)
        publish(listener("in", 1001))
        rejected = proxy.take()
        nonce = rejected.nonce
        proxy.send(type_url=LISTENER, version_info=first.version_info, response_nonce=nonce, error=Rejection("no", 13))
        assert proxy.is_silent()
        publish(listener("out", 1002))
        response = proxy.take()
        # what was rejected is not in it, what was there before is
        assert len(response.resources) == 2
        assert first.resources[0].value in [r.value for r in response.resources]

    async with served() as converse:
        await converse(STREAM_AGGREGATED, talk)


async def test_sotw_reconnect() -> None:
    versions: list[str] = []

    def talk(proxy: Client, publish: Publish) -> None:
        proxy.send(type_url=CLUSTER, with_node=True)
        response = proxy.take()
        proxy.send(type_url=CLUSTER, version_info=response.version_info, response_nonce=response.nonce)
        versions.append(response.version_info)

    def talk_again(proxy: Client, publish: Publish) -> None:
        proxy.send(type_url=CLUSTER, with_node=True, version_info=versions[0])
        assert proxy.is_silent()
        publish(cluster("c"))
        assert len(proxy.take().resources) == 3

    async with served() as converse:
        await converse(STREAM_AGGREGATED, talk)
        await converse(STREAM_AGGREGATED, talk_again)


@pytest.mark.parametrize(
    "path",
    [
        DELTA_AGGREGATED.replace("Delta", "Fetch"),
        "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
        "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters",
        "/envoy.service.health.v3.HealthDiscoveryService/FetchHealthCheck",
    ],
)
async def test_no_other_method_answers_anybody(path: str) -> None:
    def talk(proxy: Client, publish: Publish) -> None:
        proxy.send(type_url=CLUSTER, with_node=True)
        with pytest.raises(grpc.RpcError) as caught:
            proxy.take()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    async with served() as converse:
        await converse(path, talk)
