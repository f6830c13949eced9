"""Somebody who only wants an answer: ``python -m benchmarks.attacks.bystander PORT``.

For each line ``SECONDS`` it asks for one row every 25 ms on a kept connection, meanwhile connects anew twice a second, and
answers with the times it took, in seconds. A question that comes late because the one before was late is timed from when
it should have been asked.
"""

from __future__ import annotations

import json
import sys
import time

import trio

from atoma.errors import AtomaError
from atoma_transports.websocket import WebSocketTransport
from benchmarks.attacks.hub import BYSTANDER
from benchmarks.programs import tell

EVERY_S, NEWCOMER_EVERY_S, PATIENCE_S = 0.025, 0.5, 5.0
PLAN = {"source": ["store", "notes"], "where": ["call", "eq", [["col", 0, "id"], ["lit", "text", "short-7"]]]}
BODY = json.dumps({"ops": [{"index": "0", "name": "query", "store": "notes", "query": {"plan": PLAN}}]}).encode()
QUESTION = (
    b"POST /v1/query HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer %b\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % (BYSTANDER.encode(), len(BODY))
) + BODY


async def ask(stream: trio.abc.Stream) -> None:
    """One question and its answer."""
    await stream.send_all(QUESTION)
    data = bytearray()
    while b'"short-7"' not in data:
        received = await stream.receive_some()
        assert received, "the hub hung up on the bystander"
        data += received


async def keep_asking(port: int, until: float, times: list[float]) -> None:
    """Ask at a steady pace."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    due = time.perf_counter()
    while due < until:
        await trio.sleep(due - time.perf_counter() if due > time.perf_counter() else 0)
        with trio.move_on_after(PATIENCE_S) as patience:
            await ask(stream)
        times.append(time.perf_counter() - due)
        if patience.cancelled_caught:
            await trio.aclose_forcefully(stream)
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        due = max(due + EVERY_S, time.perf_counter() - 1.0)


async def keep_coming(port: int, until: float, times: list[float]) -> None:
    """Connect and authenticate, time after time; who is not let in has waited as long as they have patience."""
    transport = WebSocketTransport(f"ws://127.0.0.1:{port}/sync", token=BYSTANDER)
    while (began := time.perf_counter()) < until:
        came_in = False
        try:
            with trio.move_on_after(PATIENCE_S):
                async with transport.connect():
                    came_in = True
        except AtomaError:
            pass  # it was not let in
        times.append(time.perf_counter() - began if came_in else PATIENCE_S)
        await trio.sleep(NEWCOMER_EVERY_S)


async def obey(port: int) -> None:
    """Measure for as long as each line of standard input says."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        times: list[float] = []
        newcomers: list[float] = []
        until = time.perf_counter() + float(line)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_asking, port, until, times)
            nursery.start_soon(keep_coming, port, until, newcomers)
        times.sort()
        tell(
            {
                "p50_s": times[len(times) // 2],
                "p99_s": times[min(len(times) - 1, len(times) * 99 // 100)],
                "worst_s": times[-1],
                "asked": len(times),
                "newcomer_worst_s": max(newcomers),
            }
        )


if __name__ == "__main__":
    trio.run(obey, int(sys.argv[1]))
