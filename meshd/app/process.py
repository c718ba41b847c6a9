"""What the process as a whole needs before it serves: directories, descriptors, and a settled heap."""

import gc
import logging
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

from meshd.config import ConfigErrors, LoadedConfig
from meshd.config.problem import Problem
from meshd.config.tree import StoreType

log = logging.getLogger(__name__)

FULL_COLLECTIONS_BY_COUNT = 100_000
"""Collections of the middle generation before Python itself may begin a full one: practically never."""


def make_directories(configs: Sequence[LoadedConfig]) -> None:
    """Make the directories that roles keep their state in, for this user alone, where they are missing.

    Raises:
        ConfigErrors: some cannot be made or written to; names the settings.
    """
    problems = [problem for loaded in configs for problem in _unusable(loaded)]
    if problems:
        raise ConfigErrors(problems)


def _unusable(loaded: LoadedConfig) -> Iterator[Problem]:
    config = loaded.config
    wanted = [("general.workDir", config.state_dir)]
    if config.store.type is StoreType.SQLITE and config.sqlite_path.parent != config.state_dir:
        wanted.append(("store.sqlite.path", config.sqlite_path.parent))
    for key, directory in wanted:
        reason = make_directory(directory)
        if reason:
            yield loaded.problem(key, f"cannot keep state in {directory}: {reason}")


def make_directory(directory: Path) -> str:
    """Make a directory with its parents, mode 0700; why it cannot be used, empty if it can. One that is there stays."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except FileExistsError:
        return "it is no directory"
    except OSError as error:
        return error.strerror or type(error).__name__
    return "" if os.access(directory, os.W_OK | os.X_OK) else "this user may not write to it"


def allow_many_files() -> None:
    """Raise the limit of open files as far as this user may: every connection through the engine takes two.

    The soft limit of 1024 is for programs that call select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # some systems take no infinity
        log.debug("open files: the limit stays %d: %s", soft, error)
        return
    log.debug("open files: the limit is %d, was %d", hard, soft)


def settle_memory() -> None:
    """Take what exists once all has started out of garbage collection: it is there to stay.

    A full collection then costs what came since, not the modules and their schemas. It still stops everything for tens
    of milliseconds in a large mesh, so it is left to ``runtime.steps``, which knows when one is due.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_COLLECTIONS_BY_COUNT)
