"""Command line, environment, version, and when a running Envoy is replaced."""

import json
from pathlib import Path

import pytest

from meshd.config.tree import EnvoyLogLevel
from meshd.envoy.command import (
    NotEnvoy,
    Options,
    Version,
    argv,
    bootstrap_bytes,
    environment,
    log_level,
    parse_version,
    why_replace,
)
from meshd.envoy.places import Places

AT = Places(Path("/s/envoy/x"), Path("/s/envoy/x"))
BINARY = Path("/opt/envoy")
BUILD = "9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL"


def test_the_command_line():
    assert argv(Options(BINARY, 10, "info", 2), AT) == (
        "/opt/envoy",
        *("--config-path", "/s/envoy/x/bootstrap.json"),
        *("--drain-time-s", "10", "--drain-strategy", "immediate", "--disable-hot-restart"),
        *("--log-level", "info", "--log-path", "/s/envoy/x/log"),
        *("--log-format", "%l|%n|%v", "--log-format-escaped", "--file-flush-interval-msec", "1000"),
        *("--concurrency", "2"),
    )


@pytest.mark.parametrize(("drain_s", "expected"), [(0, "1"), (0.2, "1"), (1.5, "2"), (30, "30")])
def test_the_drain_time_is_whole_seconds_and_never_zero(drain_s, expected):
    line = argv(Options(BINARY, drain_s), AT)
    assert line[line.index("--drain-time-s") + 1] == expected


def test_without_a_concurrency_it_has_a_worker_for_each_processor_it_may_use():
    line = argv(Options(BINARY, 1), AT)
    assert line[-1] == "--cpuset-threads"
    assert "--concurrency" not in line


@pytest.mark.parametrize("level", EnvoyLogLevel)
def test_the_log_level_is_found_again(level):
    assert log_level(argv(Options(BINARY, 1, level), AT)) == level


def test_what_is_for_meshd_alone_does_not_reach_envoy():
    ours = {
        "MESHD_TOKEN": "t",
        "NOTIFY_SOCKET": "/n",
        "WATCHDOG_USEC": "1",
        "LISTEN_FDS": "1",
        "STATE_DIRECTORY": "/s",
        "PYTHONPATH": "p",
    }
    others = {"PATH": "/bin", "TZ": "UTC", "AWS_REGION": "x", "LANG": "C"}
    assert environment(ours | others) == others


def test_a_version():
    assert parse_version(f"\n/opt/envoy  version: {BUILD}\n\n", BINARY) == Version("1.40.0", BUILD)
    assert parse_version("envoy  version: 0a/1.38.0-dev/Modified/DEBUG/BoringSSL-FIPS", BINARY).text == "1.38.0-dev"


@pytest.mark.parametrize("output", ["", "git version 2.39.2", "version: ", "version: zz"])
def test_another_program_is_not_envoy(output):
    with pytest.raises(NotEnvoy, match="/opt/envoy does not say which Envoy it is"):
        parse_version(output, BINARY)


def test_a_bootstrap_has_the_same_bytes_whatever_the_order():
    one, other = {"b": 1, "a": {"d": [1], "c": "ä"}}, {"a": {"c": "ä", "d": [1]}, "b": 1}
    assert bootstrap_bytes(one) == bootstrap_bytes(other)
    assert json.loads(bootstrap_bytes(one)) == one


WANTED = argv(Options(BINARY, 10, "info", 2), AT)
BOOTSTRAP = {
    "node": {"id": "default.web", "cluster": "web", "metadata": {"version": {"kumaDp": "1"}, "features": []}},
    "admin": {"address": {"pipe": {"path": "/a"}}},
}


@pytest.mark.parametrize(
    ("running", "bootstrap", "reason"),
    [
        (WANTED, BOOTSTRAP, ""),
        (("/usr/bin/envoy", *WANTED[1:]), BOOTSTRAP, ""),
        (("/usr/bin/python3", "/usr/bin/envoy", *WANTED[1:]), BOOTSTRAP, ""),
        (("/usr/bin/envoy",), BOOTSTRAP, "its settings have changed"),
        (argv(Options(BINARY, 10, "debug", 2), AT), BOOTSTRAP, ""),
        (argv(Options(BINARY, 10, "info", 3), AT), BOOTSTRAP, "its settings have changed"),
        (argv(Options(BINARY, 10, "info"), AT), BOOTSTRAP, "its settings have changed"),
        (argv(Options(BINARY, 11, "info", 2), AT), BOOTSTRAP, "its settings have changed"),
        ((*WANTED, "--log-level"), BOOTSTRAP, "its settings have changed"),
        (WANTED, BOOTSTRAP | {"node": BOOTSTRAP["node"] | {"cluster": "other"}}, ""),
        (WANTED, BOOTSTRAP | {"node": BOOTSTRAP["node"] | {"metadata": {"version": {}, "features": []}}}, ""),
        (WANTED, BOOTSTRAP | {"node": BOOTSTRAP["node"] | {"id": "x"}}, "its bootstrap has changed"),
        (WANTED, BOOTSTRAP | {"admin": {}}, "its bootstrap has changed"),
        (WANTED, [], "its bootstrap has changed"),
    ],
)
def test_a_running_one_is_replaced_only_if_it_would_do_something_else(running, bootstrap, reason):
    assert why_replace(running, WANTED, json.dumps(bootstrap).encode(), bootstrap_bytes(BOOTSTRAP)) == reason


@pytest.mark.parametrize("damaged", [b"", b"{", b"\xff", b"{} "[:1] * 3])
def test_a_damaged_bootstrap_is_another_one(damaged):
    assert why_replace(WANTED, WANTED, damaged, bootstrap_bytes(BOOTSTRAP)) == "its bootstrap has changed"
