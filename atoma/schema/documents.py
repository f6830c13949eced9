"""Fields that are kept as JSON text: every type that msgspec converts and that has no column form of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from msgspec import inspect

from atoma.contracts.values import Scalar
from atoma.errors import SchemaError
from atoma.schema.kinds import Comparisons, Encode, Kind, compares_by_value, refuse

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_FIRST = "$[0]"
_TEXT = "it is kept as JSON; declare a str field for what like() shall find"
_TWO_FORMS = (
    "it is kept as JSON, in which equal values may be written in two ways; keep what you ask for in its own field"
)
_NO_ORDER = "it is kept as JSON, which does not sort as its values do; keep what you sort by in its own field"
DOCUMENTS = Comparisons(_TWO_FORMS, _NO_ORDER, _TEXT)


def converter(rule: object) -> Encode:
    """A function that gives a value as ``rule`` has it: its type and its constraints.

    It is compiled once: ``msgspec.convert`` would read a type that is not a class anew with every call. It raises what
    ``msgspec.convert`` raises.

    Raises:
        TypeError: msgspec cannot convert to ``rule``.
    """
    holder = msgspec.defstruct("Held", [("value", cast("type", rule))], array_like=True)
    msgspec.json.Decoder(holder)  # raises when a constraint does not fit its type

    def convert(value: object) -> Any:
        return msgspec.convert((value,), type=holder, from_attributes=True).value  # type: ignore[attr-defined]

    return convert


def reason_of(error: Exception) -> str:
    """Why a converter refused a value, in our own terms."""
    told = str(error).removeprefix("Expected ").replace(_FIRST, "$", 1).removesuffix(" - at `$`")
    return told.replace("`", "")


def document(store: str, name: str, rule: object, bare: object) -> Kind:
    """A field kept as JSON.

    Args:
        store: Its store, for messages.
        name: Its name.
        rule: Its type with the constraints on what is written.
        bare: Its type without them, for what is read and asked: an older rule may have let it in.

    Raises:
        SchemaError: msgspec has no JSON for values of this type.
    """
    try:
        decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(cast("type[object]", bare))
        strict, lax = converter(rule), converter(bare)
        shape = inspect.type_info(bare)
    except TypeError as error:
        raise SchemaError(f"{store}.{name}: cannot store this type: {error}") from None
    if _has_other_keys(shape):
        raise SchemaError(f"{store}.{name}: the keys of JSON are text; declare dict[str, …], not {bare}")

    def by(convert: Encode) -> Encode:
        def encode(value: object) -> Scalar:
            try:
                converted = convert(value)
                text = msgspec.json.encode(converted, order="sorted").decode()
                # NaN and the infinities become null without a word, and the negative zero would be another text
                if "null" in text or "-0.0" in text:
                    plain: object = msgspec.to_builtins(converted, order="sorted")
                    text = msgspec.json.encode(_with_finite_numbers(plain), order="sorted").decode()
            except (msgspec.ValidationError, TypeError, ValueError, OverflowError, RecursionError) as error:
                raise refuse(store, name, f"{bare} ({reason_of(error)})", value) from None
            return text

        return encode

    literal, unchecked = by(lax), by(strict)

    def encode(value: object) -> Scalar:
        text = unchecked(value)
        if "\\u0000" in cast("str", text) and _NUL.search(cast("str", text)):
            raise refuse(store, name, "text without NUL", value)
        return text

    return Kind("TEXT", "json", encode, decoder.decode, None, literal, _comparisons(shape))


def _with_finite_numbers(value: object) -> object:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("JSON has no NaN and no infinity")
        return value or 0.0
    if isinstance(value, dict):
        return {key: _with_finite_numbers(item) for key, item in cast("dict[str, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_with_finite_numbers(item) for item in cast("Sequence[object]", value)]
    return value


def _comparisons(shape: inspect.Type) -> Comparisons:
    return Comparisons("" if _has_one_form(shape) else _TWO_FORMS, _NO_ORDER, _TEXT)


_EXACT = (
    inspect.NoneType, inspect.BoolType, inspect.IntType, inspect.StrType, inspect.BytesType, inspect.DateType,
    inspect.UUIDType, inspect.TimeDeltaType, inspect.LiteralType,
)  # fmt: skip
_NUMBERS = (inspect.BoolType, inspect.IntType, inspect.FloatType)


def _has_one_form(shape: inspect.Type) -> bool:
    """Whether values are equal in Python exactly when their JSON is the same text.

    Floats are not among them, as older files may hold negative zeros.
    """
    match shape:
        case inspect.Metadata(type=inner):
            return _has_one_form(inner)
        case inspect.EnumType(cls=kind):
            return compares_by_value(kind)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return _has_one_form(item)
        case inspect.SetType(item_type=item) | inspect.FrozenSetType(item_type=item):
            return _has_one_form(item)
        case inspect.TupleType(item_types=items):
            return all(map(_has_one_form, items))
        case inspect.DictType(value_type=item):
            return _has_one_form(item)
        case inspect.UnionType(types=items):
            return sum(isinstance(item, _NUMBERS) for item in items) < 2 and all(map(_has_one_form, items))
        case _:
            return isinstance(shape, _EXACT)


def _has_other_keys(shape: inspect.Type) -> bool:
    """Whether a mapping in ``shape`` has keys that are not text, which JSON cannot hold."""
    match shape:
        case inspect.Metadata(type=inner):
            return _has_other_keys(inner)
        case inspect.DictType(key_type=key, value_type=item):
            return not isinstance(key, (inspect.StrType, inspect.AnyType)) or _has_other_keys(item)
        case inspect.TupleType(item_types=items) | inspect.UnionType(types=items):
            return any(map(_has_other_keys, items))
        case _:
            inside: object = getattr(shape, "item_type", None)
            return isinstance(inside, inspect.Type) and _has_other_keys(inside)
