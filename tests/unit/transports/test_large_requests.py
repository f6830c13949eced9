"""Requests that are too large, or hold too much: refused before they are decoded, on every transport."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar, cast

import msgspec
import pytest
import trio

from atoma.contracts.codec import encode
from atoma.contracts.execution import WriteItemResult, WriteOptions, WriteRequest, WriteResult
from atoma.contracts.survey import CONTAINERS_MAX, UNCOUNTED_BYTES, VALUES_MAX
from atoma.contracts.sync import Mutation, PushReply, PushRequest
from atoma.errors import RemoteError
from atoma.ports import Channel, Peer, Principal, SyncService, Transport
from atoma.schema.expressions import Condition, col
from atoma.testing.queries import rows_of
from atoma_transports.calls.fairness import Fairness, Share
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.calls.requests import MESSAGEPACK, read_request
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.http.envelope import MSGPACK, SEPARATORS_MAX
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.protocol import QueryCall, RemoteOp, WriteCall
from atoma_transports.protocol.plans import encode_query
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.unit.transports.http.kit import JSON, Client
from tests.unit.transports.kit import Unasked

S = TypeVar("S", bound=msgspec.Struct)


@dataclass
class Host(Unasked):
    """Notes what reaches it."""

    asked: list[str] = field(default_factory=list)

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        return Principal("alice")

    def service(self, principal: Principal) -> SyncService:
        return cast("SyncService", self)

    async def write(self, request: WriteRequest) -> WriteResult:
        self.asked.append("write")
        return WriteResult("confirmed", tuple(WriteItemResult(entry.id, True) for entry in request.entries))

    async def push(self, request: PushRequest) -> PushReply:
        self.asked.append("push")
        return PushReply((), 0)


@asynccontextmanager
async def connected(kind: str, host: Host) -> AsyncGenerator[Channel]:
    network = MemoryNetwork()
    async with network.listen(host), open_server(host, "127.0.0.1:0") as address:
        transports: dict[str, Transport] = {
            "memory": MemoryTransport(network),
            "websocket": WebSocketTransport(f"ws://{address}/sync"),
            "grpc": GrpcTransport(f"grpc://{address}"),
            "http": HttpTransport(f"http://{address}"),
        }
        async with transports[kind].connect() as channel:
            yield channel


def write(value: object, rows: int = 1) -> WriteCall:
    ops = tuple(RemoteOp(n, "insert", "notes", f"id-{n}", values={"a": value}) for n in range(rows))
    return WriteCall(ops, "a key of mine", WriteOptions())


def query(where: Condition) -> QueryCall:
    return QueryCall((RemoteOp(0, "query", "notes", query=encode_query(rows_of("notes", where))),))


TOO_MUCH: dict[str, tuple[str, Callable[[], msgspec.Struct]]] = {
    "a large query": ("query", lambda: query(col("a") == "x" * 140_000)),
    "a large write": ("write", lambda: write("x" * 1_200_000)),
    "a large push": ("push", lambda: PushRequest(b"c" * 16, 1, (Mutation(1, b"x" * 1_200_000, b""),), b"")),
    "lists in a value": ("write", lambda: write([[]] * (2 * CONTAINERS_MAX))),
    "maps in a value": ("write", lambda: write([{}] * (2 * CONTAINERS_MAX))),
    "numbers in a value": ("write", lambda: write([1] * (VALUES_MAX + 1))),
    "lists in many values": ("write", lambda: write([[]] * 1_000, 60)),
    "mutations without end": ("push", lambda: PushRequest(b"c" * 16, 1, (Mutation(1, b"", b""),) * 30_000, b"")),
}
FITS: dict[str, tuple[str, Callable[[], msgspec.Struct]]] = {
    "a long text": ("write", lambda: write("x,[{:" * 200_000)),
    "a thousand rows": ("write", lambda: write("text", 1_000)),
    "a mutation of a megabyte": (
        "push",
        lambda: PushRequest(b"c" * 16, 1, (Mutation(1, b"\x90" * 1_048_576, b""),), b""),
    ),
    "256 mutations": ("push", lambda: PushRequest(b"c" * 16, 1, (Mutation(1, b"x" * 4_000, b"d" * 32),) * 256, b"")),
}
KINDS = ("memory", "websocket", "grpc", "http")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_too_much_reaches_nobody_and_the_connection_goes_on(kind: str) -> None:
    host = Host()
    async with connected(kind, host) as channel:
        for name, (method, make) in TOO_MUCH.items():
            with pytest.raises(RemoteError) as caught:
                await channel.call(method, make())
            assert (caught.value.remote_code, caught.value.remote_retryable) == ("TOO_LARGE", False), name
        assert host.asked == []
        await channel.call("write", write("a"))
        assert host.asked == ["write"]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_an_honest_client_sends_is_taken(kind: str) -> None:
    host = Host()
    async with connected(kind, host) as channel:
        for method, make in FITS.values():
            await channel.call(method, make())
    assert host.asked == [method for method, _ in FITS.values()]


def body_of(values: object) -> bytes:
    op = {"index": "0", "name": "insert", "store": "notes", "id": "i", "values": values}
    return json.dumps({"ops": [op], "idem": "k" * 8, "options": {}}, separators=(",", ":")).encode()


def batch_of(calls: int) -> bytes:
    """Calls that are small each."""
    message = {"ops": [{"index": "0", "name": "query", "store": "n", "query": {"plan": {"source": ["store", "n"]}}}]}
    parts = [{"id": str(n), "method": "query", "message": message} for n in range(calls)]
    return json.dumps({"version": "1", "id": "abcdefgh", "calls": parts}).encode()


def packed_batch(calls: int) -> bytes:
    message = msgspec.Raw(encode(write([1] * 200)))
    parts = [{"id": n, "method": "write", "message": message} for n in range(calls)]
    return encode({"version": 1, "id": "abcdefgh", "calls": parts})


BODIES: dict[str, tuple[str, str, bytes]] = {
    "values": ("/v1/write", JSON, body_of({f"c{n}": 1.5 for n in range(30_000)})),
    "brackets": ("/v1/write", JSON, b"[" + b"[]," * SEPARATORS_MAX + b"[]]"),
    "not even JSON": ("/v1/write", JSON, b"," * (SEPARATORS_MAX + 1)),
    "a batch": ("/v1/batch", JSON, batch_of(3_000)),
    "a batch, packed": ("/v1/batch", MSGPACK, packed_batch(600)),
    "a batch of very many": ("/v1/batch", MSGPACK, encode({"version": 1, "id": "abcdefgh", "calls": [
        {"id": n, "method": "query", "message": {}} for n in range(2_000)
    ]})),
    "not even MessagePack": ("/v1/write", MSGPACK, b"\x01" * (VALUES_MAX + 1)),
    "a long cancel": ("/v1/cancel", JSON, b'{"batch":"abcdefgh","calls":[' + b'"1",' * 9_000 + b'"1"]}'),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_holds_too_much_is_413_before_it_is_decoded(name: str) -> None:
    path, kind, body = BODIES[name]
    host = Host()
    async with open_server(host, "127.0.0.1:0") as address:
        port = int(address.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            answer = await Client(stream).ask("POST", path, body, content_type=kind)
            assert (answer.status, answer.code) == (413, "TOO_LARGE")
    assert host.asked == []


async def test_json_with_as_much_as_may_be_is_read() -> None:
    columns = {f"c{n}": "x,y" for n in range(SEPARATORS_MAX // 3 - 30)}
    host = Host()
    async with open_server(host, "127.0.0.1:0") as address:
        async with await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as stream:
            assert (await Client(stream).ask("POST", "/v1/write", body_of(columns))).status == 200
    assert host.asked == ["write"]


@dataclass
class Watched:
    """A format that notes how many requests are being read at the same time."""

    steps: int
    growth: float = 1.0
    reading: int = 0
    most: int = 0

    def decode(self, data: bytes, kind: type[S]) -> S:
        return MESSAGEPACK.decode(data, kind)

    def decode_in_steps(self, data: bytes, kind: type[S]) -> Generator[None, None, S]:
        self.reading += 1
        self.most = max(self.most, self.reading)
        for _ in range(self.steps):
            yield
        self.reading -= 1
        return self.decode(data, kind)


def share_of(subject: str) -> Share:
    share = Share(Fairness(), ChannelLimits())
    share.admit(subject)
    return share


async def test_large_requests_of_a_principal_are_read_one_after_the_other() -> None:
    large, small = encode(write("x" * UNCOUNTED_BYTES)), encode(write("x"))
    form, mine, yours = Watched(20), share_of("ada"), share_of("grace")
    async with trio.open_nursery() as nursery:
        for share in (mine, mine, mine, yours):
            nursery.start_soon(read_request, large, WriteCall, form, share)
        await trio.lowlevel.checkpoint()
        assert isinstance(await read_request(small, WriteCall, form, mine), WriteCall)  # waits for nobody
    assert form.most == 2


async def test_others_run_while_a_large_request_is_looked_through() -> None:
    data = encode(write([1] * 95_000))
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat)
        await trio.lowlevel.checkpoint()
        before = beats
        await read_request(data, WriteCall, MESSAGEPACK, share_of("ada"))
        assert beats - before >= 20
        nursery.cancel_scope.cancel()
