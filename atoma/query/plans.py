"""Plans that the runtime asks itself, and the forms by which others know them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import cast

from msgspec.structs import replace

from atoma.contracts.execution import QueryResult
from atoma.contracts.limits import IN_VALUES_MAX, PARAMETERS_BYTES_MAX
from atoma.contracts.query import Agg, BoundQuery, Call, Derived, Expr, Named, Param, Plan, Store
from atoma.errors import QueryError
from atoma.query.check import is_visible
from atoma.query.ordering import BY_ID, ID
from atoma.query.spelling import in_order
from atoma.query.walk import conjuncts, inner_plans, is_grouped, parameters, plans

COUNT = (Named("count", Agg("count")),)


@lru_cache(maxsize=1_024)
def _ids_plan(store: str, count: int, soft: bool, include_deleted: bool) -> Plan:
    among = tuple(Param(index, "text") for index in range(count))
    where: Expr = Call("eq" if count == 1 else "in", (*ID, *among))
    if soft and not include_deleted:
        where = in_order("and", (where, is_visible()))
    return Plan(Store(store, include_deleted), where=where, order=BY_ID)


def by_ids(store: str, ids: Sequence[str], *, soft: bool = False, include_deleted: bool = False) -> BoundQuery:
    """The rows with these ids that there are, by id; in normal form.

    Args:
        store: The store.
        ids: The ids.
        soft: Whether the store deletes softly; whoever answers passes over hidden rows in any case.
        include_deleted: Whether hidden rows are among them.
    """
    return BoundQuery(_ids_plan(store, len(ids), soft, include_deleted), tuple(ids))


def in_parts(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """``ids`` in their order, in so many parts that each can be asked for by :func:`by_ids`."""
    part: list[str] = []
    size = 0
    for id in ids:
        size += len(id.encode())
        if part and (len(part) == IN_VALUES_MAX or size > PARAMETERS_BYTES_MAX):
            yield tuple(part)
            part, size = [], len(id.encode())
        part.append(id)
    if part:
        yield tuple(part)


def ids_of(query: BoundQuery) -> tuple[str, ...] | None:
    """The ids when ``query`` asks for nothing but the rows of some; None otherwise."""
    places = places_of_ids(query.plan)
    if places is None:
        return None
    try:
        ids = tuple([query.params[at] for at in places])
    except IndexError:
        return None
    for id in ids:
        if not isinstance(id, str):
            return None
    return cast("tuple[str, ...]", ids)


@lru_cache(maxsize=1_024)
def places_of_ids(plan: Plan) -> tuple[int, ...] | None:
    """Which parameters are the ids in a plan that asks for nothing but the rows of some; every read wants to know it."""
    if plan.order != BY_ID or not plan.whole_rows or (plan.limit, plan.offset, plan.seek) != (None, 0, None):
        return None
    asked = [part for part in conjuncts(plan.where) if part != is_visible()]
    where = asked[0] if len(asked) == 1 else None
    if not isinstance(where, Call) or where.fn not in ("eq", "in") or where.args[:1] != ID:
        return None
    places = tuple([arg.index for arg in where.args[1:] if isinstance(arg, Param) and arg.index >= 0])
    return places if len(places) == len(where.args) - 1 else None


@lru_cache(maxsize=256)
def _every(store: str) -> Plan:
    return Plan(Store(store), order=BY_ID)


def every_row(store: str, limit: int | None = None) -> BoundQuery:
    """All rows of a store, or the first so many, by id; in normal form, but for what hides rows that were deleted softly."""
    plan = _every(store)
    return BoundQuery(plan if limit is None else replace(plan, limit=limit))


def counted(query: BoundQuery) -> BoundQuery:
    """How many rows ``query`` has, which is checked (limit, offset and cursor do not apply)."""
    whole = query.plan
    if is_grouped(whole) or whole.distinct:
        plan = Plan(Derived(replace(whole, limit=None, offset=0, seek=None)), columns=COUNT)
    else:
        plan = Plan(whole.source, whole.joins, whole.where, columns=COUNT)
    return BoundQuery(plan, query.params[: parameters(plan)])


def is_count(plan: Plan) -> bool:
    """Whether ``plan`` answers with nothing but how many rows of one store there are."""
    return plan.columns is not None and len(plan.columns) == 1 and _counts_rows(plan)


def lists_one_store(plan: Plan) -> bool:
    """Whether ``plan`` lists rows of one store, and looks at nothing else to find them."""
    return plan.whole_rows and not any(inner_plans(plan))


def looks_at_one_store(plan: Plan) -> bool:
    """Whether ``plan`` lists or counts rows of one store, and looks at nothing else to find them."""
    return lists_one_store(plan) or (is_count(plan) and not any(inner_plans(plan)))


def reads_deleted(plan: Plan) -> bool:
    """Whether ``plan`` asks for rows that were deleted softly, which a hub shows only to whom it says so."""
    return any(isinstance(source, Store) and source.hidden for each in plans(plan) for source in each.sources)


def _counts_rows(plan: Plan) -> bool:
    assert plan.columns is not None
    bare = not (plan.joins or plan.group or plan.having or plan.distinct or plan.include)
    return bare and plan.columns[0].expr == Agg("count") and isinstance(plan.source, Store)


def number_of(result: QueryResult) -> int:
    """The number that a count was answered with.

    Raises:
        QueryError: It was answered with something else.
    """
    number = result.tuples[0][0] if len(result.tuples) == 1 and len(result.tuples[0]) == 1 else None
    if not isinstance(number, int):
        raise QueryError(f"policy {result.meta.policy!r} answered a count without a number")
    return number


def listed(query: BoundQuery) -> BoundQuery:
    """The rows that a count counts."""
    plan = query.plan
    return BoundQuery(Plan(plan.source, where=plan.where, order=BY_ID), query.params)
