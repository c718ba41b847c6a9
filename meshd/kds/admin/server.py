"""The global's end: asks a zone about an Envoy on the stream that the zone keeps open for it."""

import logging
import uuid
from dataclasses import dataclass, field

import trio

from meshd.kds.admin.wire import Answer, Question, What, decode_answer, encode_question
from meshd.model.errors import UnavailableError
from meshd.rpc import RpcError, ServerStream, Status

log = logging.getLogger(__name__)

ANSWER_S = 15.0
"""A zone gives its Envoy 10 s; a Kuma global may need as long to open a stream, so a little more."""
GONE = "the zone's stream ended before it answered"


@dataclass(eq=False, slots=True)
class Pending:
    """A question that waits for its answer."""

    stream: ServerStream
    done: trio.Event = field(default_factory=trio.Event)
    answer: Answer = field(default_factory=Answer)


class AdminStreams:
    """The open streams of all zones: one of each sort a zone, the newest counts."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, What], ServerStream] = {}
        self._pending: dict[str, Pending] = {}

    async def serve(self, zone: str, what: What, stream: ServerStream) -> None:
        """Take the answers of a zone's stream until it ends or is cancelled; what waits for them is then told so.

        An answer that nobody waits for (it came too late) is dropped.

        Raises:
            RpcError: INVALID_ARGUMENT, what came is no answer.
        """
        place = (zone, what)
        self._streams[place] = stream
        try:
            while (message := await stream.receive()) is not None:
                try:
                    request_id, answer = decode_answer(message)
                except ValueError as error:
                    raise RpcError(Status.INVALID_ARGUMENT, f"zone {zone!r}: no answer: {error}") from error
                pending = self._pending.get(request_id)
                if pending is None or pending.stream is not stream:
                    log.debug("zone=%s %s: nobody waits for the answer %s", zone, what.value, request_id)
                    continue
                pending.answer = answer
                pending.done.set()
        finally:
            if self._streams.get(place) is stream:
                del self._streams[place]
            for pending in self._pending.values():
                if pending.stream is stream and not pending.done.is_set():
                    pending.answer = Answer(error=GONE)
                    pending.done.set()

    async def ask(self, zone: str, question: Question) -> bytes:
        """What the Envoy of a zone's proxy says.

        Raises:
            UnavailableError: the zone has no such stream open, does not answer in time, or says why it cannot.
        """
        stream = self._streams.get((zone, question.what))
        if stream is None:
            raise UnavailableError(f"zone '{zone}' is not connected, or has no {question.what.value} stream open")
        request_id = str(uuid.uuid4())
        pending = self._pending[request_id] = Pending(stream)
        try:
            with trio.fail_after(ANSWER_S):
                await stream.send(encode_question(request_id, question))
                await pending.done.wait()
        except trio.TooSlowError:
            raise UnavailableError(f"zone '{zone}' has not answered in {ANSWER_S:.0f} s") from None
        finally:
            del self._pending[request_id]
        if pending.answer.error:
            raise UnavailableError(f"zone '{zone}': {pending.answer.error}")
        return pending.answer.body
