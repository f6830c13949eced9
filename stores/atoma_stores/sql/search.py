"""Searches that an index of words answers."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.contracts.query import Call, Col
from atoma_stores.sql.functions import FTS
from atoma_stores.sql.names import quote


def map_of(store: str) -> str:
    """The table that has the number and the digest of each row in the index of a store."""
    return quote(f"_atoma_fts_{store}_map")


def words_table(store: str) -> str:
    """The table of FTS5 for a store."""
    return quote(f"_atoma_fts_{store}")


def searched_source(call: Call, fields: Sequence[str]) -> bool:
    """Whether ``call``, a search, looks at exactly these fields of one source."""
    columns = [arg for arg in call.args[1:] if isinstance(arg, Col)]
    alike = len({each.source for each in columns}) == 1 and len(columns) == len(call.args) - 1
    return alike and tuple([each.name for each in columns]) == tuple(fields)


def search_text(store: str, alias: str, place: str) -> str:
    """The condition that the row ``alias`` of ``store`` is found by the search at ``place``."""
    words = words_table(store)
    return (
        f"({alias}.id IN (SELECT m.id FROM {words} AS f CROSS JOIN {map_of(store)} AS m ON m.n = f.rowid "
        f"WHERE f.{words} MATCH {FTS}({place})))"
    )
