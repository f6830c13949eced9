"""SQL that a program wrote itself: one statement that reads stores, and nothing else.

While it runs stores are views without the columns of the engine, and SQLite asks at each thing that the statement does whether it
may. What is not known here is refused.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import apsw

from atoma.contracts.raw import SqlAnswer
from atoma.contracts.values import Scalar
from atoma.errors import QueryError
from atoma_stores.sql.names import quote
from atoma_stores.sqlite._queries import commit_number
from atoma_stores.sqlite._tables import StoreTable

FUNCTIONS = frozenset(
    # what SQLite computes from values alone, and its aggregates; load_extension() is a function, too
    "abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling char coalesce concat concat_ws cos cosh count cume_dist date "
    "datetime degrees dense_rank exp first_value floor format glob group_concat hex ifnull iif if instr json json_array "
    "json_array_length json_each json_extract json_group_array json_group_object json_insert json_object json_patch json_quote "
    "json_remove json_replace json_set json_tree json_type json_valid julianday lag last_value lead length like likelihood "
    "likely ln log log10 log2 lower ltrim max median min mod nth_value ntile nullif octet_length percent_rank percentile "
    "percentile_cont percentile_disc pi pow power printf quote radians rank replace round row_number rtrim sign sin sinh sqrt "
    "strftime string_agg substr substring subtype sum tan tanh time timediff total trim trunc typeof unhex unicode unixepoch "
    "unlikely upper -> ->> atoma_avg atoma_round atoma_sum atoma_to_int atoma_to_real".split()
)
_ROWS = "_atoma_rows_"
"""What the views are called through which alone tables are read; no statement may have such a name in it."""
_VALUES = frozenset({"json_each", "json_tree"})
"""Tables that are made of values alone."""


def raw_sql(
    tables: Mapping[str, StoreTable], text: str, params: Mapping[str, Scalar]
) -> Callable[[apsw.Connection], SqlAnswer]:
    """How ``text`` is answered; to be run in one read transaction, with whose end the views go."""
    if "_atoma_" in text.lower():
        raise QueryError("sql(): names that begin with _atoma_ are the engine's")

    def body(connection: apsw.Connection) -> SqlAnswer:
        commit = commit_number(connection)
        guard = _Guard(tables, {str(row[0]) for row in connection.execute("SELECT name FROM main.sqlite_schema")})
        only: object = connection.pragma("query_only")
        connection.pragma("query_only", 0)
        try:
            for table in tables.values():
                columns, inner = ", ".join(map(quote, table.spec.columns)), quote(_ROWS + table.name)
                connection.execute(f"CREATE TEMP VIEW {inner} AS SELECT {columns} FROM main.{quote(table.name)}")
                connection.execute(f"CREATE TEMP VIEW {quote(table.name)} AS SELECT {columns} FROM {inner}")
        finally:
            connection.pragma("query_only", cast("int", only))
        try:
            connection.authorizer = guard.allows
            connection.exec_trace = guard.begins
            cursor = connection.cursor()
            try:
                rows = tuple(cast("list[tuple[Scalar, ...]]", cursor.execute(text, dict(params)).fetchall()))
            finally:
                cursor.close(True)
        except KeyError as error:
            raise QueryError(f"sql(): :{error.args[0]} has no value") from None
        except apsw.AuthError as error:
            raise QueryError(f"sql(): {guard.refused or error}") from None
        finally:
            connection.exec_trace = None
            connection.authorizer = None
        if not guard.columns:  # a comment is none
            raise QueryError("sql(): there is no statement")
        unused = sorted(params.keys() - guard.takes)
        if unused:
            raise QueryError(f"sql(): the statement has no :{unused[0]}")
        reads = {name: frozenset(fields) for name, fields in guard.reads.items()}
        return SqlAnswer(guard.columns, rows, reads, commit)

    return body


class _Guard:
    """What a statement may do: read the declared fields of stores, and compute.

    Args:
        tables: The stores.
        file: Everything that the file has a name for.

    Attributes:
        reads: The stores that were read, with their fields.
        begun: How many statements have begun.
        columns: What the columns of the first one are called.
        takes: The names of its parameters.
        refused: Why something may not be done.
    """

    def __init__(self, tables: Mapping[str, StoreTable], file: Collection[str]) -> None:
        self._file = file
        self.columns: tuple[str, ...] = ()
        self.takes: frozenset[str] = frozenset()
        self._fields = {name: frozenset(table.spec.columns) for name, table in tables.items()}
        self.reads: dict[str, set[str]] = {}
        self.begun = 0
        self.refused = ""

    def begins(self, cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
        """Hear that a statement begins."""
        self.begun += 1
        if self.begun > 1:
            raise QueryError("sql() takes one statement")
        if not cursor.is_readonly or cursor.is_explain:
            raise QueryError("sql() reads: begin with SELECT, WITH or VALUES")
        self.columns = tuple([str(each[0]) for each in cast("tuple[Any, ...]", cursor.get_description())])
        self.takes = frozenset(filter(None, cursor.bindings_names))
        return True

    def allows(
        self, operation: int, first: str | None, second: str | None, database: str | None, within: str | None
    ) -> int:
        """Say whether the statement may do this; SQLite asks while it reads the text."""
        if operation in (apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE):
            return apsw.SQLITE_OK
        if operation == apsw.SQLITE_FUNCTION:
            return apsw.SQLITE_OK if second in FUNCTIONS else self._refuse(f"the function {second}() may not be called")
        if operation == apsw.SQLITE_READ and first is not None:
            return self._reads(first, second or "", database, within or "")
        return self._refuse("a statement only reads stores")

    def _reads(self, table: str, column: str, database: str | None, within: str) -> int:
        computed = not column and table not in self._file and not table.startswith("sqlite_")
        if computed or table in _VALUES or (database == "temp" and table.startswith(_ROWS)):
            return apsw.SQLITE_OK
        if table in self._fields and (database == "temp" or not column or within == _ROWS + table):
            noted = self.reads.setdefault(table, set())
            if database == "temp" and column:
                noted.add(column)
            return apsw.SQLITE_OK
        known = f"the stores are {', '.join(self._fields)}"
        return self._refuse(f"{table}.{column} may not be read; {known}, without a schema before their names")

    def _refuse(self, why: str) -> int:
        self.refused = self.refused or why
        return apsw.SQLITE_DENY
