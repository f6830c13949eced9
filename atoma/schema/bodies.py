"""Mutations as bytes: the values of their operations are packed; see :mod:`atoma.schema.packed`.

The bytes of a mutation never change, so one that was written under an earlier version of the schema is brought to today's where
it is read; see :mod:`atoma.schema.migrations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import MutationBody, Op
from atoma.contracts.values import RowImage
from atoma.schema.migrations import Past
from atoma.schema.spec import Schema, StoreSpec

_Turn: TypeAlias = Callable[[RowImage], RowImage]


def encode_body(body: MutationBody, schema: Schema) -> bytes:
    """``body``, whose values are as columns hold them, as the bytes that are kept and sent."""
    return encode(_turned(body, schema, pack_op))


def decode_body(data: bytes, schema: Schema) -> MutationBody:
    """The mutation in ``data`` as one of today's version, with its values as columns hold them.

    Raises:
        ProtocolError: The bytes are no encoded mutation.
        ValidationError: It was written under an earlier version, and a value cannot be converted.
    """
    body = decode(data, MutationBody)
    past = schema.past(body.schema_version)
    if past:
        return replace(body, ops=tuple([_upgraded(op, schema, past) for op in body.ops]))
    return _turned(body, schema, unpack_op)


def upgrade_op(op: Op, past: Past) -> Op:
    """``op`` as it was packed under an earlier version, as one of today's, with its values as columns hold them.

    Raises:
        ValidationError: A value cannot be converted.
    """
    return _with_values(op, lambda image: past.upgrade(past.unpack(image)))


def _upgraded(op: Op, schema: Schema, past: Mapping[str, Past]) -> Op:
    then = past.get(op.store)
    return unpack_op(op, schema.stores.get(op.store)) if then is None else upgrade_op(op, then)


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
