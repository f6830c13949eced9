"""Between the protocol's structs and their protobuf twins, field by field.

The table of fields is made once per struct, from its annotations. What the twin of a field is, is one rule:

==============================  =====================================================================================
the struct's field              the message's field
==============================  =====================================================================================
``int str bytes bool``          ``int64 string bytes bool``
a ``Literal`` of texts          ``string``, checked against the literal
a struct                        its message; one that is left out reads as an empty one; ``bytes`` where the message
                                has those: it is passed on whole, with fields that protobuf need not know
a tuple of those                ``repeated``
``dict[str, str]``              ``map<string, string>``
anything else                   ``bytes``: its MessagePack; none at all for an empty map or list
``… | None``, a default ≠ zero  the same, ``optional``
==============================  =====================================================================================
"""

from __future__ import annotations

import operator
import typing
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from msgspec import inspect

from atoma.errors import ProtocolError
from atoma_transports.grpc.counting import count_contents
from atoma_transports.grpc.v1 import sync_pb2

S = TypeVar("S", bound=msgspec.Struct)
FieldCodec: TypeAlias = tuple[Callable[[msgspec.Struct, Message], None], Callable[[Message], msgspec.Struct]]
"""How a message is filled from a struct, and how a struct is made of it."""
Put: TypeAlias = Callable[[msgspec.Struct, Message], None]
Get: TypeAlias = Callable[[Message], object]
_PLAIN = (inspect.IntType, inspect.StrType, inspect.BytesType, inspect.BoolType)
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Twin:
    """A struct and its message.

    Attributes:
        struct: The struct.
        message: Its message's class.
        part: Copies a struct into an empty message; makes a struct of a message.
    """

    struct: type[msgspec.Struct]
    message: type[Message]
    part: FieldCodec


def pack(value: msgspec.Struct) -> bytes:
    """The protobuf bytes of ``value``.

    Raises:
        ProtocolError: A field cannot be said in protobuf: an integer beyond 64 bits, text that is not Unicode. Nothing
            was sent.
    """
    twin = twin_of(type(value))
    message = twin.message()
    try:
        twin.part[0](value, message)
        return message.SerializeToString()
    except (ValueError, TypeError, OverflowError, RecursionError, EncodeError) as error:
        text = f"{type(value).__name__} cannot be sent: {error}"
        raise ProtocolError(text, maybe_sent=False) from None


def unpack(data: bytes, kind: type[S]) -> S:
    """The ``kind`` whose protobuf bytes ``data`` are; unknown fields are passed over.

    Raises:
        ProtocolError: They are not protobuf, or a field holds what the struct's cannot.
    """
    twin = twin_of(kind)
    try:
        return cast("S", twin.part[1](twin.message.FromString(data)))
    except (DecodeError, msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"malformed {kind.__name__}: {error}") from None


def unpack_in_steps(data: bytes, kind: type[S]) -> Generator[None, None, S]:
    """:func:`unpack` of a large request, unless there is too much in it; others may run between two steps.

    Raises:
        RemoteError: ``TOO_LARGE``.
        ProtocolError: As above.
    """
    twin = twin_of(kind)
    yield from count_contents(data, cast("Descriptor", twin.message.DESCRIPTOR), _packed)
    return unpack(data, kind)


_packed: set[str] = set()
"""Full names of the fields that hold MessagePack."""
_twins: dict[type[msgspec.Struct], Twin] = {}


def twin_of(kind: type[msgspec.Struct]) -> Twin:
    """The message of ``kind`` and the way there and back."""
    found = _twins.get(kind)
    return _make(kind) if found is None else found


def _message_class(name: str) -> type[Message]:
    found: object = getattr(sync_pb2, name)
    return cast("type[Message]", found)


def _make(kind: type[msgspec.Struct]) -> Twin:
    puts: list[Put] = []
    gets: list[Get] = []
    plain: list[str] = []

    def fill(value: msgspec.Struct, message: Message) -> None:
        for name in plain:
            setattr(message, name, getattr(value, name))
        for put in puts:
            put(value, message)

    def read(message: Message) -> msgspec.Struct:
        return kind(*[get(message) for get in gets])

    message = _message_class(kind.__name__)
    twin = _twins[kind] = Twin(kind, message, (fill, read))
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    hints = typing.get_type_hints(kind)
    for field in info.fields:
        target = cast("FieldDescriptor", message.DESCRIPTOR.fields_by_name[field.name])
        put, get = _field(field, hints[field.name], target)
        gets.append(get)
        if isinstance(field.type, _PLAIN) and not target.has_presence:
            plain.append(field.name)
        else:
            puts.append(put)
    return twin


def _field(field: inspect.Field, hint: object, target: FieldDescriptor) -> tuple[Put, Get]:
    """How ``field`` goes into a message and comes out again."""
    name, kind = field.name, field.type
    optional = isinstance(kind, inspect.UnionType) and kind.includes_none
    if optional:
        assert isinstance(kind, inspect.UnionType)
        rest = tuple(part for part in kind.types if not isinstance(part, inspect.NoneType))
        kind = rest[0] if len(rest) == 1 else inspect.UnionType(rest)
        hint = typing.Union[tuple(part for part in typing.get_args(hint) if part is not type(None))]  # noqa: UP007
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    put, get = _value(name, kind, hint, target)
    if not target.has_presence or field.required:
        return put, get
    default: object = field.default

    def put_present(struct: msgspec.Struct, message: Message) -> None:
        if getattr(struct, name) is not None:
            put(struct, message)

    def get_present(message: Message) -> object:
        return get(message) if message.HasField(name) else default

    return put_present, get_present


def _value(name: str, kind: inspect.Type, hint: object, target: FieldDescriptor) -> tuple[Put, Get]:
    """The way of a field that is there, by the rule above."""
    if isinstance(kind, _PLAIN):
        return _plain(name)
    if isinstance(kind, inspect.LiteralType):
        return _literal(name, frozenset(kind.values))
    if isinstance(kind, inspect.StructType) and target.type != FieldDescriptor.TYPE_BYTES:
        return _message(name, twin_of(kind.cls).part)
    if isinstance(kind, inspect.VarTupleType):
        if isinstance(kind.item_type, inspect.StructType):
            return _messages(name, twin_of(kind.item_type.cls).part)
        if isinstance(kind.item_type, _PLAIN):
            return _list(name)
    if isinstance(kind, inspect.DictType) and isinstance(kind.value_type, inspect.StrType):
        return _map(name)
    _packed.add(target.full_name)
    return _opaque(name, hint)


def _plain(name: str) -> tuple[Put, Get]:
    def put(struct: msgspec.Struct, message: Message) -> None:
        setattr(message, name, getattr(struct, name))

    return put, operator.attrgetter(name)


def _literal(name: str, allowed: frozenset[object]) -> tuple[Put, Get]:
    put, get = _plain(name)

    def get_checked(message: Message) -> object:
        value = get(message)
        if value not in allowed:
            raise ValueError(f"{name} is none of {', '.join(sorted(map(str, allowed)))}")
        return value

    return put, get_checked


def _message(name: str, part: FieldCodec) -> tuple[Put, Get]:
    fill, read = part

    def put(struct: msgspec.Struct, message: Message) -> None:
        into: Message = getattr(message, name)
        into.SetInParent()
        fill(getattr(struct, name), into)

    def get(message: Message) -> object:
        return read(getattr(message, name))

    return put, get


def _messages(name: str, part: FieldCodec) -> tuple[Put, Get]:
    fill, read = part

    def put(struct: msgspec.Struct, message: Message) -> None:
        add: Callable[[], Message] = getattr(message, name).add
        for item in getattr(struct, name):
            fill(item, add())

    def get(message: Message) -> object:
        return tuple(map(read, getattr(message, name)))

    return put, get


def _list(name: str) -> tuple[Put, Get]:
    def put(struct: msgspec.Struct, message: Message) -> None:
        getattr(message, name).extend(getattr(struct, name))

    def get(message: Message) -> object:
        return tuple(getattr(message, name))

    return put, get


def _map(name: str) -> tuple[Put, Get]:
    def put(struct: msgspec.Struct, message: Message) -> None:
        getattr(message, name).update(getattr(struct, name))

    def get(message: Message) -> object:
        return dict(getattr(message, name))

    return put, get


def _opaque(name: str, hint: object) -> tuple[Put, Get]:
    """MessagePack; an empty map or list takes no bytes at all, a single value always has some."""
    decode = msgspec.msgpack.Decoder(cast("type[object]", hint)).decode
    container = typing.get_origin(hint)

    def put(struct: msgspec.Struct, message: Message) -> None:
        value: object = getattr(struct, name)
        setattr(message, name, _encode(value) if value or container is None else b"")

    def get(message: Message) -> object:
        data: bytes = getattr(message, name)
        return decode(data) if data or container is None else container()

    return put, get
