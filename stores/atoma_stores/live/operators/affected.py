"""The rows of a result that have to be read again, as a row of the first source refers to something that has changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery, Plan
from atoma.schema import Schema
from atoma_stores.changes import BeforeAfter
from atoma_stores.live.links import Links, StoreLink, reaches, values_of
from atoma_stores.live.operators.operator import Deltas
from atoma_stores.live.operators.restricted import VALUES, Restricted, ids_above, rows_of


class Affected:
    """The rows of the first source whose part of the result is no longer known.

    They are kept by their ids. If a row of another store has changed, either it contains the ids of the rows that refer
    to it, or these ids are read first.

    Attributes:
        ids: The ids, as far as they are known.
        overflown: Whether there are too many of them to be read one by one.

    Args:
        plan: The plan with its values in their places.
        links: The places where it reads rows.
        capacity: Maximum number of rows that are read at a time; None for all.
        schema: The declared stores.
    """

    def __init__(self, plan: Plan, links: Links, capacity: int | None, schema: Schema) -> None:
        self.ids: dict[str, None] = {}
        self.overflown = False
        self._rows = rows_of(plan, capacity)
        self._links: dict[str, list[StoreLink]] = {}
        self._above: dict[StoreLink, Restricted] = {}
        for link in links:
            self._links.setdefault(link.store, []).append(link)
            if link.parent is not None and not link.is_direct:
                field = schema.store(link.parent.store).fields.get(link.above)
                self._above[link] = ids_above(plan, link, "text" if field is None else field.type)
        self._values: dict[StoreLink, dict[object, None]] = {}

    def __bool__(self) -> bool:
        return bool(self.ids or self._values)

    def links(self, store: str) -> Sequence[StoreLink]:
        """Return the places where rows of ``store`` are read."""
        return self._links.get(store, ())

    def note(self, deltas: Deltas) -> None:
        """Note that rows have changed."""
        for store, delta in deltas.items():
            for link in self.links(store):
                for id, change in delta.items():
                    if link.parent is None:
                        self.ids[id] = None
                    elif reaches(change, link.columns):
                        self._note(link, change)
        self._bound()

    def _note(self, link: StoreLink, change: BeforeAfter) -> None:
        for value in values_of(link, change):
            if isinstance(value, str) and "\x00" in value:
                self.overflown = True  # no query can contain it
            elif isinstance(value, str) and link.is_direct:
                self.ids[value] = None
            else:
                self._values.setdefault(link, {})[value] = None

    def _bound(self) -> None:
        if len(self.ids) > VALUES or any(len(values) > VALUES for values in self._values.values()):
            self.overflown = True

    def forget(self) -> None:
        """Forget everything, as the whole result is read again."""
        self.ids, self._values, self.overflown = {}, {}, False

    def reads(self) -> Sequence[BoundQuery]:
        """Return what to read next: the ids of the rows that refer to a change, then the parts of the result made of them."""
        if self._values:
            return [self._above[link].of(tuple(values)) for link, values in self._values.items()]
        return (self._rows.of(tuple(self.ids)),)

    def load(self, results: Sequence[QueryResult]) -> tuple[Collection[str], QueryResult] | None:
        """Take the answers to :meth:`reads`.

        Returns:
            The affected rows of the first source, and their part of the result; None if that has to be read next.
        """
        if self._values:
            self._values = {}
            self.ids.update(dict.fromkeys([str(row[0]) for result in results for row in result.tuples]))
            self._bound()
            return None
        ids, self.ids = self.ids, {}
        return ids.keys(), results[0]
