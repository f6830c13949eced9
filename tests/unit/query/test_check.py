"""What the check of a plan refuses, each with words that say what to do; and the types that it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from atoma.contracts.query import (
    AS_WRITTEN,
    Agg,
    Branch,
    Call,
    Col,
    Derived,
    Exists,
    Expr,
    Include,
    Join,
    Link,
    Lit,
    Named,
    Order,
    Param,
    Plan,
    Scalar,
    Seek,
    Store,
)
from atoma.errors import QueryError, UnknownStore
from atoma.query.check import Checker, check
from atoma.query.normal import bind
from atoma.schema import Schema, StoreSpec


@dataclass(frozen=True)
class Card:
    id: str
    title: str
    size: int
    weight: float
    done: bool
    due: datetime | None
    face: bytes
    price: Decimal
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Remark:
    id: str
    card: str | None
    size: int


SCHEMA = Schema(StoreSpec("cards", Card), StoreSpec("remarks", Remark))
CARDS, REMARKS = Store("cards"), Store("remarks")
ID, TITLE, SIZE, WEIGHT, DONE = (Col(0, name) for name in ("id", "title", "size", "weight", "done"))
COUNT = Agg("count")
OF_CARD = Call("eq", (Col(1, "card"), ID))


def written(value: object) -> Lit:
    return Lit(AS_WRITTEN, value)


def where(expr: Expr) -> Plan:
    return Plan(CARDS, where=expr)


def eq(left: Expr, right: Expr) -> Call:
    return Call("eq", (left, right))


def columns(*exprs: Expr, **more: object) -> Plan:
    return Plan(CARDS, columns=tuple([Named(f"c{n}", expr) for n, expr in enumerate(exprs)]), **more)  # type: ignore[arg-type]


def include(*branches: Branch, keys: tuple[tuple[str, str], ...] = (("id", "card"),), **more: object) -> Plan:
    return Plan(CARDS, include=(Include("remarks", False, keys, branches, **more),))  # type: ignore[arg-type]


OF_REMARKS = Branch(None, Plan(REMARKS))
REFUSED: dict[str, tuple[Plan, str]] = {
    # what is not there
    "a field": (where(eq(Col(0, "colour"), written(1))), "store 'cards' has no field 'colour'; it has: id, title"),
    "a field to sort by": (Plan(CARDS, order=(Order(Col(0, "colour")),)), r"order_by\[0\]: .* no field 'colour'"),
    "a field that is near another": (
        where(eq(Col(0, "titel"), written("a"))),
        r"no field 'titel'; .*; did you mean title\?",
    ),
    "a field deep within": (
        where(Call("and", (DONE, Call("or", (DONE, Call("not", (eq(Col(0, "sise"), written(1)),))))))),
        r"^where › and\[1\] › or\[1\] › not\[0\] › eq: store 'cards' has no field 'sise'; .*; did you mean size\?$",
    ),
    "a field of an argument": (
        where(Call("gt", (Call("length", (Col(0, "text"),)), written(1)))),
        r"^where › gt\[0\] › length: store 'cards' has no field 'text'",
    ),
    "a field of the other source": (
        Plan(CARDS, joins=(Join("inner", REMARKS, OF_CARD),), where=eq(Col(1, "title"), written("a"))),
        "store 'remarks' has no field 'title'",
    ),
    "a source": (where(eq(Col(1, "id"), written("a"))), "there is no source 1 here"),
    "a source around": (where(eq(Col(-1, "id"), written("a"))), "there is no source -1 here"),
    "a source that is joined later": (
        Plan(CARDS, joins=(Join("inner", REMARKS, eq(Col(2, "id"), ID)), Join("inner", REMARKS, OF_CARD))),
        "there is no source 2 here",
    ),
    "a column of a derived table": (
        Plan(Derived(columns(TITLE)), columns=(Named("x", Col(0, "title")),)),
        "a derived table has no column 'title'; it has: c0",
    ),
    "an operator": (where(Call("between", (SIZE, written(1)))), "unknown operator 'between'; there are: and, or"),
    "an aggregate": (columns(Agg("median", SIZE)), "unknown aggregate 'median'; there are: count, sum"),
    "a value beside the plan": (where(eq(SIZE, Param(0, "int"))), "a parameter without its value"),
    # arguments
    "one argument of two": (where(Call("eq", (SIZE,))), r"eq\(\) takes 2 values, not 1"),
    "three arguments of two": (where(Call("lt", (SIZE, SIZE, SIZE))), r"lt\(\) takes 2 values, not 3"),
    "no argument of one": (where(Call("is_null", ())), r"is_null\(\) takes 1 values, not 0"),
    "a pattern that is read": (where(Call("like", (TITLE, ID))), r"like\(\) takes a value, not something that is read"),
    # types
    "text for a number": (where(eq(SIZE, written("3"))), "cards.size wants int, got str"),
    "a number for text": (where(eq(TITLE, written(3))), "cards.title wants str, got int"),
    "bytes for text": (where(Call("in", (TITLE, written("a"), written(b"a")))), "cards.title wants str, got bytes"),
    "a fraction above": (
        where(Call("and", (DONE, Call("gt", (SIZE, written(3.5)))))),
        r"^where › and\[1\] › gt: cards.size is int, 3.5 would need cards.size >= 4; an int is compared with whole numbers$",
    ),
    "a fraction from on": (where(Call("ge", (SIZE, written(3.5)))), "3.5 would need cards.size >= 4;"),
    "a fraction below": (where(Call("lt", (SIZE, written(3.5)))), "3.5 would need cards.size <= 3;"),
    "a fraction up to": (where(Call("le", (SIZE, written(-3.5)))), "-3.5 would need cards.size <= -4;"),
    "a fraction on the left": (where(Call("lt", (written(3.5), SIZE))), "where › gt: .* would need cards.size >= 4;"),
    "a whole number with a point": (where(Call("gt", (SIZE, Lit("real", 3.0)))), "3.0 would need cards.size > 3;"),
    "an equal fraction": (where(eq(SIZE, written(3.5))), "where › eq: cards.size is int, and no int is 3.5;"),
    "a fraction among others": (where(Call("in", (SIZE, written(1), written(3.5)))), "where › in: .* no int is 3.5;"),
    "a boolean for a number": (where(eq(SIZE, written(True))), "cards.size wants int, got bool"),
    "a moment without a zone": (where(Call("lt", (Col(0, "due"), written(datetime(2026, 1, 1))))), "cards.due"),  # noqa: DTZ001
    "an int and a real": (
        where(Call("lt", (SIZE, WEIGHT))),
        "where › lt: an int is wanted, and cards.weight is a real",
    ),
    "text and an int": (where(eq(TITLE, SIZE)), "where › eq: a text is wanted, and cards.size is an int"),
    "columns of two stores": (
        Plan(CARDS, joins=(Join("inner", REMARKS, eq(ID, Col(1, "size"))),)),
        r"join\[0\] › eq: a text is wanted, and remarks.size is an int",
    ),
    "a value of no column": (where(eq(written(1), written("a"))), "wants int, got str: 'a'"),
    "no condition": (where(SIZE), "where: a bool is wanted, and cards.size is an int"),
    "no condition in and": (
        where(Call("and", (DONE, TITLE))),
        "where › and: a bool is wanted, and cards.title is a text",
    ),
    "no condition in having": (
        columns(SIZE, group=(SIZE,), having=COUNT),
        "having: a bool is wanted, and what stands there is an int",
    ),
    "no condition of a join": (
        Plan(CARDS, joins=(Join("inner", REMARKS, ID),)),
        r"join\[0\]: a bool is wanted, and cards.id is a text",
    ),
    "a pattern for a number": (where(Call("like", (SIZE, written("1%")))), "size"),
    "a sum of texts": (
        columns(Agg("sum", TITLE)),
        r"sum\(\) takes int or real or decimal or duration, and cards.title is a text",
    ),
    "a sum of rows": (columns(Agg("sum")), r"sum\(\) takes a column"),
    "a count of distinct rows": (columns(Agg("count", distinct=True)), r"count\(\) takes a column"),
    "an order of decimals": (Plan(CARDS, order=(Order(Col(0, "price")),)), "cards.price"),
    "a greater decimal": (
        where(Call("gt", (Col(0, "price"), written(Decimal(1))))),
        "> cannot be asked of cards.price",
    ),
    "a sum of decimals": (
        columns(Agg("sum", Col(0, "price"))),
        r"sum\(\) cannot be asked of cards.price: .* Scale\(2\)",
    ),
    "a list in an order": (Plan(CARDS, order=(Order(Col(0, "tags")),)), r"order_by\(\) cannot be asked of cards.tags"),
    "a number beyond 64 bits": (where(eq(SIZE, Lit("int", 2**63))), "64 bits"),
    "a list of values": (where(eq(SIZE, Lit("int", [1]))), "a list is not a column value"),
    "not a number": (where(eq(WEIGHT, Lit("real", float("nan")))), "a float is not a column value"),
    "half a letter": (where(eq(TITLE, Lit("text", "\ud800"))), "lone surrogate"),
    # aggregates and groups
    "an aggregate in where": (
        where(Call("gt", (COUNT, written(1)))),
        r"where › gt\[0\] › count: where looks at single rows, and count\(\) at many; use having\(\)",
    ),
    "an aggregate in a join": (
        Plan(CARDS, joins=(Join("inner", REMARKS, Call("gt", (COUNT, written(1)))),)),
        "the condition of a join looks at single rows",
    ),
    "an aggregate as a key": (
        columns(COUNT, group=(COUNT,)),
        r"group_by\[0\] › count: group_by\(\) looks at single rows, and count\(\) at many",
    ),
    "an aggregate of an aggregate": (
        columns(Agg("sum", COUNT)),
        r"columns.c0 › sum › count: sum\(\) looks at single rows, and count\(\) at many",
    ),
    "an aggregate of some, by an aggregate": (
        columns(Agg("count", where=Call("gt", (COUNT, written(1))))),
        r"count\(where=…\) looks at single rows",
    ),
    "a column beside an aggregate": (
        columns(TITLE, COUNT),
        r"columns.c0: title has many values in a group; aggregate it, or write group_by\(title\)",
    ),
    "a column beside a key": (
        columns(SIZE, TITLE, group=(SIZE,)),
        r"columns.c1: title has many values in a group; aggregate it, or write group_by\(size, title\)",
    ),
    "a column within an expression": (
        columns(Call("coalesce", (TITLE, ID)), group=(TITLE,)),
        "id has many values in a group",
    ),
    "a sort key beside a key": (
        columns(SIZE, group=(SIZE,), order=(Order(TITLE),)),
        r"order_by\[0\]: title has many values",
    ),
    "a column in having": (
        columns(SIZE, group=(SIZE,), having=Call("gt", (WEIGHT, written(1.0)))),
        "having: weight has many values in a group",
    ),
    "whole rows of groups": (Plan(CARDS, group=(SIZE,)), "say which columns"),
    # columns
    "no columns": (Plan(CARDS, columns=()), "at least one column"),
    "two columns of one name": (Plan(CARDS, columns=(Named("a", ID), Named("a", TITLE))), "have one name"),
    "distinct whole rows": (Plan(CARDS, distinct=True), "say which columns: whole rows are distinct by themselves"),
    "distinct rows by something else": (
        columns(TITLE, distinct=True, order=(Order(SIZE),)),
        "distinct rows are sorted by",
    ),
    "one sort key twice": (Plan(CARDS, order=(Order(SIZE), Order(SIZE, True))), "order_by names 'size' twice"),
    "a cursor of another length": (
        Plan(CARDS, seek=Seek((Lit("text", "a"), Lit("text", "b")))),
        "2 values for 1 sort keys",
    ),
    "a cursor of another type": (
        Plan(CARDS, order=(Order(SIZE),), seek=Seek((written("a"), written("b")))),
        r"^after\[0\]: cards.size wants int",
    ),
    "a cursor that is read": (Plan(CARDS, seek=Seek((ID,))), "a value is wanted, not something that is read"),
    # plans within
    "a derived table of whole rows": (Plan(Derived(Plan(CARDS))), "a derived table has columns"),
    "a derived table that looks around": (
        where(Exists(Plan(Derived(columns(Col(-1, "id")))))),
        "there is no source -1 here",
    ),
    "a value of two columns": (columns(Scalar(columns(ID, TITLE))), "exactly one column"),
    "a value of whole rows": (columns(Scalar(Plan(CARDS))), "exactly one column"),
    "a fault in a subquery": (
        where(Exists(where(eq(SIZE, written("3"))))),
        "^where › exists › where › eq: cards.size wants int",
    ),
    "a fault in a value of a subquery": (
        columns(Scalar(columns(Col(0, "nope")))),
        "^columns.c0 › scalar › columns.c0: ",
    ),
    "a fault in a derived table": (
        Plan(Derived(columns(Col(0, "nope"))), columns=(Named("a", Col(0, "c0")),)),
        "^source › columns.c0: store 'cards' has no field 'nope'",
    ),
    "a fault in a derived table that is joined": (
        Plan(CARDS, joins=(Join("inner", REMARKS, OF_CARD), Join("inner", Derived(columns(Col(0, "nope"))), OF_CARD))),
        r"^join\[1\] › columns.c0: store 'cards' has no field 'nope'",
    ),
    "a fault in an include": (include(Branch(None, where(eq(SIZE, written("3"))))), "^include.remarks › where › eq: "),
    # includes
    "an include beside columns without its key": (
        Plan(CARDS, columns=(Named("a", TITLE),), include=include(OF_REMARKS).include),
        "include 'remarks': the children are found by 'id', which is no column",
    ),
    "an include beside columns without its kind": (
        Plan(CARDS, columns=(Named("a", ID),), include=include(Branch("a", Plan(REMARKS)), kind="title").include),
        "include 'remarks': the children are found by 'title', which is no column",
    ),
    "an include beside groups": (
        columns(SIZE, group=(SIZE,), include=include(OF_REMARKS, keys=(("size", "size"),)).include),
        "include.. goes with rows, not with groups or distinct rows",
    ),
    "an include without a key": (include(OF_REMARKS, keys=()), "include 'remarks' has no key, or nothing to read"),
    "an include of nothing": (include(), "include 'remarks' has no key, or nothing to read"),
    "an include by an unknown field": (include(OF_REMARKS, keys=(("nope", "card"),)), "no field 'nope'"),
    "an include by two types": (include(OF_REMARKS, keys=(("size", "card"),)), "size and card cannot be compared"),
    "an include by a list": (include(OF_REMARKS, keys=(("tags", "card"),)), "tags and card cannot be compared"),
    "two includes of one name": (
        Plan(CARDS, include=include(OF_REMARKS).include * 2),
        "two includes have one name",
    ),
    "an include of distinct groups": (
        include(Branch(None, Plan(REMARKS, group=(ID,), columns=(Named("a", ID),), distinct=True))),
        "include 'remarks' has groups or distinct rows, not groups that are made distinct",
    ),
    "an include of a number and another query": (
        include(
            Branch(
                None,
                Plan(
                    REMARKS,
                    columns=(
                        Named("a", Agg("count")),
                        Named("b", Scalar(Plan(CARDS, columns=(Named("n", Agg("count")),)))),
                    ),
                ),
            )
        ),
        "include 'remarks' aggregates, and looks at another query beside it",
    ),
    "an include below groups": (
        include(
            Branch(
                None,
                Plan(
                    REMARKS,
                    group=(Col(0, "card"),),
                    columns=(Named("a", Col(0, "card")),),
                    include=include(OF_REMARKS).include,
                ),
            )
        ),
        "include.. goes with rows, not with groups or distinct rows",
    ),
    "an include of columns of variants": (
        include(Branch("a", Plan(REMARKS, columns=(Named("a", ID),))), kind="title"),
        "include 'remarks' reads whole rows: they are of several stores",
    ),
    "an include from the middle": (include(Branch(None, Plan(REMARKS, offset=1))), "from the first on"),
    "variants that nothing chooses": (include(OF_REMARKS, OF_REMARKS), "has to choose between branches"),
    "a variant of no kind": (include(OF_REMARKS, kind="title"), "a kind for every branch, or one branch without"),
    "a variant of another type": (include(Branch("a", Plan(REMARKS)), kind="size"), "wants int"),
    "a relation through two keys": (
        include(OF_REMARKS, keys=(("id", "card"), ("id", "id")), through=Link("remarks", "card", "id")),
        "one key at each end",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_its_reason(name: str) -> None:
    plan, words = REFUSED[name]
    with pytest.raises(QueryError, match=words):
        check(plan, SCHEMA.store)


def test_an_error_has_its_place_and_its_remedy_by_themselves() -> None:
    with pytest.raises(QueryError) as refused:
        check(where(Call("and", (DONE, Call("gt", (COUNT, written(1)))))), SCHEMA.store)
    assert (refused.value.path, refused.value.hint) == ("where › and[1] › gt[0] › count", "use having()")
    with pytest.raises(QueryError) as refused:
        check(columns(SIZE, TITLE, group=(SIZE,)), SCHEMA.store)
    assert (refused.value.path, refused.value.hint) == ("columns.c1", "aggregate it, or write group_by(size, title)")


@pytest.mark.parametrize(
    "plan",
    [
        Plan(Store("nowhere")),
        Plan(CARDS, joins=(Join("inner", Store("nowhere"), Lit("bool", True)),)),
        where(Exists(Plan(Store("nowhere")))),
        Plan(Derived(Plan(Store("nowhere"), columns=(Named("a", ID),)))),
        include(Branch(None, Plan(Store("nowhere")))),
        include(OF_REMARKS, through=Link("nowhere", "a", "b")),
    ],
)
def test_a_store_that_nobody_declared_is_unknown_wherever_it_stands(plan: Plan) -> None:
    with pytest.raises(UnknownStore, match="nowhere"):
        check(plan, SCHEMA.store)


@pytest.mark.parametrize(
    ("expr", "stored"),
    [
        (eq(SIZE, written(3)), Lit("int", 3)),
        (eq(WEIGHT, written(3)), Lit("real", 3.0)),
        (eq(DONE, written(True)), Lit("bool", 1)),
        (eq(Col(0, "due"), written(datetime(2026, 1, 1, tzinfo=UTC))), Lit("time", "2026-01-01T00:00:00.000000Z")),
        (eq(Col(0, "face"), written(b"\xff")), Lit("blob", b"\xff")),
    ],
)
def test_a_value_is_what_its_column_stores(expr: Call, stored: Lit) -> None:
    found = check(where(expr), SCHEMA.store).where
    assert isinstance(found, Call)
    (literal,) = [arg for arg in found.args if isinstance(arg, Lit)]
    assert (literal.type, literal.value, type(literal.value)) == (stored.type, stored.value, type(stored.value))


def test_a_comparison_has_its_value_on_the_right() -> None:
    assert check(where(Call("lt", (written(3), SIZE))), SCHEMA.store) == check(
        where(Call("gt", (SIZE, written(3)))), SCHEMA.store
    )


def test_an_order_is_total_and_ends_where_it_is() -> None:
    def keys(plan: Plan) -> list[Expr]:
        return [order.expr for order in check(plan, SCHEMA.store).order]

    assert keys(Plan(CARDS)) == [ID]
    assert keys(Plan(CARDS, order=(Order(SIZE),))) == [SIZE, ID]
    assert keys(Plan(CARDS, order=(Order(SIZE), Order(ID, True), Order(TITLE)))) == [SIZE, ID]
    assert keys(Plan(CARDS, joins=(Join("inner", REMARKS, OF_CARD),))) == [ID, Col(1, "id")]
    assert keys(columns(SIZE, COUNT, group=(SIZE,), order=(Order(COUNT, True),))) == [COUNT, SIZE]
    assert keys(columns(TITLE, SIZE, distinct=True, order=(Order(SIZE),))) == [SIZE, TITLE]
    assert keys(columns(COUNT)) == []


TYPES: dict[str, tuple[Expr, str]] = {
    "a column": (SIZE, "int"),
    "a column that may be NULL": (Col(0, "due"), "time?"),
    "a column joined from the left": (Col(1, "size"), "int?"),
    "a comparison": (eq(SIZE, written(1)), "bool"),
    "a comparison with what may be NULL": (eq(Col(1, "size"), SIZE), "bool?"),
    "whether they are the same": (Call("is_same", (Col(1, "size"), SIZE)), "bool"),
    "whether it is NULL": (Call("is_null", (Col(1, "size"),)), "bool"),
    "the first that is not NULL": (Call("coalesce", (Col(1, "size"), SIZE)), "int"),
    "the first that is not NULL of some that may be": (Call("coalesce", (Col(1, "size"), Col(1, "size"))), "int?"),
    "a length": (Call("length", (TITLE,)), "int"),
    "whether there is one": (Exists(Plan(REMARKS)), "bool"),
    "a value of a subquery": (Scalar(columns(SIZE)), "int?"),
}
AGGREGATED: dict[str, tuple[Agg, str]] = {
    "a number of rows": (COUNT, "int"),
    "a number of values": (Agg("count", Col(0, "due")), "int"),
    "a sum of ints": (Agg("sum", SIZE), "int?"),
    "a sum of reals": (Agg("sum", WEIGHT), "real?"),
    "a mean of ints": (Agg("avg", SIZE), "real?"),
    "the last text": (Agg("max", TITLE), "text?"),
    "the first moment": (Agg("min", Col(0, "due")), "time?"),
}


@pytest.mark.parametrize("name", [*TYPES, *AGGREGATED])
def test_every_expression_has_a_type(name: str) -> None:
    expr, kind = (TYPES | AGGREGATED)[name]
    joins = (Join("left", REMARKS, OF_CARD),)
    _, types = Checker(SCHEMA.store).plan(Plan(CARDS, joins=joins, columns=(Named("x", expr),)), ())
    assert types["x"].type == kind


def test_a_derived_table_has_the_types_of_its_columns() -> None:
    """Its values are encoded as the columns that they are compared with."""
    inner = columns(WEIGHT, SIZE)
    bound = bind(
        Plan(Derived(inner), where=eq(Col(0, "c0"), written(3)), columns=(Named("x", Col(0, "c1")),)), SCHEMA.store
    )
    assert (bound.params, type(bound.params[0])) == ((3.0,), float)
    with pytest.raises(QueryError, match="wants int"):
        bind(
            Plan(Derived(inner), where=eq(Col(0, "c1"), written("3")), columns=(Named("x", Col(0, "c1")),)),
            SCHEMA.store,
        )
