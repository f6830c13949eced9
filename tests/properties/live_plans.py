"""Plans of every shape that live queries follow, named and generated, and rows for them in small domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import hypothesis.strategies as st
from msgspec.structs import replace

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
    JoinKind,
    Lit,
    Named,
    Order,
    Plan,
    Scalar,
    Store,
)
from atoma.contracts.query import (
    Link as QueryLink,
)
from atoma.query.normal import bind_columns, lifted
from atoma.query.seek import seek, with_keys
from atoma.schema import Index, Schema, StoreSpec

Write: TypeAlias = tuple[str, int, Any]
"""``(store, number of the row, its values)``; None deletes it."""


@dataclass(frozen=True)
class Card:
    id: str
    lane: str | None = None
    size: int | None = None
    note: int = 0
    load: float | None = None
    owner: str | None = None


@dataclass(frozen=True)
class Remark:
    id: str
    card: str | None = None
    made: int | None = None
    by: str | None = None


@dataclass(frozen=True)
class Person:
    id: str
    team: str | None = None


SCHEMA = Schema(
    StoreSpec("cards", Card, indexes=[Index("lane")]),
    StoreSpec("remarks", Remark, indexes=[Index("card")]),
    StoreSpec("people", Person),
)
ID, LANE, SIZE = Col(0, "id"), Col(0, "lane"), Col(0, "size")
LOAD = Col(0, "load")
CARDS, REMARKS, PEOPLE = Store("cards"), Store("remarks"), Store("people")
OF_CARD = Call("eq", (Col(0, "card"), Col(-1, "id")))
COUNT, TOTAL = Agg("count"), Agg("sum", SIZE)
NEWEST = Plan(REMARKS, order=(Order(Col(0, "made"), True),), limit=2)


def columns(**exprs: Expr) -> tuple[Named, ...]:
    return tuple([Named(name, expr) for name, expr in exprs.items()])


PLANS: dict[str, Plan] = {
    "columns": Plan(CARDS, columns=columns(lane=LANE, size=SIZE), order=(Order(SIZE, True),), limit=3),
    "distinct": Plan(CARDS, columns=columns(lane=LANE), distinct=True),
    "groups": Plan(
        CARDS,
        group=(LANE,),
        columns=columns(lane=LANE, many=COUNT, total=TOTAL, least=Agg("min", SIZE), mean=Agg("avg", SIZE)),
    ),
    "groups by their size": Plan(
        CARDS,
        where=Call("gt", (SIZE, Lit("int", 0))),
        group=(LANE,),
        having=Call("gt", (COUNT, Lit("int", 1))),
        columns=columns(lane=LANE, many=COUNT),
        order=(Order(COUNT, True),),
    ),
    "a number": Plan(CARDS, where=Call("eq", (LANE, Lit("text", "a"))), columns=columns(many=COUNT)),
    "joined": Plan(CARDS, (Join("inner", REMARKS, Call("eq", (ID, Col(1, "card")))),)),
    "joined from the left": Plan(
        CARDS,
        (Join("left", REMARKS, Call("eq", (ID, Col(1, "card")))),),
        columns=columns(lane=LANE, made=Col(1, "made")),
    ),
    "groups of joined rows": Plan(
        CARDS,
        (Join("left", REMARKS, Call("eq", (ID, Col(1, "card")))),),
        group=(LANE,),
        columns=columns(lane=LANE, many=Agg("count", Col(1, "id"))),
    ),
    "there are some": Plan(CARDS, where=Exists(Plan(REMARKS, where=OF_CARD))),
    "there are none": Plan(CARDS, where=Exists(Plan(REMARKS, where=OF_CARD), negated=True), limit=3),
    "counted beside": Plan(
        CARDS, columns=columns(id=ID, many=Scalar(Plan(REMARKS, where=OF_CARD, columns=columns(n=COUNT))))
    ),
    "with children": Plan(
        CARDS, include=(Include("remarks", False, (("id", "card"),), (Branch(None, NEWEST),)),), limit=4
    ),
    "with groups of children": Plan(
        CARDS,
        columns=columns(id=ID, lane=LANE),
        include=(
            Include(
                "remarks",
                False,
                (("id", "card"),),
                (
                    Branch(
                        None,
                        Plan(
                            REMARKS,
                            group=(Col(0, "by"),),
                            columns=columns(by=Col(0, "by"), many=COUNT, last=Agg("max", Col(0, "made"))),
                            order=(Order(COUNT, True),),
                            limit=2,
                        ),
                    ),
                ),
            ),
        ),
        limit=4,
    ),
    "over another plan": Plan(
        Derived(Plan(CARDS, columns=columns(lane=LANE, size=SIZE), limit=3)), columns=columns(n=COUNT)
    ),
    "over another plan, where": Plan(
        Derived(Plan(CARDS, columns=columns(lane=LANE, size=SIZE))),
        where=Call("eq", (Col(0, "c0"), Lit("text", "a"))),
        columns=columns(size=Col(0, "c1")),
    ),
}


def bound(plan: Plan) -> BoundQuery:
    """As a builder binds it: what rows are sorted by is among their columns."""
    checked, _ = bind_columns(plan, SCHEMA.store)
    return lifted(with_keys(checked))


cards = st.fixed_dictionaries(
    {
        "lane": st.sampled_from([None, "a", "b", "c"]),
        "size": st.one_of(st.none(), st.integers(0, 3)),
        "note": st.integers(0, 1),
        "load": st.sampled_from([None, 0.1, 0.2, 0.3, -0.0, 1e16, -1e16, 1e308, float("inf"), float("-inf")]),
        "owner": st.sampled_from([None, "p0", "p1", "p2"]),
    }
)
remarks = st.fixed_dictionaries(
    {
        "card": st.one_of(st.none(), st.sampled_from(["k0", "k0", "k0", "k1", "k2", "k3", "k4"])),
        "made": st.integers(0, 3),
        "by": st.sampled_from([None, "p0", "p1", "p2"]),
    }
)
people = st.fixed_dictionaries({"team": st.sampled_from([None, "x", "y"])})
writes = st.one_of(
    st.tuples(st.just("cards"), st.integers(0, 5), st.one_of(cards, cards, st.none())),
    st.tuples(st.just("remarks"), st.integers(0, 7), st.one_of(remarks, remarks, st.none())),
    st.tuples(st.just("people"), st.integers(0, 2), st.one_of(people, people, st.none())),
)
FIRST: list[Write] = [
    *(
        (
            "cards",
            number,
            {"lane": "aab"[number % 3], "size": 1 + number % 2, "note": 0, "load": 0.1, "owner": f"p{number % 2}"},
        )
        for number in range(4)
    ),
    *(("remarks", number, {"card": f"k{number % 2}", "made": number, "by": "p0"}) for number in range(3)),
    *(("people", number, {"team": "xy"[number]}) for number in range(2)),
]
PREFIXES = {"cards": "k", "remarks": "r", "people": "p"}
commits = st.lists(writes, min_size=1, max_size=4)
bursts = st.one_of(
    st.lists(st.tuples(commits, st.just(0)), min_size=1, max_size=1),
    st.lists(st.tuples(commits, st.integers(0, 4)), min_size=2, max_size=4),
)
"""Commits, and for how many steps of the loop the live queries may run behind each."""
scripts = st.lists(bursts, min_size=2, max_size=8)


def named(exprs: Sequence[Expr]) -> tuple[Named, ...]:
    return tuple([Named(f"n{at}", expr) for at, expr in enumerate(exprs)])


# groups that are generated

KEYS: tuple[Expr, ...] = (
    LANE,
    LANE,
    LANE,
    Col(0, "note"),
    Call("coalesce", (SIZE, Lit("int", 0))),
    Call("length", (LANE,)),
    LOAD,
)
VALUES: tuple[Expr, ...] = (SIZE, SIZE, LOAD, LOAD, LANE, Call("add", (SIZE, Lit("int", 2**59))))
CONDITIONS: tuple[Expr, ...] = (
    Call("gt", (SIZE, Lit("int", 0))),
    Call("eq", (LANE, Lit("text", "a"))),
    Call("not", (Call("is_null", (LANE,)),)),
)


@st.composite
def aggregates(draw: st.DrawFn) -> Agg:
    fn = draw(st.sampled_from(["count", "count", "sum", "avg", "min", "max", "min", "max"]))
    values = [value for value in VALUES if value is not LANE or fn in ("count", "min", "max")]
    arg = draw(st.sampled_from(values if fn != "count" else [*values, None, None]))
    distinct = arg is not None and draw(st.booleans()) and draw(st.booleans())
    return Agg(fn, arg, draw(st.sampled_from([None, None, None, *CONDITIONS])), distinct)


@st.composite
def groups(draw: st.DrawFn) -> Plan:
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=2, unique=True))
    found = draw(st.lists(aggregates(), min_size=0 if keys else 1, max_size=3, unique=True))
    shown = draw(st.permutations([*keys, *found]))
    having = draw(
        st.sampled_from([None, None, *(Call("ge", (agg, Lit("int", 1))) for agg in found if agg.fn == "count")])
    )
    order = draw(st.lists(st.sampled_from(shown), max_size=2, unique=True))
    limit = draw(st.sampled_from([None, None, 0, 1, 2, 3]))
    plan = Plan(
        CARDS,
        where=draw(st.sampled_from([None, None, *CONDITIONS])),
        group=tuple(keys),
        having=having,
        columns=named(shown),
        order=tuple([Order(expr, draw(st.booleans())) for expr in order]),
        limit=limit,
        offset=draw(st.sampled_from([0, 0, 1])) if keys else 0,
    )
    if keys == [LANE] and not order:
        return draw(st.sampled_from([plan, seek(plan, ("a",)), seek(plan, ("b",), forward=False)]))
    return plan


@st.composite
def different(draw: st.DrawFn) -> Plan:
    shown = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True))
    return Plan(
        CARDS,
        where=draw(st.sampled_from([None, *CONDITIONS])),
        columns=named(shown),
        distinct=True,
        order=tuple([Order(expr, draw(st.booleans())) for expr in shown[:1]]),
        limit=draw(st.sampled_from([None, 1, 2])),
    )


@st.composite
def projected(draw: st.DrawFn) -> Plan:
    shown = draw(st.lists(st.sampled_from([*KEYS, ID]), min_size=1, max_size=2, unique=True))
    return Plan(
        CARDS,
        where=draw(st.sampled_from([None, *CONDITIONS])),
        columns=named(shown),
        order=tuple(
            [
                Order(expr, draw(st.booleans()))
                for expr in draw(st.lists(st.sampled_from([SIZE, LANE, LOAD]), max_size=2, unique=True))
            ]
        ),
        limit=draw(st.sampled_from([None, 1, 2, 3])),
        offset=draw(st.sampled_from([0, 0, 1])),
    )


extremes = st.builds(
    lambda fn, keys, limit: Plan(CARDS, group=keys, columns=named([*keys, Agg(fn, SIZE)]), limit=limit),
    st.sampled_from(["min", "max"]),
    st.sampled_from([(LANE,), (Col(0, "note"),), ()]),
    st.sampled_from([None, 2]),
)
"""Groups of few values, of which the best ones leave."""
of_one_store = st.one_of(groups(), groups(), extremes, different(), projected())


# what is made of more than one row


def eq(left: Expr, right: Expr) -> Expr:
    return Call("eq", (left, right))


MADE, BY, TEAM = Col(0, "made"), Col(0, "by"), Call("eq", (Col(0, "team"), Lit("text", "x")))
LATE = Call("gt", (MADE, Lit("int", 1)))
BY_TEAM = Exists(Plan(PEOPLE, where=Call("and", (TEAM, eq(ID, Col(-1, "by"))))))
"""Whether a remark is by somebody of a team."""
narrower = st.sampled_from([None, None, LATE, BY_TEAM])
limits = st.sampled_from([None, None, 1, 2, 3])


def every(*conditions: Expr | None) -> Expr | None:
    given = [each for each in conditions if each is not None]
    return None if not given else given[0] if len(given) == 1 else Call("and", tuple(given))


@st.composite
def within(draw: st.DrawFn) -> Plan:
    """The remarks of a card, as a query within another one."""
    where = every(OF_CARD, draw(narrower))
    if draw(st.booleans()):
        return Plan(REMARKS, where=where)
    return Plan(REMARKS, (Join("inner", PEOPLE, eq(Col(1, "id"), BY)),), where=where)


numbers = st.one_of(
    within().map(lambda plan: Scalar(replace(plan, columns=named([COUNT])))),
    within().map(lambda plan: Scalar(replace(plan, columns=named([Agg("max", MADE)])))),
    within().map(lambda plan: Scalar(replace(plan, columns=named([BY]), order=(Order(MADE, True),), limit=1))),
)
semi = st.one_of(
    st.builds(Exists, within(), st.booleans()),
    st.booleans().map(
        lambda negated: Exists(Plan(PEOPLE, where=Call("and", (TEAM, eq(ID, Col(-1, "owner"))))), negated)
    ),
    within().map(lambda plan: Call("ge", (Scalar(replace(plan, columns=named([COUNT]))), Lit("int", 2)))),
)


@st.composite
def chosen(draw: st.DrawFn) -> Plan:
    """Cards that a subquery chooses, or beside which some stand."""
    shown = draw(
        st.one_of(st.none(), st.lists(st.one_of(numbers, st.sampled_from([SIZE, ID, LANE])), min_size=1, max_size=3))
    )
    order: list[Expr] = draw(st.lists(st.sampled_from([SIZE, LANE]), max_size=1))
    if shown and draw(st.booleans()):
        order = [draw(st.sampled_from(shown))]
    return Plan(
        CARDS,
        where=every(draw(st.one_of(st.none(), semi)), draw(st.sampled_from([None, *CONDITIONS]))),
        columns=None if shown is None else named(shown),
        order=tuple([Order(expr, draw(st.booleans())) for expr in order]),
        limit=draw(limits),
        offset=draw(st.sampled_from([0, 0, 1])),
    )


@st.composite
def joins(draw: st.DrawFn) -> tuple[Store, tuple[Join, ...]]:
    kinds: st.SearchStrategy[JoinKind] = st.sampled_from(("inner", "left"))
    first, kind = draw(st.sampled_from([CARDS, CARDS, REMARKS])), draw(kinds)
    if first is CARDS:
        same = eq(ID, Col(1, "card"))
        on = draw(st.sampled_from([same, same, Call("and", (same, Call("gt", (Col(1, "made"), Lit("int", 1)))))]))
        made = [Join(kind, REMARKS, on)]
        last = draw(st.sampled_from([None, eq(Col(1, "by"), Col(2, "id")), eq(Col(0, "owner"), Col(2, "id"))]))
    else:
        made = [Join(kind, CARDS, eq(Col(1, "id"), Col(0, "card")))]
        last = draw(st.sampled_from([None, eq(Col(1, "owner"), Col(2, "id"))]))
    return first, (*made, *(() if last is None else (Join(draw(kinds), PEOPLE, last),)))


@st.composite
def joined(draw: st.DrawFn) -> Plan:
    first, found = draw(joins())
    of_first = [SIZE, LANE] if first is CARDS else [MADE, BY]
    of_second = [Col(1, "made"), Col(1, "by")] if first is CARDS else [Col(1, "size"), Col(1, "lane")]
    where = draw(
        st.sampled_from(
            [None, Call("gt", (of_first[0], Lit("int", 0))), Call("not", (Call("is_null", (of_second[0],)),))]
        )
    )
    shown = draw(
        st.one_of(st.none(), st.lists(st.sampled_from([*of_first, *of_second]), min_size=1, max_size=2, unique=True))
    )
    order = draw(st.lists(st.sampled_from([*of_first, *of_second]), max_size=2, unique=True))
    return Plan(
        first,
        found,
        where=where,
        columns=None if shown is None else named(shown),
        order=tuple([Order(expr, draw(st.booleans())) for expr in order]),
        limit=draw(limits),
        offset=draw(st.sampled_from([0, 0, 1])),
    )


@st.composite
def grouped_joins(draw: st.DrawFn) -> Plan:
    first, found = draw(joins())
    keys = [LANE, Col(1, "by")] if first is CARDS else [BY, Col(1, "lane")]
    number = Col(1, "made") if first is CARDS else Col(1, "size")
    group = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True))
    values = [
        COUNT,
        Agg("count", Col(1, "id")),
        Agg("sum", number),
        Agg("max", number),
        Agg("count", number, None, True),
    ]
    shown: list[Expr] = [*group, *draw(st.lists(st.sampled_from(values), max_size=2, unique=True))]
    if draw(st.booleans()) and draw(st.booleans()):
        return Plan(first, found, columns=named(group), distinct=True)
    order = tuple([Order(expr, draw(st.booleans())) for expr in draw(st.lists(st.sampled_from(shown), max_size=1))])
    return Plan(first, found, group=tuple(group), columns=named(shown), order=order, limit=draw(limits))


@st.composite
def chosen_groups(draw: st.DrawFn) -> Plan:
    return replace(draw(groups()), where=draw(semi), seek=None)


OWNER = Include("owner", True, (("owner", "id"),), (Branch(None, Plan(PEOPLE)),))
AUTHOR = Include("author", True, (("by", "id"),), (Branch(None, Plan(PEOPLE)),))
AUTHORS = Include(
    "authors",
    False,
    (("id", "id"),),
    (Branch(None, Plan(PEOPLE, limit=2)),),
    through=QueryLink("remarks", "card", "by"),
)
KINDS = Include(
    "kinds", False, (("id", "card"),), (Branch("a", NEWEST), Branch("b", replace(NEWEST, where=LATE))), kind="lane"
)


NAMESAKES = Scalar(Plan(PEOPLE, where=Call("and", (TEAM, eq(ID, Col(-1, "by")))), columns=named([COUNT])))
SHOWN = (named([MADE]), named([ID, NAMESAKES]))
"""Columns of remarks in the place of the remarks."""
LATEST = Agg("max", MADE)
GROUPS = (
    Plan(REMARKS, group=(BY,), columns=named([BY, COUNT, LATEST])),
    Plan(REMARKS, group=(BY,), columns=named([LATEST, BY]), having=Call("ge", (COUNT, Lit("int", 2)))),
    Plan(REMARKS, group=(BY,), columns=named([BY, COUNT]), order=(Order(COUNT, True),)),
    Plan(REMARKS, columns=named([COUNT, LATEST])),
    Plan(REMARKS, columns=named([BY]), distinct=True),
)
"""Groups of remarks in the place of the remarks."""
BESIDE = (None, None, named([SIZE, ID, LANE, Col(0, "owner")]))
"""What is shown of the cards beside their children."""


@st.composite
def parents(draw: st.DrawFn) -> Plan:
    of_remark, shown = draw(st.sampled_from([((), None), ((AUTHOR,), None), *(((), each) for each in SHOWN)]))
    children = Plan(
        REMARKS,
        where=draw(narrower),
        order=draw(st.sampled_from([(), (Order(MADE, True),)])),
        limit=draw(limits),
        columns=shown,
        include=of_remark,
    )
    if not of_remark and shown is None:
        children = draw(
            st.sampled_from([children, *[replace(each, where=children.where, limit=children.limit) for each in GROUPS]])
        )
    found = [
        Include("remarks", draw(st.sampled_from([False, False, True])), (("id", "card"),), (Branch(None, children),)),
        OWNER,
        AUTHORS,
        KINDS,
    ]
    one = eq(ID, Lit("text", "k0"))
    return Plan(
        CARDS,
        where=every(draw(st.sampled_from([None, one, *CONDITIONS])), draw(st.one_of(st.none(), st.none(), semi))),
        order=draw(st.sampled_from([(), (Order(SIZE, True),), (Order(LANE),)])),
        limit=draw(limits),
        offset=draw(st.sampled_from([0, 0, 1])),
        columns=draw(st.sampled_from(BESIDE)),
        include=tuple(draw(st.lists(st.sampled_from(found), min_size=1, max_size=2, unique_by=lambda each: each.name))),
    )


EVERY_REMARK = Plan(REMARKS)
SAME_OWNER = Include("mates", False, (("owner", "owner"),), (Branch(None, Plan(CARDS, order=(Order(SIZE),), limit=2)),))
"""Cards beside cards, which neither their ids lead to nor one of them alone."""
TWINS = replace(SAME_OWNER, name="twins", keys=(("owner", "owner"), ("lane", "lane")))


@st.composite
def kept(draw: st.DrawFn) -> Plan:
    """Cards beside which stands what is kept up from the changes alone."""
    children = Plan(
        REMARKS,
        where=draw(st.sampled_from([None, None, LATE])),
        order=draw(st.sampled_from([(), (Order(MADE, True),), (Order(BY), Order(MADE))])),
        limit=draw(st.sampled_from([None, 1, 1, 2, 2, 3])),
    )
    first = Include(
        "remarks", draw(st.sampled_from([False] * 4 + [True])), (("id", "card"),), (Branch(None, children),)
    )
    every_one = Include("every", False, (("id", "card"),), (Branch(None, EVERY_REMARK),))
    own = Include("own", False, (("id", "card"), ("owner", "by")), (Branch(None, replace(children, where=None)),))
    offered = [first, first, every_one, own, OWNER, SAME_OWNER, TWINS]
    found = draw(st.lists(st.sampled_from(offered), max_size=2, unique_by=lambda each: each.name))
    counts = [
        Scalar(
            Plan(
                REMARKS,
                where=every(OF_CARD, draw(st.sampled_from([None, LATE]))),
                columns=named([Agg("count", draw(st.sampled_from([None, BY])), draw(st.sampled_from([None, LATE])))]),
            )
        ),
        Scalar(Plan(PEOPLE, where=eq(Col(-1, "owner"), ID), columns=named([COUNT]))),
        Scalar(Plan(REMARKS, where=every(OF_CARD, eq(BY, Col(-1, "owner"))), columns=named([COUNT]))),
    ]
    shown: list[Expr] = [
        SIZE,
        ID,
        LANE,
        Col(0, "owner"),
        *draw(st.lists(st.sampled_from(counts), min_size=0 if found else 1, max_size=2)),
    ]
    columns = named(draw(st.permutations(shown))) if not found or draw(st.booleans()) else None
    plan = Plan(
        CARDS,
        where=draw(st.sampled_from([None, None, eq(ID, Lit("text", "k0")), *CONDITIONS])),
        order=draw(st.sampled_from([(), (), (Order(SIZE, True),), (Order(LANE),)])),
        limit=draw(st.sampled_from([None, 1, 2, 3])),
        offset=draw(st.sampled_from([0, 0, 1])),
        columns=columns,
        include=tuple(found),
    )
    if plan.order:
        return plan
    return draw(st.sampled_from([plan, plan, seek(plan, ("k0",)), seek(plan, ("k3",), forward=False)]))


def some(kind: str, plans: st.SearchStrategy[Plan]) -> st.SearchStrategy[Mapping[str, Plan]]:
    return st.lists(plans, min_size=2, max_size=5).map(
        lambda given: {f"{kind} {at}": each for at, each in enumerate(given)}
    )


GENERATED: Mapping[str, st.SearchStrategy[Mapping[str, Plan]]] = {
    "of one store": some("of one store", of_one_store),
    "with children": some("with children", parents()),
    "kept beside": some("kept beside", kept()),
    "with subqueries": some("with subqueries", st.one_of(chosen(), chosen(), chosen_groups())),
    "joined": some("joined", st.one_of(joined(), joined(), grouped_joins())),
}
