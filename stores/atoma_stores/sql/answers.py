"""Plans as statements, and the rows of their includes: the same on a device and at a hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from atoma.contracts.query import Branch, Include, Plan, Store
from atoma.contracts.values import StoredRow
from atoma.ports.hub_queries import Fences
from atoma.query.evaluate import Evaluation
from atoma.query.relating import of_parent
from atoma.query.scope import Stores
from atoma.query.walk import is_grouped
from atoma.schema.spec import AnyStore
from atoma_stores.sql.dialect import SQLITE, Dialect
from atoma_stores.sql.fence import KEY_COLUMNS
from atoma_stores.sql.include import IncludedRelation, compile_branch
from atoma_stores.sql.scripts import Execute, Row, Script, Value
from atoma_stores.sql.select import Compiler, Statement

MakeRows: TypeAlias = Callable[[AnyStore, Sequence[Row]], Script[Sequence[StoredRow]]]
"""Makes the rows of a store from what the database returned; it may have to run another query."""
BindExecute: TypeAlias = Callable[[str, Sequence[Value]], Execute]
"""Makes the statement to execute from a text and its values."""

KEYS = len(KEY_COLUMNS)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked plan as statements.

    Attributes:
        plan: The plan.
        statement: Reads its rows, one beyond its limit; for the children of an include, those of all parents.
        branches: The branches of each include, which read its children.
    """

    plan: Plan
    statement: Statement
    branches: tuple[tuple[PreparedBranch, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedBranch:
    """A branch of an include, as statements.

    Attributes:
        branch: The branch.
        relation: The relation to its parents.
        below: Its rows.
        is_one_group: Whether all children of a parent are one group, which exists even without children.
    """

    branch: Branch
    relation: IncludedRelation
    below: Prepared
    is_one_group: bool


def prepare(
    plan: Plan,
    stores: Stores,
    fences: Fences | None = None,
    dialect: Dialect = SQLITE,
    *,
    by_id: bool = False,
    places: bool = False,
) -> Prepared:
    """Compile ``plan``, which is checked and in normal form; see :class:`~atoma_stores.sql.select.Compiler`."""

    def made(plan: Plan, statement: Statement) -> Prepared:
        return Prepared(plan, statement, tuple([branches(plan, include) for include in plan.include]))

    def branches(plan: Plan, include: Include) -> tuple[PreparedBranch, ...]:
        assert isinstance(plan.source, Store)
        parent = stores(plan.source.name)
        link = None if include.through is None else stores(include.through.store)
        found: list[PreparedBranch] = []
        for branch in include.branches:
            assert isinstance(branch.query.source, Store)
            relation = IncludedRelation(include, parent, stores(branch.query.source.name), link)
            statement = compile_branch(Compiler(stores, fences, dialect), branch, relation)
            one = not branch.query.group and is_grouped(branch.query)
            found.append(PreparedBranch(branch, relation, made(branch.query, statement), one))
        return tuple(found)

    return made(plan, Compiler(stores, fences, dialect, by_id=by_id, places=places).select(plan))


def cells(parts: Sequence[AnyStore | int], raw: Row) -> Iterator[Row | None]:
    """Yield the rows that follow one another in ``raw``, as in :attr:`Statement.whole`; None for a missing one.

    For a derived table these are the values.
    """
    start = 0
    for part in parts:
        derived = isinstance(part, int)
        width = part + 1 if isinstance(part, int) else KEYS + len(part.value_columns)
        yield None if raw[start] is None else raw[start + derived : start + width]
        start += width


@dataclass(frozen=True, slots=True)
class ChildReader:
    """A reader of the children of rows, which sends one batch for each level.

    Args:
        dialect: The database's.
        params: The values of the query.
        make: Makes rows.
        ask: Makes the statement to execute.
    """

    dialect: Dialect
    params: Sequence[object]
    make: MakeRows
    ask: BindExecute = Execute

    def added(self, prepared: Prepared, rows: Sequence[object]) -> Script[list[tuple[object, ...]]]:
        """Return each of ``rows``, whole or of columns, which ``prepared`` has found, with its children for each include."""
        wanted: list[tuple[int, PreparedBranch, list[list[int]]]] = []
        batch: list[Execute] = []
        for number, branches in enumerate(prepared.branches):
            for branch in branches:
                parents = _parents(prepared.plan, branch, rows)
                statement = branch.below.statement
                keys = self.dialect.bind(tuple(branch.relation.keys.values()), list(parents))
                # if keys are bound as lists, there is a place for each of their columns
                values = statement.bindings(self.params, keys)
                batch.append(self.ask(statement.sql, values))
                wanted.append((number, branch, list(parents.values())))
        results = yield batch
        children = [
            [self._childless(include, branches)] * len(rows)
            for include, branches in zip(prepared.plan.include, prepared.branches, strict=True)
        ]
        for (number, branch, places), found in zip(wanted, results, strict=True):
            raws = [raw[1:] for raw in found]
            below: Sequence[object] = raws
            if branch.branch.query.columns is None:
                below = yield from self.make(branch.relation.child, raws)
            if branch.below.branches:
                below = yield from self.added(branch.below, below)
            owners = cast("list[int]", [raw[0] for raw in found])
            _attach(prepared.plan.include[number], places, owners, below, children[number])
        return [(row, *(each[at] for each in children)) for at, row in enumerate(rows)]

    def _childless(self, include: Include, branches: Sequence[PreparedBranch]) -> object:
        """Return the children of a parent without rows: nothing, or one empty group for ungrouped aggregates."""
        found: Sequence[object] = ()
        if branches[0].is_one_group:
            found = Evaluation({}, self.params).answer(branches[0].branch.query, (), ())
        return (found[0] if found else None) if include.one else tuple(found)


def _parents(plan: Plan, branch: PreparedBranch, rows: Sequence[object]) -> dict[Row, list[int]]:
    """Return the keys by which the children of ``rows`` are found, each with the positions of the rows that have it."""
    relation = branch.relation
    include, scope_field = relation.include, relation.parent.scope_field if relation.keyed_by_scope else None
    parts = [of_parent(plan, above) for above, _ in include.keys]
    if scope_field is not None:
        parts.append(of_parent(plan, scope_field))
    kind_of = of_parent(plan, include.kind) if include.kind else None
    keys: dict[Row, list[int]] = {}
    for at, row in enumerate(rows):
        key = tuple([part(row) for part in parts])
        if None not in key and (kind_of is None or kind_of(row) == branch.branch.kind):
            keys.setdefault(key, []).append(at)
    return keys


def _attach(
    include: Include,
    places: Sequence[Sequence[int]],
    owners: Sequence[int],
    made: Sequence[object],
    result: list[object],
) -> None:
    by_owner: dict[int, list[object]] = {}
    for owner, each in zip(owners, made, strict=True):
        by_owner.setdefault(owner, []).append(each)
    for owner, group in by_owner.items():
        children = group[0] if include.one else tuple(group)  # one object, however many parents share it
        for at in places[owner]:
            result[at] = children
