"""How a query will be carried out, before it is: what a device's database does, what live queries and hubs make of it."""

from __future__ import annotations

import msgspec


class Access(msgspec.Struct, frozen=True):
    """The way in which a database reads one source of a query.

    Attributes:
        store: The store; ``""`` for a derived table.
        level: Which include it is read for; ``""`` for the query itself.
        line: What the database says: ``SEARCH cards USING INDEX _atoma_index_cards__lane (lane=?)``.
        index: The index that is used; ``""`` for none.
        scans: Whether every row is looked at, from the first one to the last one that is needed; so it is, too, where the
            database makes an index for this one query.
        sorts: Whether rows are sorted after they were read; of children, those of each parent before its limit is counted.
    """

    store: str
    level: str
    line: str
    index: str
    scans: bool
    sorts: bool


class Explanation(msgspec.Struct, frozen=True):
    """An account of what becomes of a query; ``print()`` shows it.

    Attributes:
        query: The query in SQL's words.
        sources: How this device's database reads each source; none when there is no database that can tell.
        limit: Most rows of the answer; None without a bound.
        live: How the query is followed, or why it is not.
        hub: ``ok``, or why a hub does not answer it.
        warnings: Which index is missing, each with the line to add.
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
