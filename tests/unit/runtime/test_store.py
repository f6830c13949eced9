"""The application's own door: a store of model instances over a real SQLite file."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal, cast

import pytest
import trio
import trio.lowlevel

import atoma
from atoma import (
    Client,
    Index,
    Reset,
    Rows,
    Schema,
    StaticTokenVerifier,
    StoreSpec,
    Sync,
    col,
    new_id,
    open_client,
    open_hub,
    select,
)
from atoma.errors import (
    ClosedError,
    ConflictError,
    NotFoundError,
    PluginError,
    PolicyNotAllowed,
    QueryError,
    UnknownPolicy,
    ValidationError,
)
from atoma.plugins import Plugin
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_stores.sqlite.connections import MEMORY
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.paths import memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str = field(default_factory=new_id)
    title: str
    lane: Literal["todo", "doing", "done"] = "todo"
    size: int | None = None
    weight: float = 0.0
    price: Decimal = Decimal(0)
    due: datetime | None = None
    tags: list[str] = field(default_factory=list)
    board: str = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    id: str
    email: str


CARDS = StoreSpec("cards", Card, scope="board", indexes=[Index("lane")], confirm="strict")
MEMBERS = StoreSpec("members", Member, indexes=[Index("email", unique=True)], confirm="strict")
SCHEMA = Schema(CARDS, MEMBERS)


POLICIES = ["direct-local", "direct-remote", "remote-first", "hybrid", "sync-queue", "local-first"]
REPLICATING = {"sync-queue", "local-first"}
ASKS_THE_HUB = {"direct-remote", "remote-first", "hybrid"}
"""A hub refuses without the row that is in the way, which its caller may not be allowed to read."""
ANSWERED_BY = {
    "direct-remote": ("remote", {"remote-memory"}),
    "remote-first": ("remote", {"remote-memory"}),
    "hybrid": ("mixed", {"local-query", "remote-memory", "merge"}),
}
_policy: ContextVar[str] = ContextVar("policy")


@pytest.fixture(params=POLICIES, autouse=True)
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each test runs under each policy: what reading and writing mean does not depend on it (A74)."""
    token = _policy.set(request.param)
    yield request.param
    _policy.reset(token)


def titles_of(error: ConflictError) -> list[object]:
    """What the error shows of the row that is in the way."""
    return [] if error.current is None else [error.current["title"]]


@asynccontextmanager
async def open_local(path: Path | str) -> AsyncIterator[Client]:
    """A client under the policy of the test, with a hub where that is not this device's alone."""
    policy, network = _policy.get(), MemoryNetwork()
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(path))]
    async with AsyncExitStack() as stack:
        if policy != "direct-local":
            place = MEMORY if path == MEMORY else f"{path}.hub"
            verifier = StaticTokenVerifier({"token": "ann"})
            hub = await stack.enter_async_context(open_hub(SCHEMA, SQLiteHubStore(place), verifier=verifier))
            await stack.enter_async_context(network.listen(hub))
            plugins.append(Remote(MemoryTransport(network, token="token")))
        if policy in REPLICATING:
            plugins.append(Sync([CARDS, MEMBERS], scopes=["main"]))
        yield await stack.enter_async_context(open_client(SCHEMA, plugins=plugins, policy=policy))


@pytest.mark.paths
async def test_a_row_comes_back_as_it_was_written_also_after_reopening(tmp_path: Path, policy: str) -> None:
    due = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
    card = Card(title="Größe ☕", size=2**40, weight=-0.5, price=Decimal("1.10"), due=due, tags=["a", "b"])
    async with open_local(tmp_path / "a.db") as client:
        handle = await client.store(CARDS).insert(card)
        assert handle.value == card
        assert handle.state in ({"local"} if policy == "direct-local" else {"accepted", "observed"})
        assert (await handle.accepted() > 0) is (policy != "direct-local")
    async with open_local(tmp_path / "a.db") as client:
        assert await client.store(CARDS).get(card.id) == card
        assert await client.store(CARDS).get("nobody") is None
        assert await client.store(CARDS).get_many([card.id, "nobody"]) == [card, None]


@pytest.mark.paths
async def test_insert_never_overwrites(policy: str) -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="1", title="first"))
        with pytest.raises(ConflictError) as caught:
            await cards.insert(Card(id="1", title="second"))
        assert titles_of(caught.value) == ([] if policy in ASKS_THE_HUB else ["first"])
        assert [card.title for card in await cards.query()] == ["first"]


async def test_update_is_a_patch_by_name_mapping_or_function() -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="1", title="a", size=3))
        assert (await cards.update("1", lane="doing")).value.lane == "doing"
        assert (await cards.update("1", {"size": None})).value.size is None
        handle = await cards.update("1", lambda card: replace(card, title=card.title + "!"))
        assert handle.value.title == "a!"
        assert handle.value.lane == "doing"
        unchanged = await cards.update("1", lane="doing")
        assert not unchanged.changed
        assert unchanged.version == handle.version
        with pytest.raises(NotFoundError):
            await cards.update("2", lane="done")


@pytest.mark.paths
async def test_a_stale_base_version_is_a_conflict_that_shows_the_current_row(policy: str) -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        first = await cards.insert(Card(id="1", title="a"))
        await cards.update("1", title="b")
        with pytest.raises(ConflictError) as caught:
            await cards.update("1", base_version=first.version, title="c")
        assert titles_of(caught.value) == ([] if policy in ASKS_THE_HUB else ["b"])
        with pytest.raises(ConflictError):
            await cards.delete("1", base_version=first.version)
        await cards.delete("1", base_version=await cards.version("1"))
        assert await cards.version("1") == 0


@pytest.mark.paths
async def test_update_by_function_survives_a_faster_writer() -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="1", title="a", size=0))

        async def add() -> None:
            for _ in range(3):
                await cards.update("1", lambda card: replace(card, size=(card.size or 0) + 1))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(add)
        card = await cards.get("1")
        assert card is not None
        assert card.size == 12


async def test_upsert_on_both_axes() -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.upsert({"id": "1", "title": "new"})
        card = await cards.get("1")
        assert card is not None
        assert card.lane == "todo"
        await cards.update("1", lane="done", size=7)
        await cards.upsert({"id": "1", "title": "merged"})
        merged = await cards.get("1")
        assert merged is not None
        assert (merged.title, merged.lane, merged.size) == ("merged", "done", 7)
        await cards.upsert({"id": "1", "title": "replaced"}, apply="replace")
        replaced = await cards.get("1")
        assert replaced is not None
        assert (replaced.title, replaced.lane, replaced.size) == ("replaced", "todo", None)
        version = await cards.version("1")
        with pytest.raises(ConflictError):
            await cards.upsert(Card(id="1", title="stale"), conflict="cas", base_version=version - 1)
        await cards.upsert(Card(id="1", title="fresh"), conflict="cas", base_version=version)
        with pytest.raises(ConflictError):
            await cards.upsert(Card(id="1", title="there already"), conflict="cas", base_version=0)
        await cards.upsert(Card(id="2", title="absent"), conflict="cas", base_version=0)
        with pytest.raises(ValidationError):
            await cards.upsert(Card(id="3", title="x"), conflict="cas")


@pytest.mark.paths
async def test_many_answers_item_by_item_in_input_order() -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="2", title="taken"))
        bad = Card(id="3", title="x", weight=math.nan)
        result = await cards.insert_many(
            [Card(id="1", title="a"), Card(id="2", title="b"), bad, Card(id="4", title="d")]
        )
        assert result.status == "partial"
        assert [(item.id, item.ok) for item in result] == [("1", True), ("2", False), ("3", False), ("4", True)]
        assert isinstance(result.items[1].error, ConflictError)
        assert isinstance(result.items[2].error, ValidationError)
        assert result.items[2].error.field == "weight"
        assert await cards.count() == 3
        with pytest.raises(ConflictError):
            result.raise_for_errors()


async def test_atomic_many_is_all_or_nothing() -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="2", title="taken"))
        result = await cards.insert_many([Card(id="1", title="a"), Card(id="2", title="b")], atomic=True)
        assert result.status == "rejected"
        assert await cards.count() == 1
        updated = await cards.update_many({"2": {"lane": "done"}, "9": {"lane": "done"}})
        assert [item.ok for item in updated] == [True, False]
        deleted = await cards.delete_many(["2", "9"])
        assert [item.ok for item in deleted] == [True, False]
        assert await cards.count() == 0


async def test_a_unique_index_refuses_the_one_item_only() -> None:
    async with open_local(memory()) as client:
        members = client.store(MEMBERS)
        result = await members.insert_many(
            [Member(id="1", email="a@x"), Member(id="2", email="a@x"), Member(id="3", email="b@x")]
        )
        assert [item.ok for item in result] == [True, False, True]
        assert isinstance(result.items[1].error, ConflictError)


@pytest.mark.parametrize(
    ("changes", "field_name"),
    [
        ({"nope": 1}, "nope"),
        ({"title": 1}, "title"),
        ({"lane": "flying"}, "lane"),
        ({"size": 2**63}, "size"),
        ({"weight": math.nan}, "weight"),
        ({"due": datetime(2026, 1, 1)}, "due"),  # noqa: DTZ001 - a naive time is what must be refused
        ({"tags": "no list"}, "tags"),
        ({"id": "2"}, "id"),
        ({"board": "other"}, "board"),
        ({"title": "\ud800"}, "title"),
    ],
)
async def test_bad_values_are_named_and_nothing_is_written(changes: dict[str, object], field_name: str) -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        before = await cards.insert(Card(id="1", title="a"))
        with pytest.raises(ValidationError) as caught:
            await cards.update("1", changes)
        assert caught.value.field == field_name
        assert await cards.version("1") == before.version


@pytest.mark.paths
async def test_queries_filter_sort_page_and_count(policy: str) -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert_many(
            Card(id=f"{n:02}", title=f"t{n % 3}", size=None if n % 5 == 0 else n, lane="done" if n % 2 else "todo")
            for n in range(20)
        )
        todo = select(CARDS).where(col("lane") != "done").order_by("-title")
        page = await cards.query(todo.limit(4))
        assert [card.id for card in page] == ["02", "08", "14", "04"]
        source, nodes = ANSWERED_BY.get(policy, ("local", {"local-query"}))
        assert page.meta.source == source
        assert {step.node for step in page.meta.path if step.outcome == "ok"} == nodes
        collected = list(page)
        while page.meta.cursor:
            page = await cards.query(todo.limit(4).after(page.meta.cursor))
            collected += list(page)
        assert [card.id for card in collected] == [card.id for card in await cards.query(todo)]
        assert await cards.count(select(CARDS).where(col("size").is_null())) == 4
        assert await cards.count(select(CARDS).where((col("size") > 3) & ~(col("title").like("T1")))) == 8
        assert (await cards.first(select(CARDS).order_by("-size"))) == await cards.get("19")
        assert await cards.first(select(CARDS).where(col("title") == "nothing")) is None
        assert await cards.exists("00")


async def test_between_takes_both_ends_and_no_missing_value() -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert_many([Card(id=f"{size}", title="t", size=size) for size in (None, 1, 2, 3, 4)])
        among = col("size").between(2, 3)
        assert [card.id for card in await cards.query(select(CARDS).where(among))] == ["2", "3"]
        assert [card.id for card in await cards.query(select(CARDS).where(~among))] == ["1", "4"]


@pytest.mark.parametrize(
    "query",
    [
        select(CARDS).where(col("nope") == 1),
        select(CARDS).where(col("size") == "text"),
        select(CARDS).order_by("nope"),
        select(CARDS).limit(-1),
        select(CARDS).after("garbage"),
        select(CARDS).where(col("size").like("1%")),
    ],
)
async def test_queries_that_do_not_fit_are_refused(query: Rows[Card]) -> None:
    async with open_local(memory()) as client:
        with pytest.raises(QueryError):
            await client.store(CARDS).query(query)


async def test_a_transaction_spans_stores_and_sees_itself() -> None:
    async with open_local(memory()) as client:
        await client.store(CARDS).insert(Card(id="1", title="old"))
        async with client.transaction() as tx:
            cards, members = tx.store(CARDS), tx.store(MEMBERS)
            await cards.delete("1")
            await cards.insert(Card(id="2", title="new"))
            await cards.update("2", lane="doing")
            await members.insert(Member(id="m", email="m@x"))
            assert await cards.get("1") is None
            assert [card.lane for card in await cards.query(select(CARDS).where(col("lane") == "doing"))] == ["doing"]
            assert await client.store(CARDS).get("2") is None
        assert [card.id for card in await client.store(CARDS).query()] == ["2"]
        assert await client.store(MEMBERS).exists("m")


async def test_raising_in_a_transaction_writes_nothing_and_a_savepoint_takes_back_only_itself() -> None:
    async with open_local(memory()) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.transaction() as tx:
                await tx.store(CARDS).insert(Card(id="1", title="a"))
                raise ZeroDivisionError
        assert await client.store(CARDS).count() == 0
        async with client.transaction() as tx:
            await tx.store(CARDS).insert(Card(id="1", title="a"))
            with pytest.raises(ZeroDivisionError):
                async with tx.savepoint():
                    await tx.store(CARDS).insert(Card(id="2", title="b"))
                    raise ZeroDivisionError
            assert await tx.store(CARDS).get("2") is None
        assert [card.id for card in await client.store(CARDS).query()] == ["1"]


async def test_an_id_that_no_row_can_have_is_not_there_and_hides_no_other() -> None:
    impossible = "\ud800"
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="1", title="a"))
        assert [card and card.id for card in await cards.get_many([impossible, "1"])] == [None, "1"]
        async with client.transaction() as tx:
            assert await tx.store(CARDS).get(impossible) is None
            await tx.store(CARDS).update("1", title="b")
            with pytest.raises(QueryError, match="is text, not None"):
                await tx.store(CARDS).get(cast("str", None))
        assert [card.title for card in await cards.query()] == ["b"]


async def test_a_transaction_decides_as_a_write_outside_does() -> None:
    async with open_local(memory()) as client:
        await client.store(CARDS).insert(Card(id="1", title="a"))
        async with client.transaction() as tx:
            cards = tx.store(CARDS)
            with pytest.raises(ConflictError, match="exists already") as taken:
                await cards.insert(Card(id="1", title="b"))
            assert taken.value.current is not None
            assert taken.value.current["title"] == "a"
            with pytest.raises(NotFoundError):
                await cards.delete("2")
            with pytest.raises(ValidationError, match="a row never moves"):
                await cards.upsert(Card(id="1", title="b", board="other"))
            await cards.update("1", title="c")
        assert await client.store(CARDS).get("1") == Card(id="1", title="c")


@pytest.mark.paths
async def test_a_transaction_notices_that_what_it_read_has_moved() -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="1", title="a", size=1))
        with pytest.raises(ConflictError):
            async with client.transaction() as tx:
                card = await tx.store(CARDS).get("1")
                assert card is not None
                await cards.update("1", size=5)
                await tx.store(CARDS).insert(Card(id="2", title=f"size was {card.size}"))
        assert await cards.count() == 1


async def test_a_transaction_remembers_the_first_version_that_it_read() -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert_many([Card(id="1", title="a", size=1), Card(id="2", title="b", size=1)])
        with pytest.raises(ConflictError):
            async with client.transaction() as tx:
                first: Card | None = None
                with pytest.raises(LookupError):
                    async with tx.savepoint():
                        first = await tx.store(CARDS).get("1")
                        raise LookupError
                await cards.update("1", size=100)  # somebody else, after it was read and before it is read again
                await tx.store(CARDS).get("1")
                assert first is not None
                await tx.store(CARDS).update("2", title=f"size {first.size}")
        assert (await cards.get("2")) == Card(id="2", title="b", size=1)


async def test_a_transaction_is_used_once() -> None:
    async with open_local(memory()) as client:
        once = client.transaction()
        async with once as tx:
            await tx.store(CARDS).insert(Card(id="1", title="a"))
        with pytest.raises(ClosedError):
            await once.__aenter__()
        assert await client.store(CARDS).count() == 1


async def test_a_transaction_touches_one_scope() -> None:
    async with open_local(memory()) as client:
        with pytest.raises(PolicyNotAllowed, match="one scope"):
            async with client.transaction() as tx:
                await tx.store(CARDS).insert(Card(title="a", board="x"))
                await tx.store(CARDS).insert(Card(title="b", board="y"))
        assert await client.store(CARDS).count() == 0


@pytest.mark.paths
async def test_live_delivers_typed_batches_and_observe_snapshots() -> None:
    async with open_local(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="1", title="a"))
        seen: list[list[str]] = []
        with trio.fail_after(60):
            async with cards.live(select(CARDS).where(col("lane") == "todo")) as batches:
                first = await anext(aiter(batches))
                assert isinstance(first.changes[0], Reset)
                assert [card.title for card in first.changes[0].rows] == ["a"]
                subscription = cards.observe().subscribe(lambda rows: seen.append([card.id for card in rows]))
                await cards.insert(Card(id="2", title="b"))
                second = await anext(aiter(batches))
                assert [type(change).__name__ for change in second.changes] == ["Insert"]
                while not seen or seen[-1] != ["1", "2"]:
                    await trio.lowlevel.checkpoint()
                subscription.dispose()


async def test_unknown_policy_and_foreign_declarations_are_refused(policy: str) -> None:
    async with open_local(memory()) as client:
        with pytest.raises(UnknownPolicy):
            await client.store(CARDS).get("1", policy="nope")
        other = StoreSpec("cards", Card)
        with pytest.raises(PluginError):
            client.store(other)
        if policy not in REPLICATING:
            with pytest.raises(PluginError, match="does not sync"):
                _ = client.sync


def test_the_facade_offers_what_an_application_needs() -> None:
    assert {"open_client", "open_hub", "Rows", "Sync", "StoreSpec"} <= set(atoma.__all__)
