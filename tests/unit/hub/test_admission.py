"""What a hub lets in: it holds writes against its own declarations, whoever sends them and however they are spelled."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any

import pytest
from msgspec import Meta

from atoma.contracts.mutations import Op
from atoma.contracts.values import RowImage
from atoma.schema import Schema, StoreSpec
from atoma.schema.kinds import INT64_MAX
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import Client, direct, hub_on, pull_all


class Odd(Enum):
    PLAIN = "plain"
    NUL = "a\x00b"


@dataclass(frozen=True)
class Item:
    id: Annotated[str, Meta(max_length=6)]
    title: Annotated[str, Meta(max_length=3)] = ""
    size: Annotated[int, Meta(ge=0)] = 0
    tags: Annotated[list[str], Meta(max_length=1)] = field(default_factory=list)
    weight: float = 0.0
    odd: Odd = Odd.PLAIN
    span: timedelta = timedelta()
    board: Annotated[str, Meta(pattern="^[a-z]*$")] = "main"


@dataclass(frozen=True)
class Before:
    """The same columns, as they were declared without constraints."""

    id: str
    title: str = ""
    size: int = 0
    tags: list[str] = field(default_factory=list)
    weight: float = 0.0
    odd: Odd = Odd.PLAIN
    span: timedelta = timedelta()
    board: str = "main"


ITEMS = StoreSpec("items", Item, scope="board")
SCHEMA = Schema(ITEMS)
ROW: RowImage = {"title": "", "size": 0, "tags": "[]", "weight": 0.0, "odd": "plain", "span": '"P0D"'}
WRONG: list[tuple[str, Any, str]] = [
    ("title", "abcd", r"items\.title wants str of length <= 3"),
    ("title", "a\x00", r"items\.title wants text without NUL"),
    ("size", -1, r"items\.size wants int >= 0"),
    ("tags", '["a","b"]', r"items\.tags wants .*array of length <= 1"),
    ("tags", '["a\\u0000"]', r"items\.tags wants text without NUL"),
    ("odd", "a\x00b", r"items\.odd wants a Odd of text without NUL"),
    ("span", "PT1H", r"items\.span is not of type timedelta"),
]


@pytest.mark.parametrize(("name", "value", "told"), WRONG, ids=[f"{name} {value!r}" for name, value, _ in WRONG])
async def test_what_may_not_be_written_is_invalid_however_it_comes(
    name: str, value: Any, told: str, home: Home
) -> None:
    async with hub_on(home.store(), schema=SCHEMA) as hub:
        device = Client.of(hub, "d")
        await device.do(Op("create", "items", "there", dict(ROW)))
        for op in (
            Op("create", "items", "new", {**ROW, name: value}),
            Op("replace", "items", "new", {**ROW, name: value}),
            Op("upsert", "items", "new", {name: value}, {**ROW}),
            Op("upsert", "items", "new", {}, {**ROW, name: value}),
            Op("patch", "items", "there", {name: value}),
        ):
            outcome = await device.do(op)
            assert outcome.status == "rejected"
            assert outcome.error is not None
            assert outcome.error.code == "INVALID"
            assert re.match(told, outcome.error.message)
        image: RowImage = {**ROW, name: value, "board": "main"}
        for number, entry in enumerate(
            (
                Op("create", "items", "new", image, scope="main"),
                Op("replace", "items", "new", image, scope="main"),
                Op("patch", "items", "there", {name: value}, scope="main"),
            )
        ):
            result = await device.service.write(direct(entry, idem=f"key {number}"))
            assert [(item.ok, item.error and item.error.code) for item in result.items] == [(False, "INVALID")]
        assert (await pull_all(device))[0] == {("items", "there"): {**ROW, "board": "main"}}


async def test_what_was_let_in_before_stays_is_read_and_can_go(home: Home) -> None:
    store = home.store()
    async with hub_on(store, schema=Schema(StoreSpec("items", Before, scope="board"))) as hub:
        before = Client.of(hub, "d")
        for id, scope in (("much too long", "main"), ("a", "main"), ("b", "Main")):
            outcome = await before.do(Op("create", "items", id, {**ROW, "title": "long"}), scope=scope)
            assert outcome.status == "applied"
    async with hub_on(store, schema=SCHEMA) as hub:
        device = before.on(hub)
        assert set((await pull_all(device))[0]) == {("items", "much too long"), ("items", "a")}
        assert (await device.do(Op("patch", "items", "much too long", {"size": 1}))).status == "applied"
        assert (await device.query("items"))["much too long"]["title"] == "long"
        for op, scope in (
            (Op("create", "items", "also too long", dict(ROW)), "main"),
            (Op("upsert", "items", "also too long", dict(ROW)), "main"),
            (Op("create", "items", "c", dict(ROW)), "Main"),  # the scope is the value of the field board
        ):
            outcome = await device.do(op, scope=scope)
            assert outcome.error is not None
            assert outcome.error.code == "INVALID"
        assert (await device.do(Op("delete", "items", "much too long"))).status == "applied"
        assert (await device.do(Op("delete", "items", "b"), scope="Main")).status == "applied"
        assert set((await pull_all(device))[0]) == {("items", "a")}


async def test_what_the_user_had_seen_is_a_number_that_a_sequence_can_have(home: Home) -> None:
    async with hub_on(home.store(), schema=SCHEMA) as hub:
        device = Client.of(hub, "d")
        for number, base in enumerate((0, INT64_MAX)):
            assert (await device.do(Op("create", "items", str(number), dict(ROW)), base=base)).status == "applied"
        for base in (-1, INT64_MAX + 1):
            outcome = await device.do(Op("create", "items", "9", dict(ROW)), base=base)
            assert outcome.error is not None
            assert (outcome.error.code, str(base) in outcome.error.message) == ("INVALID", True)


async def test_a_zero_loses_its_sign_at_the_hub(home: Home) -> None:
    async with hub_on(home.store(), schema=SCHEMA) as hub:
        device = Client.of(hub, "d")
        await device.do(Op("create", "items", "a", {**ROW, "weight": -0.0}))
        await device.service.write(
            direct(Op("create", "items", "b", {**ROW, "weight": -0.0, "board": "main"}, scope="main"), idem="key")
        )
        rows = (await pull_all(device))[0]
        assert len(rows) == 2
        assert {math.copysign(1, float(str(row["weight"]))) for row in rows.values()} == {1.0}
