"""The mesh that most scenarios start from: a global, and zones with ingresses, egresses and payments instances."""

from contextlib import contextmanager

from tests.e2e import lab as lab_
from tests.e2e.lab import Lab, eventually, run_by
from tests.ports import free_port


@contextmanager
def zones(
    directory, plan, *, egress=False, locality=False, store="sqlite", permissions=True, ready=True, engine="builtin"
):
    """Start a global and the zones of ``plan``: {zone: {"instances": n, "ingresses": n, "proxies": [...]}}.

    Every proxy is run by ``engine``; a zone's "engines" says otherwise for the parts that it names: {"client":
    "envoy", "ingress": ..., "egress": ..., "instance": ...}. Every zone has a VIP client ``client-<zone>`` and, with
    ``egress``, a ZoneEgress. Instances are called ``payments-<zone>-<i>``, and so answer. Yields the lab once every
    zone is online and sees every instance.
    """
    with Lab(directory, store) as lab:
        lab.configure_global()
        lab.start("global")
        lab.put("global", lab_.mesh(egress=egress, locality=locality))
        if permissions:
            lab.put("global", lab_.allow_all())
        lab.instances = {}
        lab.ports = {}
        for zone, wish in plan.items():
            engines = dict.fromkeys(("client", "ingress", "egress", "instance"), engine) | wish.get("engines", {})
            proxies = [
                run_by(engines["client"], lab_.vip_client(f"client-{zone}", tags=wish.get("client_tags")), vips=True)
            ]
            for i in range(wish.get("ingresses", 1)):
                port = lab.ports[f"ingress-{zone}-{i}"] = free_port()
                proxies.append(run_by(engines["ingress"], lab_.zone_ingress(f"ingress-{zone}-{i}", port)))
            if egress:
                port = lab.ports[f"egress-{zone}"] = free_port()
                proxies.append(run_by(engines["egress"], lab_.zone_egress(f"egress-{zone}", port)))
            for i in range(wish.get("instances", 0)):
                name = f"payments-{zone}-{i}"
                application, inbound = free_port(), free_port()
                lab.ports[name] = inbound
                lab.instances[name] = lab.application(name, application)
                lab.instances[name].port = application
                proxies.append(run_by(engines["instance"], lab_.dataplane(name, "payments", inbound, application)))
            lab.configure_zone(zone, proxies=proxies + wish.get("proxies", []))
            lab.mint_zone_token(zone)
            lab.start(zone)
        if ready:
            expected = {z: w.get("instances", 0) for z, w in plan.items()}
            for zone in plan:
                eventually(lambda zone=zone: lab.online(zone), 20)
            lab.vips = {}
            for zone in plan:
                if sum(expected.values()):
                    lab.vips[zone] = lab.resolve(zone, "payments.mesh", 20)
                    others = {z for z, n in expected.items() if n and z != zone}
                    eventually(lambda zone=zone, others=others: others <= ingress_zones(lab, zone), 20)
                    eventually(lambda zone=zone: lab.fetch(zone, "payments.mesh", vip=lab.vips[zone]), 20)
        yield lab


def ingress_zones(lab, zone):
    """The other zones whose payments ingress a zone knows."""
    items = lab.get(zone, "/zoneingresses")["items"]
    return {
        i["zone"]
        for i in items
        if i.get("zone") and any(s["tags"]["kuma.io/service"] == "payments" for s in i.get("availableServices", []))
    }


def zone_of(answer):
    """The zone in an instance's name: payments-zone-b-0 -> zone-b."""
    return answer.removeprefix("payments-").rsplit("-", 1)[0] if answer else None
