"""Fields that travel in another form than they are kept in: encoded on the way out, decoded on the way in.

On a device a table holds the value; what is made to leave the device, and comes to it, holds ``encode(value)``: mutations, pages
and offers. A hub keeps and passes on those bytes and knows nothing else: it cannot compare, search or rule by such a field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from msgspec.structs import replace

from atoma.contracts.checks import is_a
from atoma.contracts.query import Call, Col, Expr
from atoma.contracts.values import Scalar
from atoma.errors import SchemaError, ValidationError
from atoma.schema.fields import Field, field_of
from atoma.schema.indexes import Index
from atoma.schema.kinds import Comparisons, refuse
from atoma.schema.packed import Packed

V = TypeVar("V")

_AT_A_HUB = "it travels encoded (wire=…): only devices can read it"


@dataclass(frozen=True)  # with slots, Wire[str](…) could not note its type
class Wire(Generic[V]):
    """The form in which the values of one field travel. None travels as it is.

    Both functions are pure, and ``encode`` gives the same bytes for the same value each time, or two devices that write the same
    would be in conflict. Every write checks the pair: one that does not give the value back refuses the write.

    Args:
        encode: Value → bytes.
        decode: What ``encode`` made → the value.

    Raises:
        SchemaError: Something is not a function.
    """

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]

    def __post_init__(self) -> None:
        if not all(map(callable, (self.encode, self.decode))):
            raise SchemaError("Wire() takes two functions, Wire(encode, decode)")


def with_wires(
    store: str,
    fields: Mapping[str, Field],
    wires: Mapping[str, Wire[Any]],
    *,
    fixed: frozenset[str],
    search: tuple[str, ...],
    indexes: tuple[Index, ...],
) -> dict[str, Field]:
    """``fields``, those of ``wires`` as they are on a device.

    Args:
        store: Their store.
        fields: The fields by name.
        wires: How some of them travel.
        fixed: Those that a hub has to read: the id, the scope.
        search: Those of which there is an index of words.
        indexes: The indexes.

    Raises:
        SchemaError: There is no such field, or a hub has to read it.
    """
    if not is_a(wires, Mapping) or not all(is_a(wire, Wire) for wire in wires.values()):
        raise SchemaError(f"store {store!r}: wire maps fields to Wire(encode, decode), not {wires!r}")
    computed = {name for index in indexes for name in _computed(index)}
    for name in wires:
        if name not in fields:
            raise SchemaError(f"store {store!r}: wire names the field {name!r}, which there is not")
        if name in fixed:
            raise SchemaError(f"store {store!r}: {name!r} cannot have a wire: a hub has to read it")
        if name in search:
            raise SchemaError(
                f"store {store!r}: {name!r} has a wire, and a hub could not search it: take it out of search="
            )
        if name in computed:
            raise SchemaError(
                f"store {store!r}: {name!r} has a wire, and a hub could not compute its index: index it plainly"
            )
    return {name: _wired(store, field, wires[name]) if name in wires else field for name, field in fields.items()}


def at_a_hub(store: str, field: Field) -> Field:
    """A field that has a wire as a hub has it: bytes that it cannot look into."""
    hint: object = bytes | None if field.nullable else bytes
    closed = Comparisons(equality=_AT_A_HUB, order=_AT_A_HUB, text=_AT_A_HUB, total=_AT_A_HUB)
    return replace(field_of(store, field.name, hint, hint), comparisons=closed, type_name=f"{field.type_name}, encoded")


def _computed(index: Index) -> set[str]:
    """The fields that an index does not hold as they are: those in its expressions and in its condition."""
    exprs: list[Expr] = [key.expr for key in index.keys if not isinstance(key.expr, Col)]
    exprs += [] if index.where is None else [index.where]
    return {name for expr in exprs for name in _columns(expr)}


def _columns(expr: Expr) -> Iterator[str]:
    if isinstance(expr, Col):
        yield expr.name
    for part in expr.args if isinstance(expr, Call) else ():
        yield from _columns(part)


def _wired(store: str, field: Field, wire: Wire[Any]) -> Field:
    def python(stored: Scalar) -> object:
        return stored if field.decode is None else field.decode(stored)

    def pack(stored: Scalar) -> Scalar:
        if stored is None:
            return None
        encoded = wire.encode(python(stored))
        if type(encoded) is not bytes:
            raise TypeError(f"encode returned {type(encoded).__name__}, not bytes")
        return encoded

    def unpack(travelled: Scalar) -> Scalar:
        if travelled is None:
            return None
        try:
            return field.literal(wire.decode(cast("bytes", travelled)))
        except Exception as error:  # whatever an application's function raises
            message = f"{store}.{field.name} cannot be decoded: {type(error).__name__}: {error}"
            raise ValidationError(message, store=store, field=field.name) from error

    def encode(value: object) -> Scalar:
        stored = field.encode(value)
        try:
            travels = pack(stored)
            fits = unpack(travels) == stored and pack(stored) == travels
        except Exception as error:  # as above
            raise refuse(
                store, field.name, f"what its wire can encode ({type(error).__name__}: {error})", value
            ) from error
        if not fits:
            raise refuse(
                store, field.name, "a value that decode(encode(value)) gives back, with the same bytes each time", value
            )
        return stored

    return replace(field, encode=encode, plain=None, packed=Packed(False, pack, unpack), wired=True)
