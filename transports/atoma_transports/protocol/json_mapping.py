"""Messages as JSON, for browsers and curl: one rule for every struct.

A struct is an object with its field names. Declared integers are texts (``"head":"42"``; a number is taken, too), bytes
are base64url without padding. Free values, those of columns, are plain JSON where JSON can tell them apart:

======================================  =============================
integer up to ±(2**53 - 1)              ``42``
a larger one                            ``{"$i":"9007199254740993"}``
float                                   ``1.5``, ``1.0``
NaN and the infinities                  ``{"$f":"NaN"}``
bytes                                   ``{"$x":"AP8"}``
text, boolean, nothing                  ``"a"``, ``true``, ``null``
a row, or several, in a result          a list of such values
======================================  =============================
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import msgspec
from msgspec import inspect

from atoma.errors import ProtocolError
from atoma.schema.kinds import INT64_MAX, INT64_MIN
from atoma_transports.protocol.json_shapes import Describe, JsonShape, Refer, always, reference
from atoma_transports.protocol.json_text import parse_json
from atoma_transports.protocol.plans import from_plain, to_plain

T = TypeVar("T", bound=msgspec.Struct)

SAFE_INTEGER_MAX = 2**53 - 1

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})", re.ASCII)
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

_Convert: TypeAlias = Callable[[object], object]


class _Wrong(Exception):
    """The news of what is wrong with a value; where it is is added on the way up."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.place = ""

    def under(self, place: str) -> _Wrong:
        self.place = f".{place}{self.place}"
        return self


class _Pair:
    """Both directions for one type, and the schema of what is written."""

    __slots__ = ("read", "shape", "write")

    def __init__(self, write: _Convert, read: _Convert, shape: Describe) -> None:
        self.write = write
        self.read = read
        self.shape = shape


def encode_json(message: msgspec.Struct) -> bytes:
    """``message`` as JSON text.

    Raises:
        ProtocolError: A free value is none that a column can hold.
    """
    return msgspec.json.encode(to_json(message))


def to_json(message: msgspec.Struct) -> object:
    """``message`` as plain values that any JSON encoder takes.

    Raises:
        ProtocolError: A free value is none that a column can hold.
    """
    kind = type(message)
    try:
        return _struct(kind).write(message)
    except _Wrong as wrong:
        raise ProtocolError(f"{kind.__name__}{wrong.place}: {wrong}") from None


def decode_json(data: bytes, kind: type[T]) -> T:
    """The ``kind`` that the JSON text ``data`` is.

    Raises:
        ProtocolError: It is not JSON, or not a ``kind``: a field is unknown, missing or of another type.
    """
    return from_json(parse_json(data), kind)


def from_json(value: object, kind: type[T]) -> T:
    """The ``kind`` that ``value``, already parsed, is.

    Raises:
        ProtocolError: It is not a ``kind``: a field is unknown, missing or of another type.
    """
    try:
        return cast("T", _struct(kind).read(value))
    except _Wrong as wrong:
        raise ProtocolError(f"malformed {kind.__name__}{wrong.place}: {wrong}") from None


def shape_of(kind: type[msgspec.Struct], refer: Refer, **instead: JsonShape) -> JsonShape:
    """The JSON schema of ``kind``, some fields of which are what ``instead`` says; other structs in it are as ``refer`` says."""
    fields = _fields(kind)
    shape: JsonShape = {
        "type": "object",
        "properties": {field.name: instead.get(field.name) or _pair(field.type).shape(refer) for field in fields},
        "required": [field.name for field in fields if field.required],
    }
    return shape | {"additionalProperties": False} if kind.__struct_config__.forbid_unknown_fields else shape


def as_object(value: object) -> dict[str, object] | None:
    """``value`` when it is a JSON object."""
    kind = type(value)
    held: Any = value
    return held if kind is dict else None


def _same(value: object) -> object:
    return value


def _exactly(kind: type[object], name: str, schema: str) -> _Pair:
    def read(value: object) -> object:
        if type(value) is not kind:
            raise _Wrong(f"expected {name}")
        return value

    return _Pair(_same, read, always({"type": schema}))


def _read_integer(value: object) -> int:
    if type(value) is str and _INTEGER.fullmatch(value) and value != "-0":
        value = int(value)
    if type(value) is not int or not INT64_MIN <= value <= INT64_MAX:
        raise _Wrong("expected a 64-bit integer, as text or number")
    return value


def _write_bytes(value: object) -> str:
    return base64.urlsafe_b64encode(cast("bytes", value)).rstrip(b"=").decode()


def _read_bytes(value: object) -> bytes:
    if type(value) is not str:
        raise _Wrong("expected bytes as base64url")
    try:
        data = base64.b64decode(value.encode("ascii") + b"=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (UnicodeError, binascii.Error):
        raise _Wrong("expected bytes as base64url without padding") from None
    if _write_bytes(data) != value:
        raise _Wrong("expected bytes as base64url without padding")
    return data


def _write_free(value: object) -> object:
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX else {"$i": str(value)}
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return {"$f": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, bytes):
        return {"$x": _write_bytes(value)}
    raise _Wrong(f"no column can hold a {type(value).__name__}")


def _read_free(value: object) -> object:
    kind = type(value)
    if kind is str or kind is float or kind is bool or value is None:
        return value
    if kind is int:
        return _read_integer(value)
    entries = as_object(value)
    if entries is not None and len(entries) == 1:
        ((tag, inner),) = entries.items()
        if tag == "$x":
            return _read_bytes(inner)
        if tag == "$i" and type(inner) is str:
            return _read_integer(inner)
        if tag == "$f" and type(inner) is str and inner in _SPECIAL:
            return _SPECIAL[inner]
    raise _Wrong('expected text, number, boolean, null, or one of {"$i":…}, {"$x":…}, {"$f":…}')


def _write_query(value: object) -> object:
    return _nested(to_plain(cast("bytes", value)), _write_free)


def _read_query(value: object) -> bytes:
    query = as_object(value)
    if query is None:
        raise _Wrong("expected an object with a plan")
    try:
        return from_plain(cast("dict[str, object]", _nested(query, _read_free)))
    except (ProtocolError, RecursionError, OverflowError) as error:
        raise _Wrong(str(error)) from None


def _nested(value: object, leaf: _Convert) -> object:
    """``value`` with ``leaf`` applied to what lists and objects hold; an object of one tag, ``{"$x": …}``, is a value.

    Text, which most of it is, is itself in both directions.
    """
    kind = type(value)
    held: Any = value
    if kind is list or kind is tuple:
        return [item if type(item) is str else _nested(item, leaf) for item in held]
    if kind is dict and (len(held) != 1 or not next(iter(held)).startswith("$")):
        return {name: item if type(item) is str else _nested(item, leaf) for name, item in held.items()}
    return leaf(value)


def _sequence(items: _Pair) -> _Pair:
    def write(value: Any) -> object:
        write_one = items.write
        return [write_one(item) for item in value]

    def read(value: object) -> object:
        kind = type(value)
        if kind is not list:
            raise _Wrong("expected a list")
        read_one = items.read
        held: Any = value
        made: list[object] = []
        try:
            for item in held:
                made.append(read_one(item))
        except _Wrong as wrong:
            raise wrong.under(str(len(made))) from None
        return tuple(made)

    return _Pair(write, read, lambda refer: {"type": "array", "items": items.shape(refer)})


def _read_part(place: str, pair: _Pair, value: object) -> object:
    try:
        return pair.read(value)
    except _Wrong as wrong:
        raise wrong.under(place) from None


def _fixed(parts: tuple[_Pair, ...]) -> _Pair:
    def write(value: object) -> object:
        return [part.write(item) for part, item in zip(parts, cast("tuple[object, ...]", value), strict=True)]

    def read(value: object) -> object:
        if type(value) is not list or len(cast("list[object]", value)) != len(parts):
            raise _Wrong(f"expected a list of {len(parts)}")
        both = zip(parts, cast("list[object]", value), strict=True)
        return tuple(_read_part(str(index), part, item) for index, (part, item) in enumerate(both))

    def shape(refer: Refer) -> JsonShape:
        items = [part.shape(refer) for part in parts]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}

    return _Pair(write, read, shape)


def _map(values: _Pair) -> _Pair:
    def write(value: object) -> object:
        return {name: values.write(item) for name, item in cast("dict[str, object]", value).items()}

    def read(value: object) -> object:
        if type(value) is not dict:
            raise _Wrong("expected an object")
        return {name: _read_part(name, values, item) for name, item in cast("dict[str, object]", value).items()}

    return _Pair(write, read, lambda refer: {"type": "object", "additionalProperties": values.shape(refer)})


def _choice(values: tuple[object, ...]) -> _Pair:
    known = frozenset(values)

    def read(value: object) -> object:
        if type(value) is not str or value not in known:
            raise _Wrong(f"expected one of {', '.join(sorted(map(str, known)))}")
        return value

    return _Pair(_same, read, always({"enum": list(values)}))


def _optional(pair: _Pair) -> _Pair:
    return _Pair(
        lambda value: None if value is None else pair.write(value),
        lambda value: None if value is None else pair.read(value),
        lambda refer: {"anyOf": [pair.shape(refer), {"type": "null"}]},
    )


def _union(types: tuple[inspect.Type, ...]) -> _Pair:
    rest = tuple(kind for kind in types if not isinstance(kind, inspect.NoneType))
    if len(rest) != 1:
        raise TypeError("a field of a message has one type")
    return _optional(_pair(rest[0])) if len(rest) < len(types) else _pair(rest[0])


def _read_cell(value: object) -> object:
    try:
        return _nested(cast("object", value), _read_free) if type(value) is list else _read_free(value)
    except RecursionError as error:
        raise _Wrong(str(error)) from None


def _is(kind: inspect.Metadata, name: str) -> bool:
    extra = cast("dict[str, object] | None", kind.extra)  # pyright: ignore[reportUnknownMemberType]
    return extra is not None and extra.get("json") == name


def _pair(kind: inspect.Type) -> _Pair:
    """Both directions for ``kind``, and its schema; a struct is looked up when it is needed, since it may hold itself."""
    match kind:
        case inspect.IntType():
            return _Pair(str, _read_integer, always(reference("Int64")))
        case inspect.StrType():
            return _exactly(str, "text", "string")
        case inspect.BoolType():
            return _exactly(bool, "true or false", "boolean")
        case inspect.Metadata(type=inspect.BytesType()) if _is(kind, "query"):
            return _Pair(_write_query, _read_query, always(reference("Query")))
        case inspect.Metadata() if _is(kind, "cell"):
            return _Pair(lambda value: _nested(value, _write_free), _read_cell, always(reference("Cell")))
        case inspect.BytesType():
            return _Pair(_write_bytes, _read_bytes, always(reference("Bytes")))
        case inspect.CustomType():
            return _Pair(_write_free, _read_free, always(reference("Value")))
        case inspect.LiteralType():
            return _choice(kind.values)
        case inspect.VarTupleType():
            return _sequence(_pair(kind.item_type))
        case inspect.TupleType():
            return _fixed(tuple(_pair(item) for item in kind.item_types))
        case inspect.DictType():
            return _map(_pair(kind.value_type))
        case inspect.UnionType():
            return _union(kind.types)
        case inspect.StructType():
            cls = kind.cls
            return _Pair(lambda it: _struct(cls).write(it), lambda it: _struct(cls).read(it), lambda refer: refer(cls))
        case _:
            raise TypeError(f"messages hold no {type(kind).__name__}")


_structs: dict[type[msgspec.Struct], _Pair] = {}


def _struct(cls: type[msgspec.Struct]) -> _Pair:
    found = _structs.get(cls)
    if found is None:
        found = _structs[cls] = _build(cls)
    return found


def _fields(cls: type[msgspec.Struct]) -> Sequence[inspect.Field]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return info.fields


def _build(cls: type[msgspec.Struct]) -> _Pair:
    declared = _fields(cls)
    fields = {field.name: _pair(field.type) for field in declared}
    required = frozenset(field.name for field in declared if field.required)
    later = cast("tuple[str, ...]", getattr(cls, "LATER", ()))
    omitted = {
        name: default
        for name, default in _defaults(declared).items()
        if cls.__struct_config__.omit_defaults or name in later
    }

    def write(message: object) -> object:
        made: dict[str, object] = {}
        for name, pair in fields.items():
            value = getattr(message, name)
            if name in omitted and value == omitted[name]:
                continue
            try:
                made[name] = pair.write(value)
            except _Wrong as wrong:
                raise wrong.under(name) from None
        return made

    def read(value: object) -> object:
        entries = as_object(value)
        if entries is None:
            raise _Wrong("expected an object")
        given: dict[str, object] = {}
        for name, inner in entries.items():
            pair = fields.get(name)
            if pair is None:
                raise _Wrong(f"has no field {name[:64]!r}")
            try:
                given[name] = pair.read(inner)
            except _Wrong as wrong:
                raise wrong.under(name) from None
        missing = required.difference(given)
        if missing:
            raise _Wrong(f"lacks {', '.join(sorted(missing))}")
        return cls(**given)

    return _Pair(write, read, lambda refer: refer(cls))


def _defaults(fields: Sequence[inspect.Field]) -> dict[str, object]:
    """Default by name of the fields that are left out when they hold it."""
    made: dict[str, object] = {}
    for field in fields:
        if field.default is not msgspec.NODEFAULT:
            made[field.name] = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            made[field.name] = cast("Callable[[], object]", field.default_factory)()
    return made
