"""What an application says of changes that do not explain themselves: the steps from each version of its schema to the next.

A new field with a default, an index or a store explain themselves. For everything else a step says what becomes of the values
that are there. Steps work on fields, not on rows, so that they can be taken with a part of a row as well: with a write that
waits on a device since before the change, and with the names in a hub's log. Taken backwards, where they say how, they show
the rows of today to programs of before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeAlias, TypeVar, get_type_hints

import msgspec
from msgspec.structs import replace

from atoma.contracts.checks import is_a
from atoma.contracts.values import RowImage, Scalar
from atoma.errors import AtomaError, SchemaError, ValidationError
from atoma.schema.fields import Field, field_of

Old = TypeVar("Old")
New = TypeVar("New")


class Rename(msgspec.Struct, frozen=True):
    """A field has another name; its values stay.

    Attributes:
        field: Store and name before, as in ``"cards.name"``.
        to: Its name from then on.
    """

    field: str
    to: str


@dataclass(frozen=True, slots=True)
class Convert:
    """The values of a field are others, of another type perhaps.

    Args:
        field: Store and name, as in ``"cards.price"``.
        by: Old value → new value. It depends on nothing but its argument, as devices and the hub call it each for themselves.
        was: The type before, as the model declared it.
        back: New value → old value, for programs of before that still sync; without it they are told to be updated.
    """

    field: str
    by: Callable[..., object]
    was: object
    back: Callable[..., object] | None

    def __init__(
        self, field: str, by: Callable[[Old], New], *, was: object, back: Callable[[New], Old] | None = None
    ) -> None:
        _set(self, field=field, by=by, was=was, back=back)


@dataclass(frozen=True, slots=True)
class Split:
    """One field becomes several.

    Args:
        field: Store and name before, as in ``"people.name"``.
        into: Names of the fields that it becomes.
        by: Old value → the value of each of them; as in :class:`Convert`.
        was: The type before.
        back: Their values, in the same order → the old value; as in :class:`Convert`.
    """

    field: str
    into: tuple[str, ...]
    by: Callable[..., Sequence[object]]
    was: object
    back: Callable[..., object] | None

    def __init__(
        self,
        field: str,
        into: Sequence[str],
        by: Callable[[Old], Sequence[object]],
        *,
        was: object,
        back: Callable[..., Old] | None = None,
    ) -> None:
        _set(self, field=field, into=tuple(into), by=by, was=was, back=back)


def _set(step: Convert | Split, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(step, name, value)


class Drop(msgspec.Struct, frozen=True):
    """A field is given up, with its values.

    Attributes:
        field: Store and name, as in ``"cards.color"``.
        was: The type it had, where programs of before still sync; None tells them to be updated.
        back: What those programs are shown for it.
    """

    field: str
    was: object = None
    back: object = None


class Sql(msgspec.Struct, frozen=True):
    """A statement for the table of a store that does not replicate, run after all other steps.

    A store that replicates has its rows in several places, at the hub and on devices: there it is refused.

    Attributes:
        store: The store.
        statement: One statement of SQLite's.
    """

    store: str
    statement: str


MigrationStep: TypeAlias = Rename | Convert | Split | Drop | Sql
MigrationSteps: TypeAlias = Mapping[int, Sequence[MigrationStep]]
"""Version → the steps that lead to it from the one before."""


class _Turn(Protocol):
    """One step of one store, as images and names go through it."""

    def up(self, image: RowImage) -> None:
        """Bring an image, or a part of one, over the step."""
        ...

    def down(self, image: RowImage) -> None:
        """Bring a whole image back over the step."""
        ...

    def names(self, name: str) -> tuple[str, ...]:
        """The fields that ``name`` has become."""
        ...

    def names_before(self, name: str) -> tuple[str, ...]:
        """The fields that ``name`` has come from."""
        ...

    @property
    def one_way(self) -> str:
        """The step, if no way leads back over it, else ``""``."""
        ...


class Past(msgspec.Struct, frozen=True):
    """A store as an earlier version declared it, as far as steps tell: fields that came without one are among its own.

    Attributes:
        store: Its name.
        fields: Its fields, the id among them.
        scope_field: The field that names the scope of a row, None for none.
        turns: What has led from there to the store of today.
    """

    store: str
    fields: Mapping[str, Field]
    scope_field: str | None
    turns: tuple[_Turn, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its fields without the id."""
        return tuple(name for name in self.fields if name != "id")

    @property
    def renamed(self) -> tuple[tuple[str, str], ...] | None:
        """Names before and after, step by step, where all that has led from there is other names; else None."""
        pairs = [(turn.before, turn.after) for turn in self.turns if isinstance(turn, _Renamed)]
        return tuple(pairs) if len(pairs) == len(self.turns) else None

    @property
    def one_way(self) -> str:
        """The first step that no way leads back over, ``""`` when there is none."""
        return next((turn.one_way for turn in self.turns if turn.one_way), "")

    def upgrade(self, image: RowImage) -> RowImage:
        """What an image, or a part of one, that holds values as columns held them then is as of today.

        Raises:
            ValidationError: A value cannot be converted.
        """
        upgraded = dict(image)
        for turn in self.turns:
            turn.up(upgraded)
        return upgraded

    def downgrade(self, image: RowImage) -> RowImage:
        """A whole image of today as it would have been then.

        Raises:
            ValidationError: A value cannot be converted.
        """
        downgraded = dict(image)
        for turn in reversed(self.turns):
            turn.down(downgraded)
        return downgraded

    def unpack(self, image: RowImage) -> RowImage:
        """What was packed then, with values as columns held them; see :mod:`atoma.schema.packed`."""
        return {
            name: value
            if (field := self.fields.get(name)) is None or field.packed is None
            else field.packed.unpack(value)
            for name, value in image.items()
        }

    def pack(self, image: RowImage) -> RowImage:
        """What :meth:`unpack` takes."""
        return {
            name: value
            if (field := self.fields.get(name)) is None or field.packed is None
            else field.packed.pack(value)
            for name, value in image.items()
        }

    def names(self, names: Iterable[str]) -> tuple[str, ...]:
        """The fields of today that these fields have become."""
        found = list(names)
        for turn in self.turns:
            found = [after for name in found for after in turn.names(name)]
        return tuple(found)

    def converts(self, name: str) -> bool:
        """Whether the values of this field have been turned into others, so that what was done to one says nothing today."""
        for turn in self.turns:
            if isinstance(turn, (_Converted, _Parted)) and turn.before.name == name:
                return True
            (name,) = turn.names(name) or (name,)
        return False

    def names_then(self, names: Iterable[str]) -> tuple[str, ...]:
        """The fields of then that these fields of today have come from."""
        found = list(names)
        for turn in reversed(self.turns):
            found = [before for name in found for before in turn.names_before(name)]
        return tuple(dict.fromkeys(found))

    @property
    def forms(self) -> dict[str, str]:
        """The form of each column but the id; see :attr:`atoma.schema.fields.Field.form`."""
        return {name: field.form for name, field in self.fields.items() if name != "id"}


class _Renamed(msgspec.Struct, frozen=True):
    before: str
    after: str
    one_way: str = ""

    def up(self, image: RowImage) -> None:
        if self.before in image:
            image[self.after] = image.pop(self.before)

    def down(self, image: RowImage) -> None:
        if self.after in image:
            image[self.before] = image.pop(self.after)

    def names(self, name: str) -> tuple[str, ...]:
        return (self.after if name == self.before else name,)

    def names_before(self, name: str) -> tuple[str, ...]:
        return (self.before if name == self.after else name,)


class _Converted(msgspec.Struct, frozen=True):
    store: str
    before: Field
    after: Field
    by: Callable[[object], object]
    back: Callable[[object], object] | None
    one_way: str

    def up(self, image: RowImage) -> None:
        name = self.before.name
        if name in image:
            image[name] = _stored(self.store, self.after, _applied(self.store, self.before, self.by, image[name]))

    def down(self, image: RowImage) -> None:
        name = self.before.name
        if name in image and self.back is not None:
            image[name] = _stored(self.store, self.before, _applied(self.store, self.after, self.back, image[name]))

    def names(self, name: str) -> tuple[str, ...]:
        return (name,)

    def names_before(self, name: str) -> tuple[str, ...]:
        return (name,)


class _Parted(msgspec.Struct, frozen=True):
    store: str
    before: Field
    after: tuple[Field, ...]
    by: Callable[[object], Sequence[object]]
    back: Callable[..., object] | None
    one_way: str

    def up(self, image: RowImage) -> None:
        name = self.before.name
        if name not in image:
            return
        value = image.pop(name)
        parts = _applied(self.store, self.before, self.by, value)
        if not is_a(parts, Sequence) or len(parts) != len(self.after):
            into = ", ".join(field.name for field in self.after)
            raise _unconverted(self.store, self.before, value, f"it is to become {into}, and became {parts!r:.80}")
        for field, part in zip(self.after, parts, strict=True):
            image[field.name] = _stored(self.store, field, part)

    def down(self, image: RowImage) -> None:
        if self.back is None or any(field.name not in image for field in self.after):
            return
        values = [_value(self.store, field, image.pop(field.name)) for field in self.after]
        try:
            whole = self.back(*values)
        except Exception as error:  # what an application's own function raises
            raise _unconverted(self.store, self.before, values, _said(error)) from error
        image[self.before.name] = _stored(self.store, self.before, whole)

    def names(self, name: str) -> tuple[str, ...]:
        return tuple(field.name for field in self.after) if name == self.before.name else (name,)

    def names_before(self, name: str) -> tuple[str, ...]:
        return (self.before.name,) if any(field.name == name for field in self.after) else (name,)


class _Dropped(msgspec.Struct, frozen=True):
    name: str
    shown: Scalar
    one_way: str

    def up(self, image: RowImage) -> None:
        image.pop(self.name, None)

    def down(self, image: RowImage) -> None:
        image[self.name] = self.shown

    def names(self, name: str) -> tuple[str, ...]:
        return () if name == self.name else (name,)

    def names_before(self, name: str) -> tuple[str, ...]:
        return (name,)


def _value(store: str, field: Field, stored: Scalar) -> object:
    """The value that a column holds as ``stored``."""
    try:
        value: object = stored if field.decode is None else field.decode(stored)
        field.literal(value)
    except Exception as error:  # what a column may not hold, decoders refuse in their own ways
        raise _unconverted(store, field, stored, _said(error)) from error
    return value


def _applied(store: str, field: Field, function: Callable[[object], New], stored: Scalar) -> New:
    value = _value(store, field, stored)
    try:
        return function(value)
    except Exception as error:  # what an application's own function raises
        raise _unconverted(store, field, value, _said(error)) from error


def _stored(store: str, field: Field, value: object) -> Scalar:
    try:
        return field.encode(value)
    except AtomaError as error:
        raise _unconverted(store, field, value, str(error)) from error


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _unconverted(store: str, field: Field, value: object, why: str) -> ValidationError:
    return ValidationError(
        f"{store}.{field.name} cannot be converted: {why}", store=store, field=field.name, value=value
    )


class Declared(Protocol):
    """The facts about a store of today that steps have to know."""

    name: str
    fields: dict[str, Field]
    scope_field: str | None


def pasts_of(stores: Mapping[str, Declared], version: int, steps: MigrationSteps) -> Mapping[int, Mapping[str, Past]]:
    """Version with steps → the stores as they were before it; only those that a step has changed since.

    Raises:
        SchemaError: A step cannot have led to the stores as they are declared.
    """
    found: dict[int, Mapping[str, Past]] = {}
    now: dict[str, Past] = {}
    for to in sorted(steps, reverse=True):
        if not is_a(to, int) or not 1 < to <= version:
            raise SchemaError(f"steps lead to a version from 2 to the schema's own, {version}, not to {to!r}")
        for step in reversed(steps[to]):
            name, change = _undone(to, step, stores, now)
            if change is not None:
                now[name] = change
        found[to] = MappingProxyType(dict(now))
    return MappingProxyType(found)


def statements_of(steps: MigrationSteps, since: int) -> Iterator[Sql]:
    """The statements of the steps behind version ``since``, in order."""
    for to in sorted(steps):
        if to > since:
            yield from (step for step in steps[to] if isinstance(step, Sql))


def _undone(
    to: int, step: MigrationStep, stores: Mapping[str, Declared], now: Mapping[str, Past]
) -> tuple[str, Past | None]:
    """The store of a step, and what it was before; None for one that leaves its fields alone."""
    where = f"step to version {to}: {step!r}"
    if isinstance(step, Sql):
        if step.store not in stores:
            raise SchemaError(f"{where}: there is no store {step.store!r}")
        return step.store, None
    if not any(is_a(step, kind) for kind in (Rename, Convert, Split, Drop)):
        raise SchemaError(f"{where}: a step is a Rename, Convert, Split, Drop or Sql")
    name, _, field = step.field.partition(".")
    if name not in stores or not field:
        raise SchemaError(
            f"{where}: a step names a declared store and its field, as in {next(iter(stores))!r} + '.field'"
        )
    store = stores[name]
    after = now.get(name) or Past(name, store.fields, store.scope_field)
    if field == "id":
        raise SchemaError(f"{where}: the id of a row never changes")
    if field == after.scope_field and not isinstance(step, Rename):
        raise SchemaError(f"{where}: a row never leaves its scope, so its scope field can only be renamed")
    undo = _Undo(where, field, after)
    match step:
        case Rename():
            return name, undo.rename(step)
        case Convert():
            return name, undo.convert(step)
        case Split():
            return name, undo.split(step)
        case Drop():
            return name, undo.drop(step)


class _Undo(msgspec.Struct, frozen=True):
    """A way back over a step: the store before it, from the store after it.

    Attributes:
        where: The step, for messages.
        field: The name it begins with.
        after: The store after it.
    """

    where: str
    field: str
    after: Past

    def rename(self, step: Rename) -> Past:
        fields = dict(self.after.fields)
        self._want_gone(self.field)
        fields[self.field] = replace(fields.pop(self._there(step.to).name), name=self.field)
        scope = self.field if self.after.scope_field == step.to else self.after.scope_field
        return self._before(fields, _Renamed(self.field, step.to), scope)

    def convert(self, step: Convert) -> Past:
        now, was = self._readable(self.field), self._field(step.was)
        turn = _Converted(self.after.store, was, now, step.by, step.back, self._unless(step.back is not None))
        return self._before({**self.after.fields, self.field: was}, turn)

    def split(self, step: Split) -> Past:
        parts = tuple([self._readable(name) for name in step.into])
        fields = {name: field for name, field in self.after.fields.items() if name not in step.into}
        if self.field in fields:
            raise SchemaError(f"{self.where}: {self.field!r} is still a field after it; name it in `into` as well")
        fields[self.field] = was = self._field(step.was)
        turn = _Parted(self.after.store, was, parts, step.by, step.back, self._unless(step.back is not None))
        return self._before(fields, turn)

    def drop(self, step: Drop) -> Past:
        self._want_gone(self.field)
        if step.was is None:
            text = field_of(self.after.store, self.field, str, str)
            return self._before({**self.after.fields, self.field: text}, _Dropped(self.field, None, self.where))
        was = self._field(step.was)
        try:
            shown = was.literal(step.back)
        except AtomaError as error:
            raise SchemaError(f"{self.where}: `back` is not a value of it: {error}") from None
        return self._before({**self.after.fields, self.field: was}, _Dropped(self.field, shown, ""))

    def _before(self, fields: Mapping[str, Field], turn: _Turn, scope: str | None = None) -> Past:
        scope_field = self.after.scope_field if scope is None else scope
        return replace(self.after, fields=fields, scope_field=scope_field, turns=(turn, *self.after.turns))

    def _unless(self, reversible: bool) -> str:
        return "" if reversible else self.where

    def _there(self, name: str) -> Field:
        found = self.after.fields.get(name)
        if found is None or name == "id":
            raise SchemaError(
                f"{self.where}: after it, store {self.after.store!r} has no field {name!r} to hold values"
            )
        return found

    def _readable(self, name: str) -> Field:
        found = self._there(name)
        if found.wired:
            raise SchemaError(
                f"{self.where}: {name!r} travels encoded (wire=…), and a hub could not take the step; it can only be renamed"
            )
        return found

    def _want_gone(self, name: str) -> None:
        if name in self.after.fields:
            raise SchemaError(f"{self.where}: {name!r} is still a field of store {self.after.store!r} after it")

    def _field(self, hint: object) -> Field:
        holder = type("_Holder", (), {"__annotations__": {"value": hint}})
        return field_of(self.after.store, self.field, hint, get_type_hints(holder)["value"])
