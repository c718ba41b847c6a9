"""``meshd check``: says everything that is wrong with configuration and resource files, and starts nothing."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from meshd.cli.known import decode
from meshd.config import ConfigErrors, LoadedConfig, Problem, check_together, load_files, unreadable_files
from meshd.config.document import Document, parse
from meshd.config.proxies import decode_at
from meshd.envoy.binary import missing_envoys
from meshd.model.resource import ResourceKey


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--together", is_flag=True, help="Also check that the given roles can share one process.")
def check(files: tuple[Path, ...], together: bool) -> None:
    """Check configuration and resource FILES. Exit code 2 if anything is wrong."""
    problems: list[Problem] = []
    configs: list[LoadedConfig] = []
    for file in files:
        is_resources, documents, wrong = read(file)
        if is_resources:
            found = []
            for document in documents:
                resource, more = decode_at(document, "", document.data, decode())
                found += [(document, resource.key)] if resource is not None else []
                wrong += more
            wrong += twice(found)
            if not wrong:
                click.echo(f"{file}: ok ({len(found)} resource{'s' * (len(found) != 1)})")
        else:
            wrong = _check_config(file, configs)
        problems += wrong
    if together and not problems:
        try:
            check_together(configs)
        except ConfigErrors as error:
            problems += error.problems
    report(problems)


def _check_config(file: Path, configs: list[LoadedConfig]) -> list[Problem]:
    try:
        (loaded,) = load_files([file], os.environ, decode())
        check_together([loaded])
    except ConfigErrors as error:
        return list(error.problems)
    configs.append(loaded)
    # Notes: it may be another machine that the file is for.
    missing = (*missing_envoys([loaded], os.environ), *unreadable_files([loaded]))
    for warning in (*loaded.assumed(), *loaded.warnings, *missing):
        click.echo(f"note: {warning}", err=True)
    proxies = len(loaded.proxies)
    also = f", {proxies} prox{'y' if proxies == 1 else 'ies'}" if proxies else ""
    role = f"zone {loaded.config.zone_name}" if loaded.config.zone_name else "global"
    click.echo(f"{file}: ok ({role}{also})")
    return []


def read(file: Path) -> tuple[bool, list[Document], list[Problem]]:
    """Parse a file; the first value says whether it holds resources (documents with ``type``), not a configuration."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        return True, [], [Problem(str(file), 0, "", f"cannot read: {reason}")]
    documents, problems = parse(text, str(file))
    is_resources = any(isinstance(d.data, dict) and "type" in d.data for d in documents)
    return is_resources, documents, problems


def twice(found: Iterable[tuple[Document, ResourceKey]]) -> list[Problem]:
    """A problem for every document whose resource an earlier one already is: the last would win, silently."""
    first: dict[ResourceKey, Document] = {}
    problems = []
    for document, key in found:
        before = first.setdefault(key, document)
        if before is not document:
            where = f"{before.source}:{before.line_of('')}"
            problems.append(document.problem("", f"{key} is already at {where}; remove one or give it another name"))
    return problems


def report(problems: Sequence[Problem]) -> None:
    """Print every problem on standard error and end with exit code 2, if there are any."""
    if not problems:
        return
    for problem in sorted(set(problems)):
        click.echo(str(problem), err=True)
    click.echo(f"{len(set(problems))} error{'s' * (len(set(problems)) != 1)}; nothing was done", err=True)
    raise SystemExit(2)
