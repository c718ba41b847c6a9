"""``meshd --config``: loads, checks and runs control planes."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from meshd.cli.check import report
from meshd.cli.known import decode
from meshd.config import ConfigErrors, LoadedConfig, check_together, load_files, unreadable_files
from meshd.runtime import log as process_log

log = logging.getLogger(__name__)


def run(paths: Sequence[Path]) -> int:
    """Load, check and run; everything wrong is said, with exit code 2, before anything starts."""
    loaded = load(paths)
    settings = loaded[0].config.logging
    process_log.set_up(settings.level, settings.format)
    for one in loaded:
        for warning in one.warnings:
            log.warning("%s", warning)
    from meshd.app import run as run_roles  # noqa: PLC0415  # slow to import; what is wrong is said first

    return run_roles(loaded)


def load(paths: Sequence[Path]) -> tuple[LoadedConfig, ...]:
    """The roles to run, which fit together and whose files are there; ends the process with code 2 otherwise."""
    loaded: tuple[LoadedConfig, ...] = ()
    try:
        loaded = load_files(paths, os.environ, decode())
        check_together(loaded)
    except ConfigErrors as error:
        report(error.problems)
    report(unreadable_files(loaded))
    return loaded
