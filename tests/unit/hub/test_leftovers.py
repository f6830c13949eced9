"""A hub's file in which an older version has left a half of a transaction: it is found as the hub opens, and taken back."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import pytest

from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.mutations import Op
from atoma.ports.service import Principal
from atoma.schema import Scale, Schema, StoreSpec
from atoma.testing.queries import rows_of
from tests.unit.hub.kit import SCOPE, Client, card, hub_on, pull_all, snapshot_page
from tests.unit.hub.test_pushing import refuse_bad_titles


def forget_the_last(connection: sqlite3.Connection, scope: str) -> None:
    """Take the head of a scope back to before its last transaction, and say of that mutation that it was refused."""
    head, before = (
        "SELECT head FROM _atoma_hub_scope WHERE scope=?",
        "SELECT hash FROM _atoma_hub_tx WHERE scope=? AND seq=?",
    )
    last = connection.execute(head, (scope,)).fetchone()[0] - 1
    found = connection.execute(before, (scope, last)).fetchone()
    if found is None:
        connection.execute("DELETE FROM _atoma_hub_scope WHERE scope=?", (scope,))
    else:
        connection.execute("UPDATE _atoma_hub_scope SET head=?, head_hash=? WHERE scope=?", (last, found[0], scope))
    connection.execute(
        "UPDATE _atoma_hub_outcome SET status='rejected', seq=0 WHERE scope=? AND seq=?", (scope, last + 1)
    )


async def leave_a_half(path: Path, scope: str) -> None:
    """A unit whose last row the file refused: one row is changed, one is made, one is deleted, and nothing tells of it."""
    async with hub_on(path) as hub:
        client = Client.of(hub, "a")
        for id in ("changed", "deleted"):
            await client.do(Op("create", "cards", id, card("as it was")))
        unit = [
            Op("upsert", "cards", "changed", card("half")),
            Op("upsert", "cards", "made", card("half")),
            Op("delete", "cards", "deleted"),
        ]
        if scope != SCOPE:
            del unit[2]
        assert (await Client.of(hub, "b").do(*unit, base=2, scope=scope)).status == "applied"
    refuse_bad_titles(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        forget_the_last(connection, scope)


def halves(path: Path) -> list[tuple[str, int]]:
    """Scopes with a sequence in the log that their head has not come to."""
    with closing(sqlite3.connect(path)) as connection:
        sql = (
            "SELECT t.scope, t.seq FROM _atoma_hub_tx t LEFT JOIN _atoma_hub_scope s ON s.scope=t.scope "
            "WHERE t.seq>coalesce(s.head, 0)"
        )
        return connection.execute(sql).fetchall()


@pytest.mark.paths
async def test_it_is_taken_back_told_and_heard_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "hub.db"
    await leave_a_half(path, SCOPE)
    assert halves(path) == [(SCOPE, 3)]
    with caplog.at_level(logging.WARNING, "atoma.hub"):
        async with hub_on(path) as hub:
            assert halves(path) == []
            client = Client.of(hub, "reader")
            rows, end = await pull_all(client)
            assert {id: row["title"] for (_, id), row in rows.items()} == {
                "changed": "as it was",
                "deleted": "as it was",
            }
            assert end.seq == 3, "whoever has read the half hears that it is gone"
            assert rows == (await snapshot_page(client))[0]
            outcome = await Client.of(hub, "d").do(Op("create", "cards", "next", card("next")), base=3)
            assert (outcome.status, outcome.seq) == ("applied", 4)
    (told,) = [record.getMessage() for record in caplog.records if "a half of a transaction" in record.getMessage()]
    assert f"scope {SCOPE!r}" in told
    assert all(repr(id) in told for id in ("changed", "made", "deleted"))


async def test_a_scope_that_was_never_written_otherwise_is_empty_again(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    await leave_a_half(path, "other")
    assert halves(path) == [("other", 1)]
    async with hub_on(path) as hub:
        rows, end = await pull_all(Client.of(hub, "reader"), "other")
        assert (rows, end.seq) == ({}, 1)
        assert (await Client.of(hub, "d").do(Op("create", "cards", "1", card("new")), scope="other")).seq == 2


async def test_rows_that_the_file_takes_back_no_more_stay_and_the_scope_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    await leave_a_half(path, SCOPE)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TRIGGER no_more BEFORE INSERT ON cards WHEN NEW.title = 'as it was' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        connection.commit()
    async with hub_on(path) as hub:
        assert halves(path) == []
        assert (await Client.of(hub, "d").do(Op("create", "cards", "next", card("next")), base=2)).seq == 3


async def test_a_sound_file_is_left_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "hub.db"
    async with hub_on(path) as hub:
        await Client.of(hub, "a").do(Op("create", "cards", "1", card("t")))
        await Client.of(hub, "b").do(Op("create", "cards", "1", card("t")), scope="other")
    async with hub_on(path) as hub:
        assert (await hub.compact(keep=0)).transactions == 2
    async with hub_on(path) as hub:
        assert [state.scopes[0].head for state in [await Client.of(hub, "c").open("main", "other")]] == [1]
    assert [record for record in caplog.records if "half" in record.getMessage()] == []


@dataclass(frozen=True)
class Trip:
    id: str
    price: Annotated[Decimal, Scale(2)] = Decimal(0)
    took: timedelta = timedelta()
    stops: list[str] = field(default_factory=list)
    board: str = SCOPE


TRIPS = StoreSpec("trips", Trip, scope="board")


async def test_values_that_are_kept_in_another_form_are_what_they_were(tmp_path: Path) -> None:
    path, schema = tmp_path / "hub.db", Schema(TRIPS)
    was, half = (
        Trip("1", Decimal(price), timedelta(hours=hours), stops)
        for price, hours, stops in (("-1.50", -30, ["a"]), ("2", 900, []))
    )
    async with hub_on(path, schema=schema) as hub:
        client = Client.of(hub, "a")
        for base, trip in enumerate((was, half)):
            image = {name: value for name, value in TRIPS.pack(TRIPS.encode(trip)[1]).items() if name != "board"}
            assert (await client.do(Op("upsert", "trips", "1", image), base=base)).status == "applied"
    with closing(sqlite3.connect(path)) as connection, connection:
        forget_the_last(connection, SCOPE)
    async with hub_on(path, schema=schema) as hub:
        found = await hub.service(Principal("ann")).query(QueryRequest(rows_of("trips"), OperationContext("t")))
        assert [TRIPS.read(row) for row in found.rows] == [was]
