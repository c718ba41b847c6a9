"""One run of meshd with one Envoy, as a process that can be killed: ``python -m tests.envoy.one_run STATE DOCUMENT``.

DOCUMENT is a bootstrap without an admin interface. SIGTERM ends it in order and keeps the Envoy.
"""

import json
import logging
import os
import random
import signal
import sys
from pathlib import Path

import trio

from meshd.ca.internal import InternalCredentials
from meshd.envoy.binary import wheel_binary
from meshd.envoy.command import Options
from meshd.envoy.keeper import Fleet
from meshd.envoy.metrics import Metrics
from tests.envoy.support import WEB, with_admin


async def main(state, document):
    async def bootstrap(surroundings):
        return with_admin(json.loads(document.read_text()), surroundings)

    fleet = Fleet(
        state, bootstrap, InternalCredentials(), lambda _: True, random.Random(), Metrics(None), dict(os.environ)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(fleet.process(WEB, Options(wheel_binary(), 2, concurrency=1)).run)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]))
