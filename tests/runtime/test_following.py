import pytest
import trio

from meshd.runtime.following import Following
from meshd.runtime.latest import Latest


@pytest.fixture
def told():
    return []


async def test_every_cell_is_told_of_at_first_and_when_it_changes(nursery, autojump_clock, told):
    following = Following(told.append)
    first, second = Latest(0), Latest(0)
    following.follow("first", first)  # before it runs
    await nursery.start(following.run)
    following.follow("second", second)
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(told) == ["first", "second"]

    second.publish(1)
    await trio.testing.wait_all_tasks_blocked()

    assert told[2:] == ["second"]


async def test_the_same_cell_is_followed_once_and_another_takes_its_place(nursery, autojump_clock, told):
    following = Following(told.append)
    await nursery.start(following.run)
    first, second = Latest(0), Latest(0)
    following.follow("key", first)
    following.follow("key", first)
    await trio.testing.wait_all_tasks_blocked()
    following.follow("key", second)
    await trio.testing.wait_all_tasks_blocked()
    assert told == ["key", "key"]

    first.publish(1)
    await trio.testing.wait_all_tasks_blocked()

    assert told == ["key", "key"]


async def test_what_changed_as_it_was_forgotten_is_not_told(nursery, autojump_clock, told):
    following = Following(told.append)
    await nursery.start(following.run)
    cell = Latest(0)
    following.follow("key", cell)
    following.forget("key")  # before its task ran at all
    following.follow("other", cell)
    await trio.testing.wait_all_tasks_blocked()
    assert told == ["other"]

    cell.publish(1)
    following.forget("other")
    await trio.testing.wait_all_tasks_blocked()

    assert told == ["other"]
