"""The echo application, and connections through the engine that each ask now and then.

Prints the application's port, takes lines ``<engine port> <connections> <seconds> <pid of the subject>`` on stdin, and
answers each with JSON. The connections stay open from line to line while the engine's port is the same.
"""

import json
import random
import sys

import trio

from tests.bench.loop.samples import Samples

PERIOD_S = 2.5
"""Each connection asks once in this time, at a moment of its own."""
REQUEST = b"x" * 64


async def echo(stream: trio.SocketStream) -> None:
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


async def answered(stream: trio.SocketStream) -> bool:
    """Whether one request came back whole."""
    try:
        await stream.send_all(REQUEST)
        received = 0
        while received < len(REQUEST):
            part = await stream.receive_some(4096)
            if not part:
                return False
            received += len(part)
    except trio.BrokenResourceError:
        return False
    return True


class Clients:
    def __init__(self) -> None:
        self.samples: Samples | None = None
        self.failed = 0
        self.open = 0

    async def one(self, port: int, phase_s: float) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            self.open += 1
            await trio.sleep(phase_s)
            due = trio.current_time()
            while True:
                samples = self.samples
                began = samples.begin() if samples else None
                if not await answered(stream):
                    self.failed += 1
                    return
                if samples and began:
                    samples.end(began)
                due += PERIOD_S
                await trio.sleep_until(due)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, echo, 0)
        print(listeners[0].socket.getsockname()[1], flush=True)
        stdin = trio.lowlevel.FdStream(0)
        rng = random.Random(1)
        scope: trio.CancelScope | None = None
        current = 0
        clients = Clients()

        async def all_clients(
            port: int, count: int, clients: Clients, task_status: trio.TaskStatus[trio.CancelScope]
        ) -> None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    for i in range(count):
                        inner.start_soon(clients.one, port, rng.uniform(0, PERIOD_S))
                        if i % 20 == 19:
                            await trio.sleep(0.1)
                    task_status.started(scope)

        while line := (await stdin.receive_some(256)).decode():
            port, count, seconds, subject = line.split()
            if int(port) != current:
                if scope is not None:
                    scope.cancel()
                current, clients = int(port), Clients()
                scope = await nursery.start(all_clients, current, int(count), clients)
                await trio.sleep(PERIOD_S)
            clients.samples = samples = Samples(int(subject))
            clients.failed = 0
            with trio.move_on_after(float(seconds)):
                while True:
                    await trio.sleep(0.001)
                    samples.tick()
            clients.samples = None  # the subject may be gone before the next line
            result = {"open": clients.open, "failed": clients.failed, **samples.summary()}
            print(json.dumps(result), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    sys.setswitchinterval(0.005)
    trio.run(main)
