"""Steps convert every part of a row that a file holds; what cannot be converted is put aside and told."""

from __future__ import annotations

import json
import logging
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import pytest

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import Op
from atoma.contracts.values import RowImage
from atoma.errors import AtomaError, MigrationError, SchemaError
from atoma.hub.lineage import next_hash
from atoma.ports import LocalTx, seeded_environment
from atoma.schema import Convert, Drop, Index, MigrationStep, Rename, Schema, Split, Sql, StoreSpec
from atoma.schema.bodies import decode_body
from atoma_stores.sqlite import SQLiteHubStore
from atoma_stores.sqlite.device_files import inspect_file
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.faults import fault_vfs
from atoma_stores.sqlite.hub_files import verify
from tests.power.disk import noted_disk
from tests.power.platter import Platter, Survivors, lay_down
from tests.scenarios.migrations.versions import RENAMED, TEAMS, VERSIONS, Item1, Team2, today
from tests.unit.hub.kit import Client, hub_on
from tests.unit.stores.kit import insert, opened, update

SYNCED = frozenset({"items"})


def some_items(count: int) -> list[Item1]:
    dice = random.Random(count)
    return [
        Item1(f"{at:03}", f"item {at}", dice.randrange(-500, 500), dice.choice(["Ann Lee", "Bob", "", "Eve van Moe"]))
        for at in range(count)
    ]


async def make(path: Path, rows: Sequence[Item1], synced: frozenset[str] = frozenset()) -> None:
    spec = VERSIONS[1].stores["items"]

    def body(tx: LocalTx) -> None:
        for id, image in zip(*spec.encode_many(rows), strict=True):
            tx.rows.put("items", id, "main", image)

    async with opened(path, schema=VERSIONS[1], synced=synced) as device:
        await device.db.apply(body)


def read(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute(sql).fetchall()


async def shown(path: Path, version: int = 4) -> list[Any]:
    spec = VERSIONS[version].stores["items"]
    async with opened(path, schema=VERSIONS[version]) as device:
        return [spec.decode(id, image) for id, image in (await device.rows("items")).items()]


@pytest.mark.paths
@pytest.mark.parametrize("versions", [(4,), (2, 4), (2, 3, 4), (3, 4)])
async def test_every_way_to_a_version_ends_at_the_same(tmp_path: Path, versions: tuple[int, ...]) -> None:
    path, rows = tmp_path / "a.db", some_items(50)
    await make(path, rows)
    for version in versions:
        async with opened(path, schema=VERSIONS[version]):
            pass
    assert await shown(path) == [today(item) for item in rows]
    assert read(path, "SELECT name FROM sqlite_schema WHERE name GLOB '_atoma_new*'") == []
    assert read(path, "SELECT name FROM sqlite_schema WHERE name GLOB '_atoma_index*'") == [
        ("_atoma_index_items__title",), ("_atoma_index_items__price",)
    ]  # fmt: skip
    assert read(path, "SELECT id, price FROM items_readable ORDER BY items_readable.id LIMIT 1") == [
        ("000", f"{Decimal(rows[0].price) / 10:.2f}")
    ]


async def test_a_copy_of_before_stands_beside_the_file(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.db", some_items(5)
    await make(path, rows)
    (tmp_path / "a.db.version-1").write_text("of an earlier attempt")
    assert len(await shown(path)) == 5
    assert [file.name for file in sorted(tmp_path.iterdir()) if "version" in file.name] == ["a.db.version-1"]
    spec = VERSIONS[1].stores["items"]
    async with opened(tmp_path / "a.db.version-1", schema=VERSIONS[1]) as before:
        assert [spec.decode(id, image) for id, image in (await before.rows("items")).items()] == rows
    (tmp_path / "a.db.version-1").unlink()
    assert len(await shown(path)) == 5
    assert not (tmp_path / "a.db.version-1").exists(), "no steps were due any more"


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


UNSURE = Schema(StoreSpec("doubts", Doubt))
SURE = Schema(StoreSpec("doubts", Sure), version=2, steps={2: [Convert("doubts.amount", int, was=str, back=str)]})


@pytest.mark.paths
async def test_what_cannot_be_converted_is_put_aside_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.db"
    synced = frozenset({"doubts"})

    def put(id: str, amount: str) -> Any:
        return lambda tx: tx.base.put("doubts", id, "main", {"amount": amount, "note": id}, 1)

    async with opened(path, schema=UNSURE, synced=synced) as device:
        for id, amount in [("good", "1"), ("bad", "one"), ("edited", "2"), ("fixed", "two"), ("noted", "3")]:
            await device.db.apply(put(id, amount))
        await device.queue(update("edited", store="doubts", amount="many"))
        await device.queue(update("fixed", store="doubts", amount="4"))
        await device.queue(update("noted", store="doubts", amount="5", note="kept"))
        await device.queue(insert("new", {"amount": "none", "note": ""}, store="doubts"))
        bodies = await device.db.inspect(lambda tx: [item.body for item in tx.outbox.every()])
    with caplog.at_level(logging.WARNING):
        async with opened(path, schema=SURE, synced=synced) as device:
            assert await device.rows("doubts") == {
                "good": {"amount": 1, "note": "good"},
                "edited": {"amount": 2, "note": "edited"},
                "fixed": {"amount": 4, "note": "fixed"},
                "noted": {"amount": 5, "note": "kept"},
            }
            assert await device.db.inspect(lambda tx: [item.body for item in tx.outbox.every()]) == bodies
            await device.queue(update("edited", store="doubts", amount=7))
            assert (await device.rows("doubts"))["edited"]["amount"] == 7
            base = await device.db.inspect(
                lambda tx: [tx.base.read("doubts", id).image for id in ("edited", "fixed", "noted")]
            )
            assert base == [{"amount": 2, "note": "edited"}, None, {"amount": 3, "note": "noted"}]

    def said(tx: LocalTx) -> list[RowImage]:  # by a tool, which has no steps
        return [op.values for item in tx.outbox.every() for op in decode_body(item.meaning, tx.schema).ops]

    assert inspect_file(str(path), said, seeded_environment(1)) == [
        {},
        {"amount": 4},
        {"amount": 5, "note": "kept"},
        {"amount": 7},
    ]
    kept = read(path, "SELECT id, what, kept FROM _atoma_quarantine ORDER BY id, what")
    assert [(id, what, json.loads(image)["amount"]) for id, what, image in kept] == [
        ("bad", "a row", "one"),
        ("edited", "a row", "many"),
        ("edited", "a write that waits", "many"),
        ("fixed", "a confirmed row", "two"),
        ("new", "a row", "none"),
        ("new", "a write that waits", "none"),
    ]
    assert "6 values could not be converted; they are in quarantine" in caplog.text


@dataclass(frozen=True)
class Plain:
    id: str
    n: int = 0


async def test_a_statement_runs_where_nothing_replicates(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    before = Schema(StoreSpec("plain", Plain))
    after = Schema(StoreSpec("plain", Plain), version=2, steps={2: [Sql("plain", "UPDATE plain SET n=n*2")]})
    wrong = Schema(StoreSpec("plain", Plain), version=2, steps={2: [Sql("plain", "UPDATE plain SET m=1")]})
    async with opened(path, schema=before, synced=frozenset({"plain"})) as device:
        await device.write(insert("1", {"n": 4}, store="plain"))
    with pytest.raises(MigrationError, match="store 'plain' replicates"):
        async with opened(path, schema=after, synced=frozenset({"plain"})):
            raise AssertionError("opened")
    async with opened(path, schema=before):
        pass
    with pytest.raises(MigrationError, match="no such column: m"):
        async with opened(path, schema=wrong):
            raise AssertionError("opened")
    for _ in range(2):
        async with opened(path, schema=after) as device:
            assert await device.rows("plain") == {"1": {"n": 8}}


async def test_a_statement_for_a_store_that_is_new_keeps_no_other_from_running(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.db", StoreSpec("plain", Plain)
    steps: list[MigrationStep] = [Sql("new", "UPDATE new SET n=1"), Sql("plain", "UPDATE plain SET n=n*2")]
    async with opened(path, schema=Schema(plain)) as device:
        await device.write(insert("1", {"n": 4}, store="plain"))
    async with opened(path, schema=Schema(plain, StoreSpec("new", Plain), version=2, steps={2: steps})) as device:
        assert await device.rows("plain") == {"1": {"n": 8}}
        assert await device.rows("new") == {}


WRONG: list[tuple[int, MigrationStep, str]] = [
    (1, Rename("plain.m", "n"), "steps lead to a version from 2 to the schema's own, 3, not to 1"),
    (4, Rename("plain.m", "n"), "not to 4"),
    (2, Rename("other.m", "n"), "a step names a declared store"),
    (2, Rename("plain", "n"), "a step names a declared store"),
    (2, Rename("plain.m", "o"), "after it, store 'plain' has no field 'o'"),
    (2, Rename("plain.id", "n"), "the id of a row never changes"),
    (2, Rename("plain.n", "n"), "'n' is still a field of store 'plain' after it"),
    (2, Drop("plain.n"), "'n' is still a field"),
    (2, Drop("plain.m", was=int, back="x"), "`back` is not a value of it"),
    (2, Convert("plain.m", str, was=int), "has no field 'm'"),
    (2, Convert("plain.n", int, was=object()), "cannot"),
    (2, Split("plain.m", ("n", "o"), tuple, was=str), "has no field 'o'"),
    (2, Split("plain.n", (), tuple, was=str), "name it in `into` as well"),
    (2, Sql("other", "SELECT 1"), "there is no store 'other'"),
    (2, "Rename", "a step is a Rename, Convert, Split, Drop or Sql"),  # type: ignore[list-item]
]  # fmt: skip


@pytest.mark.parametrize(("to", "step", "message"), WRONG)
def test_steps_that_lead_elsewhere_are_refused_at_once(to: int, step: MigrationStep, message: str) -> None:
    with pytest.raises((SchemaError, TypeError), match=message.replace("(", r"\(")):
        Schema(StoreSpec("plain", Plain), version=3, steps={to: [step]})


async def test_a_file_that_is_not_as_the_steps_say_is_refused_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await make(path, some_items(3))
    with closing(sqlite3.connect(path)) as file:
        file.execute("ALTER TABLE items ADD COLUMN by_hand TEXT")
        file.commit()
    with pytest.raises(MigrationError, match="has a column 'by_hand' that no step speaks of"):
        await shown(path)
    assert read(path, "SELECT count(name), count(by_hand) FROM items") == [(3, 0)]


@dataclass(frozen=True)
class Tagged:
    id: str
    name: str
    price: Decimal
    person: str
    color: str | None = None
    tags: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Stamped:
    id: str
    name: str
    price: Decimal
    person: str
    color: str | None = None
    at: int = field(default_factory=lambda: 7)


@dataclass(frozen=True)
class Titled:
    id: str
    title: str
    price: Decimal
    person: str
    color: str | None = None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Tagged, None),
        (Stamped, "the new field 'at' has neither a constant default nor allows None"),
        (Titled, r'Rename\("items.name", "title"\) if it has another name now, Drop'),
    ],
    ids=["of a factory", "without a value", "of another name"],
)
async def test_a_field_that_no_step_speaks_of_has_a_default_or_nothing_is_touched(
    tmp_path: Path, model: type[Any], message: str | None
) -> None:
    path, rows = tmp_path / "a.db", some_items(3)
    await make(path, rows)
    to_text = Convert("items.price", Decimal, was=int)
    schema = Schema(StoreSpec("items", model), version=2, steps={2: [to_text]})
    if message is None:
        async with opened(path, schema=schema) as device:
            assert [image["tags"] for image in (await device.rows("items")).values()] == ["[]"] * 3
    else:
        with pytest.raises(MigrationError, match=message):
            async with opened(path, schema=schema):
                pass
        assert read(path, "SELECT id, name, price FROM items") == [(row.id, row.name, row.price) for row in rows]


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_a_disk_that_fails_at_any_time_leaves_one_version_or_the_other(tmp_path: Path, operation: Any) -> None:
    rows = some_items(20)
    await make(tmp_path / "made.db", rows, SYNCED)
    made = (tmp_path / "made.db").read_bytes()
    attempts, done, version = 0, False, 1
    with fault_vfs(f"migrating-{operation}") as plan:
        while not done:
            path = tmp_path / f"{attempts}.db"
            path.write_bytes(made)
            plan.fail(operation, "io", skip=attempts, once=True)
            try:
                engine = SQLiteEngine(path, vfs=f"migrating-{operation}")
                async with opened(schema=VERSIONS[4], synced=SYNCED, environment=seeded_environment(1), engine=engine):
                    pass
                done = plan.operation is not None
            except AtomaError:
                pass
            plan.heal()
            version = read(path, "SELECT value FROM _atoma_meta WHERE key='schema_version'")[0][0]
            assert read(path, f"SELECT count(*), count({'name' if version == 1 else 'title'}) FROM items") == [(20, 20)]
            assert await shown(path) == [today(item) for item in rows]
            attempts += 1
            assert attempts < 500
    assert version == 4
    assert attempts > (10 if operation == "write" else 2)


async def test_a_crash_at_every_index_leaves_one_version_or_the_other(tmp_path: Path) -> None:
    folder, rows = tmp_path / "disk", some_items(12)
    (folder / "device").mkdir(parents=True)
    began = 0
    with noted_disk("migrating-crash", folder) as disk:
        for version in (1, 4):
            began = len(disk.notes)
            engine = SQLiteEngine(folder / "device" / "a.db", vfs="migrating-crash")
            schema = VERSIONS[version]
            async with opened(schema=schema, synced=SYNCED, environment=seeded_environment(1), engine=engine) as device:
                for item in rows if version == 1 else ():
                    id, image = schema.stores["items"].encode(item)
                    await device.queue(insert(id, image, store="items"))
    seen = {1: 0, 4: 0}
    platter, dice = Platter(disk.notes), random.Random(1)
    kinds: tuple[Survivors, ...] = ("nothing", "everything", "some")
    for at in range(began, len(disk.notes) + 1):
        platter.advance(at)
        for survivors in kinds if at % 3 == 0 else kinds[at % 3 : at % 3 + 1]:
            place = tmp_path / f"{at}-{survivors}"
            place.mkdir()
            lay_down(platter.cut("device", dice, survivors), place)
            path = next(place.rglob("a.db"))
            ((version,),) = read(path, "SELECT value FROM _atoma_meta WHERE key='schema_version'")
            seen[version] += 1
            assert read(path, "PRAGMA integrity_check") == [("ok",)]
            assert read(path, f"SELECT count({'name' if version == 1 else 'title'}) FROM items") == [(12,)]
            assert read(path, "SELECT count(*), sum(length(local)>0) FROM _atoma_pending") == [(12, 12 * (version > 1))]
            if at % 20 == 0:
                assert await shown(path) == [today(item) for item in rows]
    assert min(seen.values()) > 5


async def test_a_hub_converts_its_log_and_its_gravestones(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    old, new = VERSIONS[1], VERSIONS[4]
    async with SQLiteHubStore(path).open_hub_database(old, seeded_environment(1)):
        pass
    pre = {"name": "a", "price": 150, "person": "Ann Lee", "color": None}
    literal = apsw.format_sql_value
    with closing(apsw.Connection(str(path))) as file:
        file.execute(
            "INSERT INTO _atoma_hub_change(scope, seq, idx, store, id, author, fields, pre, post) VALUES"
            f"('main', 1, 0, 'items', '1', 0, '[\"name\", \"person\", \"color\"]', {literal(encode(pre))}, {literal(encode({**pre, 'name': 'b'}))})"
        )
        file.execute(
            "INSERT INTO _atoma_hub_tombstone(scope, store, id, seq, author, last) VALUES"
            f"('main', 'items', '2', 1, 0, {literal(encode(pre))})"
        )
    async with SQLiteHubStore(path).open_hub_database(new, seeded_environment(1)):
        pass
    ((fields, before, after),) = read(path, "SELECT fields, pre, post FROM _atoma_hub_change")
    assert json.loads(fields) == ["title", "first", "last"]
    wanted: RowImage = {"title": "a", "price": 150, "first": "Ann", "last": "Lee"}
    ((last,),) = read(path, "SELECT last FROM _atoma_hub_tombstone")
    assert [decode(image, dict[str, object]) for image in (before, after, last)] == [
        {**wanted, "price": 1500}, {**wanted, "price": 1500, "title": "b"}, {**wanted, "price": 1500}
    ]  # fmt: skip


async def test_a_statement_converts_nothing_of_a_hubs_log(tmp_path: Path) -> None:
    path, stores = tmp_path / "hub.db", [StoreSpec("plain", Plain), StoreSpec("noted", Plain)]
    statement = {2: [Sql("plain", "UPDATE plain SET n=n*2")]}  # of a store without rows: it is passed over
    async with hub_on(path, schema=Schema(*stores)) as hub:
        await Client.of(hub, "a").do(Op("create", "noted", "1", {"n": 4}))
    async with hub_on(path, schema=Schema(*stores, version=2, steps=statement)):
        pass
    found = verify(str(path), next_hash, lambda done, of: None)
    assert (found.problems, found.transactions, found.converted) == ([], 1, 0), "every hash is computed again"


@pytest.mark.parametrize("synced", [frozenset[str](), frozenset({"teams"})], ids=["local", "synced"])
async def test_other_names_touch_no_row_and_may_be_the_scopes(tmp_path: Path, synced: frozenset[str]) -> None:
    path = tmp_path / "a.db"
    async with opened(path, schema=Schema(TEAMS), synced=synced) as device:
        await device.queue(insert("1", {"team": "red", "word": "a"}, store="teams"))
    for _ in range(2):
        async with opened(path, schema=RENAMED, synced=synced) as device:
            assert await device.rows("teams") == {"1": {"club": "red", "text": "a", "more": 3}}
            assert await device.db.inspect(lambda tx: tx.rows.read("teams", "1").scope) == "red"  # type: ignore[union-attr]
    assert read(path, "SELECT name FROM sqlite_schema WHERE name GLOB '_atoma_index*'") == [
        ("_atoma_index_teams__text__club",)
    ]
    with pytest.raises(MigrationError, match="the scope was declared as field club"):
        async with opened(path, schema=Schema(StoreSpec("teams", Team2), version=2), synced=synced):
            raise AssertionError("opened")


async def test_values_that_become_equal_under_a_unique_index_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, schema=UNSURE) as device:
        await device.write(
            *(insert(id, {"amount": amount, "note": ""}, store="doubts") for id, amount in (("a", "1"), ("b", "01")))
        )
    unique = StoreSpec("doubts", Sure, indexes=[Index("amount", unique=True)])
    steps: list[MigrationStep] = [Convert("doubts.amount", int, was=str)]
    with pytest.raises(MigrationError, match="equal under a unique index"):
        async with opened(path, schema=Schema(unique, version=2, steps={2: steps})):
            raise AssertionError("opened")
    async with opened(path, schema=UNSURE) as device:
        assert len(await device.rows("doubts")) == 2
