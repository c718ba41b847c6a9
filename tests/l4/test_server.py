"""The engine on real loopback sockets: one proxy, or two back to back."""

import contextlib
import os
import socket
import ssl

import pytest
import trio
import trio.testing

from meshd.ca.identity import service_sni
from meshd.l4 import metrics
from meshd.l4.render import Settings
from meshd.l4.session import Limits
from meshd.l4.tls import mesh_context
from meshd.runtime.listen import ListenError
from meshd.topology.view import BoundVips, Reach
from tests.l4 import pki
from tests.l4.lab import (
    LOCAL,
    Allow,
    application,
    dataplane,
    echo,
    egress,
    endpoint,
    hang_up,
    ingress,
    is_cut,
    running,
    says,
    service,
    silent,
    talk,
    tally,
    view,
    vip,
)
from tests.ports import free_port


class Pair:
    """An outbound engine and an inbound engine with an application behind it."""

    def __init__(self, out, inb, app, port, inbound_port):
        self.out, self.inb, self.app, self.port, self.inbound_port = out, inb, app, port, inbound_port


def back_to_back(handler=echo, *, mode="STRICT", permit=None, limits=None):
    @contextlib.asynccontextmanager
    async def manager():
        port, inbound_port = free_port(), free_port()
        shared = view(service("web", endpoint(inbound_port)), mode=mode)
        async with (
            application(handler) as app,
            running(
                dataplane("web-1", inbound=[(inbound_port, app.port, "web")]), shared, permit=permit, limits=limits
            ) as inb,
            running(dataplane("shop-1", gateway="shop", outbound=[(port, "web")]), shared) as out,
        ):
            yield Pair(out, inb, app, port, inbound_port)

    return manager()


@pytest.mark.parametrize("mode", [None, "STRICT", "PERMISSIVE"])
async def test_bytes_and_half_close_cross_both_engines(mode):
    data = os.urandom(3_000_000)
    async with back_to_back(mode=mode) as pair:
        assert await talk(pair.port, data) == data
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert pair.out.count("received_bytes_total") == pair.inb.count("sent_bytes_total") == len(data)
        assert pair.out.count("connections_total", outcome="done") == 1
        assert pair.out.count("upstream_attempts_total", service="web", outcome="ok") == 1
        assert pair.out.count("open_connections") == 0


async def test_server_may_end_first_and_client_goes_on():
    got = bytearray()
    over = trio.Event()

    async def handler(stream):
        await stream.send_all(b"bye")
        await stream.send_eof()
        async for part in stream:
            got.extend(part)
        over.set()

    async with back_to_back(handler) as pair, await trio.open_tcp_stream(LOCAL, pair.port) as stream:
        assert await stream.receive_some() == b"bye"
        assert await stream.receive_some() == b""
        await stream.send_all(b"still here")
        await stream.send_eof()
        with trio.fail_after(2):
            await over.wait()
    assert got == b"still here"


async def test_reset_of_the_application_reaches_the_client_as_a_reset():
    async def handler(stream):
        await stream.receive_some(1)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with back_to_back(handler) as pair, await trio.open_tcp_stream(LOCAL, pair.port) as stream:
        await stream.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(2):
            await stream.receive_some()


@pytest.mark.slow
async def test_a_reader_that_stops_holds_back_the_writer_and_nobody_else():
    async with back_to_back() as pair, await trio.open_tcp_stream(LOCAL, pair.port) as stuck:
        sent = 0
        with trio.move_on_after(0.4):
            while True:
                await stuck.send_all(bytes(1 << 20))
                sent += 1 << 20
        assert sent < 64 << 20
        assert await talk(pair.port, b"others") == b"others"


async def test_denied_client_never_reaches_the_application_and_is_named_once(caplog):
    caplog.set_level("INFO")
    async with back_to_back(permit=Allow(frozenset({"other"}))) as pair:
        assert await is_cut(talk(pair.port, b"x"))
        assert pair.app.hits == []
        assert pair.inb.count("verdicts_total", verdict="denied", rule="test") == 1
        assert pair.inb.count("connections_total", outcome="denied") == 1
        assert await is_cut(talk(pair.port, b"x"))
        listener = f"inbound:{LOCAL}:{pair.inbound_port}"
        said = [(r.levelname, r.getMessage()) for r in caplog.records if "denied" in r.getMessage()]
        assert said == [("INFO", f"Dataplane/default/web-1: {listener}: denied client=spiffe://default/shop rule=test")]


async def test_withdrawn_permission_closes_open_connections_of_those_it_hits_only():
    async with back_to_back(says(b"hi")) as pair, await trio.open_tcp_stream(LOCAL, pair.port) as stream:
        assert await stream.receive_some() == b"hi"
        pair.inb.allow(Allow(frozenset({"shop"})))
        await trio.sleep(0.05)
        assert pair.inb.count("open_connections") == 1
        pair.inb.allow(Allow(frozenset()))
        with trio.fail_after(2):
            while pair.inb.count("open_connections"):
                await trio.sleep(0.01)
        assert pair.inb.count("connections_total", outcome="denied") == 1


async def test_strict_inbound_refuses_plaintext_and_foreign_certificates():
    async with back_to_back() as pair:
        for attempt in (talk(pair.inbound_port, b"GET / HTTP/1.1\r\n\r\n"), mtls(pair.inbound_port, generation=1)):
            assert await is_cut(attempt)
        assert pair.app.hits == []
        assert pair.inb.count("connections_total", outcome="tls") == 2


async def mtls(
    port: int, data: bytes = b"x", *, generation: int = 0, sni: str = "x", alpn: str = "kuma", who: str = "shop"
) -> bytes:
    context = mesh_context(pki.identity("default", who, generation=generation), pki.trust("default"), server_side=False)
    context.set_alpn_protocols([alpn])
    with trio.fail_after(5):
        stream = trio.SSLStream(
            await trio.open_tcp_stream(LOCAL, port), context, server_hostname=sni, https_compatible=False
        )
        try:
            await stream.send_all(data)
            return await stream.receive_some()
        finally:
            await stream.transport_stream.aclose()


async def test_permissive_inbound_passes_plaintext_and_foreign_tls_and_ends_mesh_tls():
    first = []

    async def handler(stream):
        first.append(await stream.receive_some())
        await stream.send_all(b"seen")

    async with back_to_back(handler, mode="PERMISSIVE") as pair:
        assert await talk(pair.inbound_port, b"hello") == b"seen"
        assert await mtls(pair.inbound_port, b"mesh") == b"seen"
        assert await is_cut(mtls(pair.inbound_port, b"own tls", alpn="h2"))
        assert [f[:1] for f in first] == [b"h", b"m", b"\x16"]


async def test_permissive_inbound_takes_a_silent_client_for_plaintext():
    limits = Limits(silence_s=0.05, drain_s=0.1)
    async with (
        back_to_back(says(b"220 ready"), mode="PERMISSIVE", limits=limits) as pair,
        await trio.open_tcp_stream(LOCAL, pair.inbound_port) as stream,
    ):
        with trio.fail_after(2):
            assert await stream.receive_some() == b"220 ready"


async def test_becoming_strict_closes_plaintext_connections():
    async with (
        back_to_back(says(b"hi"), mode="PERMISSIVE") as pair,
        await trio.open_tcp_stream(LOCAL, pair.inbound_port) as stream,
    ):
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"hi"
        pair.inb.views.publish({"default": view(service("web", endpoint(pair.inbound_port)), mode="STRICT")})
        with trio.fail_after(2):
            while pair.inb.count("open_connections"):
                await trio.sleep(0.01)


async def test_certificates_rotate_without_dropping_connections():
    async with back_to_back() as pair, await trio.open_tcp_stream(LOCAL, pair.port) as stream:
        await stream.send_all(b"a")
        assert await stream.receive_some() == b"a"
        for side in (pair.inb, pair.out):
            for (name, _, uris), cell in side.cells.items():
                services = tuple(u.rpartition("/")[2] for u in uris if u.startswith("spiffe"))
                cell.publish(pki.credentials(name, *services, generation=1))
        assert await talk(pair.port, b"new ca") == b"new ca"
        await stream.send_all(b"b")
        assert await stream.receive_some() == b"b"


async def test_wrong_identity_at_the_right_address_is_never_sent_a_byte():
    inbound_port, port = free_port(), free_port()
    async with (
        application(echo) as app,
        running(dataplane("db", inbound=[(inbound_port, app.port, "db")]), view()),
        running(
            dataplane("shop", gateway="shop", outbound=[(port, "web")]), view(service("web", endpoint(inbound_port)))
        ) as out,
    ):
        assert await is_cut(talk(port, b"secret"))
        assert app.hits == [] or out.count("received_bytes_total") == 0
        assert out.count("upstream_attempts_total", outcome="tls") == 1


# ---- choosing


async def two_behind(handler, times, *, reach=Reach.INSTANCE):
    """An outbound over a good instance and one that is ``handler`` instead of a proxy: (answers, engine counts)."""
    port, good = free_port(), free_port()
    async with application(says(b"ok")) as app, application(handler) as bad:
        both = view(service("web", endpoint(bad.port), endpoint(good)))
        async with (
            running(dataplane("web", inbound=[(good, app.port, "web")]), view()),
            running(dataplane("shop", gateway="shop", outbound=[(port, "web")]), both) as out,
        ):
            began = trio.current_time()
            answers = await tally(port, times)
            outcomes = {o: out.count("upstream_attempts_total", outcome=o) for o in ("eof", "timeout", "refused", "ok")}
            return answers, outcomes, trio.current_time() - began


@pytest.mark.slow
async def test_silence_after_the_client_hello_moves_on_after_the_handshake_timeout_once():
    answers, outcomes, took = await two_behind(silent, 6)
    assert answers == {b"ok": 6}
    assert outcomes["timeout"] == 1
    assert 0.3 <= took < 1.0


async def test_end_after_connect_moves_on_at_once():
    answers, outcomes, took = await two_behind(hang_up, 6)
    assert answers == {b"ok": 6}
    assert outcomes["eof"] == 1
    assert took < 0.3


async def test_refused_moves_on_at_once_and_all_dead_closes_the_client():
    port, good = free_port(), free_port()
    async with application(says(b"ok")) as app:
        dead = view(service("web", endpoint(free_port()), endpoint(good)))
        async with (
            running(dataplane("web", inbound=[(good, app.port, "web")]), view()) as inb,
            running(dataplane("shop", gateway="shop", outbound=[(port, "web")]), dead) as out,
        ):
            assert await tally(port, 4) == {b"ok": 4}
            assert out.count("upstream_attempts_total", outcome="refused") == 1
            inb.views.publish({})
            await trio.sleep(0.05)
            assert await is_cut(talk(port, b"x"))
            assert out.count("connections_total", outcome="unavailable") == 1


@pytest.mark.slow
async def test_local_first_remote_while_it_is_gone_and_back_when_it_returns():
    port = free_port()
    local_port = free_port()
    async with application(says(b"remote")) as remote:
        target = service("web", endpoint(local_port), endpoint(remote.port, priority=1))
        async with running(dataplane("shop", gateway="shop", outbound=[(port, "web")]), view(target, mode=None)):
            async with application(says(b"local"), local_port) as local:
                assert await tally(port, 5) == {b"local": 5}
                local.stop.cancel()
                await trio.sleep(0.02)
                assert await tally(port, 5) == {b"remote": 5}
            async with application(says(b"local"), local_port):
                with trio.fail_after(4):
                    while await talk(port) != b"local":
                        await trio.sleep(0.05)
                assert await tally(port, 5) == {b"local": 5}


@pytest.mark.slow
async def test_no_connection_is_lost_when_the_local_application_dies():
    port, local_port, remote_port = (free_port() for _ in range(3))
    target = service("web", endpoint(local_port), endpoint(remote_port, priority=1))
    async with (
        application(says(b"local")) as local,
        application(says(b"remote")) as remote,
        running(dataplane("web-1", inbound=[(local_port, local.port, "web")]), view()),
        running(dataplane("web-2", inbound=[(remote_port, remote.port, "web")]), view()),
        running(dataplane("shop", gateway="shop", outbound=[(port, "web")]), view(target)),
    ):
        assert await tally(port, 10) == {b"local": 10}
        local.stop.cancel()
        await trio.sleep(0.02)
        assert await tally(port, 20) == {b"remote": 20}
        async with application(says(b"local"), local.port):
            with trio.fail_after(8):
                while await talk(port) != b"local":
                    await trio.sleep(0.1)
            assert await tally(port, 5) == {b"local": 5}


@pytest.mark.slow
async def test_shares_over_real_connections_are_the_weights():
    port = free_port()
    async with application(says(b"1")) as a, application(says(b"2")) as b, application(says(b"3")) as c:
        target = service("web", *(endpoint(app.port, weight=w) for w, app in ((1, a), (2, b), (3, c))))
        async with running(dataplane("shop", gateway="shop", outbound=[(port, "web")]), view(target, mode=None)):
            assert await tally(port, 300) == {b"1": 50, b"2": 100, b"3": 150}


@pytest.mark.slow
async def test_dead_application_makes_the_inbound_refuse_before_the_handshake_until_it_is_back():
    async with back_to_back(says(b"ok")) as pair:
        assert await talk(pair.port) == b"ok"
        pair.app.stop.cancel()
        await trio.sleep(0.02)
        for _ in range(3):
            assert await is_cut(talk(pair.port))
        assert pair.out.count("upstream_attempts_total", outcome="ok") == 1
        assert pair.out.count("upstream_attempts_total", outcome="eof") == 3
        async with application(says(b"back"), pair.app.port):
            with trio.fail_after(8):
                while True:
                    try:
                        if await talk(pair.port) == b"back":
                            break
                    except trio.BrokenResourceError:
                        pass
                    await trio.sleep(0.1)


# ---- zone proxies


async def test_outbound_egress_ingress_inbound():
    ports = {name: free_port() for name in ("out", "egress", "ingress", "in")}
    inside = service("web", endpoint(ports["in"]))
    to_ingress = service("web", endpoint(ports["ingress"], zone="b", reach=Reach.INGRESS))
    to_egress = service("web", endpoint(ports["egress"], zone="", reach=Reach.EGRESS))
    data = os.urandom(1_000_000)
    async with (
        application(echo) as app,
        running(dataplane("web", inbound=[(ports["in"], app.port, "web")]), view()) as inb,
        running(ingress(ports["ingress"]), view(ingress=[inside])) as entry,
        running(egress(ports["egress"]), view(egress=[to_ingress])) as leave,
        running(dataplane("shop", gateway="shop", outbound=[(ports["out"], "web")]), view(to_egress)) as out,
    ):
        assert await talk(ports["out"], data) == data
        await trio.testing.wait_all_tasks_blocked(0.01)
        for hop in (out, leave, entry, inb):
            assert hop.count("connections_total", outcome="done") == 1
        assert leave.count("upstream_attempts_total", service="web", zone="b", outcome="ok") == 1
        for hop in (leave, entry):
            assert hop.count("received_bytes_total") > len(data)


@pytest.mark.slow
async def test_ingress_takes_a_hello_in_single_bytes_and_any_case_and_moves_on_from_dead_instances():
    ingress_port, good = free_port(), free_port()
    async with application(says(b"ok")) as app, application(silent) as stuck, application(hang_up) as gone:
        targets = [endpoint(p) for p in (stuck.port, gone.port, free_port(), good)]
        async with (
            running(dataplane("web", inbound=[(good, app.port, "web")]), view()),
            running(ingress(ingress_port), view(ingress=[service("web", *targets)])) as entry,
        ):
            answer = await slow_hello(ingress_port, service_sni("WEB", "Default"))
            assert answer == b"ok"
            for _ in range(3):
                assert await mtls(ingress_port, sni="web{mesh=default}") == b"ok"
            outcomes = {
                o: entry.count("upstream_attempts_total", outcome=o) for o in ("timeout", "eof", "refused", "ok")
            }
            assert outcomes == {"timeout": 1, "eof": 1, "refused": 1, "ok": 4}


async def slow_hello(port: int, name: bytes) -> bytes:
    """mTLS as a client whose first flight leaves byte by byte."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = mesh_context(pki.identity("default", "shop"), pki.trust("default"), server_side=False)
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with trio.fail_after(5):
        async with await trio.open_tcp_stream(LOCAL, port) as stream:
            first = True
            while True:
                try:
                    tls.do_handshake()
                    done = True
                except ssl.SSLWantReadError:
                    done = False
                data = outgoing.read()
                if first:
                    first = False
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for at in range(len(data)):
                        await stream.send_all(data[at : at + 1])
                elif data:
                    await stream.send_all(data)
                if done:
                    break
                incoming.write(await stream.receive_some())
            while True:
                try:
                    return tls.read()
                except ssl.SSLWantReadError:
                    incoming.write(await stream.receive_some())


async def test_unknown_sni_random_bytes_and_slow_clients_are_closed_and_counted():
    port = free_port()
    limits = Limits(hello_s=0.1, drain_s=0.1)
    async with running(ingress(port), view(ingress=[service("web", endpoint(1))]), limits=limits) as entry:
        assert await is_cut(mtls(port, sni="nobody{mesh=default}"))
        for noise in (os.urandom(1000), b"GET / HTTP/1.1\r\n\r\n", b""):
            assert await is_cut(talk(port, noise))
        async with await trio.open_tcp_stream(LOCAL, port) as slow:
            await slow.send_all(b"\x16\x03")
            with trio.fail_after(2), pytest.raises(trio.BrokenResourceError):
                await slow.receive_some()
        assert entry.count("connections_total", outcome="unroutable") == 1
        assert entry.count("connections_total", outcome="tls") == 3
        assert entry.count("connections_total", outcome="slow") == 1


async def test_connection_limit_refuses_and_recovers():
    async with back_to_back(limits=Limits(listener_connections=2, drain_s=0.1), mode=None) as pair:
        held = [await trio.open_tcp_stream(LOCAL, pair.inbound_port) for _ in range(2)]
        for stream in held:
            await stream.send_all(b"x")
            await stream.receive_some()
        assert await is_cut(talk(pair.inbound_port, b"x"))
        assert pair.inb.count("connections_total", outcome="full") == 1
        for stream in held:
            await stream.aclose()
        await trio.sleep(0.05)
        assert await talk(pair.inbound_port, b"x") == b"x"


@pytest.mark.slow
async def test_idle_connections_are_cut():
    async with back_to_back(limits=Limits(idle_s=0.2, drain_s=0.1), mode=None) as pair:
        async with await trio.open_tcp_stream(LOCAL, pair.inbound_port) as stream:
            with trio.fail_after(3), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert pair.inb.count("connections_total", outcome="idle") == 1


# ---- live changes


@pytest.mark.slow
async def test_listeners_come_and_go_with_the_resource_and_connections_drain():
    first, second = free_port(), free_port()
    async with application(echo) as app:
        target = view(service("web", endpoint(app.port)), mode=None)
        async with (
            running(dataplane("shop", outbound=[(first, "web")]), target, limits=Limits(drain_s=0.3)) as out,
            await trio.open_tcp_stream(LOCAL, first) as stream,
        ):
            await stream.send_all(b"a")
            assert await stream.receive_some() == b"a"
            out.proxy.publish(dataplane("shop", outbound=[(second, "web")]))
            await trio.sleep(0.05)
            assert await talk(second, b"new") == b"new"
            assert await is_cut(talk(first))
            await stream.send_all(b"b")
            assert await stream.receive_some() == b"b"
            with trio.fail_after(2), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            assert out.count("connections_total", outcome="drained") == 1


async def test_stopping_engine_lets_connections_finish():
    port = free_port()
    async with application(echo) as app:
        target = view(service("web", endpoint(app.port)), mode=None)
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            up = trio.Event()

            async def run():
                async with running(dataplane("shop", outbound=[(port, "web")]), target, limits=Limits(drain_s=2)):
                    up.set()
                    await stop.wait()

            nursery.start_soon(run)
            await up.wait()
            stream = await trio.open_tcp_stream(LOCAL, port)
            await stream.send_all(b"a")
            assert await stream.receive_some() == b"a"
            stop.set()
            await trio.sleep(0.05)
            assert await is_cut(talk(port))
            await stream.send_all(b"b")
            assert await stream.receive_some() == b"b"
            await stream.send_eof()
            assert await stream.receive_some() == b""
            await stream.aclose()


@pytest.mark.slow
async def test_port_in_use_at_the_start_names_the_resource_and_later_is_retried():
    with socket.socket() as holder:
        holder.bind((LOCAL, 0))
        holder.listen()
        taken = holder.getsockname()[1]
        with pytest.RaisesGroup(
            pytest.RaisesExc(ListenError, match=f"Dataplane default/shop: .*outbound.*{taken}"), flatten_subgroups=True
        ):
            async with running(dataplane("shop", outbound=[(taken, "web")]), view()):
                pass
        async with running(dataplane("shop"), view(service("web"), mode=None)) as out:
            out.proxy.publish(dataplane("shop", outbound=[(taken, "web")]))
            await trio.sleep(0.05)
            assert out.count("listeners", state="failed") == 1
            assert out.engine.ready.value is False
            holder.close()
            with trio.fail_after(3):
                while out.count("listeners", state="failed"):
                    await trio.sleep(0.05)
            assert out.engine.ready.value is True


# ---- VIPs


async def test_one_wildcard_listener_serves_every_vip():
    port = free_port()
    async with application(says(b"web")) as web, application(says(b"db")) as db:
        everything = view(
            service("web", endpoint(web.port)),
            service("db", endpoint(db.port)),
            mode=None,
            vips={"web": vip("127.77.0.1", web=port), "db": vip("127.77.0.2", db=port)},
        )
        async with running(dataplane("host", gateway="host"), everything, settings=Settings(owns_vips=True)) as host:
            assert host.engine.bound_vips.value == BoundVips(everywhere=frozenset({port}))
            assert await talk(port, address="127.77.0.1") == b"web"
            assert await talk(port, address="127.77.0.2") == b"db"
            assert await is_cut(talk(port, b"x", address="127.77.0.3"))
            assert host.count("connections_total", outcome="unroutable") == 1
            host.views.publish({"default": view(mode=None)})
            await trio.sleep(0.05)
            assert host.engine.bound_vips.value == BoundVips()


async def test_views_count_as_served_only_once_their_vips_are_listened_on():
    port = free_port()
    async with application(says(b"web")) as web:
        before = view(mode=None)
        later = view(service("web", endpoint(web.port)), mode=None, vips={"web": vip("127.77.0.1", web=port)})
        settings = Settings(owns_vips=True, own_sockets=True)
        async with running(dataplane("host", gateway="host"), before, settings=settings) as host:
            seen, served = host.engine.served_views.version, host.engine.served_views.value
            assert served == {"default": before}
            host.views.publish({"default": later})
            assert host.engine.served_views.version == seen
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.77.0.1", port)).close()
            with trio.fail_after(3):
                _, served = await host.engine.served_views.newer_than(seen)
            assert served == {"default": later}
            socket.create_connection(("127.77.0.1", port)).close()


async def test_a_socket_per_vip_where_something_else_holds_the_port():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        async with application(says(b"web"), address="127.77.0.9") as web:
            target = service("web", endpoint(web.port, address="127.77.0.9"))
            everything = view(target, mode=None, vips={"web": vip("127.77.0.1", web=port)})
            async with running(
                dataplane("host", gateway="host"), everything, settings=Settings(owns_vips=True)
            ) as host:
                assert host.engine.bound_vips.value == BoundVips(single=frozenset({("127.77.0.1", port)}))
                assert await talk(port, address="127.77.0.1") == b"web"


async def test_a_vip_whose_socket_cannot_be_bound_is_not_said_to_be():
    with socket.socket() as holder:
        holder.bind(("127.77.0.2", 0))
        holder.listen()
        port = holder.getsockname()[1]
        vips = {"web": vip("127.77.0.1", web=port), "db": vip("127.77.0.2", db=port)}
        both = view(service("web", endpoint(1)), service("db", endpoint(1)), mode=None, vips=vips)
        settings = Settings(owns_vips=True, own_sockets=True)
        async with running(dataplane("host", gateway="host"), both, settings=settings) as host:
            assert host.engine.bound_vips.value == BoundVips(single=frozenset({("127.77.0.1", port)}))
    assert host.engine.bound_vips.value == BoundVips()


async def test_own_sockets_leave_the_port_to_others_on_this_host():
    port = free_port()
    async with application(says(b"web")) as web:
        target = service("web", endpoint(web.port))
        settings = Settings(owns_vips=True, own_sockets=True)
        one = view(target, mode=None, vips={"web": vip("127.77.0.1", web=port)})
        other = view(target, mode=None, vips={"web": vip("127.78.0.1", web=port)})
        async with (
            running(dataplane("one", gateway="one"), one, settings=settings) as first,
            running(dataplane("two", gateway="two"), other, settings=settings) as second,
        ):
            assert first.engine.bound_vips.value == BoundVips(single=frozenset({("127.77.0.1", port)}))
            assert second.engine.bound_vips.value == BoundVips(single=frozenset({("127.78.0.1", port)}))
            assert await talk(port, address="127.77.0.1") == b"web"
            assert await talk(port, address="127.78.0.1") == b"web"


# ---- counters


def labels_of(host, name):
    return {s.labels[name] for family in host.registry.collect() for s in family.samples if name in s.labels}


async def test_series_of_what_is_gone_go_too_but_not_while_a_connection_is_left():
    port, other = free_port(), free_port()
    async with application(says(b"a")) as a, application(says(b"b")) as b, application(silent) as quiet:

        def serving(app):
            return {"default": view(service("web", endpoint(app.port)), mode=None)}

        def upstream(app):
            return f"127.0.0.1:{app.port}"

        async with running(dataplane("shop", outbound=[(port, "web")]), *serving(quiet).values()) as host:
            forget = host.engine._server._forget_series
            waiting = await trio.open_tcp_stream("127.0.0.1", port)
            with trio.fail_after(3):
                while not quiet.hits:
                    await trio.sleep(0.01)
            for app, said in ((a, b"a"), (b, b"b")):
                host.views.publish(serving(app))
                await trio.sleep(0.05)
                assert await talk(port) == said
            assert labels_of(host, "upstream") == {upstream(quiet), upstream(a), upstream(b)}
            forget()
            assert labels_of(host, "upstream") == {upstream(quiet), upstream(b)}
            assert host.count("upstream_open_connections") == 1
            host.proxy.publish(dataplane("shop", outbound=[(other, "web")]))
            await trio.sleep(0.05)
            forget()
            assert labels_of(host, "listener") == {f"outbound:127.0.0.1:{port}"}  # drains
            await waiting.aclose()
            await trio.sleep(0.5)
            assert await talk(other) == b"b"
            forget()
            assert labels_of(host, "listener") == {f"outbound:127.0.0.1:{other}"}
            assert labels_of(host, "upstream") == {upstream(b)}
        host.engine.forget_series()
        assert [s.name for family in host.registry.collect() for s in family.samples] == []


async def test_endpoints_that_come_and_go_do_not_add_up(monkeypatch):
    monkeypatch.setattr(metrics, "SERIES_KEPT", 4)
    port = free_port()
    here = dataplane("shop", outbound=[(port, "web")])
    async with running(here, view(mode=None)) as host:
        for last in range(2, 32):
            target = service("web", endpoint(free_port(), address=f"127.0.3.{last}"))
            host.views.publish({"default": view(target, mode=None)})
            await trio.sleep(0.02)
            assert await is_cut(talk(port))
        assert 1 <= len(labels_of(host, "upstream")) <= 20
