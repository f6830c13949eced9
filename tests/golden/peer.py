"""A hub or a device in a process of its own, over WebSocket; run by the golden commit's code.

peer hub FILE                prints its address, serves until its standard input ends
peer device FILE URL CARD    writes a card, syncs, and prints what came of it as JSON
peer read IN OUT             reads every message of the file IN, and writes them anew into OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio

from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.golden.kit import CARDS, Card, Device, device_on, hub_on
from tests.golden.messages import dump, load, read_again

PATIENCE_S = 20


async def serve(path: str) -> None:
    """Be a hub until nobody listens any more."""
    async with hub_on(Path(path)) as hub, open_server(hub, "127.0.0.1:0") as address:
        print(f"ws://{address}", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


async def write(path: str, url: str, card: str) -> None:
    """Be a device that writes one card."""
    async with device_on(Path(path), WebSocketTransport(url, token="a-token")) as device:
        if card:
            await device.store(CARDS).insert(Card(id=card))
        print(json.dumps(await synced_or_stalled(device)), flush=True)


async def synced_or_stalled(device: Device) -> dict[str, Any]:
    """Wait until everything is settled, or the lanes stall; then say what is there."""
    status = device.sync.status
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:

            async def until_idle() -> None:
                await device.sync.wait_idle()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_idle)
            while (status := device.sync.status).state != "stalled":  # kept: it tries again by itself
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    if status.state != "stalled":
        status = device.sync.status
    return {
        "state": status.state,
        "error": f"{status.error.code}: {status.error.message}" if status.error is not None else "",
        "pending": status.pending,
        "cards": sorted(await device.rows(CARDS)),
    }


def read(source: str, target: str) -> None:
    """Read messages and write them anew."""
    Path(target).write_text(dump(read_again(load(Path(source).read_text(encoding="utf-8")))), encoding="utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hub", path]:
            trio.run(serve, path)
        case ["device", path, url, card]:
            trio.run(write, path, url, card)
        case ["read", source, target]:
            read(source, target)
        case _:
            sys.exit(__doc__)
