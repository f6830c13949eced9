"""The fence: the only place where the text of a query names the table of a store.

On a device every row belongs to its owner, and a query reads the tables. At a hub a query reads, under the name of a store,
the rows that its caller may see: a common table expression of that name precedes the query and hides the table from
every source of the plan, wherever it is used. A store without a fence cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable

from atoma.contracts.query import Expr
from atoma.ports.hub_queries import Fence, Fences
from atoma.schema.spec import AnyStore
from atoma_stores.sql.dialect import Dialect
from atoma_stores.sql.names import quote
from atoma_stores.sql.scripts import Value

KEY_COLUMNS = ("id", "_ver", "_seq", "_scope")
SCOPE = KEY_COLUMNS.index("_scope")
ROW = "f"
"""The name of a row within a fence."""


class FencedTables:
    """The tables of one query.

    Args:
        dialect: The dialect that names them.
        fences: What the caller may see of each store; None if the owner of the database asks.
        bind: Returns a place for a value.
        condition: Returns the SQL of a condition on the row :data:`ROW` of a store.
        by_id: Whether rows are found by their ids alone, at a hub whose indexes begin with the scope.

    Attributes:
        fences: The SQL of the fences of the stores that were named so far.
    """

    __slots__ = ("_bind", "_by_id", "_condition", "_dialect", "_fences", "_scopes", "fences")

    def __init__(
        self,
        dialect: Dialect,
        fences: Fences | None,
        bind: Callable[[Value], str],
        condition: Callable[[Expr, AnyStore], str],
        *,
        by_id: bool = False,
    ) -> None:
        self._dialect = dialect
        self._fences = fences
        self._bind = bind
        self._condition = condition
        self._by_id = by_id
        self._scopes: dict[tuple[str, ...], str] = {}
        self.fences: dict[str, str] = {}

    @property
    def fenced(self) -> bool:
        """Whether rows of several scopes may have the same id, and a caller may not see all of them."""
        return self._fences is not None

    def read(self, store: AnyStore) -> str:
        """Return what follows FROM to read ``store``.

        Raises:
            LookupError: It has no fence.
        """
        if self._fences is None:
            return self._dialect.store(store.name)
        if store.name not in self.fences:
            fence = self._fences.get(store.name)
            if fence is None:
                raise LookupError(f"store {store.name!r} has no fence")
            self.fences[store.name] = self._fence(store, fence)
        return quote(store.name)

    def _fence(self, store: AnyStore, fence: Fence) -> str:
        columns = [f"{ROW}.{quote(name)}" for name in (*KEY_COLUMNS, *store.value_columns)]
        if store.scope_field is not None:
            # it is the same value, and the indexes of a hub begin with the scope
            at = len(KEY_COLUMNS) + store.value_columns.index(store.scope_field)
            columns[at] = f"{ROW}._scope AS {quote(store.scope_field)}"
        conditions: list[str] = []
        if fence.scopes is not None:
            conditions.append(f"{ROW}._scope {self._among(fence.scopes)}")
        elif self._by_id:
            conditions.append(f"{ROW}._scope IN (SELECT s.scope FROM {self._dialect.table('scope')} AS s)")
        if fence.rule is not None:
            conditions.append(self._condition(fence.rule, store))
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        table = self._dialect.store(store.name)
        # merged into the query around it, so that the indexes serve the conditions there
        return f"{quote(store.name)} AS NOT MATERIALIZED (SELECT {', '.join(columns)} FROM {table} AS {ROW}{where})"

    def _among(self, scopes: tuple[str, ...]) -> str:
        if len(scopes) == 1:
            return f"= {self._bound(scopes, scopes[0])}"
        (listed,) = self._dialect.bind(("TEXT",), [(scope,) for scope in scopes])
        return self._dialect.among(self._bound(scopes, listed))

    def _bound(self, scopes: tuple[str, ...], value: Value) -> str:
        if scopes not in self._scopes:
            self._scopes[scopes] = self._bind(value)
        return self._scopes[scopes]
