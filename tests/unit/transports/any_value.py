"""Any value of a type, from what msgspec knows about it: messages, and the queries in them."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec import inspect

from atoma.contracts.query import (
    Agg,
    BoundQuery,
    Branch,
    Call,
    Col,
    Derived,
    Exists,
    Expr,
    Include,
    Join,
    Link,
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
from atoma_transports.protocol.plans import encode_query

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.binary(max_size=10),
)


def strategy(kind: inspect.Type, depth: int = 3) -> st.SearchStrategy[object]:
    """Any value of that type."""
    if isinstance(kind, inspect.StructType):
        return struct(kind, depth - 1)
    simple: dict[type[inspect.Type], st.SearchStrategy[object]] = {
        inspect.IntType: st.integers(-(2**63), 2**63 - 1),
        inspect.StrType: st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
        inspect.BoolType: st.booleans(),
        inspect.BytesType: st.binary(max_size=10),
        inspect.NoneType: st.none(),
        inspect.CustomType: SCALARS,
        inspect.AnyType: SCALARS,
    }
    if type(kind) in simple:
        return simple[type(kind)]
    if isinstance(kind, inspect.Metadata):
        if (kind.extra or {}) == {"json": "query"}:
            return QUERIES.map(encode_query)
        assert kind.extra == {"json": "cell"}
        return st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
    if isinstance(kind, inspect.LiteralType):
        return st.sampled_from(kind.values)
    if isinstance(kind, inspect.VarTupleType):
        return st.lists(strategy(kind.item_type, depth), max_size=3 if depth > 0 else 0).map(tuple)
    if isinstance(kind, inspect.TupleType):
        return st.tuples(*(strategy(item, depth) for item in kind.item_types))
    if isinstance(kind, inspect.DictType):
        return st.dictionaries(strategy(kind.key_type, depth), strategy(kind.value_type, depth), max_size=3)
    assert isinstance(kind, inspect.UnionType), kind
    if depth <= 0 and any(isinstance(one, inspect.NoneType) for one in kind.types):
        return st.none()
    leaves = [one for one in kind.types if not isinstance(one, inspect.StructType) or depth > 0 or is_leaf(one)]
    return st.one_of([strategy(one, depth) for one in leaves or kind.types])


def is_leaf(kind: inspect.StructType) -> bool:
    """Whether no struct of this kind holds another one."""
    nested = (inspect.VarTupleType, inspect.UnionType, inspect.StructType)
    return not any(isinstance(field.type, nested) for field in kind.fields)


def struct(kind: inspect.StructType, depth: int) -> st.SearchStrategy[object]:
    """Any struct of that kind."""
    return st.deferred(
        lambda: st.fixed_dictionaries({field.name: strategy(field.type, depth) for field in kind.fields}).map(
            lambda fields: kind.cls(**fields)
        )
    )


NAMES = st.sampled_from(["cards", "a", "räume", ""])
NUMBERS = st.integers(-(2**63), 2**63 - 1)
LEAVES: st.SearchStrategy[Expr] = st.one_of(
    st.builds(Lit, NAMES, SCALARS), st.builds(Param, NUMBERS, NAMES), st.builds(Col, NUMBERS, NAMES)
)
EXPRESSIONS: st.SearchStrategy[Expr] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Call, NAMES, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Agg, NAMES, st.none() | inner, st.none() | inner, st.booleans()),
    ),
    max_leaves=4,
)
STORES = st.builds(Store, NAMES, st.booleans())
SIMPLE = st.builds(Plan, STORES, where=st.none() | EXPRESSIONS)
ANY_EXPRESSION: st.SearchStrategy[Expr] = st.one_of(
    EXPRESSIONS, st.builds(Exists, SIMPLE, st.booleans()), st.builds(Scalar, SIMPLE)
)
SOURCES: st.SearchStrategy[Source] = st.one_of(STORES, st.builds(Derived, SIMPLE))
INCLUDES = st.builds(
    Include,
    NAMES,
    st.booleans(),
    st.lists(st.tuples(NAMES, NAMES), max_size=2).map(tuple),
    st.lists(st.builds(Branch, SCALARS, SIMPLE), max_size=2).map(tuple),
    NAMES,
    st.none() | st.builds(Link, NAMES, NAMES, NAMES),
    st.booleans(),
)
PARTS: dict[str, st.SearchStrategy[object]] = {
    "joins": st.lists(
        st.builds(Join, st.sampled_from(["inner", "left"]), SOURCES, ANY_EXPRESSION, st.booleans()), max_size=2
    ).map(tuple),
    "where": ANY_EXPRESSION,
    "group": st.lists(EXPRESSIONS, max_size=2).map(tuple),
    "having": ANY_EXPRESSION,
    "columns": st.lists(st.builds(Named, NAMES, ANY_EXPRESSION), max_size=2).map(tuple),
    "distinct": st.booleans(),
    "order": st.lists(st.builds(Order, EXPRESSIONS, st.booleans()), max_size=2).map(tuple),
    "limit": st.none() | NUMBERS,
    "offset": NUMBERS,
    "seek": st.builds(Seek, st.lists(LEAVES, max_size=2).map(tuple), st.booleans()),
    "include": st.lists(INCLUDES, max_size=2).map(tuple),
}
PLANS: st.SearchStrategy[Plan] = st.builds(
    lambda source, parts: Plan(source, **parts), SOURCES, st.fixed_dictionaries({}, optional=PARTS)
)
QUERIES: st.SearchStrategy[BoundQuery] = st.builds(BoundQuery, PLANS, st.lists(SCALARS, max_size=4).map(tuple))
"""Any query that a program of another making could send; hardly one of them fits a schema."""
