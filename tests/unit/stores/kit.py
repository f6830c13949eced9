"""A small schema and short ways to write through the public doors of the stores package."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio
from msgspec import structs

from atoma.contracts.codec import encode
from atoma.contracts.execution import Durability, OperationContext, WriteOptions, WriteRequest, WriteResult, item_key
from atoma.contracts.mutations import MutationBody, Op, PendingKind, PendingMutation
from atoma.contracts.values import RowImage, StoredRow
from atoma.mutations import queued
from atoma.ports import Environment, LocalTx, Staging, seeded_environment
from atoma.query.plans import by_ids
from atoma.schema import Index, Schema, StoreSpec
from atoma.testing.queries import rows_of
from atoma_stores.local import LocalWriteNode
from atoma_stores.sqlite.engine import SQLiteEngine, SQLiteLocalDatabase
from tests.paths import memory

CONTEXT = OperationContext("trace")


@dataclass
class Card:
    id: str
    title: str
    lane: str = "todo"
    rank: int = 0
    weight: float | None = None
    board: str = "main"


@dataclass
class Tag:
    id: str
    name: str


CARDS = StoreSpec("cards", Card, scope="board", indexes=[Index("lane", "rank")])
TAGS = StoreSpec("tags", Tag, indexes=[Index("name", unique=True)])
SCHEMA = Schema(CARDS, TAGS)
SYNCED = frozenset({"cards", "tags"})


def card(title: str = "a", **values: object) -> RowImage:
    """A complete image of a card."""
    image: RowImage = {"title": title, "lane": "todo", "rank": 0, "weight": None, "board": "main"}
    return {**image, **values}  # type: ignore[dict-item]


def insert(id: str, image: RowImage | None = None, store: str = "cards") -> Op:
    return Op("create", store, id, card() if image is None else image)


def update(id: str, *, base_version: int | None = None, store: str = "cards", **values: object) -> Op:
    return Op("patch", store, id, values, base_version=base_version)  # type: ignore[arg-type]


def delete(id: str, *, base_version: int | None = None, store: str = "cards") -> Op:
    return Op("delete", store, id, base_version=base_version)


def request(
    *entries: Op,
    idem: str = "",
    atomic: bool = False,
    durability: Durability | None = None,
    reads: tuple[tuple[str, str, int | None], ...] = (),
) -> WriteRequest:
    options = WriteOptions(atomic=atomic, durability=durability, reads=reads)
    return WriteRequest(entries, options, CONTEXT, idem or Environment().ids())


@dataclass
class QueueingStage:
    """The smallest stage behind a local write that queues what it did: one mutation per effect, or one per unit."""

    database: str
    kind: PendingKind = "outbox"
    fail_with: BaseException | None = None
    seen: list[int] = field(default_factory=list)

    def stage(self, tx: LocalTx, request: WriteRequest) -> None:
        effects = list(tx.unit.effects)
        groups = [effects] if request.options.atomic and effects else [[effect] for effect in effects]
        size = len(request.entries)
        for group in groups:
            first = group[0]
            identity = tx.outbox.identity()
            key = item_key(request.idem, first.index, atomic=request.options.atomic, size=size)
            mid = identity.next_mid if self.kind == "outbox" else 0
            ops = tuple(queued(effect.op) for effect in group)
            body = encode(MutationBody(mid, key, first.scope, 0, 1, tx.now_ms, ops))
            for effect in group:
                tx.base.shadow(effect.op.store, effect.op.id, effect.scope, effect.pre)
            rows = [(effect.op.store, effect.op.id, effect.pre) for effect in group]
            tx.outbox.add(PendingMutation(0, self.kind, mid, key, first.scope, 0, body, b"digest"), rows)
            if self.kind == "outbox":
                tx.outbox.save_identity(structs.replace(identity, next_mid=mid + 1))
        self.seen.append(len(effects))
        if self.fail_with is not None:
            raise self.fail_with


@dataclass
class Opened:
    """An open database with its nodes."""

    db: SQLiteLocalDatabase
    node: LocalWriteNode
    outbox: QueueingStage

    async def write(self, *entries: Op, **options: object) -> WriteResult:
        return await self.node.write(request(*entries, **options))  # type: ignore[arg-type]

    async def queue(self, *entries: Op, **options: object) -> WriteResult:
        return await self.queue_request(request(*entries, **options))  # type: ignore[arg-type]

    async def queue_request(self, unit: WriteRequest) -> WriteResult:
        stages: Sequence[Staging] = (self.node, self.outbox)
        return await self.db.commit(unit, stages)

    async def get(self, id: str, store: str = "cards") -> StoredRow | None:
        rows = (await self.db.read(by_ids(store, (id,)))).rows
        return rows[0] if rows else None

    async def rows(self, store: str = "cards") -> dict[str, RowImage]:
        return {row.id: row.image for row in (await self.db.read(rows_of(store))).rows}


@asynccontextmanager
async def opened(
    path: Path | str | None = None,
    *,
    synced: frozenset[str] = frozenset(),
    schema: Schema = SCHEMA,
    environment: Environment | None = None,
    engine: SQLiteEngine | None = None,
) -> AsyncGenerator[Opened]:
    """A database on ``path`` (None: in memory) with real threads, or inline with a seeded environment."""
    chosen = engine or SQLiteEngine(path or memory())
    async with chosen.open_database(schema, environment or Environment(), synced) as db:
        yield Opened(db, LocalWriteNode(db), QueueingStage(db.database))


def inline(seed: int = 1) -> Environment:
    return seeded_environment(seed)


def threaded(**changes: object) -> Environment:
    return replace(Environment(), **changes)  # type: ignore[arg-type]


def atoma_threads() -> list[str]:
    import threading

    return [thread.name for thread in threading.enumerate() if thread.name.startswith("atoma-")]


def in_turn(*bodies: Callable[[LocalTx], object]) -> Callable[[LocalTx], None]:
    """One transaction of several steps."""

    def body(tx: LocalTx) -> None:
        for step in bodies:
            step(tx)

    return body


async def until(condition: object) -> None:
    """Let the other tasks and threads run until ``condition()`` holds (bounded)."""
    assert callable(condition)
    latest = time.monotonic() + 30  # threads are waited for, which a busy machine may hold up
    while not condition():
        assert time.monotonic() < latest, "it never happened"
        await trio.lowlevel.checkpoint()
