"""Random plans over a few stores: sources of every kind, in every place where one can stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from atoma.contracts.query import (
    Agg,
    Branch,
    Call,
    Col,
    Derived,
    Exists,
    Expr,
    Include,
    Join,
    JoinKind,
    Link,
    Lit,
    Named,
    Order,
    Plan,
    Scalar,
    Source,
    Store,
)
from atoma.query.relating import found_by
from atoma.schema import Index, Schema, StoreSpec

BOARDS = ("blue", "green", "red")
PEOPLE = ("ann", "bob", "cid")


@dataclass
class Card:
    id: str
    board: str
    lane: str | None
    size: int
    parent: str | None


@dataclass
class Remark:
    id: str
    board: str
    card: str | None
    author: str
    stars: int | None


@dataclass
class Tagged:
    id: str
    board: str
    card: str
    label: str


@dataclass
class Label:
    id: str
    board: str
    word: str


@dataclass
class Person:
    id: str
    team: str | None


CARDS = StoreSpec("cards", Card, scope="board", indexes=[Index("lane", "size"), Index("parent")])
REMARKS = StoreSpec("remarks", Remark, scope="board", indexes=[Index("card", "stars")])
TAGGED = StoreSpec("tagged", Tagged, scope="board", indexes=[Index("card")])
LABELS = StoreSpec("labels", Label, scope="board")
PEOPLE_STORE = StoreSpec("people", Person, scope="everybody")
SCHEMA = Schema(CARDS, REMARKS, TAGGED, LABELS, PEOPLE_STORE)

VALUES: Mapping[str, Sequence[object]] = {
    "id": ("x0", "x1", "x2", "x3", "x4", *PEOPLE),
    "board": BOARDS,
    "lane": ("todo", "done"),
    "size": (0, 1, 2, 3),
    "parent": ("x0", "x1", "x2"),
    "card": ("x0", "x1", "x2", "x3"),
    "author": PEOPLE,
    "stars": (0, 1, 2),
    "label": ("x0", "x1"),
    "word": ("hot", "cold"),
    "team": ("one", "two"),
}
TEXTS = ("todo", "done", "x0", "x1", "x2", "ann", "one", "hot", "red", "blue")
KEYS: Sequence[tuple[str, str, str, str]] = (
    ("cards", "id", "remarks", "card"),
    ("remarks", "card", "cards", "id"),
    ("cards", "parent", "cards", "id"),
    ("cards", "id", "cards", "parent"),
    ("remarks", "author", "people", "id"),
    ("people", "id", "remarks", "author"),
    ("cards", "id", "tagged", "card"),
    ("tagged", "label", "labels", "id"),
    ("labels", "id", "tagged", "label"),
    ("cards", "id", "labels", "id"),
    ("cards", "id", "labels", "id"),
)
"""Columns that lead from a store to another one."""
COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")


@dataclass(frozen=True)
class Seen:
    """A source that an expression may look at: its number there, and the types of its columns."""

    number: int
    name: str
    types: Mapping[str, str]


class PlanMaker:
    """Makes plans.

    Args:
        random: Where chance comes from.
        schema: The stores.
        keys: See :data:`KEYS`.
    """

    def __init__(
        self, random: Random, schema: Schema = SCHEMA, keys: Sequence[tuple[str, str, str, str]] = KEYS
    ) -> None:
        self._random = random
        self._beside = Random(0)
        self._schema = schema
        self._keys = keys
        self._left = 0

    def plan(self) -> Plan:
        """A plan of any shape; it may be one that a check refuses."""
        self._left = 3  # plans within it
        shape = self._random.choice(
            (self._rows, self._rows, self._columns, self._columns, self._groups, self._groups, self._included)
        )
        return shape(())

    # shapes

    def _rows(self, outer: Sequence[Seen]) -> Plan:
        plan, seen = self._from(outer, derived=False)
        return self._cut(plan, seen)

    def _columns(self, outer: Sequence[Seen]) -> Plan:
        plan, seen = self._from(outer)
        columns = self._named([self._value(seen, outer) for _ in range(self._random.randint(1, 3))])
        if self._random.random() < 0.3:
            distinct = Plan(plan.source, plan.joins, plan.where, columns=columns, distinct=True)
            order = (Order(self._random.choice(columns).expr, self._chance(0.5)),) if self._chance(0.6) else ()
            return Plan(
                distinct.source, distinct.joins, distinct.where, columns=columns, distinct=True, order=order,
                limit=self._limit(),
            )  # fmt: skip
        cut = self._cut(plan, seen)
        return Plan(
            cut.source, cut.joins, cut.where, columns=columns, order=cut.order, limit=cut.limit, offset=cut.offset
        )

    def _groups(self, outer: Sequence[Seen]) -> Plan:
        plan, seen = self._from(outer)
        group = tuple([self._column(seen) for _ in range(self._random.randint(0, 2))])
        aggregates = [self._aggregate(seen, outer) for _ in range(self._random.randint(1, 3))]
        having = Call("gt", (Agg("count"), Lit("int", self._random.randint(0, 2)))) if self._chance(0.3) else None
        order = (Order(aggregates[0], self._chance(0.5)),) if self._chance(0.4) else ()
        return Plan(
            plan.source,
            plan.joins,
            plan.where,
            group,
            having,
            self._named([*group, *aggregates]),
            order=order,
            limit=self._limit() if group else None,
        )

    def _included(self, outer: Sequence[Seen], name: str = "", depth: int = 0) -> Plan:
        store = name or self._random.choice([key[0] for key in self._keys])
        seen = [self._seen(0, store)]
        plan = self._cut(Plan(Store(store), where=self._where(seen, outer, ())), seen)
        ways = [key for key in self._keys if key[0] == store]
        includes: list[Include] = []
        for number in range(self._random.randint(0 if depth else 1, 2 - depth)):
            _, above, child, below = self._random.choice(ways or [(store, "id", store, "id")])
            if store == "cards" and self._chance(0.25):
                child = "labels"
            branch = self._included((), child, depth + 1)
            one = self._chance(0.2)
            across = self._chance(0.4)
            through: Link | None = None
            if store == "cards" and child == "labels":
                above, below, through = "id", "id", Link("tagged", "card", "label")
                across = self._chance(0.7)
            include = Include(f"i{number}", one, ((above, below),), (self._branch(branch),), "", through, across)
            includes.append(include)
        return Plan(
            plan.source,
            where=plan.where,
            columns=self._beside_children(store, includes),
            order=plan.order,
            limit=plan.limit,
            include=tuple(includes),
        )

    def _beside_children(self, store: str, includes: Sequence[Include]) -> tuple[Named, ...] | None:
        """Columns in the place of a parent, now and then; by a chance of its own."""
        if not includes or self._beside.random() >= 0.3:
            return None
        keys = [key for include in includes for key in found_by(include, self._schema.store(store).scope_field)]
        return self._named([Col(0, name) for name in dict.fromkeys([*keys, "id"])])

    def _branch(self, plan: Plan) -> Branch:
        limit = self._random.choice((None, 1, 2, 3))
        if not plan.include and self._beside.random() < 0.3:
            return Branch(None, self._divided(plan, limit))
        columns = plan.columns if plan.include else self._shown(plan)
        return Branch(
            None,
            Plan(plan.source, where=plan.where, columns=columns, order=plan.order, limit=limit, include=plan.include),
        )

    def _divided(self, plan: Plan, limit: int | None) -> Plan:
        """Groups, or distinct rows, of the children of each parent; by a chance of its own."""
        assert isinstance(plan.source, Store)
        random, left = self._random, self._left
        self._random = self._beside
        seen = [self._seen(0, plan.source.name)]
        group = tuple({self._column(seen): None for _ in range(self._random.randint(0, 2))})
        order = (Order(Agg("count"), True),) if self._chance(0.4) else ()
        if group and self._chance(0.3):
            made = Plan(plan.source, where=plan.where, columns=self._named(group), distinct=True, limit=limit)
        else:
            having = Call("gt", (Agg("count"), Lit("int", 1))) if self._chance(0.3) else None
            columns = self._named([*group, self._aggregate(seen, ())])
            made = Plan(plan.source, (), plan.where, group, having, columns, order=order, limit=limit)
        self._random, self._left = random, left
        return made

    def _shown(self, plan: Plan) -> tuple[Named, ...] | None:
        """Columns in the place of a child, now and then; by chance of its own, so that all else is what it would be."""
        assert isinstance(plan.source, Store)
        if self._beside.random() >= 0.3:
            return None
        random, left = self._random, self._left
        self._random = self._beside
        seen = [self._seen(0, plan.source.name)]
        columns = self._named([self._value(seen, ()) for _ in range(self._random.randint(1, 3))])
        self._random, self._left = random, left
        return columns

    # parts

    def _from(self, outer: Sequence[Seen], *, derived: bool = True) -> tuple[Plan, list[Seen]]:
        """Sources with a condition, and what can be seen of them."""
        seen: list[Seen] = []
        source = self._source(0, outer, seen, derived=derived)
        joins: list[Join] = []
        for _ in range(self._random.choice((0, 0, 0, 1) if outer else (0, 0, 1, 1, 2))):
            joins.append(self._join(outer, seen, derived=derived))
        return Plan(source, tuple(joins), self._where(seen, outer, outer)), seen

    def _source(self, number: int, outer: Sequence[Seen], seen: list[Seen], *, derived: bool, name: str = "") -> Source:
        if derived and not name and self._left and self._chance(0.2):
            self._left -= 1
            made = self._random.choice((self._columns, self._groups))(())
            types = {f"c{at}": self._type(named.expr, made) for at, named in enumerate(made.columns or ())}
            seen.append(Seen(number, "", types))
            return Derived(made)
        store = name or self._random.choice([key[0] for key in self._keys])
        seen.append(self._seen(number, store))
        return Store(store)

    def _join(self, outer: Sequence[Seen], seen: list[Seen], *, derived: bool) -> Join:
        number = len(seen)
        ways = [(each, key) for each in seen for key in self._keys if key[0] == each.name]
        if ways and self._chance(0.8):
            each, (_, above, child, below) = self._random.choice(ways)
            source = self._source(number, outer, seen, derived=False, name=child)
            on: Expr = Call("eq", (Col(number, below), Col(each.number, above)))
            if self._chance(0.2):
                on = Call("and", (on, self._on(seen, outer)))
        else:
            source = self._source(number, outer, seen, derived=derived)
            on = self._on(seen, outer)
        kind: JoinKind = "left" if self._chance(0.45) else "inner"
        return Join(kind, source, on, self._chance(0.15))

    def _on(self, seen: Sequence[Seen], outer: Sequence[Seen]) -> Expr:
        """A condition of a join; within a subquery one without another plan, which Python would go through for ever."""
        left = self._left
        self._left = 0 if outer else left
        made = self._condition(seen, outer)
        self._left = left if outer else self._left
        return made

    def _where(self, seen: Sequence[Seen], outer: Sequence[Seen], around: Sequence[Seen]) -> Expr | None:
        parts: list[Expr] = []
        if around and self._chance(0.9):  # a subquery mostly looks at what is around it
            mine, theirs = self._same(seen, around)
            parts.append(Call("eq", (mine, theirs)))
        for _ in range(self._random.choice((0, 0, 1, 1, 2) if not outer else (0, 0, 1))):
            parts.append(self._condition(seen, outer))
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else Call("and", tuple(parts))

    def _same(self, seen: Sequence[Seen], around: Sequence[Seen]) -> tuple[Col, Col]:
        ways = [
            (Col(mine.number, below), Col(theirs.number, above))
            for mine in seen
            for theirs in around
            for parent, above, child, below in (*self._keys, ("", "board", "", "board"))
            if (theirs.name == parent and mine.name == child)
            or (not parent and "board" in mine.types and "board" in theirs.types)
        ]
        if ways:
            return self._random.choice(ways)
        return self._column_of(seen, "text"), self._column_of(around, "text")

    def _condition(self, seen: Sequence[Seen], outer: Sequence[Seen]) -> Expr:
        chosen = self._random.random()
        if chosen < 0.12:
            return Call("is_null", (self._column(seen),))
        if chosen < 0.2:
            return Call("not", (self._condition(seen, outer),))
        if chosen < 0.28:
            return Call("or", (self._condition(seen, outer), self._condition(seen, outer)))
        if chosen < 0.5 and self._left:
            return self._within(seen, outer)
        column = self._column([*seen, *outer] if outer and self._chance(0.1) else seen)
        type_ = self._type_of(column, (*seen, *outer))
        if chosen < 0.6:
            values = [self._literal(column.name, type_) for _ in range(self._random.randint(1, 3))]
            return Call("in", (column, *values))
        return Call(self._random.choice(COMPARED), (column, self._literal(column.name, type_)))

    def _within(self, seen: Sequence[Seen], outer: Sequence[Seen]) -> Expr:
        """A condition with a plan within it."""
        self._left -= 1
        around = self._outward([*seen], outer)
        if self._chance(0.6):
            plan, inner = self._from(around)
            if self._chance(0.4):  # IN (subquery)
                plan = Plan(plan.source, plan.joins, plan.where, columns=self._named([self._column_of(inner, "text")]))
            return Exists(plan, self._chance(0.35))
        return Call(self._random.choice(COMPARED), (self._scalar(around), Lit("int", self._random.randint(0, 2))))

    def _scalar(self, around: Sequence[Seen]) -> Scalar:
        plan, inner = self._from(around)
        if self._chance(0.6):
            aggregate = self._random.choice((Agg("count"), Agg("max", self._column_of(inner, "int"))))
            return Scalar(Plan(plan.source, plan.joins, plan.where, columns=self._named([aggregate])))
        column = self._column_of(inner, "int")
        order = (Order(column, self._chance(0.5)),)
        return Scalar(Plan(plan.source, plan.joins, plan.where, columns=self._named([column]), order=order, limit=1))

    def _outward(self, seen: Sequence[Seen], outer: Sequence[Seen]) -> list[Seen]:
        """The sources as a plan within this one numbers them."""
        own = [Seen(-1 - at, each.name, each.types) for at, each in enumerate(seen)]
        return [*own, *(Seen(each.number - len(seen), each.name, each.types) for each in outer)]

    def _value(self, seen: Sequence[Seen], outer: Sequence[Seen]) -> Expr:
        if self._left and self._chance(0.25):
            self._left -= 1
            return self._scalar(self._outward(seen, outer))
        return self._column(seen)

    def _aggregate(self, seen: Sequence[Seen], outer: Sequence[Seen]) -> Expr:
        where = self._condition(seen, outer) if self._chance(0.3) else None
        chosen = self._random.random()
        if chosen < 0.4:
            return Agg("count", None, where)
        if chosen < 0.7:
            return Agg(self._random.choice(("sum", "min", "max", "avg")), self._column_of(seen, "int"), where)
        return Agg("count", self._column(seen), where, self._chance(0.5))

    def _cut(self, plan: Plan, seen: Sequence[Seen]) -> Plan:
        order = tuple([Order(self._column(seen), self._chance(0.5)) for _ in range(self._random.choice((0, 1, 2)))])
        offset = self._random.choice((0, 0, 0, 1))
        return Plan(plan.source, plan.joins, plan.where, order=order, limit=self._limit(), offset=offset)

    # leaves

    def _column(self, seen: Sequence[Seen]) -> Col:
        each = self._random.choice(seen)
        return Col(each.number, self._random.choice(list(each.types)))

    def _column_of(self, seen: Sequence[Seen], type_: str) -> Col:
        fitting = [Col(each.number, name) for each in seen for name, of in each.types.items() if of == type_]
        return self._random.choice(fitting) if fitting else self._column(seen)

    def _literal(self, name: str, type_: str) -> Lit:
        if type_ == "int":
            return Lit("int", self._random.randint(0, 3))
        return Lit("text", self._random.choice(VALUES.get(name, TEXTS)))

    def _seen(self, number: int, store: str) -> Seen:
        return Seen(number, store, {name: field.type for name, field in self._schema.store(store).fields.items()})

    def _type(self, expr: Expr, plan: Plan) -> str:
        if isinstance(expr, Agg):
            return (
                "real" if expr.fn == "avg" else "int" if expr.fn in ("count", "sum") else self._type_in(expr.arg, plan)
            )
        return self._type_in(expr, plan)

    def _type_in(self, expr: Expr | None, plan: Plan) -> str:
        if isinstance(expr, Scalar):
            return "int"
        if not isinstance(expr, Col):
            return "int"
        source = plan.sources[expr.source]
        if isinstance(source, Store):
            return self._schema.store(source.name).fields[expr.name].type
        inner = source.query
        return self._type((inner.columns or ())[int(expr.name[1:])].expr, inner)

    def _type_of(self, column: Col, seen: Sequence[Seen]) -> str:
        return next(each.types[column.name] for each in seen if each.number == column.source)

    def _named(self, exprs: Sequence[Expr]) -> tuple[Named, ...]:
        return tuple([Named(f"n{at}", each) for at, each in enumerate(exprs)])

    def _limit(self) -> int | None:
        return self._random.choice((None, None, 1, 3, 6))

    def _chance(self, of: float) -> bool:
        return self._random.random() < of
