"""What stands for a value that somebody else gives: it is compared, and nothing is computed of it."""

from __future__ import annotations

from collections.abc import Callable

from atoma.contracts.query import Call, Expr
from atoma.errors import QueryError
from atoma.query.walk import expressions

_COMPARES = frozenset(("and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "is_same", "in", "is_null", "coalesce"))


def check_compared(where: Expr, what: str, is_one: Callable[[Expr], object]) -> None:
    """See that what ``is_one`` is compared only in ``where``: it must not be a pattern, nor may anything be computed of it.

    Raises:
        QueryError: It goes into another function; the message calls it ``what``.
    """
    for found in expressions(where):
        if isinstance(found, Call) and found.fn not in _COMPARES and any(map(is_one, expressions(found))):
            raise QueryError(f"{what} is compared, it does not go into {found.fn}()")
