"""Purging what has been hidden for long enough: a write of the hub's own, which devices get as a deletion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from atoma.contracts.query import BoundQuery, Call, Col, Lit, Plan, Store
from atoma.contracts.values import HIDDEN, RowKey, Scalar, StoredRow, is_hidden
from atoma.hub.workspace import Workspace, plan_of_hub
from atoma.ports import hub
from atoma.ports.hub import Facts, Need
from atoma.ports.hub_rows import DIRECT
from atoma.query.normal import bind
from atoma.schema.hiding import moment_of
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec

ROWS_AT_ONCE = 500
"""Rows that one transaction purges."""


@dataclass(frozen=True, slots=True)
class PurgeDecision:
    """Delete rows of a scope for good that have been hidden since before a moment, unless somebody has restored them meanwhile.

    Attributes:
        scope: The scope.
        rows: The rows.
        before: The moment, as columns hold it.
    """

    scope: str
    rows: tuple[RowKey, ...]
    before: Scalar

    @property
    def need(self) -> Need:
        """The rows."""
        return Need(scope=self.scope, rows=self.rows, author=DIRECT)

    def decide(self, facts: Facts) -> hub.WritePlan:
        """One transaction, or nothing to do."""
        work = Workspace(facts.rows, {})
        for key in self.rows:
            image = work.image(key)
            if image is not None and is_hidden(image) and str(image[HIDDEN]) < str(self.before):
                work.put(key, None)
        return plan_of_hub(facts, work)


def due(schema: Schema, now_ms: int) -> Iterator[tuple[StoreSpec[Any], Scalar]]:
    """The stores that say after how long hidden rows are purged, each with the moment since when they are at ``now_ms``."""
    for store in schema.stores.values():
        if store.purge_after is not None:
            yield store, moment_of(now_ms - int(store.purge_after.total_seconds() * 1000))


def hidden_before(store: StoreSpec[Any], before: Scalar, schema: Schema) -> BoundQuery:
    """The first rows of ``store`` that have been hidden since before a moment."""
    old = Call("lt", (Col(0, HIDDEN), Lit("text", before)))
    return bind(Plan(Store(store.name, hidden=True), where=old, limit=ROWS_AT_ONCE), schema.store)


def purge_decisions(store: StoreSpec[Any], rows: tuple[StoredRow, ...], before: Scalar) -> Iterator[PurgeDecision]:
    """What purges ``rows``, a transaction for each scope."""
    scope_of = attrgetter("scope")
    for scope, group in groupby(sorted(rows, key=scope_of), scope_of):
        yield PurgeDecision(scope, tuple([(store.name, row.id) for row in group]), before)
