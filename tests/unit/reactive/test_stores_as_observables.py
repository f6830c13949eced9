"""A store is an Observable of its rows: by contract, with operators, and without their names on it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import reactivex as rx
import trio
import trio.testing
from reactivex import Observable
from reactivex import operators as ops
from reactivex.abc import ObservableBase

from atoma import Schema, StoreSpec, open_client
from atoma.bindings import aio
from atoma.ports import seeded_environment
from atoma.runtime.rx_scheduler import open_rx_scheduler
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str = ""


CARDS = StoreSpec("cards", Card)
SCHEMA = Schema(CARDS)


def local() -> LocalExecution:
    return LocalExecution(SQLiteEngine(":memory:"))


@pytest.mark.virtual_time
async def test_a_store_is_an_observable_by_contract() -> None:
    async with open_client(SCHEMA, plugins=[local()]) as client:
        cards = client.store(CARDS)
        assert isinstance(cards, ObservableBase)
        assert not isinstance(cards, Observable), "its operators would hide count(), first() and the like"
        told: list[int] = []
        ended: list[str] = []
        subscription = cards.subscribe(lambda rows: told.append(len(rows)), on_completed=lambda: ended.append("left"))
        cards.subscribe(on_completed=lambda: ended.append("closed"))
        await trio.testing.wait_all_tasks_blocked()
        await cards.insert(Card(id="a"))
        await trio.testing.wait_all_tasks_blocked()
        subscription.dispose()
        await cards.insert(Card(id="b"))
        await trio.testing.wait_all_tasks_blocked()
        assert told == [0, 1]
        assert ended == []
    assert ended == ["closed"]


@pytest.mark.virtual_time
async def test_operators_and_time_work_on_a_store() -> None:
    async with open_client(SCHEMA, plugins=[local()]) as client, open_rx_scheduler(seeded_environment(1)) as scheduler:
        cards = client.store(CARDS)
        lulls: list[int] = []
        both: list[int] = []
        cards.pipe(ops.debounce(0.1, scheduler=scheduler), ops.map(len)).subscribe(lulls.append)
        rx.merge(cards.observe(), cards.observe()).pipe(ops.map(len)).subscribe(both.append)
        await trio.sleep(1)
        for id in "abc":
            await cards.insert(Card(id=id))
            await trio.sleep(0.05)
        await trio.sleep(1)
        assert lulls == [0, 3], "what comes within a tenth of a second is one value"
        assert both == [0, 0, 1, 1, 2, 2, 3, 3]


def test_stores_of_the_bindings_are_observables_too() -> None:
    async def follow() -> list[int]:
        told: list[int] = []
        async with aio.open_client(SCHEMA, plugins=[local()]) as client:
            cards = client.store(CARDS)
            assert isinstance(cards, ObservableBase)
            done = asyncio.Event()
            sizes = cards.pipe(ops.map(len), ops.do_action(told.append), ops.filter(lambda size: size == 1))
            sizes.subscribe(lambda size: done.set())
            await cards.insert(Card(id="a"))
            async with asyncio.timeout(20):
                await done.wait()
        return told

    with ThreadPoolExecutor(1) as thread:  # a loop of its own, whatever runs in this one
        assert thread.submit(asyncio.run, follow()).result()[-1] == 1


def test_a_program_that_opens_nothing_does_not_load_reactivex(tmp_path: Path) -> None:
    code = "import sys, atoma, atoma_stores.local, atoma_stores.sqlite; print('reactivex' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
