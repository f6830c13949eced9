"""The bounds of a filter: every door refuses the same with the same words, and what keeps to them is let through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import apsw
import pytest

from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.limits import PATTERN_BYTES_MAX, PATTERNS_BYTES_MAX, WILDCARDS_MAX
from atoma.contracts.query import And, Compare, In, Like, Not, Or, Predicate, QuerySpec
from atoma.errors import QueryError, RemoteError
from atoma.ports import Environment
from atoma.ports.service import Principal
from atoma.query import Query, col
from atoma.query.bounds import check_filter
from atoma.query.builder import Condition, bind
from atoma.schema import StoreSpec
from atoma_stores.reactive.checks import checked
from atoma_stores.sqlite.database import open_database
from atoma_transports.adapters import OperationAdapter
from tests.unit.hub.kit import CARDS as HUB_CARDS
from tests.unit.hub.kit import hub_on
from tests.unit.stores.kit import CARDS, opened

STORE = cast("StoreSpec[object]", CARDS)
LONGEST = "%" + "x" * (PATTERN_BYTES_MAX - 1)
CONTEXT = OperationContext("trace")

TOO_MUCH: dict[str, tuple[Predicate, str]] = {
    "a long pattern": (Like("title", LONGEST + "x"), "a pattern of like.. has at most 256 bytes, this one has 257"),
    "a long pattern of few letters": (Like("title", "ü" * 129), "this one has 258"),
    "many wildcards": (Like("title", "%a" * (WILDCARDS_MAX + 1)), "at most 8 wildcards, this one has 9"),
    "many wildcards for one letter": (Like("title", "_" * (WILDCARDS_MAX + 1)), "at most 8 wildcards, this one has 9"),
    "a wildcard behind an escaped escape": (Like("title", r"\\%" * (WILDCARDS_MAX + 1)), "this one has 9"),
    "many patterns": (
        Or((Like("title", LONGEST),) * (PATTERNS_BYTES_MAX // PATTERN_BYTES_MAX + 1)),
        "the patterns of like.. in one query have at most 2,048 bytes together",
    ),
    "half a letter": (Like("title", "\ud800"), "a pattern of like.. has a lone surrogate"),
    "many conditions": (And((Compare("eq", "title", "a"),) * 1_000), "at most 1,000 conditions"),
    "a long list": (In("title", ("a",) * 1_001), "at most 1,000 values, got 1,001"),
    "many values": (And((In("title", ("a",) * 1_000),) * 5), "at most 4,096 values"),
}
FITS: dict[str, Predicate] = {
    "the longest pattern": Like("title", LONGEST),
    "wildcards": Like("title", "%a" * WILDCARDS_MAX),
    "escaped wildcards": Like("title", r"\%\_" * 60),
    "all the patterns": Or((Like("title", LONGEST),) * (PATTERNS_BYTES_MAX // PATTERN_BYTES_MAX)),
    "all the conditions": And((Compare("eq", "title", "a"),) * 999),
    "all the values": And((In("title", ("a",) * 1_000),) * 4),
}
DEEP: list[tuple[int, bool]] = [(32, True), (33, False)]


def nested(depth: int) -> Predicate:
    node: Predicate = Compare("eq", "title", "a")
    for _ in range(depth - 1):
        node = Not(node)
    return node


def built(where: Predicate) -> Condition:
    """The same filter as an application writes it."""
    match where:
        case Like(name, pattern):
            return col(name).like(pattern)
        case Compare(_, name, value):
            return col(name) == value
        case In(name, values):
            return col(name).in_(values)
        case And(items) | Or(items):
            first, *rest = map(built, items)
            for item in rest:
                first = first & item if isinstance(where, And) else first | item
            return first
        case _:
            raise AssertionError(where)


async def ask_builder(where: Predicate, path: Path) -> None:
    bind(Query().where(built(where)), STORE)


async def ask_engine(where: Predicate, path: Path) -> None:
    async with opened(path / "a.db") as here:
        await here.db.read("cards", QuerySpec(where))


async def count_in_engine(where: Predicate, path: Path) -> None:
    async with opened(path / "a.db") as here:
        await here.db.read("cards", QuerySpec(where, count=True))


async def follow(where: Predicate, path: Path) -> None:
    checked(QuerySpec(where), STORE)


async def send(where: Predicate, path: Path) -> None:
    OperationAdapter().to_remote_ops(QueryRequest("cards", QuerySpec(where), CONTEXT))


async def ask_hub(where: Predicate, path: Path) -> None:
    async with hub_on(path / "hub.db") as hub:
        try:
            await hub.service(Principal("ada")).query(QueryRequest(HUB_CARDS.name, QuerySpec(where), CONTEXT))
        except RemoteError as error:
            raise error if error.remote_code != "QUERY" else QueryError(str(error)) from None


DOORS: tuple[Callable[[Predicate, Path], Awaitable[None]], ...] = (
    ask_builder, ask_engine, count_in_engine, follow, send, ask_hub
)  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", TOO_MUCH)
async def test_every_door_refuses_too_much(
    door: Callable[[Predicate, Path], Awaitable[None]], name: str, tmp_path: Path
) -> None:
    where, words = TOO_MUCH[name]
    with pytest.raises(QueryError, match=words):
        await door(where, tmp_path)


@pytest.mark.parametrize("door", DOORS)
async def test_what_fits_is_let_through(door: Callable[[Predicate, Path], Awaitable[None]], tmp_path: Path) -> None:
    refused: dict[str, str] = {}
    for name, where in FITS.items():
        try:
            await door(where, tmp_path)
        except QueryError as error:
            refused[name] = str(error)
    assert refused == {}


@pytest.mark.parametrize(("depth", "fits"), DEEP)
def test_conditions_are_nested_so_deep_and_no_deeper(depth: int, fits: bool) -> None:
    if fits:
        check_filter(nested(depth))
        return
    with pytest.raises(QueryError, match="nested at most 32 deep"):
        check_filter(nested(depth))


@pytest.mark.parametrize("operator", ["LIKE", "GLOB"])
async def test_no_connection_takes_a_longer_pattern(operator: str, tmp_path: Path) -> None:
    def look(connection: apsw.Connection) -> object:
        return connection.execute(f"SELECT 'a' {operator} ?", ("a" * (PATTERN_BYTES_MAX + 1),)).get

    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as database:
        for door in (database.read, database.read_in_pool, database.transact):
            with pytest.raises(QueryError, match="pattern too complex"):
                await door(look)
