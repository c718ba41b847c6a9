"""Whether several roles can share one process, and whether the files they name are there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import combinations

from meshd.config.fields import split_host_port
from meshd.config.loader import LoadedConfig
from meshd.config.problem import ConfigErrors, Problem


@dataclass(frozen=True, slots=True)
class _Bind:
    """A socket that a role will bind: ``address`` literal, ``name`` the setting, ``where`` its place."""

    transport: str
    address: str
    port: int
    name: str
    where: Problem


def check_together(configs: Sequence[LoadedConfig]) -> None:
    """Refuse roles that would collide in one process (and one role that collides with itself).

    Raises:
        ConfigErrors: overlapping addresses, VIP pools, databases, zone names, log settings, or owners of the VIPs.
    """
    problems = [*_same_binds(configs), *_same_things(configs)]
    if problems:
        raise ConfigErrors(problems)


def unreadable_files(configs: Sequence[LoadedConfig]) -> tuple[Problem, ...]:
    """The certificates, keys and CAs that cannot be read now. A zone token may still come: its reader waits for it."""
    problems = []
    for loaded in configs:
        config = loaded.config
        named = [
            ("multizone.zone.kds.rootCaFile", config.multizone.zone.kds.root_ca_file),
            ("bootstrapServer.params.corefileTemplatePath", config.bootstrap_server.params.corefile_template_path),
        ]
        for section, files in (
            ("multizone.global.kds", config.kds_tls_files),
            ("apiServer.https", config.https_tls_files),
            ("dpServer", None if config.is_global or not config.dp_server.enabled else config.dp_tls_files),
        ):
            if files is not None and (section != "multizone.global.kds" or config.is_global):
                named += [(f"{section}.tlsCertFile", files[0]), (f"{section}.tlsKeyFile", files[1])]
        for key, path in named:
            if path is None:
                continue
            try:
                with path.open("rb"):
                    pass
            except OSError as error:
                problems.append(loaded.problem(key, f"cannot read {path}: {error.strerror}"))
    return tuple(problems)


def binds(loaded: LoadedConfig) -> Iterator[_Bind]:
    """Every socket that a role will bind, with the setting that asks for it."""
    config = loaded.config

    def bind(transport: str, address: str, port: int, key: str) -> _Bind:
        return _Bind(transport, address, port, key, loaded.problem(key, ""))

    api = config.api_server
    if api.http.enabled:
        yield bind("tcp", api.http.interface, api.http.port, "apiServer.http.port")
    if api.https.enabled:
        yield bind("tcp", api.https.interface, api.https.port, "apiServer.https.port")
    diagnostics = config.diagnostics
    yield bind("tcp", diagnostics.server_interface, diagnostics.server_port, "diagnostics.serverPort")
    if config.is_global:
        kds = config.multizone.global_.kds
        yield bind("tcp", kds.interface, kds.grpc_port, "multizone.global.kds.grpcPort")
        return
    if config.dp_server.enabled:
        yield bind("tcp", config.dp_server.interface, config.dp_server.port, "dpServer.port")
    if config.dns_server.listen:
        host, port = split_host_port(config.dns_server.listen)
        for transport in ("tcp", "udp"):
            yield bind(transport, host, port, "dnsServer.listen")
    for proxy in loaded.proxies:
        for path, address, port in proxy.listens():
            name = f"{proxy.resource.key} {path}"
            yield _Bind("tcp", address, port, name, Problem(proxy.source, proxy.line, name, ""))


def overlap(one: str, other: str) -> bool:
    """Whether sockets on these addresses exclude each other on one port. A wildcard covers its family, :: both."""
    try:
        a, b = ip_address(one), ip_address(other)
    except ValueError:
        return one == other
    if a == b or "::" in (str(a), str(b)):
        return True
    return a.version == b.version and (a.is_unspecified or b.is_unspecified)


def _same_binds(configs: Sequence[LoadedConfig]) -> Iterator[Problem]:
    everything = [b for loaded in configs for b in binds(loaded)]
    seen: set[tuple[str, str]] = set()
    for first, second in combinations(everything, 2):
        same = first.transport == second.transport and first.port == second.port != 0
        if not same or not overlap(first.address, second.address):
            continue
        pair = (str(first.where), str(second.where))
        if pair in seen:  # udp and tcp of one setting
            continue
        seen.add(pair)
        yield Problem(
            second.where.source,
            second.where.line,
            second.where.key,
            f"{second.address}:{second.port} is also {first.name} ({first.address}:{first.port})"
            f" at {_place(first.where)}; choose another port or address",
        )


def _same_things(configs: Sequence[LoadedConfig]) -> Iterator[Problem]:
    for first, second in combinations(configs, 2):
        a, b = first.config, second.config
        other = first.path
        if a.role == b.role and not a.is_global:
            message = f"'{b.zone_name}' is also the name of the zone in {other}; every zone has a name of its own"
            yield second.problem("multizone.zone.name", message)
        if a.store.type == b.store.type == "sqlite" and a.sqlite_path == b.sqlite_path:
            yield second.problem("store.sqlite.path", f"{b.sqlite_path} is also the database of {other}")
        elif a.state_dir == b.state_dir:
            yield second.problem("general.workDir", f"gives the same state directory {b.state_dir} as {other}")
        if not a.is_global and not b.is_global and a.dns_server.cidr.overlaps(b.dns_server.cidr):
            message = f"{b.dns_server.cidr} overlaps {a.dns_server.cidr} of {other}; a host's VIPs need one owner"
            yield second.problem("dnsServer.CIDR", message)
        if a.logging != b.logging:
            key = "logging.level" if a.logging.level != b.logging.level else "logging.format"
            yield second.problem(key, f"differs from {other}; one process has one log")
    yield from _vip_owners(configs)


def _vip_owners(configs: Sequence[LoadedConfig]) -> Iterator[Problem]:
    """Outside 127.0.0.0/8 the owner of the VIPs takes their port on all addresses, which leaves none for another.

    Inside it, every VIP has a socket of its own. That a role has one owner at most was said when its file was loaded.
    """
    owners = [(loaded, proxy) for loaded in configs for proxy in loaded.proxies if proxy.vips]
    for (first, _), (second, proxy) in combinations(owners, 2):
        wide = [c for c in (first, second) if not c.config.dns_server.is_on_loopback]
        if first is second or not wide:
            continue
        message = (
            f"vips: true is already in {first.path}, and {wide[0].config.dns_server.cidr} is outside 127.0.0.0/8,"
            " where one Dataplane a process can own the VIPs; leave it out here"
        )
        yield Problem(proxy.source, proxy.line, "proxies", message)


def _place(problem: Problem) -> str:
    return f"{problem.source}:{problem.line}" if problem.line else problem.source
