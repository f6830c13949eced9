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
| ``time`` (naive), ``UUID`` | TEXT | JSON | by value |
| ``timedelta`` | TEXT | JSON | ``==`` |
| ``Decimal`` | TEXT | plain decimal text | not |
| anything else msgspec can convert (list, dict, struct, dataclass, NewType) | TEXT | JSON | ``==`` where equal values have one text |
"""

from __future__ import annotations

import enum
import types
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import msgspec

from atoma.contracts.values import Scalar
from atoma.errors import SchemaError, ValidationError
from atoma.schema.documents import clock_time, converter, document, reason_of
from atoma.schema.kinds import (
    SIMPLE,
    Comparisons,
    Decode,
    Encode,
    Kind,
    Plain,
    SqlType,
    ValueType,
    choice,
    enumeration,
    refuse,
)


@dataclass(frozen=True, slots=True)
class Field:
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
    inner, rules, nullable = _parts(hint)
    kind = _kind_of(store, name, inner, rules, _parts(bare)[0])
    if nullable:
        kind = _or_null(kind)
    return Field(
        name,
        kind.sql_type,
        kind.type,
        nullable,
        type_name(bare),
        kind.encode,
        kind.literal,
        kind.decode,
        kind.comparisons,
        kind.plain,
    )


def type_name(bare: object) -> str:
    """A declared type as messages name it."""
    name: object = getattr(bare, "__name__", None)
    return name if isinstance(name, str) else str(bare)


def _parts(hint: object) -> tuple[object, tuple[msgspec.Meta, ...], bool]:
    """The type inside ``Annotated`` and ``… | None``, the constraints on it, and whether there was a None."""
    rules: list[msgspec.Meta] = []
    nullable = False
    while True:
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
            rules += [note for note in notes if isinstance(note, msgspec.Meta) and _constrains(note)]
        elif get_origin(hint) in (Union, types.UnionType):
            rest: list[object] = [part for part in get_args(hint) if part is not type(None)]
            nullable = nullable or len(rest) < len(get_args(hint))
            if len(rest) > 1:
                return Union[tuple(rest)], tuple(rules), nullable  # noqa: UP007 - built at run time
            (hint,) = rest
        else:
            return hint, tuple(rules), nullable


def _constrains(note: msgspec.Meta) -> bool:
    limits = (note.gt, note.ge, note.lt, note.le, note.multiple_of, note.pattern, note.min_length, note.max_length)
    return any(limit is not None for limit in (*limits, note.tz))


_UNWANTED_ZONES: dict[object, bool] = {datetime: False, time: True}


def _kind_of(store: str, name: str, hint: object, rules: tuple[msgspec.Meta, ...], bare: object) -> Kind:
    rule: object = Annotated[hint, *rules] if rules else hint
    unwanted = _UNWANTED_ZONES.get(hint)
    if unwanted is not None and any(note.tz is unwanted for note in rules):
        wanted = "has no time zone" if hint is time else "has a time zone and is kept in UTC"
        raise SchemaError(f"store {store!r}: field {name!r}: a {type_name(bare)} {wanted}; take tz=… away")
    if hint is time:
        return clock_time(store, name, rule, bare)
    kind = _column_kind(store, name, hint)
    if kind is None:
        return document(store, name, rule, bare)
    if not rules:
        return kind
    try:
        return _constrained(store, name, kind, rule)
    except TypeError as error:
        raise SchemaError(f"store {store!r}: field {name!r}: a constraint that cannot be enforced: {error}") from None


def _column_kind(store: str, name: str, hint: object) -> Kind | None:
    """The kind with a column form of its own; None when ``hint`` is kept as JSON."""
    simple = SIMPLE.get(hint)
    if simple is not None:
        return simple(store, name)
    if get_origin(hint) is Literal:
        return choice(store, name, get_args(hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return enumeration(store, name, hint)
    if isinstance(hint, type) and _is_foreign(hint):
        raise SchemaError(f"store {store!r}: field {name!r}: no column can hold {hint.__name__}, not even as JSON")
    return None


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


def _or_null(kind: Kind) -> Kind:
    """``kind`` with None allowed; None is stored as NULL."""

    def or_null(inner: Encode) -> Encode:
        return lambda value: None if value is None else inner(value)

    def decode(value: object) -> object:
        return None if value is None or kind.decode is None else kind.decode(value)

    return replace(
        kind,
        encode=or_null(kind.encode),
        literal=or_null(kind.literal),
        decode=None if kind.decode is None else decode,
        plain=None if kind.plain is None else _plain_or_null(kind.plain),
    )


def _plain_or_null(plain: Plain) -> Plain:
    def check(values: Sequence[Any]) -> bool:
        present = [value for value in values if value is not None]
        return not present or plain(present)

    return check
