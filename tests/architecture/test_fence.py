"""No text of a query names the table of a store but the fence.

SQLite itself says, of every column that a statement reads, within which table expression it is read: a store's table is read
within the fence of that store only, whatever the plan.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import apsw

from atoma.contracts.query import Call, Col, Lit
from atoma.errors import QueryError
from atoma.ports.hub_queries import Fence
from atoma.query.normal import bind
from atoma_stores.sql.answers import Prepared, prepare
from atoma_stores.sqlite.ddl import create_table
from atoma_stores.sqlite.functions import add_functions
from tests.leaks.plans import SCHEMA, PlanMaker

SQL = Path(__file__).parents[2] / "stores/atoma_stores/sql"
OF_QUERIES = ("answers.py", "fence.py", "include.py", "select.py", "hub/reads.py")
FENCED = Fence(("red", "blue"), Call("ne", (Col(0, "id"), Lit("text", "x9"))))


def statements(prepared: Prepared) -> Iterator[Prepared]:
    yield prepared
    for branches in prepared.branches:
        for branch in branches:
            yield from statements(branch.below)


def test_every_read_of_a_store_is_within_its_fence() -> None:
    connection = apsw.Connection(":memory:")
    add_functions(connection)
    for store in SCHEMA.stores.values():
        connection.execute(create_table(store, "hub"))
    read: Counter[tuple[str | None, str | None]] = Counter()

    def note(operation: int, table: str | None, _column: str | None, _database: str | None, within: str | None) -> int:
        if operation == apsw.SQLITE_READ and table in SCHEMA.stores:
            read[table, within] += 1
        return apsw.SQLITE_OK

    connection.authorizer = note
    asked = 0
    for seed in range(400):
        try:
            query = bind(PlanMaker(Random(seed)).plan(), SCHEMA.store)
        except QueryError:
            continue
        for each in statements(prepare(query.plan, SCHEMA.store, dict.fromkeys(SCHEMA.stores, FENCED))):
            connection.execute(f"EXPLAIN {each.statement.sql}", each.statement.bindings(query.params)).fetchall()
            asked += 1
    assert {table for table, _ in read} == set(SCHEMA.stores)
    assert {(table, within) for table, within in read if table != within} == set()
    assert asked > 300


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node)


def test_only_the_fence_asks_what_the_table_of_a_store_is_called() -> None:
    named = {
        name: [call for call in calls(SQL / name) if ".store(" in call.split(")")[0] and "dialect" in call]
        for name in OF_QUERIES
    }
    assert {name for name, found in named.items() if found} == {"fence.py"}
    quoted = {
        name: [call for call in calls(SQL / name) if call.startswith("quote(") and ".name)" in call]
        for name in OF_QUERIES
    }
    assert {name for name, found in quoted.items() if found} == {"fence.py"}
