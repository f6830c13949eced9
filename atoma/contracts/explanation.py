"""Explanations of queries before they run: what a device's database does, and how live queries and hubs treat them."""

from __future__ import annotations

import msgspec


class Access(msgspec.Struct, frozen=True):
    """The way in which a database reads one source of a query.

    Attributes:
        store: The store; ``""`` for a derived table.
        level: The include for which it is read; ``""`` for the query itself.
        line: The database's own description: ``SEARCH cards USING INDEX _atoma_index_cards__lane (lane=?)``.
        index: The index that is used; ``""`` for none.
        scans: Whether every row is read, from the first one to the last one that is needed; also true if the
            database builds an index for this one query.
        sorts: Whether rows are sorted after they were read; for children, those of each parent before its limit is applied.
    """

    store: str
    level: str
    line: str
    index: str
    scans: bool
    sorts: bool


class Explanation(msgspec.Struct, frozen=True):
    """An explanation of how a query is carried out; ``print()`` shows it.

    Attributes:
        query: The query, written as SQL.
        sources: How this device's database reads each source; empty if there is no database that can say.
        limit: Maximum number of rows in the answer; None without a limit.
        live: How the query is followed live, or why it cannot be.
        hub: ``ok``, or why a hub cannot answer it.
        warnings: Missing indexes, each with the line to add.
    """

    query: str
    sources: tuple[Access, ...]
    limit: int | None
    live: str
    hub: str
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = "" if self.limit is None else f"; ≤ {self.limit:,} rows"
        lines = [
            (f"{each.level}: " if each.level else "")
            + each.line
            + ("" if each.level else f"; {'sorted' if each.sorts else 'no sort'}{rows}")
            for each in self.sources
        ]
        told = [("SQLite", line) for line in lines] + [("live", self.live), ("hub", self.hub)]
        told += [("warn", warning) for warning in self.warnings]
        return "\n".join([self.query, *(f"  {name:<8} {text}" for name, text in told)])
