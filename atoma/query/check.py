"""Whether a query fits a schema: the one place that decides, for the builder, the hub, live queries and engines.

A comparison that would mean something else in SQL than in Python, because of how the field's type is stored, is refused
with what to do about it. Text with a NUL is in no row that may be written, so a comparison with it is turned into one
that asks the same of all other text, and that every engine can be sent.

A checked plan has its literals as columns store them, its order is total, and nothing in it can fail for its shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from atoma.contracts.functions import AGGREGATES, FUNCTIONS, Function
from atoma.contracts.query import (
    NULL,
    Agg,
    Call,
    Col,
    Derived,
    Exists,
    Expr,
    Join,
    Lit,
    Named,
    Order,
    Param,
    Plan,
    Scalar,
    Seek,
    Source,
    Store,
)
from atoma.errors import QueryError
from atoma.query import grouping, relating
from atoma.query.bounds import check_bounds
from atoma.query.literals import for_field, for_type, own_type
from atoma.query.scope import Readable, Scope, Stores, Typed
from atoma.query.walk import has_aggregate, is_grouped

SIGNS: Mapping[str, str] = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "in": "in_()"}
_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


def check(plan: Plan, stores: Stores) -> Plan:
    """``plan``, which holds no parameters, once it is clear that it fits the stores and keeps to the bounds.

    Raises:
        QueryError: It does not.
        UnknownStore: It reads a store that is not declared.
    """
    check_bounds(plan)
    return Checker(stores).plan(plan, ())[0]


class Checker:
    """Checks plans against declared stores.

    Args:
        stores: Finds a store by its name.
    """

    def __init__(self, stores: Stores) -> None:
        self.stores = stores

    def plan(self, plan: Plan, outer: Scope) -> tuple[Plan, dict[str, str]]:
        """``plan`` checked, and the types of its columns (none when it takes whole rows)."""
        sources, scope = self._sources(plan)
        plan = replace(plan, source=sources[0], joins=self._joins(plan, sources, scope, outer))
        within = Expressions(self, scope, outer)
        where = None if plan.where is None else within.condition(plan.where, "where")
        group = tuple([within.typed(each).expr for each in plan.group])
        columns, types = self._columns(plan, within)
        having = None if plan.having is None else within.condition(plan.having, "having", aggregates=True)
        order = tuple([self._order(each, within) for each in plan.order])
        plan = replace(plan, where=where, group=group, columns=columns, having=having, order=order)
        if is_grouped(plan):
            grouping.check_grouped(plan)
        if plan.distinct and not {each.expr for each in order} <= {named.expr for named in columns or ()}:
            raise QueryError("distinct rows are sorted by their columns: add what they are sorted by to columns()")
        plan = replace(plan, order=total_order(plan, scope))
        plan = replace(plan, seek=self._seek(plan, within))
        if plan.include:
            plan = replace(plan, include=relating.check_includes(plan, scope[0].store, self.stores, self.plan))
        return plan, types

    def _sources(self, plan: Plan) -> tuple[list[Source], Scope]:
        sources: list[Source] = []
        scope: list[Readable] = []
        optional = (False, *(join.kind == "left" for join in plan.joins))
        for source, may_miss in zip(plan.sources, optional, strict=True):
            if isinstance(source, Store):
                sources.append(source)
                scope.append(Readable(self.stores(source.name), {}, may_miss))
                continue
            inner, types = self.plan(source.query, ())
            if inner.columns is None or inner.include:
                raise QueryError("a derived table has columns: name them with columns(…)")
            sources.append(Derived(inner))
            named = {f"c{number}": types[column.name] for number, column in enumerate(inner.columns)}
            scope.append(Readable(None, named, may_miss))
        return sources, tuple(scope)

    def _joins(self, plan: Plan, sources: Sequence[Source], scope: Scope, outer: Scope) -> tuple[Join, ...]:
        made: list[Join] = []
        for number, join in enumerate(plan.joins, start=1):
            if join.kind not in ("inner", "left"):
                raise QueryError(f"a join is inner or left, not {join.kind!r}")
            on = Expressions(self, scope[: number + 1], outer).condition(join.on, "the condition of a join")
            made.append(replace(join, source=sources[number], on=on))
        return tuple(made)

    def _columns(self, plan: Plan, within: Expressions) -> tuple[tuple[Named, ...] | None, dict[str, str]]:
        if plan.columns is None:
            if plan.distinct or is_grouped(plan):
                raise QueryError("say which columns: whole rows are distinct by themselves, and groups have none")
            return None, {}
        if not plan.columns:
            raise QueryError("a query has at least one column")
        if plan.include and (plan.distinct or is_grouped(plan)):
            raise QueryError("include() goes with whole rows, not with groups or distinct rows")
        typed = [(named, within.typed(named.expr, aggregates=True)) for named in plan.columns]
        types = {named.name: found.type for named, found in typed}
        if len(types) < len(plan.columns):
            raise QueryError("two columns of a result have one name")
        return tuple([replace(named, expr=found.expr) for named, found in typed]), types

    def _order(self, order: Order, within: Expressions) -> Order:
        found = within.typed(order.expr, aggregates=True)
        within.needs(found, "order", "order_by()")
        return replace(order, expr=found.expr)

    def _seek(self, plan: Plan, within: Expressions) -> Seek | None:
        seek = plan.seek
        if seek is None:
            return None
        if not plan.order:
            raise QueryError("a query with one row has no pages")
        if len(seek.values) != len(plan.order):
            raise QueryError(f"the cursor has {len(seek.values)} values for {len(plan.order)} sort keys")
        keys = [within.typed(order.expr, aggregates=True) for order in plan.order]
        values = [within.literal(value, key) for value, key in zip(seek.values, keys, strict=True)]
        return replace(seek, values=tuple(values))


class Expressions:
    """Checks the expressions of one plan.

    Args:
        checker: Checks the plans within them.
        scope: The sources, by their numbers.
        outer: The sources around, from -1 down.
    """

    def __init__(self, checker: Checker, scope: Scope, outer: Scope) -> None:
        self._checker = checker
        self._scope = scope
        self._outer = outer

    def condition(self, expr: Expr, place: str, *, aggregates: bool = False) -> Expr:
        """``expr``, which is true, false or NULL.

        Raises:
            QueryError: It is not, or aggregates where nothing is grouped yet.
        """
        if not aggregates and has_aggregate(expr):
            raise QueryError(f"{place} looks at single rows; a condition on an aggregate belongs into having()")
        return self._of_type(self.typed(expr, aggregates=aggregates), "bool", place)

    def typed(self, expr: Expr, *, aggregates: bool = False) -> Typed:
        """``expr`` checked, with its type.

        Raises:
            QueryError: It does not fit.
        """
        match expr:
            case Lit():
                literal = for_type(expr, "any")
                return Typed(literal, literal.type)
            case Param():
                raise QueryError("a parameter without its value")
            case Col():
                return self._column(expr)
            case Call():
                return self._call(expr, aggregates)
            case Agg():
                if not aggregates:
                    raise QueryError(f"{expr.fn}() stands where nothing is grouped, or within another aggregate")
                return self._aggregate(expr)
            case Exists(query=query):
                inner, _ = self._checker.plan(query, (*self._scope, *self._outer))
                if inner.include:
                    raise QueryError("a query within another one has no include()")
                return Typed(replace(expr, query=inner), "bool")
            case Scalar(query=query):
                inner, types = self._checker.plan(query, (*self._scope, *self._outer))
                if len(types) != 1 or inner.include:
                    raise QueryError("a query that stands for a value has exactly one column")
                return Typed(replace(expr, query=inner), next(iter(types.values())).removesuffix("?") + "?")

    def _column(self, expr: Col) -> Typed:
        sources, place = (self._scope, expr.source) if expr.source >= 0 else (self._outer, -1 - expr.source)
        if place >= len(sources):
            raise QueryError(f"there is no source {expr.source} here")
        return sources[place].column(expr)

    def _call(self, call: Call, aggregates: bool) -> Typed:
        if call.fn in _MIRRORED and len(call.args) == 2:
            compared = self._compared(call)
            if compared is not None:
                return compared
        function = FUNCTIONS.get(call.fn)
        if function is None:
            raise QueryError(f"unknown operator {call.fn[:80]!r}; there are: {', '.join(FUNCTIONS)}")
        fewest = len(function.takes) - function.rest
        if len(call.args) < fewest or (len(call.args) > fewest and not function.rest):
            raise QueryError(f"{call.fn}() takes {fewest} values, not {len(call.args)}")
        call = _literal_last(call)
        wanted = (*function.takes, *[function.takes[-1]] * (len(call.args) - len(function.takes)))
        args = self._arguments(call, function, wanted[: len(call.args)], aggregates)
        same = next((arg.kind for arg, want in zip(args, wanted, strict=False) if want == "same"), "")
        found = replace(call, args=tuple([arg.expr for arg in args]))
        kind = same if function.gives == "same" else function.gives
        nulls = [arg.type == NULL or arg.type.endswith("?") for arg in args]
        nullable = {"never": False, "any": any(nulls), "all": bool(nulls) and all(nulls)}[function.nullable]
        expr = _without_nul(found, args)
        return Typed(expr, f"{kind}?" if nullable else kind)

    def _compared(self, call: Call) -> Typed | None:
        """The common case by a short way: a column beside a value; None when it is another one."""
        left, right = call.args
        if not isinstance(left, Col) or not isinstance(right, Lit):
            return None
        column = self._column(left)
        if column.field is None or column.store is None:
            return None
        self.needs(column, FUNCTIONS[call.fn].need, SIGNS[call.fn])
        literal = for_field(right, column.field, column.store)
        if type(literal.value) is str and "\x00" in literal.value:
            return None
        nullable = column.type.endswith("?") or literal.type == NULL
        return Typed(Call(call.fn, (left, literal)), "bool?" if nullable else "bool")

    def _arguments(self, call: Call, function: Function, wanted: Sequence[str], aggregates: bool) -> list[Typed]:
        """The arguments, literals in the type of what they stand beside."""
        found = [None if isinstance(arg, Lit) else self.typed(arg, aggregates=aggregates) for arg in call.args]
        if function.literal >= 0 and not isinstance(call.args[function.literal], Lit):
            raise QueryError(f"{call.fn}() takes a value, not something that is read")
        model = next((arg for arg, want in zip(found, wanted, strict=True) if arg is not None and want == "same"), None)
        if model is None and "same" in wanted:  # nothing but literals: the first that is not NULL says what they are
            known = next((arg for arg in call.args if isinstance(arg, Lit) and arg.value is not None), None)
            model = Typed(call.args[0], NULL if known is None else own_type(known))
        args: list[Typed] = []
        for arg, typed, want in zip(call.args, found, wanted, strict=True):
            if typed is None:
                assert isinstance(arg, Lit)
                expr = self.literal(arg, model) if want == "same" and model is not None else for_type(arg, want)
                args.append(Typed(expr, expr.type))
                continue
            if function.need:
                self.needs(typed, function.need, SIGNS.get(call.fn, f"{call.fn}()"))
            args.append(
                replace_expr(typed, self._of_type(typed, model.kind if want == "same" and model else want, call.fn))
            )
        return args

    def literal(self, expr: Expr, beside: Typed) -> Lit:
        """The literal ``expr`` in the type of ``beside``."""
        if not isinstance(expr, Lit):
            raise QueryError("a value is wanted, not something that is read")
        if beside.field is not None and beside.store is not None:
            return for_field(expr, beside.field, beside.store)
        return for_type(expr, "any" if beside.type == NULL else beside.kind)

    def needs(self, typed: Typed, need: str, asked: str) -> None:
        """See that a column of this type answers as Python does.

        Raises:
            QueryError: It does not; says what to declare instead.
        """
        if typed.field is None or typed.store is None:
            return
        comparisons = typed.field.comparisons
        why = {"equality": comparisons.equality, "order": comparisons.order, "text": comparisons.text}[need]
        if why:
            raise QueryError(f"{asked} cannot be asked of {typed.store.name}.{typed.field.name}: {why}")

    def _of_type(self, typed: Typed, wanted: str, place: str) -> Expr:
        if wanted not in ("any", NULL) and typed.type != NULL and typed.kind != wanted:
            raise QueryError(f"{place}: a {wanted} is wanted, and {_shown(typed)} is a {typed.kind}")
        return typed.expr

    def _aggregate(self, agg: Agg) -> Typed:
        found = AGGREGATES.get(agg.fn)
        if found is None:
            raise QueryError(f"unknown aggregate {agg.fn[:80]!r}; there are: {', '.join(AGGREGATES)}")
        where = None if agg.where is None else self.condition(agg.where, f"{agg.fn}(where=…)")
        if agg.arg is None:
            if agg.fn != "count" or agg.distinct:
                raise QueryError(f"{agg.fn}() takes a column")
            return Typed(replace(agg, where=where), "int")
        arg = self.typed(agg.arg)
        if found.need:
            self.needs(arg, found.need, f"{agg.fn}()")
        if "any" not in found.takes and arg.kind not in found.takes:
            raise QueryError(f"{agg.fn}() takes {' or '.join(found.takes)}, and {_shown(arg)} is a {arg.kind}")
        kind = arg.kind if found.gives == "same" else found.gives
        return Typed(replace(agg, arg=arg.expr, where=where), f"{kind}?" if found.empty else kind)


def replace_expr(typed: Typed, expr: Expr) -> Typed:
    """``typed`` with another expression."""
    return Typed(expr, typed.type, typed.field, typed.store)


def _shown(typed: Typed) -> str:
    if typed.field is not None and typed.store is not None:
        return f"{typed.store.name}.{typed.field.name}"
    return "what stands there"


def _literal_last(call: Call) -> Call:
    """A comparison with its literal on the right, so that there is one way to write it."""
    if call.fn in _MIRRORED and len(call.args) == 2:
        left, right = call.args
        if isinstance(left, Lit) and not isinstance(right, Lit):
            return Call(_MIRRORED[call.fn], (right, left))
    return call


def _without_nul(call: Call, args: Sequence[Typed]) -> Expr:
    """``call`` without text that no row can hold, which engines need not be able to take."""
    column = args[0] if args else None
    if column is None or column.field is None or not column.field.comparisons.any_text:
        return call
    literals = [arg.value for arg in call.args[1:] if isinstance(arg, Lit)]
    if not any(isinstance(value, str) and "\x00" in value for value in literals):
        return call
    if call.fn == "in":
        kept = [
            arg
            for arg in call.args[1:]
            if not (isinstance(arg, Lit) and isinstance(arg.value, str) and "\x00" in arg.value)
        ]
        return Call("in", (column.expr, *kept)) if kept else _no_text(column.expr)
    if call.fn == "like":
        return _no_text(column.expr)
    if call.fn in _MIRRORED:
        before = str(literals[0]).partition("\x00")[0]
        return _compared_with_nul(call.fn, column.expr, before)
    return call


def _compared_with_nul(fn: str, column: Expr, before: str) -> Expr:
    """``column fn text`` for a text that begins with ``before`` and a NUL: it stands right behind ``before``."""
    match fn:
        case "eq":
            return _no_text(column)
        case "ne":
            return Call("ge", (column, Lit("text", "")))  # every text
        case "lt" | "le":
            return Call("le", (column, Lit("text", before)))
        case _:
            return Call("gt", (column, Lit("text", before)))


def _no_text(column: Expr) -> Expr:
    """False, and unknown where the column is NULL."""
    return Call("lt", (column, Lit("text", "")))


def total_order(plan: Plan, scope: Scope) -> tuple[Order, ...]:
    """The order of ``plan`` with what decides between rows that are equal in it.

    Raises:
        QueryError: A column is named twice.
    """
    order: dict[Expr, Order] = {}
    unique = _unique(plan, scope)
    for each in plan.order:
        if each.expr in order:
            name = each.expr.name if isinstance(each.expr, Col) else "a key"
            raise QueryError(f"order_by names {name!r} twice")
        order[each.expr] = each
        if all(expr in order for expr in unique):
            return tuple(order.values())  # no two rows are equal in these: what comes behind decides nothing
    for expr in unique:
        order.setdefault(expr, Order(expr))
    return tuple(order.values())


def _unique(plan: Plan, scope: Scope) -> tuple[Expr, ...]:
    """Expressions in which no two rows of the result are equal."""
    if is_grouped(plan):
        return plan.group
    if plan.distinct:
        return tuple([named.expr for named in plan.columns or ()])
    keys: list[Expr] = []
    for number, source in enumerate(scope):
        keys += [Col(number, "id")] if source.store is not None else [Col(number, name) for name in source.types]
    return tuple(keys)
