"""Writing by query: the rows that a query finds are changed or removed as one unit, as they are in the moment of the write.

The query is asked first, for the ids that the unit is made of, and again inside the transaction that writes it: only if it
still finds the same rows is anything written, else it is asked anew. So the unit is what it would have been had the query been
asked there, and replay, later, does not ask again: the ids stand in the mutation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from atoma.contracts.execution import Matches
from atoma.contracts.limits import MUTATION_OPS
from atoma.contracts.mutations import Op
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import StoredRow
from atoma.errors import ConflictError, PolicyNotAllowed, QueryError
from atoma.query.binding import bind
from atoma.query.builder import Query
from atoma.runtime.flows import Core, delete_entry, update_entry
from atoma.runtime.results import error_of
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec

TRIES = 5
"""So often a query is asked anew because other rows match by the time of the write."""


class WritesByQuery:
    """The writes that change and remove what queries find.

    Args:
        core: What the stores of the client share.
        schema: The declared stores.
        is_local: Whether the writes of a policy are decided on this device, or lie in its outbox.
    """

    __slots__ = ("_core", "_is_local", "_schema")

    def __init__(self, core: Core, schema: Schema, is_local: Callable[[str], bool]) -> None:
        self._core = core
        self._schema = schema
        self._is_local = is_local

    async def update(self, query: Query[Any], changes: Mapping[str, object], policy: str | None) -> tuple[str, ...]:
        """Change fields of every row that ``query`` finds; their ids."""
        bound, spec = self._checked(query, "update_where")
        patch = update_entry(spec, "any", changes, None)
        return await self._write(bound, lambda row: replace(patch, id=row.id, scope=row.scope), policy)

    async def delete(self, query: Query[Any], policy: str | None) -> tuple[str, ...]:
        """Remove every row that ``query`` finds; their ids."""
        bound, spec = self._checked(query, "delete_where")
        return await self._write(bound, lambda row: replace(delete_entry(spec, row.id, None), scope=row.scope), policy)

    def _checked(self, query: Query[Any], call: str) -> tuple[BoundQuery, StoreSpec[Any]]:
        bound = bind(query, self._schema)
        plan = bound.plan
        if not plan.whole_rows or plan.group or plan.distinct:
            raise QueryError(f"{call}() takes a query for whole rows of one store, select(STORE).where(…)")
        return bound, self._schema.store(bound.store)

    async def _write(self, bound: BoundQuery, entry: Callable[[StoredRow], Op], policy: str | None) -> tuple[str, ...]:
        chosen = self._core.names.resolve(bound.store, policy)
        if not self._is_local(chosen):
            why = "what a query finds is fixed in this device's transaction, and this policy writes elsewhere"
            raise PolicyNotAllowed(chosen, bound.store, why)
        limit = bound.plan.limit
        narrow = limit is not None and limit <= MUTATION_OPS
        asked_for = bound if narrow else replace(bound, plan=replace(bound.plan, limit=MUTATION_OPS + 1))
        for _ in range(TRIES):
            rows = await self._found(asked_for)
            if not rows:
                return ()
            scopes = sorted({row.scope for row in rows})
            if len(scopes) > 1:
                why = (
                    f"one write touches one scope, these rows are of {', '.join(scopes)}: name one of them in the query"
                )
                raise PolicyNotAllowed(chosen, bound.store, why)
            ids = tuple([row.id for row in rows])
            entries = [entry(row) for row in rows]
            result = await self._core.writes.write(entries, policy=policy, atomic=True, matches=Matches(asked_for, ids))
            if all(item.ok for item in result.items):
                return ids
            refused = next(
                (item for item in result.items if item.error and item.error.code != "ABORTED"), result.items[0]
            )
            if refused.error is None or "matches" not in refused.error.info:
                raise error_of(bound.store, refused)
        raise ConflictError(
            f"{bound.store}: other rows matched each of {TRIES} times by the moment of the write, and nothing was written; try again"
        )

    async def _found(self, bound: BoundQuery) -> list[StoredRow]:
        result = await self._core.reads.query(bound, "direct-local")
        rows = list(result.rows)
        if len(rows) > MUTATION_OPS:
            raise QueryError(
                f"the query finds more than {MUTATION_OPS:,} rows of {bound.store!r}, the most that one write takes; go in parts: "
                f"call it with limit({MUTATION_OPS}) until no ids come back"
            )
        return rows
