"""Joins, subqueries, derived tables and relations through ``client.query`` on a file."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from atoma import (
    Client,
    Index,
    Query,
    Schema,
    StoreSpec,
    belongs_to,
    col,
    count,
    count_of,
    exists,
    has_many,
    has_one,
    max_,
    open_client,
    scalar,
    select,
    sum_,
    variants,
)
from atoma.errors import QueryError, SchemaError
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.unit.client.test_projection import check_pages


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    id: str
    name: str
    boss: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    owner: str | None = None
    hours: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    id: str
    card: str
    author: str | None = None
    made: int
    about: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    id: str
    card: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    id: str
    name: str


USERS = StoreSpec("users", User)
CARDS = StoreSpec("cards", Card, indexes=[Index("owner")])
REMARKS = StoreSpec("remarks", Remark, indexes=[Index("card", "made")])
TAGS = StoreSpec("tags", Tag, indexes=[Index("card")])
LABELS = StoreSpec("labels", Label)
SCHEMA = Schema(USERS, CARDS, REMARKS, TAGS, LABELS)

ada, ben, cyd = (
    User(id=id, name=name, boss=boss) for id, name, boss in (("a", "Ada", None), ("b", "Ben", "a"), ("c", "Cyd", "b"))
)
c1 = Card(id="c1", title="tea", owner="a", hours=3)
c2 = Card(id="c2", title="milk", owner="b", hours=5)
c3 = Card(id="c3", title="bread", owner=None, hours=1)
c4 = Card(id="c4", title="salt", owner="x")
r1 = Remark(id="r1", card="c1", author="b", made=1, about="c2", kind="card")
r2 = Remark(id="r2", card="c1", author="c", made=2, about="a", kind="user")
r3 = Remark(id="r3", card="c1", author=None, made=3, about="zz", kind="user")
r4 = Remark(id="r4", card="c2", author="a", made=4, about="c1", kind="other")
tags = [Tag(id=f"{card}{label}", card=card, label=label) for card, label in (("c1", "l1"), ("c1", "l2"), ("c2", "l2"))]
l1, l2, l3 = Label(id="l1", name="new"), Label(id="l2", name="hot"), Label(id="l3", name="old")

user_id, user_name, boss = USERS.col(lambda u: u.id), USERS.col(lambda u: u.name), USERS.col(lambda u: u.boss)
card_id, title, owner, hours = (
    CARDS.col(lambda c: c.id),
    CARDS.col(lambda c: c.title),
    CARDS.col(lambda c: c.owner),
    CARDS.col(lambda c: c.hours),
)
of_card, author, made = REMARKS.col(lambda r: r.card), REMARKS.col(lambda r: r.author), REMARKS.col(lambda r: r.made)
about, kind = REMARKS.col(lambda r: r.about), REMARKS.col(lambda r: r.kind)
CHIEFS = USERS.named("chiefs")
chief_id, chief_name = CHIEFS.col(lambda u: u.id), CHIEFS.col(lambda u: u.name)

OWNER = belongs_to(CARDS, USERS, on=owner)
REMARKS_OF = has_many(CARDS, REMARKS, on=of_card)
AUTHOR = belongs_to(REMARKS, USERS, on=author == user_id)
CARD_OF = belongs_to(REMARKS, CARDS, on=of_card)
LABELS_OF = has_many(CARDS, LABELS, through=(TAGS, TAGS.col(lambda t: t.card), TAGS.col(lambda t: t.label)))
REPORTS = has_many(USERS, USERS, on=boss)
OWNED = has_one(USERS, CARDS, on=owner)
ABOUT = variants(REMARKS, ("card", CARDS), ("user", USERS), on=about, kind=kind)


ITSELF = belongs_to(CARDS, CARDS, on=card_id)
LABELED = has_many(REMARKS, TAGS, on=of_card == TAGS.col(lambda t: t.card))
label_name = LABELS.col(lambda y: y.name)


class Said(NamedTuple):
    made: int
    by: str | None
    labels: int


kind_of = kind.coalesce("none")


class Busy(NamedTuple):
    card: str
    remarks: int
    last: int | None


BUSY = select(REMARKS).into(Busy, of_card, count(), max_(made)).group_by(of_card).named("busy")

ANSWERS: dict[str, tuple[Query[Any], list[Any]]] = {
    "an inner join": (select(CARDS).join(USERS, owner == user_id), [(c1, ada), (c2, ben)]),
    "a left join": (
        select(CARDS).left_join(USERS, owner == user_id).order_by("-hours"),
        [(c2, ben), (c1, ada), (c3, None), (c4, None)],
    ),
    "a left join of what is missing": (
        select(CARDS).left_join(USERS, owner == user_id).where(user_id.is_null()).columns(title).order_by(title),
        ["bread", "salt"],
    ),
    "three stores": (
        select(REMARKS).join(CARDS, of_card == card_id).left_join(USERS, author == user_id).where(made > 1),
        [(r2, c1, cyd), (r3, c1, None), (r4, c2, ada)],
    ),
    "a condition on a store that is joined later": (
        select(REMARKS).where(title == "milk").join(CARDS, of_card == card_id),
        [(r4, c2)],
    ),
    "a store with itself": (
        select(USERS).left_join(CHIEFS, boss == chief_id).columns(user_name, chief_name),
        [("Ada", None), ("Ben", "Ada"), ("Cyd", "Ben")],
    ),
    "computed of two stores": (
        select(REMARKS).join(CARDS, of_card == card_id).columns(made + hours, made > hours).order_by(made + hours),
        [(4, False), (5, False), (6, False), (9, False)],
    ),
    "groups of a join": (
        select(CARDS)
        .left_join(REMARKS, of_card == card_id)
        .columns(title, count(made), sum_(made))
        .group_by(title)
        .order_by(count(made).desc()),
        [("tea", 3, 6), ("milk", 1, 4), ("bread", 0, None), ("salt", 0, None)],
    ),
    "whether there is a child": (select(CARDS).where(exists(REMARKS_OF)), [c1, c2]),
    "whether there is none": (select(CARDS).where(~exists(REMARKS_OF, lambda r: r.where(made > 2))), [c3, c4]),
    "whether there is one through a store": (
        select(CARDS).where(exists(LABELS_OF, lambda x: x.where(LABELS.col(lambda y: y.name) == "new"))),
        [c1],
    ),
    "a relation of a store with itself": (select(USERS).where(exists(REPORTS)), [ada, ben]),
    "a query that reads the one around it": (
        select(CARDS).where(exists(select(REMARKS).where(of_card == card_id, made > hours))),
        [],
    ),
    "two levels out": (
        select(USERS).where(
            exists(select(CARDS).where(exists(select(REMARKS).where(author == user_id, of_card == card_id))))
        ),
        [ada, ben, cyd],
    ),
    "in a query": (
        select(CARDS).where(owner.in_(select(USERS).columns(user_id).where(boss.is_null()))),
        [c1],
    ),
    "in a query of the same store": (
        select(CARDS).where(hours.in_(select(CARDS).columns(max_(hours)))),
        [c2],
    ),
    "not in a query that finds NULL": (select(CARDS).where(owner.not_in(select(USERS).columns(boss))), []),
    "not in a query without NULL": (
        select(CARDS).where(owner.not_in(select(USERS).columns(boss).where(boss.not_null()))),
        [c4],
    ),
    "not in nothing": (
        select(CARDS).where(owner.not_in(select(USERS).columns(boss).where(boss == "q"))),
        [c1, c2, c3, c4],
    ),
    "in the first two": (
        select(USERS).where(user_id.in_(select(REMARKS).columns(author).order_by("-made").limit(2))),
        [ada],
    ),
    "the number of children": (
        select(CARDS)
        .columns(title, count_of(REMARKS_OF), count_of(LABELS_OF))
        .order_by(count_of(REMARKS_OF).desc(), title),
        [("tea", 3, 2), ("milk", 1, 1), ("bread", 0, 0), ("salt", 0, 0)],
    ),
    "a value of another query": (
        select(CARDS).columns(title, scalar(select(USERS).columns(user_name).where(user_id == owner))),
        [("tea", "Ada"), ("milk", "Ben"), ("bread", None), ("salt", None)],
    ),
    "a derived table": (select(BUSY), [Busy("c1", 3, 3), Busy("c2", 1, 4)]),
    "some of a derived table": (
        select(BUSY).where(BUSY.col(lambda b: b.remarks) > 1).columns(BUSY.col(lambda b: b.last)),
        [3],
    ),
    "a join of a derived table": (
        select(CARDS)
        .join(BUSY, card_id == BUSY.col(lambda b: b.card))
        .where(BUSY.col(lambda b: b.remarks) > hours - 2),
        [(c1, Busy("c1", 3, 3))],
    ),
    "a left join of a derived table": (
        select(CARDS).left_join(BUSY, card_id == BUSY.col(lambda b: b.card)).where(hours < 4),
        [(c1, Busy("c1", 3, 3)), (c3, None)],
    ),
    "children": (
        select(CARDS).include(REMARKS_OF),
        [(c1, (r1, r2, r3)), (c2, (r4,)), (c3, ()), (c4, ())],
    ),
    "nested children, limited for each": (
        select(CARDS)
        .include(REMARKS_OF, lambda r: r.where(made != 2).order_by("-made").limit(1).include(AUTHOR))
        .include(OWNER),
        [(c1, ((r3, None),), ada), (c2, ((r4, ada),), ben), (c3, (), None), (c4, (), None)],
    ),
    "children by columns": (
        select(CARDS).include(REMARKS_OF, lambda r: r.columns(made, author, made > 2).order_by("-made").limit(2)),
        [(c1, ((3, None, True), (2, "c", False))), (c2, ((4, "a", True),)), (c3, ()), (c4, ())],
    ),
    "children made into a class, with what other queries find": (
        select(CARDS)
        .include(
            REMARKS_OF,
            lambda r: r.into(
                Said, made, scalar(select(USERS).columns(user_name).where(user_id == author)), count_of(LABELED)
            ).where(made != 2),
        )
        .include(OWNER, lambda u: u.columns(user_name, count_of(REPORTS)))
        .limit(2),
        [
            (c1, (Said(1, "Ben", 2), Said(3, None, 2)), ("Ada", 1)),
            (c2, (Said(4, "Ada", 1),), ("Ben", 1)),
        ],
    ),
    "a column of children through a store": (
        select(CARDS).include(LABELS_OF, lambda x: x.columns(label_name).order_by(label_name)).limit(2),
        [(c1, ("hot", "new")), (c2, ("hot",))],
    ),
    "some children, and the number of all": (
        select(CARDS)
        .include(REMARKS_OF, lambda r: r.columns(made).order_by("-made").limit(1))
        .include(ITSELF, lambda c: c.columns(count_of(REMARKS_OF))),
        [(c1, (3,), 3), (c2, (4,), 1), (c3, (), 0), (c4, (), 0)],
    ),
    "a column of children of children": (
        select(USERS).include(OWNED, lambda c: c.include(REMARKS_OF, lambda r: r.columns(about).order_by("-made"))),
        [(ada, (c1, ("zz", "a", "c2"))), (ben, (c2, ("c1",))), (cyd, None)],
    ),
    "groups of children": (
        select(CARDS).include(
            REMARKS_OF, lambda r: r.into(Busy, kind_of, count(), max_(made)).group_by(kind_of).order_by(kind_of.desc())
        ),
        [(c1, (Busy("user", 2, 3), Busy("card", 1, 1))), (c2, (Busy("other", 1, 4),)), (c3, ()), (c4, ())],
    ),
    "the largest group of each": (
        select(CARDS)
        .include(REMARKS_OF, lambda r: r.columns(kind, count()).group_by(kind).order_by(count().desc()).limit(1))
        .limit(2),
        [(c1, (("user", 2),)), (c2, (("other", 1),))],
    ),
    "groups of children with enough of them": (
        select(CARDS).include(REMARKS_OF, lambda r: r.columns(kind).group_by(kind).having(count() > 1)),
        [(c1, ("user",)), (c2, ()), (c3, ()), (c4, ())],
    ),
    "numbers of children": (
        select(CARDS).include(REMARKS_OF, lambda r: r.columns(count(), max_(made)).where(made > 1)),
        [(c1, ((2, 3),)), (c2, ((1, 4),)), (c3, ((0, None),)), (c4, ((0, None),))],
    ),
    "one number of children": (
        select(USERS).include(OWNED, lambda c: c.columns(sum_(hours))),
        [(ada, 3), (ben, 5), (cyd, None)],
    ),
    "distinct columns of children": (
        select(CARDS).include(REMARKS_OF, lambda r: r.columns(kind).distinct().order_by(kind.desc()).limit(1)),
        [(c1, ("user",)), (c2, ("other",)), (c3, ()), (c4, ())],
    ),
    "groups of children through a store": (
        select(CARDS).include(
            LABELS_OF, lambda x: x.columns(label_name.length(), count()).group_by(label_name.length())
        ),
        [(c1, ((3, 2),)), (c2, ((3, 1),)), (c3, ()), (c4, ())],
    ),
    "columns beside children": (
        select(CARDS).columns(title, hours).include(REMARKS_OF, lambda r: r.limit(1)).order_by("-hours"),
        [(("milk", 5), (r4,)), (("tea", 3), (r1,)), (("bread", 1), ()), (("salt", None), ())],
    ),
    "a class of columns beside children and groups of them": (
        select(CARDS)
        .into(Busy, title, count_of(REMARKS_OF), hours)
        .include(OWNER, lambda u: u.columns(user_name))
        .include(REMARKS_OF, lambda r: r.columns(author).distinct())
        .where(hours > 1),
        [(Busy("tea", 3, 3), "Ada", (None, "b", "c")), (Busy("milk", 1, 5), "Ben", ("a",))],
    ),
    "columns beside children of two kinds": (
        select(REMARKS).columns(made).include(ABOUT),
        [(1, c2), (2, ada), (3, None), (4, None)],
    ),
    "columns of children beside their own": (
        select(USERS).columns(user_name).include(OWNED, lambda c: c.columns(title).include(REMARKS_OF)),
        [("Ada", ("tea", (r1, r2, r3))), ("Ben", ("milk", (r4,))), ("Cyd", None)],
    ),
    "children through a store": (
        select(CARDS).include(LABELS_OF, lambda x: x.order_by("name")).limit(2),
        [(c1, (l2, l1)), (c2, (l2,))],
    ),
    "one child": (select(USERS).include(OWNED), [(ada, c1), (ben, c2), (cyd, None)]),
    "children of two kinds": (
        select(REMARKS).include(ABOUT),
        [(r1, c2), (r2, ada), (r3, None), (r4, None)],
    ),
    "the same relation twice": (
        select(USERS).include(REPORTS).include(REPORTS, lambda u: u.where(user_name == "Cyd")),
        [(ada, (ben,), ()), (ben, (cyd,), (cyd,)), (cyd, (), ())],
    ),
}


@asynccontextmanager
async def filled(path: Path) -> AsyncGenerator[Client]:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path / "cards.db"))]) as client:
        await client.store(USERS).insert_many([ada, ben, cyd])
        await client.store(CARDS).insert_many([c1, c2, c3, c4])
        await client.store(REMARKS).insert_many([r1, r2, r3, r4])
        await client.store(TAGS).insert_many(tags)
        await client.store(LABELS).insert_many([l1, l2, l3])
        yield client


@pytest.mark.paths
async def test_an_answer_is_what_was_asked_for(tmp_path: Path) -> None:
    async with filled(tmp_path) as client:
        for name, (query, expected) in ANSWERS.items():
            page = await client.query(query)
            assert list(page) == expected, name
            whole = await client.query(query.limit(10_000).with_total())
            assert await client.count(query) == whole.total == len(whole), name
            assert await client.exists(query) == bool(expected), name
            assert await client.first(query) == (expected[0] if expected else None), name
            assert (await client.explain(query)).sources, name


@dataclass(frozen=True, slots=True)
class Level:
    id: str
    at: float
    name: str = ""


@pytest.mark.paths
async def test_children_of_a_number_beyond_all_others_are_found(tmp_path: Path) -> None:
    levels, marks = StoreSpec("levels", Level, indexes=[Index("at")]), StoreSpec("marks", Level, indexes=[Index("at")])
    above = has_many(levels, marks, on=levels.col(lambda x: x.at) == marks.col(lambda x: x.at))
    named = has_many(
        levels,
        marks,
        on=(levels.col(lambda x: x.at) == marks.col(lambda x: x.at))
        & (levels.col(lambda x: x.name) == marks.col(lambda x: x.name)),
    )
    numbers = [math.inf, -math.inf, 0.1, 1e308]
    async with open_client(
        Schema(levels, marks), plugins=[LocalExecution(SQLiteEngine(tmp_path / "levels.db"))]
    ) as client:
        for store in (levels, marks):
            await client.store(store).insert_many([Level(f"{n}", at) for n, at in enumerate(numbers)])
        for relation in (above, named):
            query = select(levels).include(relation, lambda mark: mark.columns(marks.col(lambda x: x.at)))
            assert [found for _, found in await client.query(query)] == [(at,) for at in numbers]


async def test_pages_lead_through_every_answer_and_back(tmp_path: Path) -> None:
    async with filled(tmp_path) as client:
        for query, expected in ANSWERS.values():
            for size in (1, 2) if expected else ():
                await check_pages(client, query.limit(10_000), size)


async def test_rows_sorted_by_what_another_query_finds_have_pages(tmp_path: Path) -> None:
    async with filled(tmp_path) as client:
        query = select(CARDS).order_by(count_of(REMARKS_OF).desc(), title)
        assert list(await client.query(query)) == [c1, c2, c3, c4]
        await check_pages(client, query.limit(10), 1)


REFUSED: dict[str, tuple[Query[Any], str]] = {
    "a store that is not read": (
        select(CARDS).where(user_id == "a"),
        "this query reads 'cards', and that is a column of 'users'",
    ),
    "one store twice": (select(USERS).join(USERS, boss == user_id), "'users' is read twice"),
    "a join that looks ahead": (
        select(REMARKS).join(CARDS, author == user_id).join(USERS, author == user_id),
        r"join\[0\]: this query reads 'remarks' and 'cards'",
    ),
    "a join and children": (
        Query(select(CARDS).join(USERS, owner == user_id).parts)
        .order_by(title)
        .columns(user_name)
        .having(title == "x"),
        "title has many values|many values in a group",
    ),
    "groups of children that are made distinct": (
        select(CARDS).include(REMARKS_OF, lambda r: r.columns(author, count()).group_by(author).distinct()),
        "not groups that are made distinct",
    ),
    "columns of joined rows and children": (
        select(CARDS).join(USERS, owner == user_id).columns(title).include(REMARKS_OF),
        "goes with the rows of one store",
    ),
    "two types": (select(CARDS).join(REMARKS, made == title), "is a"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_makes_no_sense_is_refused_when_it_is_asked(name: str, tmp_path: Path) -> None:
    query, message = REFUSED[name]
    async with filled(tmp_path) as client:
        with pytest.raises(QueryError, match=message):
            await client.query(query)


BUILT: list[tuple[Any, str]] = [
    (lambda: select(CARDS).named("x"), "a derived table has columns"),
    (lambda: select(CARDS).columns(title).named("not a word"), "called by a word"),
    (lambda: BUSY.col(lambda b: b.nope), "has no column 'nope'; it has: card, remarks, last"),  # type: ignore[attr-defined]
    (lambda: BUSY.col(lambda b: b[3]), "has 3 columns"),  # type: ignore[misc]
    (lambda: select(CARDS).include(AUTHOR), "is one of 'remarks', and this query reads 'cards'"),  # type: ignore[arg-type]
    (lambda: select(CARDS).columns(title).include(AUTHOR), "is one of 'remarks', and this query reads 'cards'"),
    (lambda: select(CARDS).include(REMARKS_OF).columns(title), "come before include"),
    (lambda: select(CARDS).include(USERS), "takes a relation"),  # type: ignore[call-overload]
    (lambda: select(CARDS).join("users", owner == user_id), "a join takes a store"),  # type: ignore[arg-type]
    (lambda: exists(select(CARDS).limit(1)), "no limit, no offset"),
    (lambda: exists(CARDS), "takes a query or a relation"),  # type: ignore[arg-type]
    (lambda: exists(ABOUT), "leads into several stores"),
    (lambda: count_of(select(CARDS).columns(title).distinct()), "for groups use a derived table"),
    (lambda: scalar(select(CARDS)), "exactly one column"),
    (lambda: owner.in_(select(CARDS).columns(owner, title)), "exactly one column"),  # type: ignore[arg-type]
    (lambda: select(CARDS).include(REMARKS_OF, lambda r: r.after("x")), "no after"),
    (lambda: USERS.named("users"), "another name for 'users'"),
]


@pytest.mark.parametrize("number", range(len(BUILT)))
def test_what_makes_no_sense_is_refused_at_once(number: int) -> None:
    build, message = BUILT[number]
    with pytest.raises(QueryError, match=message):
        build()


DECLARED: list[tuple[Any, str]] = [
    (lambda: belongs_to(CARDS, USERS, on=user_id), "names a column of 'cards'"),
    (lambda: belongs_to(CARDS, USERS, on=owner < user_id), "on columns that are equal"),
    (lambda: belongs_to(CARDS, USERS, on=owner == author), "has no columns of 'remarks'"),
    (lambda: has_many(CARDS, REMARKS), "say on= or through="),
    (lambda: has_many(USERS, USERS, on=user_id == boss), "on a column"),
    (lambda: variants(REMARKS, ("card", CARDS), ("user", USERS), on=title, kind=kind), "names a column of 'remarks'"),
]


@pytest.mark.parametrize("number", range(len(DECLARED)))
def test_a_relation_names_columns_of_its_stores(number: int) -> None:
    build, message = DECLARED[number]
    with pytest.raises(SchemaError, match=message):
        build()


async def test_a_query_in_a_transaction_looks_at_one_store(tmp_path: Path) -> None:
    async with filled(tmp_path) as client, client.transaction() as tx:
        cards = tx.store(CARDS)
        assert await cards.query(select(CARDS).where(hours > 4)) == (c2,)
        with pytest.raises(QueryError, match="looks at the rows of one store"):
            await cards.query(select(CARDS).where(exists(REMARKS_OF)))


async def test_a_relation_without_its_index_says_which_to_add(tmp_path: Path) -> None:
    async with filled(tmp_path) as client:
        told = await client.explain(select(USERS).include(REPORTS, lambda u: u.limit(3)))
        assert told.warnings == ('users: every row is read; add Index("boss")',)
        assert [each.level for each in told.sources][:1] == [""]
        assert told.sources[1].level == "include users.boss (limit 3 for each)"
        told = await client.explain(select(REMARKS).join(CARDS, title == about).where(col("made") > 0))
        assert told.warnings == ('cards: every row is read; add Index("title")',)
