"""A query as bytes: whatever it is made of comes back, and what is none is refused."""

from __future__ import annotations

import contextlib
import inspect

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atoma.contracts import query as contract
from atoma.contracts.query import (
    PLAN_VERSION,
    Agg,
    BoundQuery,
    Branch,
    Call,
    Col,
    Derived,
    Exists,
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
    Store,
)
from atoma.errors import ProtocolError, RemoteError
from atoma_transports.protocol.json_text import parse_json
from atoma_transports.protocol.plans import decode_query, encode_query, from_plain, to_plain
from tests.unit.transports.any_value import QUERIES

ROOM = Plan(Store("rooms"), where=Call("eq", (Col(-1, "room"), Col(0, "id"))), columns=(Named("name", Col(0, "name")),))
EVERYTHING = BoundQuery(
    Plan(
        Store("cards", hidden=True),
        joins=(Join("left", Derived(ROOM), Call("eq", (Col(0, "id"), Col(1, "c0"))), cross_scope=True),),
        where=Call("and", (Exists(ROOM, negated=True), Call("gt", (Scalar(ROOM), Param(0, "text?"))))),
        group=(Col(0, "lane"),),
        having=Call(
            "gt", (Agg("count", Col(0, "id"), Call("is_null", (Col(0, "due"),)), distinct=True), Lit("int", 3))
        ),
        columns=(Named("lane", Col(0, "lane")),),
        distinct=True,
        order=(Order(Agg("count"), descending=True),),
        limit=10,
        offset=2**40,
        seek=Seek((Lit("real", 1.0), Lit("null", None)), forward=False),
        include=(
            Include(
                "rooms", False, (("id", "card"),), (Branch(b"\xff", ROOM),), "kind", Link("in", "card", "room"), True
            ),
        ),
    ),
    ("a", 1, 1.0, True, None, b"\x00"),
)


def structs_within(value: object) -> set[type]:
    if isinstance(value, (tuple, list)):
        return set().union(*map(structs_within, value))
    if not isinstance(value, msgspec.Struct):
        return set()
    return {type(value)}.union(*(structs_within(getattr(value, name)) for name in value.__struct_fields__))


def test_a_query_of_everything_there_is_comes_back() -> None:
    every = {kind for _, kind in inspect.getmembers(contract, inspect.isclass) if issubclass(kind, msgspec.Struct)}
    assert structs_within(EVERYTHING) == every, "a new node belongs into this query"
    assert decode_query(encode_query(EVERYTHING)) == EVERYTHING


@given(QUERIES)
@example(EVERYTHING)
def test_any_query_comes_back(query: BoundQuery) -> None:
    data = encode_query(query)
    back = decode_query(data)
    assert back == query
    assert encode_query(back) == data  # the types as well: 1 is not 1.0, nor True
    assert from_plain(to_plain(data)) == data


def test_a_plan_of_another_version_is_not_understood() -> None:
    plan = msgspec.Raw(msgspec.msgpack.encode({"source": ["from the future"]}))
    with pytest.raises(RemoteError) as refused:
        decode_query(msgspec.msgpack.encode((PLAN_VERSION + 1, plan, ())))
    assert refused.value.remote_code == "UNSUPPORTED"
    assert f"only of version {PLAN_VERSION}" in str(refused.value)


ROWS = ["store", "cards", False]


@pytest.mark.parametrize(
    "sent",
    [
        None,
        [],
        [1, {"source": ROWS}],
        [1, {"source": ROWS}, [], "more"],
        ["1", {"source": ROWS}, []],
        [1, {}, []],
        [1, {"source": "cards"}, []],
        [1, {"source": ["table", "cards"]}, []],
        [1, {"source": ["store", 5]}, []],
        [1, {"source": ROWS, "sql": "1 = 1"}, []],
        [1, {"source": ROWS, "where": ["sql", "1 = 1"]}, []],
        [1, {"source": ROWS, "where": ["call", "eq", 5]}, []],
        [1, {"source": ROWS, "where": ["col", "0", "id"]}, []],
        [1, {"source": ROWS, "limit": "10"}, []],
        [1, {"source": ROWS, "limit": 1.5}, []],
        [1, {"source": ROWS, "joins": [["outer", ROWS, ["lit", "bool", True]]]}, []],
        [1, {"source": ROWS}, {}],
        [1, {"source": ["derived", None]}, []],
    ],
)
def test_what_is_no_query_is_one_typed_error(sent: object) -> None:
    with pytest.raises(ProtocolError, match="malformed query"):
        decode_query(msgspec.msgpack.encode(sent))


@given(st.binary(max_size=80))
@example(b"")
@example(encode_query(EVERYTHING)[:-1])
@example(encode_query(EVERYTHING) + b"\x00")
@example(b"\x93\x01\x81\xa6\x80ource\xc0\x90")  # a name that is not text
@example(b"\x93\x01\x81\xa6source\x92\xa5store\xa1c\x91\xc7\x0c\xff" + b"\xff" * 12)  # a moment that there is not
@example(msgspec.msgpack.encode((1, msgspec.Raw(b"\x81\xa6source" + b"\x92\xa7derived\x81\xa6source" * 100_000), ())))
def test_noise_is_a_query_or_a_typed_error(noise: bytes) -> None:
    with contextlib.suppress(ProtocolError, RemoteError):
        assert isinstance(decode_query(noise), BoundQuery)


def test_in_json_a_query_is_an_object_of_its_parts() -> None:
    text = b'{"plan":{"source":["store","cards"],"limit":10}}'
    value = parse_json(text)
    assert isinstance(value, dict)
    assert decode_query(from_plain(value)) == BoundQuery(Plan(Store("cards"), limit=10))


@pytest.mark.parametrize("value", [{}, {"version": 1}, {"plan": {}, "where": 1}, {"plan": {}, "param": []}])
def test_an_object_of_other_parts_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="a plan, and perhaps its version and params"):
        from_plain(value)
