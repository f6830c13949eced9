"""A hub on a file, and clients that speak the protocol by hand: what the tests of the hub are written with."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs

from atoma.contracts.codec import encode
from atoma.contracts.execution import OperationContext, QueryRequest, WriteOptions, WriteRequest
from atoma.contracts.mutations import MutationBody, Op, Recovers
from atoma.contracts.sync import (
    Cursor,
    Limits,
    Mutation,
    OpenReply,
    OpenRequest,
    Outcome,
    Place,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotRequest,
)
from atoma.hub import AllowLoopback, Hub, Rules, open_hub
from atoma.ports.environment import Environment
from atoma.ports.hub import HubStore
from atoma.ports.service import Principal, SyncService
from atoma.schema import Index, Schema, StoreSpec
from atoma.testing.queries import rows_of
from atoma_stores.sqlite.hub_store import SQLiteHubStore

SCOPE = "main"


@dataclass(frozen=True, slots=True)
class Card:
    id: str
    title: str
    lane: str = "todo"
    rank: float = 0.0
    done: bool = False
    board: str = SCOPE


@dataclass(frozen=True, slots=True)
class Seat:
    id: str
    place: str
    board: str = SCOPE


CARDS = StoreSpec("cards", Card, scope="board", conflict="lww")
KEPT = StoreSpec("kept", Card, scope="board", conflict="server_wins")
MINE = StoreSpec("mine", Card, scope="board", conflict="client_wins")
HANDS = StoreSpec("hands", Card, scope="board", conflict="manual")
SEATS = StoreSpec("seats", Seat, scope="board", indexes=[Index("place", unique=True)])
SCHEMA = Schema(CARDS, KEPT, MINE, HANDS, SEATS)


def card(title: str, **values: Any) -> dict[str, Any]:
    """The columns of a card, the scope field left out."""
    return {"title": title, "lane": "todo", "rank": 0.0, "done": 0, **values}


@asynccontextmanager
async def hub_on(
    path: Path | str | HubStore,
    *,
    schema: Schema = SCHEMA,
    rules: Rules | None = None,
    limits: Limits | None = None,
    environment: Environment | None = None,
) -> AsyncGenerator[Hub]:
    """A hub on ``path`` that lets this machine in."""
    store = SQLiteHubStore(path) if isinstance(path, (str, Path)) else path
    async with open_hub(
        schema, store, verifier=AllowLoopback(), rules=rules, limits=limits, environment=environment
    ) as hub:
        yield hub


@dataclass
class Client:
    """One database file's worth of protocol state, kept by hand."""

    service: SyncService
    client_id: bytes
    incarnation: int = 1
    digests: list[bytes] = field(default_factory=lambda: [b""])
    mutations: list[Mutation] = field(default_factory=list)

    @classmethod
    def of(cls, hub: Hub, name: str, user: str = "local") -> Client:
        return cls(hub.service(Principal(user)), name.encode().ljust(16, b"."))

    def on(self, hub: Hub, user: str = "local") -> Client:
        """The same client, connected to ``hub``."""
        return Client(
            hub.service(Principal(user)), self.client_id, self.incarnation, list(self.digests), list(self.mutations)
        )

    def write(
        self, *ops: Op, base: int = 0, scope: str = SCOPE, body: bytes | None = None, version: int = 1, mid: int = 0,
        epoch: bytes = b"", recovers: Recovers | None = None,
    ) -> Mutation:  # fmt: skip
        """Append a mutation to the outbox."""
        number = len(self.mutations) + 1
        inner = MutationBody(
            mid or number, f"{self.client_id!r}:{number}", scope, base, version, 0, ops, epoch, recovers=recovers
        )
        data = encode(inner) if body is None else body
        digest = hashlib.sha256(self.digests[-1] + data).digest()
        self.digests.append(digest)
        self.mutations.append(Mutation(number, data, digest))
        return self.mutations[-1]

    async def push(self, first: int = 1, last: int | None = None, *, confirmed: int = 0) -> PushReply:
        """Push mutations ``first`` to ``last``, both included."""
        batch = tuple(self.mutations[first - 1 : last])
        request = PushRequest(self.client_id, self.incarnation, batch, self.digests[first - 1], confirmed)
        return await self.service.push(request)

    async def do(
        self, *ops: Op, base: int = 0, scope: str = SCOPE, epoch: bytes = b"", recovers: Recovers | None = None
    ) -> Outcome:
        """Write one mutation, push it, and return its outcome."""
        mutation = self.write(*ops, base=base, scope=scope, epoch=epoch, recovers=recovers)
        reply = await self.push(mutation.mid)
        assert reply.error is None, reply.error
        return reply.outcomes[0]

    async def open(
        self, *scopes: str, confirmed: int = 0, tail: int | None = None, version: int = 1, places: Sequence[Place] = (),
        asked: Sequence[int] = (),
    ) -> OpenReply:  # fmt: skip
        last = len(self.mutations) if tail is None else tail
        request = OpenRequest(
            self.client_id, self.incarnation, version, SCHEMA.hash, scopes or (SCOPE,), confirmed, last
        )
        return await self.service.open(structs.replace(request, places=tuple(places), asked=tuple(asked)))

    async def pull(
        self, cursor: Cursor = Cursor(), *, scope: str = SCOPE, after: int = 0, max_bytes: int = 1 << 20, max_changes: int = 5000
    ) -> PullReply:  # fmt: skip
        return await self.service.pull(PullRequest(scope, cursor, self.client_id, after, max_bytes, max_changes))

    async def query(self, store: str = "cards") -> dict[str, dict[str, object]]:
        result = await self.service.query(QueryRequest(rows_of(store), OperationContext("trace")))
        return {row.id: dict(row.image) for row in result.rows}


Rows = dict[tuple[str, str], dict[str, object]]


def apply_page(rows: Rows, page: PullReply) -> None:
    """What a client does with a page."""
    for changes in page.stores:
        for _, id, *values in changes.rows:
            rows[changes.store, str(id)] = dict(zip(changes.columns[1:], values, strict=True))
        for _, id in changes.deletes:
            rows.pop((changes.store, id), None)


async def pull_all(client: Client, scope: str = SCOPE, max_changes: int = 5000) -> tuple[Rows, Cursor]:
    """Everything in a scope, page by page."""
    rows: Rows = {}
    page = await client.pull(scope=scope, max_changes=max_changes)
    apply_page(rows, page)
    while page.more:
        page = await client.pull(page.end, scope=scope, max_changes=max_changes)
        apply_page(rows, page)
    return rows, page.end


async def snapshot_page(
    client: Client, token: bytes = b"", max_rows: int = 5000, max_bytes: int = 1 << 20
) -> tuple[Rows, Cursor, bytes, bool]:
    """One page of a snapshot: rows, start, token, whether it was the last."""
    reply = await client.service.snapshot(SnapshotRequest(SCOPE, client.client_id, token, max_bytes, max_rows))
    rows: Rows = {}
    for changes in reply.stores:
        for _, id, *values in changes.rows:
            rows[changes.store, str(id)] = dict(zip(changes.columns[1:], values, strict=True))
    return rows, reply.start, reply.token, reply.done


def direct(*entries: Op, idem: str, atomic: bool = False, reads: tuple[tuple[str, str, int | None], ...] = ()) -> WriteRequest:  # fmt: skip
    """A direct write."""
    return WriteRequest(entries, WriteOptions(atomic=atomic, reads=reads), OperationContext("trace"), idem)
