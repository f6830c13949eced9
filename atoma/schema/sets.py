"""Fields of a store that nobody writes: when a row was made and changed last, and what a hub sets.

Whatever a caller gives for them does not count, and a write that changes nothing else changes nothing. Set by the device, they
stand in the mutation like other fields. Set by the hub, they do not: the device shows a prediction until the hub's page comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from atoma.contracts.checks import is_a
from atoma.contracts.values import RowImage
from atoma.errors import SchemaError
from atoma.schema.fields import Field
from atoma.schema.times import at_ms

SetBy: TypeAlias = Literal["device", "hub"]


@dataclass(frozen=True, slots=True)
class SetFields:
    """The set fields of one store.

    Attributes:
        created_at: The field that holds when a row was made; None when there is none.
        updated_at: The field that holds when it was changed last; None when there is none.
        by: Whose clock says so.
        numbers: Fields for which a hub has a function.
        ids: Whether a hub has a function that draws the ids of new rows, so that nobody else gives one.
        times: The fields that hold times.
        names: All of them.
        at_hub: Those that the hub sets, and that no mutation holds.
    """

    created_at: str | None = None
    updated_at: str | None = None
    by: SetBy = "device"
    numbers: tuple[str, ...] = ()
    ids: bool = False
    times: tuple[str, ...] = field(init=False)
    names: frozenset[str] = field(init=False)
    at_hub: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        times = tuple([name for name in (self.created_at, self.updated_at) if name is not None])
        names = frozenset((*times, *self.numbers))
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "at_hub", names if self.by == "hub" else frozenset(self.numbers))

    @property
    def by_function(self) -> tuple[str, ...]:
        """The fields for which a hub has a function, the id among them."""
        return ("id", *self.numbers) if self.ids else self.numbers

    def stamped(self, before: RowImage | None, fields: Mapping[str, Field], now_ms: int) -> RowImage:
        """The values for a row that is made, or that is changed and was ``before``; numbers are left as they were."""
        stamps: RowImage = {name: None if before is None else before[name] for name in self.numbers}
        moment = at_ms(now_ms)
        for name in self.times:
            if before is not None and name == self.created_at:
                stamps[name] = before[name]
            else:
                stamps[name] = fields[name].literal(moment)
        return stamps


def set_fields(
    store: str,
    fields: Mapping[str, Field],
    created_at: str | None,
    updated_at: str | None,
    by: SetBy,
    numbers: Iterable[str],
    *,
    fixed: frozenset[str],
) -> SetFields:
    """The set fields of a store, checked.

    Args:
        store: The store.
        fields: Its fields by name.
        created_at: As declared, and so are the next three.
        updated_at: See above.
        by: See above.
        numbers: ``hub_fields``; the id among them says that the hub draws the ids of new rows.
        fixed: Fields that never change: the id, the scope.

    Raises:
        SchemaError: There is no such field, or it cannot be set.
    """
    if by not in get_args(SetBy):
        raise SchemaError(f"store {store!r}: by is device or hub, not {by!r}")
    if is_a(numbers, str) or not is_a(numbers, Iterable):
        raise SchemaError(f"store {store!r}: hub_fields is a list of fields, not {numbers!r}")
    listed = tuple(numbers)
    sets = SetFields(created_at, updated_at, by, tuple([name for name in listed if name != "id"]), "id" in listed)
    if len(sets.names) + sets.ids < len(sets.times) + len(listed):
        raise SchemaError(f"store {store!r}: a field is set in one way, and one is named twice")
    for name in sets.names:
        field = fields.get(name)
        if field is None or name in fixed:
            raise SchemaError(f"store {store!r}: {name!r} cannot be set: it is the id, the scope, or not a field")
        if name in sets.times and field.type != "time":
            raise SchemaError(
                f"store {store!r}: {name!r} holds a time and is declared as {field.type_name}; declare datetime"
            )
        if name in sets.numbers and not field.nullable:
            raise SchemaError(
                f"store {store!r}: {name!r} is None until the hub has set it; declare {field.type_name} | None"
            )
        if field.wired:
            raise SchemaError(f"store {store!r}: {name!r} has a wire, and a hub could not set it")
    return sets
