"""A device as a process: ``python -m benchmarks.device_program PORT FILE SCOPE …`` syncs the cards of these scopes over a WebSocket.

It tells when the first scope is complete, and at the end how many rows it has and the most memory that it has held.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio

from atoma import Sync, open_client
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.remote import Remote
from atoma_transports.websocket import WebSocketTransport
from benchmarks.programs import tell
from tests.unit.hub.kit import CARDS, SCHEMA

LOOK_S = 0.02


def most_resident() -> int:
    """The most bytes of memory that this process has held; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


async def sync(port: str, path: str, *scopes: str) -> None:
    """Sync until there is nothing more."""
    transport = WebSocketTransport(f"ws://127.0.0.1:{port}/sync", token="device")
    plugins = [LocalExecution(SQLiteEngine(path)), Remote(transport), Sync(stores=["cards"], scopes=scopes)]
    began = time.perf_counter()
    async with open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client:
        while client.sync.status.scope(scopes[0]).state != "live":
            await trio.sleep(LOOK_S)
        tell({"first_s": time.perf_counter() - began})
        await client.sync.wait_idle()
        seconds = time.perf_counter() - began
        rows = await client.store(CARDS).count()
        tell({"seconds": seconds, "rows": rows, "most_resident": most_resident(), "cpu_s": time.process_time()})


if __name__ == "__main__":
    trio.run(sync, *sys.argv[1:])
