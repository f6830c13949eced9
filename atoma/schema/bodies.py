"""Mutations as bytes: the values of their operations are packed; see :mod:`atoma.schema.packed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import MutationBody, Op
from atoma.contracts.values import RowImage
from atoma.schema.spec import Schema, StoreSpec

_Turn: TypeAlias = Callable[[RowImage], RowImage]


def encode_body(body: MutationBody, schema: Schema) -> bytes:
    """``body``, whose values are as columns hold them, as the bytes that are kept and sent."""
    return encode(_turned(body, schema, pack_op))


def decode_body(data: bytes, schema: Schema) -> MutationBody:
    """The mutation in ``data``, with its values as columns hold them.

    Raises:
        ProtocolError: The bytes are no encoded mutation.
    """
    return _turned(decode(data, MutationBody), schema, unpack_op)


def pack_op(op: Op, store: StoreSpec[Any] | None) -> Op:
    """``op`` as it is kept in bytes; a store that is not declared any more has nothing to pack."""
    return op if store is None or not store.packs else _with_values(op, store.pack)


def unpack_op(op: Op, store: StoreSpec[Any] | None) -> Op:
    """What :func:`pack_op` made, or a program of before."""
    return op if store is None or not store.packs else _with_values(op, store.unpack)


def _turned(body: MutationBody, schema: Schema, turn: Callable[[Op, StoreSpec[Any] | None], Op]) -> MutationBody:
    if not schema.packs:
        return body
    return replace(body, ops=tuple([turn(op, schema.stores.get(op.store)) for op in body.ops]))


def _with_values(op: Op, turn: _Turn) -> Op:
    return replace(op, values=turn(op.values), defaults=turn(op.defaults))
