"""The bytes of the golden commit: today's code reads them as what they were, and writes what that commit can read.

The protocol grows by appending only. Who adds a field gives it a default: then every test here stays green but the ones
that compare bytes, and the message goes into ``GREW`` with the reason.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from atoma.contracts.codec import decode
from atoma.contracts.mutations import MutationBody, Op
from atoma.contracts.sync import Mutation, PushRequest
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma_transports.adapters import METHODS
from atoma_transports.adapters.operations import query_request, write_request
from atoma_transports.calls.fairness import Fairness, Share
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.frames.envelope import KINDS
from atoma_transports.grpc.messages import TRAILER as TRAILER_NAME
from atoma_transports.grpc.messages import info_from, status_of
from atoma_transports.http.batches import read_batch
from atoma_transports.http.envelope import AS_JSON, AS_MSGPACK, CallReply
from atoma_transports.protocol import QueryCall, WriteCall
from tests.fuzz.grammar import MESSAGES as KNOWN
from tests.golden.messages import BODY, ENCODINGS, ERROR, MESSAGES, ROW, TRAILER, frame_of, load, written
from tests.golden.old import FOLDER

GOLDEN = load((FOLDER / "messages.json").read_text(encoding="utf-8"))
PLACES = "where a client is in its scopes, and where its history leaves the hub's"
PROOF = "the proof that a scope was at the end of a page"
PLANS = "queries travel as plans; their form of before is refused in words, while push and pull go on"
GREETING = "what a hub understands of queries"
REFUSED = ("QueryCall", "QueryCall, by id", "QueryCall, count", "OpsReply, of a query")
"""Messages whose golden bytes are not read any more."""
ADDED = ("PresenceRequest", "PresenceChange", "AppearRequest", "AppearReply")
"""Messages that the golden commit has not."""
ADDED_METHODS = ("presence", "appear")
VERSION = "the version of the schema in which a client reads what is answered"
ASKED = ("PushRequest", "PullRequest", "SnapshotRequest")
VIEW = "which rows a position is about"
GREW: dict[tuple[str, str], str] = {
    **{(encoding, message): PLANS for encoding in ENCODINGS for message in REFUSED},
    ("frames", "call query"): PLANS,
    ("http", "batch in msgpack"): PLANS,
    ("http", "batch in json"): PLANS,
    **{
        (encoding, f"{message}{least}"): reason
        for encoding in ("msgpack",)
        for message, reason in (("OpenRequest", PLACES), ("OpenReply", PLACES), ("PullReply", PROOF))
        for least in ("", ", least")
    },
    **{("msgpack", f"{message}{least}"): VERSION for message in ASKED for least in ("", ", least")},
    **{("msgpack", f"SnapshotReply{least}"): VIEW for least in ("", ", least")},
    ("frames", "reply snapshot"): VIEW,
    ("frames", "call push"): VERSION,
    ("frames", "call pull"): VERSION,
    ("frames", "call snapshot"): VERSION,
    ("protobuf", "OpenReply"): PLACES,
    ("protobuf", "OpenReply, least"): PLACES,
    ("frames", "call open"): PLACES,
    ("frames", "reply open"): PLACES,
    ("frames", "reply pull"): PROOF,
    ("msgpack", "Welcome"): GREETING,
    ("msgpack", "Welcome, least"): GREETING,
    ("frames", "welcome"): GREETING,
    ("protobuf", "HelloReply"): GREETING,
    ("protobuf", "HelloReply, least"): GREETING,
}
"""What is written otherwise today, by encoding and message, with the reason; the old bytes are read all the same."""

every = pytest.mark.parametrize(
    ("encoding", "name"),
    [(encoding, name) for encoding in ENCODINGS for name in GOLDEN[encoding] if name not in REFUSED],
)


@every
def test_golden_bytes_mean_what_they_meant(encoding: str, name: str) -> None:
    message = MESSAGES[name]
    assert ENCODINGS[encoding].read(GOLDEN[encoding][name], type(message)) == message


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith("QueryCall")])
def test_a_golden_query_is_refused_and_said_to_be_one(encoding: str, name: str) -> None:
    with pytest.raises(ProtocolError, match=r"query"):
        call = ENCODINGS[encoding].read(GOLDEN[encoding][name], QueryCall)
        assert isinstance(call, QueryCall)
        query_request(call, 0.0)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_golden_write_is_the_operations_that_it_meant(encoding: str) -> None:
    """A device of before spells them out; its write may be on its way while its hub is replaced."""
    call = ENCODINGS[encoding].read(GOLDEN[encoding]["WriteCall"], WriteCall)
    assert isinstance(call, WriteCall)
    assert write_request(call, 0.0).entries == (
        Op("create", "cards", "c1", ROW, scope="main"),
        Op("patch", "cards", "c1", {"int": 1}, base_version=7),
        Op("replace", "cards", "c2", {"int": 2}),
        Op("upsert", "cards", "c3", {"int": 2}, {"text": ""}),
        Op("delete", "cards", "c1"),
    )


@pytest.mark.parametrize("group", GOLDEN)
def test_what_is_written_today_are_the_golden_bytes(group: str) -> None:
    today = written()[group]
    changed = {name for name, data in GOLDEN[group].items() if today[name] != data}
    assert changed == {name for of, name in GREW if of == group}


def test_there_are_golden_bytes_of_every_message() -> None:
    """What was added since has no golden bytes; what there was has."""
    assert {type(message).__name__ for message in MESSAGES.values()} >= KNOWN.keys() | {"HelloRequest", "HelloReply"}
    for encoding, of in GOLDEN.items():
        if encoding in ENCODINGS:
            lacks = {kind.__name__ for kind in ENCODINGS[encoding].lacks}
            known = {name.partition(",")[0] for name in MESSAGES} - lacks - set(ADDED)
            assert {name.partition(",")[0] for name in of} == known


def test_a_golden_mutation_keeps_its_digest() -> None:
    """Bodies are encoded once: what lies in an outbox is pushed as it is, and has to be read for ever."""
    request = ENCODINGS["msgpack"].read(GOLDEN["msgpack"]["PushRequest"], PushRequest)
    assert isinstance(request, PushRequest)
    (mutation,) = request.mutations
    assert isinstance(mutation, Mutation)
    assert mutation.body == GOLDEN["msgpack"]["MutationBody"]
    assert decode(mutation.body, MutationBody) == BODY
    assert hashlib.sha256(mutation.body).hexdigest().startswith("cae24ad985adfc19")


def test_golden_frames_mean_what_they_meant() -> None:
    frames = {name: frame_of(data) for name, data in GOLDEN["frames"].items()}
    assert {frame.kind for frame in frames.values()} == KINDS
    for name, method in METHODS.items():
        if name in ADDED_METHODS:
            continue
        if method.streams:
            asked, told = frames[f"stream {name}"], frames[f"item {name}"]
            assert (asked.kind, asked.credit, told.kind) == ("stream", 64, "item")
        else:
            asked, told = frames[f"call {name}"], frames[f"reply {name}"]
            assert (asked.kind, asked.credit, told.kind) == ("call", 0, "reply")
        assert (asked.id, asked.method, asked.budget_ms, asked.trace_id) == (7, name, 2**40, "trace")
        if name != "query":
            assert decode(asked.payload, method.request) == MESSAGES[method.request.__name__]
        assert (told.id, told.method, told.budget_ms) == (7, "", -1)
        assert decode(told.payload, method.reply) == MESSAGES[method.reply.__name__]
    for name, kind, id, payload in (
        ("auth", "auth", 0, MESSAGES["Auth"]),
        ("welcome", "welcome", 0, MESSAGES["Welcome"]),
        ("error", "error", 7, ERROR),
        ("error of the connection", "error", 0, ERROR),
    ):
        assert (frames[name].kind, frames[name].id) == (kind, id)
        assert decode(frames[name].payload, type(payload)) == payload
    assert (frames["credit"].id, frames["credit"].credit) == (8, 64)
    assert [
        (frames[name].kind, frames[name].id, frames[name].payload) for name in ("cancel", "end", "ping", "pong")
    ] == [
        ("cancel", 7, b""),
        ("end", 8, b""),
        ("ping", 2**53, b""),
        ("pong", 2**53, b""),
    ]


@pytest.mark.parametrize(("name", "encoding"), [("msgpack", AS_MSGPACK), ("json", AS_JSON)])
async def test_a_golden_batch_means_what_it_meant(name: str, encoding: Any) -> None:
    several = await read_batch(
        encoding, GOLDEN["http"][f"batch in {name}"], float("inf"), Share(Fairness(), ChannelLimits())
    )
    assert several.id == "0123456789abcdef"
    for id, (method, kind) in enumerate([("pull", "PullRequest"), ("query", "QueryCall")]):
        call = several.calls[id]
        assert (call.head.method, call.head.budget_ms, call.head.trace_id) == (method, 1500, "trace")
        if kind not in REFUSED:
            assert call.read(type(MESSAGES[kind])) == MESSAGES[kind]


def records(body: bytes) -> list[tuple[str, bytes]]:
    """The records of a body: a byte of kind, four of length, the payload."""
    found = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        found.append((body[:1].decode(), body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def test_golden_answers_over_http_mean_what_they_meant() -> None:
    replies = records(GOLDEN["http"]["answers of a batch"])
    assert [kind for kind, _ in replies] == ["i", "p", "i", "z"]
    first, second = (decode(data, CallReply) for kind, data in replies if kind == "i")
    assert isinstance(first.ok, msgspec.Raw)
    assert decode(bytes(first.ok), type(MESSAGES["OpsReply"])) == MESSAGES["OpsReply"]
    assert (first.id, second.id, second.error) == (1, 2, ERROR)
    (hint, failure) = records(GOLDEN["http"]["a stream that fails"])
    assert (hint[0], decode(hint[1], type(MESSAGES["Hint"]))) == ("i", MESSAGES["Hint"])
    assert (failure[0], decode(failure[1], ErrorInfo)) == ("e", ERROR)
    event = GOLDEN["http"]["event hint"].decode()
    assert event.startswith("event: hint\n")
    assert event.endswith("\n\n")


def test_a_golden_trailer_means_what_it_meant() -> None:
    assert info_from(status_of(ERROR), "", {TRAILER_NAME: GOLDEN["trailer"][TRAILER]}) == ERROR
