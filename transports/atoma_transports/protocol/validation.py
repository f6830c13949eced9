"""What is refused before anybody looks at it: values no column can hold, rows of another shape than they say."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec.structs import replace

from atoma.contracts.mutations import Op, OpKind
from atoma.contracts.values import RowImage, Scalar, StoredRow
from atoma.errors import ProtocolError
from atoma.schema.kinds import INT64_MAX, INT64_MIN
from atoma_transports.protocol.operations import OpName, RemoteOp, Rows

OPS_MAX = 1000
KINDS: dict[OpName, OpKind] = {"insert": "create", "update": "patch", "upsert": "upsert", "delete": "delete"}
"""What the words of an operation that is spelled out mean."""
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
        kind = "replace" if remote.name == "upsert" and remote.replace else KINDS[remote.name]
        op = Op(kind, remote.store, remote.id, scope=remote.scope, base_version=remote.base_version)
        return replace(op, values=image(remote.values), defaults=image(remote.defaults))
    return replace(op, values=image(op.values), defaults=image(op.defaults))


def pack_rows(rows: tuple[StoredRow, ...]) -> Rows:
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
    return tuple(_unpack_row(packed.columns, values) for values in packed.rows)


def _unpack_row(columns: tuple[str, ...], values: tuple[object, ...]) -> StoredRow:
    if len(values) != KEY_COLUMNS + len(columns):
        raise ProtocolError("a row has another number of values than its header")
    id, version, seq, scope, *rest = values
    if not (isinstance(id, str) and isinstance(version, int) and isinstance(seq, int) and isinstance(scope, str)):
        raise ProtocolError("a row does not begin with id, version, sequence and scope")
    return StoredRow(id, version, seq, scope, {name: scalar(value) for name, value in zip(columns, rest, strict=True)})
