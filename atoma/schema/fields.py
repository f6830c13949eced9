"""One codec table: how a Python value of a declared type is stored, sent and compared.

| Python | column | stored as | compared |
|---|---|---|---|
| ``str``, ``Literal["…"]`` | TEXT | the text, valid Unicode without NUL | by code point |
| ``Enum`` of strings | TEXT | the text | ``==``; a ``StrEnum`` by code point |
| ``int``, ``Literal[1, …]`` | INTEGER | 64-bit signed | by value |
| ``bool`` | INTEGER | 0 and 1 | by value |
| ``Enum`` of integers | INTEGER | 64-bit signed | ``==``; an ``IntEnum`` by value |
| ``float`` | REAL | finite or ±inf, −0.0 as 0.0; NaN is refused (SQLite would store NULL) | by value |
| ``bytes`` | BLOB | as is | byte by byte |
| ``datetime`` (aware) | TEXT | UTC, ``YYYY-MM-DDTHH:MM:SS.ffffffZ`` | by time |
| ``date`` | TEXT | ``YYYY-MM-DD`` | by day |
| ``time`` (naive) | TEXT | ``HH:MM:SS`` with ``.ffffff`` where there are microseconds | by time |
| ``timedelta`` | INTEGER | microseconds | by length |
| ``UUID`` | TEXT | ``xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`` | by number |
| ``Path`` | TEXT | the text with slashes | ``==`` |
| ``Annotated[Decimal, Scale(n)]`` | INTEGER | the value · 10ⁿ | by value |
| ``Decimal`` | TEXT | its digits, without exponent and zeros at the end | ``==`` |
| a ``NewType``, a ``type`` alias | | as the type behind it | as that |
| anything else msgspec can convert (list, dict, struct, dataclass) | TEXT | JSON | ``==`` where equal values have one text |
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NewType, Union, cast, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec.structs import replace

from atoma.contracts.values import Scalar
from atoma.errors import SchemaError, ValidationError
from atoma.schema import decimals, kinds, times
from atoma.schema.decimals import Scale
from atoma.schema.documents import converter, document, reason_of
from atoma.schema.kinds import Comparisons, Decode, Encode, Kind, Plain, SqlType, ValueType, refuse
from atoma.schema.packed import Packed, as_json

SIMPLE: Mapping[object, Callable[[str, str], Kind]] = MappingProxyType(
    {
        str: kinds.text,
        int: kinds.integer,
        bool: kinds.boolean,
        float: kinds.real,
        bytes: kinds.blob,
        datetime: times.moment,
        date: times.day,
        time: times.clock_time,
        timedelta: times.duration,
        UUID: kinds.identifier,
        Decimal: decimals.bare,
    }
)
"""The types that have a type of values of their own in queries; a ``Path`` has that of texts."""


class Field(msgspec.Struct, frozen=True):
    """One declared field of a model and its column.

    Attributes:
        name: Name of the field and of the column.
        sql_type: STRICT column type.
        type: What its values are in a query.
        nullable: Whether None is allowed.
        type_name: The declared type, for messages.
        encode: Python value → stored value, for what is written: constraints are enforced; raises
            :class:`ValidationError`.
        literal: Python value → stored value, for what is asked: of the field's type, whatever its constraints; raises
            :class:`ValidationError`.
        decode: Stored value → Python value, None when they are the same (the common case, kept cheap).
        comparisons: What can be asked of the column, and why the rest cannot.
        plain: Whether all of these values are certainly stored as they are; None when values of this type never are.
            It looks at a whole column at the speed of C, and may say no where ``encode`` would accept.
        packed: How values are sent and kept as bytes; None when it is as they are stored.
        places: For a decimal that is kept as a whole number: its places behind the point.
        wired: Whether it travels as bytes that a hub cannot read; see :mod:`atoma.schema.wire`.
        stored_as: A word for how it is stored, where another type with the same ``type`` would misread it.
    """

    name: str
    sql_type: SqlType
    type: ValueType
    nullable: bool
    type_name: str
    encode: Encode
    literal: Encode
    decode: Decode | None
    comparisons: Comparisons
    plain: Plain | None = None
    packed: Packed | None = None
    places: int | None = None
    wired: bool = False
    stored_as: str = ""

    @property
    def form(self) -> str:
        """How values are stored and packed, as one word or two: what makes a column that is there readable."""
        if self.wired:
            return "blob"  # what the hub has, and all that both sides have to agree on
        form = self.stored_as or self.type
        return f"{form} json" if self.packed is not None and self.packed.json else form

    @property
    def boolean(self) -> bool:
        """Whether 0 and 1 in the column stand for false and true."""
        if self.sql_type != "INTEGER":
            return False
        try:
            return self.literal(True) == 1
        except ValidationError:
            return False

    def encode_column(self, values: Sequence[object]) -> Sequence[Scalar]:
        """``encode`` of every value; one that is refused raises :class:`ValidationError`."""
        if self.plain is not None and self.plain(values):
            return cast("Sequence[Scalar]", values)
        return [self.encode(value) for value in values]


def field_of(store: str, name: str, hint: object, bare: object) -> Field:
    """The column for a field declared as ``name: hint``.

    Args:
        store: Its store, for messages.
        name: Its name.
        hint: Its declared type.
        bare: The same without ``Annotated``.

    Raises:
        SchemaError: No column can hold that type, or a constraint in it cannot be enforced.
    """
    declared, plain_hint = _parts(hint), _parts(bare).hint
    kind = _kind_of(store, name, declared, plain_hint)
    if declared.nullable:
        kind = kinds.or_null(kind)
    return Field(
        name,
        kind.sql_type,
        kind.type,
        declared.nullable,
        type_name(plain_hint),
        kind.encode,
        kind.literal,
        kind.decode,
        kind.comparisons,
        kind.plain,
        kind.packed,
        kind.places,
        stored_as=kind.stored_as,
    )


def type_name(bare: object) -> str:
    """A declared type as messages name it."""
    name: object = getattr(bare, "__name__", None)
    return name if isinstance(name, str) else str(bare)


class _Declared(msgspec.Struct, frozen=True):
    """A declared type taken apart.

    Attributes:
        hint: The type inside ``Annotated``, ``… | None`` and names for it.
        rules: The constraints on it.
        scales: The scales on it.
        nullable: Whether there was a None.
        named: Whether there was a NewType or a ``type`` alias.
    """

    hint: object
    rules: tuple[msgspec.Meta, ...]
    scales: tuple[Scale, ...]
    nullable: bool
    named: bool


def is_text(hint: object) -> bool:
    """Whether ``hint`` is ``str``, or a name for it."""
    declared = _parts(hint)
    return declared.hint is str and not declared.nullable


def _behind_name(hint: object) -> object:
    """The type that a NewType or a ``type`` alias stands for; ``hint`` itself when it is not such a name."""
    while True:
        if isinstance(hint, NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = cast("Any", hint).__value__
        else:
            return hint


def _parts(hint: object) -> _Declared:
    notes: list[object] = []
    nullable = named = False
    while True:
        behind = _behind_name(hint)
        if behind is not hint:
            hint, named = behind, True
        elif get_origin(hint) is Annotated:
            hint, *found = get_args(hint)
            notes += found
        elif get_origin(hint) in (Union, types.UnionType):
            rest: list[object] = [part for part in get_args(hint) if part is not type(None)]
            nullable = nullable or len(rest) < len(get_args(hint))
            hint = rest[0] if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007 - built at run time
            if len(rest) > 1:
                break
        else:
            break
    rules = tuple([note for note in notes if isinstance(note, msgspec.Meta) and _constrains(note)])
    return _Declared(hint, rules, tuple([note for note in notes if isinstance(note, Scale)]), nullable, named)


def _constrains(note: msgspec.Meta) -> bool:
    limits = (note.gt, note.ge, note.lt, note.le, note.multiple_of, note.pattern, note.min_length, note.max_length)
    return any(limit is not None for limit in (*limits, note.tz))


_UNWANTED_ZONES: dict[object, bool] = {datetime: False, time: True}


def _kind_of(store: str, name: str, declared: _Declared, bare: object) -> Kind:
    hint, rules = declared.hint, declared.rules
    rule: object = Annotated[hint, *rules] if rules else hint
    unwanted = _UNWANTED_ZONES.get(hint)
    if unwanted is not None and any(note.tz is unwanted for note in rules):
        wanted = "has no time zone" if hint is time else "has a time zone and is kept in UTC"
        raise SchemaError(f"store {store!r}: field {name!r}: a {type_name(bare)} {wanted}; take tz=… away")
    kind = _column_kind(store, name, declared)
    if kind is None:
        return document(store, name, rule, bare)
    if not rules:
        return kind
    try:
        return _constrained(store, name, kind, rule)
    except TypeError as error:
        raise SchemaError(f"store {store!r}: field {name!r}: a constraint that cannot be enforced: {error}") from None


def _column_kind(store: str, name: str, declared: _Declared) -> Kind | None:
    """The kind with a column form of its own; None when the type is kept as JSON."""
    hint = declared.hint
    for scale in declared.scales:
        if hint is not Decimal or len(declared.scales) > 1:
            raise SchemaError(f"store {store!r}: field {name!r}: one Scale(…) belongs to a Decimal")
        return decimals.scaled(store, name, scale)
    simple, members = kinds.path if hint is Path else SIMPLE.get(hint), False
    if simple is not None:
        kind = simple(store, name)
    elif get_origin(hint) is Literal:
        kind, members = kinds.choice(store, name, get_args(hint)), True
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        kind, members = kinds.enumeration(store, name, hint), True
    elif isinstance(hint, type) and _is_foreign(hint):
        raise SchemaError(f"store {store!r}: field {name!r}: no column can hold {hint.__name__}, not even as JSON")
    else:
        return None
    if not declared.named or hint is Path or (kind.packed is not None and kind.packed.json):
        return kind  # what has a name travelled as JSON in earlier versions, which had no field for a Path
    if members:  # a member that is none any more is passed on
        return replace(kind, packed=as_json(str if kind.sql_type == "TEXT" else int, None, lambda value: value))
    return replace(kind, packed=as_json(hint, kind.decode, kind.literal))


def _is_foreign(kind: type) -> bool:
    """Whether msgspec has no form for objects of ``kind``, so that every write of one would fail."""
    return kind is not object and isinstance(msgspec.inspect.type_info(kind), msgspec.inspect.CustomType)


def _constrained(store: str, name: str, kind: Kind, rule: object) -> Kind:
    """``kind`` with the constraints of ``rule`` on what is written; what is there already is read and asked as before."""
    check = converter(rule)
    check_all = converter(list[rule])  # type: ignore[valid-type]  # built at run time
    free, free_plain = kind.encode, kind.plain

    def encode(value: object) -> Scalar:
        stored = free(value)
        try:
            check(value)
        except msgspec.ValidationError as error:
            raise refuse(store, name, reason_of(error), value) from None
        return stored

    def plain(values: Sequence[Any]) -> bool:
        if free_plain is None or not free_plain(values):
            return False
        try:
            check_all(list(values))
        except msgspec.ValidationError:
            return False
        return True

    return replace(kind, encode=encode, plain=None if free_plain is None else plain)
