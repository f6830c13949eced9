"""The two programs of ``test_half_open``: a hub that never answers, and a device that asks it; each says what happens."""

from __future__ import annotations

import sys
from collections.abc import Callable

import trio

from atoma.contracts.sync import Cursor, PullRequest
from atoma.errors import ChannelBroken
from atoma.ports import Transport
from atoma.testing.conformance import TOKEN, TinyHub
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport

LIMITS = ChannelLimits(ping_s=1, pong_s=1)
KINDS: dict[str, Callable[[str], Transport]] = {
    "websocket": lambda address: WebSocketTransport(f"ws://{address}/", token=TOKEN, insecure=True, limits=LIMITS),
    "grpc": lambda address: GrpcTransport(address, token=TOKEN, insecure=True, limits=LIMITS),
    "http": lambda address: HttpTransport(f"http://{address}", token=TOKEN, insecure=True, limits=LIMITS),
}


async def hub(address: str) -> None:
    async def pulled() -> None:
        print("asked", flush=True)
        try:
            await trio.sleep_forever()
        finally:
            print("stopped", flush=True)

    async with open_server(TinyHub(on_pull=pulled), address, insecure=True, limits=LIMITS):
        print("listening", flush=True)
        await trio.sleep_forever()


async def device(kind: str, address: str) -> None:
    async with KINDS[kind](address).connect() as channel:
        try:
            await ServiceProxy(channel).pull(PullRequest("main", Cursor(), b"device-1"))
        except ChannelBroken as broken:
            print("broken", "unknown" if broken.maybe_sent else "not sent", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "hub":
        trio.run(hub, sys.argv[2])
    else:
        trio.run(device, sys.argv[1], sys.argv[2])
