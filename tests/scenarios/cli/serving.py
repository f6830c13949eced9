"""A hub in a process of its own: ``serving.py FILE`` prints the address of its port and serves until it is killed."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from tests.scenarios.cli.kit import running_hub


async def main(path: Path) -> None:
    async with running_hub(path) as (_, url):
        print(url, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
