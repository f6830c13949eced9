"""Every function of the table has its meaning, its SQL and its documentation, and none has one without standing there."""

from __future__ import annotations

import re
from pathlib import Path

from atoma.contracts.functions import AGGREGATES, COMPARISONS, FUNCTIONS
from atoma.query.functions import AGGREGATED, MEANINGS
from atoma_stores.sql.functions import AGGREGATE_SQL, SQL

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
