import trio

from meshd.runtime.latest import Latest


async def test_a_reader_gets_the_newest_value_and_misses_those_between(autojump_clock):
    cell = Latest("a")
    assert await cell.newer_than(0) == (1, "a")
    seen = []

    async def reader():
        version = 1
        for _ in range(2):
            version, value = await cell.newer_than(version)
            seen.append((version, value))
            await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await trio.sleep(1)
        cell.publish("b")
        await trio.sleep(1)
        cell.publish("c")
        cell.publish("d")
    assert seen == [(2, "b"), (4, "d")]


async def test_every_waiting_reader_wakes(autojump_clock):
    cell = Latest(0)
    woken = []

    async def reader(n):
        await cell.newer_than(1)
        woken.append(n)

    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(reader, n)
        await trio.testing.wait_all_tasks_blocked()
        cell.publish(1)
    assert sorted(woken) == [0, 1, 2]
