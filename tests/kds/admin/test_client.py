"""A meshd zone answers its global's questions about Envoys."""

import pytest
import trio

from meshd.kds.admin.client import AGAIN_S, ASK_S, MAX_ANSWER_BYTES
from meshd.kds.admin.wire import Question, What
from meshd.kds.server import GLOBAL_SERVICE
from meshd.model.errors import UnavailableError
from meshd.model.resource import ResourceKey
from tests.kds.lab import lab

WEB = ResourceKey("Dataplane", "default", "web-1")


async def told(question: Question) -> bytes:
    """The ``inspect`` of the zone."""
    match question.proxy.name:
        case "asleep":
            await trio.sleep_forever()
        case "wordy":
            return bytes(MAX_ANSWER_BYTES + 1)
        case "away":
            raise UnavailableError("it is on another host")
        case "odd":
            raise RecursionError("too deep")
    return f"{question.what.name} of {question.proxy}".encode()


@pytest.mark.parametrize("what", What)
async def test_every_sort_of_question_is_answered(what, autojump_clock):
    async with lab("global") as here:
        here.inspect = told
        await here.start("zone-a")
        await here.settle()
        answer = await here.global_kds.admin.ask("zone-a", Question(what, WEB))
        assert answer == f"{what.name} of Dataplane default/web-1".encode()
        here.nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        (ResourceKey("Dataplane", "default", "away"), "zone 'zone-a': it is on another host"),
        (ResourceKey("Dataplane", "default", "asleep"), f"its Envoy has not answered in {ASK_S:.0f} s"),
        (ResourceKey("Dataplane", "default", "wordy"), "a global takes 10481664; ask at the API of the zone"),
        (ResourceKey("Secret", "default", "s"), "'Secret' is no kind of proxy"),
        (ResourceKey("Dataplane", "default", "odd"), r"a fault of meshd \(RecursionError\), see the log of the zone"),
    ],
)
async def test_a_reason_comes_instead(proxy, reason, autojump_clock):
    async with lab("global") as here:
        here.inspect = told
        await here.start("zone-a")
        await here.settle()
        with pytest.raises(UnavailableError, match=reason):
            await here.global_kds.admin.ask("zone-a", Question(What.STATS, proxy))
        here.nursery.cancel_scope.cancel()


async def test_the_longest_answer_fits_into_a_message(autojump_clock):
    async def all_there_is(question):
        del question
        return bytes(MAX_ANSWER_BYTES)

    async with lab("global") as here:
        here.inspect = all_there_is
        await here.start("zone-a")
        await here.settle()
        named = ResourceKey("Dataplane", "m" * 63, "n" * 253)
        assert len(await here.global_kds.admin.ask("zone-a", Question(What.STATS, named))) == MAX_ANSWER_BYTES
        here.nursery.cancel_scope.cancel()


async def test_a_global_that_does_not_ask_is_left_alone(autojump_clock):
    async with lab("global") as here:
        here.inspect = told
        del here.server.handlers[GLOBAL_SERVICE + What.STATS.value]
        await here.start("zone-a")
        await here.settle(3 * AGAIN_S)
        assert here.zone_kds("zone-a").status.value.synced
        assert here.connections == 1
        assert await here.global_kds.admin.ask("zone-a", Question(What.CLUSTERS, WEB))
        here.nursery.cancel_scope.cancel()
