"""What a direct query of a hub's database takes, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from atoma.contracts.query import Expr
from atoma.contracts.values import StoredRow


@dataclass(frozen=True, slots=True)
class Fence:
    """Which rows of a store somebody may see.

    Attributes:
        scopes: Only those of these scopes; None for all.
        rule: Only those for which this is true: a checked condition on one row, its values in their places; None for all.
    """

    scopes: tuple[str, ...] | None
    rule: Expr | None = None


Fences: TypeAlias = Mapping[str, Fence]
"""The fence of every store that a query may read, by name; a store that is not there cannot be read."""


@dataclass(frozen=True, slots=True)
class QueryPage:
    """Answer to a direct query.

    Attributes:
        rows: Rows in the query's order; their ``version`` is the hub sequence.
        tuples: Rows of a result of another shape, as :class:`atoma.contracts.execution.QueryResult` has them.
        more: Whether the result goes on beyond the query's limit, in the direction that was asked.
        complete: False when the bounds cut it short.
    """

    rows: tuple[StoredRow, ...] = ()
    tuples: tuple[tuple[object, ...], ...] = ()
    more: bool = False
    complete: bool = True


@dataclass(frozen=True, slots=True)
class ReadAllowance:
    """The bounds of a read for somebody else, and who is informed of what it took.

    Attributes:
        seconds: How long it may run, once it has begun; a deadline of the caller's may end it earlier.
        spent: Gets the seconds for which it kept a reader busy, also when it fails.
    """

    seconds: float
    spent: Callable[[float], None]
