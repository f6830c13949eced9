"""The children of an include: one statement for all parents, with the limit counted for each parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from atoma.contracts.query import Branch, Include, Plan, Store
from atoma.contracts.values import HIDDEN
from atoma.query.walk import is_grouped
from atoma.schema.kinds import SqlType
from atoma.schema.spec import AnyStore
from atoma_stores.sql.names import quote
from atoma_stores.sql.select import Compiler, SourceAlias, Statement, whole_row


@dataclass(frozen=True, slots=True)
class IncludedRelation:
    """An include between the stores at its ends.

    Attributes:
        include: The include.
        parent: The store of the parents.
        child: The store of the children of the branch that is read.
        link: The store between them, if there is one.
    """

    include: Include
    parent: AnyStore
    child: AnyStore
    link: AnyStore | None = None

    @property
    def keyed_by_scope(self) -> bool:
        """Whether a parent's children are determined by its scope as well as its keys."""
        beside = (self.child,) if self.link is None else (self.child, self.link)
        return any(self.scoped(self.parent, each) for each in beside)

    def scoped(self, one: AnyStore, other: AnyStore) -> bool:
        """Whether rows of these stores are joined within one scope only, as both take it from a field."""
        return not self.include.cross_scope and None not in (one.scope_field, other.scope_field)

    @property
    def keys(self) -> Mapping[str, SqlType]:
        """The values by which the children of a parent are found: its keys, and its scope where that matters."""
        types: dict[str, SqlType] = {
            f"a{at}": self.parent.fields[above].sql_type for at, (above, _) in enumerate(self.include.keys)
        }
        if self.keyed_by_scope:
            types["scope"] = "TEXT"
        return types


def compile_branch(compiler: Compiler, branch: Branch, relation: IncludedRelation) -> Statement:
    """Return the statement for the children of a branch, whose parents are the first value of ``more``.

    The parents are a list of :attr:`IncludedRelation.keys`. A row begins with the number of its parent in that list,
    followed by the child, whole or as columns, or by a group of children; the rows are sorted.
    """
    dialect, child = compiler.dialect, relation.child
    for _ in range(dialect.key_places(relation.keys)):
        compiler.bind(None)
    plan = replace(branch.query, include=())
    assert isinstance(plan.source, Store)
    first, table, conditions, order = compiler.parts(plan, lambda alias: _belongs(compiler, relation, alias))
    shown = first
    if plan.distinct or is_grouped(plan):
        found = f"FROM {dialect.keys(relation.keys)} {dialect.words['join']} {table} AS {first.name} ON {conditions}"
        made = (
            _different(compiler, plan, first, found) if plan.distinct else _groups(compiler, plan, first, found, order)
        )
        return compiler.statement(made, (child,))
    if plan.limit is None:
        text = f"{dialect.words['join']} {table} AS {first.name} ON {conditions}"
    elif dialect.lateral:
        rows = (
            f"SELECT {first.name}.* FROM {table} AS {first.name} WHERE {conditions} ORDER BY {order} LIMIT {plan.limit}"
        )
        text = f"CROSS JOIN LATERAL ({rows}) AS {first.name}"
    else:
        shown = compiler.alias(child, plan.source)
        # if several scopes may have the same id, the key consists of both
        key = ("_scope", "id") if compiler.tables.fenced else ("id",)
        own, found = (", ".join(f"{alias.name}.{name}" for name in key) for alias in (shown, first))
        kept = f"SELECT {found} FROM {table} AS {first.name} WHERE {conditions} ORDER BY {order} LIMIT {plan.limit}"
        text = f"{dialect.words['join']} {table} AS {shown.name} ON ({own}) IN ({kept})"
        order = compiler.order(plan, (shown,), ())
    if plan.columns is None:
        columns = ", ".join(whole_row(shown, fenced=compiler.tables.fenced))
    else:
        columns = ", ".join([compiler.expr(named.expr, (shown,), ()) for named in plan.columns])
    keys = dialect.keys(relation.keys)
    return compiler.statement(f"SELECT k.n, {columns} FROM {keys} {text} ORDER BY k.n, {order}", (child,))


def _groups(compiler: Compiler, plan: Plan, child: SourceAlias, found: str, order: str) -> str:
    """Return the SQL for the groups of each parent's children ``found``."""
    shown = [compiler.expr(named.expr, (child,), ()) for named in plan.columns or ()]
    found += f" GROUP BY {', '.join(['k.n', *[compiler.expr(each, (child,), ()) for each in plan.group]])}"
    if plan.having is not None:
        found += f" HAVING {compiler.condition(plan.having, (child,), ())}"
    if plan.limit is None:
        return f"SELECT {', '.join(['k.n', *shown])} {found} ORDER BY {', '.join(filter(None, ['k.n', order]))}"
    names, listed = _named(shown)
    place = f"row_number() OVER (PARTITION BY k.n{' ORDER BY ' if order else ''}{order})"
    return _first(plan.limit, names, f"SELECT k.n AS n, {listed}, {place} AS place {found}")


def _different(compiler: Compiler, plan: Plan, child: SourceAlias, found: str) -> str:
    """Return the SQL for the distinct rows of each parent's children ``found``, sorted by their columns."""
    columns = [named.expr for named in plan.columns or ()]
    names, listed = _named([compiler.expr(each, (child,), ()) for each in columns])
    key = compiler.dialect.spelling.key
    order = ", ".join(
        [key(names[columns.index(each.expr)], descending=each.descending, nullable=True) for each in plan.order]
    )
    different = f"(SELECT DISTINCT k.n AS n, {listed} {found}) AS d"
    if plan.limit is None:
        return f"SELECT n, {', '.join(names)} FROM {different} ORDER BY n, {order}"
    place = f"row_number() OVER (PARTITION BY n ORDER BY {order})"
    return _first(plan.limit, names, f"SELECT n, {', '.join(names)}, {place} AS place FROM {different}")


def _named(texts: Sequence[str]) -> tuple[list[str], str]:
    """Return names for columns, and the columns with these names."""
    names = [f"c{at}" for at in range(len(texts))]
    return names, ", ".join([f"{text} AS {name}" for text, name in zip(texts, names, strict=True)])


def _first(limit: int, names: Sequence[str], within: str) -> str:
    """Return the SQL for the first rows of each parent by their ``place`` in ``within``."""
    return f"SELECT n, {', '.join(names)} FROM ({within}) AS g WHERE place <= {limit} ORDER BY n, place"


def _belongs(compiler: Compiler, relation: IncludedRelation, child: SourceAlias) -> str:
    """Return the condition that ``child`` belongs to the parent ``k``."""
    include, link = relation.include, relation.link
    if link is None:
        same = [f"{child.column(below)} = k.a{at}" for at, (_, below) in enumerate(include.keys)]
    else:
        assert include.through is not None
        ((_, below),) = include.keys
        between = [f"l.{quote(include.through.parent)} = k.a0"]
        if link.soft_delete:
            between.append(f"l.{quote(HIDDEN)} IS NULL")
        if relation.scoped(relation.parent, link):
            between.append("l._scope = k.scope")
        if relation.scoped(link, relation.child):
            between.append(f"l._scope = {child.name}._scope")
        ends = f"SELECT l.{quote(include.through.child)} FROM {compiler.tables.read(link)} AS l WHERE {' AND '.join(between)}"
        same = [f"{child.column(below)} IN ({ends})"]
    if relation.scoped(relation.parent, relation.child):
        same.append(f"{child.name}._scope = k.scope")
    return " AND ".join(same)
