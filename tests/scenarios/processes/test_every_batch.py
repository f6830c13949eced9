"""Every batch is compared, while a tool and another program write to the file: all queries show one state, at every commit.

What one state is, is told by the query for every row: it has to be a state that the ledger was in. What each other query shows at the
same commit has to be what the reference makes of these very rows.
"""

from __future__ import annotations

import itertools
import random
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from atoma.client import Client
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import StoredRow
from atoma.ports import LIVE_QUERIES, LiveQueries, apply_batch
from atoma.ports.live import ResultRow
from atoma.query import Query, col, count, max_, min_, select, sum_
from atoma.query.binding import asked
from atoma.query.evaluate import evaluate
from atoma_stores.changes import CommitDelta, CommitListener
from atoma_stores.live.dispatch import LocalLiveQueries
from atoma_stores.live.source import LiveSource, Snapshot
from tests.scenarios.processes.ledger import ACCOUNTS, EACH, LEDGER, SCHEMA, Account, fill, move, open_ledger, scripts
from tests.scenarios.processes.test_writes_of_others import run, write_raw

BY, AMOUNT = LEDGER.col(lambda row: row.by), LEDGER.col(lambda row: row.amount)
ROUNDS_MAX = 5
QUERIES: dict[str, Query[Any]] = {
    "a window": select(LEDGER).order_by("-amount").limit(3),
    "a window further on": select(LEDGER).order_by("amount", "-place").offset(2).limit(4),
    "a filter": select(LEDGER).where(col("amount") > EACH),
    "equal values": select(LEDGER).where(col("by") == "raw").order_by("-place"),
    "a range": select(LEDGER).where(col("place").between(2, 7)),
    "columns": select(LEDGER).columns(BY, AMOUNT).order_by("place"),
    "different values": select(LEDGER).columns(BY).distinct(),
    "groups": select(LEDGER).columns(BY, count(), sum_(AMOUNT), min_(AMOUNT), max_(AMOUNT)).group_by(BY),
    "groups that are many": select(LEDGER).columns(BY, count()).group_by(BY).having(count() > 2),
    "a number": select(LEDGER).columns(count()),
}
WHOLE = "every row"


class Oracle:
    """Follows queries and compares what they show at every commit.

    Attributes:
        compared: How often each query was compared.
        full: How often it had rows then.
        writers: Whose last write a state had in it.
    """

    def __init__(self, queries: dict[str, Query[Any]]) -> None:
        self._bound = {name: asked(query, SCHEMA).query for name, query in queries.items()}
        self._shown: dict[str, list[tuple[int, tuple[ResultRow, ...]]]] = {name: [] for name in queries}
        self.compared: Counter[str] = Counter()
        self.full: Counter[str] = Counter()
        self.writers: Counter[str] = Counter()

    async def follow(self, live: LiveQueries, name: str, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep what the query of that name shows, at each commit that it reports."""
        rows: tuple[ResultRow, ...] = ()
        async with live.open_live(self._bound[name]) as batches:
            async for batch in batches:
                rows = apply_batch(rows, batch)
                if not self._shown[name]:
                    task_status.started()
                self._shown[name].append((batch.commit, rows))

    def at(self, name: str, commit: int) -> tuple[ResultRow, ...] | None:
        """What a query showed at ``commit``; None when it had not begun."""
        return next((rows for told, rows in reversed(self._shown[name]) if told <= commit), None)

    def rows(self) -> list[Account]:
        """Every row, as it was shown last."""
        whole = cast("tuple[StoredRow, ...]", self._shown[WHOLE][-1][1])
        return [LEDGER.decode(row.id, row.image) for row in whole]

    def compare(self) -> None:
        """Compare every query with the reference, at every commit that any of them has reported."""
        for commit in sorted({told for shown in self._shown.values() for told, _ in shown}):
            whole = cast("tuple[StoredRow, ...] | None", self.at(WHOLE, commit))
            if whole is None:
                continue
            amounts = [cast("int", row.image["amount"]) for row in whole]
            assert (len(amounts), sum(amounts)) == (ACCOUNTS, ACCOUNTS * EACH), f"no state of the ledger, at {commit}"
            self.writers.update({str(row.image["by"]).rstrip(".") for row in whole})
            for name, query in self._bound.items():
                self._compare_one(name, query, commit, whole)

    def _compare_one(self, name: str, query: BoundQuery, commit: int, whole: tuple[StoredRow, ...]) -> None:
        shown = self.at(name, commit)
        if shown is None:
            return
        wanted = tuple(evaluate(query, {LEDGER.name: whole}))
        assert [_plain(row) for row in shown] == [_plain(row) for row in wanted], f"{name}, at commit {commit}"
        self.compared[name] += 1
        self.full[name] += bool(shown)


def _plain(row: object) -> object:
    """What tells rows apart: of a row its id and values; the types of cells count."""
    if isinstance(row, StoredRow):
        return row.id, row.version, {name: (type(value), value) for name, value in row.image.items()}
    return [(type(cell), cell) for cell in cast("tuple[object, ...]", row)]


class Lagging:
    """A database whose snapshots are read a while after they were opened, so that commits are heard in between.

    Attributes:
        between: How many were.
    """

    def __init__(self, source: LiveSource, seed: int) -> None:
        self._source = source
        self._random = random.Random(seed)
        self.between = 0

    def subscribe_commits(self, listener: CommitListener) -> Callable[[], None]:
        return self._source.subscribe_commits(listener)

    async def hear_others(self) -> None:
        await self._source.hear_others()

    @asynccontextmanager
    async def open_snapshot(self) -> AsyncIterator[Snapshot]:
        heard: list[CommitDelta] = []
        async with self._source.open_snapshot() as snapshot:
            undo = self._source.subscribe_commits(heard.append)
            try:
                await trio.sleep(self._random.choice((0, 0.002, 0.01)))
            finally:
                undo()
            self.between += sum(delta.commit > snapshot.commit for delta in heard)
            yield snapshot


@asynccontextmanager
async def compared(client: Client, seed: int) -> AsyncIterator[Oracle]:
    """Follow every query for as long as the block runs, then wait until all has come, and compare."""
    live = client._planes.find(LIVE_QUERIES)
    assert isinstance(live, LocalLiveQueries)
    lag = live._source = Lagging(live._source, seed)
    oracle = Oracle({**QUERIES, WHOLE: select(LEDGER).order_by("id")})
    async with trio.open_nursery() as nursery:
        for name in (*QUERIES, WHOLE):
            await nursery.start(oracle.follow, live, name)
        yield oracle
        with trio.fail_after(60):
            while oracle.rows() != [*await client.query(select(LEDGER).order_by("id"))]:
                await trio.sleep(0.01)
        await trio.sleep(0.1)  # batches that are in the readers' hands
        nursery.cancel_scope.cancel()
    oracle.compare()
    assert lag.between, "no commit came between a snapshot and what was read in it"


async def churn(client: Client, path: str, turns: int, seed: int) -> None:
    """For as long as another program takes for its turns, this one and a tool write at the same time."""
    tool = shutil.which("sqlite3")
    async with trio.open_nursery() as nursery:

        async def own() -> None:
            while True:
                await move(client, 1, f"own{seed}")
                await trio.sleep(0.001)

        async def raw() -> None:
            for turn in itertools.count():
                some = list(scripts(5, seed + turn))
                if tool is not None:
                    await run([tool, "-cmd", ".timeout 5000", path], "\n".join(some))
                for script in some if tool is None else ():
                    await trio.to_thread.run_sync(write_raw, path, script)

        nursery.start_soon(own)
        nursery.start_soon(raw)
        await run([sys.executable, "-m", "tests.scenarios.processes.ledger", path, str(turns), f"other{seed}"])
        nursery.cancel_scope.cancel()


async def follow_and_compare(path: str, turns: int, seed: int) -> Oracle:
    async with open_ledger(path) as client:
        await fill(client)
        async with compared(client, seed) as oracle:
            for _ in range(ROUNDS_MAX):
                await churn(client, path, turns, seed)
                if f"other{seed}" in oracle.writers:  # its rows may all have been written over before anybody looked
                    break
    for name in QUERIES:
        assert oracle.compared[name] >= turns // 4, f"{name} was hardly compared: {oracle.compared}"
    always = {"a window", "a window further on", "a range", "columns", "different values", "groups", "a number"}
    assert all(oracle.full[name] for name in always), oracle.full
    assert {"raw", f"own{seed}", f"other{seed}"} <= oracle.writers.keys(), "somebody has written nothing"
    return oracle


async def test_every_batch_is_one_state_while_a_tool_and_another_program_write(tmp_path: Path) -> None:
    await follow_and_compare(str(tmp_path / "ledger.db"), 40, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
async def test_every_batch_is_one_state_for_longer(tmp_path: Path, seed: int) -> None:
    await follow_and_compare(str(tmp_path / "ledger.db"), 1_000, seed)
