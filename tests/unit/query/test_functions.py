"""Every function of the table has its meaning, its SQL and its documentation, and none has one without standing there."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest

import atoma.contracts.functions as contracts_functions
import atoma.query.functions as query_functions
import atoma_stores.sql.functions as sql_functions
from atoma.contracts.functions import AGGREGATES, COMPARISONS, FUNCTIONS
from atoma.query import bind, col, select
from atoma.query.functions import AGGREGATED, MEANINGS
from atoma_stores.sql.functions import AGGREGATE_SQL, SQL
from tests.unit.stores.kit import CARDS, SCHEMA

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "plans.md"


def test_a_function_has_every_one_of_its_rows() -> None:
    assert FUNCTIONS.keys() == MEANINGS.keys() == SQL.keys()
    assert AGGREGATES.keys() == AGGREGATED.keys() == AGGREGATE_SQL.keys()
    assert FUNCTIONS.keys() >= COMPARISONS


def test_the_reference_names_every_function() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## Functions")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == FUNCTIONS.keys()
    aggregates = next(line for line in table.splitlines() if line.startswith("The aggregates are"))
    assert set(re.findall(r"`(\w+)`", aggregates)) == AGGREGATES.keys()


ROWS = {
    "query/functions.py": (
        '        "length": _of_one(len),\n',
        "the meaning of a function in Python: length:",
    ),
    "query/functions.py, of an aggregate": ('        "count": len,\n', "an aggregate in Python: count:"),
    "sql/functions.py": ('        "is_same": _infix("IS"),\n', "the SQL of a function: is_same:"),
    "sql/functions.py, of an aggregate": ('"avg": AVG, ', "the SQL of an aggregate: avg:"),
    "contracts/functions.py": (
        '        "lower": Function(("text",), "text", need="text"),\n',
        "in Python: lower:",
    ),
}
"""Of a module of that name: a row, and what is said when it is not there."""


@pytest.mark.parametrize("name", ROWS)
def test_a_function_without_one_of_its_rows_does_not_import(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "contracts/functions.py": contracts_functions,
        "query/functions.py": query_functions,
        "sql/functions.py": sql_functions,
    }
    of = name.partition(",")[0]
    row, words = ROWS[name]
    source = inspect.getsource(modules[of])
    assert source.count(row) == 1
    torn = {"__name__": "torn"}
    if of == "contracts/functions.py":
        monkeypatch.setitem(sys.modules, "torn", contracts_functions)  # where dataclasses look for their module
        exec(compile(source.replace(row, ""), "torn", "exec"), torn)
        monkeypatch.setattr(contracts_functions, "FUNCTIONS", torn["FUNCTIONS"])
        source, row = inspect.getsource(query_functions), ""
    with pytest.raises(ImportError, match=words):
        exec(compile(source.replace(row, "") if row else source, "torn", "exec"), {"__name__": "torn"})


def test_a_column_says_how_it_is_sorted_by() -> None:
    title = CARDS.col(lambda card: card.title)
    said = bind(select(CARDS).order_by(title.desc(), col("lane").asc()), SCHEMA)
    assert said == bind(select(CARDS).order_by("-title", "lane"), SCHEMA)
