"""The zone's end: keeps a stream of each sort open and answers what the global asks on it."""

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from meshd.kds.admin.wire import PROXY_KINDS, Answer, Question, What, decode_question, encode_answer
from meshd.model.errors import MeshdError
from meshd.rpc import CLIENT_LIMITS, Channel, ClientStream, RpcError, Status

log = logging.getLogger(__name__)

SERVICE = "/kuma.mesh.v1alpha1.GlobalKDSService/"
ASK_S = 10.0
"""How long an Envoy may take (Kuma's limit)."""
MAX_ANSWER_BYTES = CLIENT_LIMITS.max_sent_bytes - 4096
"""What goes to a global in one message, of which an answer is one; a Kuma global takes as much as ours."""
REFUSALS = (Status.UNAUTHENTICATED, Status.ALREADY_EXISTS)
"""How a global turns a zone away that is not who it says, or is there already."""
AGAIN_S = 5.0
"""After a stream has ended and the connection has not."""

Inspect = Callable[[Question], Awaitable[bytes]]
"""Asks the Envoy of a proxy of this zone; a ``MeshdError`` says why that cannot be."""


async def answer_questions(channel: Channel, metadata: Sequence[tuple[str, str]], what: What, inspect: Inspect) -> None:
    """Answer one sort of questions as long as the connection lives; a global that does not ask is left alone.

    Raises:
        UnavailableError: the connection is lost.
    """
    while True:
        try:
            async with channel.stream(SERVICE + what.value, list(metadata)) as stream:
                await _serve(stream, what, inspect)
        except RpcError as error:
            if error.status is Status.UNIMPLEMENTED:
                log.info("the global does not know %s: it cannot ask about the Envoys of this zone", what.value)
                await trio.sleep_forever()
            # The streams of resources are refused as well, for the same reason, and whoever runs those warns of it.
            log.log(logging.DEBUG if error.status in REFUSALS else logging.INFO, "%s has ended: %s", what.value, error)
        await trio.sleep(AGAIN_S)


async def _serve(stream: ClientStream, what: What, inspect: Inspect) -> None:
    while (message := await stream.receive()) is not None:
        try:
            request_id, question = decode_question(what, message)
        except ValueError as error:
            log.warning("%s: the global asked what cannot be read: %s", what.value, error)
            continue
        await stream.send(encode_answer(request_id, await _answer(question, inspect)))


async def _answer(question: Question, inspect: Inspect) -> Answer:
    if question.proxy.kind not in PROXY_KINDS:
        return Answer(error=f"{question.proxy.kind!r} is no kind of proxy")
    try:
        with trio.fail_after(ASK_S):
            body = await inspect(question)
    except trio.TooSlowError:
        return Answer(error=f"{question.proxy}: its Envoy has not answered in {ASK_S:.0f} s")
    except MeshdError as error:
        return Answer(error=str(error))
    except Exception as error:
        # Request edge: what an Envoy answers is not ours, and what it does to us costs one answer.
        log.exception("%s: could not be inspected, which is a fault of meshd", question.proxy)
        return Answer(error=f"{question.proxy}: a fault of meshd ({type(error).__name__}), see the log of the zone")
    if len(body) > MAX_ANSWER_BYTES:
        why = f"the answer has {len(body)} bytes, a global takes {MAX_ANSWER_BYTES}; ask at the API of the zone"
        return Answer(error=f"{question.proxy}: {why}")
    return Answer(body)
