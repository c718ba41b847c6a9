"""What must hold: in the stores, in the shares, in every answer, name and log. Each returns what does not."""

import re
from collections import Counter

import httpx

from tests.e2e import lab as lab_
from tests.e2e.chaos_history import PLANES, SERVICES, ZONES, Track, ask, deny, query

BAD = re.compile(r"Traceback|\bERROR\b|\berror:|CRITICAL|never awaited|Exception ignored|ResourceWarning", 0)

INSIGHTS = "/meshes/default/service-insights?size=1000"


def store_problems(lab, history):
    """Where a control plane's resources differ from what the promises say."""
    found = []

    def compare(what, got, wanted):
        if got != wanted:
            found.append(f"{what}: missing {short(wanted, got)}, left over {short(got, wanted)}")

    wanted = {(i.zone, i.name, i.service.now) for i in history.instances.values() if i.service.now}
    clients = {(z, f"client-{z}", f"client-{z}") for z in ZONES}
    try:
        mesh = lab.get("global", "/meshes/default")
        policies = {"allow-all"} | {
            deny(*p)["name"] for p, t in history.denies.items() if t.now in ("asked-in", "force")
        }
        for plane in PLANES:
            got = listed(lab.get(plane, "/meshes/default/dataplanes?size=1000")["items"], dataplane_row, plane)
            mine = {row for row in wanted | clients if plane in ("global", row[0])}
            compare(f"Dataplanes at {plane}", got, mine)
            got = {shown(i) for i in lab.get(plane, "/meshes/default/meshtrafficpermissions")["items"]}
            compare(f"permissions at {plane}", got, policies)
            got = {i["name"] for i in lab.get(plane, "/meshes")["items"]}
            compare(f"meshes at {plane}", got, {"default"})
            here = lab.get(plane, "/meshes/default")
            found += [
                f"Mesh at {plane}: {key} is {here.get(key)}, at the global {mesh.get(key)}"
                for key in ("mtls", "routing")
                if here.get(key) != mesh.get(key)
            ]
            egress, locality = history.routing.now
            routing = mesh.get("routing", {})
            if bool(routing.get("zoneEgress")) != egress or bool(routing.get("localityAwareLoadBalancing")) != locality:
                found.append(f"Mesh at the global: routing {routing}, wanted {history.routing.now}")
            got = {
                (zone_of(i, plane), s["tags"]["kuma.io/service"], s["instances"])
                for i in lab.get(plane, "/zoneingresses")["items"]
                for s in i.get("availableServices", ())
            }
            compare(f"availableServices at {plane}", got, {(z, s, n) for (z, s), n in history.published().items()})
            got = {(zone_of(i, plane), shown(i)) for i in lab.get(plane, "/zoneingresses")["items"]}
            compare(f"ZoneIngresses at {plane}", got, {(z, f"ingress-{z}") for z in ZONES})
            if len(lab.get(plane, "/zoneingresses")["items"]) != len(ZONES):
                found.append(f"ZoneIngresses at {plane} more than once")
        got = {
            (zone_of(i, "global"), shown(i))
            for i in lab.get("global", "/meshes/default/dataplanes/_overview?size=1000")["items"]
            if any("disconnectTime" not in s for s in i.get("dataplaneInsight", {}).get("subscriptions", ()))
        }
        compare("Dataplanes online at the global", got, {(z, n) for z, n, _ in wanted | clients})
        got = {(i["name"], i["dataplanes"]["total"]) for i in lab.get("global", INSIGHTS)["items"]}
        numbers = Counter(service for _, _, service in wanted | clients)
        compare("service insights at the global", got, set(numbers.items()))
        for zone in ZONES:
            if not lab.online(zone):
                found.append(f"{zone} is not online at the global")
            for service in SERVICES:
                rcode, vip = query(lab.zones[zone].dns, service)
                exists = any(s == service for _, s in history.published())
                if (rcode, bool(vip)) != (("NOERROR", True) if exists else ("NXDOMAIN", False)):
                    found.append(f"DNS in {zone}: {service} is {rcode} {vip}, instances: {exists}")
    except (AssertionError, httpx.HTTPError) as error:
        found.append(f"stores cannot be read: {error!r}")
    return found


def share_problems(lab, history, count=60):
    """Each service that is there, from each zone, to every instance in the right share."""
    _, locality = history.routing.now
    found = []
    for zone in ZONES:
        for service in SERVICES:
            everywhere = [i for i in history.instances.values() if i.service.now == service]
            if not everywhere:
                continue
            vip = query(lab.zones[zone].dns, service)[1]
            if vip is None:
                found.append(f"shares: {service} has no address in {zone}")
                continue
            here = [i for i in everywhere if i.zone == zone]
            takers = here if locality and here else everywhere
            denied = history.denies.get((zone, service), Track("no")).now in ("asked-in", "force")
            got = Counter(ask(vip, lab_.VIP_PORT)[0] for _ in range(6 if denied else count))
            if denied:
                if set(got) != {None}:
                    found.append(f"shares: {zone} is denied {service} and got {got}")
                continue
            want = {i.name: count / len(takers) for i in takers}
            wrong = {k: n for k, n in got.items() if abs(n - want.get(k, 0)) > (0.1 * count if k in want else 0)}
            wrong |= {k: 0 for k in want if k not in got}
            if wrong:
                found.append(f"shares: {service} from {zone} ({history.routing.now}): {dict(got)}, wanted {want}")
    return found


def request_problems(history):
    """Answered by the wrong one, answered though denied, failed without an excuse."""
    excused, found = Counter(), []
    for r in history.seen:
        where = f"{history.when(r.began)}-{history.when(r.ended)} {r.service} from {r.zone} at {r.vip}"
        if r.answer is not None:
            instance = history.instances.get(r.answer)
            if instance is None or r.service not in instance.service.during(r.began - 2.0, r.ended):
                found.append(f"{where}: answered by {r.answer}; {history.nearby(r.began, r.ended)}")
            track = history.denies.get((r.zone, r.service))
            if track is not None and track.always("force", r.began, r.ended):
                found.append(f"{where}: answered by {r.answer} though denied; {history.nearby(r.began, r.ended)}")
            continue
        why = history.excuse(r)
        excused[re.sub(r" to .*", "", why) or "UNEXPLAINED", re.sub(r" \[.*", "", r.error)] += 1
        if not why:
            good = [i.name for i in history.good(r.zone, r.service, r.began, r.ended)]
            found.append(f"{where}: {r.error}; good: {good}; {history.nearby(r.began, r.ended)}")
    slow = sorted(((r.ended - r.began, r) for r in history.seen if r.answer), key=lambda row: row[0], reverse=True)
    print(f"requests {len(history.seen)}, answered {len(slow)}; slowest answered:")
    for took, r in slow[:8]:
        print(f"  {took:.2f} s {r.service} from {r.zone} by {r.answer}; {history.nearby(r.began, r.ended)}")
    for (why, error), count in sorted(excused.items()):
        print(f"failed: {count:5} {why}: {error}")
    return found


def cut_problems(history):
    """Long connections that ended though nothing they rest on did."""
    found, excused = [], Counter()
    for zone, opened, ended in history.cuts:
        why = history.excuse_of_cut(zone, ended)
        excused[re.sub(r"^to .*", "to what died", why) or "UNEXPLAINED"] += 1
        if not why:
            where = f"{history.when(opened)}-{history.when(ended)} stream from {zone}"
            found.append(f"{where}: cut; {history.nearby(ended, ended, 10.0)}")
    print(f"long connections that ended: {dict(excused)}")
    return found


def name_problems(history):
    """No VIP moved, none was of two services."""
    found = []
    for zone, names in history.names.items():
        owners = {}
        for service, vips in names.items():
            if len(vips) > 1:
                found.append(f"VIPs of {service} in {zone}: {vips}")
            for vip in vips:
                owners.setdefault(vip, set()).add(service)
        found += [f"VIP {vip} in {zone} was of {who}" for vip, who in owners.items() if len(who) > 1]
    return found + history.dns_problems


def log_problems(lab):
    """Nothing that says error."""
    found = []
    for name in PLANES:
        text = lab.zones[name].process.text()
        lines = text.splitlines()
        bad = [n for n, line in enumerate(lines) if BAD.search(line)]
        found += [f"log of {name}:{n + 1}: " + "\n    ".join(lines[n : n + 3]) for n in bad[:20]]
    return found


def shown(item):
    return item.get("labels", {}).get("kuma.io/display-name") or item["name"]


def zone_of(item, plane):
    return item.get("labels", {}).get("kuma.io/zone") or item.get("zone") or plane


def dataplane_row(item, plane):
    networking = item["networking"]
    of = networking["inbound"][0] if networking.get("inbound") else networking["gateway"]
    return zone_of(item, plane), shown(item), of["tags"]["kuma.io/service"]


def listed(items, row, plane):
    return {row(item, plane) for item in items}


def short(a, b):
    return sorted(map(str, a - b))[:6]
