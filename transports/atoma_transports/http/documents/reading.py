"""The rows of one store in one scope, as whoever asks may see them, by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.query import Plan, Store
from atoma.contracts.values import StoredRow
from atoma.errors import RemoteError, ValidationError
from atoma.ports import SyncService
from atoma.query.normal import bind
from atoma.schema.expressions import col
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec

IDS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class DocumentStore:
    """A store in a scope, and the service of whoever asks.

    Attributes:
        service: Answers, in their name.
        schema: The hub's stores.
        spec: The store.
        scope: The scope.
        context: Of the calls that are made.
    """

    service: SyncService
    schema: Schema
    spec: StoreSpec[Any]
    scope: str
    context: OperationContext

    async def by_id(self, ids: Sequence[str]) -> dict[str, StoredRow]:
        """Those of the rows with ``ids`` that there are.

        Raises:
            RemoteError: ``PERMISSION_DENIED``: the scope may not be read; or a transient code.
        """
        possible = [id for id in ids if self._may_be(id)]
        found: dict[str, StoredRow] = {}
        for first in range(0, len(possible), IDS_AT_ONCE):
            found.update(await self._some(possible[first : first + IDS_AT_ONCE]))
        return found

    def _may_be(self, id: str) -> bool:
        """Whether a row can have this id."""
        try:
            self.spec.check_id(id)
        except ValidationError:
            return False
        return True

    async def _some(self, ids: Sequence[str]) -> dict[str, StoredRow]:
        """:meth:`by_id` of so few that one query can name them; where their rows are too large for one answer, in parts."""
        where = col("id").in_(ids)
        if self.spec.scope_field is not None:
            where = (col(self.spec.scope_field) == self.scope) & where
        query = bind(Plan(Store(self.spec.name), where=where.node), self.schema.store)
        try:
            result = await self.service.query(QueryRequest(query, self.context))
        except RemoteError as error:
            if error.remote_code != "TOO_LARGE" or len(ids) == 1:
                raise
            half = len(ids) // 2
            return {**await self._some(ids[:half]), **await self._some(ids[half:])}
        return {row.id: row for row in result.rows}
