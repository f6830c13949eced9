"""The types a field may have: how a value is stored, and what can be asked of it as it is stored.

A comparison is answered only where it means the same in SQL as it does in Python. Where the stored form of a type would
order or compare differently, :class:`Comparisons` says why, and what to declare instead.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec.structs import replace

from atoma.contracts.values import Scalar
from atoma.errors import SchemaError, ValidationError
from atoma.schema.packed import Packed, as_json

SqlType: TypeAlias = Literal["TEXT", "INTEGER", "REAL", "BLOB"]
ValueType: TypeAlias = str
"""What a value is in a query: ``int``, ``real``, ``text``, ``blob``, ``bool``, ``time`` (a moment), ``date``, ``clock`` (a time of
day), ``duration``, ``uuid``, ``decimal``, ``decimal(2)`` (with that many places) or ``json``. Two values of one type compare as
they are stored."""
Encode: TypeAlias = Callable[[object], Scalar]
Decode: TypeAlias = Callable[[Any], object]
Plain: TypeAlias = Callable[[Sequence[Any]], bool]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Comparisons(msgspec.Struct, frozen=True):
    """Why a comparison cannot be answered for a type, and what to do about it; ``""`` where it can.

    Attributes:
        equality: For ``==``, ``!=``, ``in_()`` and indexes.
        order: For ``<``, ``<=``, ``>``, ``>=`` and ``order_by()``.
        text: For ``like()``.
        total: For ``sum()`` and ``avg()``.
        any_text: Whether any text may stand there.
    """

    equality: str = ""
    order: str = ""
    text: str = "it is asked of text; declare a str field for what it shall look at"
    total: str = ""
    any_text: bool = False


TEXTS = Comparisons(text="")
VALUES = Comparisons()


class Kind(msgspec.Struct, frozen=True):
    """One type of field.

    Attributes:
        sql_type: STRICT column type.
        type: What its values are in a query.
        encode: Python value → stored value, for what is written.
        decode: Stored value → Python value, None when they are the same.
        plain: Whether all of these values are certainly stored as they are; None when they never are.
        literal: Python value → stored value, for what is asked; takes texts that may not be written, too.
        comparisons: What can be asked.
        packed: How it is sent and kept as bytes; None when it is as it is stored.
        places: For a decimal that is kept as a whole number: its places behind the point.
        stored_as: A word for how it is stored, where another type with the same ``type`` would misread it.
    """

    sql_type: SqlType
    type: ValueType
    encode: Encode
    decode: Decode | None
    plain: Plain | None
    literal: Encode
    comparisons: Comparisons = VALUES
    packed: Packed | None = None
    places: int | None = None
    stored_as: str = ""


def refuse(store: str, name: str, expected: str, value: object) -> ValidationError:
    """The error for a value that a field cannot hold."""
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    message = f"{store}.{name} wants {expected}, got {type(value).__name__}: {shown}"
    return ValidationError(message, store=store, field=name, value=value)


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be encoded: it has no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_storable(text: str) -> bool:
    """Whether ``text`` may be written: PostgreSQL holds no NUL, and no encoding holds a lone surrogate."""
    return "\x00" not in text and is_unicode(text)


def _all_are(kind: type[object], values: Sequence[object]) -> bool:
    return set(map(type, values)) == {kind}


def _plain_text(values: Sequence[str]) -> bool:
    return _all_are(str, values) and (joined := "".join(values)).isascii() and "\x00" not in joined


def _plain_integers(values: Sequence[int]) -> bool:
    return _all_are(int, values) and min(values) >= INT64_MIN and max(values) <= INT64_MAX


def _plain_reals(values: Sequence[float]) -> bool:
    # a NaN makes the sum one; of the zeros one may be negative
    return _all_are(float, values) and not math.isnan(sum(values)) and 0.0 not in values


def _plain_blobs(values: Sequence[bytes]) -> bool:
    return _all_are(bytes, values)


def _plain_choices(kind: type[object], allowed: frozenset[object]) -> Plain:
    return lambda values: _all_are(kind, values) and allowed.issuperset(values)


def text(store: str, name: str) -> Kind:
    """Text of any kind."""

    def literal(value: object) -> Scalar:
        if type(value) is not str:
            raise refuse(store, name, "str", value)
        if not is_unicode(value):
            raise refuse(store, name, "text without lone surrogates", value)
        return value

    def encode(value: object) -> Scalar:
        if type(value) is str and value.isascii() and "\x00" not in value:
            return value  # quick: nearly all of them
        found = literal(value)
        if "\x00" in found:  # type: ignore[operator]  # it is a str
            raise refuse(store, name, "text without NUL", value)
        return found

    return Kind("TEXT", "text", encode, None, _plain_text, literal, replace(TEXTS, any_text=True))


def integer(store: str, name: str) -> Kind:
    """A 64-bit whole number."""

    def encode(value: object) -> Scalar:
        if type(value) is not int:
            raise refuse(store, name, "int", value)
        if not INT64_MIN <= value <= INT64_MAX:
            raise refuse(store, name, "a 64-bit int", value)
        return value

    return Kind("INTEGER", "int", encode, None, _plain_integers, encode)


def boolean(store: str, name: str) -> Kind:
    """True or false."""

    def encode(value: object) -> Scalar:
        if type(value) is not bool:
            raise refuse(store, name, "bool", value)
        return int(value)

    return Kind("INTEGER", "bool", encode, bool, None, encode)


def real(store: str, name: str) -> Kind:
    """A floating point number."""

    def encode(value: object) -> Scalar:
        if type(value) is int and abs(value) <= 2**53:
            return float(value)
        if type(value) is not float or math.isnan(value):
            raise refuse(store, name, "float (not NaN)", value)
        return value or 0.0  # the negative zero equals the other one and would be written, sent and sorted differently

    return Kind("REAL", "real", encode, None, _plain_reals, encode)


def blob(store: str, name: str) -> Kind:
    """Bytes."""

    def encode(value: object) -> Scalar:
        if type(value) is not bytes:
            raise refuse(store, name, "bytes", value)
        return value

    return Kind("BLOB", "blob", encode, None, _plain_blobs, encode)


def identifier(store: str, name: str) -> Kind:
    """A ``UUID``, by its hexadecimal digits, which order as its number does."""

    def encode(value: object) -> Scalar:
        if not isinstance(value, UUID):
            raise refuse(store, name, "UUID", value)
        return str(value)

    def decode(value: object) -> UUID:
        if not isinstance(value, str):
            raise TypeError(f"the text of a UUID, not a {type(value).__name__}")
        return UUID(value)

    return Kind("TEXT", "uuid", encode, decode, None, encode, packed=as_json(UUID, decode, encode))


_BY_PARTS = "a Path is compared part by part, and its text is not; declare a str field to compare the text"
_OF_PATHS = Comparisons(order=_BY_PARTS, text=_BY_PARTS)


def path(store: str, name: str) -> Kind:
    """A ``Path``, by its text with slashes, so that another system reads the same path."""

    def literal(value: object) -> Scalar:
        if not isinstance(value, Path):
            raise refuse(store, name, "a Path", value)
        text = value.as_posix()
        if not is_unicode(text):
            raise refuse(store, name, "a Path without lone surrogates", value)
        return text

    def encode(value: object) -> Scalar:
        text = literal(value)
        if "\x00" in text:  # type: ignore[operator]  # it is a str
            raise refuse(store, name, "a Path without NUL", value)
        return text

    def decode(value: object) -> Path:
        if not isinstance(value, str):
            raise TypeError(f"the text of a Path, not a {type(value).__name__}")
        return Path(value)

    return Kind("TEXT", "text", encode, decode, None, literal, _OF_PATHS, stored_as="path")


def choice(store: str, name: str, allowed: tuple[object, ...]) -> Kind:
    """A ``Literal``; texts of it that no store may hold can be asked for, but not written.

    Raises:
        SchemaError: It is neither all text nor all whole numbers.
    """
    if not (_all_are(str, allowed) or _all_are(int, allowed)):
        raise SchemaError(f"{store}.{name}: a Literal must be all str or all int")
    kind = type(allowed[0])
    known, storable = frozenset(allowed), frozenset(filter(_is_storable_member, allowed))
    _check_range(store, name, allowed)

    def among(members: frozenset[object]) -> Encode:
        expected = "one of " + ", ".join(repr(item) for item in allowed if item in members)

        def encode(value: object) -> Scalar:
            if type(value) is not kind or value not in members:
                raise refuse(store, name, expected, value)
            assert isinstance(value, (str, int))
            return value

        return encode

    sql_type: SqlType = "TEXT" if kind is str else "INTEGER"
    comparisons = TEXTS if kind is str else VALUES
    return Kind(
        sql_type,
        "text" if kind is str else "int",
        among(storable),
        None,
        _plain_choices(kind, storable),
        among(known),
        comparisons,
    )


def enumeration(store: str, name: str, kind: type[enum.Enum]) -> Kind:
    """An ``Enum``; members whose text no store may hold can be asked for, but not written.

    Raises:
        SchemaError: Its values are neither all text nor all 64-bit whole numbers.
    """
    values = [member.value for member in kind]
    if not (_all_are(str, values) or _all_are(int, values)):
        raise SchemaError(f"{store}.{name}: the members of {kind.__name__} must be all str or all int")
    _check_range(store, name, values)

    def literal(value: object) -> Scalar:
        if not isinstance(value, kind):
            raise refuse(store, name, f"a {kind.__name__}", value)
        stored = value.value
        assert isinstance(stored, (str, int))
        return stored

    def encode(value: object) -> Scalar:
        stored = literal(value)
        if not _is_storable_member(stored):
            raise refuse(store, name, f"a {kind.__name__} of text without NUL and lone surrogates", value)
        return stored

    sql_type: SqlType = "TEXT" if _all_are(str, values) else "INTEGER"
    return Kind(
        sql_type, "text" if sql_type == "TEXT" else "int", encode, kind, None, literal, _of_members(kind, sql_type)
    )


def _is_storable_member(value: object) -> bool:
    return not isinstance(value, str) or is_storable(value)


def _check_range(store: str, name: str, values: Sequence[object]) -> None:
    for value in values:
        if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
            raise SchemaError(f"{store}.{name}: {value} does not fit into 64 bits")


def or_null(kind: Kind) -> Kind:
    """``kind`` with None allowed; None is stored as NULL."""

    def unless_none(inner: Encode) -> Encode:
        return lambda value: None if value is None else inner(value)

    def decode(value: object) -> object:
        return None if value is None or kind.decode is None else kind.decode(value)

    return replace(
        kind,
        encode=unless_none(kind.encode),
        literal=unless_none(kind.literal),
        decode=None if kind.decode is None else decode,
        plain=None if kind.plain is None else _plain_or_null(kind.plain),
    )


def _plain_or_null(plain: Plain) -> Plain:
    def check(values: Sequence[Any]) -> bool:
        present = [value for value in values if value is not None]
        return not present or plain(present)

    return check


def compares_by_value(kind: type[enum.Enum]) -> bool:
    """Whether members are equal exactly when their values are, as far as ``kind`` has not its own idea of it."""
    return kind.__eq__ in (object.__eq__, str.__eq__, int.__eq__)


def _of_members(kind: type[enum.Enum], sql_type: SqlType) -> Comparisons:
    equality = "" if compares_by_value(kind) else f"{kind.__name__} has an == of its own, which SQL does not know"
    ordered, mixed = (str.__lt__, "StrEnum") if sql_type == "TEXT" else (int.__lt__, "IntEnum")
    if equality or getattr(kind, "__lt__", None) is ordered:
        return Comparisons(equality, equality, "" if sql_type == "TEXT" and not equality else VALUES.text)
    why = (
        f"members of {kind.__name__} have no order in Python, or one of their own; "
        f"derive it from {mixed} to compare its values"
    )
    return Comparisons("", why, why if sql_type == "TEXT" else VALUES.text)
