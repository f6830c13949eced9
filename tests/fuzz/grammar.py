"""What valid messages look like: a strategy for every struct of the protocol, made from its annotations."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import msgspec
from hypothesis import HealthCheck
from hypothesis import strategies as st
from msgspec import inspect

from atoma.codes import CODES
from atoma.contracts.mutations import MutationBody
from atoma.contracts.values import ErrorInfo
from atoma.schema.expressions import col
from atoma.testing.queries import rows_of
from atoma_transports.adapters import METHODS
from atoma_transports.frames.envelope import KINDS, Auth, Welcome
from atoma_transports.http.envelope import Cancel, Failure
from atoma_transports.protocol.plans import encode_query
from tests.unit.transports.any_value import QUERIES

S = TypeVar("S", bound=msgspec.Struct)

ALL_CHECKS = (
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
)
"""Wire bytes are large and some are seldom: not worth a complaint."""

INT64 = st.one_of(st.integers(0, 9), st.integers(-(2**63), 2**63 - 1))
TEXT = st.one_of(st.sampled_from(["", "main", "cards", "a-secret", "ü𝄞"]), st.text(max_size=8))
BLOB = st.one_of(st.just(b""), st.binary(max_size=16))
FREE: st.SearchStrategy[object] = st.one_of(
    st.none(), st.booleans(), INT64, st.floats(allow_nan=False, allow_infinity=False), TEXT, BLOB
)
"""What a column holds."""

_OF_METHODS = [part for method in METHODS.values() for part in (method.request, method.reply)]
_ALONE: list[type[msgspec.Struct]] = [Auth, Welcome, ErrorInfo, MutationBody, Cancel, Failure]
MESSAGES: dict[str, type[msgspec.Struct]] = {kind.__name__: kind for kind in (*_OF_METHODS, *_ALONE)}
"""Everything that is encoded on its own, by name."""

QUERY = encode_query(rows_of("cards", (col("title") == "a") | ~col("title").like("%b"), order_by=("-title",), limit=5))
"""A query of which every part says something."""

_made: dict[type[msgspec.Struct], st.SearchStrategy[msgspec.Struct]] = {}


def messages(kind: type[S]) -> st.SearchStrategy[S]:
    """Valid values of ``kind``."""
    if kind not in _made:
        _made[kind] = st.deferred(lambda: _struct(kind))
    return cast("st.SearchStrategy[S]", _made[kind])


def _struct(kind: type[msgspec.Struct]) -> st.SearchStrategy[msgspec.Struct]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    required: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for field in info.fields:
        (required if field.required else optional)[field.name] = _values(field.type)
    if kind is ErrorInfo:
        required["code"] = st.sampled_from(sorted(CODES))
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: kind(**fields))


def _values(kind: inspect.Type) -> st.SearchStrategy[object]:
    match kind:
        case inspect.IntType():
            return INT64
        case inspect.StrType():
            return TEXT
        case inspect.BytesType():
            return BLOB
        case inspect.BoolType():
            return st.booleans()
        case inspect.FloatType():
            return st.floats(0, 1e6)
        case inspect.LiteralType():
            return st.sampled_from(list(kind.values))
        case inspect.Metadata():  # a query in its own bytes
            return st.one_of(st.just(b""), QUERIES.map(encode_query))
        case inspect.VarTupleType():
            return st.lists(_values(kind.item_type), max_size=2).map(tuple)
        case inspect.TupleType():
            return st.tuples(*map(_values, kind.item_types))
        case inspect.DictType():
            return st.dictionaries(TEXT, _values(kind.value_type), max_size=2)
        case inspect.UnionType():
            return st.one_of(*map(_values, kind.types))
        case inspect.NoneType():
            return st.none()
        case inspect.StructType():
            return messages(kind.cls)
        case _:  # a value of a column: `object`
            return FREE


def full(kind: type[S], depth: int = 0) -> S:
    """A value of ``kind`` in which every field says something."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return kind(**{field.name: _full(field.type, depth) for field in info.fields})


def _full(kind: inspect.Type, depth: int) -> object:
    match kind:
        case inspect.LiteralType():
            return kind.values[-1]
        case inspect.Metadata():
            return QUERY
        case inspect.VarTupleType():
            return (_full(kind.item_type, depth),)
        case inspect.TupleType():
            return tuple(_full(item, depth) for item in kind.item_types)
        case inspect.DictType():
            return {"title": _full(kind.value_type, depth)}
        case inspect.UnionType():
            some = [part for part in kind.types if not isinstance(part, inspect.NoneType)]
            return _full(some[depth % len(some)], depth + 1)  # a filter in a filter is another one
        case inspect.StructType():
            return full(kind.cls, depth)
        case _:
            plain = {inspect.IntType: 5, inspect.BytesType: b"\1", inspect.BoolType: True, inspect.FloatType: 1.5}
            return plain.get(type(kind), "text")


FRAME_KINDS = st.sampled_from(sorted(KINDS))
