"""The bounds of a query: every door refuses the same with the same words, and what keeps to them is let through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import apsw
import pytest
from msgspec.structs import replace

from atoma.client import open_client
from atoma.contracts import limits
from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.limits import (
    COLUMNS_MAX,
    CONDITIONS_MAX,
    DEPTH_MAX,
    GROUPS_MAX,
    IN_VALUES_MAX,
    INCLUDES_DEEP_MAX,
    INCLUDES_MAX,
    OFFSET_MAX,
    PARAMETERS_BYTES_MAX,
    PATTERN_BYTES_MAX,
    PATTERNS_BYTES_MAX,
    PLANS_MAX,
    QUERY_BYTES_MAX,
    REGEXES_MAX,
    SOURCES_MAX,
    WILDCARDS_MAX,
)
from atoma.contracts.query import (
    Agg,
    BoundQuery,
    Branch,
    Call,
    Col,
    Derived,
    Exists,
    Expr,
    Include,
    Join,
    Lit,
    Named,
    Order,
    Param,
    Plan,
    Store,
)
from atoma.errors import QueryError, RemoteError
from atoma.ports import Environment
from atoma.ports.service import Principal
from atoma.query.binding import bind
from atoma.query.builder import col, select
from atoma.query.normal import bind as bind_plan
from atoma.query.normal import rebind
from atoma.query.plans import by_ids, counted
from atoma.schema.spec import ID_BYTES
from atoma.testing.queries import written
from atoma_stores.live.planner import checked
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite.database import open_database
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.protocol.plans import decode_query, encode_query
from tests.unit.hub.kit import hub_on
from tests.unit.stores.kit import CARDS, SCHEMA, insert, opened

LONGEST = "%" + "x" * (PATTERN_BYTES_MAX - 1)
CONTEXT = OperationContext("trace")

TITLE, ID = Col(0, "title"), Col(0, "id")
CARD = Store("cards")
TWIN = Join("inner", CARD, Call("eq", (ID, Col(1, "id"))))
SAME = Call("eq", (ID, Col(-1, "id")))
"""A row of the plan around, within a subquery."""


def where(*conditions: Expr, fn: str = "and") -> Plan:
    """Cards for which the conditions are true, all of them or one."""
    return Plan(CARD, where=conditions[0] if len(conditions) == 1 else Call(fn, conditions))


def like(pattern: str) -> Expr:
    return Call("like", (TITLE, Lit("text", pattern)))


def regex(pattern: str) -> Expr:
    return Call("regex", (TITLE, Lit("text", pattern)))


def among(count: int) -> Expr:
    return Call("in", (TITLE, *[Lit("text", "a")] * count))


def named(count: int) -> tuple[Named, ...]:
    return tuple([Named(f"c{number}", TITLE) for number in range(count)])


def nested(depth: int) -> Expr:
    node: Expr = Call("eq", (TITLE, Lit("text", "a")))
    for _ in range(depth - 1):
        node = Call("not", (node,))
    return node


def within(depth: int) -> Plan:
    """So many queries within one another."""
    plan = Plan(CARD)
    for _ in range(depth):
        plan = Plan(CARD, where=Call("and", (SAME, Exists(plan))))
    return replace(plan, where=Exists(plan))


def derived(depth: int) -> Plan:
    plan = Plan(CARD, columns=(Named("c0", ID),))
    for _ in range(depth):
        plan = Plan(Derived(plan), columns=(Named("c0", Col(0, "c0")),))
    return plan


def include(*plans: Plan) -> Plan:
    """Cards with the cards of the same title, once for each of the plans that read those."""
    keys = (("title", "title"),)
    return Plan(CARD, include=tuple([Include(f"i{n}", False, keys, (Branch(None, p),)) for n, p in enumerate(plans)]))


def includes(depth: int) -> Plan:
    plan = Plan(CARD)
    for _ in range(depth):
        plan = include(plan)
    return plan


EQUAL = Call("eq", (TITLE, Lit("text", "a")))
THERE = Exists(where(SAME))
SEVERAL = PATTERNS_BYTES_MAX // PATTERN_BYTES_MAX

TOO_MUCH: dict[str, tuple[Plan, str]] = {
    "a long pattern": (where(like(LONGEST + "x")), "a pattern of like.. has at most 256 bytes, this one has 257"),
    "a long pattern of few letters": (where(like("ü" * 129)), "this one has 258"),
    "many wildcards": (where(like("%a" * (WILDCARDS_MAX + 1))), "at most 8 wildcards, this one has 9"),
    "many wildcards for one letter": (where(like("_" * (WILDCARDS_MAX + 1))), "at most 8 wildcards, this one has 9"),
    "a wildcard behind an escaped escape": (where(like(r"\\%" * (WILDCARDS_MAX + 1))), "this one has 9"),
    "many patterns": (
        where(*[like(LONGEST)] * (SEVERAL + 1), fn="or"),
        "the patterns of one query have at most 2,048 bytes together",
    ),
    "many patterns in several places": (
        replace(where(*[like(LONGEST)] * SEVERAL), columns=(Named("a", Agg("count", where=like("a"))),)),
        "the patterns of one query have at most 2,048 bytes together",
    ),
    "a long regular expression": (
        where(regex("x" * 257)),
        "a pattern of regex.. has at most 256 bytes, this one has 257",
    ),
    "many regular expressions": (
        where(*[regex("x")] * (REGEXES_MAX + 1), fn="or"),
        "a query has at most 8 regular expressions; join them with |",
    ),
    "patterns of two kinds": (
        where(*[like(LONGEST)] * SEVERAL, regex("x"), fn="or"),
        "the patterns of one query have at most 2,048 bytes together",
    ),
    "half a letter in a regular expression": (where(regex("\ud800")), "a pattern of regex.. has a lone surrogate"),
    "half a letter": (where(like("\ud800")), "a pattern of like.. has a lone surrogate"),
    "many conditions": (where(*[EQUAL] * CONDITIONS_MAX), "at most 1,000 conditions"),
    "many conditions in several queries": (
        where(*[EQUAL] * (CONDITIONS_MAX // 2), Exists(where(*[EQUAL] * (CONDITIONS_MAX // 2)))),
        "at most 1,000 conditions",
    ),
    "deep conditions": (where(nested(DEPTH_MAX + 1)), "nested at most 32 deep"),
    "deep conditions in a subquery": (where(Exists(where(nested(DEPTH_MAX)))), "nested at most 32 deep"),
    "a long list": (where(among(IN_VALUES_MAX + 1)), "at most 1,000 values, got 1,001"),
    "many values": (where(*[among(IN_VALUES_MAX)] * 5), "at most 4,096 values"),
    "many values in several queries": (
        where(*[among(IN_VALUES_MAX)] * 3, Exists(where(*[among(IN_VALUES_MAX)] * 2))),
        "at most 4,096 values",
    ),
    "many sources": (Plan(CARD, joins=(TWIN,) * SOURCES_MAX), "reads at most 8 stores together"),
    "many columns": (Plan(CARD, columns=named(COLUMNS_MAX + 1)), "at most 64 columns"),
    "many keys of a group": (
        Plan(CARD, group=(TITLE,) * (COLUMNS_MAX + 1), columns=named(1)),
        "as many keys to group or to sort by",
    ),
    "many sort keys": (Plan(CARD, order=(Order(TITLE),) * (COLUMNS_MAX + 1)), "as many keys to group or to sort by"),
    "many queries": (where(*[THERE] * (PLANS_MAX + 1)), "at most 64 queries within it"),
    "many queries in one another": (derived(PLANS_MAX + 1), "at most 64 queries within it"),
    "many includes": (include(*[Plan(CARD)] * (INCLUDES_MAX + 1)), "at most 16 includes, at most 4 deep"),
    "deep includes": (includes(INCLUDES_DEEP_MAX + 1), "at most 16 includes, at most 4 deep"),
    "long values": (
        where(
            *[Call("eq", (TITLE, Lit("text", f"{'ü' * 8_191}-{n}"))) for n in range(4)],
            Call("eq", (TITLE, Lit("text", "a"))),
        ),
        "the values of a query have at most 65,536 bytes together, these have 65,537",
    ),
    "a long value": (where(Call("ne", (TITLE, Lit("text", "x" * (PARAMETERS_BYTES_MAX + 1))))), "these have 65,537"),
    "a long query": (
        Plan(CARD, columns=(Named("c0", Call("coalesce", (TITLE,) * (QUERY_BYTES_MAX // 20))),), distinct=True),
        "a query has at most 131,072 bytes, this one has 1[3-9]",
    ),
    "a large offset": (
        Plan(CARD, offset=OFFSET_MAX + 1),
        r"a query skips at most 100,000 rows: go on behind a row, with after.page.end",
    ),
    "a large limit": (Plan(CARD, limit=2**63), "limit must be 0 or more"),
    "less than nothing": (Plan(CARD, limit=-1), "limit must be 0 or more, not -1"),
    "an offset before the beginning": (Plan(CARD, offset=-1), "offset must be 0 or more, not -1"),
    "less than nothing in a subquery": (where(Exists(replace(where(SAME), limit=-1))), "limit must be 0 or more"),
}
ROWS_FIT: dict[str, Plan] = {
    "the longest pattern": where(like(LONGEST)),
    "wildcards": where(like("%a" * WILDCARDS_MAX)),
    "escaped wildcards": where(like(r"\%\_" * 60)),
    "all the regular expressions": where(*[regex("x" * 256)] * (REGEXES_MAX - 1), regex("y"), fn="or"),
    "all the patterns": where(*[like(LONGEST)] * SEVERAL, fn="or"),
    "all the conditions": where(*[EQUAL] * (CONDITIONS_MAX - 1)),
    "the deepest condition": where(nested(DEPTH_MAX)),
    "all the values": where(*[among(IN_VALUES_MAX)] * 4),
    "all the sort keys": Plan(CARD, order=(Order(TITLE), Order(ID))),
    "the largest offset": Plan(CARD, offset=OFFSET_MAX),
    "the longest value": where(Call("eq", (TITLE, Lit("text", "x" * PARAMETERS_BYTES_MAX)))),
}
PLANS_FIT: dict[str, Plan] = {
    "all the sources": Plan(CARD, joins=(TWIN,) * (SOURCES_MAX - 1)),
    "the longest name": Plan(CARD, columns=(Named("c" * (QUERY_BYTES_MAX - 200), TITLE),)),
    "all the columns": Plan(CARD, columns=named(COLUMNS_MAX)),
    "all the queries": where(*[THERE] * PLANS_MAX),
    "all the queries in one another": derived(PLANS_MAX),
    "the deepest subquery": within((DEPTH_MAX - 1) // 3),
    "all the includes": include(*[Plan(CARD)] * INCLUDES_MAX),
    "the deepest includes": includes(INCLUDES_DEEP_MAX),
}
"""Only an engine answers these so far."""


async def ask_builder(plan: Plan, path: Path) -> None:
    bind(written(plan, SCHEMA), SCHEMA)


async def ask_engine(plan: Plan, path: Path) -> None:
    async with opened(path / "a.db") as here:
        await here.db.read(BoundQuery(plan))


async def follow(plan: Plan, path: Path) -> None:
    checked(BoundQuery(plan), SCHEMA)


async def ask_hub(plan: Plan, path: Path) -> None:
    async with hub_on(path / "hub.db") as hub:
        arrived = BoundQuery(plan) if has_surrogate(plan) else decode_query(encode_query(BoundQuery(plan)))
        try:
            await hub.service(Principal("ada")).query(QueryRequest(arrived, CONTEXT))
        except RemoteError as error:
            raise error if error.remote_code != "QUERY" else QueryError(str(error).removeprefix("QUERY: ")) from None


def has_surrogate(plan: Plan) -> bool:
    """Whether there is text in ``plan`` that cannot be sent."""
    return "\\ud800" in repr(plan.where)


Door: TypeAlias = Callable[[Plan, Path], Awaitable[None]]
DOORS: tuple[Door, ...] = (ask_builder, ask_engine, follow, ask_hub)


@pytest.mark.parametrize("name", TOO_MUCH)
async def test_every_door_refuses_too_much_with_the_same_sentence(name: str, tmp_path: Path) -> None:
    plan, words = TOO_MUCH[name]
    said: dict[str, str] = {}
    for door in DOORS:
        with pytest.raises(QueryError, match=words) as refused:
            await door(plan, tmp_path)
        said[door.__name__] = str(refused.value)
    assert len(set(said.values())) == 1, said


BOUND_BY: dict[str, str] = {
    "DEPTH_MAX": "deep conditions",
    "CONDITIONS_MAX": "many conditions",
    "SOURCES_MAX": "many sources",
    "COLUMNS_MAX": "many columns",
    "PLANS_MAX": "many queries",
    "INCLUDES_DEEP_MAX": "deep includes",
    "INCLUDES_MAX": "many includes",
    "IN_VALUES_MAX": "a long list",
    "PARAMETERS_MAX": "many values",
    "PARAMETERS_BYTES_MAX": "a long value",
    "QUERY_BYTES_MAX": "a long query",
    "OFFSET_MAX": "a large offset",
    "PATTERN_BYTES_MAX": "a long pattern",
    "WILDCARDS_MAX": "many wildcards",
    "PATTERNS_BYTES_MAX": "many patterns",
    "REGEXES_MAX": "many regular expressions",
}


def test_every_bound_of_the_table_is_put_to_every_door() -> None:
    table = {name for name in vars(limits) if name.endswith("_MAX")}
    of_answers = {"ROWS_MAX", "GROUPS_MAX", "REPLACED_MAX", "REGEX_STEPS_MAX", "LIVE_SQL_ROWS_MAX"}
    of_texts = {
        name for name in table if name.startswith("TEXT")
    }  # of what is written: tests/unit/hub/test_merging_texts.py
    assert table - of_answers - of_texts == BOUND_BY.keys()
    assert set(BOUND_BY.values()) <= TOO_MUCH.keys()


def test_a_sentence_about_one_place_says_which() -> None:
    with pytest.raises(QueryError, match=r"^where › like: a pattern of like\(\) has at most 256 bytes"):
        bind(written(where(EQUAL, like(LONGEST + "x")), SCHEMA), SCHEMA)
    with pytest.raises(QueryError, match=r"^where › in: in_\(\) takes at most 1,000 values, got 1,001; ask in several"):
        bind(select(CARDS).where(col("title").in_(["a"] * (IN_VALUES_MAX + 1))), SCHEMA)


@pytest.mark.parametrize("door", DOORS)
async def test_what_fits_is_let_through(door: Door, tmp_path: Path) -> None:
    refused: dict[str, str] = {}
    for name, plan in (ROWS_FIT | (PLANS_FIT if door in (ask_builder, ask_engine) else {})).items():
        try:
            await door(plan, tmp_path)
        except QueryError as error:
            refused[name] = str(error)
    assert refused == {}


@pytest.mark.parametrize("name", [name for name, (plan, _) in TOO_MUCH.items() if plan == Plan(CARD, where=plan.where)])
async def test_a_count_is_refused_as_its_rows_are(name: str, tmp_path: Path) -> None:
    plan, words = TOO_MUCH[name]
    async with opened(tmp_path / "a.db") as here:
        with pytest.raises(QueryError, match=words):
            await here.db.read(counted(BoundQuery(plan)))


@pytest.mark.parametrize("depth", [100, 5_000])
def test_a_plan_of_any_depth_is_refused_and_not_gone_through(depth: int) -> None:
    """How deep a plan a decoder lets in differs between versions of Python, so the check must not depend on it."""
    for plan in (where(nested(depth)), derived(depth)):
        with pytest.raises(QueryError, match=r"nested at most|queries within it"):
            rebind(BoundQuery(plan), SCHEMA.store)


def test_a_pattern_beside_the_plan_counts_as_one_within() -> None:
    plan = where(Call("like", (TITLE, Param(0, "text"))))
    assert rebind(BoundQuery(plan, (LONGEST,)), SCHEMA.store).params == (LONGEST,)
    with pytest.raises(QueryError, match="at most 256 bytes, this one has 257"):
        rebind(BoundQuery(plan, (LONGEST + "x",)), SCHEMA.store)


async def test_an_id_that_nobody_has_given_is_refused_as_every_other_value(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as here:
        with pytest.raises(QueryError, match="parameter 0 has no value; there are 0"):
            await here.db.read(BoundQuery(by_ids("cards", ("a",)).plan))


@pytest.mark.parametrize("operator", ["LIKE", "GLOB"])
async def test_no_connection_takes_a_longer_pattern(operator: str, tmp_path: Path) -> None:
    def look(connection: apsw.Connection) -> object:
        return connection.execute(f"SELECT 'a' {operator} ?", ("a" * (PATTERN_BYTES_MAX + 1),)).get

    async with open_database(str(tmp_path / "a.db"), environment=Environment()) as database:
        for door in (database.read, database.read_in_pool, database.transact):
            with pytest.raises(QueryError, match="pattern too complex"):
                await door(look)


async def test_an_answer_has_so_many_groups_and_not_one_more(tmp_path: Path) -> None:
    by_id = Plan(CARD, group=(ID,), columns=(Named("id", ID), Named("rows", Agg("count"))))
    async with opened(tmp_path / "a.db") as here:
        for start in range(0, GROUPS_MAX, 1_000):
            await here.write(*[insert(f"{number:05}") for number in range(start, start + 1_000)])
        assert len((await here.db.read(bind_plan(by_id, SCHEMA.store))).tuples) == GROUPS_MAX
        await here.write(insert("one more"))
        with pytest.raises(QueryError, match="an answer has at most 10,000 groups; state a condition, or a limit"):
            await here.db.read(bind_plan(by_id, SCHEMA.store))
        few = bind_plan(replace(by_id, limit=3), SCHEMA.store)
        assert [row[0] for row in (await here.db.read(few)).tuples] == ["00000", "00001", "00002"]


def test_the_longest_query_can_be_sent() -> None:
    assert len(encode_query(bind_plan(PLANS_FIT["the longest name"], SCHEMA.store))) < QUERY_BYTES_MAX
    assert ChannelLimits().query_bytes > QUERY_BYTES_MAX


@pytest.mark.parametrize(("count", "length"), [(2_500, 36), (700, ID_BYTES)])
async def test_many_rows_are_got_by_ids_of_any_length(count: int, length: int, tmp_path: Path) -> None:
    ids = [f"{number:06}".ljust(length, "x") for number in range(count)]
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(tmp_path / "a.db"))]) as client:
        await client.store(CARDS).insert_many([CARDS.model(id=id, title=id) for id in ids[::2]])
        found = await client.store(CARDS).get_many([*ids, "y" * 2**20, *ids])
        assert [card and card.id for card in found] == [
            *[id if not at % 2 else None for at, id in enumerate(ids)],
            None,
        ] + [id if not at % 2 else None for at, id in enumerate(ids)]
