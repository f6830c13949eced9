"""The outbox node in the engine's own transaction: numbers, digests, causal links, and what it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atoma.contracts.codec import decode
from atoma.contracts.execution import OperationContext, WriteOptions, WriteRequest
from atoma.contracts.mutations import MutationBody, Op, PendingMutation
from atoma.contracts.mutations import Op as WireOp
from atoma.contracts.sync import Cursor, Limits
from atoma.errors import ScopeNotSubscribed, ValidationError
from atoma.ports import Environment, seeded_environment
from atoma.ports.engine import LocalDatabase
from atoma.ports.local import LocalTx
from atoma.schema import Schema, StoreSpec
from atoma.sync.outbox import OutboxNode
from atoma.sync.push import MutationBatch, next_batch
from atoma_stores.local import LocalWriteNode
from atoma_stores.sqlite.engine import SQLiteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str = ""
    board: str = "main"


CARDS = StoreSpec("cards", Card, scope="board")
LOCAL = StoreSpec("drafts", Card, scope="board")
LISTS = StoreSpec("lists", Card, scope="board")
SCHEMA = Schema(CARDS, LOCAL, LISTS, version=3)
SYNCED = ("cards", "lists")


@dataclass
class Bench:
    """A database with the two stages of a queued write."""

    database: LocalDatabase
    environment: Environment
    scopes: Sequence[str] = ("main", "other")
    limits: Limits | None = None

    async def write(self, *entries: Op, atomic: bool = False, idem: str = "") -> Any:
        request = WriteRequest(
            entries, WriteOptions(atomic=atomic), OperationContext("t"), idem or self.environment.ids()
        )
        outbox = OutboxNode(self.database.database, SYNCED, self.scopes, self.limits)
        return await self.database.commit(request, [LocalWriteNode(self.database), outbox])

    async def pending(self) -> list[PendingMutation]:
        def read(tx: Any) -> list[PendingMutation]:
            found = [tx.outbox.by_mid(mid) for mid in range(1, tx.outbox.identity().next_mid)]
            assert None not in found, "numbers are dense"
            return found

        return await self.database.inspect(read)

    async def ops(self) -> list[tuple[WireOp, ...]]:
        return [decode(item.body, MutationBody).ops for item in await self.pending()]


@pytest.fixture
def bench(tmp_path: Path) -> Callable[[], Any]:
    @asynccontextmanager
    async def opened() -> AsyncGenerator[Bench]:
        environment = seeded_environment(7)
        engine = SQLiteEngine(tmp_path / "a.db")
        async with engine.open_database(SCHEMA, environment, frozenset(SYNCED)) as database:
            yield Bench(database, environment)

    return opened


def insert(id: str, board: str = "main", title: str = "", store: str = "cards") -> Op:
    return Op("create", store, id, {"title": title, "board": board}, scope=board)


def update(id: str, title: str) -> Op:
    return Op("patch", "cards", id, {"title": title})


@pytest.mark.paths
async def test_one_mutation_per_entry_dense_and_chained(bench: Any) -> None:
    async with bench() as b:
        await b.write(insert("1"), insert("2"), insert("3"), idem="unit")
        await b.write(update("2", "x"), idem="single")
        pending = await b.pending()
        assert [(item.mid, item.idem) for item in pending] == [
            (1, "unit:0"),
            (2, "unit:1"),
            (3, "unit:2"),
            (4, "single"),
        ]
        digest = b""
        for item in pending:
            digest = hashlib.sha256(digest + item.body).digest()
            assert item.digest == digest
            body = decode(item.body, MutationBody)
            assert (body.mid, body.idem, body.scope, body.schema_version) == (item.mid, item.idem, "main", 3)
            assert body.client_ms > 0
        identity = await b.database.inspect(lambda tx: tx.outbox.identity())
        assert (identity.next_mid, identity.tail_digest) == (5, digest)


async def test_what_is_sent_again_fills_a_request_to_the_byte(bench: Any) -> None:
    """The hub was restored, and has forgotten what it had accepted."""
    async with bench() as b:
        await b.write(insert("1"), insert("2"), insert("3"))
        pending = await b.pending()
        await b.database.apply(lambda tx: [tx.outbox.mark_acked({item.mid: item.mid}) for item in pending])
        two = len(pending[0].body) + len(pending[1].body)
        for limit, max_bytes, fits in ((9, 0, 1), (9, two - 1, 1), (9, two, 2), (9, 10**6, 3), (2, 10**6, 2)):

            def again(tx: LocalTx, limit: int = limit, max_bytes: int = max_bytes) -> MutationBatch:
                return next_batch(tx, 0, b"", limit=limit, max_bytes=max_bytes)

            batch = await b.database.inspect(again)
            assert [item.mid for item in batch.mutations] == [1, 2, 3][:fits]


async def test_an_atomic_unit_is_one_mutation(bench: Any) -> None:
    async with bench() as b:
        await b.write(insert("1"), insert("2"), update("1", "again"), atomic=True, idem="unit")
        (item,) = await b.pending()
        assert item.idem == "unit"
        (ops,) = await b.ops()
        assert [(op.kind, op.id, op.after_mid) for op in ops] == [
            ("create", "1", 0),
            ("create", "2", 0),
            ("patch", "1", 0),
        ]
        assert await b.database.inspect(lambda tx: tx.outbox.pre_image("cards", "1", item.lsn)) is None


async def test_operations_name_the_pending_mutation_they_build_on(bench: Any) -> None:
    async with bench() as b:
        await b.write(insert("1"), update("1", "x"), insert("2"))
        await b.write(update("1", "y"))
        assert [op.after_mid for (op,) in await b.ops()] == [0, 1, 0, 2]


@pytest.mark.paths
async def test_the_base_is_what_the_user_had_seen_of_the_scope(bench: Any) -> None:
    async with bench() as b:

        def live(tx: Any) -> None:
            from msgspec.structs import replace

            tx.scopes.save(replace(tx.scopes.read("main"), state="live", cursor=Cursor(b"e", 41, b"h")))
            tx.base.put("cards", "1", "main", {"title": "", "board": "main"}, 7)

        await b.database.apply(live)
        await b.write(update("1", "x"), insert("2", "other"))
        assert [item.base_seq for item in await b.pending()] == [41, 0], "the cursor, not the row's version"
        base = await b.database.inspect(lambda tx: tx.base.read("cards", "1"))
        assert (base.image, base.seq, base.shadowed) == ({"title": "", "board": "main"}, 7, True)


@pytest.mark.paths
async def test_a_scope_that_is_not_synced_is_refused_and_leaves_no_number_out(bench: Any) -> None:
    async with bench() as b:
        await b.write(insert("1"))
        with pytest.raises(ScopeNotSubscribed) as refused:
            await b.write(insert("2"), insert("3", "elsewhere"))
        assert refused.value.scope == "elsewhere"
        await b.write(insert("4"))
        assert [item.mid for item in await b.pending()] == [1, 2]
        assert await b.database.inspect(lambda tx: tx.rows.read("cards", "2")) is None


async def test_an_atomic_unit_stays_within_a_scope(bench: Any) -> None:
    async with bench() as b:
        with pytest.raises(ValidationError, match="one scope"):
            await b.write(insert("1", "main"), insert("2", "other"), atomic=True)
        await b.write(insert("1", "main"), insert("2", "other"))
        assert [item.scope for item in await b.pending()] == ["main", "other"]


async def test_what_no_hub_could_take_is_refused_at_once(bench: Any) -> None:
    """At each bound it is taken, and one more is refused with the store where the unit begins."""

    def unit(name: str, count: int = 3, title: str = "x" * 1000) -> list[Op]:
        rest = [insert(f"{name}{number}", store="lists") for number in range(1, count)]
        return [insert(name, title=title), *rest]

    async with bench() as b:
        await b.write(*unit("a"), atomic=True)
        size = len((await b.pending())[0].body)
        for limits, refused, why in (
            (Limits(mutation_bytes=size - 1), unit("b"), f"{size} bytes exceeds"),
            (Limits(mutation_ops=2), unit("b"), "of 3 entries exceeds"),
            (Limits(mutation_ops=20_000), unit("b", 8_000, ""), "more than 100,000 values"),
        ):
            b.limits = limits
            with pytest.raises(ValidationError, match=why) as caught:
                await b.write(*refused, atomic=True)
            assert caught.value.store == "cards" and caught.value.value in ("b", None)
        b.limits = Limits(mutation_bytes=size, mutation_ops=3)
        await b.write(*unit("b"), atomic=True)
        assert [len(item.body) for item in await b.pending()] == [size, size]
        b.limits = Limits(mutation_ops=1)
        await b.write(*unit("c"))
        assert len(await b.pending()) == 5, "each of them is a unit of its own"


async def test_stores_that_are_not_synced_and_writes_that_change_nothing_send_nothing(bench: Any) -> None:
    async with bench() as b:
        await b.write(insert("1", store="drafts"))
        await b.write(insert("1", title="same"))
        await b.write(update("1", "same"))
        assert [op.id for (op,) in await b.ops()] == ["1"]
