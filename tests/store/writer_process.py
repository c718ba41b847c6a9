"""Run as a program by test_sqlite: writes pairs of resources for ever and prints every number that is committed."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import trio

from meshd.kinds import KINDS
from meshd.kinds.config import Config
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.store.sqlite import SqliteStore
from meshd.store.store import Put

TEXT = "x" * 2000


async def main(path: Path) -> None:
    async with SqliteStore.open(path, Registry(KINDS), lambda: datetime.now(UTC)) as store:
        first = store.get(ResourceKey("Config", "", "left"))
        number = int(first.spec.config.partition(" ")[0]) if first else 0

        async def write(side: int) -> None:
            nonlocal number
            while True:
                number += 1
                mine = number
                text = Config(config=f"{mine} {TEXT}")
                await store.write(
                    [
                        Put(Resource(ResourceKey("Config", "", "left"), text)),
                        Put(Resource(ResourceKey("Config", "", f"bulk-{mine % 50}-{side}"), text)),
                        Put(Resource(ResourceKey("Config", "", "right"), text)),
                    ]
                )
                print(mine, flush=True)

        async with trio.open_nursery() as nursery:
            for side in range(3):
                nursery.start_soon(write, side)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
