"""The global asks about Envoys: of a meshd zone, and of zones that answer late, wrongly or not at all."""

# Channels and their calls read better nested, and a refusal may come at any step of a call.
# ruff: noqa: SIM117, PT012

import pytest
import trio

from meshd.kds.admin.server import ANSWER_S
from meshd.kds.admin.wire import Answer, Question, What, decode_question, encode_answer
from meshd.kds.server import GLOBAL_SERVICE, GLOBAL_TO_ZONE
from meshd.model.errors import UnavailableError
from meshd.model.resource import ResourceKey
from meshd.rpc import RpcError, Status
from tests.kds.lab import lab
from tests.kds.test_server import ask, metadata, node, tell

WEB = ResourceKey("Dataplane", "default", "web-1")
STATS = Question(What.STATS, WEB, used_only=True)
METHOD = GLOBAL_SERVICE + What.STATS.value


async def test_a_zone_that_is_not_connected_is_said_so(autojump_clock):
    async with lab("global") as here:
        with pytest.raises(UnavailableError, match="zone 'zone-a' is not connected"):
            await here.global_kds.admin.ask("zone-a", STATS)
        here.nursery.cancel_scope.cancel()


class Pretended:
    """A zone's stream, whose answers a test makes."""

    def __init__(self, here, stream) -> None:
        self.here, self.stream = here, stream
        self.said: list[object] = []

    async def ask(self) -> None:
        try:
            self.said.append(await self.here.global_kds.admin.ask("zone-a", STATS))
        except UnavailableError as error:
            self.said.append(str(error))

    async def asked(self) -> str:
        request_id, question = decode_question(What.STATS, await self.stream.receive())
        assert question == STATS
        return request_id


async def pretend(here, play) -> list[object]:
    """What the global hears while ``play`` is the zone."""
    async with here.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as down, channel.stream(METHOD, metadata()) as stream:
            await tell(down, await ask(down, "Mesh", node()))
            zone = Pretended(here, stream)
            await here.settle()
            await play(zone)
            await here.settle()
            return zone.said


async def test_answers_come_to_who_asked_in_any_order(autojump_clock):
    async def play(zone):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(zone.ask)
            first = await zone.asked()
            nursery.start_soon(zone.ask)
            second = await zone.asked()
            await zone.stream.send(encode_answer(second, Answer(b"two")))
            await zone.stream.send(encode_answer(first, Answer(error="it is asleep")))

    async with lab("global") as here:
        assert await pretend(here, play) == [b"two", "zone 'zone-a': it is asleep"]
        here.nursery.cancel_scope.cancel()


async def test_a_late_answer_is_dropped_and_the_stream_goes_on(autojump_clock):
    async def play(zone):
        await zone.ask()
        late = await zone.asked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(zone.ask)
            request_id = await zone.asked()
            await zone.stream.send(encode_answer(late, Answer(b"late")))
            await zone.stream.send(encode_answer("made-up", Answer(b"?")))
            await zone.stream.send(encode_answer(request_id, Answer(b"now")))

    async with lab("global") as here:
        found = await pretend(here, play)
        assert found == [f"zone 'zone-a' has not answered in {ANSWER_S:.0f} s", b"now"]
        here.nursery.cancel_scope.cancel()


async def test_what_is_no_answer_ends_that_stream_only(autojump_clock):
    async with lab("global") as here:
        async with here.dial("zone-a") as channel:
            async with channel.stream(GLOBAL_TO_ZONE, metadata()) as down:
                await ask(down, "Mesh", node())
                with pytest.raises(RpcError) as caught:
                    async with channel.stream(METHOD, metadata()) as stream:
                        await stream.send(b"\xff")
                        await stream.receive()
                assert caught.value.status is Status.INVALID_ARGUMENT
                assert await ask(down, "Zone", node())
        here.nursery.cancel_scope.cancel()


async def test_who_waits_hears_that_the_stream_has_ended(autojump_clock):
    async def play(zone):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(zone.ask)
            await zone.asked()
            await zone.stream.end()

    async with lab("global") as here:
        [said] = await pretend(here, play)
        assert "ended before it answered" in said
        here.nursery.cancel_scope.cancel()
