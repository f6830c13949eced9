"""The planner of live queries: the tier, the reason, and the values of a changed row by which a view is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial

from atoma.contracts.query import BoundQuery, Call, Expr, Plan, Store
from atoma.contracts.raw import Question, RawReads, SqlQuery
from atoma.contracts.values import HIDDEN
from atoma.errors import QueryError
from atoma.ports.live import Ask, ResultRow
from atoma.query.compiled import condition
from atoma.query.functions import MEANINGS
from atoma.query.normal import rebind, with_values
from atoma.query.walk import expressions, is_grouped, stores_of, top_expressions
from atoma.schema import Schema
from atoma_stores.changes import BeforeAfter
from atoma_stores.live.index import ANY_ROW, Needs, needs_of
from atoma_stores.live.links import Links, Unlinked, beside_of, columns_of, links_of, looks_elsewhere, reaches
from atoma_stores.live.operators.assembled import Assembled
from atoma_stores.live.operators.assembled_groups import AssembledGroups
from atoma_stores.live.operators.function import FunctionOperator
from atoma_stores.live.operators.grouped import Grouped
from atoma_stores.live.operators.grouping import Grouping
from atoma_stores.live.operators.listing import Listing, ListingShape
from atoma_stores.live.operators.operator import Operator
from atoma_stores.live.operators.rerun import ChangeTest, Rerun
from atoma_stores.live.rows import by_all_of_it, key_of_rows, tells_its_keys


@dataclass(frozen=True, slots=True)
class Planned:
    """The way in which one query is followed.

    Attributes:
        operator: The operator that keeps its result up to date.
        needs: The values of each store's rows by which its view is found.
        tier: 0: in Python, from the changed rows. 1: the parts that depend on changed rows are read again. 2: the query is run
            again when a change may concern it.
        reason: The reason for the tier, in words.
    """

    operator: Operator
    needs: Mapping[str, Needs]
    tier: int
    reason: str


def checked(query: BoundQuery, schema: Schema) -> BoundQuery:
    """Return ``query`` in normal form.

    Raises:
        QueryError: It does not fit the schema.
        UnknownStore: It reads a store that is not declared.
    """
    return rebind(query, schema.store)


def plan_view(query: BoundQuery, schema: Schema, least: int = 0) -> Planned:
    """Plan how ``query``, which was checked, is followed.

    Args:
        query: The query.
        schema: The declared stores.
        least: The lowest tier that may be taken.
    """
    if least > 1:
        return asked_again(query, "that was chosen")
    plan = query.plan
    unfit = "" if plan.columns is None or is_grouped(plan) or plan.distinct or tells_its_keys(query) else _NO_KEYS
    if plan.distinct and is_grouped(plan):
        unfit = "its groups are compared with each other"
    if unfit:
        return asked_again(query, unfit)
    foreign = "that was chosen" if least > 0 else _beyond_one_store(plan) or _beyond_python(plan)
    try:
        return _in_python(query, schema) if not foreign else _in_parts(query, schema, foreign, keep=not least)
    except Unlinked as why:
        return asked_again(query, str(why))
    except QueryError as error:
        return asked_again(query, f"what its groups are made of cannot be asked for: {error}")


_NO_KEYS = "its columns do not tell its rows apart"


def _in_python(query: BoundQuery, schema: Schema) -> Planned:
    """Plan ``query``, which is about one store, to be followed from the changed rows alone."""
    plan, needs = query.plan, needs_of(query)
    operator: Operator
    if plan.distinct or is_grouped(plan):
        grouping = Grouping(query, schema)
        operator, kept = Grouped(query.store, grouping), _kept(grouping)
    else:
        operator = Listing(ListingShape(query, schema.store(query.store)), query.params)
        kept = "all rows are kept" if plan.limit is None else f"{plan.limit} rows and a few behind them are kept"
    return Planned(operator, {query.store: needs}, 0, f"follows the changed rows in Python; {kept}; found by {needs}")


def _kept(grouping: Grouping) -> str:
    kept = "the different rows are counted" if grouping.plan.distinct else "the groups are kept"
    least = any(grouping.is_extreme(number) for number in range(len(grouping.aggregates)))
    return kept + (", each with its extreme values" if least else "")


def _in_parts(query: BoundQuery, schema: Schema, why: str, *, keep: bool) -> Planned:
    """Plan ``query`` to be followed by reading the parts again that depend on changed rows, unless these can be updated.

    Raises:
        Unlinked: These parts cannot be found.
    """
    plan = query.plan
    operator: Operator
    if plan.distinct or is_grouped(plan):
        grouping = Grouping(query, schema)
        links = links_of(grouping.bindings)
        operator, kept = AssembledGroups(grouping, links, schema), _kept(grouping)
    else:
        links = links_of(with_values(query))  # equal expressions compare equal, whatever their numbers
        operator = Assembled(query, links, schema, keep=keep)
        kept = "all rows are kept" if plan.limit is None else f"{plan.limit} rows and a few behind them are kept"
    needs = _needs_of_links(query, links, {} if isinstance(operator, AssembledGroups) else beside_of(links))
    found = ", ".join(f"{name} by {each}" for name, each in needs.items())
    if isinstance(operator, Assembled) and operator.keeping.is_whole:
        how = (
            "follows the changed rows in Python, those beside them too, and reads what stands beside rows that come in"
        )
        return Planned(operator, needs, 0, f"{how}; {kept}; found in {found}")
    return Planned(operator, needs, 1, f"reads again what is made of changed rows: {why}; {kept}; found in {found}")


def _needs_of_links(query: BoundQuery, links: Links, beside: Mapping[str, str]) -> dict[str, Needs]:
    """Return the values of each store's rows by which a view that reads them through ``links`` is found.

    Args:
        query: The query of the view.
        links: The places where it reads rows.
        beside: The stores whose rows find it by the rows that it has; see ``beside_of``.
    """
    read = Counter(link.store for link in links)
    needs = dict.fromkeys(read, ANY_ROW) | {name: Needs((own,), beside=True) for name, own in beside.items()}
    wanted = needs_of(query)
    for link in links:
        if read[link.store] > 1:
            continue
        if link.parent is None:
            needs[link.store] = wanted
        elif link.parent is links[0] and wanted.columns == (link.above,):
            needs[link.store] = replace(wanted, columns=(link.own,))  # a row that another one refers to has its value
    return needs


def _beyond_one_store(plan: Plan) -> str:
    """Return why the result of ``plan`` is not made of the rows of one store, each by itself or in groups; ``""`` if it is."""
    if plan.joins or plan.include:
        return "its rows are made of more than one"
    return "" if isinstance(plan.source, Store) else "it reads another plan"


def plan_function(body: Callable[[Ask], Coroutine[object, object, object]], schema: Schema) -> Planned:
    """Plan how the value of a function is followed: it runs again when a change concerns what it has read.

    Args:
        body: Makes its coroutine.
        schema: The declared stores.
    """

    def followed(question: Question, reads: RawReads) -> tuple[Mapping[str, object], Operator]:
        if isinstance(question, SqlQuery):
            planned = plan_statement(question, reads, schema)
        else:
            planned = asked_again(checked(question, schema), "a function has read it")
        return planned.needs, planned.operator

    needs = dict.fromkeys(schema.stores, ANY_ROW)
    return Planned(FunctionOperator(body, followed), needs, 2, "carried out again when what it has read changes")


def asked_again(query: BoundQuery, why: str, rows: tuple[ResultRow, ...] | None = None) -> Planned:
    """Plan ``query`` to be run again whenever a change may concern it.

    Args:
        query: The query.
        why: The reason why it is not followed at a lower cost.
        rows: The result that was last reported; None before the first time.
    """
    plan = query.plan
    read = Counter(stores_of(plan))
    tests: dict[str, ChangeTest | None] = dict.fromkeys(read, _by_columns(plan))
    needs = dict.fromkeys(read, ANY_ROW)
    source = plan.source
    if isinstance(source, Store) and read[source.name] == 1:  # the plan itself says what its rows must have
        needs[source.name] = needs_of(query)
        if len(read) == 1 and not _beyond_python(Plan(source, where=plan.where)):
            tests[source.name] = _by_condition(query)
    return Planned(Rerun(query, key_of_rows(plan), tests, rows), needs, 2, f"asked again: {why}")


def plan_statement(query: SqlQuery, reads: RawReads, schema: Schema) -> Planned:
    """Plan how a program's own statement is followed: it is run again when a change reaches what it reads.

    Args:
        query: The statement.
        reads: The stores that it reads, and the fields.
        schema: The declared stores.
    """
    tests: dict[str, ChangeTest | None] = {}
    for name, fields in reads.items():
        hidden = {HIDDEN} if schema.store(name).soft_delete else set[str]()  # the field of rows that it does not see
        tests[name] = partial(reaches, columns=fields | hidden)
    read = [f"{name} ({', '.join(sorted(fields))})" if fields else name for name, fields in sorted(reads.items())]
    why = f"asked again: it is SQL of a program's own, which reads {', '.join(read) or 'no store'}"
    return Planned(Rerun(query, by_all_of_it, tests), dict.fromkeys(reads, ANY_ROW), 2, why)


def _by_columns(plan: Plan) -> ChangeTest | None:
    """Make the test whether a change reaches a column that ``plan`` reads; None if every change does."""
    columns = columns_of(plan)
    return None if columns is None else lambda change: reaches(change, columns)


def _by_condition(query: BoundQuery) -> ChangeTest:
    """Make the test whether a changed row matches ``query``, or did before, in a column that it reads."""
    fits, columns = condition(query.plan.where, query.params), columns_of(query.plan)

    def concerns(change: BeforeAfter) -> bool:
        old, new = change
        fitting = (old is not None and fits(old)) or (new is not None and fits(new))
        return bool(fitting) and reaches(change, columns)

    return concerns


def _beyond_python(plan: Plan) -> str:
    """Return why the expressions of ``plan`` cannot be evaluated on a row in Python; ``""`` if they can."""
    for place, top in top_expressions(plan):
        for expr in expressions(top):
            why = _beyond(expr)
            if why:
                return f"{place} {why}"
    return ""


def _beyond(expr: Expr) -> str:
    match expr:
        case Call(fn=fn) if fn not in MEANINGS:
            return f"calls {fn}(), which SQLite alone knows"
        case _:
            return "looks at more than one row" if looks_elsewhere(expr) else ""
