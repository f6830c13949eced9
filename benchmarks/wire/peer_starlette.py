"""uvicorn and Starlette answer the same request with the same JSON; the client is a bare socket for both servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import trio

from benchmarks.wire.loops import TrioCaller
from benchmarks.wire.program import Caller

PLAN = {"source": ["store", "todos"], "where": ["call", "eq", [["col", 0, "id"], ["param", 0, "text"]]]}
REQUEST = {
    "ops": [{"index": "0", "name": "query", "store": "todos", "query": {"plan": PLAN, "params": ["todo-1"]}}],
    "trace_id": "trace",
}
REPLY = {
    "results": [
        {
            "index": "0",
            "found": {
                "columns": ["text", "done", "rank"],
                "rows": [["todo-1", 1, 1, "main", "water the plants", False, 7]],
            },
        }
    ]
}


def serve(kind: str, ready: Callable[[int], None]) -> None:
    """Starlette's own way to take and give JSON, under uvicorn as it comes from the registry."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def query(request: Request) -> JSONResponse:
        call = await request.json()
        assert call["ops"][0]["name"] == "query"
        return JSONResponse(REPLY)

    app = Starlette(routes=[Route("/v1/query", query, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="error", access_log=False))

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            ready(server.servers[0].sockets[0].getsockname()[1])

    asyncio.run(run())


class SocketCaller(TrioCaller):
    """One keep-alive connection and no HTTP library: what is left is the server."""

    def __init__(self, stream: trio.SocketStream, port: int) -> None:
        body = json.dumps(REQUEST, separators=(",", ":")).encode()
        self._stream = stream
        self._request = (
            b"POST /v1/query HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
            b"accept: application/json\r\ncontent-length: %d\r\n\r\n" % (port, len(body)) + body
        )

    async def call(self) -> None:
        await self._stream.send_all(self._request)
        data = bytearray()
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += await self._stream.receive_some()
        head = bytes(data[:end]).lower()
        assert head.startswith(b"http/1.1 200"), bytes(data)
        length = int(head.partition(b"content-length:")[2].partition(b"\r")[0])
        while len(data) < end + 4 + length:
            data += await self._stream.receive_some()
        assert b"water the plants" in data, bytes(data)

    async def items(self, count: int) -> None:
        raise NotImplementedError("only requests are compared")


def talk(kind: str, port: int, work: Callable[[Caller], Awaitable[None]]) -> None:
    """Connect."""

    async def run() -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await work(SocketCaller(stream, port))

    trio.run(run)
