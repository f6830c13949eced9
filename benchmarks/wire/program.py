"""One end of a wire as a process: it does what its standard input says and answers with one line of JSON each time.

``python -m benchmarks.wire.program server|client KIND [PORT]``

A server first prints its port, then answers ``cpu`` with its CPU seconds and resident bytes.
A client answers ``{"do": "calls" | "items", "count": N, "tasks": N}`` with its CPU seconds, wall seconds and latencies.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Protocol

from benchmarks.programs import answer_questions, tell

KINDS = {
    "websocket": "benchmarks.wire.ours",
    "grpc": "benchmarks.wire.ours",
    "http": "benchmarks.wire.ours",
    "http-json": "benchmarks.wire.ours",
    "websockets": "benchmarks.wire.peer_websockets",
    "grpcio": "benchmarks.wire.peer_grpcio",
    "grpclib": "benchmarks.wire.peer_grpclib",
    "starlette": "benchmarks.wire.peer_starlette",
    "starlette-client": "benchmarks.wire.peer_starlette",
}


class Wire(Protocol):
    """What a module of a kind offers."""

    def serve(self, kind: str, ready: Callable[[int], None]) -> None:
        """Serve until killed; ``ready`` gets the port."""

    def talk(self, kind: str, port: int, work: Callable[[Caller], Awaitable[None]]) -> None:
        """Connect and run ``work`` with the connection."""


class Caller(Protocol):
    """A connection, as the measuring loop sees it."""

    async def call(self) -> None:
        """One request and its reply."""

    async def items(self, count: int) -> None:
        """One stream of ``count`` items."""

    async def line(self) -> str:
        """The next line of standard input."""

    async def together(self, work: list[Callable[[], Awaitable[None]]]) -> None:
        """Run everything at the same time."""


async def obey(caller: Caller) -> None:
    """Do what standard input says until it ends."""
    while line := await caller.line():
        order = json.loads(line)
        latencies: list[float] = []

        async def calls(count: int) -> None:
            for _ in range(count):
                begin = time.perf_counter()
                await caller.call()
                latencies.append(time.perf_counter() - begin)

        cpu, wall = time.process_time(), time.perf_counter()
        if order["do"] == "items":
            await caller.items(order["count"])
        else:
            tasks = order["tasks"]
            await caller.together([lambda: calls(order["count"] // tasks)] * tasks)
        tell(
            {
                "cpu_s": time.process_time() - cpu,
                "wall_s": time.perf_counter() - wall,
                "p50_s": sorted(latencies)[len(latencies) // 2] if latencies else 0.0,
            }
        )


def main(role: str, kind: str, port: str = "0") -> None:
    """Run one end."""
    wire: Wire = import_module(KINDS[kind])  # type: ignore[assignment]  # each module is one
    if role == "server":
        threading.Thread(target=answer_questions, daemon=True).start()
        wire.serve(kind, lambda bound: tell({"port": bound}))
    else:
        wire.talk(kind, int(port), obey)


if __name__ == "__main__":
    main(*sys.argv[1:])
