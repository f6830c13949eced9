"""The attacker: ``python -m benchmarks.attacks.attacker PORT NAME SECONDS`` attacks for so long, and no longer.

It says when it begins, and at the end what it has sent.
"""

from __future__ import annotations

import sys
import time

import trio

from benchmarks.attacks.shapes import PIECE_BYTES, SHAPES, Shape
from benchmarks.programs import allow_files, tell

PAUSE_S, AGAIN_S = 0.005, 0.1
LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


async def strike(stream: trio.SocketStream, shape: Shape) -> int:
    """One connection's worth of the attack; how many bytes were sent."""
    await stream.send_all(shape.opening)
    sent = len(shape.opening)
    seen = b""
    with trio.move_on_after(shape.patience_s):
        while shape.welcome not in seen or not (seen or shape.unit):
            data = await stream.receive_some()
            if not data:
                return sent
            seen += data

    async def drop_answers() -> None:
        while await stream.receive_some():
            pass

    if shape.deaf:
        while True:  # until the hub has hung up, which sending finds out
            await stream.send_all(shape.unit)
            await trio.sleep(AGAIN_S)
    if shape.stays:
        await drop_answers()
    if not shape.unit:
        return sent
    piece = shape.unit * (PIECE_BYTES // len(shape.unit))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drop_answers)
        while True:
            await stream.send_all(piece)
            sent += len(piece)


async def attack(port: int, shape: Shape, seconds: float) -> None:
    """Attack on every connection until the time is over."""
    bytes_sent = connections = 0
    tell({"began": True})
    until = time.perf_counter() + seconds

    async def keep_on() -> None:
        nonlocal bytes_sent, connections
        while time.perf_counter() < until:
            try:
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    connections += 1
                    bytes_sent += await strike(stream, shape)
            except* LOST:
                pass
            await trio.sleep(PAUSE_S)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(shape.connections):
                nursery.start_soon(keep_on)
    tell({"connections": connections, "bytes": bytes_sent})


if __name__ == "__main__":
    chosen = SHAPES[sys.argv[2]]()
    allow_files(chosen.connections + 256)
    trio.run(attack, int(sys.argv[1]), chosen, float(sys.argv[3]))
