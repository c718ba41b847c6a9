"""A fleet over pretended Envoys, and what tests ask of it."""

import logging
import os
import random
import signal
import stat
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry

from meshd.ca.internal import InternalCredentials
from meshd.envoy.command import Options
from meshd.envoy.keeper import Fleet
from meshd.envoy.metrics import Metrics
from meshd.envoy.places import home, places, runtime_directory
from meshd.envoy.processes import envoys_under
from meshd.model.resource import ResourceKey

WEB = ResourceKey("Dataplane", "default", "web")
INGRESS = ResourceKey("ZoneIngress", "", "in")


async def until(check, within_s=10.0):
    """Wait for ``check()`` to be true; returns that."""
    with trio.fail_after(within_s):
        while not (value := check()):
            await trio.sleep(0.01)
        return value


def with_admin(document, surroundings):
    """A bootstrap document with the admin interface that meshd wants."""
    pipe = {"path": str(surroundings.admin_socket), "mode": 0o600}
    return document | {"admin": {"address": {"pipe": pipe}}}


class World:
    """One state directory and the runs of meshd over it; ends every Envoy that was started below it."""

    def __init__(self, tmp_path, state_dir=None):
        self.state = state_dir or tmp_path / "s"
        self.program = tmp_path / "pretender"
        source = Path(__file__).with_name("pretender.py")
        self.program.write_text(f"#!{sys.executable} -IS\n{source.read_text()}")
        self.program.chmod(0o755)
        self.env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": ""}
        self.options = Options(self.program, drain_s=5)
        self.pretend = {}
        self.kept = True
        self.new_run()

    def new_run(self):
        """As if meshd had started again."""
        self.registry = CollectorRegistry()
        self.credentials = InternalCredentials()
        self.asked_whether_kept = []
        self.fleet = Fleet(
            self.state,
            self.bootstrap,
            self.credentials,
            self.is_kept,
            random.Random(1),
            Metrics(self.registry),
            self.env,
        )

    def is_kept(self, is_adopted):
        self.asked_whether_kept.append(is_adopted)
        return self.kept

    async def bootstrap(self, surroundings):
        self.surroundings = surroundings
        return with_admin({"pretend": self.pretend, "credential": surroundings.credential}, surroundings)

    def at(self, proxy=WEB):
        return places(self.state, proxy, runtime_directory(self.env, os.getuid()))

    def found(self, proxy=WEB):
        return envoys_under(home(self.state), os.getuid()).get(self.at(proxy).bootstrap)

    def pid(self, proxy=WEB):
        found = self.found(proxy)
        return found.pid if found else None

    def asked(self, proxy=WEB):
        path = self.at(proxy).directory / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def metric(self, name, proxy=WEB):
        labels = {"kind": proxy.kind, "mesh": proxy.mesh, "name": proxy.name}
        return self.registry.get_sample_value(f"meshd_envoy_{name}", labels)

    def end_all(self):
        for found in envoys_under(home(self.state), os.getuid()).values():
            os.kill(found.pid, signal.SIGKILL)

    @asynccontextmanager
    async def running(self, proxy=WEB, *, ready=True, took_over=None):
        """One run of meshd with one Envoy, ended as by an orderly stop."""
        process = self.fleet.process(proxy, self.options, took_over)
        async with trio.open_nursery() as nursery:
            await nursery.start(process.run)
            if ready:
                await until(lambda: process.ready.value)
            yield process
            nursery.cancel_scope.cancel()


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def said(caplog, level=logging.INFO):
    return [r.getMessage() for r in caplog.records if r.levelno >= level and r.name.startswith("meshd.envoy")]
