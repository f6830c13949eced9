"""Every type of field orders and compares as its values do in Python, or is refused with what to declare instead.

The oracle is Python itself: its operators over the values that were written, and ``sorted``.
"""

from __future__ import annotations

import math
import operator
import string
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, cast

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from atoma.contracts.execution import OperationContext, QueryRequest, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.contracts.query import Agg, BoundQuery, Call, Col, Lit, Named, Order, Plan, Store
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError, RemoteError, SchemaError, ValidationError
from atoma.hub import AllowLoopback, open_hub
from atoma.ports import LiveBatch, LocalTx, apply_batch, seeded_environment
from atoma.ports.service import Principal
from atoma.query import Rows, bind, col, select
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind as bind_plan
from atoma.query.plans import every_row
from atoma.schema import Index, Scale, Schema, StoreSpec
from atoma_stores.live.dispatch import open_live_queries
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(Enum):
    LOW = 1
    HIGH = 10


class Rank(IntEnum):
    LOW = 1
    HIGH = 10


class Word(StrEnum):
    RED = "red"
    BLUE = "blue"


class Backwards(IntEnum):
    ONE = 1
    TWO = 2

    def __lt__(self, other: object) -> bool:
        return isinstance(other, Backwards) and self.value > other.value


@dataclass(frozen=True)
class Point:
    x: float
    y: float


UserName = NewType("UserName", str)
Nickname = NewType("Nickname", UserName)
Count = NewType("Count", int)
Weight = NewType("Weight", float)
Switch = NewType("Switch", bool)
Raw = NewType("Raw", bytes)
At = NewType("At", datetime)
Lasts = NewType("Lasts", timedelta)
Key = NewType("Key", uuid.UUID)
Photo = NewType("Photo", Path)
Tone = NewType("Tone", Color)
Price = NewType("Price", Decimal)
Cents = Annotated[Decimal, Scale(2)]
Money = NewType("Money", Cents)  # pyright: ignore[reportGeneralTypeIssues]  # mypy takes it, and so does Python

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=3) | st.sampled_from(
    ["", "a", "A", "b", "ab", "é", "ß", "\uffff", "\U0001f600", "1", "10", "9", '"', "\\", "null", "-0.0"]
)
FLOATS = st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0, 1.5, float("inf"), float("-inf")])
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-9, minutes=-30))])
MOMENTS = st.datetimes(timezones=ZONES).filter(lambda moment: 2 <= moment.year <= 9998) | st.sampled_from(
    [datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))]
)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=3) | st.sampled_from(
    [
        Decimal("1.0"),
        Decimal("1.00"),
        Decimal("1E+2"),
        Decimal(100),
        Decimal("-0.0"),
        Decimal(0),
        Decimal(9),
        Decimal(10),
    ]
)
CENTS = st.integers(-(2**63), 2**63 - 1).map(lambda units: Decimal(f"{units}E-2")) | st.sampled_from(
    [
        Decimal("1.5"),
        Decimal("1.50"),
        Decimal("1E+2"),
        Decimal(100),
        Decimal("-0.0"),
        Decimal("0.00"),
        Decimal(9),
        Decimal(10),
    ]
)
TIMES = st.times() | st.sampled_from([time(12), time(12, 0, 0, 500_000), time(12, fold=1)])
DURATIONS = st.integers(-(2**63), 2**63 - 1).map(lambda n: timedelta(microseconds=n)) | st.integers(-99, 99).map(
    lambda n: timedelta(seconds=n)
)
UUIDS = st.uuids() | st.sampled_from([uuid.UUID(int=9), uuid.UUID(int=10), uuid.UUID(int=0xA)])
PATHS = st.lists(TEXT, max_size=3).map(lambda parts: Path(*parts)) | st.sampled_from(
    [Path(), Path("a/b"), Path("a-b"), Path("/a")]
)

ALL = "equality order text"
VALUE = "equality order"
SAME = "equality"
NONE = ""


@dataclass(frozen=True)
class Type:
    """A type of field: values of it, and what it promises to answer."""

    hint: object
    values: st.SearchStrategy[Any]
    answers: str


TYPES: dict[str, Type] = {
    "str": Type(str, TEXT, ALL),
    "str with constraints": Type(Annotated[str, msgspec.Meta(max_length=9)], TEXT, ALL),
    "int": Type(int, st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 12), VALUE),
    "bool": Type(bool, st.booleans(), VALUE),
    "float": Type(float, FLOATS, VALUE),
    "bytes": Type(bytes, st.binary(max_size=3), VALUE),
    "date": Type(date, st.dates(), VALUE),
    "datetime": Type(datetime, MOMENTS, VALUE),
    "time": Type(time, TIMES, VALUE),
    "timedelta": Type(timedelta, DURATIONS, VALUE),
    "UUID": Type(uuid.UUID, UUIDS, VALUE),
    "Path": Type(Path, PATHS, SAME),
    "Decimal": Type(Decimal, DECIMALS, SAME),
    "Decimal with a scale": Type(Cents, CENTS, VALUE),
    "Decimal without places": Type(Annotated[Decimal, Scale(0)], st.integers(-99, 99).map(Decimal), VALUE),
    "Decimal with many places": Type(
        Annotated[Decimal, Scale(18)], st.decimals(Decimal("-9.2"), Decimal("9.2"), places=18), VALUE
    ),
    "Literal of text": Type(Literal["b", "a", "aa"], st.sampled_from(["b", "a", "aa"]), ALL),
    "Literal of numbers": Type(Literal[1, 9, 10], st.sampled_from([1, 9, 10]), VALUE),
    "Enum of text": Type(Color, st.sampled_from(Color), SAME),
    "Enum of numbers": Type(Level, st.sampled_from(Level), SAME),
    "IntEnum": Type(Rank, st.sampled_from(Rank), VALUE),
    "StrEnum": Type(Word, st.sampled_from(Word), ALL),
    "IntEnum with an order of its own": Type(Backwards, st.sampled_from(Backwards), SAME),
    "NewType of text": Type(UserName, TEXT, ALL),
    "NewType of a NewType": Type(Nickname, TEXT, ALL),
    "NewType of a number": Type(Count, st.integers(-12, 12), VALUE),
    "NewType of a float": Type(Weight, FLOATS.filter(math.isfinite), VALUE),
    "NewType of a bool": Type(Switch, st.booleans(), VALUE),
    "NewType of bytes": Type(Raw, st.binary(max_size=3), VALUE),
    "NewType of a moment": Type(At, MOMENTS, VALUE),
    "NewType of a timedelta": Type(Lasts, DURATIONS, VALUE),
    "NewType of a UUID": Type(Key, UUIDS, VALUE),
    "NewType of a Path": Type(Photo, PATHS, SAME),
    "NewType of an Enum": Type(Tone, st.sampled_from(Color), SAME),
    "NewType of a Decimal": Type(Price, DECIMALS, SAME),
    "NewType of a Decimal with a scale": Type(Money, CENTS, VALUE),
    "NewType of a list": Type(NewType("Tags", list[str]), st.lists(TEXT, max_size=2), SAME),
    "list of text": Type(list[str], st.lists(TEXT, max_size=2), SAME),
    "dict of lists": Type(dict[str, list[int]], st.dictionaries(TEXT, st.lists(st.integers(0, 1))), SAME),
    "set": Type(frozenset[str], st.frozensets(st.sampled_from(string.ascii_letters)), SAME),
    "text or a number": Type(str | int, TEXT | st.integers(0, 12), SAME),
    "number or truth": Type(list[int | bool], st.lists(st.integers(0, 1) | st.booleans()), NONE),
    "list of floats": Type(list[float], st.lists(st.floats(allow_nan=False, allow_infinity=False)), NONE),
    "list of moments": Type(list[datetime], st.lists(MOMENTS, max_size=2), NONE),
    "list of times": Type(list[time], st.lists(st.times(), max_size=2), NONE),
    "dataclass": Type(Point, st.builds(Point, st.just(0.0), st.just(-0.0)), NONE),
    "anything": Type(object, st.lists(st.integers(0, 3)) | TEXT, NONE),
}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
NAMES = pytest.mark.parametrize("name", TYPES)


def spec_of(name: str, *, optional: bool = False, **options: Any) -> StoreSpec[Any]:
    hint: Any = TYPES[name].hint
    model = make_dataclass("Row", [("id", str), ("value", hint | None if optional else hint)], frozen=True)
    return StoreSpec("rows", model, **options)


def condition(op: str, literal: Any) -> Any:
    return OPERATORS[op](col("value"), literal)


def answered(op: str, answers: str) -> bool:
    return ("equality" if op in ("eq", "ne") else "order") in answers


def expected(values: dict[str, Any], op: str, literal: Any) -> list[str]:
    return [id for id, value in sorted(values.items()) if value is not None and OPERATORS[op](value, literal)]


def expected_order(values: dict[str, Any], descending: bool) -> list[str]:
    some = sorted((id for id, value in values.items() if value is not None))
    some.sort(key=lambda id: values[id], reverse=descending)
    none = sorted(id for id, value in values.items() if value is None)
    return some + none if descending else none + some


Ask = Callable[[BoundQuery], Awaitable[list[str]]]
"""The ids that an engine finds, in its order."""


@asynccontextmanager
async def open_engines(
    spec: StoreSpec[Any], values: dict[str, Any], asked: list[BoundQuery]
) -> AsyncGenerator[dict[str, Ask]]:
    """Every engine with the same rows; the live queries are open before their rows come."""
    schema, environment = Schema(spec), seeded_environment(1)
    images = dict(zip(*spec.encode_many([spec.model(id, value) for id, value in values.items()]), strict=True))

    def fill(tx: LocalTx) -> None:
        tx.base.put_many("rows", "main", ((id, image, 1) for id, image in images.items()))

    async with (
        open_hub(schema, SQLiteHubStore(":memory:"), verifier=AllowLoopback(), environment=environment) as hub,
        SQLiteEngine(":memory:").open_database(schema, environment, frozenset()) as db,
        open_live_queries(db, schema) as live,
        AsyncExitStack() as stack,
    ):
        views = {query: await stack.enter_async_context(live.open_live(query)) for query in asked}
        for view in views.values():
            assert apply_batch((), await anext(view)) == ()
        await db.apply(fill)
        service = hub.service(Principal("ann"))
        entries = [Op("create", "rows", id, image, scope="main") for id, image in images.items()]
        await service.write(WriteRequest(tuple(entries), WriteOptions(atomic=True), OperationContext("t"), "key"))
        rows = (await db.read(every_row("rows"))).rows
        assert {row.id: spec.decode(row.id, row.image).value for row in rows} == values

        async def reference(query: BoundQuery) -> list[str]:
            return [row.id for row in evaluate(query, {"rows": rows})]

        async def device(query: BoundQuery) -> list[str]:
            return [row.id for row in (await db.read(query)).rows]

        async def at_the_hub(query: BoundQuery) -> list[str]:
            found = (await service.query(QueryRequest(query, OperationContext("t")))).rows
            assert {row.id: spec.decode(row.id, row.image).value for row in found}.items() <= values.items()
            return [row.id for row in found]

        async def followed(query: BoundQuery) -> list[str]:
            if not await reference(query):
                return []  # nothing has come, and nothing will
            batch = cast("LiveBatch[StoredRow]", await anext(views[query]))
            rows: tuple[StoredRow, ...] = apply_batch((), batch)
            return [row.id for row in rows]

        yield {"reference": reference, "device": device, "hub": at_the_hub, "live": followed}


@NAMES
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
async def test_every_engine_answers_as_python_does(name: str, data: st.DataObject) -> None:
    kind, spec = TYPES[name], spec_of(name, optional=True)
    schema = Schema(spec)
    column = data.draw(st.lists(st.none() | kind.values, min_size=2, max_size=8))
    values = {f"{at:02}": value for at, value in enumerate(column)}
    literals = data.draw(st.lists(kind.values, min_size=1, max_size=2))
    literals += [value for value in column if value is not None][:2]
    wanted: dict[BoundQuery, list[str]] = {}
    for literal in literals:
        for op in OPERATORS:
            if answered(op, kind.answers):
                wanted[bind(select(spec).where(condition(op, literal)), schema)] = expected(values, op, literal)
    if "equality" in kind.answers:
        found = [id for id, value in values.items() if value is not None and value in literals]
        wanted[bind(select(spec).where(col("value").in_(literals)), schema)] = found
    if "order" in kind.answers:
        wanted[bind(select(spec).order_by("value"), schema)] = expected_order(values, descending=False)
        wanted[bind(select(spec).order_by("-value"), schema)] = expected_order(values, descending=True)
    async with open_engines(spec, values, list(wanted)) as engines:
        for query, ids in wanted.items():
            assert {engine: await ask(query) for engine, ask in engines.items()} == dict.fromkeys(engines, ids)


@pytest.mark.parametrize("name", ["timedelta", "Decimal with a scale", "NewType of a Decimal with a scale"])
@settings(max_examples=15)
@given(data=st.data())
async def test_a_sum_is_pythons_sum(name: str, data: st.DataObject) -> None:
    kind, spec = TYPES[name], spec_of(name, optional=True)
    schema, field = Schema(spec), spec.fields["value"]
    column = data.draw(st.lists(st.none() | kind.values, min_size=1, max_size=5))
    some = [value for value in column if value is not None]
    plan = Plan(Store("rows"), columns=(Named("sum", Agg("sum", Col(0, "value"))),))
    query = bind_plan(plan, schema.store)
    with localcontext() as context:
        context.prec = 60
        total = sum(some[1:], some[0]) if some else None
    async with SQLiteEngine(":memory:").open_database(schema, seeded_environment(1), frozenset()) as db:
        ids, images = spec.encode_many([spec.model(f"{at:02}", value) for at, value in enumerate(column)])
        await db.apply(
            lambda tx: tx.base.put_many("rows", "main", ((id, image, 1) for id, image in zip(ids, images, strict=True)))
        )
        rows = (await db.read(every_row("rows"))).rows
        try:
            stored = None if total is None else field.encode(total)
        except ValidationError:
            with pytest.raises(QueryError, match="integer overflow"):
                evaluate(query, {"rows": rows})
            with pytest.raises(QueryError, match="integer overflow"):
                await db.read(query)
            return
        assert (await db.read(query)).tuples == tuple(evaluate(query, {"rows": rows})) == ((stored,),)


def questions(spec: StoreSpec[Any], literal: Any) -> dict[str, tuple[Rows[Any], BoundQuery]]:
    """Each question as the builder puts it, and as a foreign program sends it."""
    stored = spec.fields["value"].literal(literal)

    def where(fn: str, value: object) -> BoundQuery:
        """As a foreign program says it: the value as it is stored, with the type of the column."""
        return BoundQuery(Plan(Store("rows"), where=Call(fn, (Col(0, "value"), Lit(spec.fields["value"].type, value)))))

    asked: dict[str, tuple[Rows[Any], BoundQuery]] = {
        f"{op} {'equality' if op in ('eq', 'ne') else 'order'}": (
            select(spec).where(condition(op, literal)),
            where(op, stored),
        )
        for op in OPERATORS
    }
    asked["in equality"] = (select(spec).where(col("value").in_([literal])), where("in", stored))
    like = BoundQuery(Plan(Store("rows"), where=Call("like", (Col(0, "value"), Lit("text", "a%")))))
    asked["like text"] = (select(spec).where(col("value").like("a%")), like)
    by_value = BoundQuery(Plan(Store("rows"), order=(Order(Col(0, "value"), True),)))
    asked["sort order"] = (select(spec).order_by("-value"), by_value)
    return asked


@NAMES
@settings(max_examples=20)
@given(data=st.data())
def test_what_is_packed_is_read_by_value(name: str, data: st.DataObject) -> None:
    """Today's bytes, those of before, and a column's own form where it cannot be taken for them."""
    spec = spec_of(name)
    value = data.draw(TYPES[name].values)
    _, image = spec.encode(spec.model("1", value))
    packed = spec.pack(image)
    assert spec.unpack(packed) == image
    field = spec.fields["value"]
    if field.packed is None:
        assert packed == image
        return
    before = msgspec.json.encode(value).decode() if field.packed.json else format(value, "f")
    assert spec.unpack({"value": before}) == image
    if field.type != "text":
        assert spec.unpack(image) == image
        assert spec.canonical("value", before) == spec.canonical("value", image["value"]) == image["value"]


@NAMES
@settings(max_examples=1, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
async def test_every_door_answers_or_refuses_in_the_same_words(name: str, data: st.DataObject) -> None:
    kind, spec = TYPES[name], spec_of(name)
    schema, environment = Schema(spec), seeded_environment(1)
    values = {f"{at:02}": value for at, value in enumerate(data.draw(st.lists(kind.values, min_size=3, max_size=6)))}
    entries = [
        Op("create", "rows", id, image, scope="main")
        for id, image in (spec.encode(spec.model(id, value)) for id, value in values.items())
    ]
    refused = 0
    async with (
        open_hub(schema, SQLiteHubStore(":memory:"), verifier=AllowLoopback(), environment=environment) as hub,
        SQLiteEngine(":memory:").open_database(schema, environment, frozenset()) as db,
        open_live_queries(db, schema) as live,
    ):
        service = hub.service(Principal("ann"))
        await service.write(WriteRequest(tuple(entries), WriteOptions(atomic=True), OperationContext("t"), "key"))
        for question, (built, sent) in questions(spec, values["00"]).items():
            request = QueryRequest(sent, OperationContext("t"))
            if question.split()[1] in kind.answers:
                result = await service.query(request)
                local = bind(built, schema)
                assert [row.id for row in result.rows] == answer_of(question, values)
                async with live.open_live(local):
                    pass
                continue
            with pytest.raises(QueryError) as at_the_builder:
                bind(built, schema)
            assert "rows.value: " in str(at_the_builder.value)
            with pytest.raises(RemoteError) as at_the_hub:
                await service.query(request)
            assert (at_the_hub.value.remote_code, str(at_the_hub.value)) == ("QUERY", f"QUERY: {at_the_builder.value}")
            with pytest.raises(QueryError) as followed:
                async with live.open_live(sent):
                    pass
            assert str(followed.value) == str(at_the_builder.value)
            refused += 1
    assert refused == sum(question.split()[1] not in kind.answers for question in questions(spec, values["00"]))


def answer_of(question: str, values: dict[str, Any]) -> list[str]:
    match question.split(maxsplit=1)[0]:
        case "in":
            return expected(values, "eq", values["00"])
        case "like":
            return [id for id, value in values.items() if value[:1] in ("a", "A")]
        case "sort":
            return expected_order(values, descending=True)
        case op:
            return expected(values, op, values["00"])


@NAMES
def test_an_index_is_declared_where_it_finds_something(name: str) -> None:
    for unique in (False, True):
        if "equality" in TYPES[name].answers:
            spec_of(name, indexes=[Index("value", unique=unique)])
        else:
            with pytest.raises(SchemaError, match=r"an index on 'value' finds nothing: .+; keep"):
                spec_of(name, indexes=[Index("value", unique=unique)])


async def test_a_literal_from_elsewhere_is_read_before_it_is_compared() -> None:
    """A foreign program writes a moment in its own way; it is compared as a moment, not letter by letter."""
    spec = spec_of("datetime")
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    async with open_hub(Schema(spec), SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub:
        service = hub.service(Principal("ann"))
        id, image = spec.encode(spec.model("a", noon))
        entry = Op("create", "rows", id, image, scope="main")
        await service.write(WriteRequest((entry,), WriteOptions(), OperationContext("t"), "key"))

        async def found(op: str, text: str) -> int:
            request = QueryRequest(
                BoundQuery(Plan(Store("rows"), where=Call(op, (Col(0, "value"), Lit("time", text))))),
                OperationContext("t"),
            )
            return len((await service.query(request)).rows)

        for text in ("2026-01-01T12:00:00Z", "2026-01-01T14:00:00+02:00", "2026-01-01T12:00:00.000000Z"):
            assert [await found(op, text) for op in ("eq", "ge", "le", "lt", "gt", "ne")] == [1, 1, 1, 0, 0, 0]
        with pytest.raises(RemoteError, match=r"QUERY: where › ge: rows\.value is not of type datetime"):
            await found("ge", "2026")
