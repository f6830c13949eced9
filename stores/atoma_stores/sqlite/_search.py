"""The index that searches of a store's texts go by: FTS5 over the words of its rows, kept by the engine.

FTS5 holds the words as this program finds them, one space between, and no text: what it finds is what a look at every row finds, a
row is taken out without knowing what stood in it, and rolling a savepoint back takes the index back as well.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, cast

import apsw

from atoma.contracts.values import Scalar
from atoma.query.searching import words_of
from atoma.schema.spec import StoreSpec
from atoma_stores.changes import StoreDelta
from atoma_stores.sql.functions import DIGEST
from atoma_stores.sql.names import quote
from atoma_stores.sql.search import known_words, map_of, words_table
from atoma_stores.sqlite.functions import digest_of
from atoma_stores.sqlite.meta import read_meta, write_meta


class SearchIndex:
    """The index of one store, which has ``search``.

    Args:
        spec: The store.
    """

    def __init__(self, spec: StoreSpec[Any]) -> None:
        self.fields = spec.search
        self._key = f"search:{spec.name}"
        self._told = f"2 {unicodedata.unidata_version} {','.join(self.fields)}"
        self._map, self._words, self._known = map_of(spec.name), words_table(spec.name), known_words(spec.name)
        columns = ", ".join(f"c{number}" for number in range(len(self.fields)))
        places = ", ".join("?" * len(self.fields))
        self._create = (
            f"CREATE TABLE IF NOT EXISTS {self._map}(n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL) STRICT",
            f"CREATE VIRTUAL TABLE IF NOT EXISTS {self._words} USING fts5({columns}, content='', contentless_delete=1, "
            "tokenize='ascii')",
            f"CREATE VIRTUAL TABLE IF NOT EXISTS {self._known} USING fts5vocab({self._words}, row)",
        )
        self._put = (
            f"INSERT INTO {self._map}(id, digest) VALUES(?, ?) ON CONFLICT(id) DO UPDATE SET digest=excluded.digest",
            f"INSERT OR REPLACE INTO {self._words}(rowid, {columns}) VALUES((SELECT n FROM {self._map} WHERE id=?), {places})",
        )
        self._take = (
            f"DELETE FROM {self._words} WHERE rowid=(SELECT n FROM {self._map} WHERE id=?)",
            f"DELETE FROM {self._map} WHERE id=?",
        )
        texts = ", ".join(f"t.{quote(name)}" for name in self.fields)
        table = quote(spec.name)
        self._gone = f"SELECT m.id FROM {self._map} AS m WHERE NOT EXISTS (SELECT 1 FROM {table} AS t WHERE t.id=m.id)"
        self._changed = (
            f"SELECT t.id, {texts} FROM {table} AS t LEFT JOIN {self._map} AS m ON m.id=t.id "
            f"WHERE m.digest IS NOT {DIGEST}({texts})"
        )

    def prepare(self, connection: apsw.Connection) -> None:
        """Make the index where there is none, anew where its words are found otherwise, and bring it to what the rows are.

        Steps of a migration, tools and other programs may have written to them since.
        """
        if read_meta(connection, self._key) != self._told:
            for table in (self._known, self._map, self._words):
                connection.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in self._create:
                connection.execute(statement)
            write_meta(connection, self._key, self._told)
        self.catch_up(connection)

    def catch_up(self, connection: apsw.Connection) -> None:
        """Bring the index to what the rows are, whoever has written them."""
        self._remove(connection, [str(row[0]) for row in connection.execute(self._gone)])
        changed = cast("list[tuple[str, *tuple[str | None, ...]]]", connection.execute(self._changed).fetchall())
        self._add(connection, [(id, texts) for id, *texts in changed])

    def follow(self, connection: apsw.Connection, delta: StoreDelta) -> None:
        """Bring the index to what ``delta`` has left."""
        gone: list[str] = []
        put: list[tuple[str, Sequence[Scalar]]] = []
        for id, (old, new) in delta.items():
            if new is None:
                gone.append(id)
                continue
            texts = [new.column(name) for name in self.fields]
            if old is None or texts != [old.column(name) for name in self.fields]:
                put.append((id, texts))
        self._remove(connection, gone)
        self._add(connection, put)

    def _remove(self, connection: apsw.Connection, ids: Sequence[str]) -> None:
        for statement in self._take if ids else ():
            connection.executemany(statement, [(id,) for id in ids])

    def _add(self, connection: apsw.Connection, rows: Sequence[tuple[str, Sequence[Scalar]]]) -> None:
        connection.executemany(self._put[0], ((id, digest_of(*texts)) for id, texts in rows))
        connection.executemany(self._put[1], ((id, *map(_words, texts)) for id, texts in rows))


def _words(text: Scalar) -> str:
    return " ".join(words_of(text)) if isinstance(text, str) else ""
