"""Who may do what, over every call, transport, store of a hub and principal, while what is forbidden is really there.

Every foreign row, id, scope, principal and answer holds a canary. A caller without the right gets a typed refusal, none of
the canaries stands in any byte that reaches it, and nothing at the hub has moved; the rightful caller gets them.
"""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio
import uvicorn
from msgspec.structs import replace

from atoma.bindings.asgi import HubApp
from atoma.contracts.codec import encode
from atoma.contracts.execution import OperationContext, QueryRequest, ResolveRequest, WriteOptions, WriteRequest
from atoma.contracts.mutations import MutationBody, Op, OpKind, Origin, Recovers
from atoma.contracts.presence import AppearRequest, PresenceChange, PresenceRequest
from atoma.contracts.query import Agg, Call, Col, Join, Named, Plan, Store
from atoma.contracts.sync import (
    Cursor,
    Mutation,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    Place,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotRequest,
)
from atoma.contracts.values import ErrorInfo, RowImage, remote_error
from atoma.errors import AtomaError, AuthenticationError, RemoteError, TokenExpired
from atoma.hub import Access, Caller, Hub, open_hub
from atoma.ports import Channel, Peer, Principal, SyncService
from atoma.ports.hub import HubStore
from atoma.query.normal import bind
from atoma.query.plans import by_ids, every_row
from atoma.query.shapes import Shapes
from atoma.schema import Schema, Shape, StoreSpec, param
from atoma.schema.expressions import Condition, col
from atoma.testing.queries import count_of, rows_of
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters import METHODS, PassingService, ServiceProxy
from atoma_transports.frames import client
from atoma_transports.grpc import GrpcTransport
from atoma_transports.grpc.channel import GrpcChannel
from atoma_transports.http import HttpTransport
from atoma_transports.http.documents.asking import VERBS
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.protocol.json_mapping import decode_json, encode_json, from_json
from atoma_transports.protocol.operations import ResolveCall
from atoma_transports.serving import open_server
from atoma_transports.serving.handlers import LANGUAGES
from atoma_transports.websocket import WebSocketTransport
from tests.unit.hub.homes import home_of
from tests.unit.hub.kit import Card

CANARY = "canary4711"


@dataclass(frozen=True)
class Note:
    id: str
    board: str
    title: str
    owner: str


VAULT, HIDDEN, OWN, NOTED = "vault", f"{CANARY}-scope", "commons", "noted"
OWNER, MALLORY, READER, FORMER = f"{CANARY}-owner", "mallory", "reader", "former"
CARDS = StoreSpec("cards", Card, scope="board")
NOTES = StoreSpec("notes", Note, scope="board", conflict="client_wins")
TITLED = Shape("titled", NOTES, col("title") >= param("title", str))
SCHEMA = Schema(CARDS, NOTES, shapes=[TITLED])
PART = (Shapes(SCHEMA).call(TITLED.of("x", title="")),)
OWNER_FILE, SECOND_FILE, OWN_FILE = b"file-of-the-owner", b"second-of-the-owner", b"file-of-the-caller"
SECRET_KEY = "key-of-the-owner"
OWNERS_SESSION = b"owners-presence!"
GONE = "gone"
CLASH = Op("create", "cards", "secret", {"title": CANARY, "lane": "todo", "rank": 0.0, "done": 0, "board": VAULT})
CLASH_AGAIN = replace(CLASH, kind="replace")
TOKENS = {OWNER: "token-owner", MALLORY: "token-mallory", READER: "token-reader", FORMER: "token-former"}
BESIDE_THE_OWNER = "token-beside-the-owner"
CONTEXT = OperationContext("trace")
SHOWN = [CANARY, *(base64.b64encode(b"." * lead + CANARY.encode())[4:-4].decode() for lead in range(3))]
"""The canary, and what its bytes look like as base64 at each of the three places they may begin at."""


@dataclass
class Verifier:
    """Knows the tokens, and the one of a second device of the owner's, which is good for ever.

    Attributes:
        seconds: How long the other tokens are good for.
        over: Whether they are good no longer.
    """

    seconds: float | None = None
    over: bool = False

    async def verify(self, token: str, peer: Peer) -> Principal:
        await trio.lowlevel.checkpoint()
        if token == BESIDE_THE_OWNER:
            return Principal(OWNER)
        if token == "token-expired" or self.over:
            raise TokenExpired("the token has expired")
        for subject, known in TOKENS.items():
            if token == known:
                return Principal(subject, expires_in_s=self.seconds)
        raise AuthenticationError("the token is not known here")


@dataclass
class TenantRules:
    """The owner has everything, a reader reads the vault, and everybody has the commons and what is noted, row by row."""

    revoked: bool = False

    def scope_access(self, principal: Principal, scope: str) -> Access:
        if principal.subject == OWNER or scope in (OWN, NOTED):
            return "write"
        if principal.subject == READER and scope == VAULT:
            return "read"
        if principal.subject == FORMER and scope == VAULT and not self.revoked:
            return "write"
        return "none"


@dataclass
class FirstEvent:
    """The first event of a stream, or the error that is its answer."""

    kind: type[msgspec.Struct]
    stream: trio.SocketStream
    check: Callable[[bytes], None]

    def __aiter__(self) -> FirstEvent:
        return self

    async def __anext__(self) -> msgspec.Struct:
        answer = b""
        async for data in self.stream:
            answer += data
            if f"event: {self.kind.__name__.lower()}".encode() in answer and answer.endswith(b"\n\n\r\n"):
                return from_json(msgspec.json.decode(answer.partition(b"data: ")[2].splitlines()[0]), self.kind)
        self.check(answer)
        raise StopAsyncIteration


class JsonChannel:
    """Calls by hand: one POST each, or one stream of events."""

    def __init__(self, address: str, token: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._token = token

    async def _ask(self, head: str, body: bytes = b"") -> trio.SocketStream:
        stream = await trio.open_tcp_stream(self._host, self._port)
        field = f"authorization: Bearer {self._token}\r\n" if self._token else ""
        await stream.send_all(f"{head} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n{field}".encode() + body)
        return stream

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        body = encode_json(message)
        async with await self._ask(f"POST /v1/{method}", self._fields(body) + body) as stream:
            answer = b"".join([data async for data in stream])
        self._check(answer)
        return decode_json(answer.partition(b"\r\n\r\n")[2], METHODS[method].reply)

    @asynccontextmanager
    async def stream(self, method: str, message: msgspec.Struct) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
        kind = METHODS[method].reply
        if isinstance(message, NotifyRequest):
            scopes = "&".join(f"scope={scope}" for scope in message.scopes)
            async with await self._ask(f"GET /v1/{method}?{scopes}", b"connection: close\r\n\r\n") as stream:
                yield FirstEvent(kind, stream, self._check)
            return
        body = encode_json(message)
        async with await self._ask(f"POST /v1/{method}", self._fields(body) + body) as stream:
            yield FirstEvent(kind, stream, self._check)

    def _fields(self, body: bytes) -> bytes:
        return f"connection: close\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    def _check(self, answer: bytes) -> None:
        if b"event: error" in answer:
            told = msgspec.json.decode(answer.partition(b"data: ")[2].splitlines()[0])
            kind = TokenExpired if told["code"] == TokenExpired.code else AuthenticationError
            raise kind(told["message"])
        status = int(answer.split()[1])
        if status != 200:
            body = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["error"]
            if status == 401:
                raise AuthenticationError(body["message"])
            raise remote_error(ErrorInfo(body["code"], body["message"], info=body.get("info", {})))


@dataclass
class Wire:
    """A way to the hub that keeps every byte which comes back."""

    open_channel: Callable[[str], Any]
    received: bytearray = field(default_factory=bytearray)

    @asynccontextmanager
    async def as_(self, token: str) -> AsyncGenerator[SyncService]:
        async with self.open_channel(token) as channel:
            yield ServiceProxy(cast("Channel", channel))


@asynccontextmanager
async def open_tap(target: str, received: bytearray) -> AsyncGenerator[str]:
    """An address that passes everything on to ``target`` and keeps what comes back."""
    host, _, port = target.rpartition(":")

    async def copy(source: trio.SocketStream, sink: trio.SocketStream, kept: bytearray | None) -> None:
        try:
            async for data in source:
                if kept is not None:
                    kept += data
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(sink)

    async def passed_on(near: trio.SocketStream) -> None:
        async with near, await trio.open_tcp_stream(host, int(port)) as far, trio.open_nursery() as both:
            both.start_soon(copy, near, far, None)
            await copy(far, near, received)
            both.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, passed_on, 0)
        chosen = next(item for item in listeners if item.socket.family == socket.AF_INET)
        yield f"127.0.0.1:{chosen.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


TRANSPORTS = ["memory", "websocket", "grpc", "http", "json"]
PLACES = [*TRANSPORTS, "asgi", "postgresql"]
"""Hubs on SQLite over each transport and in a web application, and one on PostgreSQL, in memory."""
NOT_ADMITTED = {"AUTH_EXPIRED", "UNAUTHENTICATED", "CHANNEL_BROKEN"}
"""What a call gets whose token is good no longer; or whose connection is not."""
every_place = pytest.mark.parametrize("place", PLACES)
every_way_in = pytest.mark.parametrize("place", PLACES[:-1])


@asynccontextmanager
async def open_wire(hub: Hub, transport: str) -> AsyncGenerator[Wire]:
    if transport == "memory":
        network = MemoryNetwork()
        async with network.listen(hub):
            yield Wire(lambda token: MemoryTransport(network, token=token).connect())
        return
    received = bytearray()
    async with open_server(hub, "127.0.0.1:0") as address, open_tap(address, received) as tapped:

        @asynccontextmanager
        async def by_hand(token: str) -> AsyncGenerator[JsonChannel]:
            yield JsonChannel(tapped, token)

        made: dict[str, Callable[[str], Any]] = {
            "websocket": lambda token: WebSocketTransport(f"ws://{tapped}/sync", token=token).connect(),
            "grpc": lambda token: GrpcTransport(tapped, token=token).connect(),
            "http": lambda token: HttpTransport(f"http://{tapped}", token=token).connect(),
            "json": by_hand,
        }
        yield Wire(made[transport], received)


@dataclass
class World:
    """A hub with what is forbidden, and a way to it.

    Attributes:
        wire: The way that is looked at.
        owner: The owner's, past the wire.
        hub: The hub, where it runs here.
    """

    wire: Wire
    owner: SyncService
    hub: Hub | None


@asynccontextmanager
async def open_world(place: str, rules: TenantRules, verifier: Verifier | None = None) -> AsyncGenerator[World]:
    verifier = verifier or Verifier()
    if place == "asgi":
        async with open_application(rules, verifier) as address:
            async with WebSocketTransport(f"ws://{address}/sync", token=BESIDE_THE_OWNER).connect() as beside:
                received = bytearray()
                async with open_tap(address, received) as tapped:
                    wire = Wire(
                        lambda token: WebSocketTransport(f"ws://{tapped}/sync", token=token).connect(), received
                    )
                    yield World(wire, ServiceProxy(beside), None)
        return
    with home_of(place, Path()) if place == "postgresql" else nullcontext() as home:
        store = home.store() if home else None
        async with open_settled(rules, verifier, store) as hub:
            async with open_wire(hub, "memory" if home else place) as wire:
                yield World(wire, hub.service(Principal(OWNER)), hub)


@asynccontextmanager
async def open_application(rules: TenantRules, verifier: Verifier) -> AsyncGenerator[str]:
    """The address of a web application with the hub in it, which a server runs in a thread."""
    app = HubApp(lambda: open_settled(rules, verifier))
    server = uvicorn.Server(uvicorn.Config(app, port=0, ws="wsproto", lifespan="on", log_level="critical"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, lambda: server.run())
        try:
            with trio.fail_after(60):
                while not server.started:
                    await trio.sleep(0.01)
            yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True


def pushed(client_id: bytes, *ops: Op, scope: str) -> PushRequest:
    body = encode(MutationBody(1, "idem", scope, 0, 1, 0, ops))
    return PushRequest(client_id, 1, (Mutation(1, body, hashlib.sha256(body).digest()),), b"")


def offering(proof: Recovers, *ops: Op, scope: str) -> PushRequest:
    """A row as it was in a lost history, of whoever was there when ``proof`` was given."""
    body = encode(MutationBody(1, "idem", scope, 1, 1, 0, ops, base_epoch=proof.epoch, recovers=proof))
    return PushRequest(OWN_FILE, 1, (Mutation(1, body, hashlib.sha256(body).digest()),), b"")


def opening(client_id: bytes, *scopes: str, **also: Any) -> OpenRequest:
    return OpenRequest(client_id, 1, 1, SCHEMA.hash, scopes, **also)


def renumbered(origin: Origin) -> PushRequest:
    """A mutation that says it was called ``origin`` before: its outcome would be that one's."""
    op = Op("upsert", "cards", "mine", {"title": "x"}, {})
    body = encode(MutationBody(1, "idem", OWN, 0, 1, 0, (op,), origin=origin))
    return PushRequest(OWN_FILE, 1, (Mutation(1, body, hashlib.sha256(body).digest()),), b"")


def written(*entries: Op, key: str, reads: tuple[tuple[str, str, int | None], ...] = ()) -> WriteRequest:
    return WriteRequest(entries, WriteOptions(atomic=True, reads=reads), CONTEXT, key)


def image(title: str, scope: str) -> dict[str, Any]:
    return {"title": title, "lane": "todo", "rank": 0.0, "done": 0, "board": scope}


def entry(kind: OpKind, id: str, scope: str, **values: Any) -> Op:
    return Op(kind, "cards", id, values, scope=scope)


async def first_hint(service: SyncService, scopes: Sequence[str]) -> object:
    with trio.fail_after(60):
        async with service.notify(NotifyRequest(tuple(scopes))) as hints:
            return await anext(hints)


async def who_is_there(service: SyncService, scope: str) -> object:
    with trio.fail_after(60):
        async with service.presence(PresenceRequest(scope, b"m" * 16, 1, "x")) as changes:
            change = await anext(changes)
            assert isinstance(change, PresenceChange)
            return change


def noted(kind: OpKind, id: str = "note", **values: Any) -> Op:
    return Op(kind, "notes", id, {**values, "board": NOTED} if values and kind != "patch" else values, scope=NOTED)


def own_notes(caller: Caller) -> Condition:
    return col("owner") == caller.subject


BESIDE = bind(
    Plan(
        Store("cards"),
        joins=(Join("inner", Store("notes"), Call("eq", (Col(0, "id"), Col(1, "id")))),),
        columns=(Named("title", Col(1, "title")),),
    ),
    SCHEMA.store,
)
LAST = bind(Plan(Store("notes"), columns=(Named("last", Agg("max", Col(0, "title"))),)), SCHEMA.store)
Ask = Callable[[SyncService], Awaitable[object]]
REFUSED: dict[str, tuple[Ask, set[str]]] = {
    "open: a foreign file": (lambda s: s.open(opening(OWNER_FILE, OWN)), {"WRONG_HUB"}),
    "open: a foreign scope": (lambda s: s.open(opening(OWN_FILE, VAULT)), {"scope PERMISSION_DENIED"}),
    "push: a foreign file": (
        lambda s: s.push(pushed(OWNER_FILE, Op("delete", "cards", "secret"), scope=VAULT)),
        {"WRONG_HUB"},
    ),
    "push: create in a foreign scope": (
        lambda s: s.push(pushed(OWN_FILE, Op("upsert", "cards", "secret", {"title": "x"}, {}), scope=VAULT)),
        {"outcome DENIED"},
    ),
    "push: change a foreign row": (
        lambda s: s.push(pushed(OWN_FILE, Op("patch", "cards", "secret", {"title": "x"}), scope=VAULT)),
        {"outcome DENIED"},
    ),
    "push: delete a foreign row": (
        lambda s: s.push(pushed(OWN_FILE, Op("delete", "cards", "secret"), scope=VAULT)),
        {"outcome DENIED"},
    ),
    "pull: a foreign scope": (lambda s: s.pull(PullRequest(VAULT, Cursor(), OWN_FILE)), {"PERMISSION_DENIED"}),
    "pull: outcomes of a foreign file": (lambda s: s.pull(PullRequest(OWN, Cursor(), SECOND_FILE, 0)), {"nothing"}),
    "snapshot: a foreign scope": (lambda s: s.snapshot(SnapshotRequest(VAULT, OWN_FILE)), {"PERMISSION_DENIED"}),
    "notify: a foreign scope": (lambda s: first_hint(s, [VAULT]), {"PERMISSION_DENIED"}),
    "notify: a foreign scope behind an own one": (lambda s: first_hint(s, [OWN, VAULT]), {"PERMISSION_DENIED"}),
    "presence: a foreign scope": (lambda s: who_is_there(s, VAULT), {"PERMISSION_DENIED"}),
    "appear: in a foreign scope": (
        lambda s: s.appear(AppearRequest(VAULT, OWNERS_SESSION, 9, "gone")),
        {"PERMISSION_DENIED"},
    ),
    "query: everything": (lambda s: s.query(QueryRequest(rows_of("cards"), CONTEXT)), {"nothing"}),
    "query: by id": (lambda s: s.query(QueryRequest(by_ids("cards", ("secret",)), CONTEXT)), {"nothing"}),
    "query: count": (lambda s: s.query(QueryRequest(count_of("cards"), CONTEXT)), {"nothing"}),
    "query: by scope": (
        lambda s: s.query(QueryRequest(rows_of("cards", col("board") == VAULT), CONTEXT)),
        {"PERMISSION_DENIED"},
    ),
    "query: any scope but the own": (
        lambda s: s.query(QueryRequest(rows_of("cards", col("board") != OWN), CONTEXT)),
        {"nothing"},
    ),
    "write: insert": (
        lambda s: s.write(written(Op("create", "cards", "n", image("x", VAULT), scope=VAULT), key="k1")),
        {"item DENIED"},
    ),
    "write: update": (
        lambda s: s.write(written(entry("patch", "secret", VAULT, title="x"), key="k2")),
        {"item DENIED"},
    ),
    "write: update, scope unsaid": (
        lambda s: s.write(written(entry("patch", "secret", "", title="x"), key="k3")),
        {"item NOT_FOUND"},
    ),
    "write: upsert, scope unsaid": (
        lambda s: s.write(written(entry("upsert", "secret", "", title="x", board=VAULT), key="k4")),
        {"item DENIED"},
    ),
    "write: delete, scope unsaid": (
        lambda s: s.write(written(entry("delete", "secret", ""), key="k5")),
        {"item NOT_FOUND"},
    ),
    "write: delete": (lambda s: s.write(written(entry("delete", "secret", VAULT), key="k6")), {"item DENIED"}),
    "write: what was read elsewhere": (
        lambda s: s.write(written(entry("delete", "secret", VAULT), key="k7", reads=(("cards", "secret", 1),))),
        {"item DENIED"},
    ),
    "query: rows of others": (lambda s: s.query(QueryRequest(rows_of("notes"), CONTEXT)), {"nothing"}),
    "query: a row of others by id": (
        lambda s: s.query(QueryRequest(by_ids("notes", ("note", f"{CANARY}-note")), CONTEXT)),
        {"nothing"},
    ),
    "query: how many rows of others": (lambda s: s.query(QueryRequest(count_of("notes"), CONTEXT)), {"nothing"}),
    "query: rows beside rows of others": (lambda s: s.query(QueryRequest(BESIDE, CONTEXT)), {"nothing"}),
    "query: the last title of others": (lambda s: s.query(QueryRequest(LAST, CONTEXT)), {"nothing"}),
    "write: change a row of others": (lambda s: s.write(written(noted("patch", title="x"), key="n1")), {"item DENIED"}),
    "write: delete a row of others": (lambda s: s.write(written(noted("delete"), key="n2")), {"item DENIED"}),
    "write: a row over one of others": (
        lambda s: s.write(written(noted("replace", title="x", owner=MALLORY), key="n3")),
        {"item DENIED"},
    ),
    "write: a row in the name of others": (
        lambda s: s.write(written(noted("create", id="n", title="x", owner=OWNER), key="n4")),
        {"item DENIED"},
    ),
    "push: a row of others": (
        lambda s: s.push(pushed(OWN_FILE, Op("patch", "notes", "note", {"title": "x"}), scope=NOTED)),
        {"outcome DENIED"},
    ),
    "pull: rows of others": (lambda s: s.pull(PullRequest(NOTED, Cursor(), OWN_FILE)), {"something"}),
    "snapshot: rows of others": (lambda s: s.snapshot(SnapshotRequest(NOTED, OWN_FILE)), {"nothing"}),
    "pull: rows of others in a shape": (
        lambda s: s.pull(PullRequest(NOTED, Cursor(), OWN_FILE, shapes=PART)),
        {"something"},
    ),
    "snapshot: rows of others in a shape": (
        lambda s: s.snapshot(SnapshotRequest(NOTED, OWN_FILE, shapes=PART)),
        {"nothing"},
    ),
    "snapshot: a part of a foreign scope": (
        lambda s: s.snapshot(SnapshotRequest(VAULT, OWN_FILE, shapes=PART)),
        {"PERMISSION_DENIED"},
    ),
    "snapshot: a shape of one's own making": (
        lambda s: s.snapshot(SnapshotRequest(NOTED, OWN_FILE, shapes=(PART[0][:-1] + b"x",))),
        {"SHAPE_UNKNOWN"},
    ),
    "notify: where others write": (lambda s: first_hint(s, [NOTED]), {"something"}),
    "push: delete a row of others": (
        lambda s: s.push(pushed(OWN_FILE, Op("delete", "notes", "note"), scope=NOTED)),
        {"outcome DENIED"},
    ),
    "push: a row over one of others": (
        lambda s: s.push(
            pushed(OWN_FILE, Op("upsert", "notes", "note", {"title": "x", "owner": MALLORY}, {}), scope=NOTED)
        ),
        {"outcome DENIED"},
    ),
    "push: what a deleted row of others was": (
        lambda s: s.push(pushed(OWN_FILE, Op("patch", "notes", GONE, {"owner": MALLORY}), scope=NOTED)),
        {"outcome NOT_FOUND"},
    ),
    "resolve: a foreign key": (lambda s: s.resolve(ResolveRequest(SECRET_KEY, CONTEXT)), {"abandoned"}),
}


@dataclass(frozen=True)
class Carried:
    """What the owner has in hand: places in scopes, and what was said about mutations.

    Attributes:
        cursors: Where the owner is, by scope.
        proofs: That the owner was there, by scope: with one, an offer of what a hub has lost counts.
        tokens: A snapshot token that goes on, by scope.
        digest: Digest of the mutation of the owner's file.
    """

    cursors: Mapping[str, Cursor]
    proofs: Mapping[str, Recovers]
    tokens: Mapping[str, bytes]
    digest: bytes


async def carried(owner: SyncService) -> Carried:
    """What a thief may have found of the owner's."""
    shared = (Op("create", "cards", f"own {n}", image("everybody's", OWN), scope=OWN) for n in range(2))
    await owner.write(written(*shared, key="own"))
    cursors: dict[str, Cursor] = {}
    proofs: dict[str, Recovers] = {}
    tokens: dict[str, bytes] = {}
    for scope in (VAULT, HIDDEN, OWN, NOTED):
        page = await owner.pull(PullRequest(scope, Cursor(), OWNER_FILE))
        cursors[scope] = page.end
        proofs[scope] = Recovers(page.end.epoch, page.end.seq, page.end.hash, page.proof)
        tokens[scope] = (await owner.snapshot(SnapshotRequest(scope, OWNER_FILE, max_rows=1))).token
    return Carried(cursors, proofs, tokens, pushed(OWNER_FILE, CLASH, scope=VAULT).mutations[0].digest)


STOLEN: dict[str, tuple[Callable[[Carried], Ask], set[str]]] = {
    "snapshot: a foreign token": (
        lambda c: lambda s: s.snapshot(SnapshotRequest(VAULT, OWN_FILE, c.tokens[VAULT])),
        {"PERMISSION_DENIED"},
    ),
    "snapshot: a foreign token for the own scope": (
        lambda c: lambda s: s.snapshot(SnapshotRequest(OWN, OWN_FILE, c.tokens[OWN])),
        {"PERMISSION_DENIED"},
    ),
    "snapshot: a foreign scope's token for the own scope": (
        lambda c: lambda s: s.snapshot(SnapshotRequest(OWN, OWN_FILE, c.tokens[VAULT])),
        {"PERMISSION_DENIED"},
    ),
    "pull: a foreign cursor": (
        lambda c: lambda s: s.pull(PullRequest(VAULT, replace(c.cursors[VAULT], seq=0, hash=b""), OWN_FILE)),
        {"PERMISSION_DENIED"},
    ),
    "pull: a cursor of somebody who sees other rows": (
        lambda c: lambda s: s.pull(PullRequest(NOTED, c.cursors[NOTED], OWN_FILE)),
        {"VIEW_CHANGED"},
    ),
    "snapshot: a token of somebody who sees other rows": (
        lambda c: lambda s: s.snapshot(SnapshotRequest(NOTED, OWN_FILE, c.tokens[NOTED])),
        {"PERMISSION_DENIED"},
    ),
    "pull: a foreign scope's cursor in the own scope": (
        lambda c: lambda s: s.pull(PullRequest(OWN, c.cursors[VAULT], OWN_FILE)),
        {"LINEAGE_MISMATCH", "CURSOR_AHEAD"},
    ),
    "open: places in foreign scopes": (
        lambda c: (
            lambda s: s.open(
                opening(OWN_FILE, VAULT, places=(Place(VAULT, c.cursors[VAULT]), Place(HIDDEN, c.cursors[HIDDEN])))
            )
        ),
        {"scope PERMISSION_DENIED"},
    ),
    "open: verdicts of a foreign file": (
        lambda c: lambda s: s.open(opening(OWNER_FILE, OWN, asked=(1,))),
        {"WRONG_HUB"},
    ),
    "push: an offer of a foreign row": (
        lambda c: lambda s: s.push(offering(c.proofs[VAULT], CLASH_AGAIN, scope=VAULT)),
        {"outcome DENIED"},
    ),
    "push: an offer over a row of others": (
        lambda c: (
            lambda s: s.push(offering(c.proofs[NOTED], noted("replace", "note", title="x", owner=MALLORY), scope=NOTED))
        ),
        {"outcome DENIED"},
    ),
    "push: an offer in the name of others": (
        lambda c: (
            lambda s: s.push(offering(c.proofs[NOTED], noted("replace", "lost", title="x", owner=OWNER), scope=NOTED))
        ),
        {"outcome DENIED"},
    ),
    "push: an offer that a foreign row is gone": (
        lambda c: lambda s: s.push(offering(c.proofs[VAULT], Op("delete", "cards", "secret"), scope=VAULT)),
        {"outcome DENIED"},
    ),
    "push: an offer of nothing, for a foreign scope": (
        lambda c: lambda s: s.push(offering(replace(c.proofs[VAULT], last=True), scope=VAULT)),
        {"outcome DENIED"},
    ),
    "push: a mutation that was a foreign one": (
        lambda c: lambda s: s.push(renumbered(Origin(OWNER_FILE, 1, c.digest))),
        {"applied"},
    ),
}
"""What can be tried with something of the owner's that was found; each is refused, or decided as one's own."""
READS = ("open: a foreign scope", "pull: a foreign scope", "snapshot: a foreign scope", "notify", "presence", "query")


def told(answer: Any) -> str:
    """What an answer amounts to, in one word."""
    if hasattr(answer, "limits"):
        return next((f"scope {status.error.code}" for status in answer.scopes if status.error), "open")
    if hasattr(answer, "outcomes") and hasattr(answer, "last_mid"):
        assert answer.error is None
        return next((f"outcome {o.error.code}" for o in answer.outcomes if o.error), "applied")
    if hasattr(answer, "abandoned"):
        return "abandoned" if answer.abandoned else "answered"
    if hasattr(answer, "items"):
        return next((f"item {item.error.code}" for item in answer.items if item.error), "written")
    if any(value for row in getattr(answer, "tuples", ()) for value in row):  # a count of none tells nothing
        return "something"
    return (
        "something"
        if any(getattr(answer, name, None) for name in ("rows", "stores", "outcomes", "head", "here", "known"))
        else "nothing"
    )


async def outcome(ask: Ask, service: SyncService, told_of: list[str]) -> str:
    try:
        answer = await ask(service)
    except RemoteError as error:
        told_of.append(repr((str(error), error.info)))
        return error.remote_code
    except AtomaError as error:
        told_of.append(repr((str(error), vars(error))))
        return error.code
    told_of.append(repr(answer))
    return told(answer)


@asynccontextmanager
async def open_settled(rules: TenantRules, verifier: Verifier, store: HubStore | None = None) -> AsyncGenerator[Hub]:
    """A hub whose owner has rows, a pending scope, a device with an outcome, and the answer of a direct write."""
    apart = {"notes": own_notes}
    store = store or SQLiteHubStore(":memory:")
    async with open_hub(SCHEMA, store, verifier=verifier, rules=rules, row_rules=apart) as hub:
        owner = hub.service(Principal(OWNER))
        for number, (id, scope) in enumerate((("note", NOTED), (f"{CANARY}-note", NOTED), ("secret", VAULT))):
            note: RowImage = {"title": f"{CANARY}-{number}", "owner": OWNER, "board": scope}
            await owner.write(written(Op("create", "notes", id, note, scope=scope), key=f"note {number}"))
        for number, (id, scope) in enumerate((("secret", VAULT), (f"{CANARY}-id", VAULT), ("other", HIDDEN))):
            await owner.write(
                written(
                    Op("create", "cards", id, image(f"{CANARY}-{number}", scope), scope=scope), key=f"made {number}"
                )
            )
        gone: RowImage = {"title": f"{CANARY}-gone", "owner": OWNER, "board": NOTED}
        await owner.write(written(Op("create", "notes", GONE, gone, scope=NOTED), key="note made"))
        await owner.write(written(Op("delete", "notes", GONE, scope=NOTED), key="note gone"))
        await owner.write(written(entry("patch", "secret", VAULT, lane=f"{CANARY}-lane"), key=SECRET_KEY))
        reply = await owner.push(pushed(OWNER_FILE, CLASH, scope=VAULT))  # a conflict, kept
        assert reply.outcomes[0].error is not None
        wrong = Op("create", "cards", "x", {**image("x", OWN), "rank": f"{CANARY}-value"})
        reply = await owner.push(pushed(SECOND_FILE, wrong, scope=OWN))  # its outcome lies in a scope that all may read
        assert reply.outcomes[0].error is not None
        async with owner.presence(PresenceRequest(VAULT, OWNERS_SESSION, 1, f"{CANARY}-state")):
            yield hub


async def everything(owner: SyncService) -> object:
    """All that the owner sees, as the hub has it."""
    rows = (await owner.query(QueryRequest(rows_of("cards"), CONTEXT))).rows
    heads = [(await owner.pull(PullRequest(scope, Cursor(), OWNER_FILE, 0))) for scope in (VAULT, HIDDEN)]
    return sorted(rows, key=lambda row: row.id), heads


def leaked(told_of: list[str], received: bytes | bytearray) -> list[str]:
    texts = ["\n".join(told_of), received.decode("latin-1")]
    return [shown for shown in SHOWN for text in texts if shown in text]


@every_place
async def test_what_is_not_held_is_refused_and_nothing_of_it_is_seen(place: str) -> None:
    rules = TenantRules()
    async with open_world(place, rules) as world:
        wire, before = world.wire, await everything(world.owner)
        async with wire.as_(TOKENS[OWNER]) as owner, owner.notify(NotifyRequest((VAULT,))) as hints:
            await anext(hints)
            for subject in (MALLORY, FORMER):
                rules.revoked = False
                async with wire.as_(TOKENS[subject]) as service:
                    if subject == FORMER:  # it may, when it comes, and has lost the right when it asks
                        assert (await service.query(QueryRequest(rows_of("cards"), CONTEXT))).rows
                    rules.revoked = True
                    wire.received.clear()
                    for number, (name, (ask, wanted)) in enumerate(REFUSED.items()):
                        if name.startswith("push") and "foreign file" not in name:
                            ask = renamed(ask, f"{subject}-{number}".encode())
                        elif name.startswith("open: a foreign scope"):
                            ask = renamed(ask, f"{subject}-open-file".encode())
                        told_of: list[str] = []
                        assert await outcome(ask, service, told_of) in wanted, (subject, name)
                        assert leaked(told_of, wire.received) == [], (subject, name)
            assert await everything(world.owner) == before
            rows = (await owner.query(QueryRequest(rows_of("cards"), CONTEXT))).rows  # the owner's session goes on
            assert len(rows) == 3


def renamed(ask: Ask, client_id: bytes) -> Ask:
    """``ask`` from a device file of its own: an outcome is kept for ever, and would be answered again."""

    class Renaming(PassingService):
        async def push(self, request: PushRequest) -> PushReply:
            return await super().push(replace(request, client_id=client_id))

        async def open(self, request: OpenRequest) -> OpenReply:
            return await super().open(replace(request, client_id=client_id))

    return lambda service: ask(Renaming(service))


@every_place
async def test_what_was_found_of_somebody_elses_is_of_no_use(place: str) -> None:
    """Tokens of snapshots, cursors, numbers of mutations: whoever has them gets no more than without."""
    async with open_world(place, TenantRules(revoked=True)) as world:
        wire, owner = world.wire, world.owner
        found = await carried(owner)
        for subject in (MALLORY, FORMER):
            async with wire.as_(TOKENS[subject]) as service:
                for number, (name, (made, wanted)) in enumerate(STOLEN.items()):
                    ask = made(found)
                    if name.startswith("push"):
                        ask = renamed(ask, f"{subject}-stolen-{number}".encode())
                    told_of: list[str] = []
                    wire.received.clear()
                    assert await outcome(ask, service, told_of) in wanted, (subject, name, told_of)
                    assert leaked(told_of, wire.received) == [], (subject, name)
        verdicts = (await owner.open(opening(OWNER_FILE, VAULT, asked=(1,)))).verdicts
        assert leaked([repr(verdicts)], b""), "and the owner is told"
        again = await owner.snapshot(SnapshotRequest(OWN, OWNER_FILE, found.tokens[OWN]))
        assert again.stores
        async with wire.as_(TOKENS[OWNER]) as service:
            for number, (name, (made, _)) in enumerate(STOLEN.items()):
                if "an offer" in name and "over a row" not in name:
                    ask = renamed(made(found), f"owner-offer-{number}".encode())
                    assert await outcome(ask, service, []) in ("applied", "outcome HUB_LOST_DATA"), name


@pytest.mark.parametrize("transport", ["memory", "websocket", "grpc", "json"])
async def test_what_an_operator_does_no_client_can_ask_for(transport: str) -> None:
    """Whatever name it is called by, over the wire there is the protocol and nothing else."""
    async with open_world(transport, TenantRules()) as world:
        wire, hub = world.wire, world.hub
        assert hub is not None
        async with wire.open_channel(TOKENS[OWNER]) as channel:
            for method in (
                "sessions",
                "end",
                "registry",
                "compact",
                "new_epoch",
                "authenticate",
                "service",
                "__init__",
            ):
                with pytest.raises(AtomaError) as refused:
                    await asked_for(channel, method)
                assert getattr(refused.value, "remote_code", "UNIMPLEMENTED") == "UNIMPLEMENTED", method
                assert "UNIMPLEMENTED" in str(refused.value), method
            await ServiceProxy(channel).query(QueryRequest(every_row("cards"), CONTEXT))
            assert {session.subject for session in hub.sessions()} <= {OWNER}, "and the session goes on"


async def asked_for(channel: Any, method: str) -> object:
    """Call what no client of ours would: past its own table of methods."""
    if isinstance(channel, GrpcChannel):
        return await channel.ask(method, b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "METHODS", {**METHODS, method: METHODS["resolve"]})
        return await channel.call(method, ResolveCall(OWNER))


@every_way_in
async def test_a_stream_ends_with_its_token_and_no_call_is_answered_after_that(place: str) -> None:
    """Hints are all that a stream shows; after the end of the token there is no call that its owner is answered."""
    verifier = Verifier()
    async with open_world(place, TenantRules(), verifier) as world:
        before = await everything(world.owner)
        for seconds in (0.5, 5.0, 50.0):  # the first one is enough, unless the machine is slow
            verifier.seconds = seconds
            async with world.wire.as_(TOKENS[OWNER]) as service:
                seen, end = await hints_until_the_end(service)
                assert end == "AUTH_EXPIRED"
                if not seen:
                    continue
                verifier.over = True  # where every call brings its token, it is looked at again
                world.wire.received.clear()
                told_of: list[str] = []
                for name, (ask, _) in REFUSED.items():
                    assert await outcome(ask, service, told_of) in NOT_ADMITTED, name
                assert leaked(told_of, world.wire.received) == []
                break
        assert verifier.over, "it showed something before"
        assert await everything(world.owner) == before


async def hints_until_the_end(service: SyncService) -> tuple[list[object], str]:
    """What a stream showed, and the code of the error with which it ended."""
    seen: list[object] = []
    with trio.fail_after(120), pytest.raises(AtomaError) as ended:
        async with service.notify(NotifyRequest((OWN,))) as hints:
            async for hint in hints:
                seen.append(hint)
    return seen, ended.value.code


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_session_that_the_hub_has_ended_is_answered_no_call(transport: str) -> None:
    verifier = Verifier()
    async with open_world(transport, TenantRules(), verifier) as world, world.wire.as_(TOKENS[OWNER]) as service:
        assert world.hub is not None
        before = await everything(world.owner)
        assert await outcome(REFUSED["query: by id"][0], service, []) == "something"
        verifier.over = True
        await world.hub.end(OWNER, reason="the token was stolen")
        world.wire.received.clear()
        told_of: list[str] = []
        for name, (ask, _) in REFUSED.items():
            assert await outcome(ask, service, told_of) in {"SESSION_ENDED", *NOT_ADMITTED}, name
        assert leaked(told_of, world.wire.received) == []
        assert await everything(world.owner) == before


@every_place
async def test_a_reader_changes_nothing(place: str) -> None:
    async with open_world(place, TenantRules()) as world:
        wire, before = world.wire, await everything(world.owner)
        async with wire.as_(TOKENS[READER]) as service:
            for number, (name, (ask, wanted)) in enumerate(REFUSED.items()):
                if name.startswith("push") and "foreign file" not in name:
                    got = await outcome(renamed(ask, b"reader-%d" % number), service, [])
                    assert got in wanted, name
                elif name.startswith("write"):
                    assert await outcome(ask, service, []) == "item DENIED", name
            told_of: list[str] = []
            for name, (ask, _) in REFUSED.items():
                if name.startswith(READS) and "behind" not in name and "of others" not in name:
                    assert await outcome(ask, service, told_of) in ("open", "something"), name
            assert leaked(told_of, b""), "a reader reads"
            assert f"{CANARY}-scope" not in "".join(told_of)
        assert await everything(world.owner) == before


@every_way_in
@pytest.mark.parametrize("token", ["", "token-wrong", "token-expired"], ids=["none", "wrong", "expired"])
async def test_nobody_in_particular_gets_nothing(place: str, token: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    wanted = {"AUTH_EXPIRED", "UNAUTHENTICATED"} if token == "token-expired" else {"UNAUTHENTICATED"}
    async with open_world(place, TenantRules()) as world:
        wire, before = world.wire, await everything(world.owner)
        for name, (ask, _) in REFUSED.items():
            told_of: list[str] = []
            try:
                async with wire.as_(token) as service:
                    code = await outcome(ask, service, told_of)
            except AtomaError as error:
                code = error.code
                told_of.append(repr((str(error), vars(error))))
            assert code in wanted, (name, code)
            assert leaked(told_of, wire.received) == [], name
            told_of += [wire.received.decode("latin-1"), caplog.text]
            assert "token-" not in "".join(told_of), "a token is in no error, answer or log"
        assert await everything(world.owner) == before


@every_place
async def test_the_owner_is_answered_and_the_canaries_are_seen(place: str) -> None:
    """Without this, a matrix in which nothing is ever found would pass."""
    expected = {"open": "open", "push": "applied", "pull": "something", "snapshot": "something", "notify": "something"}
    expected |= {
        "presence": "something",
        "appear": "something",
        "query": "something",
        "write": "written",
        "resolve": "answered",
    }
    async with open_world(place, TenantRules()) as world:
        wire = world.wire
        async with wire.as_(TOKENS[OWNER]) as owner:
            for name in (
                "query: everything",
                "query: by id",
                "query: rows of others",
                "query: a row of others by id",
                "query: rows beside rows of others",
                "query: the last title of others",
                "presence: a foreign scope",
                "pull: a foreign scope",
                "pull: rows of others",
                "snapshot: rows of others",
                "pull: outcomes of a foreign file",
                "resolve: a foreign key",
            ):
                told_of: list[str] = []
                wire.received.clear()
                assert await outcome(REFUSED[name][0], owner, told_of) == expected[name.partition(":")[0]]
                assert leaked(told_of, b""), name
                assert place in ("memory", "postgresql") or leaked([], wire.received), name
            for name in ("snapshot: a foreign scope", "notify: a foreign scope", "open: a foreign scope"):
                assert await outcome(REFUSED[name][0], owner, []) == expected[name.partition(":")[0]], name
            assert await outcome(REFUSED["appear: in a foreign scope"][0], owner, []) == expected["appear"]
            assert await outcome(REFUSED["query: how many rows of others"][0], owner, []) == "something"
            assert await outcome(REFUSED["write: update"][0], owner, []) == "written"
            assert await outcome(REFUSED["write: change a row of others"][0], owner, []) == "written"
            assert await outcome(REFUSED["push: change a foreign row"][0], owner, []) == "applied"


def test_every_method_of_the_service_and_every_language_of_a_port_is_in_the_matrix() -> None:
    assert {name.partition(":")[0] for name in REFUSED} == METHODS.keys()
    assert LANGUAGES.keys() <= set(TRANSPORTS)


AT_VAULT, AT_NOTED, AT_OWN = (f"?scope={scope}" for scope in (VAULT, NOTED, OWN))


def changed(id: str, assumed: object = None, **values: Any) -> dict[str, Any]:
    return {"rows": [{"assumedMasterState": assumed, "newDocumentState": {"id": id, **values}}]}


SECRET = {"id": "secret", "title": f"{CANARY}-0", "lane": f"{CANARY}-lane", "rank": 0.0, "done": False, "board": VAULT}
NOTE = {"id": "note", "title": f"{CANARY}-0", "owner": OWNER, "board": NOTED}
DOCUMENTS: dict[str, tuple[str, object, set[str]]] = {
    "pull: a foreign scope": (f"cards/pull{AT_VAULT}", {}, {"PERMISSION_DENIED"}),
    "pull: which ids a foreign scope has": (f"cards/pull{AT_VAULT}", {"have": ["secret"]}, {"PERMISSION_DENIED"}),
    "pull: rows of others": (f"notes/pull{AT_NOTED}", {}, {"nothing"}),
    "pull: whether a row of others is there": (f"notes/pull{AT_NOTED}", {"have": ["note"]}, {"gone"}),
    "push: a foreign scope": (f"cards/push{AT_VAULT}", changed("n", title="x", board=VAULT), {"PERMISSION_DENIED"}),
    "push: a foreign row": (f"cards/push{AT_VAULT}", changed("secret", SECRET, title="x"), {"PERMISSION_DENIED"}),
    "push: delete a foreign row": (
        f"cards/push{AT_VAULT}",
        changed("secret", SECRET, _deleted=True),
        {"PERMISSION_DENIED"},
    ),
    "push: a foreign scope in the row": (f"cards/push{AT_OWN}", changed("n", title="x", board=VAULT), {"INVALID"}),
    "push: change a row of others": (
        f"notes/push{AT_NOTED}",
        changed("note", NOTE, title="x", owner=OWNER, board=NOTED),
        {"conflict"},
    ),
    "push: a row over one of others": (f"notes/push{AT_NOTED}", changed("note", title="x", owner=MALLORY), {"DENIED"}),
    "push: a row in the name of others": (f"notes/push{AT_NOTED}", changed("n", title="x", owner=OWNER), {"DENIED"}),
    "stream: a foreign scope": (f"cards/stream{AT_VAULT}", None, {"PERMISSION_DENIED"}),
}
"""What can be tried with documents, of which each is refused to whoever is not the owner, or tells nothing."""


@asynccontextmanager
async def open_documents(hub: Hub) -> AsyncGenerator[tuple[Callable[[str, str, object], Awaitable[str]], bytearray]]:
    """A way to ask for documents, which gives an answer in one word, and every byte that has come back."""
    received = bytearray()
    async with open_server(hub, "127.0.0.1:0") as address, open_tap(address, received) as tapped:

        async def asked(token: str, path: str, body: object) -> str:
            data = b"" if body is None else msgspec.json.encode(body)
            head = f"{'GET' if body is None else 'POST'} /v1/docs/{path} HTTP/1.1\r\nhost: {tapped}\r\n"
            head += f"authorization: Bearer {token}\r\n" if token else ""
            head += f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
            host, _, port = tapped.rpartition(":")
            answer = b""
            with trio.fail_after(60):
                async with await trio.open_tcp_stream(host, int(port)) as stream:
                    await stream.send_all(head.encode() + data)
                    async for part in stream:
                        answer += part
                        if b"event: resync" in answer:
                            return "something"
            return in_a_word(msgspec.json.decode(answer.partition(b"\r\n\r\n")[2]))

        yield asked, received


def in_a_word(told: Any) -> str:
    if "error" in told:
        return str(told["error"]["code"])
    if "refused" in told:
        return next((each["error"]["code"] for each in told["refused"]), "conflict" if told["conflicts"] else "written")
    if not told["documents"]:
        return "nothing"
    return "gone" if all(each["_deleted"] for each in told["documents"]) else "something"


@pytest.mark.parametrize("subject", [MALLORY, FORMER])
async def test_documents_are_no_way_around(subject: str) -> None:
    async with open_settled(TenantRules(revoked=True), Verifier()) as hub, open_documents(hub) as (asked, received):
        before = await everything(hub.service(Principal(OWNER)))
        for name, (path, body, wanted) in DOCUMENTS.items():
            assert await asked(TOKENS[subject], path, body) in wanted, name
            assert leaked([], received) == [], name
        assert await everything(hub.service(Principal(OWNER))) == before


async def test_documents_are_pulled_by_a_reader_who_changes_nothing() -> None:
    async with open_settled(TenantRules(), Verifier()) as hub, open_documents(hub) as (asked, received):
        before = await everything(hub.service(Principal(OWNER)))
        for name, (path, body, wanted) in DOCUMENTS.items():
            told = await asked(TOKENS[READER], path, body)
            if AT_VAULT in path:
                wanted = {"something"} if name.startswith(("pull", "stream")) else {"DENIED"}
            assert told in wanted, name
        assert leaked([], received), "a reader reads"
        assert await everything(hub.service(Principal(OWNER))) == before


@pytest.mark.parametrize("token", ["", "token-wrong", "token-expired"], ids=["none", "wrong", "expired"])
async def test_nobody_in_particular_gets_no_documents(token: str) -> None:
    async with open_settled(TenantRules(), Verifier()) as hub, open_documents(hub) as (asked, received):
        before = await everything(hub.service(Principal(OWNER)))
        for name, (path, body, _) in DOCUMENTS.items():
            assert await asked(token, path, body) in {"UNAUTHENTICATED", "AUTH_EXPIRED"}, name
        assert leaked([], received) == []
        assert await everything(hub.service(Principal(OWNER))) == before


async def test_the_owner_gets_documents_and_the_canaries_are_seen() -> None:
    async with open_settled(TenantRules(), Verifier()) as hub, open_documents(hub) as (asked, received):
        for name in ("pull: a foreign scope", "pull: rows of others", "stream: a foreign scope"):
            received.clear()
            path, body, _ = DOCUMENTS[name]
            assert await asked(TOKENS[OWNER], path, body) == "something"
            assert leaked([], received) or name.startswith("stream"), name
        for name in ("push: a foreign row", "push: change a row of others"):
            path, body, _ = DOCUMENTS[name]
            assert await asked(TOKENS[OWNER], path, body) == "written", name


def test_every_way_of_documents_is_in_the_matrix() -> None:
    assert {name.partition(":")[0] for name in DOCUMENTS} == VERBS.keys()
