"""A query as it travels: one value of MessagePack, ``[version, plan, params]``; in JSON an object of these names."""

from __future__ import annotations

from typing import cast

import msgspec

from atoma.contracts.query import PLAN_VERSION, BoundQuery, Plan
from atoma.errors import ProtocolError, RemoteError

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw, tuple[object, ...]]).decode
_decode_plan = msgspec.msgpack.Decoder(Plan).decode


def encode_query(query: BoundQuery) -> bytes:
    """``query`` as bytes."""
    return _encode((PLAN_VERSION, query.plan, query.params))


def decode_query(data: bytes) -> BoundQuery:
    """The query that :func:`encode_query` encoded; it still has to be checked.

    Raises:
        ProtocolError: It is none.
        RemoteError: ``UNSUPPORTED``: it is of another version.
    """
    try:
        version, plan, params = _decode(data)
        if version != PLAN_VERSION:
            raise RemoteError(
                f"plans of version {version} are not known here, only of version {PLAN_VERSION}",
                remote_code="UNSUPPORTED",
            )
        return BoundQuery(_decode_plan(plan), params)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"malformed query: {error}") from None


def to_plain(data: bytes) -> dict[str, object]:
    """The encoded query as an object of plain values."""
    version, plan, params = cast("tuple[object, object, object]", msgspec.msgpack.decode(data))
    return {"version": version, "plan": plan, "params": params}


def from_plain(value: dict[str, object]) -> bytes:
    """The object as an encoded query; ``version`` and ``params`` may be left out.

    Raises:
        ProtocolError: It has other fields, or no plan.
    """
    unknown = value.keys() - {"version", "plan", "params"}
    if unknown or "plan" not in value:
        raise ProtocolError("a query is an object with a plan, and perhaps its version and params")
    return _encode((value.get("version", PLAN_VERSION), value["plan"], value.get("params", [])))
