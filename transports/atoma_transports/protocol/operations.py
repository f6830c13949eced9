"""The operations of direct queries and writes as they travel: seen by adapters and serving only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from atoma.contracts.execution import WriteOptions
from atoma.contracts.mutations import KIND_OF, Edit, Op
from atoma.contracts.values import ErrorInfo, RowImage, Scalar, StoredRow
from atoma.errors import ProtocolError
from atoma.schema.kinds import INT64_MAX, INT64_MIN

QUERY = msgspec.Meta(extra={"json": "query"})
"""Marks bytes that are an encoded query: people write it as an object in JSON."""

CELL = msgspec.Meta(extra={"json": "cell"})
"""Marks a part of a row of a result: a value, or lists of values within lists."""

OpName: TypeAlias = Literal["", "query", "insert", "update", "upsert", "delete"]


class Rows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of one result: a header once, then tuples.

    Attributes:
        columns: Column names, in the order of the values.
        rows: ``(id, version, seq, scope, value, value, …)``.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()


class RemoteOp(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One operation of a call: a query, or an operation on a row.

    Attributes:
        index: Its place in the call, from 0; answers carry it.
        name: ``query``; the other words are those of a version that spelled an operation out, field by field; none with ``op``.
        store: Store name of a query.
        id: Row id in an operation that is spelled out, as are ``scope`` to ``defaults``: they are read and never written.
        query: What to ask, as :func:`atoma_transports.protocol.plans.encode_query` encodes it.
        op: The operation on a row, whole.
    """

    index: int
    name: OpName = ""
    store: str = ""
    id: str = ""
    query: Annotated[bytes, QUERY] = b""
    scope: str = ""
    values: dict[str, object] = {}
    base_version: int | None = None
    replace: bool = False
    defaults: dict[str, object] = {}
    op: Op | None = None


class RemoteOpResult(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The answer to one operation; results may come in any order.

    Attributes:
        index: The operation's place in the call.
        id: The operation's row id.
        ok: Whether it was done.
        changed: Whether the row is different now.
        version: The row's version at the hub.
        row: Its image after the write; None when there is none, or it may not be read.
        error: Why it was refused.
        found: Rows of a query.
        tuples: The result of a query that lists no rows of one store; see :mod:`atoma_transports.protocol.tuples`. A count
            is one number.
        cursor: Keyset cursor of a page.
        columns: The columns of the rows in ``tuples``, by the number that such a row begins with.
    """

    index: int
    id: str = ""
    ok: bool = True
    changed: bool = False
    version: int = 0
    row: dict[str, object] | None = None
    error: ErrorInfo | None = None
    found: Rows | None = None
    tuples: tuple[tuple[Annotated[object, CELL], ...], ...] | None = None
    cursor: str = ""
    columns: tuple[tuple[str, ...], ...] = ()


class QueryCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request of the method ``query``: exactly one operation."""

    ops: tuple[RemoteOp, ...]
    trace_id: str = ""


class WriteCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request of the method ``write``: one unit, applied at most once per ``idem``."""

    ops: tuple[RemoteOp, ...]
    idem: str
    options: WriteOptions
    trace_id: str = ""


class ResolveCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request of the method ``resolve``: what became of the unit with this key?"""

    idem: str
    trace_id: str = ""


class ResolveReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Reply of ``resolve``.

    Attributes:
        abandoned: The unit was never applied and its key is fenced: it never will be.
        results: Otherwise the results of its operations, by index, as ``write`` answered; empty when abandoned.
    """

    abandoned: bool
    results: tuple[RemoteOpResult, ...] = ()


class OpsReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Reply of ``query`` and ``write``: one result per operation."""

    results: tuple[RemoteOpResult, ...]


OPS_MAX = 1000
KEY_COLUMNS = 4  # id, version, seq, scope precede the values of a row


def scalar(value: object) -> Scalar:
    """``value``, which a column can hold.

    Raises:
        ProtocolError: It is a list, a map, a date, NaN or an integer beyond 64 bits.
    """
    if isinstance(value, bool) or value is None or isinstance(value, str | bytes):
        return value
    if isinstance(value, int) and INT64_MIN <= value <= INT64_MAX:
        return value
    if isinstance(value, float) and not math.isnan(value):
        return value
    raise ProtocolError(f"no column can hold this {type(value).__name__}")


def image(values: Mapping[str, object]) -> RowImage:
    """``values`` as a row image.

    Raises:
        ProtocolError: A value is none that a column can hold.
    """
    return {name: scalar(value) for name, value in values.items()}


def operation(remote: RemoteOp) -> Op:
    """The operation on a row that was sent, whole or spelled out.

    Raises:
        ProtocolError: It is a query, or none, or holds a value that no column can hold.
    """
    if remote.name == "query" or remote.query:
        raise ProtocolError("a write call holds no query")
    op = remote.op
    if (op is None) == (remote.name == ""):
        raise ProtocolError(f"operation {remote.index} of a write call is none, or two")
    if op is None:
        kind = "replace" if remote.name == "upsert" and remote.replace else KIND_OF[remote.name]
        op = Op(kind, remote.store, remote.id, scope=remote.scope, base_version=remote.base_version)
        return replace(op, values=image(remote.values), defaults=image(remote.defaults))
    edits = tuple([Edit(edit.field, edit.kind, scalar(edit.operand)) for edit in op.edits])
    return replace(op, values=image(op.values), defaults=image(op.defaults), edits=edits)


def pack_rows(rows: Sequence[StoredRow]) -> Rows:
    """``rows`` with their column names said once."""
    if not rows:
        return Rows()
    columns = tuple(rows[0].image)
    return Rows(
        columns,
        tuple((row.id, row.version, row.seq, row.scope, *(row.image[name] for name in columns)) for row in rows),
    )


def unpack_rows(packed: Rows) -> tuple[StoredRow, ...]:
    """The rows that :func:`pack_rows` packed.

    Raises:
        ProtocolError: A row has another shape than its header says.
    """
    if len(set(packed.columns)) != len(packed.columns):
        raise ProtocolError("a column is named twice")
    return tuple(unpack_row(packed.columns, values) for values in packed.rows)


def unpack_row(columns: tuple[str, ...], values: Sequence[object]) -> StoredRow:
    """The row with these columns: ``(id, version, seq, scope, value, value, …)``.

    Raises:
        ProtocolError: It has another shape.
    """
    if len(values) != KEY_COLUMNS + len(columns):
        raise ProtocolError("a row has another number of values than its header")
    id, version, seq, scope, *rest = values
    if not (isinstance(id, str) and isinstance(version, int) and isinstance(seq, int) and isinstance(scope, str)):
        raise ProtocolError("a row does not begin with id, version, sequence and scope")
    return StoredRow(id, version, seq, scope, {name: scalar(value) for name, value in zip(columns, rest, strict=True)})
