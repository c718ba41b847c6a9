"""The writer's queue: order, bounds, and a last chance to write."""

import pytest
import trio
import trio.testing

from meshd.rpc.outbox import WRITE_BYTES, Outbox


async def test_bytes_go_out_in_order_and_senders_hear_of_room(autojump_clock) -> None:
    send, receive = trio.testing.lockstep_stream_one_way_pair()
    told = []
    box = Outbox(send, 10, lambda: told.append(box.queued_bytes))
    for part in (b"abc", b"defgh", b"ij"):
        box.put(part)
    assert box.congested
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        got = b""
        while len(got) < 10:
            got += await receive.receive_some(3)
        await trio.sleep(1)
        assert (got, box.queued_bytes, box.congested, told) == (b"abcdefghij", 0, False, [0])
        box.close(1.0)


async def test_the_reader_waits_above_twice_the_limit(autojump_clock) -> None:
    send, receive = trio.testing.lockstep_stream_one_way_pair()
    box = Outbox(send, 10, lambda: None)
    box.put(bytes(20))
    await box.wait_for_room()
    box.put(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        with trio.move_on_after(1) as scope:
            await box.wait_for_room()
        assert scope.cancelled_caught
        await receive.receive_some(21)
        await box.wait_for_room()
        box.close(0)


@pytest.mark.parametrize(("reads", "took"), [(True, 0.0), (False, 2.0)])
async def test_what_waits_at_the_end_is_written_within_the_linger(autojump_clock, reads, took) -> None:
    send, receive = trio.testing.lockstep_stream_one_way_pair()
    box = Outbox(send, 10, lambda: None)
    box.put(b"last words")
    box.close(2.0)
    async with trio.open_nursery() as nursery:
        if reads:
            nursery.start_soon(receive.receive_some, 100)
        with trio.CancelScope() as outer:
            outer.cancel()
            await box.run()  # shielded: the connection's cancel does not cut it
    assert trio.current_time() == pytest.approx(took, abs=0.01)


async def test_much_goes_out_in_writes_of_a_bounded_size(autojump_clock) -> None:
    written = []

    class Transport(trio.abc.SendStream):
        async def send_all(self, data) -> None:
            written.append(bytes(data))
            await trio.lowlevel.checkpoint()

        async def wait_send_all_might_not_block(self) -> None:
            await trio.lowlevel.checkpoint()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    box = Outbox(Transport(), 10, lambda: None)
    parts = [bytes([i]) * (WRITE_BYTES // 4) for i in range(9)] + [b"x" * 2 * WRITE_BYTES, b"y"]
    for part in parts:
        box.put(part)
    box.close(1.0)
    await box.run()
    assert b"".join(written) == b"".join(parts)
    assert [len(data) for data in written] == [WRITE_BYTES, WRITE_BYTES, WRITE_BYTES // 4, 2 * WRITE_BYTES, 1]
