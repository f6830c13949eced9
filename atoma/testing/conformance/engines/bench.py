"""Where a check of an engine works: the engine, its database, and the nodes that write to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import structs

from atoma.contracts.codec import encode
from atoma.contracts.execution import Receipt, WriteRequest, WriteResult, as_receipt
from atoma.contracts.mutations import MutationBody, Op, PendingKind, PendingMutation
from atoma.contracts.values import RowImage, StoredRow
from atoma.mutations import mutations_of, queued
from atoma.ports import Environment, LocalDatabase, LocalEngine, LocalTx, seeded_environment
from atoma.query.plans import by_ids
from atoma.testing.conformance.checks import CheckTable, expect
from atoma.testing.conformance.notes import NOTES_SCHEMA, unit
from atoma.testing.queries import rows_of
from atoma_stores.local import LocalWriteNode


class EngineSite(Protocol):
    """The part that the author of an engine supplies."""

    @property
    def name(self) -> str:
        """What verdicts call it."""
        ...

    @property
    def virtual(self) -> bool:
        """Whether it works on a virtual clock: it heeds ``Environment.executor == "inline"`` and starts no thread."""
        ...

    @property
    def durable(self) -> bool:
        """Whether what was committed is there when the engine is opened again on the same place."""
        ...

    def open_site(self) -> AbstractAsyncContextManager[LocalEngine]:
        """An engine on a fresh place of its own for one check; it may be opened several times, one after the other."""
        ...


@dataclass
class QueueingStage:
    """The smallest stage behind a local write that queues what it did: one mutation per effect, or one per atomic unit."""

    database: str
    kind: PendingKind = "outbox"
    fail_with: Exception | None = None
    seen: list[int] = field(default_factory=list[int])

    def stage(self, tx: LocalTx, request: WriteRequest) -> None:
        """See :class:`atoma.ports.Staging`."""
        effects = list(tx.unit.effects)
        self.seen.append(len(effects))
        for key, group in mutations_of(request, effects):
            scope, ops = group[0].scope, tuple(queued(effect.op) for effect in group)
            identity = tx.outbox.identity()
            mid = identity.next_mid if self.kind == "outbox" else 0
            body = encode(MutationBody(mid, key, scope, 0, 1, tx.now_ms, ops))
            for effect in group:
                tx.base.shadow(effect.op.store, effect.op.id, effect.scope, effect.pre)
            rows = [(effect.op.store, effect.op.id, effect.pre) for effect in group]
            tx.outbox.add(PendingMutation(0, self.kind, mid, key, scope, 0, body, b"digest"), rows)
            if self.kind == "outbox":
                tx.outbox.save_identity(structs.replace(identity, next_mid=mid + 1))
        if self.fail_with is not None:
            raise self.fail_with


@dataclass
class Opened:
    """An open database with its nodes."""

    db: LocalDatabase
    node: LocalWriteNode
    outbox: QueueingStage

    async def write(self, idem: str, *entries: Op, atomic: bool = False) -> WriteResult:
        """Write here and nowhere else."""
        return await self.node.write(unit(idem, *entries, atomic=atomic))

    async def queue(self, idem: str, *entries: Op, atomic: bool = False) -> WriteResult:
        """Write here and into the outbox, in one transaction."""
        return await self.db.commit(unit(idem, *entries, atomic=atomic), (self.node, self.outbox))

    async def get(self, id: str) -> StoredRow | None:
        """The row."""
        found = (await self.db.read(by_ids("notes", (id,)))).rows
        return found[0] if found else None

    async def rows(self) -> dict[str, RowImage]:
        """Every row's image, by id."""
        return {row.id: row.image for row in (await self.db.read(rows_of("notes"))).rows}

    async def outbox_mids(self) -> list[int]:
        """Numbers of the mutations that wait to be sent."""
        return await self.db.inspect(lambda tx: [m.mid for m in tx.outbox.queued(limit=1000, max_bytes=10**9)])


@dataclass
class Bench:
    """An engine on a fresh place, not open yet.

    Attributes:
        engine: What the author supplied.
        site: It, as it was given.
        environment: What the engine is opened with.
    """

    engine: LocalEngine
    site: EngineSite
    environment: Environment

    @asynccontextmanager
    async def opened(self, *, synced: bool = False) -> AsyncGenerator[Opened]:
        """The engine's database, open."""
        stores = frozenset({"notes"} if synced else ())
        async with self.engine.open_database(NOTES_SCHEMA, self.environment, stores) as db:
            yield Opened(db, LocalWriteNode(db), QueueingStage(db.database))


@asynccontextmanager
async def open_bench(site: EngineSite) -> AsyncGenerator[Bench]:
    """A bench with the engine of ``site``."""
    async with site.open_site() as engine:
        yield Bench(engine, site, seeded_environment(1) if site.virtual else Environment())


def engine_table() -> CheckTable[EngineSite, Bench]:
    """An empty table of checks of engines."""
    return CheckTable(open_bench)


def receipts_of(result: WriteResult) -> list[Receipt]:
    """The receipts of a result; fails the check when one is missing."""
    receipts = [as_receipt(value) for value in result.receipts]
    found = [receipt for receipt in receipts if receipt is not None]
    expect(len(found) == len(result.items), f"{len(result.items)} entries came with {len(found)} receipts")
    return found
