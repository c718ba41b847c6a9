"""A zone towards a global that does, and does not, behave."""

import logging
import random
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry
from trio.testing import memory_stream_pair

from meshd.discovery import DeltaRequest, DeltaResponse, Entry, wire
from meshd.discovery.fields import bytes_field, varint_field
from meshd.discovery.wire import any_bytes
from meshd.kds.client import COPIES_FIRST_S, MAX_BACKOFF_S, ZoneKds, client_context, connector, interval_s
from meshd.kds.crossing import NODE_FEATURES, to_zone
from meshd.kds.envelope import encode
from meshd.kds.server import GLOBAL_TO_ZONE, HEALTH_CHECK, ZONE_TO_GLOBAL
from meshd.model import codec
from meshd.model.errors import DeniedError
from meshd.rpc import GrpcServer, RpcError, RpcMetrics, Status, channel_over
from meshd.runtime.tls_files import TlsFilesError
from meshd.store.memory import MemoryStore
from meshd.store.store import Put
from tests.kds.lab import REGISTRY, control_plane, dataplane, lab, mesh, now


class Scripted:
    """A global whose calls do what a test says, and that remembers what it was told."""

    def __init__(self) -> None:
        self.metadata: dict[str, tuple] = {}
        self.opened: list[str] = []
        self.requests: list[DeltaRequest] = []
        self.responses: list[DeltaResponse] = []
        self.down = trio.Event()
        self.down_stream = None
        self.up_stream = None

    async def global_to_zone(self, stream) -> None:
        self.metadata[GLOBAL_TO_ZONE] = stream.metadata
        self.opened.append(GLOBAL_TO_ZONE)
        self.down_stream = stream
        while (data := await stream.receive()) is not None:
            self.requests.append(wire.decode_request(data))

    async def zone_to_global(self, stream) -> None:
        self.opened.append(ZONE_TO_GLOBAL)
        self.up_stream = stream
        while (data := await stream.receive()) is not None:
            self.responses.append(wire.decode_response(data))

    async def health_check(self, stream) -> None:
        self.opened.append(HEALTH_CHECK)
        await stream.receive()
        await stream.send(bytes_field(1, varint_field(1, 30)))


@asynccontextmanager
async def zone(script: Scripted, *, token=lambda: None, handlers: dict | None = None):
    """A running zone whose global is ``script``; yields its service and store."""
    store = MemoryStore(now)
    handlers = {
        GLOBAL_TO_ZONE: script.global_to_zone,
        ZONE_TO_GLOBAL: script.zone_to_global,
        HEALTH_CHECK: script.health_check,
        **(handlers or {}),
    }
    server = GrpcServer(handlers, None, metrics=RpcMetrics(CollectorRegistry()))
    async with trio.open_nursery() as nursery:

        @asynccontextmanager
        async def dial():
            ours, theirs = memory_stream_pair()
            nursery.start_soon(server.serve_connection, theirs, "10.0.0.1:1")
            async with channel_over(ours) as channel:
                yield channel

        kds = ZoneKds(control_plane(store, "z-1"), "zone-1", dial, random.Random(1), token=token)
        await nursery.start(lambda task_status: kds.run(task_status=task_status))
        yield kds, store
        nursery.cancel_scope.cancel()


async def send(script: Scripted, response: DeltaResponse) -> None:
    await script.down_stream.send(wire.encode_response(response))
    await trio.sleep(0.1)


def entry(document: dict) -> Entry:
    type_ = REGISTRY[document["type"]]
    return encode(type_, to_zone(type_, codec.decode_document(document, REGISTRY)))


async def test_it_introduces_itself_as_kuma_zones_do(autojump_clock) -> None:
    script = Scripted()
    async with zone(script, token=lambda: "secret-token"):
        await trio.sleep(0.1)
        assert script.metadata[GLOBAL_TO_ZONE] == (
            ("client-id", "zone-1"),
            ("kds-version", "v3"),
            ("version", "2.14.3"),
            ("features", "zone-ping-health"),
            ("features", "hash-suffix"),
            ("authorization", "secret-token"),
        )
        kinds = {r.type_url for r in script.requests}
        assert {"Mesh", "ZoneIngress", "Secret", "MeshTrafficPermission"} <= kinds
        assert not kinds & {"Dataplane", "Zone", "ZoneInsight", "MeshInsight"}
        assert len(script.requests) == len(kinds)
        for request in script.requests:
            assert (request.subscribe, request.nonce, request.node.id) == (("*",), "", "zone-1")
            assert request.node.metadata["features"] == list(NODE_FEATURES)
            assert request.node.metadata["version"]["kumaCp"]["version"] == "2.14.3"
            assert '"store"' in request.node.metadata["config"]
        assert HEALTH_CHECK in script.opened


async def test_every_answer_carries_the_node(autojump_clock) -> None:
    script = Scripted()
    async with zone(script) as (kds, store):
        await trio.sleep(0.1)
        script.requests.clear()
        await send(script, DeltaResponse("Mesh", (entry(mesh()),), nonce="5"))
        [ack] = script.requests
        assert (ack.type_url, ack.nonce, ack.error, ack.subscribe) == ("Mesh", "5", None, ())
        assert ack.node.id == "zone-1"
        assert [m.key.name for m in store.list("Mesh")] == ["default"]
        assert kds.status.value.connected
        assert not kds.status.value.synced


async def test_one_bad_resource_is_nacked_and_the_rest_applied(autojump_clock) -> None:
    script = Scripted()
    async with zone(script) as (kds, store):
        await trio.sleep(0.1)
        script.requests.clear()
        broken = Entry("bad.", "", any_bytes("type.googleapis.com/kuma.mesh.v1alpha1.KumaResource", b"\xff"))
        await send(script, DeltaResponse("Mesh", (entry(mesh()), broken), nonce="5"))
        [nack] = script.requests
        assert "Mesh bad" in nack.error.message
        assert nack.subscribe == ("*",)
        assert [m.key.name for m in store.list("Mesh")] == ["default"]
        [held] = kds.quarantine.items.value
        assert (held.zone, held.kind, held.name) == ("zone-1", "Mesh", "bad")
        await send(script, DeltaResponse("Mesh", removed=("bad.",), nonce="6"))
        assert kds.quarantine.items.value == ()


@pytest.mark.parametrize(
    "breakage",
    [b"\xff\xff\xff", wire.encode_response(DeltaResponse("Zone", nonce="1"))],
    ids=["garbage", "a kind that was not asked for"],
)
async def test_a_broken_message_ends_the_connection_and_it_comes_back(autojump_clock, breakage: bytes) -> None:
    script = Scripted()
    async with zone(script) as (kds, _):
        await trio.sleep(0.1)
        await script.down_stream.send(breakage)
        await trio.sleep(0.05)
        assert "DeltaDiscoveryResponse" in kds.status.value.error
        await trio.sleep(5)
        assert script.opened.count(GLOBAL_TO_ZONE) == 2


@pytest.mark.parametrize("path", [GLOBAL_TO_ZONE, ZONE_TO_GLOBAL])
async def test_a_clean_end_of_a_stream_restarts_all(autojump_clock, path: str) -> None:
    script = Scripted()
    ended = []

    async def end_once(stream) -> None:
        if not ended:
            ended.append(path)
            await trio.sleep(1)
            return
        await (script.global_to_zone if path == GLOBAL_TO_ZONE else script.zone_to_global)(stream)

    async with zone(script, handlers={path: end_once}):
        await trio.sleep(30)
        other = ZONE_TO_GLOBAL if path == GLOBAL_TO_ZONE else GLOBAL_TO_ZONE
        assert script.opened.count(other) == 2
        assert script.opened.count(path) == 1


async def test_after_an_upload_that_the_global_failed_on_its_resources_come_first(autojump_clock) -> None:
    """They may say what it failed on."""
    script, failed = Scripted(), []

    async def fail_once(stream) -> None:
        if not failed:
            failed.append(trio.current_time())
            raise RpcError(Status.INTERNAL, "stream failed")
        await script.zone_to_global(stream)

    async with zone(script, handlers={ZONE_TO_GLOBAL: fail_once}) as (kds, _):
        await trio.sleep(2)
        assert script.opened.count(GLOBAL_TO_ZONE) == 2
        assert ZONE_TO_GLOBAL not in script.opened
        for number, kind in enumerate({r.type_url for r in script.requests}):
            await script.down_stream.send(wire.encode_response(DeltaResponse(kind, nonce=str(number))))
        await trio.sleep(0.1)
        assert kds.status.value.synced
        assert script.opened.count(ZONE_TO_GLOBAL) == 1


async def test_an_upload_does_not_wait_for_ever_for_a_global_that_has_nothing_to_say(autojump_clock) -> None:
    script, failed = Scripted(), []

    async def fail_once(stream) -> None:
        if not failed:
            failed.append(trio.current_time())
            raise RpcError(Status.INTERNAL, "stream failed")
        await script.zone_to_global(stream)

    async with zone(script, handlers={ZONE_TO_GLOBAL: fail_once}):
        await trio.sleep(COPIES_FIRST_S + 2)
        assert script.opened.count(ZONE_TO_GLOBAL) == 1


async def test_a_global_without_health_checks_is_fine(autojump_clock) -> None:
    async def unimplemented(stream) -> None:
        raise RpcError(Status.UNIMPLEMENTED, "no")

    script = Scripted()
    async with zone(script, handlers={HEALTH_CHECK: unimplemented}):
        await trio.sleep(100)
        assert sorted(script.opened) == [GLOBAL_TO_ZONE, ZONE_TO_GLOBAL]


async def test_health_checks_come_as_often_as_the_global_asks(autojump_clock) -> None:
    script = Scripted()
    async with zone(script):
        await trio.sleep(95)
        assert script.opened.count(HEALTH_CHECK) == 4


async def test_a_refusal_is_in_the_status_word_for_word(autojump_clock) -> None:
    async with lab("global", admitted=()) as it:
        await it.start("zone-a")
        await it.settle(5)
        status = it.zone_kds("zone-a").status.value
        assert not status.connected
        assert "zone 'zone-a' shows no zone token" in status.error


async def test_a_refusal_is_not_told_once_more_by_each_stream(autojump_clock, caplog) -> None:
    caplog.set_level(logging.INFO)
    async with lab("global", admitted=()) as it:
        await it.start("zone-a")
        await it.settle(60)
        told = [r for r in caplog.records if "shows no zone token" in r.getMessage()]
        assert {r.name for r in told} == {"meshd.kds.client", "meshd.kds.server"}


def warned(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def test_one_loss_is_one_warning(autojump_clock, caplog) -> None:
    caplog.set_level(logging.INFO)
    async with lab("global", "zone-a") as it:
        await it.settle()
        await it.stop("global")
        await it.settle(120)
        [lost] = [line for line in warned(caplog) if line.startswith("zone=zone-a ")]
        assert lost.startswith("zone=zone-a lost its global: ")
        assert "RpcError" not in caplog.text
        assert "zone=zone-a cannot reach its global" in caplog.text
        offline = [r.levelname for r in caplog.records if r.getMessage().startswith("zone=zone-a is offline")]
        assert offline == ["INFO"], "a global that is stopped expects it"


async def test_a_zone_that_is_stopped_warns_of_nothing(autojump_clock, caplog) -> None:
    async with lab("global", "zone-a") as it:
        await it.settle()
        caplog.clear()
        await it.stop("zone-a")
        assert [line for line in warned(caplog) if " is offline" not in line] == []
        assert len([line for line in warned(caplog) if "zone=zone-a is offline" in line]) == 1, "the global does"


async def test_a_global_that_was_never_there_is_a_warning(autojump_clock, caplog) -> None:
    async with lab("zone-a") as it:
        await it.settle(120)
        [line] = warned(caplog)
        assert line.startswith("zone=zone-a cannot reach its global: ")


async def test_a_zone_calls_nobody_until_its_token_is_there(autojump_clock, caplog) -> None:
    caplog.set_level(logging.INFO)
    script = Scripted()
    reads: list[str | Exception] = [OSError("tokenFile: no such file"), UnicodeError("tokenFile: no text"), "", " \n"]

    def read() -> str:
        if not reads:
            return "a.b.c\n"
        now = reads.pop(0) if len(reads) > 1 or trio.current_time() > 60 else reads[0]
        if isinstance(now, Exception):
            raise now
        return now

    async with zone(script, token=read) as (kds, _):
        await trio.sleep(0.5)
        assert kds.status.value.error == "tokenFile: no such file"
        await trio.sleep(59)
        assert kds.status.value.error == "the zone token is empty"
        assert not script.opened
        assert len([r for r in caplog.records if "does not call" in r.getMessage()]) == 3, "once a reason"
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING], "it is normal that a token comes later"
        await trio.sleep(3)
        assert ("authorization", "a.b.c") in script.metadata[GLOBAL_TO_ZONE]


async def test_a_zone_works_on_without_its_global(autojump_clock) -> None:
    async with lab("global", "zone-a") as it:
        await it.put("global", mesh())
        await it.settle()
        await it.stop("global")
        await it.put("zone-a", dataplane("dp"))
        await it.settle(600)
        assert it.names("zone-a", "Mesh") == ["default"]
        assert it.names("zone-a", "Dataplane") == ["dp"]
        assert not it.zone_kds("zone-a").status.value.connected


async def test_a_global_that_hangs_is_left(autojump_clock) -> None:
    script = Scripted()
    async with zone(script) as (kds, store):
        await store.write([Put(codec.decode_document(dataplane("dp"), REGISTRY))])
        await trio.sleep(0.1)
        ask = DeltaRequest("Dataplane", subscribe=("*",), node=wire.Node("zone-1"))
        await script.up_stream.send(wire.encode_request(ask))
        await trio.sleep(9.5)
        assert [e.name for r in script.responses for e in r.resources] == ["dp-4xf9b99db5z79bx2.default"]
        assert script.opened.count(ZONE_TO_GLOBAL) == 1
        await trio.sleep(5)
        assert script.opened.count(ZONE_TO_GLOBAL) == 2
        assert kds.status.value.error == "Dataplane: a response was not acknowledged within 10 s"


async def test_an_idle_zone_notices_that_its_global_is_gone(autojump_clock) -> None:
    async with lab("global", "zone-a") as it:
        await it.settle(100)
        assert it.connections == 1
        # The other end knows nothing of it either: it was cut off, and came back without its connections.
        it.cables["zone-a"].vanish()
        it.reachable["zone-a"] = False
        await it.settle(31)
        status = it.zone_kds("zone-a").status.value
        assert (status.connected, status.error) == (False, "connection refused")
        it.reachable["zone-a"] = True
        await it.settle(MAX_BACKOFF_S + 1)
        assert it.zone_kds("zone-a").status.value.synced


def test_a_token_is_shown_to_a_verified_global_only() -> None:
    verified, blind = client_context(None), client_context(None, skip_verify=True)
    connector("grpcs://global.example:5685", verified, has_token=True)
    connector("grpc://127.0.0.1:5685", None, has_token=True)
    connector("grpc://localhost", None, has_token=True)
    connector("grpc://global.example", None, has_token=False)
    connector("grpcs://global.example", blind, has_token=False)
    with pytest.raises(DeniedError, match="clear text"):
        connector("grpc://global.example:5685", None, has_token=True)
    with pytest.raises(DeniedError, match="not verified"):
        connector("grpcs://global.example:5685", blind, has_token=True)


def test_a_ca_file_that_is_none_is_an_error(tmp_path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    with pytest.raises(TlsFilesError, match=r"multizone\.zone\.kds\.rootCaFile: .* is no PEM certificate"):
        client_context(str(file))


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (b"", 0),
        (bytes_field(1, b""), 0),
        (bytes_field(1, varint_field(1, 5) + varint_field(2, 500_000_000)), 5.5),
        (bytes_field(1, varint_field(1, -1)), 0),
        (bytes_field(1, varint_field(2, 1)), 1),
        (bytes_field(1, varint_field(1, 10**9)), 300),
    ],
)
def test_intervals_of_health_checks(answer: bytes, seconds: float) -> None:
    assert interval_s(answer) == seconds


def certificate(tmp_path, name: str) -> tuple[str, str]:
    """Files of a certificate for 127.0.0.1 that signs itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime.now(UTC) - timedelta(hours=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(*pem))
    return str(cert_file), str(key_file)


@pytest.mark.e2e
async def test_a_global_with_a_certificate_of_another_ca_never_sees_the_token(tmp_path) -> None:
    (real, key), (other, _) = certificate(tmp_path, "real"), certificate(tmp_path, "other")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(real, key)
    script = Scripted()
    handlers = {
        GLOBAL_TO_ZONE: script.global_to_zone,
        ZONE_TO_GLOBAL: script.zone_to_global,
        HEALTH_CHECK: script.health_check,
    }
    server = GrpcServer(handlers, tls, metrics=RpcMetrics(CollectorRegistry()))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"grpcs://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: server.serve(listeners, task_status=task_status))
        for ca_file, trusted in ((other, False), (real, True)):
            kds = ZoneKds(
                control_plane(MemoryStore(now), "z"),
                "zone-1",
                connector(address, client_context(ca_file), has_token=True),
                random.Random(1),
                token=lambda: "secret",
            )
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    await inner.start(lambda task_status, kds=kds: kds.run(task_status=task_status))
                    with trio.fail_after(5):
                        if trusted:
                            while GLOBAL_TO_ZONE not in script.opened:
                                await trio.sleep(0.01)
                        else:
                            _, status = await kds.status.newer_than(1)
                            assert "certificate" in status.error.lower()
                            assert script.opened == []
                    scope.cancel()
        nursery.cancel_scope.cancel()


async def test_a_zone_is_back_within_seconds_however_often_the_global_restarts(autojump_clock) -> None:
    async with lab("global", "zone-a") as it:
        await it.settle(0.5)
        for down_s in (15, 20, 25):
            await it.stop("global")
            await it.settle(down_s)
            assert not it.zone_kds("zone-a").status.value.connected
            await it.start("global")
            await it.settle(MAX_BACKOFF_S + 0.5)
            assert it.zone_kds("zone-a").status.value.synced
