"""``meshd apply``, ``meshd get``, ``meshd delete``."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from meshd.cli import output
from meshd.cli.check import report, twice
from meshd.cli.known import decode, find_kind, kind_words, paths
from meshd.cli.remote import ControlPlane, RemoteError
from meshd.config.document import Document, parse
from meshd.config.problem import Problem, did_you_mean
from meshd.config.proxies import decode_at
from meshd.kinds.without_effect import EFFECTLESS
from meshd.model.resource import ResourceKey
from meshd.model.resource_type import ResourceType, Scope

DEFAULT_MESH = "default"


@click.command()
@click.option(
    "-f", "--file", "files", multiple=True, required=True, help="A file of resources, or - for standard input."
)
@click.pass_obj
def apply(control_plane: ControlPlane, files: tuple[str, ...]) -> None:
    """Create or replace the resources in files. Nothing is sent unless all of them are valid."""
    wanted, problems = _read_all(files)
    report(problems)
    failures = []
    for document, key in wanted:
        try:
            answer = control_plane.request("PUT", item_path(key), json=document.data)
        except RemoteError as error:
            failures.append(f"{document.source}:{document.line_of('')}: {error.message}")
            continue
        body = answer.json() if answer.content else {}
        for warning in body.get("warnings") or ():
            about = "" if str(warning).startswith(f"{key} ") else f"{key}: "
            click.echo(f"note: {about}{warning}", err=True)
        click.echo(f"{key} {'created' if answer.status_code == 201 else 'updated'}")
    if failures:
        raise RemoteError("\n".join(failures))


@click.command()
@click.argument("kind", required=False, metavar="KIND")
@click.argument("name", required=False)
@click.option("-m", "--mesh", help="The mesh. Default: all of them for a list, 'default' for one resource.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)
@click.pass_obj
def get(control_plane: ControlPlane, kind: str | None, name: str | None, mesh: str | None, form: str) -> None:
    """Show the resources of a KIND (its kind, path or short name), or the one called NAME. Without KIND, names them."""
    if kind is None:
        raise click.UsageError(f"say which KIND: {', '.join(paths())}")
    type_ = known(kind)
    overview = "/_overview" if form == "table" and type_.kind in output.OVERVIEWS else ""
    if name is not None:
        item = control_plane.get(item_path(_key(type_, mesh, name)) + overview)
        items: list[Any] = [item]
        shown: Any = item
    else:
        prefix = f"/meshes/{quote(mesh, safe='')}" if mesh and type_.scope is Scope.MESH else ""
        items = list(control_plane.items(f"{prefix}/{type_.path}{overview}"))
        shown = {"total": len(items), "items": items}
    if items and type_.kind in EFFECTLESS:
        click.echo(f"note: {type_.kind} has no effect: it is stored, passed on and printed, and nothing else", err=True)
    if form == "table":
        zones = control_plane.items("/zones/_overview") if type_.kind in output.OF_A_ZONE else ()
        output.table(*output.columns(type_.kind, items, datetime.now(UTC), output.offline_zones(zones)))
    else:
        output.show(shown, form)


@click.command()
@click.argument("kind")
@click.argument("name")
@click.option("-m", "--mesh", help="The mesh. Default: 'default'.")
@click.pass_obj
def delete(control_plane: ControlPlane, kind: str, name: str, mesh: str | None) -> None:
    """Delete the resource of a KIND called NAME."""
    key = _key(known(kind), mesh, name)
    control_plane.request("DELETE", item_path(key))
    click.echo(f"{key} deleted")


def known(word: str) -> ResourceType:
    """The type that a user means.

    Raises:
        click.UsageError: there is none; suggests one.
    """
    type_ = find_kind(word)
    if type_ is None:
        hint = did_you_mean(word, kind_words()) or f"; there are {', '.join(paths())}"
        raise click.UsageError(f"no kind is called {word!r}{hint}")
    return type_


def item_path(key: ResourceKey) -> str:
    """The REST path of one resource."""
    type_ = find_kind(key.kind)
    if type_ is None:
        raise click.UsageError(f"{key.kind} has no REST path: {key} is a control plane's own state")
    prefix = f"/meshes/{quote(key.mesh, safe='')}" if type_.scope is Scope.MESH else ""
    return f"{prefix}/{type_.path}/{quote(key.name, safe='')}"


def _key(type_: ResourceType, mesh: str | None, name: str) -> ResourceKey:
    return ResourceKey(type_.kind, (mesh or DEFAULT_MESH) if type_.scope is Scope.MESH else "", name)


def _read_all(files: tuple[str, ...]) -> tuple[list[tuple[Document, ResourceKey]], list[Problem]]:
    """Every document of every file with the key of its resource; strictly checked here, so that errors have lines."""
    wanted: list[tuple[Document, ResourceKey]] = []
    problems: list[Problem] = []
    for file in files:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            problems.append(Problem(file, 0, "", f"cannot read: {reason}"))
            continue
        documents, wrong = parse(text, "standard input" if file == "-" else file)
        problems += wrong
        for document in documents:
            resource, wrong = decode_at(document, "", document.data, decode())
            problems += wrong
            if resource is not None:
                wanted.append((document, resource.key))
        if not documents and not wrong:
            problems.append(Problem(file, 0, "", "holds no resource"))
    return wanted, problems + twice(wanted)
