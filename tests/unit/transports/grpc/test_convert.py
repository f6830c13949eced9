"""Structs and their protobuf twins: nothing is lost on the way, nothing malformed comes in."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atoma.contracts.execution import WriteOptions
from atoma.contracts.mutations import Op
from atoma.contracts.query import PLAN_VERSION, BoundQuery, Call, Col, Lit, Order, Param, Plan, Store
from atoma.contracts.sync import Cursor, Hint, Limits, OpenReply, Outcome, PullReply, PullRequest, StoreChanges
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma.query.plans import every_row
from atoma_transports.adapters import METHODS
from atoma_transports.grpc.convert import pack, unpack
from atoma_transports.grpc.messages import HelloReply, HelloRequest
from atoma_transports.grpc.v1 import sync_pb2
from atoma_transports.protocol import OpsReply, QueryCall, RemoteOp, RemoteOpResult, WriteCall
from atoma_transports.protocol.plans import decode_query, encode_query


def hints_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The types of a struct's fields; what belongs to the class is none of them."""
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name in kind.__struct_fields__}


WHOLE = (Op,)
"""Structs that travel as MessagePack inside a message, so that a field of them needs none of protobuf."""


def structs_in(hint: object) -> Iterator[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and hint not in WHOLE:
        yield hint
    for part in typing.get_args(hint):
        yield from structs_in(part)


def reachable() -> list[type[msgspec.Struct]]:
    """Every struct that goes over the wire, the nested ones included."""
    left = [kind for method in METHODS.values() for kind in (method.request, method.reply)]
    left += [HelloRequest, HelloReply]
    found: dict[str, type[msgspec.Struct]] = {}
    while left:
        kind = left.pop()
        if kind.__name__ not in found:
            found[kind.__name__] = kind
            left += [inner for hint in hints_of(kind).values() for inner in structs_in(hint)]
    return [found[name] for name in sorted(found)]


STRUCTS = reachable()
every_struct = pytest.mark.parametrize("kind", STRUCTS, ids=[kind.__name__ for kind in STRUCTS])

INT64 = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.one_of(st.none(), st.booleans(), INT64, st.floats(allow_nan=False), st.text(), st.binary())


@functools.cache
def values_of(hint: object) -> st.SearchStrategy[object]:
    """Values of a field by its annotation alone; knows nothing of messages."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    plain: dict[object, st.SearchStrategy[object]] = {
        int: INT64, str: st.text(), bytes: st.binary(), bool: st.booleans(), object: SCALARS, types.NoneType: st.none(),
    }  # fmt: skip
    if hint in plain:
        return plain[hint]
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values_of(part) for part in arguments))
    if origin is dict:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=3)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    assert isinstance(hint, type)
    assert issubclass(hint, msgspec.Struct)
    fields = {name: values_of(part) for name, part in hints_of(hint).items()}
    return st.builds(hint, **fields) | st.builds(
        hint, **{name: fields[name] for name in required(hint)}
    )  # all fields given; only those that have to be


exactly = msgspec.msgpack.Encoder(order="deterministic").encode


def required(kind: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if field.required]


def there_and_back(value: msgspec.Struct) -> msgspec.Struct:
    return unpack(pack(value), type(value))


@every_struct
@settings(max_examples=25)
@given(data=st.data())
def test_every_struct_survives_the_way_there_and_back(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    value = data.draw(values_of(kind))
    assert isinstance(value, msgspec.Struct)
    back = there_and_back(value)
    assert back == value
    # equal in Python is not the same on the wire: 1 == True == 1.0
    assert exactly(back) == exactly(value)


def test_no_struct_no_message_and_no_field_is_alone() -> None:
    messages = sync_pb2.DESCRIPTOR.message_types_by_name
    assert {kind.__name__ for kind in STRUCTS} == set(messages)
    for kind in STRUCTS:
        message, described = messages[kind.__name__], DescriptorProto()
        message.CopyToProto(described)
        numbers = {field.number for field in message.fields}
        reserved = {number for given in described.reserved_range for number in range(given.start, given.end)}
        assert {field.name for field in message.fields} == set(hints_of(kind)), kind
        assert not numbers & reserved, kind
        assert numbers | reserved == set(range(1, max(numbers, default=0) + 1)), kind


def expected_field(hint: object, default: object) -> tuple[str, bool, bool]:
    """Type, whether it is repeated, whether its absence can be told, as the rule in ``convert`` has it."""
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        rest = tuple(part for part in arguments if part is not type(None))
        (part,) = rest
        name, repeated, _ = expected_field(part, None)
        return name, repeated, not repeated
    plain = {int: "int64", str: "string", bytes: "bytes", bool: "bool"}
    if hint in plain:
        assert isinstance(hint, type)
        return plain[hint], False, default is not msgspec.NODEFAULT and default != hint()
    if typing.get_origin(hint) is typing.Literal:
        return "string", False, default is not msgspec.NODEFAULT
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "bytes" if hint in WHOLE else hint.__name__, False, True
    if hint == dict[str, str]:
        return "InfoEntry", True, False
    if typing.get_origin(hint) is tuple and arguments[-1] is Ellipsis:
        name, repeated, _ = expected_field(arguments[0], msgspec.NODEFAULT)
        if not repeated and (name != "bytes" or arguments[0] is bytes):
            return name, True, False
    return "bytes", False, False


@every_struct
def test_every_field_has_the_type_that_the_rule_gives(kind: type[msgspec.Struct]) -> None:
    names = {FieldDescriptor.TYPE_INT64: "int64", FieldDescriptor.TYPE_STRING: "string"}
    names |= {FieldDescriptor.TYPE_BYTES: "bytes", FieldDescriptor.TYPE_BOOL: "bool"}
    hints = hints_of(kind)
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    for field in sync_pb2.DESCRIPTOR.message_types_by_name[kind.__name__].fields:
        name = names[field.type] if field.message_type is None else field.message_type.name
        empty: object = getattr(getattr(sync_pb2, kind.__name__)(), field.name)
        repeated = isinstance(empty, Sequence | Mapping) and not isinstance(empty, str | bytes)
        found = (name, repeated, field.has_presence)
        assert found == expected_field(hints[field.name], defaults[field.name]), field.full_name


def test_the_service_has_every_method_with_its_types() -> None:
    service = sync_pb2.DESCRIPTOR.services_by_name["Sync"]
    found = {
        method.name: (method.input_type.name, method.output_type.name, method.client_streaming, method.server_streaming)
        for method in service.methods
    }
    assert found.pop("Hello") == ("HelloRequest", "HelloReply", False, False)  # the transport's own
    assert found == {
        name.capitalize(): (method.request.__name__, method.reply.__name__, False, method.streams)
        for name, method in METHODS.items()
    }


def test_what_a_foreign_program_leaves_out_has_the_default() -> None:
    message = sync_pb2.PullRequest(scope="main", client_id=b"c")
    assert unpack(message.SerializeToString(), PullRequest) == PullRequest("main", Cursor(), b"c")
    message.max_changes = 0
    assert unpack(message.SerializeToString(), PullRequest).max_changes == 0
    reply = unpack(sync_pb2.OpenReply(principal="me").SerializeToString(), OpenReply)
    assert (reply.limits, reply.proto) == (Limits(), 1)
    assert unpack(sync_pb2.RemoteOpResult().SerializeToString(), RemoteOpResult).ok
    call = unpack(sync_pb2.WriteCall(idem="k").SerializeToString(), WriteCall)
    assert call == WriteCall((), "k", WriteOptions())


def test_none_and_empty_stay_apart() -> None:
    for query in (b"", encode_query(every_row("notes"))):
        back = there_and_back(QueryCall((RemoteOp(0, "query", "s", query=query),)))
        assert isinstance(back, QueryCall)
        assert back.ops[0].query == query
    for tuples in (None, (), ((),), ((None,), (1,))):
        back = there_and_back(OpsReply((RemoteOpResult(0, tuples=tuples),)))
        assert isinstance(back, OpsReply)
        assert back.results[0].tuples == tuples
    rows: list[dict[str, object] | None] = [None, {}, {"a": None}]
    for row in rows:
        back = there_and_back(OpsReply((RemoteOpResult(0, row=row),)))
        assert isinstance(back, OpsReply)
        assert back.results[0].row == row


def test_two_messages_never_share_an_empty_map() -> None:
    data = pack(RemoteOp(0, "delete", "s"))
    unpack(data, RemoteOp).values["planted"] = 1
    assert unpack(data, RemoteOp).values == {}


def test_what_a_foreign_program_sends_is_read_as_it_means_it() -> None:
    among = ["call", "in", [["col", 0, "y"], ["lit", "int", 1], ["param", 0, "int"]]]
    plan = {"source": ["store", "s"], "where": among, "order": [[["col", 0, "id"], False]], "limit": 3}
    asked = msgspec.msgpack.encode([PLAN_VERSION, plan, [2**40]])
    call = sync_pb2.QueryCall(ops=[sync_pb2.RemoteOp(name="query", store="s", query=asked)])
    (op,) = unpack(call.SerializeToString(), QueryCall).ops
    assert op == RemoteOp(0, "query", "s", query=asked)
    where = Call("in", (Col(0, "y"), Lit("int", 1), Param(0, "int")))
    expected = Plan(Store("s"), where=where, order=(Order(Col(0, "id")),), limit=3)
    assert decode_query(op.query) == BoundQuery(expected, (2**40,))


def test_rows_go_as_one_piece() -> None:
    rows = tuple((number, f"id{number}", "text", None, 1.5) for number in range(1000))
    page = PullReply("s", Cursor(), Cursor(), (StoreChanges("notes", 1, ("id", "a", "b", "c"), rows),))
    message = sync_pb2.PullReply.FromString(pack(page))
    assert message.stores[0].rows == msgspec.msgpack.encode(rows)


@pytest.mark.parametrize(
    "value",
    [
        Hint("main", 2**63),
        Hint("main", -(2**63) - 1),
        Hint("\ud800", 1),
        Hint(5, 1),  # type: ignore[arg-type]
        RemoteOp(0, "insert", "s", values={"a": object()}),
        RemoteOp(0, "insert", "s", values={"a": 2**64}),
        ErrorInfo("a", "b", info={"c": 1}),  # type: ignore[dict-item]
    ],
    ids=["large", "small", "surrogate", "type", "object", "large value", "map"],
)
def test_what_protobuf_cannot_say_is_not_sent(value: msgspec.Struct) -> None:
    with pytest.raises(ProtocolError, match="cannot be sent") as refused:
        pack(value)
    assert not refused.value.maybe_sent


def hostile(message: object) -> bytes:
    return message.SerializeToString()  # type: ignore[attr-defined, no-any-return]


MALFORMED = {
    "truncated": (Hint, pack(Hint("main", 1))[:-1]),
    "wire type": (Hint, b"\x0c"),
    "not utf-8": (Hint, b"\x0a\x01\xff"),
    "status": (Outcome, hostile(sync_pb2.Outcome(status="maybe"))),
    "no status": (Outcome, b""),
    "operation": (RemoteOp, hostile(sync_pb2.RemoteOp(name="drop"))),
    "values": (RemoteOp, hostile(sync_pb2.RemoteOp(name="insert", values=b"\x91\x01"))),
    "value after value": (RemoteOp, hostile(sync_pb2.RemoteOp(name="insert", values=b"\x80\x80"))),
    "deep value": (RemoteOp, hostile(sync_pb2.RemoteOp(name="insert", values=b"\x81\xa1a" + b"\x91" * 100_000))),
    "text of bytes": (RemoteOp, hostile(sync_pb2.RemoteOp(name="insert", values=b"\x81\xa1a\xa1\xff"))),
    "date": (RemoteOp, hostile(sync_pb2.RemoteOp(name="insert", values=b"\x81\xa1a\xc7\x0c\xff" + b"\xff" * 12))),
    "rows": (StoreChanges, hostile(sync_pb2.StoreChanges(rows=b"\x91\x01"))),
    "deletes": (StoreChanges, hostile(sync_pb2.StoreChanges(deletes=msgspec.msgpack.encode([("a", 1)])))),
}


@pytest.mark.parametrize(("kind", "data"), MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_is_one_typed_error(kind: type[msgspec.Struct], data: bytes) -> None:
    with pytest.raises(ProtocolError, match=f"malformed {kind.__name__}"):
        unpack(data, kind)


@every_struct
@settings(max_examples=20)
@given(noise=st.binary(max_size=60))
@example(noise=b"")
def test_noise_is_a_struct_or_a_typed_error(kind: type[msgspec.Struct], noise: bytes) -> None:
    try:
        assert isinstance(unpack(noise, kind), kind)
    except ProtocolError:
        pass


@given(
    value=values_of(WriteCall) | values_of(QueryCall) | values_of(PullReply),
    cuts=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_damage_is_a_struct_or_a_typed_error(value: msgspec.Struct, cuts: list[tuple[int, bytes]]) -> None:
    data = bytearray(pack(value))
    for place, patch in cuts:
        place %= len(data) + 1
        data[place : place + 1] = patch
    try:
        unpack(bytes(data), type(value))
    except ProtocolError:
        pass
