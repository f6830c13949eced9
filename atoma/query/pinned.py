"""Which scopes the rows can be of that a query looks at, as far as the query itself says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from atoma.contracts.query import BoundQuery, Call, Col, Derived, Exists, Include, Plan, Scalar, Source, Store
from atoma.query.scope import Stores
from atoma.query.walk import conjuncts, expressions, top_expressions, value_of
from atoma.schema.spec import AnyStore

Pinned: TypeAlias = Mapping[str, frozenset[str] | None]
"""Scopes by the store that is read; None where they may be any."""


def pinned_scopes(query: BoundQuery, stores: Stores) -> Pinned:
    """The scopes of the rows that ``query``, which is checked, can look at, for every store that it reads anywhere.

    Raises:
        UnknownStore: It reads a store that is not declared.
    """
    search = _Search(query, stores)
    search.plan(query.plan, ())
    return search.found


_Read: TypeAlias = "tuple[AnyStore | None, str | None]"
"""A source: its store, and the one scope that its rows are of; None where there is none, or it may be any."""


class _Search:
    def __init__(self, query: BoundQuery, stores: Stores) -> None:
        self.found: dict[str, frozenset[str] | None] = {}
        self._params = query.params
        self._stores = stores

    def plan(self, plan: Plan, outer: tuple[_Read, ...], given: str | None = None) -> None:
        """Note the stores of ``plan``; ``given`` is the scope that its first source has to be of."""
        said = self._said(plan, outer)
        own: list[_Read] = []
        certain: list[str] = []  # scopes of sources before that are never missing
        for number, source in enumerate(plan.sources):
            join = plan.joins[number - 1] if number else None
            scope = said.get(number) or (None if number else given)
            if scope is None and join is not None and not join.cross_scope and certain:
                scope = certain[0]
            read = self._source(source, scope)
            own.append(read)
            if (join is None or join.kind == "inner") and read[0] is not None and read[0].scope_field and read[1]:
                certain.append(read[1])
        for _, top in top_expressions(plan):
            for expr in expressions(top):
                if isinstance(expr, (Exists, Scalar)):
                    self.plan(expr.query, (*own, *outer))
        for include in plan.include:
            self._include(include, own[0])

    def _source(self, source: Source, scope: str | None) -> _Read:
        if isinstance(source, Derived):
            self.plan(source.query, ())
            return None, None
        store = self._stores(source.name)
        return store, self._note(store, scope)

    def _note(self, store: AnyStore, scope: str | None) -> str | None:
        if store.scope_field is None:
            scope = store.fixed_scope
        before = self.found.get(store.name, frozenset())
        self.found[store.name] = None if before is None or scope is None else before | {scope}
        return scope

    def _said(self, plan: Plan, outer: tuple[_Read, ...]) -> dict[int, str]:
        """The scopes that the conditions of ``plan`` name, by source."""
        said: dict[int, str] = {}
        for part in conjuncts(plan.where):
            if not isinstance(part, Call) or part.fn != "eq":
                continue
            for column, other in (part.args, part.args[::-1]):
                if not isinstance(column, Col) or column.source < 0 or not self._is_scope(plan, column):
                    continue
                value = value_of(other, self._params)
                if isinstance(other, Col) and other.source < 0 and -other.source <= len(outer):
                    around, scope = outer[-1 - other.source]
                    value = scope if around is not None and around.scope_field == other.name else None
                if isinstance(value, str):
                    said[column.source] = value
        return said

    def _is_scope(self, plan: Plan, column: Col) -> bool:
        source = plan.sources[column.source]
        return isinstance(source, Store) and self._stores(source.name).scope_field == column.name

    def _include(self, include: Include, parent: _Read) -> None:
        scope = None if include.cross_scope or parent[0] is None or not parent[0].scope_field else parent[1]
        if include.through is not None:
            self._note(self._stores(include.through.store), scope)
        for branch in include.branches:
            self.plan(branch.query, (), scope)
