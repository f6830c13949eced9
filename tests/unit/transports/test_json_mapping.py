"""Messages as JSON: fixed texts, any message there and back, and what is refused."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import WriteOptions
from atoma.contracts.presence import AppearReply, AppearRequest, PresenceChange, PresenceRequest, Present
from atoma.contracts.sync import (
    Conflict,
    Cursor,
    Hint,
    Mutation,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    Outcome,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    ScopeStatus,
    SnapshotReply,
    SnapshotRequest,
    StoreChanges,
)
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.errors import ProtocolError
from atoma.query import bind, col, select
from atoma.query.seek import cursor_of
from atoma.schema import Schema, StoreSpec
from atoma_transports.adapters import METHODS
from atoma_transports.http.envelope import Cancel, Failure
from atoma_transports.protocol import (
    OpsReply,
    QueryCall,
    RemoteOp,
    RemoteOpResult,
    ResolveCall,
    ResolveReply,
    Rows,
    WriteCall,
)
from atoma_transports.protocol.json_mapping import decode_json, encode_json
from atoma_transports.protocol.json_text import parse_json
from atoma_transports.protocol.plans import encode_query
from tests.unit.transports.any_value import strategy

VECTORS = Path(__file__).with_name("json_vectors.json")
CURSOR = Cursor(bytes(range(16)), 2**53 + 1, b"\xff\xfe\xfd")
ERROR = ErrorInfo("CONFLICT", "somebody was faster: “ü”", True, 1500, {"store": "cards", "id": "1"})
VALUES: dict[str, object] = {
    "text": 'quotes " \\ \n\u2028 and 😀',
    "whole": 42,
    "large": 2**53,
    "small": -(2**63),
    "edge": 2**53 - 1,
    "real": 1.5,
    "round": 1.0,
    "tiny": 5e-324,
    "minus": -0.0,
    "endless": math.inf,
    "blob": b"\x00\xff\xfe",
    "empty": b"",
    "yes": True,
    "nothing": None,
}
ROWS = StoreChanges("cards", 3, ("id", *VALUES), ((7, "c1", *VALUES.values()),), ((2**60, "gone"),))
CONFLICT = Conflict("cards", "c1", ("title",), ("lane",), "lww", {"title": "theirs"}, 6)
OUTCOMES = (
    Outcome(1, "applied", "main", 7),
    Outcome(2, "merged", "main", 8, duplicate=True, conflicts=(CONFLICT,)),
    Outcome(3, "rejected", "main", error=ERROR),
)


@dataclass(frozen=True)
class Card:
    id: str
    title: str | None
    lane: str
    size: int
    face: bytes
    weight: float


CARDS = StoreSpec("cards", Card)
SCHEMA = Schema(CARDS)
ASKED = (
    select(CARDS)
    .where((col("lane") == "todo") | (col("size") >= 2**62) | (col("face") < b"\x01"))
    .where(~col("title").is_null(), col("weight").in_([0.5, 1, math.inf]), col("title").like("%ü\\_%"))
    .order_by("title", "-size")
    .limit(50)
    .offset(10)
)
LAST = StoredRow("c1", 1, 1, "main", {"title": "ü", "size": 2**55})
QUERY = bind(ASKED.after(cursor_of(bind(ASKED, SCHEMA), LAST)), SCHEMA)
FOUND = Rows(tuple(VALUES), (("c1", 3, 7, "main", *VALUES.values()),))

MESSAGES: dict[str, msgspec.Struct] = {
    "open.request": OpenRequest(b"client", 2, 3, b"\x01" * 8, ("main", "ünï"), 4, 5, b"hub"),
    "open.reply": OpenReply(
        b"hub", b"epoch", "alice", 4, b"\x02" * 4, (ScopeStatus("main", 9, 1), ScopeStatus("ünï", error=ERROR))
    ),
    "push.request": PushRequest(b"client", 2, (Mutation(5, b"\x81\xa3mid\x05", b"\xaa" * 3),), b"\x00", 4),
    "push.reply": PushReply(OUTCOMES, 3, ERROR),
    "pull.request": PullRequest("main", CURSOR, b"client", 4),
    "pull.reply": PullReply("main", CURSOR, Cursor(b"e", 2**63 - 1, b""), (ROWS,), True, 10, OUTCOMES[:1]),
    "snapshot.request": SnapshotRequest("main", b"client", b"\xfbtoken"),
    "snapshot.reply": SnapshotReply("main", CURSOR, (ROWS,), b"", True),
    "notify.request": NotifyRequest(("main", "other")),
    "notify.reply": Hint("main", 2**53 + 1),
    "presence.request": PresenceRequest("main", bytes(range(16)), 2**53 + 1, '{"card":"ü"}'),
    "presence.reply": PresenceChange((Present("0123456789abcdef", "ann", "{}"),), ("fedcba9876543210",), whole=True),
    "appear.request": AppearRequest("main", bytes(range(16)), 3),
    "appear.reply": AppearReply(known=False),
    "query.request": QueryCall((RemoteOp(0, "query", "cards", query=encode_query(QUERY)),), "trace-1"),
    "query.reply": OpsReply(
        (RemoteOpResult(0, found=FOUND, cursor="next"), RemoteOpResult(1, tuples=((2**60, None, b"\xff", "ü"),)))
    ),
    "write.request": WriteCall(
        (
            RemoteOp(0, "insert", "cards", "c1", scope="main", values=VALUES),
            RemoteOp(1, "upsert", "cards", "c2", b"", "main", {"lane": "done"}, 3, True, {"title": "new"}),
        ),
        "idem-1",
        WriteOptions("strict", True, "full", (("cards", "c1", 2**54), ("cards", "c9", None))),
        "trace-1",
    ),
    "write.reply": OpsReply(
        (RemoteOpResult(0, "c1", True, True, 4, VALUES), RemoteOpResult(1, "c2", False, error=ERROR))
    ),
    "resolve.request": ResolveCall("idem-1", "trace-1"),
    "resolve.reply": ResolveReply(False, (RemoteOpResult(0, "c1", True, True, 4),)),
    "error": Failure(ERROR),
    "cancel": Cancel("0123456789abcdef", (1, 2)),
}


def vectors() -> dict[str, str]:
    """Name → text, as they are in the file: one to a line."""
    text = VECTORS.read_text()
    assert isinstance(msgspec.json.decode(text), dict)
    return dict(re.findall(r'^  "([a-z.]+)": (.*?),?$', text, re.MULTILINE))


def test_every_method_has_a_fixed_text() -> None:
    expected = {f"{name}.{side}" for name in METHODS for side in ("request", "reply")}
    assert expected | {"error", "cancel"} == MESSAGES.keys() == vectors().keys()
    for name, method in METHODS.items():
        assert type(MESSAGES[f"{name}.request"]) is method.request
        assert type(MESSAGES[f"{name}.reply"]) is method.reply


@pytest.mark.parametrize("name", MESSAGES)
def test_the_text_is_fixed_in_both_directions(name: str) -> None:
    message, text = MESSAGES[name], vectors()[name]
    assert encode_json(message).decode() == text
    assert decode_json(text.encode(), type(message)) == message
    assert decode(encode(message), type(message)) == message


KINDS = sorted(
    {kind for method in METHODS.values() for kind in (method.request, method.reply)}, key=lambda k: k.__name__
)


@given(st.sampled_from(KINDS).flatmap(lambda kind: strategy(inspect.type_info(kind))))
def test_any_message_comes_back_the_same_as_through_msgpack(message: object) -> None:
    assert isinstance(message, msgspec.Struct)
    text = encode_json(message)
    back = decode_json(text, type(message))
    assert encode(back) == encode(message)  # the types as well: 1 is not 1.0, nor True
    assert encode_json(back) == text


def reread(value: object) -> object:
    """``value`` through a column, as JSON."""
    message = RemoteOp(0, "insert", "s", values={"v": value})
    return decode_json(encode_json(message), RemoteOp).values["v"]


def text_of(value: object) -> str:
    message = RemoteOp(0, "insert", "s", values={"v": value})
    return encode_json(message).decode().partition('"values":{"v":')[2][:-2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**53 - 1, "9007199254740991"),
        (-(2**53) + 1, "-9007199254740991"),
        (2**53, '{"$i":"9007199254740992"}'),
        (-(2**53), '{"$i":"-9007199254740992"}'),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (b"\xfb\xff", '{"$x":"-_8"}'),
        (b"", '{"$x":""}'),
        (math.inf, '{"$f":"Infinity"}'),
        (-math.inf, '{"$f":"-Infinity"}'),
        (True, "true"),
        (None, "null"),
        ("$x", '"$x"'),
    ],
)
def test_free_values(value: object, text: str) -> None:
    assert text_of(value) == text
    back = reread(value)
    assert (back, type(back), str(back)) == (value, type(value), str(value))


def test_what_is_no_number_has_a_tag() -> None:
    assert text_of(math.nan) == '{"$f":"NaN"}'
    back = reread(math.nan)
    assert isinstance(back, float)
    assert math.isnan(back)


@pytest.mark.parametrize("value", [[1], {"a": 1}, {"$x": "AA"}, {1}, 2 + 1j])
def test_a_column_holds_no_list_and_no_map(value: object) -> None:
    with pytest.raises(ProtocolError, match="no column can hold"):
        text_of(value)


def op(values: str) -> bytes:
    return b'{"index":0,"name":"insert","store":"s","values":{"v":%s}}' % values.encode()


@pytest.mark.parametrize(
    "values",
    [
        "[]",
        "[1]",
        "{}",
        '{"$y":1}',
        '{"a":"b"}',
        '{"$i":"1","$x":"AA"}',
        '{"$i":1}',
        '{"$i":"01"}',
        '{"$i":"+1"}',
        '{"$i":"-0"}',
        '{"$i":" 1"}',
        '{"$i":"1_0"}',
        '{"$i":"٣"}',
        '{"$i":"9223372036854775808"}',
        '{"$i":null}',
        '{"$f":"nan"}',
        '{"$f":1.5}',
        '{"$f":["NaN"]}',
        '{"$x":"A"}',
        '{"$x":"AA=="}',
        '{"$x":"A/=="}',
        '{"$x":"+/8"}',
        '{"$x":"AB"}',
        '{"$x":"A A"}',
        '{"$x":"ü"}',
        '{"$x":5}',
        "9223372036854775808",
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "1" * 41,
        "0." + "1" * 40,
        r'"\ud800"',
        r'"\udc00\ud800"',
        r'"\uD83Dx"',
        '"\t"',
        '"' + "\x00" + '"',
        '{"$x":"AA","$x":"AA"}',
        "01",
        "1.",
        ".5",
        "'a'",
        "",
    ],
)
def test_hostile_values_are_refused(values: str) -> None:
    with pytest.raises(ProtocolError):
        decode_json(op(values), RemoteOp)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe{\x00",
        b"\xef\xbb\xbf{}",
        b'{"scope":"a","head":1}x',
        b'{"scope":"a","head":1,"head":2}',
        b'{"scope":"a","head":1,"more":2}',
        b'{"scope":"a"}',
        b'{"scope":null,"head":1}',
        b'{"scope":1,"head":1}',
        b'{"scope":"a","head":true}',
        b'{"scope":"a","head":1.0}',
        b'{"scope":"a","head":"1.0"}',
        b'{"scope":"a","head":""}',
        b'{"scope":"a","head":"0x1"}',
        b'{"scope":"a","head":"9223372036854775808"}',
        b'{"scope":"a","head":[1]}',
        b'{"scope":"\xed\xa0\x80","head":1}',
        b"{" * 100_000,
        b"[" * 1_000_000,
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'"' + b'\\"' * 200_000,
    ],
)
def test_hostile_texts_are_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_json(text, Hint)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"ops":[{"index":0,"name":"drop","store":"s"}]}', "ops.0.name: expected one of"),
        (
            '{"ops":[{"index":0,"name":"query","store":"s","query":{}}]}',
            "ops.0.query: a query is an object with a plan",
        ),
        (
            '{"ops":[{"index":0,"name":"query","store":"s","query":{"plan":{},"where":1}}]}',
            "ops.0.query: a query is an object with a plan",
        ),
        (
            '{"ops":[{"index":0,"name":"query","store":"s","query":"SELECT 1"}]}',
            "ops.0.query: expected an object with a plan",
        ),
        (
            '{"ops":[{"index":0,"name":"query","store":"s","query":{"plan":{"where":{"b":{"$x":5}}}}}]}',
            "ops.0.query: expected bytes as base64url",
        ),
        ('{"ops":{},"trace_id":""}', "QueryCall.ops: expected a list"),
        ('{"ops":[],"trace_id":[]}', "trace_id: expected text"),
        ('{"ops":[],"secret":1}', "has no field 'secret'"),
        ('{"trace_id":""}', "lacks ops"),
    ],
)
def test_an_error_says_where(text: str, where: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_json(text.encode(), QueryCall)
    assert where in str(refused.value)


def test_numbers_are_taken_where_integers_are_texts() -> None:
    assert (
        decode_json(b'{"scope":"a","head":7}', Hint) == decode_json(b'{"head":"7","scope":"a"}', Hint) == Hint("a", 7)
    )
    assert encode_json(Hint("a", 7)) == b'{"scope":"a","head":"7"}'


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (nested(80), False),
        (nested(81), True),
        (b"[" + b",".join([nested(31)] * 50) + b"]", False),
        (b'["' + b"[" * 100 + b'"]', False),
        (rb'["\"' + b"[" * 100 + b'"]', False),
        (rb'["\\",' + nested(80) + b"]", True),
        (b"[" + b"1" * 40 + b"]", False),
        (b"[-" + b"1" * 40 + b"]", False),
        (b'["' + b"1" * 400 + b'"]', False),
        (rb'["\ud83d\ude00"]', False),
        (rb'["\\ud800"]', False),
    ],
)
def test_how_deep_and_how_long(text: bytes, refused: bool) -> None:
    def read(parse: Callable[[bytes], object]) -> bool:
        try:
            parse(text)
        except ProtocolError:
            return True
        return False

    assert read(parse_json) is refused


@given(st.binary(max_size=200))
def test_any_noise_is_a_protocol_error_or_a_message(noise: bytes) -> None:
    for data in (noise, b'{"scope":"' + noise, b'{"scope":"a","head":' + noise + b"}"):
        with contextlib.suppress(ProtocolError):
            assert isinstance(decode_json(data, Hint), Hint)
