"""A snapshot per release makes the tests of migrations; each of them fails when a step is wrong, missing or loses a row."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from atoma.errors import MigrationError, SchemaError, ValidationError
from atoma.schema import Convert, Rename, Schema, StoreSpec
from atoma.testing.migrations import check_version, read_snapshot, snapshots, write_snapshot
from tests.scenarios.migrations.versions import TO_2, TO_3, TO_4, VERSIONS, Item1, Item2, Item3, Item4, in_money

ROWS: dict[int, list[Any]] = {
    1: [Item1("1", "a", 15), Item1("2", "", -1, "Bob", "red")],
    2: [Item2("1", "a", 15)],
    3: [Item3("1", "a", Decimal("1.55"))],
    4: [Item4("1", "a", Decimal("1.55"), "Ann", "Lee", "note")],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for version, schema in VERSIONS.items():
        write_snapshot(schema, tmp_path / "schemas", {"items": ROWS[version]})
    return tmp_path / "schemas"


async def test_every_version_comes_to_every_later_one(folder: Path, tmp_path: Path) -> None:
    assert snapshots(folder) == [1, 2, 3, 4]
    for newest in VERSIONS:
        for version in range(1, newest + 1):
            await check_version(VERSIONS[newest], folder, version, tmp_path)


def changed(steps: dict[int, Any], model: type[Any] = Item4) -> Schema:
    return Schema(StoreSpec("items", model), version=4, steps=steps)


def unlucky(tenths: int) -> Decimal:
    if tenths < 0:
        raise ValueError("no price is below zero")
    return in_money(tenths)


@pytest.mark.parametrize(
    ("schema", "error", "message"),
    [
        (changed({2: TO_2, 3: TO_3}), MigrationError, "has a column 'person' that no step speaks of"),
        (changed({2: [*TO_2, *TO_3], 4: TO_4}), MigrationError, "'price' is int in the file"),
        (
            changed({2: TO_2, 3: [Convert("items.price", unlucky, was=int)], 4: TO_4}),
            (AssertionError, ValidationError),
            r"rows of 'items' are lost: \['2'\]",
        ),
        (
            changed({2: [Rename("items.name", "note")], 3: TO_3, 4: TO_4}),
            MigrationError,
            "the new field 'title' has neither",
        ),
    ],
    ids=["step missing", "step in another version", "a row is lost", "the wrong step"],
)
async def test_what_is_wrong_is_found(folder: Path, tmp_path: Path, schema: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        for version in snapshots(folder):
            await check_version(schema, folder, version, tmp_path)


async def test_a_released_version_does_not_change(folder: Path, tmp_path: Path) -> None:
    silent = Schema(StoreSpec("items", Item3), version=4, steps={2: TO_2, 3: TO_3})
    with pytest.raises(AssertionError, match=r"not as the snapshot of version 4 says.*note"):
        await check_version(silent, folder, 4, tmp_path)
    with pytest.raises(SchemaError, match="raise the version"):
        write_snapshot(VERSIONS[4], folder, {"items": ROWS[4]})
    with pytest.raises(SchemaError, match="there are none of items"):
        write_snapshot(VERSIONS[4], folder, {}, again=True)
    with pytest.raises(SchemaError, match="no snapshot of version 9"):
        read_snapshot(folder, 9)
    write_snapshot(VERSIONS[4], folder, {"items": ROWS[4]}, again=True)
