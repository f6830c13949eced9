"""Pages both ways: whoever turns them, on a device, at a hub or over both, sees the whole list, each row at its place."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atoma.client import Client, open_client
from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.policy import Policy
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.hub import StaticTokenVerifier, open_hub
from atoma.kernel import node
from atoma.plugins import Plugin, PluginContext
from atoma.ports import LOCAL_DATABASE, PortKey
from atoma.query import Rows, bind, col, select
from atoma.query.evaluate import evaluate
from atoma.runtime import Page
from atoma.schema import Schema, StoreSpec
from atoma_stores.local import LocalExecution, LocalQueryNode
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote


@dataclass(frozen=True)
class Card:
    id: str
    lane: str | None
    size: int


CARDS = StoreSpec("cards", Card)
SCHEMA = Schema(CARDS)
POLICIES = ("direct-local", "direct-remote", "hybrid")
ORDERS = st.sampled_from([(), ("lane",), ("-lane", "size"), ("size", "-lane"), ("-size", "-id"), ("-id",)])
CELLS = st.tuples(st.sampled_from([None, "", "a", "b"]), st.integers(0, 2))
TABLES = st.lists(CELLS, min_size=5, max_size=9) | st.lists(CELLS, max_size=2)


@asynccontextmanager
async def opened(cards: Sequence[Card]) -> AsyncGenerator[Client]:
    """A client whose device and whose hub both hold ``cards``."""
    network = MemoryNetwork()
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=StaticTokenVerifier({"t": "ada"})) as hub:
        plugins: list[Plugin] = [LocalExecution(SQLiteEngine(":memory:")), Remote(MemoryTransport(network, token="t"))]
        async with network.listen(hub), open_client(SCHEMA, plugins=plugins) as client:
            for policy in ("direct-local", "direct-remote"):
                if cards:
                    await client.store(CARDS).insert_many(cards, policy=policy)
            yield client


def listed(query: Rows[Card], cards: Sequence[Card]) -> list[str]:
    """The ids of all rows of ``query`` in its order, by the reference."""
    rows = [StoredRow(card.id, 1, 1, "main", {"lane": card.lane, "size": card.size}) for card in cards]
    every = query.after("")
    return [row.id for row in evaluate(bind(every, SCHEMA), {"cards": rows})]


def ids(page: Page[Card]) -> list[str]:
    return [card.id for card in page]


@settings(max_examples=15, deadline=None)
@given(
    table=TABLES,
    order=ORDERS,
    few=st.booleans(),
    size=st.integers(1, 4),
    turns=st.lists(st.booleans(), min_size=3, max_size=8),
    from_the_end=st.booleans(),
)
@example(
    table=[(None, 0), ("a", 1), ("a", 2), ("", 1), ("b", 0), (None, 2), ("b", 1)],
    order=("-lane", "size"),
    few=False,
    size=2,
    turns=[False, False, True, False, False, True, True, True],
    from_the_end=True,
)
async def test_pages_turned_both_ways_are_the_list(
    table: list[tuple[str | None, int]],
    order: tuple[str, ...],
    few: bool,
    size: int,
    turns: list[bool],
    from_the_end: bool,
) -> None:
    cards = [Card(f"c{number}", lane, size) for number, (lane, size) in enumerate(table)]
    query = select(CARDS).where(col("size") > 0) if few else select(CARDS)
    query = query.order_by(*order).with_total() if order else query.with_total()
    whole = listed(query, cards)
    query = query.limit(size)
    async with opened(cards) as client:
        for policy in POLICIES:
            low, high = (max(0, len(whole) - size), len(whole)) if from_the_end else (0, min(size, len(whole)))
            page = await client.query(query.before("") if from_the_end else query, policy=policy)
            for forward in [None, *turns]:
                if forward is True and page.has_next:
                    low, high = high, min(high + size, len(whole))
                    page = await client.query(query.after(page.end), policy=policy)
                elif forward is False and page.has_previous:
                    low, high = max(0, low - size), low
                    page = await client.query(query.before(page.start), policy=policy)
                assert ids(page) == whole[low:high], policy
                assert (page.has_previous, page.has_next) == (low > 0, high < len(whole)), policy
                assert page.total == len(whole), policy


async def test_behind_the_last_page_there_is_an_empty_one_and_the_way_back() -> None:
    async with opened([Card(f"c{number}", None, number) for number in range(5)]) as client:
        query = select(CARDS).limit(2)
        last = await client.query(query.before(""))
        assert (ids(last), last.has_next, last.has_previous) == (["c3", "c4"], False, True)
        beyond = await client.query(query.after(last.end))
        assert (ids(beyond), beyond.start, beyond.end, beyond.has_next) == ([], "", "", False)
        assert ids(await client.query(query.before(beyond.start))) == ["c3", "c4"]
        assert ids(await client.query(query.after(beyond.end))) == ["c0", "c1"]


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_cursor_keeps_its_place_whatever_is_written_before_it(policy: str) -> None:
    async with opened([Card(f"c{number}", None, number) for number in range(6)]) as client:
        query = select(CARDS).limit(2)
        middle = await client.query(query.after((await client.query(query, policy=policy)).end), policy=policy)
        assert ids(middle) == ["c2", "c3"]
        for both in ("direct-local", "direct-remote"):
            await client.store(CARDS).insert(Card("c00", None, 9), policy=both)
            await client.store(CARDS).delete_many(["c1", "c3"], policy=both)  # the row of the cursor as well
        assert ids(await client.query(query.after(middle.end), policy=policy)) == ["c4", "c5"]
        assert ids(await client.query(query.before(middle.start), policy=policy)) == ["c0", "c00"]


class Busy:
    """Plugin: a node that asks the device, and writes a row whenever a page was read, ``times`` times at most."""

    id = "busy"
    provides: Sequence[PortKey[object]] = ()
    needs: Sequence[PortKey[object]] = (LOCAL_DATABASE,)  # type: ignore[assignment]  # PortKey is invariant

    def __init__(self, times: int) -> None:
        self.left = times
        self.client: Client | None = None
        self._local: LocalQueryNode | None = None

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self._local = LocalQueryNode(context.require(LOCAL_DATABASE))
        context.register_node("busy", self)
        context.register_policy(Policy("busy", node("busy"), None))
        yield

    async def query(self, request: QueryRequest) -> QueryResult:
        assert self._local is not None
        result = await self._local.query(request)
        if result.rows and self.left and self.client is not None:
            self.left -= 1
            await self.client.store(CARDS).insert(Card(f"z{self.left}", None, 0), policy="direct-local")
        return result


@pytest.mark.parametrize(("times", "total"), [(0, 1), (1, 2), (2, 3)])
async def test_a_page_and_its_total_are_of_one_commit_when_others_write_in_between(times: int, total: int) -> None:
    busy = Busy(times)
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(":memory:")), busy]
    async with open_client(SCHEMA, plugins=plugins) as client:
        await client.store(CARDS).insert(Card("c0", None, 0), policy="direct-local")
        busy.client = client
        page = await client.query(select(CARDS).with_total(), policy="busy")
        assert (len(page), page.total, busy.left) == (total, total, 0)


async def test_a_total_is_only_there_when_it_was_asked_for() -> None:
    async with opened([Card("c0", None, 0), Card("c1", None, 1)]) as client:
        assert (await client.query(select(CARDS).limit(1))).total is None
        assert (await client.query(select(CARDS).limit(1).with_total())).total == 2


@pytest.mark.parametrize("way", ["after", "before"])
async def test_a_cursor_of_another_query_says_whose_it_is(way: str) -> None:
    async with opened([Card("c0", None, 0)]) as client:
        page = await client.query(select(CARDS).order_by("-size"))
        with pytest.raises(
            QueryError,
            match=rf"^{way}: the cursor belongs to a query of cards ordered by -size, id, and this is a query of cards "
            "ordered by lane, id; take it from a page of the same query$",
        ):
            await client.query(getattr(select(CARDS).order_by("lane"), way)(page.end))
        with pytest.raises(QueryError, match=rf"^{way}: the cursor is damaged; take it from a page of the same query$"):
            await client.query(getattr(select(CARDS), way)("nonsense"))
