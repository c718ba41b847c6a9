"""``meshd dns install|uninstall|status|kubernetes|query``."""

import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from meshd.cli import changes, output
from meshd.cli.changes import ChangesError, Installed
from meshd.cli.check import report
from meshd.cli.host_dns import METHODS, RESOLV_CONF, Names, Plan, config_map, corefile, detect, plan
from meshd.cli.remote import ControlPlane, RemoteError
from meshd.config.problem import Problem
from meshd.config.tree import Mode
from meshd.dns import wire
from meshd.dns.settings import Address, parse_address
from meshd.model.errors import InvalidError

ASK_S = 2.0
"""How long meshd may take to answer ``status``."""

T = TypeVar("T", bound=Callable[..., Any])


@click.group()
def dns() -> None:
    """The mesh's names, in this host's own resolver and in Kubernetes, and why a name is answered as it is."""


def _names_options(command: T) -> T:
    for option in (
        click.option("--config", type=click.Path(path_type=Path), help="The zone's configuration."),
        click.option("--domain", help="The mesh's domain.  [default: mesh]"),
        click.option("--server", help="Where meshd answers.  [default: 127.0.0.1:5653]", metavar="IP:PORT"),
        click.option("--cidr", help="Also the reverse names of these virtual IPs.", metavar="CIDR"),
    ):
        command = option(command)
    return command


def _root_option(command: T) -> T:
    kind = click.Path(path_type=Path, exists=True, file_okay=False)
    return click.option("--root", type=kind, default="/", help="The host's files are under here; no command is run.")(
        command
    )


@dns.command()
@_names_options
@_root_option
@click.option("--method", type=click.Choice(["auto", *METHODS]), default="auto", show_default=True)
@click.option("--alone", is_flag=True, help="resolv.conf: no other server stays (musl asks all at once).")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def install(
    config: Path | None,
    domain: str | None,
    server: str | None,
    cidr: str | None,
    root: Path,
    method: str,
    alone: bool,  # click passes options by name
    dry_run: bool,
) -> None:
    """Let this host's resolver ask meshd for the mesh's names, and nothing else."""
    names = names_of(config, domain, server, cidr)
    with _failures():
        if (before := changes.load(root)) is not None:
            raise ChangesError(f"is installed already (method {before.method}); `meshd dns uninstall` first")
        chosen = _plan(method, names, root, alone=alone)
        installed = changes.prepare(chosen, root, names.domain, str(names.server))
        _say(chosen, installed, root, dry_run=dry_run)
        if dry_run:
            return
        changes.install(installed, root)
    _run(chosen.commands, root)
    for note in chosen.notes:
        click.echo(f"note: {note}", err=True)


@dns.command()
@_root_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def uninstall(root: Path, dry_run: bool) -> None:
    """Put everything back as it was before `install`, unless somebody else has changed it since."""
    with _failures():
        installed = changes.load(root)
        if installed is None:
            click.echo("is not installed")
            return
        changes.check_undo(installed, root)
        for change in installed.changes:
            click.echo(f"{'remove' if change.before.is_absent else 'restore'} {change.path}")
        for command in installed.undo:
            click.echo(f"run {' '.join(command)}")
        if dry_run:
            return
        changes.uninstall(installed, root)
    _run(installed.undo, root)


@dns.command()
@_root_option
def status(root: Path) -> None:
    """Whether this host's resolver asks meshd, and whether meshd answers. Exit code 1 if one of the two is not so."""
    with _failures():
        installed = changes.load(root)
        if installed is None:
            click.echo("not installed")
            raise SystemExit(1)
        changed = set(changes.changed_since(installed, root))
        is_good = not changed
        click.echo(f"installed: {installed.method}, names under {installed.domain} are asked of {installed.server}")
        for change in installed.changes:
            now = changes.read(change.at(root))
            word = "changed by somebody else" if change.path in changed else "in place"
            if not now.same_as(change.after) and change.path not in changed:
                word, is_good = "as before the installation", False
            click.echo(f"  {change.path}: {word}")
    answers = ask(parse_address(installed.server), installed.domain)
    click.echo(f"{installed.server}: {answers or 'answers'}")
    raise SystemExit(0 if is_good and not answers else 1)


@dns.command()
@_names_options
@click.option("--custom", is_flag=True, help="As a ConfigMap coredns-custom (AKS, k3s) instead.")
def kubernetes(
    config: Path | None,
    domain: str | None,
    server: str | None,
    cidr: str | None,
    custom: bool,
) -> None:
    """Print what lets a Kubernetes cluster's DNS (CoreDNS) ask meshd for the mesh's names."""
    names = names_of(config, domain, server, cidr)
    with _failures():
        click.echo(config_map(names) if custom else corefile(names), nl=False)


@dns.command()
@click.argument("name")
@click.argument("qtype", metavar="[TYPE]", required=False)
@click.option("-o", "--output", "form", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
@click.option("--host", "ask_host", is_flag=True, help="Also ask this host's own resolver.")
@click.pass_obj
def query(control_plane: ControlPlane, name: str, qtype: str | None, form: str, ask_host: bool) -> None:
    """What a zone answers to a question for NAME, where that comes from, and why. Exit code 1 if it has no answer.

    TYPE is A if nothing else is said; an IP address without one is asked as its reverse name, for PTR.
    """
    if not name.strip():
        raise click.UsageError("say which NAME, such as web.mesh or 240.0.0.1")
    asked, type_ = question_for(name, qtype)
    told = dict(control_plane.get(f"/_dns/{quote(asked, safe='')}", {"type": type_}))
    if ask_host:
        told["hostSays"] = host_says(name)
    if form == "text":
        click.echo("\n".join(explained(told)))
    else:
        output.show(told, form)
    raise SystemExit(0 if told.get("answers") else 1)


@dns.command()
@click.option("-o", "--output", "form", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
@click.pass_obj
def top(control_plane: ControlPlane, form: str) -> None:
    """How a zone's resolver does, and which names were asked for most in the last minute (dnsServer.topNames)."""
    told = dict(control_plane.get("/_dns", {}))
    if form == "text":
        click.echo("\n".join(summary(told)))
    else:
        output.show(told, form)


def question_for(name: str, qtype: str | None) -> tuple[str, str]:
    """The name and type to ask for where ``name``, and maybe a type, were given."""
    if qtype is None:
        with suppress(ValueError):
            return ip_address(name).reverse_pointer, "PTR"
    return name, qtype or "A"


def summary(told: Mapping[str, Any]) -> list[str]:
    """The state of a resolver in lines."""
    lines = [f"{told['listen']}: {told['names']} names of {told['domain']}, mesh {told['mesh']}"]
    lines += [f"upstream {u['address']}: {'up' if u['isUp'] else 'down'}" for u in told["upstreams"]]
    lines += [f"not answered: {reason}" for reason in told["namesRefused"].values()]
    cache = told["cache"]
    if told["upstreams"]:
        lines.append(f"kept: {cache['entries']} answers, {cache['bytes']} bytes")
    if "topNames" not in told:
        return [*lines, "the names asked for most are told to administrators"]
    return lines + [f"{entry['queries']:>8} {entry['rcode']:<8} {entry['name']}" for entry in told["topNames"]]


def explained(told: Mapping[str, Any]) -> list[str]:
    """An explanation in lines."""
    lines = [f"{told['name']} {told['type']}: {told.get('rcode') or 'not answered here'}"]
    lines += [f"  {' '.join(answer.split())}" for answer in told.get("answers", ())]
    if told.get("reason"):
        lines.append(f"  {told['reason']}")
    if told.get("vip"):
        names = ", ".join(told["names"])
        lines.append(f"virtual IP {told['vip']} of mesh {told['mesh']}, known as {names}")
    for service in told.get("services", ()):
        lines.append(f"port {service['port']}: service {service['service']} ({service.get('protocol', 'unknown')})")
        if "externalService" in service:
            where = ", ".join(service["addresses"]) or "no address"
            lines.append(f"  external service {service['externalService']}: {where}")
            continue
        zones = ", ".join(f"{count} in {zone}" for zone, count in service["zones"].items())
        lines.append(f"  instances: {zones or service.get('reason') or 'none'}")
        if service.get("dataplanes"):
            more = f" and {service['moreDataplanes']} more" if service.get("moreDataplanes") else ""
            lines.append(f"  dataplanes here: {', '.join(service['dataplanes'])}{more}")
    if told.get("alsoWantedBy"):
        lines.append(f"also wanted by: {', '.join(told['alsoWantedBy'])}")
    if "hostSays" in told:
        lines.append(f"this host's resolver: {', '.join(told['hostSays']) or 'no address'}")
    return lines


def names_of(config: Path | None, domain: str | None, server: str | None, cidr: str | None) -> Names:
    """Whose names, and where: from options, else from the configuration file, else the defaults; ends on an error."""
    listen, vips = "127.0.0.1:5653", None
    if config is not None:
        from meshd.cli.run import load  # noqa: PLC0415  # reads all of a configuration

        found = load([config])[0].config
        if found.mode is not Mode.ZONE:
            report(
                [Problem(str(config), 0, "mode", f"is {found.mode.value}: only a zone answers names; name its file")]
            )
        dns_server = found.dns_server
        domain, listen, vips = domain or dns_server.domain, dns_server.listen, dns_server.cidr
    problems = []
    if cidr is not None:
        try:
            vips = IPv4Network(cidr)
        except ValueError as error:
            problems.append(Problem("--cidr", 0, "", str(error)))
    where, address = server or listen, Address("", 0)
    if not where:
        problems.append(Problem(str(config), 0, "dnsServer.listen", "is empty: this zone answers no names"))
    else:
        try:
            address = parse_address(where)
        except ValueError as error:
            problems.append(Problem("--server", 0, "", str(error)))
    domain = (domain or "mesh").strip(".").lower()
    try:
        wire.name_to_wire(domain)
    except ValueError as error:
        problems.append(Problem("--domain", 0, "", str(error)))
    report(problems)
    return Names(domain, address, vips)


def ask(server: Address, domain: str) -> str:
    """What is wrong with the answer of a server for the domain's SOA, empty if nothing."""
    ident = int.from_bytes(os.urandom(2))
    question = wire.name_to_wire(domain) + wire.SOA.to_bytes(2) + wire.CLASS_IN.to_bytes(2)
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(ASK_S)
            sock.connect((server.host, server.port))
            sock.send(wire.HEADER.pack(ident, wire.RD, 1, 0, 0, 0) + question)
            reply = sock.recv(4096)
    except OSError as error:
        return f"does not answer ({error.strerror or 'nothing within 2 s'})"
    if len(reply) < wire.HEADER_BYTES or int.from_bytes(reply[:2]) != ident:
        return "answers something that is no answer"
    _, flags, _, answers, *_ = wire.HEADER.unpack_from(reply)
    return "" if flags & wire.AA and answers else f"is not authoritative for {domain}; is it meshd?"


def host_says(name: str) -> list[str]:
    """The addresses that this host's own resolver has for a name."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class _failures:  # noqa: N801  # read as a verb's object: "with _failures()"
    """Ends the command with exit code 1, or 2 where it was asked wrongly, and the reason."""

    def __enter__(self) -> None:
        """Nothing yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """See the class."""
        if isinstance(error, InvalidError):
            report([Problem(v.field, 0, "", v.message) for v in error.violations])
        if isinstance(error, ChangesError):
            raise RemoteError(str(error)) from None


def _plan(method: str, names: Names, root: Path, *, alone: bool) -> Plan:
    state = changes.read(root / RESOLV_CONF.lstrip("/"))
    link = state.link or ""
    content = (state.content or b"").decode(errors="surrogateescape")
    if method == "auto":
        method = detect(content, link, has_dnsmasq=(root / "etc/dnsmasq.d").is_dir())
    return plan(method, names, content, link, alone=alone)


def _say(chosen: Plan, installed: Installed, root: Path, *, dry_run: bool) -> None:
    click.echo(f"method: {chosen.method}")
    for change in installed.changes:
        click.echo(f"{'create' if change.before.is_absent else 'replace'} {change.path}")
        if dry_run:
            after = change.after
            text = f"-> {after.link}" if after.link else (after.content or b"").decode(errors="replace")
            click.echo("".join(f"    {line}\n" for line in text.splitlines()), nl=False)
    for command in chosen.commands:
        skipped = "" if root == Path("/") else " (not with --root)"
        click.echo(f"run {' '.join(command)}{skipped}")


def _run(commands: Sequence[Sequence[str]], root: Path) -> None:
    """Run commands on this host, if its files are what was changed.

    Raises:
        RemoteError: one failed; says which, and what it said.
    """
    for command in commands if root == Path("/") else ():
        words = " ".join(command)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
        except OSError as error:
            raise RemoteError(f"the files are as they should be, but `{words}`: {error.strerror}") from None
        if done.returncode:
            raise RemoteError(f"the files are as they should be, but `{words}` failed: {done.stderr.strip()}")
