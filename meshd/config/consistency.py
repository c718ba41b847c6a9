"""Rules between the settings of one role: what cannot be true together, and what is allowed but should be known."""

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address

from meshd.config.fields import comes_back, split_host_port
from meshd.config.tree import Config, StoreType, parse_global_address

ZONE_ONLY = ("multizone.zone", "dnsServer", "dpServer", "bootstrapServer", "xdsServer", "envoy", "proxies")
GLOBAL_ONLY = ("multizone.global",)


def is_loopback(host: str) -> bool:
    """Whether a literal address (or the name localhost) stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def contradictions(config: Config, given: frozenset[str]) -> Iterator[tuple[str, str]]:
    """What cannot be true together in one role, as (key, message). ``given`` holds the dotted keys that were set."""
    for prefix in ZONE_ONLY if config.is_global else GLOBAL_ONLY:
        if prefix in given:
            other = "zone" if config.is_global else "global"
            yield prefix, f"is for mode: {other} only; this role is mode: {config.mode}; remove it"
    if "store.sqlite.path" in given and config.store.type is not StoreType.SQLITE:
        yield "store.sqlite.path", f"does nothing with store.type: {config.store.type}; remove one of the two"
    if not config.api_server.http.enabled and not config.api_server.https.enabled:
        yield "apiServer.http.enabled", "leaves the API without a server; enable http or https"
    yield from _tls_contradictions(config, given)
    if config.is_global:
        return
    yield from _dp_server_contradictions(config, given)
    yield from _federation_contradictions(config, given)
    if "envoy" in given and not config.runs_envoys:
        yield "envoy", "does nothing without a proxy of engine: envoy; remove it"
    if config.runs_envoys and not config.dp_server.enabled:
        yield "dpServer.enabled", "false leaves the Envoys of proxies without a configuration; remove it"
    if config.dns_server.resolv_conf and config.dns_server.upstreams:
        yield "dnsServer.resolvConf", "names the upstreams, and so does dnsServer.upstreams; remove one of the two"
    yield from _dns_contradictions(config, given)
    pool = config.dns_server.cidr
    if pool.overlaps(IPv4Network("127.0.0.0/24")):
        yield "dnsServer.CIDR", f"must not overlap 127.0.0.0/24, where this host's own servers are: {pool}"
    elif pool.num_addresses < 4:
        yield "dnsServer.CIDR", f"has no room for addresses: {pool}; use a /24 or wider"


def _tls_contradictions(config: Config, given: frozenset[str]) -> Iterator[tuple[str, str]]:
    servers = [("apiServer.https", config.api_server.https.enabled, "enabled", config.https_tls_files)]
    if config.is_global:
        kds = config.multizone.global_.kds
        servers.append(("multizone.global.kds", kds.tls_enabled, "tlsEnabled", config.kds_tls_files))
    for key, on, switch, files in servers:
        own = [name for name in ("tlsCertFile", "tlsKeyFile") if f"{key}.{name}" in given]
        if on and files is None:
            yield (
                f"{key}.{switch}",
                f"needs {key}.tlsCertFile and {key}.tlsKeyFile (or both under general); set them or {switch}: false",
            )
        if not on:
            for name in own:
                yield f"{key}.{name}", f"does nothing while {key}.{switch} is false"
    uses_general = any(on for _, on, _, _ in servers) or (not config.is_global and config.dp_server.enabled)
    general = [name for name in ("tlsCertFile", "tlsKeyFile") if f"general.{name}" in given]
    if general and not uses_general:
        yield f"general.{general[0]}", "does nothing: no server of this role has TLS enabled"


def _dns_contradictions(config: Config, given: frozenset[str]) -> Iterator[tuple[str, str]]:
    dns = config.dns_server
    if not dns.upstreams and dns.resolv_conf is None:
        for key in ("dnsServer.cache", "dnsServer.maxOutstanding"):
            if key in given:
                yield key, "does nothing without dnsServer.upstreams or dnsServer.resolvConf; name servers to ask"
    own = split_host_port(dns.listen) if dns.listen else ("", -1)
    for index, upstream in enumerate(dns.upstreams):
        host, port = split_host_port(upstream)
        if port == own[1] and comes_back(host, own[0]):
            yield f"dnsServer.upstreams[{index}]", f"{upstream} is dnsServer.listen itself; name another server"
    if not dns.query_log.enabled:
        for name in ("file", "oneIn"):
            if f"dnsServer.queryLog.{name}" in given:
                yield f"dnsServer.queryLog.{name}", "does nothing while dnsServer.queryLog.enabled is false"
    if not dns.tcp.idle_timeout:
        yield "dnsServer.tcp.idleTimeout", "of 0s would close every connection at once; use 10s"


def _dp_server_contradictions(config: Config, given: frozenset[str]) -> Iterator[tuple[str, str]]:
    if not config.dp_server.enabled:
        about = ("dpServer.", "bootstrapServer.", "xdsServer.")
        leaves = [key for key in given if not any(other.startswith(f"{key}.") for other in given)]
        for key in sorted(leaves):
            if key.startswith(about) and key not in ("dpServer.enabled", "dpServer.port"):
                yield key, "does nothing while dpServer.enabled is false; remove it"
        return
    if config.dp_tls_files is None:
        for section in ("dpServer", "general"):
            own = [name for name in ("tlsCertFile", "tlsKeyFile") if f"{section}.{name}" in given]
            if own:
                yield (
                    f"{section}.{own[0]}",
                    f"needs {section}.tlsCertFile and {section}.tlsKeyFile, a pair; set both or neither",
                )
                return


def _federation_contradictions(config: Config, given: frozenset[str]) -> Iterator[tuple[str, str]]:
    zone = config.multizone.zone
    if not zone.global_address:
        for name in ("rootCaFile", "tlsSkipVerify", "tokenFile"):
            if f"multizone.zone.kds.{name}" in given:
                yield f"multizone.zone.kds.{name}", "does nothing without multizone.zone.globalAddress"
        if "multizone.zone.allowZonePolicies" in given:
            yield "multizone.zone.allowZonePolicies", "does nothing in a standalone zone: all policies are its own"
        return
    if "multizone.zone.name" not in given:
        yield "multizone.zone.name", "is required with globalAddress: every zone has a name of its own"
    if "defaults.skipMeshCreation" in given:
        yield "defaults.skipMeshCreation", "does nothing in a federated zone: meshes come from the global"
    tls, _, _ = parse_global_address(zone.global_address)
    for name, on in (("rootCaFile", zone.kds.root_ca_file is not None), ("tlsSkipVerify", zone.kds.tls_skip_verify)):
        if on and not tls:
            yield f"multizone.zone.kds.{name}", "does nothing with grpc://; use grpcs:// in globalAddress"
    if zone.kds.tls_skip_verify and zone.kds.root_ca_file:
        yield "multizone.zone.kds.tlsSkipVerify", "contradicts rootCaFile: either check the certificate or do not"


def warnings(config: Config) -> Iterator[tuple[str, str]]:
    """What is allowed but should be known, as (key, message)."""
    http = config.api_server.http
    if http.enabled and not is_loopback(http.interface):
        yield (
            "apiServer.http.interface",
            f"{http.interface} lets anyone who reaches port {http.port} read and write resources in clear text",
        )
    if config.is_global:
        kds = config.multizone.global_.kds
        if not kds.tls_enabled and not is_loopback(kds.interface):
            yield "multizone.global.kds.tlsEnabled", "false sends zone tokens and CA keys in clear text"
        for index, peer in enumerate(kds.unauthenticated_zones):
            yield (
                f"multizone.global.kds.unauthenticatedZones[{index}]",
                f"admits zone {peer.name} from {peer.cidr} without a token",
            )
        return
    yield from _dp_server_warnings(config)
    yield from _dns_warnings(config)
    zone = config.multizone.zone
    if zone.global_address:
        tls, host, _ = parse_global_address(zone.global_address)
        if not tls and not is_loopback(host):
            yield "multizone.zone.globalAddress", "grpc:// sends the zone token and receives CA keys in clear text"
        if zone.kds.tls_skip_verify:
            yield "multizone.zone.kds.tlsSkipVerify", "gives the zone token to whoever answers; for trying only"
        if zone.kds.token_file is None:
            yield "multizone.zone.kds.tokenFile", "is unset: only a global that lists this zone will admit it"
    if any(p.vips for p in config.proxies) and not config.dns_server.is_on_loopback:
        yield (
            "dnsServer.CIDR",
            (
                f"{config.dns_server.cidr} is outside 127.0.0.0/8: the kernel must treat it as local,"
                f" `ip route add local {config.dns_server.cidr} dev lo`"
            ),
        )


def _dns_warnings(config: Config) -> Iterator[tuple[str, str]]:
    dns = config.dns_server
    if not dns.listen:
        return
    host, _ = split_host_port(dns.listen)
    if is_loopback(host):
        if dns.allow:
            yield "dnsServer.allow", f"changes nothing: nobody else can reach {dns.listen}"
    elif not dns.allow:
        yield (
            "dnsServer.listen",
            f"{dns.listen} can be reached by others, but only this host is answered; say in dnsServer.allow who may",
        )
    for index, network in enumerate(dns.allow):
        if network.prefixlen == 0 and not is_loopback(host):
            yield f"dnsServer.allow[{index}]", f"{network} lets everybody ask: name the networks of your own clients"
            if not dns.rate_limit:
                yield "dnsServer.rateLimit", "of 0 lets others flood somebody in whose name they ask; leave it at 5000"


def _dp_server_warnings(config: Config) -> Iterator[tuple[str, str]]:
    server = config.dp_server
    if not server.enabled or is_loopback(server.interface):
        return
    for name, kind, what in (
        ("dpProxy", server.authn.dp_proxy.type, "any Dataplane, with its certificate"),
        ("zoneProxy", server.authn.zone_proxy.type, "any ZoneIngress or ZoneEgress"),
    ):
        if kind == "none":
            yield f"dpServer.authn.{name}.type", f"none lets anyone who reaches port {server.port} be {what}"
