"""Names of endpoints over a restart."""

import json
import logging
import socket
import threading

import pytest

from meshd.l4 import client
from meshd.l4.client import Resolver
from meshd.l4.keeper import MAX_NAMES, AddressFile


def finds(monkeypatch, found):
    """Let the host's resolver say this; an exception is raised."""

    def look_up(host):
        addresses = found.get(host, socket.gaierror("down"))
        if isinstance(addresses, Exception):
            raise addresses
        return [(0, 0, 0, "", (a, 0)) for a in addresses]

    monkeypatch.setattr(client, "look_up", look_up)


async def test_a_name_has_its_last_addresses_after_a_restart_while_nobody_can_be_asked(tmp_path, monkeypatch):
    file = tmp_path / "state" / "addresses.json"
    finds(monkeypatch, {"api.example": ["192.0.2.1", "192.0.2.2"]})
    await Resolver(kept=AddressFile(file)).addresses("api.example")
    finds(monkeypatch, {})
    assert await Resolver(kept=AddressFile(file)).addresses("api.example") == ("192.0.2.1", "192.0.2.2")
    with pytest.raises(OSError, match="down"):
        await Resolver(kept=AddressFile(file)).addresses("other.example")
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_lookup_that_takes_long_does_not_hold_up_who_has_an_older_answer(tmp_path, monkeypatch, autojump_clock):
    file = tmp_path / "addresses.json"
    file.write_text('{"api.example": ["192.0.2.1"]}')
    release = threading.Event()

    def hang(host):
        release.wait(10)
        raise socket.gaierror("down")

    monkeypatch.setattr(client, "look_up", hang)
    # The clock jumps over the wait as soon as only a thread is left, which it does not count.
    assert await Resolver(kept=AddressFile(file)).addresses("api.example") == ("192.0.2.1",)
    release.set()


async def test_a_newer_answer_wins_and_is_written(tmp_path, monkeypatch):
    file = tmp_path / "addresses.json"
    file.write_text('{"api.example": ["192.0.2.1"], "old.example": ["192.0.2.9"]}')
    finds(monkeypatch, {"api.example": ["192.0.2.5"]})
    assert await Resolver(kept=AddressFile(file)).addresses("api.example") == ("192.0.2.5",)
    assert json.loads(file.read_text()) == {"old.example": ["192.0.2.9"], "api.example": ["192.0.2.5"]}


async def test_the_same_addresses_in_another_order_are_not_written_again(tmp_path):
    file = tmp_path / "addresses.json"
    kept = AddressFile(file)
    await kept.learn("api.example", ("192.0.2.1", "192.0.2.2"))
    file.unlink()
    await kept.learn("api.example", ("192.0.2.2", "192.0.2.1"))
    await kept.learn("api.example", ("192.0.2.3",))  # written a moment ago
    assert not file.exists()


async def test_only_the_names_used_last_are_kept(tmp_path):
    file = tmp_path / "addresses.json"
    file.write_text(json.dumps({f"n{i}.example": ["192.0.2.1"] for i in range(MAX_NAMES)}))
    kept = AddressFile(file)
    assert await kept.before("n0.example") == ("192.0.2.1",)
    await kept.learn("new.example", ("192.0.2.2",))
    names = list(json.loads(file.read_text()))
    assert (len(names), names[0], names[-1]) == (MAX_NAMES, "n1.example", "new.example")


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "\xff"])
async def test_a_broken_file_is_begun_anew(tmp_path, caplog, content):
    file = tmp_path / "addresses.json"
    file.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert await AddressFile(file).before("a") == ()
    assert "begun anew" in caplog.text


async def test_a_file_that_cannot_be_written_is_said_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    kept = AddressFile(tmp_path / "file" / "addresses.json")
    for name in ("a.example", "b.example"):
        await kept.learn(name, ("192.0.2.1",))
    assert caplog.text.count("cannot be written") == 1
