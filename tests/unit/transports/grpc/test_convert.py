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
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atoma.contracts.execution import WriteOptions
from atoma.contracts.query import And, Compare, In, IsNull, Like, Not, Or, Predicate, QuerySpec, Sort
from atoma.contracts.sync import Cursor, Hint, Limits, OpenReply, Outcome, PullReply, PullRequest, StoreChanges
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma_transports.grpc.convert import pack, unpack
from atoma_transports.grpc.greeting import HelloReply, HelloRequest
from atoma_transports.grpc.v1 import sync_pb2
from atoma_transports.protocol import METHODS, OpsReply, QueryCall, RemoteOp, RemoteOpResult, WriteCall

WRAPPING = {
    "Predicate",
    "Strings",
}  # messages that say what protobuf has no word for: a union, a list that may be absent


def hints_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The types of a struct's fields; what belongs to the class is none of them."""
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name in kind.__struct_fields__}


def structs_in(hint: object) -> Iterator[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
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
LEAVES: st.SearchStrategy[object] = st.one_of(
    st.builds(Compare, st.sampled_from(typing.get_args(hints_of(Compare)["op"])), st.text(), SCALARS),
    st.builds(In, st.text(), st.lists(SCALARS, max_size=3).map(tuple)),
    st.builds(IsNull, st.text()),
    st.builds(Like, st.text(), st.text()),
)
PREDICATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, inner), *(st.builds(kind, st.lists(inner, max_size=3).map(tuple)) for kind in (And, Or))
    ),
    max_leaves=5,
)


@functools.cache
def values_of(hint: object) -> st.SearchStrategy[object]:
    """Values of a field by its annotation alone; knows nothing of messages."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    plain: dict[object, st.SearchStrategy[object]] = {
        int: INT64, str: st.text(), bytes: st.binary(), bool: st.booleans(), object: SCALARS, types.NoneType: st.none(),
    }  # fmt: skip
    if hint in plain:
        return plain[hint]
    if hint == Predicate:
        return PREDICATES
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        if Predicate.__args__[0] in arguments:  # type: ignore[attr-defined]
            return st.one_of(st.none(), PREDICATES)
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
    assert {kind.__name__ for kind in STRUCTS} | WRAPPING == set(messages)
    for kind in STRUCTS:
        fields = messages[kind.__name__].fields
        assert [field.name for field in fields] == list(hints_of(kind)), kind
        assert [field.number for field in fields] == list(range(1, len(fields) + 1)), kind
    kinds = {field.message_type.name for field in messages["Predicate"].fields if field.message_type is not None}
    assert kinds == {struct.__name__ for struct in typing.get_args(Predicate)}


def expected_field(hint: object, default: object) -> tuple[str, bool, bool]:
    """Type, whether it is repeated, whether its absence can be told, as the rule in ``convert`` has it."""
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        rest = tuple(part for part in arguments if part is not type(None))
        name, repeated, _ = expected_field(rest[0] if len(rest) == 1 else typing.Union[rest], None)  # noqa: UP007
        return ("Strings", False, True) if repeated else (name, False, True)
    plain = {int: "int64", str: "string", bytes: "bytes", bool: "bool"}
    if hint in plain:
        assert isinstance(hint, type)
        return plain[hint], False, default is not msgspec.NODEFAULT and default != hint()
    if typing.get_origin(hint) is typing.Literal:
        return "string", False, default is not msgspec.NODEFAULT
    if hint == Predicate:
        return "Predicate", False, True
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint.__name__, False, True
    if hint == dict[str, str]:
        return "InfoEntry", True, False
    if typing.get_origin(hint) is tuple and arguments[-1] is Ellipsis:
        name, _, _ = expected_field(arguments[0], msgspec.NODEFAULT)
        if name != "bytes" or arguments[0] is bytes:
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
    for spec in (QuerySpec(), QuerySpec(after=(), ids=(), limit=0), QuerySpec(after=(None,), ids=("",))):
        back = there_and_back(QueryCall((RemoteOp(0, "query", "s", query=spec),)))
        assert isinstance(back, QueryCall)
        assert back.ops[0].query == spec
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
    where = sync_pb2.Predicate(
        all_of=sync_pb2.And(
            items=[
                sync_pb2.Predicate(compare=sync_pb2.Compare(op="ge", field="age", value=msgspec.msgpack.encode(18))),
                sync_pb2.Predicate(none_of=sync_pb2.Not(item=sync_pb2.Predicate(is_null=sync_pb2.IsNull(field="x")))),
                sync_pb2.Predicate(in_list=sync_pb2.In(field="y", values=msgspec.msgpack.encode([1, None]))),
                sync_pb2.Predicate(any_of=sync_pb2.Or()),
                sync_pb2.Predicate(like=sync_pb2.Like(field="z", pattern="a%")),
            ]
        )
    )
    spec = sync_pb2.QuerySpec(where=where, order=[sync_pb2.Sort(field="id")], limit=3)
    call = sync_pb2.QueryCall(ops=[sync_pb2.RemoteOp(name="query", store="s", query=spec)])
    assert unpack(call.SerializeToString(), QueryCall) == QueryCall(
        (
            RemoteOp(
                0,
                "query",
                "s",
                query=QuerySpec(
                    And((Compare("ge", "age", 18), Not(IsNull("x")), In("y", (1, None)), Or(()), Like("z", "a%"))),
                    (Sort("id"),),
                    3,
                ),
            ),
        )
    )


def test_rows_go_as_one_piece() -> None:
    rows = tuple((number, f"id{number}", "text", None, 1.5) for number in range(1000))
    page = PullReply("s", Cursor(), Cursor(), (StoreChanges("notes", 1, ("id", "a", "b", "c"), rows),))
    message = sync_pb2.PullReply.FromString(pack(page))
    assert message.stores[0].rows == msgspec.msgpack.encode(rows)


def nested(depth: int) -> QueryCall:
    where: Predicate = IsNull("a")
    for _ in range(depth - 1):
        where = Not(where)
    return QueryCall((RemoteOp(0, "query", "s", query=QuerySpec(where)),))


def test_a_filter_as_deep_as_the_protocol_allows_passes() -> None:
    assert there_and_back(nested(32)) == nested(32)
    with pytest.raises(ProtocolError, match="malformed QueryCall"):
        there_and_back(nested(100))


@pytest.mark.parametrize(
    "value",
    [
        Hint("main", 2**63),
        Hint("main", -(2**63) - 1),
        Hint("\ud800", 1),
        Hint(5, 1),  # type: ignore[arg-type]
        nested(100_000),
        RemoteOp(0, "insert", "s", values={"a": object()}),
        RemoteOp(0, "insert", "s", values={"a": 2**64}),
        ErrorInfo("a", "b", info={"c": 1}),  # type: ignore[dict-item]
    ],
    ids=["large", "small", "surrogate", "type", "deep", "object", "large value", "map"],
)
def test_what_protobuf_cannot_say_is_not_sent(value: msgspec.Struct) -> None:
    with pytest.raises(ProtocolError, match="cannot be sent") as refused:
        pack(value)
    assert not refused.value.maybe_sent


def hostile(message: object) -> bytes:
    return message.SerializeToString()  # type: ignore[attr-defined, no-any-return]


def deep_filter() -> bytes:
    """``Not(Not(Not(…)))`` as bytes, deeper than protobuf itself reads."""
    data = b""
    for number in range(200):
        length = len(data)
        size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
        data = (b"\x3a" if number % 2 else b"\x0a") + size + data
    return b"\x0a" + bytes([len(data) & 127 | 128, len(data) >> 7]) + data


MALFORMED = {
    "truncated": (Hint, pack(Hint("main", 1))[:-1]),
    "wire type": (Hint, b"\x0c"),
    "not utf-8": (Hint, b"\x0a\x01\xff"),
    "status": (Outcome, hostile(sync_pb2.Outcome(status="maybe"))),
    "no status": (Outcome, b""),
    "operation": (RemoteOp, hostile(sync_pb2.RemoteOp(name="drop"))),
    "empty filter": (Not, hostile(sync_pb2.Not())),
    "no value": (Compare, hostile(sync_pb2.Compare(op="eq", field="a"))),
    "value": (Compare, hostile(sync_pb2.Compare(op="eq", field="a", value=b"\xc1"))),
    "values": (RemoteOp, hostile(sync_pb2.RemoteOp(name="insert", values=b"\x91\x01"))),
    "value after value": (RemoteOp, hostile(sync_pb2.RemoteOp(name="insert", values=b"\x80\x80"))),
    "deep value": (RemoteOp, hostile(sync_pb2.RemoteOp(name="insert", values=b"\x81\xa1a" + b"\x91" * 100_000))),
    "text of bytes": (RemoteOp, hostile(sync_pb2.RemoteOp(name="insert", values=b"\x81\xa1a\xa1\xff"))),
    "date": (RemoteOp, hostile(sync_pb2.RemoteOp(name="insert", values=b"\x81\xa1a\xc7\x0c\xff" + b"\xff" * 12))),
    "rows": (StoreChanges, hostile(sync_pb2.StoreChanges(rows=b"\x91\x01"))),
    "deletes": (StoreChanges, hostile(sync_pb2.StoreChanges(deletes=msgspec.msgpack.encode([("a", 1)])))),
    "deep filter": (Not, deep_filter()),
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
