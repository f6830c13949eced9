"""Searches that are answered by an index of words."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from atoma.contracts.query import Call, Col
from atoma.schema.spec import StoreSpec
from atoma_stores.sql.functions import FTS, NEAR
from atoma_stores.sql.names import quote


def map_of(store: str) -> str:
    """Return the name of the table with the number and the digest of each row in the index of a store."""
    return quote(f"_atoma_fts_{store}_map")


def words_table(store: str) -> str:
    """Return the name of the FTS5 table of a store."""
    return quote(f"_atoma_fts_{store}")


def known_words(store: str) -> str:
    """Return the name of the table of words in the index of a store."""
    return quote(f"_atoma_ftsvocab_{store}")


def in_index(call: Call, fields: Sequence[str]) -> bool:
    """Whether ``call``, a search, only searches some of these fields, of one source."""
    columns = [arg for arg in call.args[1:] if isinstance(arg, Col)]
    alike = len({each.source for each in columns}) == 1 and len(columns) == len(call.args) - 1
    return alike and {each.name for each in columns}.issubset(fields)


def search_text(store: StoreSpec[object], alias: str, place: str, names: Collection[str]) -> str:
    """Return the condition that the search at ``place`` finds the row ``alias`` of ``store`` by the fields ``names``."""
    words, known = words_table(store.name), known_words(store.name)
    near = f"SELECT json_group_array(v.term) FROM {known} AS v"
    asked = f"{FTS}({place}, CASE WHEN {NEAR}({place}) THEN ({near}) END)"
    if not set(store.search).issubset(names):
        columns = " ".join(f"c{number}" for number, name in enumerate(store.search) if name in names)
        asked = f"'{{{columns}}} : (' || {asked} || ')'"
    return (
        f"({alias}.id IN (SELECT m.id FROM {words} AS f CROSS JOIN {map_of(store.name)} AS m ON m.n = f.rowid "
        f"WHERE f.{words} MATCH {asked}))"
    )
