"""Soft delete: a deleted row stays, with the moment of its deletion, and every read passes over it.

| call | of a visible row | of a hidden row |
|---|---|---|
| ``delete`` | hides it | ``NotFoundError`` |
| ``update`` | changes it | ``NotFoundError`` |
| ``insert`` | ``ConflictError`` | ``ConflictError``, which names ``restore`` |
| ``upsert`` | changes it | brings it back, changed |
| ``restore`` | leaves it as it is | brings it back |
| ``purge`` | removes it for good | removes it for good |

The moment is a column like any other to tables, pages, history and the outbox. :mod:`atoma.query.check` keeps hidden rows out of
every query, and the conflict rules of a hub take the mark for what it means, a deletion.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeAlias

from msgspec.structs import replace

from atoma.contracts.mutations import Op
from atoma.contracts.values import HIDDEN, Scalar
from atoma.errors import SchemaError
from atoma.schema.fields import Field, field_of
from atoma.schema.times import at_ms, moment

GIVEN_UP = (
    "it was declared with soft_delete, and without that it would show again the rows that were deleted: declare soft_delete=True, "
    "or purge() them first"
)
"""Why the column of the marks does not vanish by itself."""
SoftDelete: TypeAlias = "bool | timedelta"

_encoded = moment("", HIDDEN).encode
UNTIMED = "0001-01-01T00:00:00.000000Z"
"""The moment in an operation that nobody has timed yet: whoever carries it out says when that is."""


def hidden_field(store: str) -> Field:
    """The column that holds when a row of ``store`` was deleted."""
    return field_of(store, HIDDEN, datetime | None, datetime | None)


def purged_after(store: str, soft_delete: object) -> timedelta | None:
    """How long rows of ``store`` stay hidden; None for ever.

    Raises:
        SchemaError: That is no declaration of soft delete.
    """
    if isinstance(soft_delete, timedelta) and soft_delete > timedelta(0):
        return soft_delete
    if not isinstance(soft_delete, bool):
        raise SchemaError(
            f"store {store!r}: soft_delete is True, False, or the timedelta above 0 after which a hub purges, not {soft_delete!r}"
        )
    return None


def moment_of(now_ms: int) -> Scalar:
    """The mark of a row that is deleted now."""
    return _encoded(at_ms(now_ms))


def softly(op: Op) -> Op:
    """``op`` of somebody who does not know of the mark, in a store that has it: a delete hides, an upsert brings back."""
    match op.kind:
        case "delete":
            return replace(op, kind="patch", values={HIDDEN: UNTIMED})
        case "upsert":
            return replace(op, values={**op.values, HIDDEN: None})
        case _:
            return op


def hides(op: Op) -> bool:
    """Whether ``op`` deletes a row softly."""
    return op.kind == "patch" and op.values.get(HIDDEN) is not None


def restores(op: Op) -> bool:
    """Whether ``op`` brings a row back, if it was deleted softly."""
    return op.kind == "patch" and HIDDEN in op.values and op.values[HIDDEN] is None
