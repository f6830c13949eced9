"""The operations of direct queries and writes as they travel: seen by adapters and serving only."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from atoma.contracts.execution import WriteOptions
from atoma.contracts.mutations import Op
from atoma.contracts.values import ErrorInfo

QUERY = msgspec.Meta(extra={"json": "query"})
"""Marks bytes that are an encoded query: people write it as an object in JSON."""

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
        tuples: The result of a query that lists no rows of one store: a count is one number.
        cursor: Keyset cursor of a page.
    """

    index: int
    id: str = ""
    ok: bool = True
    changed: bool = False
    version: int = 0
    row: dict[str, object] | None = None
    error: ErrorInfo | None = None
    found: Rows | None = None
    tuples: tuple[tuple[object, ...], ...] | None = None
    cursor: str = ""


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
