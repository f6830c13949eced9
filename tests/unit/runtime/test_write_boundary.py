"""What may be written: constraints hold at every door, text is without NUL and lone surrogates, and zero has no sign.

What an older version let in stays, is read, and goes on being changed elsewhere in its row.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext
from enum import Enum
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import pytest
from msgspec import Meta

from atoma import Client, Scale, Schema, StoreSpec, col, open_client, select
from atoma.contracts.mutations import Op
from atoma.errors import SchemaError, ValidationError
from atoma.schema.fields import field_of
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine

Short = NewType("Short", str)


class Odd(Enum):
    PLAIN = "plain"
    NUL = "a\x00b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: Annotated[str, Meta(max_length=6)]
    title: Annotated[str, Meta(min_length=1, max_length=3)] = "abc"
    size: Annotated[int, Meta(ge=0, multiple_of=2)] | None = None
    weight: Annotated[float, Meta(lt=10.0)] = 0.0
    blob: Annotated[bytes, Meta(max_length=2)] = b""
    tags: Annotated[list[Annotated[str, Meta(pattern="^#")]], Meta(max_length=2)] = field(default_factory=list)
    note: str = ""
    odd: Odd = Odd.PLAIN
    word: Literal["plain", "a\x00b"] = "plain"
    more: dict[str, object] = field(default_factory=dict)
    board: str = "main"


CARDS = StoreSpec("cards", Card, scope="board")
SCHEMA = Schema(CARDS)
UNFIT: list[tuple[str, Any, str]] = [
    ("title", "abcd", "str of length <= 3"),
    ("title", "", "str of length >= 1"),
    ("size", -2, "int >= 0"),
    ("size", 3, "int that's a multiple of 2"),
    ("weight", 10.0, "float < 10.0"),
    ("blob", b"abc", "bytes of length <= 2"),
    ("tags", ["#a", "#b", "#c"], "array of length <= 2"),
    ("tags", ["#a", "b"], r"str matching regex '\^#' - at \$\[1\]"),
]
NUL = "text without NUL"
UNSTORABLE: list[tuple[str, Any, str]] = [
    ("note", "a\x00b", NUL),
    ("note", "a\ud800b", "text without lone surrogates"),
    ("odd", Odd.NUL, NUL),
    ("word", "a\x00b", "one of 'plain'"),
    ("more", {"a": ["b\x00"]}, NUL),
    ("more", {"a\x00": 1}, NUL),
    ("more", {"a": "\udfff"}, "surrogates not allowed"),
    ("more", {"a": [math.inf]}, "JSON has no NaN and no infinity"),
]
SET_AT_BIRTH: list[tuple[str, Any, str]] = [
    ("id", "1234567", "str of length <= 6"),
    ("id", "a\x00", "without NUL"),
    ("board", "a\x00b", NUL),
]
Door = Callable[[Client, str, Any], Awaitable[object]]


@asynccontextmanager
async def open_local() -> AsyncGenerator[Client]:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(":memory:"))]) as client:
        yield client


def made(name: str, value: Any) -> Card:
    return Card(**{"id": "new", name: value})


async def insert(client: Client, name: str, value: Any) -> None:
    await client.store(CARDS).insert(made(name, value))


async def insert_many(client: Client, name: str, value: Any) -> None:
    (await client.store(CARDS).insert_many([Card(id="good"), made(name, value)])).raise_for_errors()


async def insert_all(client: Client, name: str, value: Any) -> None:
    await client.store(CARDS).insert_many([made(name, value)], atomic=True)


async def update(client: Client, name: str, value: Any) -> None:
    await client.store(CARDS).update("there", {name: value})


async def update_by(client: Client, name: str, value: Any) -> None:
    await client.store(CARDS).update("there", lambda card: replace(card, **{name: value}))


async def update_many(client: Client, name: str, value: Any) -> None:
    (await client.store(CARDS).update_many({"there": {name: value}})).raise_for_errors()


async def upsert(client: Client, name: str, value: Any) -> None:
    await client.store(CARDS).upsert(made(name, value))


async def upsert_by_name(client: Client, name: str, value: Any) -> None:
    await client.store(CARDS).upsert({"id": "new", name: value})


async def upsert_many(client: Client, name: str, value: Any) -> None:
    (await client.store(CARDS).upsert_many([made(name, value)], apply="replace")).raise_for_errors()


async def insert_in(client: Client, name: str, value: Any) -> None:
    async with client.transaction() as tx:
        await tx.store(CARDS).insert(made(name, value))


async def update_in(client: Client, name: str, value: Any) -> None:
    async with client.transaction() as tx:
        await tx.store(CARDS).update("there", {name: value})


async def update_by_in(client: Client, name: str, value: Any) -> None:
    async with client.transaction() as tx:
        await tx.store(CARDS).update("there", lambda card: replace(card, **{name: value}))


async def upsert_in(client: Client, name: str, value: Any) -> None:
    async with client.transaction() as tx:
        await tx.store(CARDS).upsert({"id": "new", name: value})


BIRTHS: list[Door] = [insert, insert_many, insert_all, upsert, upsert_by_name, upsert_many, insert_in, upsert_in]
CHANGES: list[Door] = [update, update_by, update_many, update_in, update_by_in]


@pytest.mark.parametrize("door", [*BIRTHS, *CHANGES], ids=lambda door: door.__name__)
async def test_every_door_refuses_what_may_not_be_written(door: Door) -> None:
    asked = UNFIT + UNSTORABLE + (SET_AT_BIRTH if door in BIRTHS else [])
    async with open_local() as client:
        there = (await client.store(CARDS).insert(Card(id="there"))).value
        for name, value, wanted in asked:
            with pytest.raises(ValidationError, match=wanted) as refused:
                await door(client, name, value)
            assert (refused.value.field, refused.value.store) == (name, "cards")
            assert refused.value.value == (value if name != "id" or "NUL" not in wanted else "a\x00")
            assert f"cards.{name}" in str(refused.value)
            await client.store(CARDS).delete_many(["good"])
        assert (await client.store(CARDS).query()).items == (there,)


@pytest.mark.paths
async def test_what_fits_is_written_by_every_door() -> None:
    fits: dict[str, Any] = {
        "title": "abc", "size": 4, "weight": 9.5, "blob": b"ab", "tags": ["#a"], "more": {"a": "\\u0000"},
    }  # fmt: skip
    async with open_local() as client:
        await client.store(CARDS).insert(Card(id="there"))
        for name, value in fits.items():
            for door in (*CHANGES, *BIRTHS):
                await door(client, name, value)
                row = await client.store(CARDS).get("there" if door in CHANGES else "new")
                assert getattr(row, name) == value, door
                await client.store(CARDS).delete_many(["good", "new"])


async def test_a_zero_has_no_sign() -> None:
    async with open_local() as client:
        cards = client.store(CARDS)
        for door in (insert, insert_many, insert_all, upsert, upsert_by_name, upsert_many, insert_in, upsert_in):
            await door(client, "weight", -0.0)
            written = await cards.get("new")
            assert written is not None
            assert math.copysign(1, written.weight) == 1, door
            await cards.delete_many(["new", "good"])
        await insert(client, "more", {"a": [-0.0, 1.5, None], "b": "-0.0"})
        nested = await cards.get("new")
        assert nested is not None
        assert str(nested.more) == "{'a': [0.0, 1.5, None], 'b': '-0.0'}"


async def write_as_before(client: Client, values: dict[str, Any]) -> None:
    """Write a row as a version did that let everything in: past the checks of today."""
    id, image = CARDS.encode(Card(id="old"))
    await client._runtime.core.writes.write([Op("upsert", "cards", id, {**image, **values}, scope="main")])


OLD: dict[str, Any] = {
    "title": "too long",
    "note": "a\x00b",
    "odd": "a\x00b",
    "more": '{"a":"b\\u0000"}',
    "weight": 99.0,
}
OLD_CARD = Card(id="old", title="too long", note="a\x00b", odd=Odd.NUL, more={"a": "b\x00"}, weight=99.0)


async def test_rows_of_before_stay_are_read_and_are_changed_elsewhere() -> None:
    async with open_local() as client:
        cards = client.store(CARDS)
        await write_as_before(client, OLD)
        assert await cards.get("old") == OLD_CARD
        await cards.update("old", size=2)
        await cards.update("old", lambda card: replace(card, blob=b"x"))
        async with client.transaction() as tx:
            await tx.store(CARDS).update("old", lambda card: replace(card, word="plain", tags=["#"]))
        assert await cards.get("old") == replace(OLD_CARD, size=2, blob=b"x", tags=["#"])
        for name, value in (("title", "also too long"), ("note", "\x00"), ("weight", 98.0)):
            with pytest.raises(ValidationError, match=name):
                await cards.update("old", lambda card, name=name, value=value: replace(card, **{name: value}))  # type: ignore[misc]
        repaired = await cards.update("old", lambda card: replace(card, note="ab", odd=Odd.PLAIN))
        assert (repaired.value.note, repaired.value.odd, repaired.value.title) == ("ab", Odd.PLAIN, "too long")


async def test_a_literal_is_held_against_no_constraint_and_one_with_a_nul_finds_nothing() -> None:
    async with open_local() as client:
        cards = client.store(CARDS)
        await write_as_before(client, OLD)
        await cards.insert_many([Card(id="a", note="a"), Card(id="ab", note="ab"), Card(id="b", note="b")])

        async def found(condition: Any) -> list[str]:
            return [card.id for card in await cards.query(select(CARDS).where(condition))]

        assert await found(col("title") == "too long") == ["old"]
        assert await found(col("weight") > 50.0) == ["old"]
        note = col("note")
        assert await found(note == "a\x00b") == []
        assert await found(note.in_(["a\x00b", "b"])) == ["b"]
        assert await found(note.in_(["a\x00b"])) == []
        assert await found(note.like("a\x00%")) == []
        assert await found(note != "a\x00b") == ["a", "ab", "b", "old"]
        assert await found(note < "a\x00b") == ["a"]
        assert await found(note >= "a\x00b") == ["ab", "b", "old"]
        assert await cards.get_many(["a\x00", "a"]) == [None, Card(id="a", note="a")]


@dataclass
class Box:
    id: str
    value: Any


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        (Annotated[Decimal, Meta(ge=0)], "cannot be enforced: Can only set `ge` on a numeric type"),
        (Annotated[str, Meta(ge=0)], "cannot be enforced"),
        (Annotated[bool, Meta(ge=0)], "cannot be enforced"),
        (Annotated[Odd, Meta(max_length=3)], "cannot be enforced"),
        (Annotated[list[Annotated[timedelta, Meta(ge=0)]], Meta(max_length=3)], "cannot store this type"),
        (Annotated[datetime, Meta(tz=False)], "has a time zone and is kept in UTC; take tz=… away"),
        (Annotated[time, Meta(tz=True)], "has no time zone"),
        (dict[int, str], "keys of JSON are text"),
        (list[dict[Odd, int]], "keys of JSON are text"),
        (Literal[1, 2**63], "does not fit into 64 bits"),
        (Annotated[Decimal, Scale(2), Meta(ge=0)], "cannot be enforced"),
        (NewType("Price", Annotated[Decimal, Scale(2), Meta(ge=0)]), "cannot be enforced"),  # pyright: ignore[reportGeneralTypeIssues]
        (Annotated[timedelta, Meta(ge=0)], "cannot be enforced"),
        (Annotated[UUID, Meta(max_length=3)], "cannot be enforced"),
        (Annotated[int, Scale(2)], r"one Scale\(…\) belongs to a Decimal"),
        (Annotated[Decimal, Scale(2), Scale(3)], r"one Scale\(…\) belongs to a Decimal"),
    ],
)
def test_what_cannot_be_enforced_or_kept_is_no_declaration(hint: Any, told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        field_of("boxes", "value", hint, hint)


@pytest.mark.parametrize("scope", ["", "a\x00b", "\ud800", "é" * 101])
def test_a_fixed_scope_has_a_name_that_a_hub_takes(scope: str) -> None:
    with pytest.raises(SchemaError, match="scope is the name"):
        StoreSpec("boxes", Card, scope=scope)


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Annotated[str | None, Meta(max_length=1)], [None, "a"], ["ab"]),
        (Annotated[Annotated[int, Meta(ge=0)], Meta(le=3)], [0, 3], [-1, 4]),
        (Annotated[datetime, Meta(tz=True)], [datetime(2026, 1, 1, tzinfo=UTC)], [datetime(2026, 1, 1)]),  # noqa: DTZ001
        (datetime, [datetime.min.replace(tzinfo=UTC)], [datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))]),
        (time, [time(12)], [time(12, tzinfo=UTC), "12:00"]),
        (Annotated[Short, Meta(max_length=3)], ["abc"], ["abcd"]),
        (Decimal, [Decimal("1E+3"), Decimal("0E-2000")], [Decimal("1E+1001"), Decimal("NaN"), 1, 0.5, "1"]),
        (
            Annotated[Decimal, Scale(2)],
            [
                Decimal("1E+3"),
                Decimal("0.01"),
                Decimal("-0.0"),
                Decimal("1.500"),
                Decimal(f"{2**63 - 1}E-2"),
                Decimal("0E+999"),
            ],
            [
                Decimal("0.001"),
                Decimal(f"{2**63}E-2"),
                Decimal(2**63),
                Decimal("1E+100000"),
                Decimal("1E-100000"),
                Decimal("NaN"),
                Decimal("Infinity"),
                1,
                0.5,
                "1",
                True,
            ],
        ),
        (
            timedelta,
            [timedelta(microseconds=-(2**63)), timedelta(microseconds=2**63 - 1)],
            [timedelta.max, timedelta.min, timedelta(microseconds=2**63), 1, "PT1S"],
        ),
        (UUID, [UUID(int=1)], [str(UUID(int=1)), 1, b"1"]),
        (Short, ["abc", '"a"'], ["a\x00b", 1, None]),
        (NewType("Count", Annotated[int, Meta(le=3)]) | None, [3, None], [4, "1", True]),  # pyright: ignore[reportGeneralTypeIssues]
        (list[float], [[1.0, 2]], [[math.nan], [-math.inf]]),
    ],
)
def test_constraints_and_types_are_held_against_each_value(hint: Any, good: list[Any], bad: list[Any]) -> None:
    box = field_of("boxes", "value", hint, hint)
    for value in good:
        assert (box.decode or (lambda stored: stored))(box.encode(value)) == value
        assert list(box.encode_column([value, value])) == [box.encode(value)] * 2
    for value in bad:
        with pytest.raises(ValidationError, match=r"boxes\.value wants") as refused:
            box.encode(value)
        assert refused.value.value is value
        with pytest.raises(ValidationError):
            box.encode_column([*good, value])


@pytest.mark.parametrize("places", [-1, 19, True, 1.0, "2"])
def test_a_scale_has_0_to_18_places(places: Any) -> None:
    with pytest.raises(SchemaError, match="0 to 18 places"):
        Scale(places)


def test_no_context_of_decimals_has_a_say() -> None:
    field = field_of("boxes", "value", Annotated[Decimal, Scale(4)], Decimal)
    bare = field_of("boxes", "value", Decimal, Decimal)
    long = Decimal("123456789012345.6789")
    with localcontext(prec=3, Emax=2, Emin=-2):
        assert field.encode(long) == 1_234_567_890_123_456_789
        assert field.decode is not None
        assert str(field.decode(1_234_567_890_123_456_789)) == str(long)
        assert bare.encode(long) == str(long)


def test_ids_and_scopes_may_have_a_name() -> None:
    @dataclass
    class Named:
        id: Short
        board: Short
        maybe: Short | None = None

    spec = StoreSpec("named", Named, scope="board")
    assert spec.encode(Named(Short("a"), Short("b"))) == ("a", {"board": "b", "maybe": None})
    with pytest.raises(SchemaError, match="must be a str"):
        StoreSpec("named", Named, scope="maybe")


def test_a_store_and_the_view_of_another_have_two_names() -> None:
    @dataclass
    class Bill:
        id: str
        total: Annotated[Decimal, Scale(2)]

    with pytest.raises(SchemaError, match="'bills_readable' is the view"):
        Schema(StoreSpec("bills", Bill), StoreSpec("Bills_Readable", Card))
