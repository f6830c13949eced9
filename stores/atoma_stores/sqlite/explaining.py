"""What SQLite says about a statement before it runs."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import re
from collections.abc import Container, Sequence

import apsw

from atoma.contracts.explanation import Access
from atoma_stores.sql.select import Statement

_PLACE = re.compile(r"(SCAN|SEARCH) (?:main\.)?(\w+)(?: USING (?:AUTOMATIC |COVERING |PARTIAL )*INDEX (\w+))?")
_SOURCE = re.compile(r"(SCAN|SEARCH) (t|_d)(\d+)\b(?: USING (?:AUTOMATIC |COVERING |PARTIAL )*INDEX (\w+))?")


def accesses(connection: apsw.Connection, statement: Statement, params: Sequence[object], level: str) -> list[Access]:
    """How SQLite reads each source of ``statement``, in the order in which it does."""
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.bindings(params))
    lines = [str(row[3]) for row in rows]
    sorted_ = sum("TEMP B-TREE FOR" in line and "ORDER BY" in line for line in lines)
    sorts = sorted_ > bool(level)  # children are sorted by their parents, whatever is sorted for each of them
    found: list[Access] = []
    for line in lines:
        source = _SOURCE.match(line)
        if source is None:
            continue
        verb, kind, number, index = source.groups()
        store = statement.sources[int(number)] if kind == "t" else ""
        told = f"{verb} {store or 'a derived table'}{line[source.end(3) :]}"
        found.append(Access(store, level, told, index or "", verb == "SCAN" or "AUTOMATIC" in line, sorts))
    return found


def accesses_of(lines: Sequence[str], stores: Container[str]) -> tuple[Access, ...]:
    """How SQLite reads each source of a statement that a program wrote, by what it says of it."""
    sorts = any("TEMP B-TREE FOR ORDER BY" in line for line in lines)
    found = [(place, line) for line in lines if (place := _PLACE.match(line))]
    return tuple(
        [
            Access(
                place[2] if place[2] in stores else "",
                "",
                line.replace(" main.", " ", 1),
                place[3] or "",
                place[1] == "SCAN" or "AUTOMATIC" in line,
                sorts,
            )
            for place, line in found
        ]
    )
