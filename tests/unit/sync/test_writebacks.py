"""What comes back is a value: taken over once, in order, by the part that the client has for replication and nobody else."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from atoma.contracts.sync import Cursor, PullReply, StoreChanges
from atoma.contracts.writeback import Writeback
from atoma.errors import PluginError
from atoma.ports import Environment
from atoma.ports.engine import Commit
from atoma.runtime.applying import ApplyFlow
from atoma.schema import Schema, StoreSpec
from atoma.sync.page import confirmed_rows
from atoma.sync.staging import LivePage, SnapshotBegun
from atoma.sync.writebacks import CHANGES, ReplicationPart
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.engine import SQLiteLocalDatabase
from tests.paths import memory

SYNCED = frozenset({"notes"})
AT = [Cursor(b"e", seq, bytes([seq])) for seq in range(3)]


@dataclass(frozen=True, kw_only=True)
class Note:
    id: str
    text: str = ""


SCHEMA = Schema(StoreSpec("notes", Note))


async def page(number: int, text: str) -> Writeback:
    """The page behind cursor ``number``, with one row."""
    changes = StoreChanges("notes", 1, ("id", "text"), ((number + 1, "1", text),))
    reply = PullReply("main", AT[number], AT[number + 1], (changes,), head=2)
    rows = await confirmed_rows(SCHEMA, reply, SYNCED)
    return Writeback(rows=rows, replication=LivePage(msgspec.structs.replace(reply, stores=()), 0))


@asynccontextmanager
async def opened() -> AsyncGenerator[tuple[SQLiteLocalDatabase, ApplyFlow, list[int]]]:
    """A file that follows the log of ``main`` from its beginning, the way into it, and the commits that were told."""
    async with SQLiteEngine(memory()).open_database(SCHEMA, Environment(executor="inline"), SYNCED) as database:
        apply = ApplyFlow(database, SYNCED, lambda: ReplicationPart(Environment().ids))
        await apply.apply_writeback(Writeback(replication=SnapshotBegun("main", empty=True)))
        await database.apply(lambda tx: tx.scopes.advance("main", Cursor(), AT[0]))
        told: list[int] = []

        def heard(commit: Commit) -> None:
            told.append(len(commit.changes))

        database.subscribe_commits(heard)
        yield database, apply, told


async def text_and_cursor(database: SQLiteLocalDatabase) -> tuple[object, int]:
    row = await database.inspect(lambda tx: tx.rows.read("notes", "1"))
    at = await database.inspect(lambda tx: tx.scopes.read("main"))
    return None if row is None else row.image["text"], at.cursor.seq


@pytest.mark.paths
async def test_a_page_is_taken_over_once_and_an_older_one_never_again() -> None:
    async with opened() as (database, apply, told):
        first, second = await page(0, "first"), await page(1, "second")
        assert (await apply.apply_writeback(first)).told is not None
        assert (await apply.apply_writeback(first)).told is None
        assert (told, await text_and_cursor(database)) == ([1], ("first", 1)), (
            "one change event for the same value twice"
        )
        await apply.apply_writeback(second)
        assert (await apply.apply_writeback(first)).told is None
        assert (told, await text_and_cursor(database)) == ([1, 1], ("second", 2)), "the older version is ignored"


async def test_a_page_that_comes_too_early_leaves_no_row_behind() -> None:
    async with opened() as (database, apply, told):
        assert (await apply.apply_writeback(await page(1, "second"))).told is None
        assert (told, await text_and_cursor(database)) == ([], (None, 0))


@pytest.mark.parametrize("foreign", [lambda tx: tx.outbox.every(), "a word", StoreSpec])
async def test_nothing_but_what_replication_knows_is_carried_out(foreign: object) -> None:
    async with opened() as (database, apply, told):
        early = msgspec.structs.replace(await page(0, "first"), replication=foreign)
        with pytest.raises(PluginError, match="no part of this client"):
            await apply.apply_writeback(early)
        assert (told, await text_and_cursor(database)) == ([], (None, 0)), "its rows are not taken over either"


async def test_without_replication_nobody_carries_its_changes_out() -> None:
    async with SQLiteEngine(memory()).open_database(SCHEMA, Environment(executor="inline"), SYNCED) as database:
        with pytest.raises(PluginError, match="no part of this client"):
            await ApplyFlow(database).apply_writeback(Writeback(replication=SnapshotBegun("main")))


def functions_in(annotation: object, seen: set[object]) -> list[str]:
    """Where a value of this type could hold a function."""
    if annotation in seen:
        return []
    seen.add(annotation)
    found = [str(annotation)] if "Callable" in str(annotation) and not isinstance(annotation, type) else []
    for argument in get_args(annotation):
        found += functions_in(argument, seen) if argument is not Ellipsis and not isinstance(argument, list) else []
    if isinstance(annotation, type) and (
        dataclasses.is_dataclass(annotation) or issubclass(annotation, msgspec.Struct)
    ):
        for name, field in get_type_hints(annotation).items():
            found += [f"{annotation.__name__}.{name}: {where}" for where in functions_in(field, seen)]
    return found


def test_what_comes_back_holds_no_function() -> None:
    assert [where for change in (*CHANGES, Writeback) for where in functions_in(change, set())] == []

    @dataclass(frozen=True)
    class Planted:
        inner: tuple[dict[str, Callable[[], Any]], ...]

    assert functions_in(Planted, set()), "the check sees one that is hidden"
    assert [change for change in CHANGES if change.__setattr__ is object.__setattr__] == [], "and none can be changed"
