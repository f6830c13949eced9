"""Transports beside their peers: CPU of both ends per call and per streamed item, latency, and idle connections."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from benchmarks.measure import Row, Samples
from benchmarks.programs import Program, allow_files, running
from benchmarks.wire.ours import transport

ROUNDS = 3
WARM_UP, CALLS, ITEMS, IDLE = 300, 1_500, 5_000, 1_000
IDLE_S = 5.0
PROGRAM = "benchmarks.wire.program"

CALLING = {
    "gRPC unary": (("grpc", "grpc"), ("grpcio", "grpcio"), ("grpclib", "grpclib")),
    "WebSocket round trip": (("websocket", "websocket"), ("websockets", "websockets")),
    "HTTP request": (("http-json", "starlette-client"), ("starlette", "starlette-client")),
    "HTTP request, our client": (("http", "http"),),
}
"""Case → (server, client) of each variant, ours first."""

BARS = {"gRPC unary": "T1 ≤ 1.3×", "WebSocket round trip": "T1 ≤ 2×", "HTTP request": "T1 ≤ 1×"}
STREAMING = {
    "gRPC stream": (("grpc", "grpc"), ("grpcio", "grpcio"), ("grpclib", "grpclib")),
    "WebSocket push": (("websocket", "websocket"), ("websockets", "websockets")),
    "HTTP stream": (("http", "http"),),
}


@dataclass(slots=True)
class Pair:
    """Both ends of one variant."""

    server: Program
    client: Program
    served: list[float] = field(default_factory=list)

    def measure(self, order: dict[str, object], count: int) -> tuple[float, float, float]:
        """CPU seconds of both ends, of the server alone, and the median latency; per operation."""
        before = self.server.ask("cpu")["cpu_s"]
        done = self.client.ask(order)
        server = self.server.ask("cpu")["cpu_s"] - before
        return (server + done["cpu_s"]) / count, server / count, done["p50_s"]


async def wires(folder: Path) -> list[Row]:
    """Every transport against its peers, in turns; the programs run in processes of their own."""
    rows = _compare(CALLING, {"do": "calls", "count": CALLS, "tasks": 1}, CALLS, "call")
    rows += _compare(STREAMING, {"do": "items", "count": ITEMS}, ITEMS, "item")
    return rows + await _idle()


def _compare(
    cases: dict[str, tuple[tuple[str, str], ...]], order: dict[str, object], count: int, unit: str
) -> list[Row]:
    rows: list[Row] = []
    for case, variants in cases.items():
        both, server_only, latency = Samples(), Samples(), Samples()
        with ExitStack() as stack:
            pairs = {server: _pair(stack, server, client) for server, client in variants}
            for pair in pairs.values():
                pair.client.ask({**order, "count": WARM_UP})
            for _ in range(ROUNDS):
                for name, pair in pairs.items():
                    cpu, server, p50 = pair.measure(order, count)
                    both.add(name, cpu)
                    server_only.add(name, server)
                    latency.add(name, p50)
        rows += _lines(case, [server for server, _ in variants], both, server_only, latency, unit)
    return rows


def _pair(stack: ExitStack, server: str, client: str) -> Pair:
    served = stack.enter_context(running(PROGRAM, "server", server))
    port = int(served.hear()["port"])
    return Pair(served, stack.enter_context(running(PROGRAM, "client", client, str(port))))


def _lines(case: str, names: list[str], both: Samples, server: Samples, latency: Samples, unit: str) -> list[Row]:
    """The bar of a bare-socket client is about the server, as nothing else differs; of the others about both ends."""
    counted = server if case == "HTTP request" else both
    what = "server CPU" if counted is server else "CPU of both ends"
    ours, *peers = names
    rows: list[Row] = []
    for name in names:
        ratio = counted.median(ours) / counted.median(name) if name != ours else None
        bar = BARS.get(case, "") if peers and name == peers[0] else ""
        text = f"{name}: {what} per {unit}"
        rows.append(
            Row(case, text, counted.median(name) * 1e6, "µs", ratio, "this (ours over it)" if ratio else "", bar)
        )
        if latency.median(name):
            rows.append(Row(case, f"{name}: latency p50", latency.median(name) * 1e6, "µs"))
    return rows


async def _idle() -> list[Row]:
    """A thousand open connections that do nothing, per transport: memory and CPU of the server."""
    allow_files(2 * IDLE + 256)
    rows: list[Row] = []
    for kind in ("websocket", "grpc", "http"):
        with running(PROGRAM, "server", kind) as server:
            port = int(server.hear()["port"])
            before = server.ask("cpu")
            async with _many(kind, port):
                opened = server.ask("cpu")
                begin = time.perf_counter()
                await trio.sleep(IDLE_S)
                after = server.ask("cpu")
                spent = (after["cpu_s"] - opened["cpu_s"]) / (time.perf_counter() - begin)
                kib = (after["resident"] - before["resident"]) / IDLE / 1024
            rows.append(Row(f"{IDLE:,} idle connections", f"{kind}: memory of the server, each", kib, "KiB"))
            rows.append(Row(f"{IDLE:,} idle connections", f"{kind}: CPU of the server, all", spent * 100, "%"))
    return rows


@asynccontextmanager
async def _many(kind: str, port: int) -> AsyncIterator[None]:
    async def hold(task_status: trio.TaskStatus[None]) -> None:
        async with transport(kind, port).connect():
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:  # a task for each: scopes within scopes would be another case
        for _ in range(IDLE):
            await nursery.start(hold)
        yield
        nursery.cancel_scope.cancel()
