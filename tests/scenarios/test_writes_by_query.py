"""``update_where`` and ``delete_where`` write the rows that match in the moment of the write, as one unit, or nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.client import Client, open_client
from atoma.errors import ConflictError, PolicyNotAllowed, QueryError, ValidationError
from atoma.hub import AllowLoopback, open_hub
from atoma.ports import seeded_environment
from atoma.query import col, select
from atoma.schema import Index, Schema, StoreSpec
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.engine import SQLiteLocalDatabase
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True)
class Card:
    id: str
    lane: str = "todo"
    rank: int = 0
    board: str = "main"


CARDS = StoreSpec("cards", Card, scope="board", indexes=[Index("rank", unique=True)])
SCHEMA = Schema(CARDS)
TODO = select(CARDS).where(col("lane") == "todo").where(col("board") == "main")


@asynccontextmanager
async def local(path: Path) -> AsyncGenerator[Client]:
    async with open_client(
        SCHEMA, plugins=[LocalExecution(SQLiteEngine(path))], environment=seeded_environment(1)
    ) as client:
        yield client


async def lanes(client: Client) -> dict[str, str]:
    return {card.id: card.lane for card in await client.query(select(CARDS), policy="direct-local")}


def some(count: int, **values: Any) -> list[Card]:
    return [Card(f"{at:04}", rank=at, **values) for at in range(count)]


async def test_what_matches_is_changed_and_removed(tmp_path: Path) -> None:
    async with local(tmp_path / "a.db") as client:
        await client.store(CARDS).insert_many([*some(4), Card("x", "done", 9)])
        assert await client.update_where(TODO.where(col("rank") > 1), lane="done") == ("0002", "0003")
        assert await client.update_where(TODO, {"lane": "doing"}) == ("0000", "0001")
        assert await client.update_where(TODO, lane="done") == ()
        assert await client.delete_where(select(CARDS).where(col("lane") == "done").order_by("-rank").limit(2)) == (
            "x",
            "0003",
        )
        assert await lanes(client) == {"0000": "doing", "0001": "doing", "0002": "done"}


@pytest.mark.parametrize("always", [False, True])
async def test_a_row_that_comes_between_question_and_write_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    """Somebody else writes in the worst moment: after the query was asked, before the transaction begins."""
    commit, late = SQLiteLocalDatabase.commit, 100
    async with local(tmp_path / "a.db") as client:
        await client.store(CARDS).insert_many(some(2))

        async def commit_late(self: SQLiteLocalDatabase, request: Any, stages: Any) -> Any:
            nonlocal late
            if request.matches is not None and (always or late == 100):
                late += 1
                await client.store(CARDS).insert(Card(f"late {late}", rank=late))
            return await commit(self, request, stages)

        monkeypatch.setattr(SQLiteLocalDatabase, "commit", commit_late)
        if always:
            with pytest.raises(ConflictError, match="other rows matched each of 5 times"):
                await client.update_where(TODO, lane="done")
            assert set((await lanes(client)).values()) == {"todo"}
        else:
            assert await client.update_where(TODO, lane="done") == ("0000", "0001", "late 101")
            assert set((await lanes(client)).values()) == {"done"}


async def test_what_cannot_be_one_write_is_refused_before_anything(tmp_path: Path) -> None:
    async with local(tmp_path / "a.db") as client:
        await client.store(CARDS).insert_many(
            [*some(1_001), Card("b", rank=-1, board="b"), Card("c", rank=-2, board="c")]
        )
        before = await lanes(client)
        for query, error, message in (
            (TODO, QueryError, r"finds more than 1,000 rows of 'cards'.*limit\(1000\)"),
            (select(CARDS).where(col("rank") < 0), PolicyNotAllowed, "these rows are of b, c"),
            (select(CARDS).distinct().columns(col("lane")), QueryError, "whole rows of one store"),
        ):
            with pytest.raises(error, match=message):
                await client.update_where(query, lane="done")
            with pytest.raises(error, match=message):
                await client.delete_where(query)
        with pytest.raises(ValidationError, match="no field 'lame'"):
            await client.update_where(TODO, lame="x")
        with pytest.raises(ConflictError):
            await client.update_where(TODO.limit(2), rank=7)  # a unique index
        assert await lanes(client) == before
        assert len(await client.update_where(TODO.limit(1000), lane="done")) == 1_000
        assert len(await client.update_where(TODO.limit(1000), lane="done")) == 1


async def test_it_is_one_mutation_whose_rows_are_fixed(tmp_path: Path) -> None:
    network = MemoryNetwork()

    @asynccontextmanager
    async def device(name: str) -> AsyncGenerator[Client]:
        plugins: list[Any] = [
            LocalExecution(SQLiteEngine(tmp_path / f"{name}.db")),
            Remote(MemoryTransport(network, site=name)),
            Sync([CARDS], ["main"]),
        ]
        async with open_client(SCHEMA, plugins=plugins, environment=seeded_environment(len(name))) as client:
            yield client

    async def settle(*clients: Client) -> None:
        with trio.fail_after(600):
            for client in clients:
                await client.sync.wait_idle()

    hub_store = SQLiteHubStore(tmp_path / "hub.db")
    async with open_hub(SCHEMA, hub_store, verifier=AllowLoopback(), environment=seeded_environment(9)) as hub:
        async with network.listen(hub), device("ann") as ann, device("benny") as ben:
            await ann.store(CARDS).insert_many(some(3))
            await settle(ann, ben)
            ann.sync.pause()
            assert await ann.update_where(TODO, lane="done") == ("0000", "0001", "0002")
            await trio.sleep(1)
            assert ann.sync.status.pending == 1
            await ben.store(CARDS).insert(Card("new", rank=50))
            await settle(ben)
            ann.sync.resume()
            await settle(ann, ben)
            wanted = {"0000": "done", "0001": "done", "0002": "done", "new": "todo"}
            assert await lanes(ann) == await lanes(ben) == wanted
            with pytest.raises(PolicyNotAllowed, match="writes elsewhere"):
                await ann.delete_where(TODO, policy="direct-remote")
            assert await lanes(ann) == wanted
