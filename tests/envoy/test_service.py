"""The life of one Envoy: real processes of a program that pretends to be one, in milliseconds."""

import logging
import os
import signal
import stat

import pytest
import trio

from meshd.envoy.command import Options
from tests.envoy.support import INGRESS, WEB, World, mode, said, until

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path, caplog):
    caplog.set_level(logging.INFO, "meshd.envoy")
    world = World(tmp_path)
    yield world
    world.end_all()


async def test_it_starts_becomes_ready_and_is_drained_at_an_end_that_keeps_nothing(world, caplog):
    world.kept = False
    world.pretend = {"connections": 2}
    async with world.running() as process:
        pid = world.pid()
        assert world.metric("up") == 1
        assert world.metric("restarts_total") == 0
        assert not process.trouble.value
        assert os.getsid(pid) == pid
    assert world.pid() is None
    assert world.asked_whether_kept == [False]
    drained = [line for line in world.asked() if "server_info" not in line]
    assert drained[:2] == ["POST /healthcheck/fail", "POST /drain_listeners"]
    assert len([line for line in drained if "/stats" in line]) == 3
    assert world.metric("up") == 0
    text = "\n".join(said(caplog))
    for part in (f"started, pid={pid}", ": ready", f": draining, pid={pid}", ": stopped", "main: listeners closed"):
        assert f"envoy of {WEB}" in text
        assert part in text


async def test_its_files_are_for_this_user_alone(world):
    async with world.running():
        at = world.at()
        assert mode(at.directory) == 0o700
        assert {mode(p) for p in (at.bootstrap, at.secret, at.log, at.admin_socket)} == {0o600}
        assert stat.S_ISFIFO(at.log.stat().st_mode)
        assert stat.S_ISSOCK(at.admin_socket.stat().st_mode)
        assert world.surroundings.credential in at.bootstrap.read_text()
        assert world.surroundings.version.text == "1.40.0"


async def test_its_credential_is_admitted_before_anything_that_starts_later(world):
    process = world.fleet.process(WEB, world.options)
    async with trio.open_nursery() as nursery:
        await nursery.start(process.run)
        secret = world.at().secret.read_bytes()
        assert world.credentials.proves(WEB, f"meshd-internal-{secret.hex()}")
        assert not world.credentials.proves(INGRESS, f"meshd-internal-{secret.hex()}")
        nursery.cancel_scope.cancel()


async def test_its_log_comes_into_ours_by_its_name_and_level(world, caplog):
    async with world.running():
        await until(lambda: len(said(caplog, logging.WARNING)) == 2)
    assert sorted(said(caplog, logging.WARNING)) == [
        f"envoy of {WEB}: main: up",
        f"envoy of {WEB}: to standard error",
    ]


async def test_one_that_is_killed_is_started_again(world, caplog):
    async with world.running() as process:
        first = world.pid()
        os.kill(first, signal.SIGKILL)
        await until(lambda: not process.ready.value)
        assert world.metric("up") == 0
        assert "was ended by SIGKILL" in process.trouble.value
        await until(lambda: process.ready.value)
        assert world.pid() not in (None, first)
        assert not process.trouble.value
        assert world.metric("restarts_total") == 1
        assert world.metric("up") == 1
    assert any("was ended by SIGKILL (by a person, or for want of memory)" in line for line in caplog.messages)


async def test_one_that_cannot_start_is_tried_again_ever_more_slowly_and_says_why_once(world, caplog):
    world.pretend = {"exit": 3}
    async with world.running(ready=False) as process:
        await until(lambda: world.metric("restarts_total") >= 3)
        assert process.trouble.value == "failed with exit code 3 before it was ready: cannot go on"
        assert not process.ready.value
        world.pretend = {}
        await until(lambda: process.ready.value)
        assert not process.trouble.value
    reasons = [m for m in caplog.messages if "exit code 3" in m]
    assert reasons == [f"envoy of {WEB}: failed with exit code 3 before it was ready: cannot go on; trying again"]


async def test_a_program_that_is_gone_or_another_one_is_trouble_and_no_end(world, tmp_path):
    missing = tmp_path / "gone"
    world.options = Options(missing, 1)
    async with world.running(ready=False) as process:
        await trio.sleep(0.1)
        missing.write_text("#!/bin/sh\necho hello\n")
        missing.chmod(0o755)
        await trio.sleep(0.5)
        missing.unlink()
        missing.symlink_to(world.program)
        await until(lambda: process.ready.value)


async def test_one_that_does_not_end_is_killed(world, monkeypatch, caplog):
    monkeypatch.setattr("meshd.envoy.session.TERM_S", 0.2)
    world.kept = False
    world.pretend = {"stubborn": True}
    async with world.running():
        pid = world.pid()
    assert world.pid() is None
    assert f"envoy of {WEB}: pid {pid} has not ended 0 s after SIGTERM" in said(caplog)


async def test_the_drain_is_bounded(world):
    world.kept = False
    world.pretend = {"connections": 1_000_000}
    world.options = Options(world.program, drain_s=0.5)
    async with world.running():
        pass
    assert world.pid() is None
    assert len(world.asked()) < 30


async def test_one_without_an_admin_interface_is_stopped_without_a_drain(world, caplog):
    world.kept = False
    world.pretend = {"deaf": True}
    async with world.running(ready=False):
        await until(world.pid)
        await trio.sleep(0.2)
    assert world.pid() is None
    assert any("cannot be drained: admin interface" in line for line in said(caplog))


# ---- over runs of meshd


async def test_one_that_is_kept_goes_on_and_the_next_run_takes_it_over(world, caplog):
    async with world.running():
        first = world.pid()
        secret = world.surroundings.credential
    assert world.pid() == first
    assert said(caplog)[-1] == f"envoy of {WEB}: left running, pid={first}"
    world.new_run()
    caplog.clear()
    async with world.running():
        assert world.pid() == first
        assert f"envoy of {WEB}: goes on, pid={first}" in said(caplog)
        assert world.surroundings.credential == secret
        assert world.credentials.proves(WEB, secret)
        assert "POST /reopen_logs" in world.asked()
        world.kept = False
    assert world.asked_whether_kept == [True]
    assert world.pid() is None
    assert any("main: listeners closed" in line for line in said(caplog))  # it is heard again


async def test_what_listens_is_told_of_one_that_is_taken_over_only(world):
    told = []
    async with world.running(took_over=told.append):
        assert told == []
    world.new_run()
    async with world.running(took_over=told.append):
        assert told == [frozenset({"outbound:127.0.0.2:80"})]


async def test_the_end_of_one_that_was_taken_over_is_noticed(world):
    async with world.running():
        first = world.pid()
    world.new_run()
    async with world.running() as process:
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.trouble.value)
        assert process.trouble.value.startswith("ended after it was ready for")
        await until(lambda: process.ready.value)
        assert world.pid() != first


async def test_one_that_ended_meanwhile_is_started(world):
    async with world.running():
        first = world.pid()
    os.kill(first, signal.SIGKILL)
    await until(lambda: world.pid() is None)
    world.new_run()
    async with world.running():
        assert world.pid() not in (None, first)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: setattr(w, "options", Options(w.program, 5, concurrency=2)), "its settings have changed"),
        (lambda w: w.pretend.update(connections=1), "its bootstrap has changed"),
        (lambda w: w.env.update(PRETEND_BUILD="0b/1.41.0"), "it is 0a1b/1.40.0/Clean/RELEASE/BoringSSL, 0b/1.41.0"),
        (lambda w: w.at().admin_socket.unlink(), "admin interface"),
        (lambda w: w.at().secret.write_bytes(b"short"), "its bootstrap has changed"),
    ],
    ids=["settings", "bootstrap", "version", "admin", "secret"],
)  # fmt: skip
async def test_one_that_is_not_what_is_wanted_makes_way(world, caplog, change, reason):
    async with world.running():
        first = world.pid()
    change(world)
    world.new_run()
    async with world.running():
        assert world.pid() not in (None, first)
        assert any(f"pid {first} makes way for a new one: {reason}" in line for line in said(caplog))


async def test_one_that_was_being_drained_makes_way(world, caplog):
    async with world.running() as process:
        await process._admin.fail_health_check()
        first = world.pid()
    world.new_run()
    async with world.running():
        assert world.pid() != first
        assert any("makes way for a new one: it was being drained" in line for line in said(caplog))


async def test_another_log_level_needs_no_new_one(world):
    async with world.running():
        first = world.pid()
    world.options = Options(world.program, 5, log_level="debug")
    world.new_run()
    async with world.running():
        assert world.pid() == first
        assert "POST /logging?level=debug" in world.asked()


async def test_one_that_was_never_taken_over_is_left_as_is_wanted(world, monkeypatch):
    async with world.running():
        first = world.pid()
    world.new_run()
    world.options = Options(world.program.with_name("gone"), 5)  # so that no attempt gets so far
    async with world.running(ready=False):
        await trio.sleep(0.05)
    assert world.pid() == first
    world.new_run()
    world.kept = False
    async with world.running(ready=False):
        await trio.sleep(0.05)
    assert world.pid() is None


# ---- proxies that go


async def test_a_retired_one_leaves_nothing_whatever_is_kept(world):
    async with world.running() as process:
        shown = world.surroundings.credential
        began = trio.current_time()
        process.retire()
    assert trio.current_time() - began > 1  # its peers had a second to learn it
    assert world.pid() is None
    assert not world.at().directory.exists()
    assert not world.credentials.proves(WEB, shown)
    assert world.metric("up") == 0
    process.forget_series()
    assert world.metric("up") is None
    assert world.metric("restarts_total") is None
    process.forget_series()


async def test_one_that_comes_back_at_once_goes_on(world, caplog):
    async with trio.open_nursery() as nursery:
        async with world.running() as process:
            first = world.pid()
            process.retire()
            again = world.fleet.process(WEB, world.options)
            nursery.start_soon(again.run)
            await trio.sleep(0.1)
        await until(lambda: again.ready.value)
        assert world.pid() == first
        assert world.credentials.proves(WEB, world.surroundings.credential)
        assert [line for line in world.asked() if "POST" in line] == [
            "POST /healthcheck/fail",
            "POST /healthcheck/ok",
            "POST /reopen_logs",
        ]
        assert not any("draining" in line for line in said(caplog))
        os.kill(first, signal.SIGKILL)  # it is a child, whoever has it now
        await until(lambda: "was ended by SIGKILL" in again.trouble.value)
        await until(lambda: again.ready.value)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("retired", [True, False], ids=["and leaves", "and is stopped"])
async def test_one_that_comes_back_at_once_and_is_cancelled_leaves_nothing(world, retired):
    world.kept = False
    async with trio.open_nursery() as nursery, world.running() as process:
        process.retire()
        again = world.fleet.process(WEB, world.options)
        nursery.start_soon(again.run)
        await trio.testing.wait_all_tasks_blocked()
        if retired:
            again.retire()
        nursery.cancel_scope.cancel()
    assert world.pid() is None
    assert world.at().directory.exists() is not retired


async def test_one_that_comes_back_late_waits_for_the_end_of_its_predecessor(world, monkeypatch):
    monkeypatch.setattr("meshd.envoy.service.SETTLE_S", 0.01)
    world.pretend = {"connections": 4}
    async with trio.open_nursery() as nursery:
        async with world.running() as process:
            first = world.pid()
            process.retire()
            nursery.start_soon(come_back, world, nursery)
        assert world.pid() != first
        await until(lambda: world.metric("up"))
        assert world.pid() not in (None, first)
        nursery.cancel_scope.cancel()


async def come_back(world, nursery):
    """Start the proxy again once its Envoy has closed its listeners."""
    await until(lambda: "POST /drain_listeners" in world.asked())
    nursery.start_soon(world.fleet.process(WEB, world.options).run)


async def test_one_that_cannot_be_asked_any_more_is_not_handed_on(world, caplog):
    async with trio.open_nursery() as nursery:
        async with world.running() as process:
            first = world.pid()
            world.at().admin_socket.unlink()
            process.retire()
            again = world.fleet.process(WEB, world.options)
            nursery.start_soon(again.run)
            await trio.testing.wait_all_tasks_blocked()
        await until(lambda: again.ready.value)
        assert world.pid() not in (None, first)
        assert any("cannot wait for its proxy to come back" in line for line in said(caplog))
        nursery.cancel_scope.cancel()


async def test_a_sweep_ends_what_is_nobodys_and_touches_nothing_else(world, caplog):
    async with world.running(INGRESS), world.running():
        ingress, web = world.pid(INGRESS), world.pid()
    stale = world.state / "envoy" / "dataplane-old-0123456789"
    stale.mkdir()
    (stale / "secret").write_bytes(b"x")
    world.new_run()
    async with world.running():
        await world.fleet.sweep(1)
        assert (world.pid(), world.pid(INGRESS)) == (web, None)
        assert not stale.exists()
        assert not world.at(INGRESS).directory.exists()
        assert any(f"its proxy is gone: draining, pid={ingress}" in line for line in said(caplog))
    world.new_run()
    await world.fleet.sweep(1)
    assert world.pid() is None


async def test_a_sweep_of_a_new_role_has_nothing_to_do(world):
    await world.fleet.sweep(1)
    assert not world.state.exists()


# ---- where


async def test_a_deep_state_directory_has_its_sockets_elsewhere(tmp_path):
    deep = tmp_path / ("d" * 100)
    world = World(tmp_path, deep)
    world.env["XDG_RUNTIME_DIR"] = str(tmp_path) if len(str(tmp_path)) <= 40 else ""
    world.new_run()
    try:
        async with world.running() as process:
            at = world.at()
            assert at.sockets != at.directory
            assert (mode(at.sockets), mode(at.sockets.parent), mode(at.admin_socket)) == (0o700, 0o700, 0o600)
            process.retire()
        assert not at.sockets.exists()
    finally:
        world.end_all()


async def test_a_directory_of_sockets_that_others_can_open_is_not_used(tmp_path, monkeypatch):
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    monkeypatch.setattr("meshd.envoy.keeper.runtime_directory", lambda *_: open_to_all)
    world = World(tmp_path, tmp_path / ("d" * 100))
    async with world.running(ready=False):
        await trio.sleep(0.2)
        assert world.pid() is None
        assert not list(open_to_all.iterdir())
