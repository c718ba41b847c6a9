"""A seeded storm over real processes, and what must hold during and after it.

A global and three zones on sqlite, services with instances in several zones, load from every zone by VIP, one poller
of each zone's DNS. Every second or three something is killed, stopped, restarted, applied, deleted or changed. Whatever
was seen is written down with its time, and judged afterwards against the history, which only the storm makes.

Usage, for a long one: ``python -m tests.e2e.chaos SEED SECONDS [DIRECTORY]``.
"""

import contextlib
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from tests.e2e import chaos_judge as judge
from tests.e2e import lab as lab_
from tests.e2e.chaos_history import (
    ASK_S,
    DRAIN_S,
    FILE,
    INSTANCES,
    LINK_S,
    MOVES,
    PLANES,
    REST,
    SERVICES,
    STREAMED,
    ZONES,
    History,
    Instance,
    Seen,
    ask,
    deny,
    home,
    query,
)  # fmt: skip
from tests.e2e.lab import Lab, builtin, free_port

QUIET_S = 15.0
RSS_BOUND_MB = 160
FD_BOUND = 250


class Storm(History):
    """The lab, the load and the hand of fate; ``problems`` is what must be empty."""

    def __init__(self, lab: Lab, seed: int, *, pace_s=0.5, gap_s=(1.0, 3.0), quiet_s=QUIET_S, patient=False):
        super().__init__()
        self.lab = lab
        self.rng = random.Random(seed)
        self.pace_s, self.gap_s = pace_s, gap_s
        self.quiet_s, self.patient = quiet_s, patient
        self.due: list[tuple[float, str, object]] = []
        self.vips: dict[str, dict[str, str]] = {z: {} for z in ZONES}
        self.problems: list[str] = []
        self.ports: dict[str, tuple[int, int]] = {}
        """The two inbound ports of an instance, of which it has one."""
        self.usage: dict[str, list] = {name: [] for name in PLANES}
        self.exits: list[tuple[str, float, int]] = []
        self.stop_load = threading.Event()
        self.threads: list[threading.Thread] = []

    # ------------------------------------------------------------------ set up
    def bring_up(self):
        lab = self.lab
        general = {"drainTime": f"{DRAIN_S:g}s"}
        lab.configure_global()
        lab.zones["global"].config["general"] |= general
        lab.rewrite("global")
        lab.start("global")
        self.planes["global"].set("up")
        self.put_mesh()
        lab.put("global", lab_.allow_all())
        for name, _, zone, owner in INSTANCES:
            instance = Instance(name, zone, owner, free_port(), free_port())
            self.instances[name] = instance
            self.ports[name] = (instance.inbound, free_port())
            self.start_application(instance)
        for zone in ZONES:
            proxies = [
                builtin(lab_.vip_client(f"client-{zone}"), vips=True),
                builtin(lab_.zone_ingress(f"ingress-{zone}", free_port())),
                builtin(lab_.zone_egress(f"egress-{zone}", free_port())),
                {"engine": "builtin", "dataplanes": {"mesh": "default", "names": "rest-*"}},
            ]
            for name, service, where, owner in INSTANCES:
                if where == zone and owner == FILE:
                    i = self.instances[name]
                    proxies.append(builtin(lab_.dataplane(name, service, i.inbound, i.app_port)))
                    i.service.set(service)
            lab.configure_zone(zone, proxies=proxies)
            lab.zones[zone].config["general"] |= general
            lab.rewrite(zone)
            lab.mint_zone_token(zone)
            lab.start(zone)
            self.planes[zone].set("up")
        for name, service, _, owner in INSTANCES:
            if owner == REST:
                self.put_dataplane(self.instances[name], service)
        lab_.eventually(lambda: not judge.store_problems(self.lab, self), 60)
        for zone in ZONES:
            for service in SERVICES:
                _, vip = query(lab.zones[zone].dns, service)
                if vip:
                    self.vips[zone][service] = vip
        for zone in ZONES:
            self.threads.append(threading.Thread(target=self.poll, args=(zone,), daemon=True))
            self.threads.append(threading.Thread(target=self.stream, args=(zone,), daemon=True))
            for service in SERVICES:
                self.threads.append(threading.Thread(target=self.load, args=(zone, service), daemon=True))
        self.storm_at = time.monotonic()
        for thread in self.threads:
            thread.start()

    def start_application(self, instance):
        instance.application = self.lab.application(instance.name, instance.app_port)
        port = instance.app_port

        def listens():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True

        lab_.eventually(listens)
        instance.up.set(True)

    def put_mesh(self):
        egress, locality = self.routing.now
        self.lab.put("global", lab_.mesh(egress=egress, locality=locality))

    def put_dataplane(self, instance, service):
        self.lab.put(instance.zone, lab_.dataplane(instance.name, service, instance.inbound, instance.app_port))
        instance.service.set(service)

    # ------------------------------------------------------------------ load
    def load(self, zone, service):
        rng = random.Random(f"{zone}{service}")
        while not self.stop_load.wait(self.pace_s * rng.uniform(0.5, 1.5)):
            vip = self.vips[zone].get(service)
            if vip is None:
                continue
            began = time.monotonic()
            answer, error = ask(vip, lab_.VIP_PORT)
            self.seen.append(Seen(zone, service, vip, began, time.monotonic(), answer, error))

    def stream(self, zone):
        """One long connection after the other; it ticks every 50 ms."""
        while not self.stop_load.wait(0.5):
            vip = self.vips[zone].get(STREAMED)
            opened, ticks = time.monotonic(), 0
            with contextlib.suppress(OSError), socket.create_connection((vip, lab_.VIP_PORT), ASK_S) as s:
                s.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
                s.settimeout(60)
                while not self.stop_load.is_set() and s.recv(4096):
                    ticks += 1
            if ticks and not self.stop_load.is_set():
                self.cuts.append((zone, opened, time.monotonic()))

    def poll(self, zone):
        port = self.lab.zones[zone].dns
        while not self.stop_load.wait(0.3):
            for service in SERVICES:
                began = time.monotonic()
                rcode, vip = query(port, service)
                ended = time.monotonic()
                if vip:
                    self.names[zone][service].add(vip)
                    self.vips[zone][service] = vip
                if rcode is None:
                    if self.planes[zone].always("up", began - 0.5, ended):
                        self.dns_problems.append(f"{self.when(began)} no DNS answer for {service} in {zone}")
                elif rcode not in ("NOERROR", "NXDOMAIN"):
                    self.dns_problems.append(f"{self.when(began)} DNS {rcode} for {service} in {zone}")
                elif not vip and self.good(zone, service, began, ended):
                    self.dns_problems.append(
                        f"{self.when(began)} DNS {rcode} without address for {service} in {zone} though instances live"
                    )

    # ------------------------------------------------------------------ events
    def blow(self, seconds):
        """Events until the time is over; what is down then comes back at its own time."""
        end = time.monotonic() + seconds
        self.event_move()  # whatever the seed: a name dies while another is born
        following = time.monotonic() + self.gap_s[0]
        while time.monotonic() < end:
            self.tend()
            if time.monotonic() >= following:
                self.event()
                following = time.monotonic() + self.rng.uniform(*self.gap_s)
            time.sleep(0.05)

    def tend(self):
        """Do what is due, see who is ready, who ended, and how much everybody uses."""
        now = time.monotonic()
        for row in [r for r in self.due if r[0] <= now]:
            self.due.remove(row)
            getattr(self, f"do_{row[1]}")(row[2])
        for name in PLANES:
            if self.planes[name].now == "starting":
                zone = self.lab.zones[name]
                code = zone.process.popen.poll()
                if code is not None:
                    self.problems.append(f"{self.when(now)} {name} ended with {code} while starting")
                    self.say(f"{name} ended with {code} while starting")
                    self.planes[name].set("down")
                    self.do_start(name)
                    continue
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"http://127.0.0.1:{zone.diagnostics}/ready", timeout=1).status_code == 200:
                        self.planes[name].set("up")
                        self.say(f"{name} is ready")
            elif self.planes[name].now == "up":
                if (code := self.lab.zones[name].process.popen.poll()) is not None:
                    self.problems.append(f"{self.when(now)} {name} ended by itself with {code}")
                    self.planes[name].set("down")
                    self.do_start(name)
                elif not self.usage[name] or now - self.usage[name][-1][0] > 2:
                    with contextlib.suppress(OSError):
                        self.usage[name].append((now, *usage(self.lab.zones[name].process.popen.pid)))
        moving = [(pair, t) for pair, t in self.denies.items() if t.now.startswith("asked")]
        if moving and all(self.planes[z].now == "up" for z in ZONES):
            known = [self.permissions(z) for z in ZONES]
            for pair, track in moving:
                name = deny(*pair)["name"]
                if None in known or now < track.times[-1] + 0.5:
                    continue
                if track.now == "asked-in" and all(name in k for k in known):
                    track.set("force", time.monotonic() + 0.5)
                    self.say(f"{name} is in force")
                elif track.now == "asked-out" and not any(name in k for k in known):
                    track.set("no")

    def permissions(self, zone):
        with contextlib.suppress(httpx.HTTPError):
            items = self.lab.get(zone, "/meshes/default/meshtrafficpermissions")["items"]
            return {judge.shown(i) for i in items}
        return None

    def later(self, seconds, what, argument):
        self.due.append((time.monotonic() + seconds, what, argument))

    def event(self):
        kinds = {
            "kill": 3, "pause": 3, "restart": 2, "application": 4, "dataplane": 5, "move": 3, "port": 2,
            "permission": 3, "routing": 2, "token": 1, "file": 1, "burst": 2, "flap": 1, "durable": 2,
        }  # fmt: skip
        (kind,) = self.rng.choices(list(kinds), list(kinds.values()))
        getattr(self, f"event_{kind}")()

    def up(self, *names):
        return [n for n in names if self.planes[n].now == "up"]

    def some(self, items):
        items = list(items)
        return self.rng.choice(items) if items else None

    def event_kill(self):
        name, pause = self.some(PLANES), self.rng.choice([0.0, 0.5, 2.0, 8.0])
        if self.planes[name].now not in ("up", "starting"):
            return
        self.kill(name, pause)

    def kill(self, name, pause):
        self.say(f"kill -9 {name}, back in {pause} s")
        self.planes[name].set("down")
        self.lab.zones[name].process.kill()
        self.later(pause, "start", name)

    def event_pause(self):
        name, pause = self.some(PLANES), self.rng.choice([0.5, 2.0, 5.0, 14.0])
        if name == "global" and self.rng.random() < 0.3:
            pause = 40.0  # beyond every keepalive
        if self.planes[name].now != "up":
            return
        self.planes[name].set("stopped")
        self.lab.zones[name].process.pause()
        self.say(f"SIGSTOP {name} for {pause} s")
        self.later(pause, "resume", name)

    def event_restart(self):
        name = self.some(PLANES)
        was = self.planes[name].now
        if was not in ("up", "starting"):
            return
        self.planes[name].set("down")
        self.lab.zones[name].process.popen.send_signal(signal.SIGTERM)
        self.say(f"SIGTERM {name}, which was {was}")
        self.later(0.1, "stopping", (name, time.monotonic(), was == "starting"))

    def do_stopping(self, argument):
        name, since, early = argument
        process = self.lab.zones[name].process
        code, took = process.popen.poll(), time.monotonic() - since
        if code is None and took < DRAIN_S + 10:
            self.later(0.1, "stopping", argument)
            return
        if code is None:
            self.problems.append(f"{self.when(since)} {name} did not stop within {took:.1f} s")
            process.kill()
        # Before the program is loaded nobody is there to handle the signal.
        self.exits.append((name, took, 0 if early and code == -signal.SIGTERM else code))
        self.say(f"{name} ended with {code} after {took:.1f} s")
        self.do_start(name)

    def do_start(self, name):
        self.lab.start(name, wait=False)
        self.planes[name].set("starting")

    def do_resume(self, name):
        self.lab.zones[name].process.resume()
        self.say(f"SIGCONT {name}")
        self.planes[name].set("up")

    def event_application(self):
        instance = self.some(i for i in self.instances.values() if i.up.now)
        if instance is None:
            return
        instance.up.set(False)
        instance.application.kill()
        pause = self.rng.choice([0.2, 2.0, 6.0])
        self.say(f"application {instance.name} killed, back in {pause} s")
        self.later(pause, "application", instance)

    def do_application(self, instance):
        self.start_application(instance)
        self.say(f"application {instance.name} is back")

    def event_dataplane(self):
        mine = [i for i in self.instances.values() if i.owner == REST and self.up(i.zone)]
        gone = [i for i in mine if not i.service.now]
        instance = self.some(gone if gone and self.rng.random() < 0.6 else mine)
        if instance is None:
            return
        if instance.service.now:
            self.delete_dataplane(instance)
        else:
            service = self.some(MOVES.get(instance.name, [home(instance.name)]))
            self.put_dataplane(instance, service)
            self.say(f"Dataplane {instance.name} applied, of {service}")

    def delete_dataplane(self, instance):
        instance.service.set(None)
        self.lab.delete(instance.zone, f"/meshes/default/dataplanes/{instance.name}")
        self.say(f"Dataplane {instance.name} deleted")

    def event_flap(self):
        """A Dataplane comes and goes as fast as it can."""
        instance = self.some(i for i in self.instances.values() if i.owner == REST and self.up(i.zone))
        if instance is None:
            return
        for _ in range(self.rng.randint(3, 8)):
            if instance.service.now:
                self.delete_dataplane(instance)
            else:
                self.put_dataplane(instance, self.some(MOVES.get(instance.name, [home(instance.name)])))
                self.say(f"Dataplane {instance.name} applied, of {instance.service.now}")

    def event_durable(self):
        """What was accepted the moment before a kill is kept."""
        name = self.some(self.up(*PLANES))
        if name is None:
            return
        if name == "global":
            self.event_permission()
        else:
            instance = self.some(i for i in self.instances.values() if i.owner == REST and i.zone == name)
            if instance.service.now:
                self.delete_dataplane(instance)
            else:
                self.put_dataplane(instance, self.some(MOVES.get(instance.name, [home(instance.name)])))
        self.kill(name, 0.0)

    def event_move(self):
        instance = self.instances[self.some(MOVES)]
        if not self.up(instance.zone) or not instance.service.now:
            return
        service = self.some(s for s in MOVES[instance.name] if s != instance.service.now)
        self.put_dataplane(instance, service)
        self.say(f"Dataplane {instance.name} is now of {service}")

    def event_port(self):
        instance = self.some(
            i for i in self.instances.values() if i.owner == REST and i.service.now and self.up(i.zone)
        )
        if instance is None:
            return
        service = instance.service.now
        instance.service.set(None)  # it has to be found again
        instance.inbound = next(p for p in self.ports[instance.name] if p != instance.inbound)
        self.put_dataplane(instance, service)
        self.say(f"Dataplane {instance.name} has another port")

    def event_file(self):
        """One of two file-owned Dataplanes leaves its file, or comes back, with a kill."""
        name, zone = "payments-zone-b-1", "zone-b"
        if not self.up(zone):
            return
        instance, proxies = self.instances[name], self.lab.zones[zone].config["proxies"]
        self.planes[zone].set("down")
        self.lab.zones[zone].process.kill()
        if instance.service.now:
            proxies[:] = [p for p in proxies if p.get("resource", {}).get("name") != name]
            instance.service.set(None)
        else:
            proxies.append(builtin(lab_.dataplane(name, "payments", instance.inbound, instance.app_port)))
            instance.service.set("payments")
        self.lab.rewrite(zone)
        self.say(f"kill -9 {zone}, and its file has {name}: {bool(instance.service.now)}")
        self.do_start(zone)

    def event_burst(self):
        for _ in range(self.rng.randint(2, 4)):
            self.event()

    def event_permission(self):
        if not self.up("global"):
            return
        pair = self.some(self.denies)
        track, name = self.denies[pair], deny(*pair)["name"]
        if track.now in ("no", "asked-out"):
            track.set("asked-in")
            self.lab.put("global", deny(*pair))
            self.say(f"{name} applied")
        else:
            track.set("asked-out")
            self.lab.delete("global", f"/meshes/default/meshtrafficpermissions/{name}")
            self.say(f"{name} deleted")

    def event_routing(self):
        if not self.up("global"):
            return
        self.routing.set((self.rng.random() < 0.5, self.rng.random() < 0.5))
        self.put_mesh()
        self.say(f"Mesh routing: egress, locality = {self.routing.now}")

    def event_token(self):
        if not self.up("global"):
            return
        zone = self.some(ZONES)
        self.lab.mint_zone_token(zone)
        self.say(f"token of {zone} minted again")

    # ------------------------------------------------------------------ quiet
    def calm(self):
        """Bring back what is down, wait, and judge the state and the shares, with the load still on."""
        self.say("---- calm")
        while self.due or any(t.now != "up" for t in self.planes.values()):
            self.due = [(0.0, *row[1:]) for row in self.due]
            self.tend()
            time.sleep(0.05)
        self.say("---- all up")
        quiet = time.monotonic()
        converged = None
        while time.monotonic() < quiet + self.quiet_s:
            self.tend()
            if converged is None and not judge.store_problems(self.lab, self):
                converged = time.monotonic() - quiet
                self.say(f"---- every store is as promised after {converged:.1f} s")
            time.sleep(0.2)
        if self.patient:  # a slow machine is no fault of the stores
            with contextlib.suppress(AssertionError):
                lab_.eventually(lambda: not judge.store_problems(self.lab, self), LINK_S, 0.5)
        problems = judge.store_problems(self.lab, self)
        self.problems += problems
        if problems:
            with contextlib.suppress(AssertionError):
                lab_.eventually(lambda: not judge.store_problems(self.lab, self), 60)
            took, left = time.monotonic() - quiet, judge.store_problems(self.lab, self)
            self.problems.append(f"stores: at {self.quiet_s} s wrong as above; after {took:.1f} s: {left}")
        self.say("---- stores judged")
        self.problems += judge.share_problems(self.lab, self)
        self.stop_load.set()
        for thread in self.threads:
            thread.join(ASK_S + 5)
        self.ended = time.monotonic()
        for name in PLANES:
            mine = usage(self.lab.zones[name].process.popen.pid)
            self.say(f"{name}: {mine[0]:.0f} MB, {mine[1]} fds; at most {max(u[1] for u in self.usage[name]):.0f} MB, "
                     f"{max(u[2] for u in self.usage[name])} fds")  # fmt: skip
            if max(u[1] for u in self.usage[name]) > RSS_BOUND_MB or max(u[2] for u in self.usage[name]) > FD_BOUND:
                self.problems.append(f"{name} grew: {self.usage[name]}")

    def close(self):
        for name in reversed(PLANES):
            began = time.monotonic()
            process = self.lab.zones[name].process
            try:
                code = process.stop(DRAIN_S + 10)
            except AssertionError as error:
                self.problems.append(str(error))
                continue
            self.exits.append((name, time.monotonic() - began, code))
        for name, took, code in self.exits:
            if code != 0 or took > DRAIN_S + 4:
                self.problems.append(f"{name} ended with {code} after {took:.1f} s on SIGTERM")


def usage(pid):
    """(resident MB, open files) of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def run(directory, seed, seconds, **options):
    """One storm; returns what went wrong."""
    with Lab(Path(directory)) as lab:
        storm = Storm(lab, seed, **options)
        storm.bring_up()
        storm.say("---- storm")
        storm.blow(seconds)
        storm.calm()
        storm.close()
        storm.problems += judge.request_problems(storm) + judge.cut_problems(storm)
        storm.problems += judge.name_problems(storm) + judge.log_problems(lab)
        print(f"clean restarts: {[(n, round(t, 1), c) for n, t, c in storm.exits]}")
    return storm.problems


if __name__ == "__main__":
    directory = sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="chaos-")
    print(f"seed {sys.argv[1]}, {sys.argv[2]} s, in {directory}")
    wrong = run(directory, int(sys.argv[1]), float(sys.argv[2]))
    print(f"---- {len(wrong)} problems")
    print("\n".join(wrong))
    sys.exit(bool(wrong))
