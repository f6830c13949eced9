"""Expressions of a plan: each gets its type, and its literals the form in which columns store them.

A comparison that would mean something else in SQL than in Python, because of how the field's type is stored, is refused
with what to do about it. Text with a NUL is in no row that may be written, so a comparison with it is turned into one
that asks the same of all other text, and that every engine can be sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from msgspec.structs import replace

from atoma.contracts.functions import AGGREGATES, FUNCTIONS, Function, family
from atoma.contracts.query import NULL, Agg, Call, Col, Exists, Expr, Lit, Param, Plan, Scalar
from atoma.errors import QueryError
from atoma.query.functions import MEANINGS
from atoma.query.literals import for_field, for_type, own_type
from atoma.query.nul import has_nul, without_nul
from atoma.query.rounding import whole_number
from atoma.query.scope import ReadableSources, Typed, TypedColumns
from atoma.query.spelling import MIRRORED, begins_with, in_order, value_last
from atoma.schema.decimals import BARE_DECIMALS
from atoma.schema.documents import DOCUMENTS
from atoma.schema.fields import Field
from atoma.schema.kinds import Comparisons
from atoma.schema.spec import AnyStore

CheckPlan: TypeAlias = Callable[[Plan, ReadableSources], tuple[Plan, TypedColumns]]
"""Checks a plan with the sources around it; gives its columns, too."""

SIGNS: Mapping[str, str] = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "in": "in_()"}

_UNNAMED: Mapping[str, Comparisons] = MappingProxyType({"decimal": BARE_DECIMALS, "json": DOCUMENTS})
"""What can be asked of values that come from no column at hand, by their type; of the others everything."""


class Expressions:
    """A checker of the expressions of one plan.

    Args:
        check_plan: Checks the plans within them.
        scope: The sources, by their numbers.
        outer: The sources around, from -1 down.

    Attributes:
        aggregated: Whether one that was checked so far aggregates.
    """

    __slots__ = ("_check_plan", "_columns", "_outer", "_scope", "aggregated")

    def __init__(self, check_plan: CheckPlan, scope: ReadableSources, outer: ReadableSources) -> None:
        self._check_plan = check_plan
        self._scope = scope
        self._outer = outer
        self._columns: dict[Col, Typed] = {}
        self.aggregated = False

    def at(self, place: str, expr: Expr, *, alone: str = "") -> Typed:
        """The expression that stands at ``place``, checked; see :meth:`typed`."""
        try:
            return self.typed(expr, alone)
        except QueryError as error:
            error.within(place)
            raise

    def condition(self, place: str, expr: Expr, *, alone: str = "") -> Expr:
        """The condition that stands at ``place``, checked; see :meth:`typed`.

        Raises:
            QueryError: It is none, or does not fit.
        """
        try:
            return _of_type(self.typed(expr, alone), "bool")
        except QueryError as error:
            error.within(place)
            raise

    def typed(self, expr: Expr, alone: str = "") -> Typed:
        """``expr`` checked, with its type.

        Args:
            expr: The expression.
            alone: What it is, when it looks at rows one by one, so that it may not aggregate; ``""`` when it may.

        Raises:
            QueryError: It does not fit.
        """
        match expr:
            case Call():
                return self._call(expr, alone)
            case Col():
                return self._column(expr)
            case Lit():
                literal = for_type(expr, "any")
                return Typed(literal, literal.type)
            case Param():
                raise QueryError("a parameter without its value")
            case Agg():
                try:
                    return self._aggregate(expr, alone)
                except QueryError as error:
                    if not error.path:
                        error.within(expr.fn[:80])
                    raise
            case Exists(query=query):
                inner, _ = self._within("exists", query)
                return Typed(replace(expr, query=inner), "bool")
            case Scalar(query=query):
                inner, types = self._within("scalar", query)
                if len(types) != 1:
                    raise QueryError("a query that stands for a value has exactly one column", path="scalar")
                (found,) = types.values()
                return Typed(replace(expr, query=inner), f"{found.kind}?", found.field, found.store)

    def _within(self, place: str, query: Plan) -> tuple[Plan, TypedColumns]:
        try:
            inner, types = self._check_plan(query, (*self._scope, *self._outer))
            if inner.include:
                raise QueryError("a query within another one has no include()")
        except QueryError as error:
            error.within(place)
            raise
        return inner, types

    def _column(self, expr: Col) -> Typed:
        found = self._columns.get(expr)
        if found is None:
            sources, place = (self._scope, expr.source) if expr.source >= 0 else (self._outer, -1 - expr.source)
            if place >= len(sources):
                raise QueryError(f"there is no source {expr.source} here")
            found = self._columns[expr] = sources[place].column(expr)
        return found

    def _call(self, call: Call, alone: str) -> Typed:
        try:
            if call.fn in MIRRORED and len(call.args) == 2:
                if type(call.args[0]) is Lit:
                    call = value_last(call)
                left, right = call.args
                if type(left) is Col and type(right) is Lit:
                    compared = self._compared(call.fn, left, right)
                    if compared is not None:
                        return compared
            return self._called(call, alone)
        except QueryError as error:
            if not error.path:
                error.within(call.fn[:80])
            raise

    def _compared(self, fn: str, left: Col, right: Lit) -> Typed | None:
        """The common case by a short way, a column of a store beside a value; None when it is another one."""
        column = self._columns.get(left) or self._column(left)
        if column.field is None:
            return None
        need = FUNCTIONS[fn].need
        if getattr(column.field.comparisons, need):
            needs(column, need, fn)
        literal = self._beside(right, column, fn)
        if type(literal.value) is str and has_nul(literal):
            return None
        call = Call(fn, (left, literal))
        return Typed(call, "bool" if literal.type != NULL and column.type[-1] != "?" else "bool?")

    def _called(self, call: Call, alone: str) -> Typed:
        function = FUNCTIONS.get(call.fn)
        if function is None:
            raise QueryError(f"unknown operator {call.fn[:80]!r}; there are: {', '.join(FUNCTIONS)}")
        fewest, count = len(function.takes) - function.rest, len(call.args)
        if count < fewest or (count > fewest and not function.rest):
            raise QueryError(f"{call.fn}() takes {fewest} values, not {count}")
        if function.takes == ("bool",):
            return self._joined(call, function, alone)
        wanted = (*function.takes, *[function.takes[-1]] * (count - len(function.takes)))[:count]
        args = self._arguments(call, function, wanted, alone)
        alike = [arg for arg, want in zip(args, wanted, strict=True) if want == "same"]
        same = next((arg.kind for arg in alike if arg.type != NULL), NULL) if alike else ""
        if function.among and family(same) not in (*function.among, NULL):
            raise _not_among(call.fn, function, next(arg for arg in alike if arg.type != NULL))
        found = Call(call.fn, tuple([arg.expr for arg in args]))
        kind = same if function.gives == "same" else function.gives
        if function.gives != "bool" and all(type(arg) is Lit for arg in found.args):
            return _computed(found, kind)
        expr = without_nul(found, args)
        if expr is found and call.fn == "starts" and args[0].field is not None:
            expr = begins_with(found)
        nullable = _may_be_null(function, args, alike, kind)
        field, store = _origin(alike) if function.gives == "same" and not function.among else (None, None)
        return Typed(expr, f"{kind}?" if nullable and kind != NULL else kind, field, store)

    def _joined(self, call: Call, function: Function, alone: str) -> Typed:
        """Conditions joined to one: the common case of a function, by a short way."""
        args: list[Expr] = []
        nullable = False
        for number, arg in enumerate(call.args):
            if type(arg) is Lit:
                typed = Typed(for_type(arg, "bool"), "bool" if arg.value is not None else NULL)
            else:
                typed = self._argument(call, number, arg, alone)
            if typed.type != "bool":
                nullable = True
                _of_type(typed, "bool")
            args.append(typed.expr)
        return Typed(in_order(call.fn, args), "bool?" if nullable else "bool")

    def _argument(self, call: Call, number: int, arg: Expr, alone: str) -> Typed:
        if type(arg) is Col:
            return self._column(arg)
        try:
            return self._call(arg, alone) if type(arg) is Call else self.typed(arg, alone)
        except QueryError as error:
            error.within(f"{call.fn}[{number}]")
            raise

    def _arguments(self, call: Call, function: Function, wanted: Sequence[str], alone: str) -> list[Typed]:
        """The arguments, literals in the type of what they stand beside."""
        found = [
            None if isinstance(arg, Lit) else self._argument(call, number, arg, alone)
            for number, arg in enumerate(call.args)
        ]
        if not all(isinstance(call.args[at], Lit) for at in function.literals):
            raise QueryError(f"{call.fn}() takes a value, not something that is read")
        model = next((arg for arg, want in zip(found, wanted, strict=True) if arg is not None and want == "same"), None)
        if model is None and "same" in wanted:  # nothing but literals: the first that is not NULL says what they are
            alike = [arg for arg, want in zip(call.args, wanted, strict=True) if want == "same"]
            known = next((arg for arg in alike if isinstance(arg, Lit) and arg.value is not None), None)
            model = Typed(alike[0], NULL if known is None else own_type(known))
        args: list[Typed] = []
        for arg, typed, want in zip(call.args, found, wanted, strict=True):
            beside = model if want == "same" else None
            if typed is None:
                assert isinstance(arg, Lit)
                expr = for_type(arg, want) if beside is None else self._beside(arg, beside, call.fn)
                args.append(Typed(expr, expr.type))
                continue
            if function.need:
                needs(typed, function.need, call.fn)
            args.append(replace(typed, expr=_of_type(typed, want if beside is None else beside.kind)))
        return args

    def _beside(self, literal: Lit, beside: Typed, fn: str) -> Lit:
        try:
            if beside.field is not None and beside.store is not None:
                return for_field(literal, beside.field, beside.store)
            return for_type(literal, "any" if beside.type == NULL else beside.kind)
        except QueryError:
            better = whole_number(fn, beside, literal.value)
            if better is None:
                raise
            raise better from None

    def literal(self, expr: Expr, beside: Typed) -> Lit:
        """The literal ``expr`` in the type of ``beside``.

        Raises:
            QueryError: It is none, or of another type.
        """
        if not isinstance(expr, Lit):
            raise QueryError("a value is wanted, not something that is read")
        return self._beside(expr, beside, "eq")

    def _aggregate(self, agg: Agg, alone: str) -> Typed:
        found = AGGREGATES.get(agg.fn)
        if found is None:
            raise QueryError(f"unknown aggregate {agg.fn[:80]!r}; there are: {', '.join(AGGREGATES)}")
        if alone:
            hint = "use having()" if alone == "where" else ""
            raise QueryError(f"{alone} looks at single rows, and {agg.fn}() at many", hint=hint)
        self.aggregated = True
        where = (
            None if agg.where is None else self.condition(f"{agg.fn} › where", agg.where, alone=f"{agg.fn}(where=…)")
        )
        if agg.arg is None:
            if agg.fn != "count" or agg.distinct:
                raise QueryError(f"{agg.fn}() takes a column")
            return Typed(replace(agg, where=where), "int")
        arg = self.at(agg.fn, agg.arg, alone=f"{agg.fn}()")
        if found.need:
            needs(arg, found.need, agg.fn)
        if "any" not in found.takes and family(arg.kind) not in found.takes:
            raise QueryError(f"{agg.fn}() takes {' or '.join(found.takes)}, and {_shown(arg)} is {_a(arg.kind)}")
        null = "?" if found.empty else ""
        made = replace(agg, arg=arg.expr, where=where)
        if found.gives != "same":
            return Typed(made, found.gives + null)
        chosen = agg.fn != "sum"  # a sum of two members of an enumeration is none
        return Typed(made, arg.kind + null, arg.field if chosen else None, arg.store if chosen else None)


def _origin(alike: Sequence[Typed]) -> tuple[Field | None, AnyStore | None]:
    """The field of which all of ``alike`` are values, and its store."""
    read = [arg for arg in alike if not isinstance(arg.expr, Lit)]
    names = {None if arg.field is None else arg.field.type_name for arg in read}
    return (read[0].field, read[0].store) if len(names) == 1 else (None, None)


def needs(typed: Typed, need: str, asked: str) -> None:
    """See that a column of this type answers as Python does.

    Args:
        typed: What is asked.
        need: What it has to answer.
        asked: The function, aggregate or method that asks.

    Raises:
        QueryError: It does not; says what to declare instead.
    """
    comparisons = _UNNAMED.get(typed.kind) if typed.field is None else typed.field.comparisons
    why: str = "" if comparisons is None else getattr(comparisons, need)
    if why:
        raise QueryError(f"{SIGNS.get(asked, f'{asked}()')} cannot be asked of {_shown(typed)}: {why}")


def _may_be_null(function: Function, args: Sequence[Typed], alike: Sequence[Typed], kind: str) -> bool:
    if function.nullable in ("never", "always"):
        return function.nullable == "always"
    nulls = [arg.nullable for arg in (alike if function.nullable == "same" else args)]
    if function.nullable == "all":
        return bool(nulls) and all(nulls)
    return any(nulls) or (function.nullable == "real" and kind == "real")


def _not_among(fn: str, function: Function, arg: Typed) -> QueryError:
    hint = "concat() joins texts" if fn == "add" and arg.kind == "text" else ""
    return QueryError(f"{fn}() takes {' or '.join(function.among)}, and {_shown(arg)} is {_a(arg.kind)}", hint=hint)


def _computed(call: Call, kind: str) -> Typed:
    """The value of a call of nothing but values: it is the same in every row, and on every engine."""
    value = MEANINGS[call.fn]([arg.value for arg in call.args if isinstance(arg, Lit)])
    return Typed(Lit(NULL if value is None else kind, value), NULL if value is None else kind)


def _of_type(typed: Typed, wanted: str) -> Expr:
    if typed.type != wanted and wanted not in ("any", NULL) and typed.type != NULL and typed.kind != wanted:
        raise QueryError(f"{_a(wanted)} is wanted, and {_shown(typed)} is {_a(typed.kind)}")
    return typed.expr


def _shown(typed: Typed) -> str:
    if typed.field is not None and typed.store is not None:
        return f"{typed.store.name}.{typed.field.name}"
    return "what stands there"


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
