"""A small hub behind the HTTP handler, and a client that speaks HTTP by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import trio
import trio.testing

from atoma.contracts.codec import decode, encode
from atoma.contracts.sync import Cursor, Hint, NotifyRequest, PullReply, PullRequest
from atoma.errors import AuthenticationError, RemoteError
from atoma.ports import Peer, Principal, SyncService
from atoma_transports.calls import ChannelLimits
from atoma_transports.http import HttpHandler
from atoma_transports.protocol.json_mapping import decode_json, encode_json
from atoma_transports.serving.addresses import host_check
from atoma_transports.serving.handlers import Hosting
from tests.unit.transports.kit import Unasked

T = TypeVar("T", bound=msgspec.Struct)
MSGPACK = "application/vnd.msgpack"
JSON = "application/json"
ITEMS = "application/vnd.atoma.items"
PEER = Peer("127.0.0.1", True, "http")


async def nothing() -> None:
    """The hook that lets everything pass."""


@dataclass
class Hub(Unasked):
    """Answers pulls with their scope, and hints as long as they are wanted."""

    tokens: dict[str, Principal] = field(default_factory=lambda: {"alice": Principal("alice"), "bob": Principal("bob")})
    on_pull: Callable[[PullRequest], Awaitable[None]] | None = None
    failure: Exception | None = None
    asked: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    active: int = 0
    deadlines: list[float] = field(default_factory=list)
    hints: int = 1
    sent: int = 0

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        self.checked.append(token)
        await trio.lowlevel.checkpoint()
        if token not in self.tokens:
            raise AuthenticationError("the token is not known here")
        return self.tokens[token]

    def service(self, principal: Principal) -> SyncService:
        return self

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        self.active += 1
        self.deadlines.append(trio.current_effective_deadline())
        try:
            yield
        finally:
            self.active -= 1

    async def pull(self, request: PullRequest) -> PullReply:
        async with self.working():
            self.asked.append(request.scope)
            if request.scope == "forever":
                await trio.sleep_forever()
            if self.on_pull is not None:
                await self.on_pull(request)
            if self.failure is not None:
                raise self.failure
            return PullReply(request.scope, request.cursor, Cursor(b"e", 2, b"h" * request.max_bytes), head=7)

    @asynccontextmanager
    async def notify(self, request: NotifyRequest) -> AsyncGenerator[AsyncIterator[Hint]]:
        async def heads() -> AsyncGenerator[Hint]:
            for number in range(self.hints):
                self.sent += 1
                yield Hint(request.scopes[0], number)
                await trio.lowlevel.checkpoint()
            if self.failure is not None:
                raise self.failure
            if "end" not in request.scopes:
                await trio.sleep_forever()

        async with self.working():
            if "not-yours" in request.scopes:
                raise RemoteError("you may not read this scope", remote_code="PERMISSION_DENIED")
            if "slow" in request.scopes:
                await trio.sleep_forever()
            yield heads()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    fields: dict[str, str]
    body: bytes

    def message(self, kind: type[T]) -> T:
        """The body, in the encoding that its type says."""
        if self.fields["content-type"] == JSON:
            return decode_json(self.body, kind)
        assert self.fields["content-type"] == MSGPACK
        return decode(self.body, kind)

    def json(self) -> object:
        assert self.fields["content-type"] == JSON
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        read = msgspec.msgpack.decode if self.fields["content-type"] == MSGPACK else msgspec.json.decode
        error: str = read(self.body)["error"]["code"]
        return error


class Client:
    """One connection, spoken to by hand."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = b""

    async def send(self, method: str, path: str, body: bytes = b"", **fields: str) -> None:
        """Send a request; fields are named with underscores, and left out when empty."""
        given = {"host": "localhost", "authorization": "Bearer alice"}
        given |= {name.replace("_", "-"): value for name, value in fields.items()}
        if method == "POST":
            given.setdefault("content-length", str(len(body)))
            given.setdefault("content-type", JSON)
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
        await self.stream.send_all(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)

    async def ask(self, method: str, path: str, body: bytes = b"", **fields: str) -> Answer:
        await self.send(method, path, body, **fields)
        return await self.answer()

    async def call(self, name: str, message: msgspec.Struct, *, packed: bool = False, **fields: str) -> Answer:
        """Call a method of the protocol."""
        if packed:
            return await self.ask("POST", f"/v1/{name}", encode(message), content_type=MSGPACK, **fields)
        return await self.ask("POST", f"/v1/{name}", encode_json(message), **fields)

    async def more(self) -> None:
        data = bytes(await self.stream.receive_some())
        if not data:
            raise EOFError(self.received)
        self.received += data

    async def read_until(self, mark: bytes) -> bytes:
        while mark not in self.received:
            await self.more()
        found, _, self.received = self.received.partition(mark)
        return found

    async def read(self, size: int) -> bytes:
        while len(self.received) < size:
            await self.more()
        found, self.received = self.received[:size], self.received[size:]
        return found

    async def head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self.read_until(b"\r\n\r\n")).decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), fields

    async def answer(self) -> Answer:
        status, fields = await self.head()
        if fields.get("transfer-encoding") == "chunked":
            return Answer(status, fields, b"".join([part async for part in self.chunks()]))
        return Answer(status, fields, await self.read(int(fields.get("content-length", 0))))

    async def chunk(self) -> bytes:
        """The next part of a body, ``b""`` at its end."""
        size = int(await self.read_until(b"\r\n"), 16)
        part = await self.read(size)
        assert await self.read(2) == b"\r\n"
        return part

    async def chunks(self) -> AsyncGenerator[bytes]:
        while part := await self.chunk():
            yield part

    async def ended(self) -> bool:
        """Whether the other side has closed the connection, and had nothing more to say."""
        with trio.fail_after(60):
            try:
                return not self.received and not await self.stream.receive_some()
            except trio.BrokenResourceError:
                return True


def records(body: bytes) -> list[tuple[str, bytes]]:
    """The records of a body."""
    found: list[tuple[str, bytes]] = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        found.append((body[:1].decode(), body[5 : 5 + size]))
        assert len(body) >= 5 + size
        body = body[5 + size :]
    return found


@dataclass
class Site:
    """A hub and its HTTP handler, which connections can be made to."""

    nursery: trio.Nursery
    hub: Hub
    limits: ChannelLimits
    handler: HttpHandler = field(default_factory=HttpHandler)
    drain: trio.Event = field(default_factory=trio.Event)
    peer: Peer = PEER
    open: int = 0

    def connect(self, on_receive: Callable[[], Awaitable[None]] = nothing) -> Client:
        ours, theirs = trio.testing.memory_stream_pair()
        theirs.receive_stream.receive_some_hook = on_receive
        self.nursery.start_soon(self._serve, theirs)
        return Client(ours)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        hosting = Hosting(self.hub, self.peer, host_check(()), self.limits, self.drain)
        self.open += 1
        try:
            await self.handler.serve(stream, hosting)
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_site(hub: Hub | None = None, limits: ChannelLimits | None = None) -> AsyncGenerator[Site]:
    async with trio.open_nursery() as nursery:
        yield Site(nursery, hub or Hub(), limits or ChannelLimits())
        nursery.cancel_scope.cancel()


def pull(scope: str = "main", size: int = 0) -> PullRequest:
    return PullRequest(scope, Cursor(), b"client", max_bytes=size)
