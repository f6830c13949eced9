"""Keyset cursors: an opaque text that stands for a row in an order, and leads on from it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from atoma.contracts.query import BoundQuery, Plan, Seek
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.query.compiled import sort_values
from atoma.query.describe import describe_order, describe_sources
from atoma.query.literals import as_stored

R = TypeVar("R")


def cursor_of(query: BoundQuery, row: StoredRow) -> str:
    """The cursor that stands for ``row`` in the order of ``query``, a checked plan of whole rows."""
    return encode_cursor(query, sort_values(query, row))


def encode_cursor(query: BoundQuery, values: Sequence[object]) -> str:
    """The cursor that stands for the row whose sort keys are ``values``."""
    raw = msgspec.msgpack.encode((describe_sources(query.plan), describe_order(query), values))
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_cursor(cursor: str, query: BoundQuery) -> tuple[object, ...]:
    """The values of the sort keys that ``cursor`` holds.

    Raises:
        QueryError: It is damaged, or belongs to a query of other rows, or with another order; says whose it is.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        sources, names, values = msgspec.msgpack.decode(raw, type=tuple[str, list[str], list[object]])
    except (ValueError, msgspec.DecodeError):
        raise QueryError(_DAMAGED, hint=_WHERE_FROM) from None
    own = (describe_sources(query.plan), describe_order(query))
    if (sources, names) != own:
        raise QueryError(
            f"the cursor belongs to {_whose(sources, names)}, and this is {_whose(*own)}", hint=_WHERE_FROM
        )
    if len(values) != len(query.plan.order):
        raise QueryError(_DAMAGED, hint=_WHERE_FROM)
    for value in values:
        if value is not None and not isinstance(value, (bool, int, float, str, bytes)):
            raise QueryError(_DAMAGED, hint=_WHERE_FROM)
    return tuple(values)


_DAMAGED = "the cursor is damaged"
_WHERE_FROM = "take it from a page of the same query"


def _whose(sources: str, order: Sequence[str]) -> str:
    return f"a query of {sources[:200]} ordered by {', '.join(order)[:200]}"


def seek(plan: Plan, values: Sequence[object], *, forward: bool = True) -> Plan:
    """``plan``, to be checked, going on behind the row whose sort keys are ``values``."""
    return replace(plan, seek=Seek(tuple(map(as_stored, values)), forward))


def page_of(plan: Plan, found: Sequence[R]) -> tuple[Sequence[R], bool]:
    """The page of ``plan``, and whether its result goes on.

    Args:
        plan: The plan.
        found: What it has found, from its cursor on, with one row beyond its limit where there are more.
    """
    more = plan.limit is not None and len(found) > plan.limit
    page = found[: plan.limit] if more else found
    return page[::-1] if plan.backward else page, more
