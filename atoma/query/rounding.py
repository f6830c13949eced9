"""What to write in place of a number with a fraction that is compared with whole numbers."""

from __future__ import annotations

import math

from atoma.errors import QueryError
from atoma.query.scope import Typed

_HINT = "an int is compared with whole numbers"


def whole_number(fn: str, column: Typed, value: object) -> QueryError | None:
    """Why ``column``, a field of whole numbers, is not compared with ``value``; None when it is for another reason."""
    if column.field is None or column.store is None or column.kind != "int":
        return None
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    name = f"{column.store.name}.{column.field.name}"
    sign, least = {
        "gt": (">", math.floor(value)),
        "ge": (">=", math.ceil(value)),
        "lt": ("<", math.ceil(value)),
        "le": ("<=", math.floor(value)),
    }.get(fn, ("==", int(value)))
    if value.is_integer():
        sign = "!=" if fn == "ne" else sign
    elif fn == "gt":
        sign, least = ">=", least + 1
    elif fn == "lt":
        sign, least = "<=", least - 1
    elif sign == "==":
        return QueryError(f"{name} is int, and no int is {value}", hint=_HINT)
    return QueryError(f"{name} is int, {value} would need {name} {sign} {least}", hint=_HINT)
