"""What people give to the methods of a query, looked at where they give it."""

from __future__ import annotations

import inspect
from typing import Any, cast

from atoma.errors import QueryError
from atoma.schema.spec import StoreSpec
from atoma.schema.terms import Term


def whole_number(of: str, given: object) -> int:
    """``given``, a number for ``of``; raises :class:`QueryError` when it is none."""
    if not isinstance(given, int) or isinstance(given, bool):
        raise QueryError(f"{of} takes a whole number, not {given!r}")
    return given


def checked_columns(of: str, given: tuple[object, ...]) -> tuple[Term, ...]:
    """``given``, columns for ``of``; raises :class:`QueryError` when they are none."""
    if not given:
        raise QueryError(f"{of} takes at least one column")
    for each in given:
        if not isinstance(each, Term):
            raise QueryError(f"{of} takes columns, as STORE.col(lambda row: row.id), not {each!r}")
    return cast("tuple[Term, ...]", given)


def check_arity(make: object, count: int) -> None:
    """See that ``make`` takes so many values by their places; raises :class:`QueryError`."""
    if not callable(make):
        raise QueryError(f"into() takes a class or a function first, not {make!r}")
    try:
        signature = inspect.signature(make)
    except ValueError:
        return  # one of C's does not tell
    try:
        signature.bind(*range(count))
    except TypeError as error:
        name = getattr(make, "__name__", "it")
        raise QueryError(f"into() gives {name} {count} values by their places: {error}") from None


def check_soft(spec: StoreSpec[Any]) -> None:
    """See that there are rows of ``spec`` that were deleted softly.

    Raises:
        QueryError: It deletes for good.
    """
    if not spec.soft_delete:
        raise QueryError(
            f"include_deleted: store {spec.name!r} deletes for good; declare StoreSpec({spec.name!r}, …, soft_delete=True)"
        )
