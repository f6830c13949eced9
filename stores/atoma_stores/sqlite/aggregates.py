"""Aggregates that SQLite lacks: sums that are exact, those of reals rounded once, as Python's and as live queries' are."""

# pyright: reportUnknownMemberType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import apsw

from atoma.query.functions import AGGREGATED
from atoma_stores.sql.functions import AVG, SUM, WHOLE_SUM

Values: TypeAlias = "list[int | float]"


def add_aggregates(connection: apsw.Connection) -> None:
    """Let statements on ``connection`` use them."""
    for name, meaning in ((SUM, "sum"), (AVG, "avg")):
        connection.create_aggregate_function(name, _factory(meaning), 1, flags=apsw.SQLITE_DETERMINISTIC)
    connection.create_scalar_function(WHOLE_SUM, _whole_sum, 2, flags=apsw.SQLITE_DETERMINISTIC)


def _factory(meaning: str) -> Callable[[], tuple[Values, Callable[..., None], Callable[[Values], float | None]]]:
    final = AGGREGATED[meaning]

    def begin() -> tuple[Values, Callable[..., None], Callable[[Values], float | None]]:
        return [], _step, final

    return begin


def _whole_sum(*halves: object) -> int | None:
    """The sum of whole numbers from those of their upper and lower halves; it does not depend on their order."""
    high, low = halves
    if not isinstance(high, int) or not isinstance(low, int):
        return None
    final = AGGREGATED["sum"]([(high << 32) + low])
    assert isinstance(final, int)
    return final


def _step(values: Values, value: float | None) -> None:
    if value is not None:
        values.append(value)
