"""A hub in a process of its own: ``serving.py FILE [PORT]`` prints the address of its port and serves until SIGTERM."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import trio

from tests.scenarios.cli.kit import running_hub


async def main(path: Path, port: int) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with running_hub(path, port) as (_, url):
            print(url, flush=True)
            await anext(signals)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
