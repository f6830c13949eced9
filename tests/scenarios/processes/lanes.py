"""A program that syncs a file together with others: ``python -m tests.scenarios.processes.lanes FILE PORT NAME``.

It says what its lanes do, a line for each state, and writes a row for each line that it is given.
"""

from __future__ import annotations

import sys

import trio

from atoma.client import Client
from tests.scenarios.kill.programs import NOTES, Note, client_on


async def tell(client: Client) -> None:
    """Say what the lanes do."""
    async with client.sync.watch() as states:
        last = ""
        async for status in states:
            if status.state != last:
                last = status.state
                print(last, flush=True)


async def main(file: str, port: int, name: str) -> None:
    """Sync, and write what is asked for."""
    async with client_on(file, port) as client, trio.open_nursery() as nursery:
        nursery.start_soon(tell, client)
        async for line in trio.wrap_file(sys.stdin):
            written = await client.store(NOTES).insert(Note(id=line.strip(), text=name))
            with trio.fail_after(30):
                await written.accepted()
            print(f"accepted {line.strip()}", flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3])
