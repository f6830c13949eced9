"""What somebody looks up in the inspector: the rows of a store, page by page, and SQL of their own."""

from __future__ import annotations

import trio

from atoma.contracts.query import BoundQuery
from atoma.contracts.raw import SqlAnswer, SqlQuery
from atoma.errors import QueryError
from atoma.inspector.conflicts import plain
from atoma.inspector.snapshot import Inspected
from atoma.inspector.views import PlanView, RowsView, SqlView
from atoma.ports.engine import AnswersSql, ExplainsQueries
from atoma.ports.live import LiveInspection
from atoma.query import bind, col, select
from atoma.query.advice import missing_indexes

ROWS_SHOWN = 200
SQL_ROWS_SHOWN = 500
SQL_S = 10.0
"""A statement is interrupted after so many seconds."""


async def look_at_rows(target: Inspected, store: str, *, after: str = "", containing: str = "") -> RowsView:
    """A page of the rows of a store in id order, with its version columns.

    Args:
        target: The client.
        store: The store's name.
        after: Only rows whose ids come behind this one.
        containing: Only rows in which one of the texts, the id included, has this in it; ASCII letters compare without case.

    Raises:
        UnknownStore: The schema does not declare it.
        QueryError: ``after`` or ``containing`` is no text that a column can hold.
    """
    spec = target.client.schema.store(store)
    query = select(spec, include_deleted=spec.soft_delete).order_by("id").limit(ROWS_SHOWN + 1)
    if after:
        query = query.where(col("id") > after)
    if containing:
        found_in = col("id").contains(containing)
        for name, field in spec.fields.items():
            if name != "id" and not field.comparisons.text:
                found_in |= col(name).contains(containing)
        query = query.where(found_in)
    found = (await target.eye.database.read(bind(query, target.client.schema))).rows
    shown = found[:ROWS_SHOWN]
    rows = tuple(
        (row.id, *(plain(image.get(name)) for name in spec.value_columns), row.version, plain(row.seq))
        for row in shown
        for image in [spec.with_booleans(row.image)]
    )
    return RowsView(("id", *spec.value_columns, "_ver", "_seq"), rows, shown[-1].id if len(found) > ROWS_SHOWN else "")


async def answer_sql(target: Inspected, text: str) -> SqlView:
    """The first rows of a statement that only reads, how SQLite read each source, and what it could be followed by.

    Raises:
        QueryError: SQLite does not understand it, it does something else than read stores, it took too long, or the
            database of the client answers no SQL.
        StoreError: The engine failed.

    A caller that is cancelled has the statement interrupted.
    """
    database = target.eye.database
    if not isinstance(database, AnswersSql):
        raise QueryError("this client's database answers no SQL")
    query, clock = SqlQuery.of(text, {}), target.eye.environment.clock
    outline = await database.outline(query)
    answer: SqlAnswer | None = None
    began = clock()
    with trio.move_on_after(SQL_S):
        answer = await database.sql(query, at_most=SQL_ROWS_SHOWN + 1)
    if answer is None:
        raise QueryError(f"the statement took more than {SQL_S:.0f} s and was interrupted")
    live = target.eye.live
    return SqlView(
        columns=answer.columns,
        rows=tuple(tuple(map(plain, row)) for row in answer.tuples[:SQL_ROWS_SHOWN]),
        more=len(answer.tuples) > SQL_ROWS_SHOWN,
        us=(clock() - began) * 1e6,
        sources=tuple(each.line for each in outline.sources),
        live=live.explain(outline) if isinstance(live, LiveInspection) else "",
    )


async def plan_of(target: Inspected, store: str, query: str) -> PlanView:
    """How the database reads each source of a live query, as it is listed.

    Raises:
        QueryError: It is not followed any more, or the database does not tell.
        StoreError: The engine failed.
    """
    live, database = target.eye.live, target.eye.database
    listed = live.stats() if isinstance(live, LiveInspection) else ()
    question = next((item.question for item in listed if (item.store, item.query) == (store, query)), None)
    if isinstance(question, BoundQuery) and isinstance(database, ExplainsQueries):
        found = tuple(await database.explain(question))
        warnings = missing_indexes(question.plan, found, target.client.schema.store)
        return PlanView(tuple(each.line for each in found), warnings)
    if isinstance(question, SqlQuery) and isinstance(database, AnswersSql):
        return PlanView(tuple(each.line for each in (await database.outline(question)).sources), ())
    raise QueryError("it is not followed any more" if question is None else "this client's database does not tell")
