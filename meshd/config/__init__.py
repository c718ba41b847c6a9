"""The configuration: one strict tree a role, from one YAML file and the environment.

Flow of ``load_files``::

    YAML text --document--> data + line of every key --environment--> data with overrides
        --tree (pydantic)--> Config --proxies--> the resources it runs itself --together--> may they share a process

Nothing is reported one at a time: every stage collects ``Problem`` values (file, line, key, what to do), and all of
them over all files end in one ``ConfigErrors``. This package knows no kinds: decoding a resource is an argument.
"""

from meshd.config.loader import LoadedConfig, load_files
from meshd.config.problem import ConfigErrors, Problem
from meshd.config.proxies import OwnProxy
from meshd.config.together import check_together, unreadable_files
from meshd.config.tree import Config, Engine, LogFormat, LogLevel, Mode, StoreType

__all__ = [
    "Config",
    "ConfigErrors",
    "Engine",
    "LoadedConfig",
    "LogFormat",
    "LogLevel",
    "Mode",
    "OwnProxy",
    "Problem",
    "StoreType",
    "check_together",
    "load_files",
    "unreadable_files",
]
