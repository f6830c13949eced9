"""Mapping requests to operations and results back: by index and id, whatever order they come in."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import (
    ExecutionMeta,
    OperationContext,
    QueryRequest,
    WriteEntry,
    WriteItemResult,
    WriteOptions,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.query import And, Compare, In, Like, Not, Predicate, QuerySpec
from atoma.contracts.values import ErrorInfo, Scalar, StoredRow
from atoma.errors import AtomaError, ProtocolError, QueryError
from atoma_transports.adapters import OperationAdapter
from atoma_transports.protocol import OpsReply, QueryCall, RemoteOpResult, WriteCall, pack_rows, unpack_rows
from atoma_transports.serving.calls import query_request, write_reply, write_request

ADAPTER = OperationAdapter()
CONTEXT = OperationContext("trace")

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
    WriteEntry,
    store=st.sampled_from(["notes", "räume"]),
    op=st.sampled_from(["insert", "update", "upsert", "delete"]),
    id=st.text(max_size=6),
    scope=st.text(max_size=6),
    values=images,
    base_version=st.none() | st.integers(0, 2**53),
    replace=st.booleans(),
    defaults=images,
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


def nested(depth: int) -> Predicate:
    inner: Predicate = Compare("eq", "a", 1)
    for _ in range(depth - 1):
        inner = Not(inner)
    return inner


@pytest.mark.parametrize(
    ("where", "refused"),
    [
        (nested(32), None),
        (nested(33), QueryError),
        (And((Compare("eq", "a", 1),) * 999), None),
        (And((Compare("eq", "a", 1),) * 1000), QueryError),
        (In("a", tuple(range(1000))), None),
        (In("a", tuple(range(1001))), QueryError),
        (And((In("a", tuple(range(1000))),) * 4), None),
        (And((In("a", tuple(range(1000))),) * 5), QueryError),
        (Like("a", "%" + "x" * 255), None),
        (Like("a", "%" + "x" * 256), QueryError),
        (Compare("eq", "a", math.nan), ProtocolError),
        (Compare("eq", "a", 2**63 - 1), None),
        (Compare("eq", "a", 2**63), ProtocolError),
        (Compare("eq", "a", [1]), ProtocolError),
        (In("a", ({"b": 1},)), ProtocolError),
    ],
)
def test_queries_have_bounds_at_both_ends(where: Predicate, refused: type[AtomaError] | None) -> None:
    request = QueryRequest("notes", QuerySpec(where=where), CONTEXT)
    if refused is None:
        (op,) = ADAPTER.to_remote_ops(request)
        assert query_request(QueryCall((op,)), math.inf).query.where == where
        return
    with pytest.raises(refused):
        ADAPTER.to_remote_ops(request)
    (op,) = ADAPTER.to_remote_ops(QueryRequest("notes", QuerySpec(), CONTEXT))
    with pytest.raises(refused):
        query_request(QueryCall((msgspec.structs.replace(op, query=request.query),)), math.inf)


@pytest.mark.parametrize(
    "results",
    [
        (),
        (RemoteOpResult(0), RemoteOpResult(0)),
        (RemoteOpResult(1),),
        (RemoteOpResult(0, id="a"),),
        (RemoteOpResult(0, ok=False),),
        (RemoteOpResult(0, error=ErrorInfo("X", "")),),
        (RemoteOpResult(0, total=None),),
    ],
)
def test_a_count_needs_exactly_one_number(results: tuple[RemoteOpResult, ...]) -> None:
    request = QueryRequest("notes", QuerySpec(count=True), CONTEXT)
    assert ADAPTER.from_remote_results(request, [RemoteOpResult(0, total=5)]).total == 5
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
    request = WriteRequest((WriteEntry("notes", "delete", "a"),), WriteOptions(), CONTEXT, "key")
    with pytest.raises(ProtocolError):
        ADAPTER.from_remote_results(request, [result])
