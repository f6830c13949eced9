"""One codec table: how a Python value of a declared type is stored, sent and compared.

| Python | column | stored as |
|---|---|---|
| ``str``, ``Literal["…"]``, ``Enum`` of strings | TEXT | the text, valid Unicode, no lone surrogates |
| ``int``, ``bool``, ``Enum`` of integers | INTEGER | 64-bit signed; booleans 0 and 1 |
| ``float`` | REAL | finite or ±inf; NaN is refused (SQLite would store NULL) |
| ``bytes`` | BLOB | as is |
| ``datetime`` (aware) | TEXT | UTC, ``YYYY-MM-DDTHH:MM:SS.ffffffZ``, so that order is time |
| ``date`` | TEXT | ``YYYY-MM-DD`` |
| ``Decimal`` | TEXT | plain decimal text |
| anything else msgspec can convert (list, dict, struct, dataclass) | TEXT | JSON |
"""

from __future__ import annotations

import enum
import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias, Union, cast, get_args, get_origin

import msgspec

from atoma.contracts.values import Scalar
from atoma.errors import SchemaError, ValidationError

SqlType: TypeAlias = Literal["TEXT", "INTEGER", "REAL", "BLOB"]
Encode: TypeAlias = Callable[[object], Scalar]
Decode: TypeAlias = Callable[[Any], object]
Plain: TypeAlias = Callable[[Sequence[Any]], bool]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field of a model and its column.

    Attributes:
        name: Name of the field and of the column.
        sql_type: STRICT column type.
        nullable: Whether None is allowed.
        type_name: The declared type, for messages.
        encode: Python value → stored value; raises :class:`ValidationError`.
        decode: Stored value → Python value, None when they are the same (the common case, kept cheap).
        plain: Whether all of these values are certainly stored as they are; None when values of this type never are.
            It looks at a whole column at the speed of C, and may say no where ``encode`` would accept.
    """

    name: str
    sql_type: SqlType
    nullable: bool
    type_name: str
    encode: Encode
    decode: Decode | None
    plain: Plain | None = None

    @property
    def boolean(self) -> bool:
        """Whether 0 and 1 in the column stand for false and true."""
        if self.sql_type != "INTEGER":
            return False
        try:
            return self.encode(True) == 1
        except ValidationError:
            return False

    def encode_column(self, values: Sequence[object]) -> Sequence[Scalar]:
        """``encode`` of every value; one that is refused raises :class:`ValidationError`."""
        if self.plain is not None and self.plain(values):
            return cast("Sequence[Scalar]", values)
        return [self.encode(value) for value in values]


def _refuse(store: str, name: str, expected: str, value: object) -> ValidationError:
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    message = f"{store}.{name} wants {expected}, got {type(value).__name__}: {shown}"
    return ValidationError(message, store=store, field=name, value=value)


@dataclass(frozen=True, slots=True)
class _Kind:
    sql_type: SqlType
    encode: Encode
    decode: Decode | None
    plain: Plain | None = None


def _all_are(kind: type[object], values: Sequence[object]) -> bool:
    return set(map(type, values)) == {kind}


def _plain_text(values: Sequence[str]) -> bool:
    return _all_are(str, values) and "".join(values).isascii()


def _plain_integers(values: Sequence[int]) -> bool:
    return _all_are(int, values) and min(values) >= INT64_MIN and max(values) <= INT64_MAX


def _plain_reals(values: Sequence[float]) -> bool:
    return _all_are(float, values) and not math.isnan(sum(values))  # a NaN makes the sum one


def _plain_blobs(values: Sequence[bytes]) -> bool:
    return _all_are(bytes, values)


def _plain_choices(kind: type[object], allowed: tuple[object, ...]) -> Plain:
    known = frozenset(allowed)
    return lambda values: _all_are(kind, values) and known.issuperset(values)


def _text(store: str, name: str) -> _Kind:
    def encode(value: object) -> Scalar:
        if type(value) is not str:
            raise _refuse(store, name, "str", value)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise _refuse(store, name, "text without lone surrogates", value) from None
        return value

    return _Kind("TEXT", encode, None, _plain_text)


def _integer(store: str, name: str) -> _Kind:
    def encode(value: object) -> Scalar:
        if type(value) is not int:
            raise _refuse(store, name, "int", value)
        if not INT64_MIN <= value <= INT64_MAX:
            raise _refuse(store, name, "a 64-bit int", value)
        return value

    return _Kind("INTEGER", encode, None, _plain_integers)


def _boolean(store: str, name: str) -> _Kind:
    def encode(value: object) -> Scalar:
        if type(value) is not bool:
            raise _refuse(store, name, "bool", value)
        return int(value)

    return _Kind("INTEGER", encode, bool)


def _real(store: str, name: str) -> _Kind:
    def encode(value: object) -> Scalar:
        if type(value) is int and abs(value) <= 2**53:
            return float(value)
        if type(value) is not float or math.isnan(value):
            raise _refuse(store, name, "float (not NaN)", value)
        return value

    return _Kind("REAL", encode, None, _plain_reals)


def _blob(store: str, name: str) -> _Kind:
    def encode(value: object) -> Scalar:
        if type(value) is not bytes:
            raise _refuse(store, name, "bytes", value)
        return value

    return _Kind("BLOB", encode, None, _plain_blobs)


def _moment(store: str, name: str) -> _Kind:
    def encode(value: object) -> Scalar:
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise _refuse(store, name, "datetime with a time zone", value)
        moment = value.astimezone(UTC)
        return f"{moment.year:04d}" + moment.strftime(TIME_FORMAT[2:])

    def decode(value: str) -> datetime:
        return datetime.fromisoformat(value)

    return _Kind("TEXT", encode, decode)


def _day(store: str, name: str) -> _Kind:
    def encode(value: object) -> Scalar:
        if type(value) is not date:
            raise _refuse(store, name, "date", value)
        return value.isoformat()

    return _Kind("TEXT", encode, date.fromisoformat)


def _decimal(store: str, name: str) -> _Kind:
    def encode(value: object) -> Scalar:
        if not isinstance(value, Decimal) or not value.is_finite():
            raise _refuse(store, name, "a finite Decimal", value)
        return format(value, "f")

    return _Kind("TEXT", encode, Decimal)


def _choice(store: str, name: str, allowed: tuple[object, ...]) -> _Kind:
    known = frozenset((type(item), item) for item in allowed)
    kinds = frozenset(map(type, allowed))  # asked first: other values may have no hash
    expected = "one of " + ", ".join(repr(item) for item in allowed)

    def encode(value: object) -> Scalar:
        if type(value) not in kinds or (type(value), value) not in known:
            raise _refuse(store, name, expected, value)
        assert isinstance(value, (str, int))
        return value

    if all(type(item) is str for item in allowed):
        return _Kind("TEXT", encode, None, _plain_choices(str, allowed))
    if all(type(item) is int for item in allowed):
        return _Kind("INTEGER", encode, None, _plain_choices(int, allowed))
    raise SchemaError(f"{store}.{name}: a Literal must be all str or all int")


def _enumeration(store: str, name: str, kind: type[enum.Enum]) -> _Kind:
    values = [member.value for member in kind]

    def encode(value: object) -> Scalar:
        if not isinstance(value, kind):
            raise _refuse(store, name, f"a {kind.__name__}", value)
        stored = value.value
        assert isinstance(stored, (str, int))
        return stored

    if all(type(item) is str for item in values):
        return _Kind("TEXT", encode, kind)
    if all(type(item) is int for item in values):
        return _Kind("INTEGER", encode, kind)
    raise SchemaError(f"{store}.{name}: the members of {kind.__name__} must be all str or all int")


def _json(store: str, name: str, kind: object) -> _Kind:
    try:
        decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(kind)
    except TypeError as error:
        raise SchemaError(f"{store}.{name}: cannot store this type: {error}") from None

    def encode(value: object) -> Scalar:
        try:
            checked: object = msgspec.convert(value, type=kind, from_attributes=True)
            return msgspec.json.encode(checked, order="sorted").decode()
        except (msgspec.ValidationError, TypeError, OverflowError, UnicodeEncodeError) as error:
            raise _refuse(store, name, f"{kind} ({error})", value) from None

    return _Kind("TEXT", encode, decoder.decode)


_SIMPLE: dict[object, Callable[[str, str], _Kind]] = {
    str: _text,
    int: _integer,
    bool: _boolean,
    float: _real,
    bytes: _blob,
    datetime: _moment,
    date: _day,
    Decimal: _decimal,
}


def _plain_or_null(plain: Plain) -> Plain:
    def check(values: Sequence[Any]) -> bool:
        present = [value for value in values if value is not None]
        return not present or plain(present)

    return check


def _kind_of(store: str, name: str, hint: object) -> _Kind:
    simple = _SIMPLE.get(hint)
    if simple is not None:
        return simple(store, name)
    if get_origin(hint) is Literal:
        return _choice(store, name, get_args(hint))
    kind: object = hint  # isinstance would narrow it to a type of unknown parameters
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enumeration(store, name, hint)
    if isinstance(hint, type) and _is_foreign(hint):
        raise SchemaError(f"store {store!r}: field {name!r}: no column can hold {hint.__name__}, not even as JSON")
    return _json(store, name, kind)


def _is_foreign(kind: type) -> bool:
    """Whether msgspec has no form for objects of ``kind``, so that every write of one would fail."""
    return kind is not object and isinstance(msgspec.inspect.type_info(kind), msgspec.inspect.CustomType)


def _or_null(kind: _Kind) -> _Kind:
    """``kind`` with None allowed; None is stored as NULL."""
    strict_encode, strict_decode = kind.encode, kind.decode

    def encode(value: object) -> Scalar:
        return None if value is None else strict_encode(value)

    decode: Decode | None = None
    if strict_decode is not None:

        def decode_value(value: object, strict: Decode = strict_decode) -> object:
            return None if value is None else strict(value)

        decode = decode_value
    return _Kind(kind.sql_type, encode, decode, None if kind.plain is None else _plain_or_null(kind.plain))


def field_of(store: str, name: str, hint: object) -> Field:
    """The column for a field declared as ``name: hint``.

    Raises:
        SchemaError: No column can hold that type.
    """
    nullable = False
    inner = hint
    if get_origin(hint) in (Union, types.UnionType):
        rest: list[object] = [part for part in get_args(hint) if part is not type(None)]
        nullable = len(rest) < len(get_args(hint))
        inner = rest[0] if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007 - built at run time
    kind = _kind_of(store, name, inner)
    if nullable:
        kind = _or_null(kind)
    type_name = getattr(hint, "__name__", None) or str(hint)
    return Field(name, kind.sql_type, nullable, type_name, kind.encode, kind.decode, kind.plain)
