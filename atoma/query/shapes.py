"""What a shape comes to with the values of its parameters: a checked condition on the rows of one store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec

from atoma.contracts.checks import is_a
from atoma.contracts.codec import encode
from atoma.contracts.query import AS_WRITTEN, NULL, Call, Col, Expr, Lit, Param, Plan, Store
from atoma.contracts.shapes import SHAPE_BYTES, ShapeCall, read_call
from atoma.errors import ProtocolError, QueryError, SchemaError
from atoma.query.check import check
from atoma.query.compared import check_compared
from atoma.query.literals import for_type
from atoma.query.origins import by_origin
from atoma.query.walk import changed
from atoma.schema.fields import SIMPLE
from atoma.schema.schema import Schema
from atoma.schema.shapes import ScopePart, Shape, parameter
from atoma.schema.spec import StoreSpec

DIGEST_BYTES = 16
READ_MAX = 256
"""Shapes with their values that are kept checked."""
_VALUES = ("", 2, 0.5, True, b"", datetime(2000, 1, 1, tzinfo=UTC), date(2000, 1, 1), time(), timedelta(), UUID(int=0))
_SAMPLES: Mapping[str, object] = MappingProxyType(
    {SIMPLE[type(value)]("shape", "value").type: value for value in _VALUES}
)
"""A value of each type that a parameter may have, by what queries call the type."""


class Taken(msgspec.Struct, frozen=True):
    """The rows that a shape takes.

    Attributes:
        store: The store.
        where: What they fulfil; None for every row.
        title: The shape and its values, for a person.
    """

    store: str
    where: Expr | None
    title: str


class Shapes:
    """The shapes of a schema by name, each checked to fit its store.

    Raises:
        SchemaError: Something is not a shape, two have one name, or one does not fit.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._shapes: dict[str, Shape] = {}
        for shape in schema.shapes:
            if not is_a(shape, Shape):
                raise SchemaError(f"Schema(shapes=…) takes shapes, Shape('recent', CARDS, where=…), not {shape!r}")
            if shape.name in self._shapes:
                raise SchemaError(f"two shapes are named {shape.name!r}")
            self._shapes[shape.name] = shape
            self._check(shape)
        self._read = lru_cache(READ_MAX)(self._look)

    def _check(self, shape: Shape) -> None:
        spec = self._schema.stores.get(shape.store.name)
        if spec is None or not spec.replicate:
            raise SchemaError(f"shape {shape.name!r}: the schema has no store {shape.store.name!r} that replicates")
        try:
            self._check_fits(shape, spec)
        except QueryError as error:
            raise SchemaError(f"shape {shape.name!r} does not fit store {spec.name!r}: {error}") from None

    def _check_fits(self, shape: Shape, store: StoreSpec[Any]) -> None:
        if shape.where is None:
            return
        check_compared(shape.where, "a parameter", parameter)
        where = _sampled(shape.where, store)
        for schema in dict.fromkeys((self._schema, self._schema.at_hub())):
            check(_plan(shape, where), schema.store)

    def __bool__(self) -> bool:
        return bool(self._shapes)

    def call(self, part: ScopePart) -> bytes:
        """``part`` as it travels.

        Raises:
            SchemaError: The schema does not declare its shape.
            QueryError: A value does not fit the column that it is compared with, or the values are too large.
        """
        shape = part.shape
        if self._shapes.get(shape.name) is not shape:
            raise SchemaError(f"the schema does not declare shape {shape.name!r}: Schema(…, shapes=[…])")
        condition = self._condition(shape, dict(part.values))
        data = ShapeCall(shape.name, part.values, self._digest(shape.store.name, condition)).data
        if len(data) > SHAPE_BYTES:
            raise QueryError(f"the values of shape {shape.name!r} have {len(data)} bytes, at most {SHAPE_BYTES}")
        return data

    def read(self, data: bytes) -> Taken:
        """What ``data``, which :meth:`call` or somebody else has made, takes.

        Raises:
            QueryError: There is no such shape here, or it comes to something else.
        """
        return self._read(data)

    def _look(self, data: bytes) -> Taken:
        try:
            call = read_call(data) if len(data) <= SHAPE_BYTES else None
        except ProtocolError:
            call = None
        if call is None:
            raise QueryError(f"that is no shape of at most {SHAPE_BYTES} bytes")
        shape, values = self._shapes.get(call.name), dict(call.values)
        if shape is None:
            raise QueryError(f"there is no shape {call.name[:80]!r}; there are: {', '.join(self._shapes) or 'none'}")
        if values.keys() != shape.params.keys() or call.values != tuple(
            sorted(values.items(), key=lambda item: item[0])
        ):
            raise QueryError(f"shape {call.name!r} takes the parameters {', '.join(sorted(shape.params)) or 'none'}")
        where = self._condition(shape, values)
        if call.condition != self._digest(shape.store.name, where):
            raise QueryError(f"shape {call.name!r} is declared otherwise on the other side")
        shown = ", ".join(f"{name}={value!r}" for name, value in call.values)
        return Taken(shape.store.name, where, f"{call.name}({shown})")

    def _condition(self, shape: Shape, values: Mapping[str, object]) -> Expr | None:
        where = shape.where
        if where is None:
            return None

        def value(leaf: Lit | Param) -> Expr:
            name = parameter(leaf)
            return for_type(Lit(leaf.type, values[name]), leaf.type) if name else leaf

        return check(changed(_plan(shape, where), value), self._schema.store).where

    def _digest(self, store: str, where: Expr | None) -> bytes:
        told = None if where is None else by_origin(where, store, self._schema)
        return hashlib.sha256(encode((store, told))).digest()[:DIGEST_BYTES]


def _plan(shape: Shape, where: Expr) -> Plan:
    # a row that is hidden is a row: a device that has it passes over it by itself
    return Plan(Store(shape.store.name, hidden=True), where=where)


def _sampled(where: Expr, store: StoreSpec[Any]) -> Expr:
    """``where`` with some value of its type for each parameter; with NULL beside a column of the type, which may have choices.

    Raises:
        QueryError: A parameter is of another type than the column beside it.
    """
    if not isinstance(where, Call):
        return where
    beside = [store.fields[arg.name] for arg in where.args if isinstance(arg, Col) and arg.name in store.fields]

    def sample(arg: Expr) -> Expr:
        if not isinstance(arg, Lit) or not parameter(arg):
            return _sampled(arg, store)
        for field in beside:
            if arg.type != field.type and (arg.type, field.type) != ("int", "real"):
                given = type(_SAMPLES[arg.type]).__name__
                raise QueryError(f"{field.name} is {field.type_name}, and parameter {parameter(arg)!r} is {given}")
        return Lit(NULL, None) if beside else for_type(Lit(AS_WRITTEN, _SAMPLES[arg.type]), arg.type)

    return Call(where.fn, tuple(sample(arg) for arg in where.args))
