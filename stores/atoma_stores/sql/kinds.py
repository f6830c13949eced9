"""The types of expressions of a checked plan, for everything that is written differently for different types."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.contracts.functions import AGGREGATES, FUNCTIONS
from atoma.contracts.query import NULL, Agg, Call, Col, Exists, Expr, Lit, Param, Scalar, Source, Store
from atoma.query.scope import Stores


def kind_of(expr: Expr, sources: Sequence[Source], outer: Sequence[Source], stores: Stores) -> str:
    """Return the type of ``expr``, whether it is NULL or not.

    Args:
        expr: The expression.
        sources: The sources of its plan, by their numbers.
        outer: The sources around it, from -1 down.
        stores: Finds a store by its name.
    """
    match expr:
        case Lit(type=kind) | Param(type=kind):
            return kind.removesuffix("?")
        case Col(source=number, name=name):
            source = sources[number] if number >= 0 else outer[-1 - number]
            if isinstance(source, Store):
                return stores(source.name).fields[name].type
            columns = source.query.columns or ()
            return kind_of(columns[int(name[1:])].expr, source.query.sources, (), stores)
        case Call(fn=fn):
            gives = FUNCTIONS[fn].gives
            return kind_of_arguments(expr, sources, outer, stores) if gives == "same" else gives
        case Agg(fn=fn, arg=arg):
            gives = AGGREGATES[fn].gives
            return kind_of(arg, sources, outer, stores) if gives == "same" and arg is not None else gives
        case Exists():
            return "bool"
        case Scalar(query=query):
            assert query.columns, "a query that stands for a value has a column"
            return kind_of(query.columns[0].expr, query.sources, (*sources, *outer), stores)


def kind_of_arguments(call: Call, sources: Sequence[Source], outer: Sequence[Source], stores: Stores) -> str:
    """Return the common type of the ``same`` arguments of ``call``; see :func:`kind_of`."""
    takes = FUNCTIONS[call.fn].takes
    wanted = (*takes, *[takes[-1]] * len(call.args))
    alike = [arg for arg, want in zip(call.args, wanted, strict=False) if want == "same"]
    kinds = (kind_of(arg, sources, outer, stores) for arg in alike)
    return next((kind for kind in kinds if kind != NULL), NULL)
