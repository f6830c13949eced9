"""Which parts of a result's rows are updated from the changes alone, and how a change updates a row."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import TypeAlias

from msgspec.structs import replace

from atoma.contracts.query import Include, Plan
from atoma.contracts.values import StoredRow
from atoma.query.compiled import Getter, compiled
from atoma.schema import Schema
from atoma_stores.changes import BeforeAfter
from atoma_stores.live.links import Links, StoreLink, is_of_source, values_of
from atoma_stores.live.operators.keepable import is_seen_by_itself, of_row, part_of, with_more
from atoma_stores.live.operators.kept import KeptPart, Made
from atoma_stores.live.operators.operator import Deltas

PartChange: TypeAlias = tuple[KeptPart, str, object, BeforeAfter]


class Keeping:
    """The parts of a result's rows that are updated from the changes alone.

    Attributes:
        plan: The plan by which rows are read.
        left: The places that are not kept: after a change there, rows are read again.
        is_whole: Whether everything is kept, and each row of the first source shows by itself whether it belongs to the result.
        is_shared: Whether a row of the result may contain one row of a store more than once.

    Args:
        plan: The plan, with its values in their places.
        links: The places where it reads rows.
        schema: The declared stores.
        keep: Whether anything is to be kept.
    """

    def __init__(self, plan: Plan, links: Links, schema: Schema, *, keep: bool) -> None:
        self._parts: dict[StoreLink, KeptPart] = {}
        self._rows: dict[StoreLink, _RowsByValue] = {}
        self._made: list[Getter | None] | None = None
        above: dict[str, None] = {}
        if keep:
            for link in links:
                part = part_of(plan, link, schema, above)
                if part is not None:
                    self._parts[link] = part
                    if not link.is_direct:
                        self._rows[link] = _RowsByValue(of_row(plan, link.above))
        self.left = tuple([link for link in links if link not in self._parts])
        self.is_whole = self.left == links[:1] and is_seen_by_itself(plan)
        if self.is_whole and plan.columns is not None:
            self._made = [compiled(each.expr, ()) if is_of_source(each.expr) else None for each in plan.columns]
        shown = [link.store for link in links if link.parent is not None and not link.shown.startswith("columns.")]
        shown += [plan.store] if plan.columns is None else []
        self.is_shared = len(set(shown)) < len(shown)
        self._within = bool(plan.include)
        self._above = above
        self.plan = replace(
            plan, include=tuple([with_more(each) if self._keeps(each) else each for each in plan.include])
        )

    def _keeps(self, include: Include) -> bool:
        return any(link.shown == f"include.{include.name}" for link in self._parts)

    def __contains__(self, link: StoreLink) -> bool:
        return link in self._parts

    @property
    def held(self) -> int:
        """The number of rows that are kept sorted."""
        return sum([part.held for part in self._parts.values()])

    def put(self, id: str, row: Made) -> None:
        """Note that the result has ``row``, whose first row has that id; :meth:`remove` comes before if it had another one."""
        for rows in self._rows.values():
            rows.put(id, row)

    def remove(self, id: str) -> None:
        """Forget the row of that id, which has left the result or is read again."""
        for rows in self._rows.values():
            rows.remove(id)
        for part in self._parts.values():
            part.forget(id)

    def clear(self) -> None:
        """Forget every row."""
        for rows in self._rows.values():
            rows.clear()
        for part in self._parts.values():
            part.clear()

    def concerns(self, link: StoreLink, change: BeforeAfter, ids: Container[object]) -> bool:
        """Return whether one of the rows of the result, which have these ``ids``, refers to what has changed at ``link``."""
        rows = self._rows.get(link)
        for value in values_of(link, change):
            if value in ids if rows is None else any(id in ids for id in rows.find(value)):
                return True
        return False

    def changes(self, deltas: Deltas) -> Iterator[PartChange]:
        """Yield what has changed beside rows: the part, the id of the row, the value by which it refers to the change, and that."""
        for link, part in self._parts.items():
            rows = self._rows.get(link)
            for change in deltas.get(link.store, {}).values():
                for value in values_of(link, change):
                    if rows is not None:
                        for id in rows.find(value):
                            yield part, id, value, change
                    elif isinstance(value, str):
                        yield part, value, value, change

    def changed(self, row: Made, old: StoredRow | None, new: StoredRow) -> Made | None:
        """Return ``row`` with ``new`` in the place of ``old``; None if it has to be read."""
        if old is None or any(old.column(name) != new.column(name) for name in self._above):
            return None
        if self._made is None:
            return (new, *row[1:])
        before = row[0] if self._within else row
        columns = tuple([had if get is None else get(new) for get, had in zip(self._made, before, strict=True)])
        return (columns, *row[1:]) if self._within else columns

    def made(self, new: StoredRow, row_of: Callable[[str], Made | None]) -> Made | None:
        """Return the row of the result for ``new``, with parts of rows that refer to the same values; None if it has to be read.

        Args:
            new: A row of the first source that the result does not have yet.
            row_of: Finds rows of the result by their ids.
        """
        row: Made = (new, *[None] * len(self.plan.include))
        if self._made is not None:
            columns = tuple([None if get is None else get(new) for get in self._made])
            row = (columns, *row[1:]) if self._within else columns
        for link, part in self._parts.items():
            rows = self._rows.get(link)
            if rows is None or part.is_own:
                return None
            alike = next((other for id in rows.find(new.column(link.above)) if (other := row_of(id)) is not None), None)
            if alike is None:
                return None
            row = part.copied(row, alike)
        return row

    def shown(self, row: Made) -> Made:
        """Return what is shown of a row that was read by :attr:`plan`."""
        for part in self._parts.values():
            row = part.shown(row)
        return row

    def load(self, id: str, row: Made, read: Made) -> None:
        """Note that the result has ``row``, which shows what was ``read`` by :attr:`plan`."""
        self.put(id, row)
        for part in self._parts.values():
            part.load(id, row, read)


class _RowsByValue:
    """The rows of a result by the value by which each refers to others.

    Args:
        value_of: Takes it from a row.
    """

    def __init__(self, value_of: Getter) -> None:
        self._value_of = value_of
        self._ids: dict[object, dict[str, None]] = {}
        self._values: dict[str, object] = {}

    def put(self, id: str, row: Made) -> None:
        value = self._values[id] = self._value_of(row)
        self._ids.setdefault(value, {})[id] = None

    def remove(self, id: str) -> None:
        if id in self._values:
            value = self._values.pop(id)
            ids = self._ids[value]
            del ids[id]
            if not ids:
                del self._ids[value]

    def clear(self) -> None:
        self._ids, self._values = {}, {}

    def find(self, value: object) -> tuple[str, ...]:
        return tuple(self._ids.get(value, ()))
