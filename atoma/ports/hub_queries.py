"""What a direct query of a hub's database takes, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from atoma.contracts.values import StoredRow


@dataclass(frozen=True, slots=True)
class QueryPage:
    """Answer to a direct query.

    Attributes:
        rows: Rows in the query's order, one beyond its limit when there are more; their ``version`` is the hub sequence.
        tuples: Rows of a result of another shape.
        complete: False when the bounds cut it short.
    """

    rows: tuple[StoredRow, ...] = ()
    tuples: tuple[tuple[object, ...], ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class ReadAllowance:
    """What a read for somebody else may take, and who is told what it took.

    Attributes:
        seconds: How long it may run, once it has begun; a deadline of the caller's may end it earlier.
        spent: Gets the seconds for which it kept a reader busy, also when it fails.
    """

    seconds: float
    spent: Callable[[float], None]
