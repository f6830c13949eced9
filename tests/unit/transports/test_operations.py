"""Mapping requests to operations and results back: by index and id, whatever order they come in."""

from __future__ import annotations

import functools
import math
import operator
import random
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import (
    ExecutionMeta,
    OperationContext,
    QueryRequest,
    WriteItemResult,
    WriteOptions,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.mutations import Op, OpKind
from atoma.contracts.query import BoundQuery, Call, Col, Lit, Param
from atoma.contracts.values import ErrorInfo, Scalar, StoredRow
from atoma.errors import ProtocolError, QueryError
from atoma.query.normal import rebind
from atoma.query.plans import every_row
from atoma.schema import Schema, StoreSpec
from atoma.schema.expressions import Condition, Expression, col
from atoma.testing.queries import count_of, rows_of
from atoma_transports.adapters import OperationAdapter
from atoma_transports.adapters.operations import query_request, write_reply, write_request
from atoma_transports.protocol import OpsReply, QueryCall, RemoteOp, RemoteOpResult, WriteCall, pack_rows, unpack_rows
from atoma_transports.protocol.plans import encode_query
from tests.unit.transports.any_value import QUERIES

ADAPTER = OperationAdapter()
CONTEXT = OperationContext("trace")


@dataclass(frozen=True)
class Note:
    id: str
    number: int
    text: str
    real: float


SCHEMA = Schema(StoreSpec("notes", Note))

scalars: st.SearchStrategy[Scalar] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
)
images = st.dictionaries(st.text(min_size=1, max_size=8), scalars, max_size=4)
entries = st.builds(
    Op,
    store=st.sampled_from(["notes", "räume"]),
    kind=st.sampled_from(typing.get_args(OpKind)),
    id=st.text(max_size=6),
    scope=st.text(max_size=6),
    values=images,
    base_version=st.none() | st.integers(0, 2**53),
    defaults=images,
    after_mid=st.integers(0, 9),
    cas=st.booleans(),
)
units = st.builds(
    WriteRequest,
    entries=st.lists(entries, min_size=1, max_size=6).map(tuple),
    options=st.builds(WriteOptions, atomic=st.booleans(), durability=st.sampled_from([None, "full", "normal"])),
    context=st.just(CONTEXT),
    idem=st.text(min_size=1, max_size=10),
)


def result_of(request: WriteRequest, rng: random.Random) -> WriteResult:
    """What a hub might answer."""
    items = tuple(
        WriteItemResult(entry.id, False, error=ErrorInfo("CONFLICT", "moved"))
        if rng.random() < 0.3
        else WriteItemResult(entry.id, True, rng.random() < 0.5, rng.randrange(9), dict(entry.values) or None)
        for entry in request.entries
    )
    return WriteResult(status_of(items), items, ExecutionMeta(source="local"))


@given(units, st.randoms(use_true_random=False))
def test_a_write_survives_the_wire_and_a_shuffle(request: WriteRequest, rng: random.Random) -> None:
    ops = list(ADAPTER.to_remote_ops(request))
    rng.shuffle(ops)
    call = decode(encode(WriteCall(tuple(ops), request.idem, request.options, "trace")), WriteCall)
    arrived = write_request(call, 5.0)
    assert arrived.context == OperationContext("trace", deadline=5.0)
    assert msgspec.structs.replace(arrived, context=CONTEXT) == request
    answer = result_of(request, rng)
    results = list(decode(encode(write_reply(answer)), OpsReply).results)
    rng.shuffle(results)
    back = ADAPTER.from_remote_results(request, results)
    assert (back.status, back.items) == (answer.status, answer.items)
    assert (back.meta.source, back.meta.trace_id) == ("remote", "trace")


@given(
    units, st.randoms(use_true_random=False), st.sampled_from(["missing", "twice", "foreign id", "beyond", "before"])
)
def test_results_that_do_not_fit_are_refused(request: WriteRequest, rng: random.Random, fault: str) -> None:
    results = list(write_reply(result_of(request, rng)).results)
    rng.shuffle(results)
    victim = rng.randrange(len(results))
    damaged = results[victim]
    if fault == "missing":
        del results[victim]
    elif fault == "twice":
        results.append(damaged)
    elif fault == "foreign id":
        assume(damaged.id)  # where an entry has none, it is the hub that draws it
        results[victim] = msgspec.structs.replace(damaged, id=damaged.id + "?")
    else:
        index = len(results) if fault == "beyond" else -1
        results[victim] = msgspec.structs.replace(damaged, index=index)
    with pytest.raises(ProtocolError) as caught:
        ADAPTER.from_remote_results(request, results)
    assert caught.value.maybe_sent  # the hub has answered: the write may well be there


@given(st.lists(st.tuples(st.text(max_size=5), images), max_size=5), st.integers(0, 2**53))
def test_rows_survive_packing(rows: list[tuple[str, dict[str, Scalar]]], version: int) -> None:
    columns = sorted({name for _, image in rows for name in image})
    stored = tuple(
        StoredRow(id, version, version + 1, "main", {name: image.get(name) for name in columns}) for id, image in rows
    )
    packed = decode(encode(pack_rows(stored)), type(pack_rows(stored)))
    assert unpack_rows(packed) == stored


@given(QUERIES)
def test_a_query_arrives_as_it_was_sent(query: BoundQuery) -> None:
    request = QueryRequest(query, CONTEXT)
    call = decode(encode(QueryCall(ADAPTER.to_remote_ops(request), "trace")), QueryCall)
    arrived = query_request(call, 5.0)
    assert encode(arrived.query) == encode(query)  # the types as well: 1 is not 1.0, nor True
    assert arrived.context == OperationContext("trace", deadline=5.0)


def nested(depth: int) -> Condition:
    inner = col("number") == 1
    for _ in range(depth - 1):
        inner = ~inner
    return inner


def every(conditions: Sequence[Condition]) -> Condition:
    return functools.reduce(operator.and_, conditions)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (nested(32), ""),
        (nested(33), "nested at most 32 deep"),
        (every([col("number") == 1] * 999), ""),
        (every([col("number") == 1] * 1_000), "at most 1,000 conditions"),
        (every([col("number").in_(range(1_000))] * 4), ""),
        (every([col("number").in_(range(1_000))] * 5), "at most 4,096 values"),
        (Expression(Call("in", (Col(0, "number"), *[Lit("int", 1)] * 1_001))), "at most 1,000 values, got 1,001"),
        (col("text").like("%" + "x" * 255), ""),
        (col("text").like("%" + "x" * 256), "at most 256 bytes"),
        (Expression(Call("eq", (Col(0, "real"), Lit("real", math.nan)))), "a float is not a column value"),
        (col("number") == 2**63 - 1, ""),
        (Expression(Call("eq", (Col(0, "number"), Lit("int", 2**64 - 1)))), "does not fit into 64 bits"),
        (Expression(Call("eq", (Col(0, "number"), Lit("int", [1])))), "a list is not a column value"),
        (Expression(Call("in", (Col(0, "number"), Lit("int", {"b": 1})))), "a dict is not a column value"),
        (Expression(Call("eq", (Col(0, "number"), Lit("text", "1")))), "wants int, got str"),
        (Expression(Call("eq", (Col(0, "number"), Param(1, "int")))), "parameter 1 has no value; there are 0"),
        (Expression(Call("eq", (Col(0, "number"), Param(-1, "int")))), "parameter -1 has no value"),
    ],
)
def test_a_query_that_arrives_has_to_keep_to_the_bounds(where: Condition, words: str) -> None:
    (op,) = ADAPTER.to_remote_ops(QueryRequest(rows_of("notes", where), CONTEXT))
    arrived = query_request(QueryCall((op,)), math.inf).query
    if not words:
        assert rebind(arrived, SCHEMA.store) == rebind(rows_of("notes", where), SCHEMA.store)
        return
    with pytest.raises(QueryError, match=words):
        rebind(arrived, SCHEMA.store)


QUESTION = RemoteOp(0, "query", "notes", query=encode_query(every_row("notes")))


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        ((), "exactly one query"),
        ((QUESTION, QUESTION), "exactly one query"),
        ((RemoteOp(0, "query", "notes"),), "exactly one query"),
        ((msgspec.structs.replace(QUESTION, name="delete"),), "exactly one query"),
        ((msgspec.structs.replace(QUESTION, store="others"),), "another store than its query"),
        ((msgspec.structs.replace(QUESTION, query=b"\xc1"),), "malformed query"),
    ],
)
def test_a_query_call_is_one_query_of_the_store_that_it_names(ops: tuple[RemoteOp, ...], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        query_request(QueryCall(ops), math.inf)


SPELLED_OUT: dict[str, tuple[RemoteOp, OpKind]] = {
    "insert": (RemoteOp(0, "insert", "notes", "a", scope="main", values={"text": "x"}), "create"),
    "update": (RemoteOp(0, "update", "notes", "a", scope="main", values={"text": "x"}, base_version=7), "patch"),
    "upsert": (RemoteOp(0, "upsert", "notes", "a", scope="main", values={"text": "x"}, defaults={"n": 1}), "upsert"),
    "replace": (RemoteOp(0, "upsert", "notes", "a", scope="main", values={"text": "x"}, replace=True), "replace"),
    "delete": (RemoteOp(0, "delete", "notes", "a", scope="main"), "delete"),
}


@pytest.mark.parametrize("name", SPELLED_OUT)
def test_an_operation_that_is_spelled_out_is_read_as_a_whole_one(name: str) -> None:
    """As the version before sent it: its write may be on the way to a hub that is newer by now."""
    spelled_out, kind = SPELLED_OUT[name]
    (op,) = write_request(WriteCall((spelled_out,), "key", WriteOptions()), math.inf).entries
    values: dict[str, Scalar] = {} if name == "delete" else {"text": "x"}
    more: dict[str, dict[str, Any]] = {"update": {"base_version": 7}, "upsert": {"defaults": {"n": 1}}}
    assert op == Op(kind, "notes", "a", values, scope="main", **more.get(name, {}))


@pytest.mark.parametrize(
    "op",
    [
        RemoteOp(0),
        RemoteOp(0, "insert", "notes", "a", op=Op("create", "notes", "a")),
        RemoteOp(0, op=Op("create", "notes", "a", {"text": ["no", "value"]})),  # type: ignore[dict-item]
        RemoteOp(0, op=Op("upsert", "notes", "a", defaults={"text": 2**63})),
    ],
)
def test_an_operation_of_a_write_is_one_of_column_values(op: RemoteOp) -> None:
    with pytest.raises(ProtocolError):
        write_request(WriteCall((op,), "key", WriteOptions()), math.inf)


def test_a_write_call_holds_no_query() -> None:
    for op in (QUESTION, msgspec.structs.replace(QUESTION, name="delete", id="a")):
        with pytest.raises(ProtocolError, match="holds no query"):
            write_request(WriteCall((op,), "key", WriteOptions()), math.inf)


@pytest.mark.parametrize(
    "results",
    [
        (),
        (RemoteOpResult(0), RemoteOpResult(0)),
        (RemoteOpResult(1),),
        (RemoteOpResult(0, id="a"),),
        (RemoteOpResult(0, ok=False),),
        (RemoteOpResult(0, error=ErrorInfo("X", "")),),
        (RemoteOpResult(0, tuples=None),),
        (RemoteOpResult(0, tuples=()),),
        (RemoteOpResult(0, tuples=((),)),),
        (RemoteOpResult(0, tuples=((1,), (2,))),),
        (RemoteOpResult(0, tuples=((1, 2),)),),
        (RemoteOpResult(0, tuples=((None,),)),),
        (RemoteOpResult(0, tuples=((True,),)),),
        (RemoteOpResult(0, tuples=((1.0,),)),),
    ],
)
def test_a_count_needs_exactly_one_number(results: tuple[RemoteOpResult, ...]) -> None:
    request = QueryRequest(count_of("notes"), CONTEXT)
    assert ADAPTER.from_remote_results(request, [RemoteOpResult(0, tuples=((5,),))]).tuples == ((5,),)
    with pytest.raises(ProtocolError):
        ADAPTER.from_remote_results(request, results)


@pytest.mark.parametrize(
    "result",
    [
        RemoteOpResult(0, "a", ok=True, error=ErrorInfo("X", "")),
        RemoteOpResult(0, "a", ok=False),
        RemoteOpResult(0, "a", row={"text": ["no", "value"]}),
    ],
)
def test_an_item_is_a_success_or_an_error(result: RemoteOpResult) -> None:
    request = WriteRequest((Op("delete", "notes", "a"),), WriteOptions(), CONTEXT, "key")
    with pytest.raises(ProtocolError):
        ADAPTER.from_remote_results(request, [result])
