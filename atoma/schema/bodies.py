"""Mutations as bytes: the values of their operations are packed; see :mod:`atoma.schema.packed`.

The bytes of a mutation never change, so one that was written under an earlier version of the schema is brought to today's where
it is read; see :mod:`atoma.schema.migrations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import Edit, MutationBody, Op
from atoma.contracts.values import RowImage
from atoma.errors import ValidationError
from atoma.schema.migrations import Past
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec

_Turn: TypeAlias = Callable[[RowImage], RowImage]


def encode_body(body: MutationBody, schema: Schema) -> bytes:
    """``body``, whose values are as columns hold them, as the bytes that are kept and sent."""
    return encode(_turned(body, schema, pack_op))


def decode_body(data: bytes, schema: Schema) -> MutationBody:
    """The mutation in ``data`` as one of today's version, with its values as columns hold them.

    Raises:
        ProtocolError: The bytes are not an encoded mutation.
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
    turned = _with_values(replace(op, edits=()), lambda image: past.upgrade(past.unpack(image)))
    return replace(turned, edits=tuple(_upgraded_edits(op, past))) if op.edits else turned


def _upgraded_edits(op: Op, past: Past) -> Iterator[Edit]:
    """The edits of fields that are still there, by their names of today; of one that was converted an edit says nothing."""
    for edit in op.edits:
        for name in past.names((edit.field,)):
            if past.converts(edit.field):
                message = (
                    f"{op.store}.{edit.field} was changed by {edit.kind!r}, and its values have been converted since"
                )
                raise ValidationError(message, store=op.store, field=edit.field)
            yield Edit(name, edit.kind, past.unpack({edit.field: edit.operand})[edit.field])


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
    edits = tuple([Edit(edit.field, edit.kind, turn({edit.field: edit.operand})[edit.field]) for edit in op.edits])
    return replace(op, values=turn(op.values), defaults=turn(op.defaults), edits=edits)
