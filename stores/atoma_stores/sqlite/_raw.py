"""SQL that a program wrote itself: one statement that reads stores, and nothing else.

While it runs stores are views without the columns of the engine, and SQLite asks at each thing that the statement does whether it
may. What is not known here is refused.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, cast

import apsw

from atoma.contracts.execution import ExecutionMeta
from atoma.contracts.limits import LIVE_SQL_ROWS_MAX
from atoma.contracts.raw import RawReads, SqlAnswer, SqlOutline, SqlQuery
from atoma.contracts.values import HIDDEN, Scalar
from atoma.errors import QueryError
from atoma.schema.kinds import is_storable
from atoma_stores.sql.names import quote
from atoma_stores.sqlite._queries import commit_number
from atoma_stores.sqlite._tables import StoreTable
from atoma_stores.sqlite.connections import making_views
from atoma_stores.sqlite.explaining import accesses_of

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
_VIEWS = "_atoma_views"
"""The savepoint with which the views go."""
_VALUES = frozenset({"json_each", "json_tree"})
"""Tables that are made of values alone."""


def raw_sql(
    tables: Mapping[str, StoreTable], query: SqlQuery, *, at_most: int | None = None
) -> Callable[[apsw.Connection], SqlAnswer]:
    """How ``query`` is answered; to be run in a transaction.

    Args:
        tables: The stores.
        query: The statement.
        at_most: No more rows than that are read; None reads all of them.
    """

    def body(connection: apsw.Connection) -> SqlAnswer:
        meta = ExecutionMeta(commit=commit_number(connection))
        with _guarded(connection, tables, query) as guard:
            cursor = connection.cursor()
            try:
                found = cast(
                    "Iterator[tuple[Scalar, ...]]", cursor.execute(query.text, dict(query.params), can_cache=False)
                )
                rows = tuple(islice(found, at_most))
            finally:
                cursor.close(True)
        return SqlAnswer(tuples=rows, meta=meta, columns=guard.columns, reads=guard.told)

    return body


def followed_sql(tables: Mapping[str, StoreTable], query: SqlQuery) -> Callable[[apsw.Connection], SqlAnswer]:
    """How ``query`` is answered where its result is followed, which is kept in memory."""
    read = raw_sql(tables, query, at_most=LIVE_SQL_ROWS_MAX + 1)

    def body(connection: apsw.Connection) -> SqlAnswer:
        answer = read(connection)
        if len(answer.tuples) > LIVE_SQL_ROWS_MAX:
            raise QueryError(f"sql(): a statement that is followed has at most {LIVE_SQL_ROWS_MAX:,} rows: add LIMIT")
        return answer

    return body


def outlined(tables: Mapping[str, StoreTable], query: SqlQuery) -> Callable[[apsw.Connection], SqlOutline]:
    """How it is found out what ``query`` would read; to be run in a transaction."""

    def body(connection: apsw.Connection) -> SqlOutline:
        commit_number(connection)  # a plan is told by the schema as it was last read: this reads it anew
        values = dict(query.params)
        with _guarded(connection, tables, query) as guard:
            guard.runs = False
            with suppress(apsw.ExecTraceAbort):  # of a statement that is in the cache nothing would be asked
                connection.execute(query.text, values, can_cache=False).close(True)
        with _guarded(connection, tables, query) as explains:
            explains.explains = True
            found = connection.execute(f"EXPLAIN QUERY PLAN {query.text}", values, can_cache=False)
            lines = [str(row[3]) for row in found]
        return SqlOutline(query, guard.columns, guard.told, accesses_of(lines, tables))

    return body


@contextmanager
def _guarded(connection: apsw.Connection, tables: Mapping[str, StoreTable], query: SqlQuery) -> Generator[_Guard]:
    """Let the statement of ``query`` alone be carried out in the block, on views in the stores' places.

    Raises:
        QueryError: It does what it may not, it is no statement, or its values do not fit.
    """
    if not all(is_storable(each) for each in (query.text, *dict(query.params).values()) if isinstance(each, str)):
        raise QueryError("sql(): a statement and its values are text, without NUL and without lone surrogates")
    text = query.text.lower()
    if "_atoma_" in text:
        raise QueryError("sql(): names that begin with _atoma_ are the engine's")
    guard = _Guard(tables, {str(row[0]) for row in connection.execute("SELECT name FROM main.sqlite_schema")})
    connection.execute(f"SAVEPOINT {_VIEWS}")
    try:
        with making_views(connection):
            for table in tables.values():
                if table.name.lower() in text:
                    _make_views(connection, table)
        connection.authorizer, connection.exec_trace = guard.allows, guard.begins
        yield guard
    except KeyError as error:
        raise QueryError(f"sql(): :{error.args[0]} has no value") from None
    except apsw.AuthError as error:
        raise QueryError(f"sql(): {guard.refused or error}") from None
    except UnicodeDecodeError:
        raise QueryError("sql(): the statement makes a text that is no UTF-8; hex() shows its bytes") from None
    except TypeError as error:  # of a function that is written in Python
        raise QueryError(f"sql(): a function does not take such a value: {error}") from None
    finally:
        connection.exec_trace = connection.authorizer = None
        _take_back(connection)
    if not guard.columns:  # a comment is none
        raise QueryError("sql(): there is no statement")
    unused = sorted(dict(query.params).keys() - guard.takes)
    if unused:
        raise QueryError(f"sql(): the statement has no :{unused[0]}")


def _make_views(connection: apsw.Connection, table: StoreTable) -> None:
    columns, inner = ", ".join(map(quote, table.spec.columns)), quote(_ROWS + table.name)
    shown = f" WHERE {quote(HIDDEN)} IS NULL" if table.spec.soft_delete else ""
    connection.execute(f"CREATE TEMP VIEW {inner} AS SELECT {columns} FROM main.{quote(table.name)}{shown}")
    connection.execute(f"CREATE TEMP VIEW {quote(table.name)} AS SELECT {columns} FROM {inner}")


def _take_back(connection: apsw.Connection) -> None:
    """Take the views away: others read in the same transaction, in which the stores' names are their tables again."""
    for end in (f"ROLLBACK TO {_VIEWS}", f"RELEASE {_VIEWS}"):
        while connection.in_transaction:
            try:
                connection.execute(end)
                break
            except apsw.InterruptError:
                continue  # what stops a statement that takes long may hit this one, too


class _Guard:
    """A guard over a statement, which may read the declared fields of stores, and compute.

    Args:
        tables: The stores.
        file: Everything that the file has a name for.

    Attributes:
        reads: The stores that were read, with their fields.
        begun: How many statements have begun.
        columns: What the columns of the first one are called.
        takes: The names of its parameters.
        refused: Why something may not be done.
        runs: Whether the statement is carried out, or only looked at.
        explains: Whether SQLite is to explain it instead.
    """

    def __init__(self, tables: Mapping[str, StoreTable], file: Collection[str]) -> None:
        self._file = file
        self.columns: tuple[str, ...] = ()
        self.takes: frozenset[str] = frozenset()
        self._fields = {name: frozenset(table.spec.columns) for name, table in tables.items()}
        self.reads: dict[str, set[str]] = {}
        self.begun = 0
        self.refused = ""
        self.runs = True
        self.explains = False

    @property
    def told(self) -> RawReads:
        """:attr:`reads` for others."""
        return {name: frozenset(fields) for name, fields in self.reads.items()}

    def begins(self, cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
        """Note that a statement begins."""
        self.begun += 1
        if self.begun > 1:
            raise QueryError("sql() takes one statement")
        if not cursor.is_readonly or bool(cursor.is_explain) is not self.explains:
            raise QueryError("sql() reads: begin with SELECT, WITH or VALUES")
        self.columns = tuple([str(each[0]) for each in cast("tuple[Any, ...]", cursor.get_description())])
        self.takes = frozenset(filter(None, cursor.bindings_names))
        return self.runs

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
