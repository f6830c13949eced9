"""Steps on PostgreSQL: every way to a version, a device three versions behind, processes of two versions, and what is refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.contracts.codec import decode
from atoma.contracts.mutations import Op
from atoma.contracts.values import HIDDEN
from atoma.errors import MigrationError, RemoteError, StoreBusy
from atoma.hub.lineage import next_hash
from atoma.schema import Convert, Index, Schema, Sql, StoreSpec
from atoma_stores.sql import migrating as of_rows
from atoma_stores.sql.hub import migrating as of_hubs
from atoma_stores.sql.hub.rows import read_outcome
from tests.scenarios.cli.kit import atoma
from tests.scenarios.migrations.test_three_versions_behind import EDITS, begin, check, expected
from tests.scenarios.migrations.versions import (
    RENAMED,
    TEAMS,
    VERSIONS,
    Item1,
    Item4,
    Place,
    items,
    rows,
    settle,
    today,
)
from tests.unit.hub.homes import PostgreSQLHome, home_of
from tests.unit.hub.kit import Client, Rows, hub_on, pull_all

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

from atoma_stores.postgres import hub_store
from atoma_stores.postgres.faults import FaultPlan
from atoma_stores.postgres.hub_store import PostgreSQLHubStore


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_store, "AGAIN_S", 0.1)


TABLE = "SELECT id, title, price, first, last, note FROM atoma.items ORDER BY id"


def columns(pg: PostgreSQLHome, store: str = "items") -> set[str]:
    found = pg.ask(
        f"SELECT attname::text FROM pg_attribute WHERE attrelid='atoma.{store}'::regclass AND attnum>0 AND NOT attisdropped"
    )
    return {str(row[0]) for row in found if not str(row[0]).startswith("_")}


@pytest.mark.parametrize("versions", [(1, 4), (1, 2, 4), (1, 2, 3, 4), (1, 3, 4), (2, 3), (2, 4), (3, 4)])
async def test_every_way_to_a_version_keeps_every_row(pg: PostgreSQLHome, versions: tuple[int, ...]) -> None:
    first, *others = versions
    made = [Item1(f"{at}", f"item {at}", at * 10, f"Ann{at} Lee", "red" if at % 2 else None) for at in range(9)]
    async with hub_on(pg.store(), schema=VERSIONS[first]) as hub:
        client = Client.of(hub, "a")
        for number, (id, image) in enumerate(images(first, made).items(), 1):
            client.write(Op("create", "items", id, image), version=first)
            assert [each.status for each in (await client.push(number)).outcomes] == ["applied"]
    pulled: Rows = {}
    for version in others:
        async with hub_on(pg.store(), schema=VERSIONS[version]) as hub:
            pulled, _ = await pull_all(Client.of(hub, f"v{version}"))
    wanted = images(others[-1], made)
    assert {id: image for (_, id), image in pulled.items()} == wanted, "as the log has them"
    spec = VERSIONS[others[-1]].stores["items"]
    found = pg.ask(f"SELECT id, {', '.join(spec.value_columns)} FROM atoma.items")
    rows = {str(id): dict(zip(spec.value_columns, values, strict=True)) for id, *values in found}
    assert rows == wanted
    if others[-1] == 4:
        assert [spec.decode(id, rows[id]) for id in sorted(rows)] == [today(item) for item in made]
    assert columns(pg) == {"id", *spec.value_columns}


def images(version: int, made: list[Item1]) -> dict[str, Any]:
    """These items as a version that has come by its steps from the first one has them."""
    plain = dict(map(VERSIONS[1].stores["items"].encode, made))
    past = VERSIONS[version].past(1).get("items")
    turned = plain if past is None else {id: past.upgrade(image) for id, image in plain.items()}
    return {id: {**({"note": ""} if version == 4 else {}), **image} for id, image in turned.items()}


async def test_a_device_three_versions_behind_meets_a_hub_that_was_migrated_before(
    pg: PostgreSQLHome, tmp_path: Path
) -> None:
    place = Place(tmp_path, pg.store())
    shown = await begin(place)
    async with place.hub(4), place.device("ann", 4) as ann:
        await check(place, shown, ann)
    assert place.table("ann") == pg.ask(TABLE)


async def test_a_device_three_versions_behind_meets_a_hub_that_is_migrated_after(
    pg: PostgreSQLHome, tmp_path: Path
) -> None:
    place = Place(tmp_path, pg.store())
    shown = await begin(place)
    async with place.hub(1), place.device("ann", 4) as ann:
        await until_stalled(ann)
        assert await rows(ann) == expected(shown)
        assert ann.sync.status.pending == EDITS
    async with place.hub(4), place.device("ann", 4) as ann:
        await check(place, shown, ann)
    assert place.table("ann") == pg.ask(TABLE)


async def test_a_device_three_versions_behind_meets_a_hub_that_is_never_migrated(
    pg: PostgreSQLHome, tmp_path: Path
) -> None:
    place = Place(tmp_path, pg.store())
    wanted = expected(await begin(place))
    async with place.hub(1), place.device("ann", 4) as ann:
        await items(ann).insert(Item4("zzz", "written today"))
        wanted["zzz"] = Item4("zzz", "written today")
        await until_stalled(ann)
        assert (await rows(ann), ann.sync.status.pending) == (wanted, EDITS + 1)


async def until_stalled(device: Any) -> None:
    with trio.fail_after(60):
        while (status := device.sync.status).state != "stalled":
            await trio.sleep(0.02)
    assert status.error.code == "SCHEMA_TOO_NEW"


async def test_a_device_of_before_is_shown_its_own_fields(pg: PostgreSQLHome, tmp_path: Path) -> None:
    place = Place(tmp_path, pg.store())
    async with place.hub(4), place.device("old", 1) as old, place.device("new", 4) as new:
        await items(new).insert(Item4("1", "Lamp", Decimal("12.55"), "Ann", "Lee", "a note"))
        await settle(new)
        await items(old).insert(Item1("2", "Desk", 250, "Bob Moe", "red"))
        await settle(old)
        await settle(new)
        assert (await rows(old))["1"] == Item1("1", "Lamp", 125, "Ann Lee")
        assert (await rows(new))["2"] == Item4("2", "Desk", Decimal(25), "Bob", "Moe")


# beside each other


async def test_steps_wait_for_no_process_of_before_and_say_what_to_do(pg: PostgreSQLHome, impatient: None) -> None:
    async with hub_on(pg.store(), schema=VERSIONS[1]) as old:
        client = Client.of(old, "a")
        await client.do(Op("create", "items", "1", VERSIONS[1].stores["items"].encode(Item1("1", "Lamp", 10))[1]))
        with pytest.raises(StoreBusy, match="on this machine\\): stop every one of them, then start this one"):
            async with hub_on(pg.store(), schema=VERSIONS[4]):
                raise AssertionError("opened")
        assert (await client.do(Op("patch", "items", "1", {"name": "Lamps"}), base=1)).status == "applied"
    async with hub_on(pg.store(), schema=VERSIONS[4]) as new:
        found, _ = await pull_all(Client.of(new, "b"))
        assert found["items", "1"]["title"] == "Lamps"
    verified = await PostgreSQLHubStore(pg.address()).verify(VERSIONS[4], next_hash, lambda *_: None)
    assert (verified.problems, verified.converted) == ([], 2)
    with pytest.raises(MigrationError, match="run the newer program"):
        async with hub_on(pg.store(), schema=VERSIONS[1]):
            raise AssertionError("opened")


async def test_a_process_of_before_that_had_lost_its_connections_touches_nothing_any_more(pg: PostgreSQLHome) -> None:
    """It is not there while the stores are converted, and would read what it finds as its own."""
    cut_off = FaultPlan(concerns=lambda _: True)
    async with hub_on(PostgreSQLHubStore(pg.address(), faults=cut_off), schema=VERSIONS[1]) as old:
        client = Client.of(old, "a")
        await client.do(Op("create", "items", "1", VERSIONS[1].stores["items"].encode(Item1("1", "Lamp", 10))[1]))
        cut_off.lost, cut_off.lasting = "before", True
        pg.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname=current_database() AND pid<>pg_backend_pid()"
        )
        async with hub_on(pg.store(), schema=VERSIONS[3]):
            cut_off.heal()
            client.write(Op("patch", "items", "1", {"price": 20}), base=1)
            for call in (client.pull, client.open, partial(client.push, 2)):
                with pytest.raises(RemoteError) as refused:
                    await call()
                assert (refused.value.remote_code, refused.value.remote_retryable) == ("BUSY", True)
        assert pg.ask("SELECT title, price FROM atoma.items") == [("Lamp", 100)]


# what is refused, and what cannot be converted


@dataclass(frozen=True)
class Doubt:
    id: str
    amount: str
    note: str = ""


@dataclass(frozen=True)
class Sure:
    id: str
    amount: int
    note: str = ""


UNSURE = Schema(StoreSpec("doubts", Doubt, soft_delete=True))
STEPS: Any = {2: [Convert("doubts.amount", int, was=str, back=str)]}
SURE = Schema(StoreSpec("doubts", Sure, soft_delete=True), version=2, steps=STEPS)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_what_cannot_be_converted_is_put_aside_and_what_is_hidden_stays_so(kind: str, tmp_path: Path) -> None:
    with home_of(kind, tmp_path) as home:
        async with hub_on(home.store(), schema=UNSURE) as hub:
            client = Client.of(hub, "a")
            for id, amount in (("good", "1"), ("bad", "one"), ("gone", "3")):
                assert (await client.do(Op("create", "doubts", id, {"amount": amount, "note": id}))).status == "applied"
            await client.do(Op("patch", "doubts", "gone", {HIDDEN: "2026-01-01T00:00:00.000000Z"}), base=3)
        async with hub_on(home.store(), schema=SURE) as hub:
            assert await Client.of(hub, "b").query("doubts") == {"good": {"amount": 1, "note": "good", HIDDEN: None}}
        table, aside = ("doubts", "_atoma_quarantine") if kind == "sqlite" else ("atoma.doubts", "atoma_hub.quarantine")
        found = home.ask(f"SELECT id, amount, {HIDDEN} IS NULL FROM {table} ORDER BY id")
        assert found == [("gone", 3, False), ("good", 1, True)]
        kept = home.ask(f"SELECT id, what, version, kept FROM {aside} ORDER BY what")
        assert [(*row[:3], json.loads(str(row[3]))["amount"]) for row in kept] == [
            ("bad", "a row", 1, "one"), ("bad", "an entry of the log", 1, "one"),
        ]  # fmt: skip


@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_whatever_a_hub_keeps_is_converted_portion_by_portion(
    kind: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (of_rows, of_hubs):
        monkeypatch.setattr(module, "PORTION", 2)
    made = [Item1(f"{at}", f"item {at}", at, "Ann Lee") for at in range(count)]
    with home_of(kind, tmp_path) as home:
        async with hub_on(home.store(), schema=VERSIONS[1]) as hub:
            ann, ben = Client.of(hub, "ann"), Client.of(hub, "ben")
            for at, (id, image) in enumerate(images(1, made).items()):
                for written in (id, f"gone {id}"):
                    await ann.do(Op("create", "items", written, {**image, "name": "new"}))
                await ann.do(Op("delete", "items", f"gone {id}"), base=4 * at + 2)
                last = await ann.do(Op("patch", "items", id, {"name": image["name"]}), base=4 * at + 1)
                assert last.seq == 4 * at + 4
                # the hub's side wins, which is a conflict with what ben had seen
                await ben.do(Op("patch", "items", id, {"name": "late"}), base=4 * at + 1)
        async with hub_on(home.store(), schema=VERSIONS[4]) as hub:
            assert {id: row for (_, id), row in (await pull_all(Client.of(hub, "c")))[0].items()} == images(4, made)
            assert await Client.of(hub, "c").query("items") == images(4, made)
        kept = [
            decode(bytes(packed), dict[str, Any])  # type: ignore[call-overload]
            for column, table in (("pre", "change"), ("post", "change"), ("last", "tombstone"))
            for (packed,) in home.ask(f"SELECT {column} FROM {{{table}}} WHERE {column} IS NOT NULL")
        ]
        found: Any = home.ask("SELECT detail FROM {outcome} WHERE detail IS NOT NULL")
        told = [conflict for (detail,) in found for conflict in read_outcome(0, "", "", 0, bytes(detail)).conflicts]
        assert [conflict.fields for conflict in told] == [("title",)] * count
        for turned, of_each in ((kept, 6), ([dict[str, Any](conflict.current or {}) for conflict in told], 1)):
            assert {frozenset(image) for image in turned} == {frozenset({"title", "price", "first", "last"})}
            assert sorted(image["price"] for image in turned) == [
                10 * at for at in range(count) for _ in range(of_each)
            ], "once"


async def test_other_names_touch_no_row_and_may_be_the_scopes(pg: PostgreSQLHome) -> None:
    async with hub_on(pg.store(), schema=Schema(TEAMS)) as hub:
        await Client.of(hub, "a").do(Op("create", "teams", "1", {"word": "a", "team": "main"}))
    before = pg.ask("SELECT ctid::text FROM atoma.teams")
    for _ in range(2):
        async with hub_on(pg.store(), schema=RENAMED) as hub:
            rows, _ = await pull_all(Client.of(hub, "b"))
            assert rows == {("teams", "1"): {"text": "a", "club": "main", "more": 3}}
    assert pg.ask("SELECT ctid::text FROM atoma.teams") == before


UNFIT = (
    (3_000, "1", '"Eve Moe"'), (0, "1e400", '"Eve Moe"'), (0, "1e5000", '"Eve Moe"'), (0, '"x"', '"Eve Moe"'),
    (0, "[1]", '"Eve Moe"'), (0, "1", "3"), (0, "1", "null"),
)  # fmt: skip
"""How deep the name of an item lies in lists, its price and its person, as JSON: what no version of an item takes."""


async def test_what_other_programs_have_left_is_decided_in_todays_terms(pg: PostgreSQLHome) -> None:
    async with hub_on(pg.store(), schema=VERSIONS[1]):
        pass
    values = '{{"name": "Lamp", "price": 125, "person": "Eve Moe"}}'  # two braces are one in a template
    pg.ask(f"SELECT atoma.write('main', 'items', 'insert', '1', '{values}', 'key')")
    for at, (deep, price, person) in enumerate(UNFIT):
        pg.ask(
            f"SELECT atoma.write('main', 'items', 'insert', 'unfit', ('{{{{\"name\": ' || repeat('[', {deep}) || '\"\"' || repeat(']', {deep})"
            f" || ', \"price\": {price}, \"person\": {person}}}}}')::jsonb, 'unfit-{at}')"
        )
    async with hub_on(pg.store(), schema=VERSIONS[4]) as hub:
        client = Client.of(hub, "a")
        with trio.fail_after(60):
            while not (rows := await client.query("items")):
                await trio.sleep(0.02)
            while pg.ask("SELECT count(*) FROM {intake} WHERE answer IS NULL") != [(0,)]:
                await trio.sleep(0.02)
    assert pg.ask("SELECT key FROM {intake} WHERE answer->>'ok'='true'") == [("key",)]
    assert rows["1"] == {"title": "Lamp", "price": 1250, "first": "Eve", "last": "Moe", "note": ""}


async def test_what_does_not_fit_is_refused_as_a_whole(pg: PostgreSQLHome) -> None:
    async with hub_on(pg.store(), schema=UNSURE) as hub:
        for id in ("1", "01"):
            await Client.of(hub, id).do(Op("create", "doubts", id, {"amount": id, "note": ""}))
    unique = StoreSpec("doubts", Sure, soft_delete=True, indexes=[Index("amount", unique=True)])
    sql = StoreSpec("doubts", Doubt, soft_delete=True)
    with pytest.raises(
        MigrationError, match="an index cannot be made: another doubts row has a value that must be unique"
    ):
        async with hub_on(pg.store(), schema=Schema(unique, version=2, steps=STEPS)):
            raise AssertionError("opened")
    with pytest.raises(MigrationError, match="store 'doubts' replicates"):
        async with hub_on(
            pg.store(), schema=Schema(sql, version=2, steps={2: [Sql("doubts", "UPDATE doubts SET note=''")]})
        ):
            raise AssertionError("opened")
    pg.ask("ALTER TABLE atoma.doubts ADD COLUMN by_hand text")
    with pytest.raises(MigrationError, match="has a column 'by_hand' that no step speaks of"):
        async with hub_on(pg.store(), schema=SURE):
            raise AssertionError("opened")
    pg.ask("ALTER TABLE atoma.doubts DROP COLUMN by_hand")
    async with hub_on(pg.store(), schema=UNSURE) as hub:
        assert len((await pull_all(Client.of(hub, "b")))[0]) == 2


async def test_a_server_that_fails_at_any_trip_leaves_one_version_or_the_other(
    pg: PostgreSQLHome, impatient: None
) -> None:
    made = [Item1(f"{at}", f"item {at}", at) for at in range(5)]
    async with hub_on(pg.store(), schema=VERSIONS[1]) as hub:
        for id, image in images(1, made).items():
            await Client.of(hub, id).do(Op("create", "items", id, image))
    skip, version = 0, "1"
    while version == "1":
        skip += 1
        plan = FaultPlan(skip=skip, lost="after", lasting=True)
        with contextlib.suppress(StoreBusy):
            async with hub_on(PostgreSQLHubStore(pg.address(), faults=plan), schema=VERSIONS[4]):
                raise AssertionError("the faults have come to an end")
        ((told,),) = pg.ask("SELECT value FROM {meta} WHERE key='schema_version'")
        version = str(told)
        assert columns(pg) == {"id", *VERSIONS[int(version)].stores["items"].value_columns}
    assert skip > 8
    assert pg.ask("SELECT id, title, price FROM atoma.items ORDER BY id") == [
        (i.id, i.name, i.price * 10) for i in made
    ]


# the command


async def test_a_plan_changes_nothing_and_the_command_does_it(pg: PostgreSQLHome) -> None:
    schema = "tests.scenarios.migrations.versions:NEWEST"
    made = [Item1(f"{at}", f"item {at}", at) for at in range(7)]
    async with hub_on(pg.store(), schema=VERSIONS[1]) as hub:
        for id, image in images(1, made).items():
            await Client.of(hub, id).do(Op("create", "items", id, image))
    before = columns(pg)
    told = await trio.to_thread.run_sync(lambda: atoma("migrate", pg.address(), "--schema", schema, "--plan"))
    assert (told.code, columns(pg)) == (0, before), told.err
    for words in (
        "a hub's database, version 1 → 4",
        "to 2: Rename(",
        "rows of items",
        "DROP COLUMN",
        "Nothing was changed.",
    ):
        assert words in told.out
    done = await trio.to_thread.run_sync(lambda: atoma("migrate", pg.address(), "--schema", schema, "--json"))
    found = json.loads(done.out)
    assert (found["since"], found["version"], found["rows"], found["copy"]) == (1, 4, {"items": 7}, None)
    assert len(pg.ask(TABLE)) == 7
    again = await trio.to_thread.run_sync(lambda: atoma("migrate", pg.address(), "--schema", schema, "--json"))
    assert json.loads(again.out)["statements"] == []
