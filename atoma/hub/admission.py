"""Admission: mutations and values are checked against the schema before anything looks at the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from msgspec import Struct, structs

from atoma.contracts.failures import refusal
from atoma.contracts.mutations import Edit, MutationBody, Op
from atoma.contracts.sync import Conflict, Limits
from atoma.contracts.values import HIDDEN, ErrorInfo, RowImage, Scalar
from atoma.errors import AtomaError, ProtocolError, ValidationError
from atoma.mutations import columns_of, texts_joined, too_many_texts
from atoma.schema.bodies import decode_body
from atoma.schema.kinds import INT64_MAX
from atoma.schema.merging import misplaced
from atoma.schema.schema import Schema
from atoma.schema.spec import SCOPE_BYTES, StoreSpec, is_scope

ADDED_BYTES = 2_048
"""Maximum size of what a device adds to a write that it sends under another number, or to a row that it brings back: earlier names, places,
the ids of the row."""


class Refusal(Exception):
    """A final refusal inside a decision; it becomes an outcome and never leaves the hub as an exception."""

    def __init__(
        self, code: str, message: str, *, conflict: Conflict | None = None, info: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.error = refusal(code, message, info=info)
        self.conflict = conflict

    @classmethod
    def of(cls, error: ErrorInfo) -> Refusal:
        """Return the refusal that ``error`` describes."""
        refused = cls(error.code, error.message)
        refused.error = error
        return refused


class CheckedMutation(Struct, frozen=True, gc=False):
    """A mutation that can be decided.

    Attributes:
        body: The mutation as it came.
        ops: Its operations as :func:`check_op` returns them.
    """

    body: MutationBody
    ops: tuple[Op, ...]


async def admit(mid: int, body: bytes, schema: Schema, limits: Limits) -> CheckedMutation:
    """Decode and check the bytes of mutation ``mid``; others get their turn before each text, which takes some milliseconds.

    Raises:
        Refusal: ``INVALID`` or ``TOO_LARGE``.
    """
    excess = len(body) - limits.mutation_bytes
    if excess > ADDED_BYTES:
        raise _too_large(mid, body, limits)
    try:
        mutation = decode_body(body, schema)
    except (ProtocolError, ValidationError) as error:
        raise Refusal("INVALID", f"mutation {mid} cannot be read: {error}") from None
    if excess > 0 and mutation.origin is None and mutation.recovers is None:
        raise _too_large(mid, body, limits)
    if mutation.mid != mid:
        raise Refusal("INVALID", f"mutation {mid} carries the number {mutation.mid}")
    if not 0 <= mutation.base_seq <= INT64_MAX:
        raise Refusal("INVALID", f"mutation {mid} has the base sequence {mutation.base_seq}")
    if len(mutation.ops) > limits.mutation_ops:
        raise Refusal(
            "TOO_LARGE", f"mutation {mid} has {len(mutation.ops)} operations, the limit is {limits.mutation_ops}"
        )
    wrong = too_many_texts(mutation.ops, schema)
    if wrong:
        raise Refusal("TOO_LARGE", f"mutation {mid}: {wrong}")
    check_scope(mutation.scope)
    if mutation.schema_version > schema.version:
        return CheckedMutation(mutation, ())  # whoever decides stops there: the hub is older than the client
    for op in mutation.ops:
        _check_order(op, mutation)
        if op.awaits_id:
            raise Refusal(
                "INVALID", f"{op.store[:80]}: only a direct write can make a row without an id, not a pushed one"
            )
    ops: list[Op] = []
    for op in mutation.ops:
        if texts_joined(op, check_store(op.store, schema)):
            await trio.lowlevel.checkpoint()
        ops.append(check_op(op, mutation.scope, schema))
    return CheckedMutation(mutation, tuple(ops))


def _too_large(mid: int, body: bytes, limits: Limits) -> Refusal:
    return Refusal("TOO_LARGE", f"mutation {mid} has {len(body)} bytes, the limit is {limits.mutation_bytes}")


def check_scope(scope: str) -> None:
    """Refuse a name that no scope can have."""
    if not is_scope(scope):
        raise Refusal("INVALID", f"a scope's name must have 1 to {SCOPE_BYTES} bytes and no NUL")


def check_store(name: str, schema: Schema) -> StoreSpec[Any]:
    """The store of that name."""
    store = schema.stores.get(name)
    if store is None:
        raise Refusal("INVALID", f"the hub has no store {name[:80]!r}")
    return store


def check_id(store: StoreSpec[Any], id: str, *, new: bool = False) -> str:
    """``id`` if it can be a key, and a ``new`` one of this store."""
    try:
        return store.check_id(id, new=new)
    except AtomaError as error:
        raise Refusal("INVALID", str(error)) from None


def check_values(store: StoreSpec[Any], values: Mapping[str, object]) -> RowImage:
    """``values`` in canonical form.

    Raises:
        Refusal: An unknown column, the id, or a value that the column cannot hold.
    """
    return {name: canonical(store, name, value) for name, value in values.items()}


def canonical(store: StoreSpec[Any], name: str, value: object) -> Scalar:
    """The one stored form of ``value`` for a column.

    Raises:
        Refusal: No such column, or it cannot hold the value.
    """
    if name not in store.fields or name == "id":
        raise Refusal("INVALID", f"store {store.name!r} has no column {name[:80]!r} to write")
    if value is not None and not isinstance(value, (bool, int, float, str, bytes)):
        raise Refusal("INVALID", f"{store.name}.{name}: a {type(value).__name__} is not a column value")
    try:
        return store.canonical(name, value)
    except AtomaError as error:
        raise Refusal("INVALID", str(error)) from None


def complete(store: StoreSpec[Any], id: str, values: RowImage) -> RowImage:
    """``values`` with the model's defaults for columns they lack: written by a client with an older schema.

    Raises:
        Refusal: A column without a default is missing.
    """
    if tuple(values) == store.value_columns:
        return dict(values)
    if HIDDEN not in values:
        values = store.unhidden(values)
    if store.sets.at_hub:  # something to stand there until it is set
        values = {**store.sets.stamped(None, store.fields, 0), **values}
    missing = [name for name in store.value_columns if name not in values]
    added: RowImage = {}
    if missing:
        try:
            item: object = store.decode(id, values)
            added = {name: store.fields[name].encode(getattr(item, name)) for name in missing}
        except (AtomaError, TypeError, ValueError, AttributeError):
            raise Refusal("INVALID", f"a row of {store.name!r} needs {', '.join(missing)}") from None
    return {name: values[name] if name in values else added[name] for name in store.value_columns}


def place(store: StoreSpec[Any], values: RowImage, scope: str) -> RowImage:
    """``values`` without the scope field, once it is clear that they belong to ``scope``.

    Raises:
        Refusal: They belong to another scope.
    """
    if store.scope_field is None:
        if store.fixed_scope != scope:
            raise Refusal("INVALID", f"rows of {store.name!r} belong to scope {store.fixed_scope!r}")
        return values
    if values.get(store.scope_field, scope) != scope:
        raise Refusal(
            "INVALID",
            f"{store.name}.{store.scope_field} names a different scope than the mutation; a row never moves to another scope",
        )
    return {name: value for name, value in values.items() if name != store.scope_field}


def whole(store: StoreSpec[Any], id: str, values: RowImage, scope: str) -> RowImage:
    """The complete image of a new row in ``scope``.

    Raises:
        Refusal: A column is missing.
    """
    field = store.scope_field
    placed = values if field is None else {**values, field: canonical(store, field, scope)}
    return complete(store, id, placed)


def check_new_id(store: StoreSpec[Any], op: Op) -> str:
    """The id of ``op``; ``""`` for one that is to be drawn here."""
    return (
        ""
        if op.awaits_id and store.sets.ids
        else check_id(store, op.id, new=op.kind in ("create", "replace", "upsert"))
    )


def check_op(op: Op, scope: str, schema: Schema) -> Op:
    """Return ``op`` with values in canonical form, and with its scope.

    The values of create and replace are the complete image. Those of patch and upsert, and the defaults, never hold the scope
    field.

    Raises:
        Refusal: A name, a type or a value does not fit the schema, or the row would belong to another scope.
    """
    store = check_store(op.store, schema)
    id = check_new_id(store, op)
    if op.kind == "delete" and (op.values or op.defaults):
        raise Refusal("INVALID", "a delete has no values")
    values = place(store, check_values(store, op.values), scope)
    defaults = place(store, check_values(store, op.defaults), scope)
    if op.kind in ("create", "replace"):
        values = whole(store, id, values, scope)
    edits = _check_edits(op, store) if op.edits else ()
    return structs.replace(op, id=id, values=values, defaults=defaults, scope=scope, edits=edits)


def _check_edits(op: Op, store: StoreSpec[Any]) -> tuple[Edit, ...]:
    """The edits of ``op`` with operands in canonical form.

    Raises:
        Refusal: They do not fit the operation or the schema.
    """
    if op.kind not in ("patch", "upsert"):
        raise Refusal("INVALID", f"a {op.kind} has no edits")
    wrong = next(misplaced(store.fields, store.merging, op.edits), "")
    columns = (name for edit in op.edits for name in columns_of(edit))
    wrong = wrong or next((f"{name} is written and edited" for name in columns if name in op.values), "")
    if wrong:
        raise Refusal("INVALID", f"{op.store}: {wrong}")
    return tuple([Edit(edit.field, edit.kind, _operand(store, edit)) for edit in op.edits])


def _operand(store: StoreSpec[Any], edit: Edit) -> Scalar:
    if not isinstance(edit.operand, (bool, int, float, str, bytes)):
        raise Refusal("INVALID", f"{store.name}.{edit.field}: a {type(edit.operand).__name__} is not a column value")
    try:
        return store.canonical(edit.field, edit.operand, literal=True)
    except AtomaError as error:
        raise Refusal("INVALID", str(error)) from None


def _check_order(op: Op, mutation: MutationBody) -> None:
    if op.after_mid < 0 or op.after_mid >= mutation.mid:
        raise Refusal("INVALID", f"an operation of mutation {mutation.mid} depends on mutation {op.after_mid}")
