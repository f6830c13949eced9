"""A small HTTP/1.1 server that does what a test tells it, on h11 and real sockets; nothing of ours is in it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11
import msgspec
import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.understood import UNDERSTOOD
from atoma.contracts.values import ErrorInfo
from atoma_transports.http.envelope import BatchRequest

MSGPACK = "application/vnd.msgpack"
ITEMS = "application/vnd.atoma.items"


def record(kind: str, payload: bytes = b"") -> bytes:
    return kind.encode() + len(payload).to_bytes(4, "big") + payload


class HangUp(Exception):
    """Raised by a script to close the connection as it is."""


@dataclass(eq=False)
class Asked:
    """One request, and the means to answer it."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    stream: trio.abc.Stream
    http: h11.Connection
    method: str = "POST"

    @property
    def content(self) -> object:
        return msgspec.msgpack.decode(self.body)

    async def answer(self, body: bytes, status: int = 200, content: str = MSGPACK, **headers: str) -> None:
        fields = {"content-type": content, "content-length": str(len(body))}
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        await self._send(h11.Response(status_code=status, headers=list(fields.items())), h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    async def refuse(self, info: ErrorInfo, status: int = 503) -> None:
        await self.answer(encode({"error": info}), status)

    async def begin(self, content: str = ITEMS) -> None:
        await self._send(h11.Response(status_code=200, headers=[("content-type", content)]))

    async def part(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def _send(self, *events: object) -> None:
        data = b"".join(self.http.send(event) or b"" for event in events)  # type: ignore[call-overload]
        await self.stream.send_all(data)


@dataclass(eq=False)
class ScriptedServer:
    """Where it listens, what it was asked, and how it answers."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    live: dict[trio.abc.Stream, trio.SocketStream] = field(default_factory=dict)
    cancelled: int = 0
    script: Callable[[Asked], Awaitable[None]] | None = None
    ssl_context: ssl.SSLContext | None = None
    raw: bytes | None = None
    listeners: list[trio.SocketListener] = field(default_factory=list)
    accepting: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def url(self) -> str:
        return f"http{'s' if self.ssl_context else ''}://localhost:{self.port}"

    def paths(self) -> list[str]:
        """Everything that was asked, but not whether the server is there."""
        return [asked.path for asked in self.asked if not is_probe(asked)]

    def calls(self) -> int:
        """How many calls have come, in batches and as streams."""
        batches = [asked for asked in self.asked if asked.path == "/v1/batch"]
        return len(self.paths()) - len(batches) + sum(len(decode(asked.body, BatchRequest).calls) for asked in batches)

    async def serve(self, plain: trio.SocketStream) -> None:
        self.connections += 1
        number = self.connections
        stream: trio.abc.Stream = plain
        if self.ssl_context is not None:
            stream = trio.SSLStream(plain, self.ssl_context, server_side=True, https_compatible=True)
        self.live[stream] = plain
        try:
            http = h11.Connection(h11.SERVER)
            while await self._serve_one(stream, http, number):
                http.start_next_cycle()
        except (HangUp, OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        finally:
            del self.live[stream]
            await trio.aclose_forcefully(stream)

    async def _serve_one(self, stream: trio.abc.Stream, http: h11.Connection, number: int) -> bool:
        head = await _event(stream, http)
        if not isinstance(head, h11.Request):
            return False
        if self.raw is not None:
            await stream.send_all(self.raw)
            return False
        body = b""
        while isinstance(event := await _event(stream, http), h11.Data):
            body += bytes(event.data)
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        asked = Asked(head.target.decode(), headers, body, number, stream, http, head.method.decode())
        self.asked.append(asked)
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    if await stream.receive_some(1):
                        raise AssertionError("the client sends ahead")
                self.cancelled += 1
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                await self.answer(asked)
            except (HangUp, trio.BrokenResourceError, trio.ClosedResourceError):
                await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()
        return stream in self.live and http.our_state is h11.DONE and http.their_state is h11.DONE

    async def answer(self, asked: Asked) -> None:
        if self.script is not None:
            await self.script(asked)
        else:
            await polite(asked)

    async def stop(self) -> None:
        """Listen no more, and break every connection."""
        self.accepting.cancel()
        for listener in self.listeners:
            await listener.aclose()
        self.hang_up()

    def hang_up(self) -> None:
        """Reset every connection."""
        for stream in list(self.live.values()):
            plain = stream.socket
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no goodbye
            plain.close()


def is_probe(asked: Asked) -> bool:
    return asked.path.endswith("/v1/cancel") and asked.content["calls"] == []  # type: ignore[index]


async def polite(asked: Asked) -> None:
    """Answers what a hub would: batches in records, a query with nothing found."""
    if asked.path.endswith("/v1/batch"):
        await asked.begin()
        for call in asked.content["calls"]:  # type: ignore[index]
            reply = {"id": call["id"], "ok": {"results": [{"index": 0, "tuples": [[1]]}]}}
            await asked.part(record("i", encode(reply)))
        await asked.part(record("z"))
        await asked.end()
    elif asked.path.endswith("/v1/cancel"):
        await asked.answer(encode({"queries": UNDERSTOOD}))
    else:
        await asked.answer(encode({"results": [{"index": 0, "tuples": [[1]]}]}))


async def _event(stream: trio.abc.Stream, http: h11.Connection) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some(65536)))
    return event


@asynccontextmanager
async def open_scripted(
    script: Callable[[Asked], Awaitable[None]] | None = None, ssl_context: ssl.SSLContext | None = None
) -> AsyncGenerator[ScriptedServer]:
    server = ScriptedServer(script=script, ssl_context=ssl_context)
    async with trio.open_nursery() as nursery:
        server.listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = server.listeners[0].socket.getsockname()[1]
        nursery.start_soon(_serve, server)
        yield server
        nursery.cancel_scope.cancel()


async def _serve(server: ScriptedServer) -> None:
    async with trio.open_nursery() as handlers:
        with server.accepting:
            await trio.serve_listeners(server.serve, server.listeners, handler_nursery=handlers)
