"""Every decoder that reads bytes of a peer: how to feed it, and which errors it may raise.

The grammar (`valid`, `wrong`) makes examples for `dev.py test` and seeds for the coverage-guided programs, which call
`read` with bytes of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import h11
import msgspec
import trio
from hypothesis import strategies as st

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import OperationContext, QueryRequest, ResolveRequest, WriteOptions, WriteRequest
from atoma.contracts.sync import PullRequest
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ChannelBroken, ProtocolError, QueryError, RemoteError, UnknownStore
from atoma.ports import Peer
from atoma.query.normal import rebind
from atoma.testing.queries import count_of, rows_of
from atoma_transports.adapters import METHODS
from atoma_transports.adapters.operations import OperationAdapter, query_request, write_request
from atoma_transports.calls.call import BUDGET_MS_MAX, ID_MAX, TRACE_LENGTH_MAX
from atoma_transports.calls.errors import error_of, info_of
from atoma_transports.calls.fairness import Fairness, Share
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.frames.envelope import (
    CREDIT_MAX,
    FRAME_VERSION,
    KINDS,
    NAME_LENGTH_MAX,
    decode_frame,
    encode_frame,
)
from atoma_transports.grpc._driver.calls import read_timeout
from atoma_transports.grpc.convert import pack, unpack
from atoma_transports.grpc.messages import HelloReply, HelloRequest, info_from, status_of, trailer_of
from atoma_transports.http.answers import RefusedRequest
from atoma_transports.http.asked import read_head
from atoma_transports.http.batches import Several, read_batch
from atoma_transports.http.calls import from_query
from atoma_transports.http.client.messages import RecordReader, RecordsEnded, refused
from atoma_transports.http.envelope import AS_JSON, AS_MSGPACK, JSON, MSGPACK, CallReply, Failure, pack_record
from atoma_transports.http.messages import HttpError
from atoma_transports.http.wire import HEADER_BYTES_MAX
from atoma_transports.protocol import OpsReply, QueryCall, ResolveReply, Rows, WriteCall, unpack_rows
from atoma_transports.protocol.json_mapping import decode_json, encode_json, to_json
from atoma_transports.protocol.json_text import DEPTH_MAX, parse_json
from atoma_transports.protocol.plans import decode_query, encode_query, from_plain, to_plain
from atoma_transports.serving.addresses import host_check
from atoma_transports.serving.handlers import Hosting
from atoma_transports.serving.head import fields_by_name, head_fields, head_target, refusal_of, same_site
from atoma_transports.websocket.pipe import close_error, close_words
from tests.fuzz.grammar import FRAME_KINDS, INT64, MESSAGES, TEXT, messages
from tests.fuzz.hostile import damaged, twisted, twisted_json, twisted_msgpack, twisted_protobuf
from tests.fuzz.spelling import Node, write_json, write_msgpack
from tests.fuzz.stage import SCHEMA
from tests.unit.transports.any_value import QUERIES

T = TypeVar("T")

SIZE_MAX = ChannelLimits().frame_bytes
CONTEXT = OperationContext("t")


@dataclass(frozen=True)
class Decoder:
    """One way in.

    Attributes:
        read: Reads bytes; returns a value or raises one of ``errors``.
        errors: What it may raise.
        valid: Bytes that it has to take.
        wrong: Bytes with one thing wrong.
        memory: Bytes of memory that it may take for one byte of input.
    """

    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    valid: st.SearchStrategy[bytes]
    wrong: st.SearchStrategy[bytes]
    memory: int = 100


def _named(kinds: dict[str, type[msgspec.Struct]], read: Callable[[bytes, type[msgspec.Struct]], object]) -> Any:
    """Reads bytes whose first one says as what the rest is to be read."""
    table = [kinds[name] for name in sorted(kinds)]
    return lambda data: read(data[1:], table[data[0] % len(table)]) if data else None


def _tagged(
    kinds: dict[str, type[msgspec.Struct]], spell: Callable[[msgspec.Struct], st.SearchStrategy[bytes]]
) -> st.SearchStrategy[bytes]:
    def of(index: int) -> st.SearchStrategy[bytes]:
        return messages(kinds[sorted(kinds)[index]]).flatmap(spell).map(lambda data: bytes([index]) + data)

    return st.integers(0, len(kinds) - 1).flatmap(of)


IN_JSON = {name: kind for name, kind in MESSAGES.items() if name not in ("Welcome", "MutationBody", "Auth")}
IN_PROTOBUF: dict[str, type[msgspec.Struct]] = {
    **{name: kind for name, kind in IN_JSON.items() if name not in ("Cancel", "Failure", "ErrorInfo")},
    "HelloRequest": HelloRequest,
    "HelloReply": HelloReply,
}


# ---------------------------------------------------------------------- frames


@st.composite
def frames(draw: st.DrawFn) -> list[Node]:
    """A frame as the list that it is."""
    method = draw(st.sampled_from([*sorted(METHODS), ""]))
    kind = MESSAGES[draw(st.sampled_from(sorted(MESSAGES)))]
    payload = encode(draw(messages(kind)))
    data = encode_frame(
        cast("Any", draw(FRAME_KINDS)),
        draw(st.integers(0, 2**53)),
        payload,
        method=method,
        budget_ms=draw(st.integers(-1, 2**40)),
        credit=draw(st.integers(0, 1024)),
    )
    return cast("list[Node]", msgspec.msgpack.decode(data))


def check_bounds(id: int, budget_ms: int, trace_id: str) -> None:
    """What was taken has nothing in it that would overflow, or fill the log."""
    assert 0 <= id <= ID_MAX
    assert -1 <= budget_ms <= BUDGET_MS_MAX
    assert len(trace_id) <= TRACE_LENGTH_MAX


def _read_frame(data: bytes) -> object:
    frame = decode_frame(data, SIZE_MAX)
    check_bounds(frame.id, frame.budget_ms, frame.trace_id)
    assert frame.version == FRAME_VERSION
    assert frame.kind in KINDS
    assert 0 <= frame.credit <= CREDIT_MAX
    assert len(frame.method) <= NAME_LENGTH_MAX
    return frame


FRAME = Decoder(
    _read_frame,
    (ProtocolError,),
    frames().map(write_msgpack),
    st.one_of(
        frames().flatmap(twisted).map(write_msgpack), frames().flatmap(lambda frame: damaged(write_msgpack(frame)))
    ),
)

# ---------------------------------------------------------------------- messages


def _sorted(message: msgspec.Struct) -> bytes:
    """A message as bytes that tell every type; the keys of its maps are sorted, because those of protobuf have no order."""
    try:
        return msgspec.msgpack.encode(message, order="deterministic")
    except TypeError:  # a map whose keys are no texts, which protobuf does not have
        return msgspec.msgpack.encode(message)


def _same_again(message: msgspec.Struct, write: Callable[[msgspec.Struct], bytes], read: Any) -> object:
    """What was taken is of its type, can be told to others, and reads the same."""
    data = encode(message)
    try:
        written = write(message)
    except ProtocolError:
        written = b""  # a value that no column can hold; whoever asked is told
    try:
        assert encode(decode(data, type(message))) == data, message
        assert not written or _sorted(read(written, type(message))) == _sorted(message), message
    except ProtocolError as error:
        raise AssertionError(f"taken, and refused when it comes back: {message}") from error
    return message


MESSAGE = Decoder(
    _named(MESSAGES, lambda data, kind: _same_again(decode(data, kind), encode, decode)),
    (ProtocolError,),
    _tagged(MESSAGES, lambda message: st.just(encode(message))),
    _tagged(MESSAGES, twisted_msgpack),
)
JSON_MESSAGE = Decoder(
    _named(IN_JSON, lambda data, kind: _same_again(decode_json(data, kind), encode_json, decode_json)),
    (ProtocolError,),
    _tagged(IN_JSON, lambda message: st.just(encode_json(message))),
    _tagged(IN_JSON, twisted_json),
    memory=400,
)
PROTOBUF = Decoder(
    _named(IN_PROTOBUF, lambda data, kind: _same_again(unpack(data, kind), pack, unpack)),
    (ProtocolError,),
    _tagged(IN_PROTOBUF, lambda message: st.just(pack(message))),
    _tagged(IN_PROTOBUF, twisted_protobuf),
    memory=400,
)


def _shallow(data: bytes) -> object:
    """A text that was taken is no deeper than it may be."""
    found = parse_json(data)
    level = [found]
    for _ in range(DEPTH_MAX + 1):
        lists = [value for value in level if isinstance(value, (list, dict))]
        level = [item for value in lists for item in (value.values() if isinstance(value, dict) else value)]
    assert not level, "deeper than it may be"
    return found


JSON_TEXT = Decoder(
    _shallow,
    (ProtocolError,),
    _tagged(IN_JSON, lambda message: st.just(encode_json(message))).map(lambda data: data[1:]),
    _tagged(IN_JSON, twisted_json).map(lambda data: data[1:]),
    memory=400,
)

# ---------------------------------------------------------------------- what messages mean


def _mean(data: bytes, kind: type[msgspec.Struct]) -> object:
    """A message as the operation that it stands for."""
    message = decode(data, kind)
    adapter = OperationAdapter()
    if isinstance(message, QueryCall):
        return query_request(message, math.inf)
    if isinstance(message, WriteCall):
        return write_request(message, math.inf)
    if isinstance(message, Rows):
        return unpack_rows(message)
    if isinstance(message, ResolveReply):
        return adapter.from_remote_resolution(ResolveRequest("i", CONTEXT), message)
    if isinstance(message, ErrorInfo):
        return info_of(error_of(message)), status_of(message), trailer_of(message), close_words(message)
    assert isinstance(message, OpsReply)
    for request in (
        QueryRequest(rows_of("cards"), CONTEXT),
        QueryRequest(count_of("cards"), CONTEXT),
        WriteRequest((), WriteOptions(), CONTEXT, "i"),
    ):
        try:
            adapter.from_remote_results(request, message.results)
        except ProtocolError:
            pass
    return message


MEANT: dict[str, type[msgspec.Struct]] = {
    kind.__name__: kind for kind in (QueryCall, WriteCall, Rows, ResolveReply, OpsReply, ErrorInfo)
}
MEANING = Decoder(
    _named(MEANT, _mean),
    (ProtocolError,),
    _tagged(MEANT, lambda message: st.just(encode(message))),
    _tagged(MEANT, twisted_msgpack),
    memory=400,
)

# ---------------------------------------------------------------------- queries


def _ask(data: bytes) -> object:
    """The query, checked as a hub does; what fits nowhere is a ``QueryError``, however it is made."""
    query = decode_query(data)
    assert decode_query(from_plain(to_plain(encode_query(query)))) == query
    try:
        return rebind(query, SCHEMA.store)
    except (QueryError, UnknownStore):
        return None


@st.composite
def wrong_queries(draw: st.DrawFn) -> bytes:
    """A query with one thing wrong."""
    data = encode_query(draw(QUERIES))
    tree = cast("Node", msgspec.msgpack.decode(data))
    return draw(st.one_of(damaged(data), twisted(tree).map(write_msgpack)))


QUERY = Decoder(_ask, (ProtocolError, RemoteError), QUERIES.map(encode_query), wrong_queries(), memory=400)

# ---------------------------------------------------------------------- envelopes of HTTP


@st.composite
def batches(draw: st.DrawFn) -> Node:
    """The envelope of a batch, as its maps and lists."""
    methods = [name for name in sorted(METHODS) if METHODS[name].answer is not None]
    calls: list[Node] = []
    for id in draw(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True)):
        method = draw(st.sampled_from(methods))
        message = msgspec.msgpack.decode(encode(draw(messages(METHODS[method].request))))
        calls.append({"id": id, "method": method, "message": message, "budget_ms": draw(st.integers(-1, 2**40))})
    return {"version": 1, "id": "0123456789abcdef", "calls": calls}


@st.composite
def json_batches(draw: st.DrawFn) -> Node:
    """The same as JSON has it."""
    calls: list[Node] = []
    for id in draw(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True)):
        message = to_json(draw(messages(PullRequest)))
        calls.append({"id": str(id), "method": "pull", "message": message})
    return {"version": 1, "id": "0123456789abcdef", "calls": calls}


def _read_batch(encoding: Any) -> Callable[[bytes], object]:
    async def several_of(data: bytes) -> Several:
        return await read_batch(encoding, data, math.inf, Share(Fairness(), ChannelLimits()))

    def read(data: bytes) -> object:
        several = trio.run(several_of, data)  # deadlines are on Trio's clock
        for call in several.calls.values():
            check_bounds(call.head.id, call.head.budget_ms, call.head.trace_id)
            served = METHODS.get(call.head.method)
            try:
                call.read(PullRequest if served is None else served.request)
            except ProtocolError:
                pass
        return several

    return read


def either(valid: st.SearchStrategy[Node], write: Callable[[Node], bytes]) -> st.SearchStrategy[bytes]:
    """One thing wrong in the tree, or in its bytes."""
    return st.one_of(valid.flatmap(twisted).map(write), valid.flatmap(lambda tree: damaged(write(tree))))


BATCH = Decoder(
    _read_batch(AS_MSGPACK),
    (ProtocolError, RemoteError),
    batches().map(write_msgpack),
    either(batches(), write_msgpack),
    memory=400,
)
JSON_BATCH = Decoder(
    _read_batch(AS_JSON),
    (ProtocolError, RemoteError),
    json_batches().map(write_json),
    either(json_batches(), write_json),
    memory=400,
)


class Scripted:
    """A reply whose body comes in pieces; nothing in it waits."""

    def __init__(self, body: bytes, status: int = 200, content: str = "", **fields: str) -> None:
        self.status = status
        self.rest = body
        self.fields = {"content-type": content, **{name.replace("_", "-"): value for name, value in fields.items()}}

    def header(self, name: str) -> str:
        return self.fields.get(name, "")

    async def receive(self) -> bytes:
        size = 1 + len(self.rest) // 3
        part, self.rest = self.rest[:size], self.rest[size:]
        return part


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    work.close()
    raise AssertionError("it waits")


async def _records(reply: Scripted) -> list[object]:
    reader = RecordReader(reply, SIZE_MAX)
    found: list[object] = []
    while (payload := await reader.next()) is not None:
        found.append(decode(payload, CallReply))
    await reader.finish()
    return found


@st.composite
def records(draw: st.DrawFn, most: int = 99) -> bytes:
    """The body that answers a batch whose calls have ids up to ``most``."""
    parts = [
        pack_record("i", write_msgpack({"id": draw(st.integers(0, most)), "ok": {"results": []}}))
        for _ in range(draw(st.integers(0, 3)))
    ]
    parts.insert(draw(st.integers(0, len(parts))), pack_record("p"))
    return b"".join(parts) + pack_record("z")


@st.composite
def wrong_records(draw: st.DrawFn, most: int = 99) -> bytes:
    """The same with one thing wrong."""
    body = draw(records(most))
    strange = (
        pack_record("e", b"\xc1"),
        pack_record("e", encode(ErrorInfo("BUSY", "not now"))),
        b"i\xff\xff\xff\xff" + b"x" * 100,
        b"q\0\0\0\0",
        pack_record("i", write_msgpack({"id": 1, "ok": 1, "error": 2})),
        pack_record("i", b"\x91" * 5000),
        pack_record("z") + b"x" * 5000,
    )
    return draw(st.one_of(damaged(body), st.sampled_from(strange).map(lambda first: first + body)))


RECORDS = Decoder(
    lambda data: at_once(_records(Scripted(data))),
    (ProtocolError, ChannelBroken, RecordsEnded),
    records(),
    wrong_records(),
)

STATUSES = (200, 301, 400, 401, 403, 413, 429, 500, 502, 503)


def _read_refusal(data: bytes) -> object:
    if len(data) < 3:
        return None
    content = (MSGPACK, JSON, "text/html", "")[data[0] % 4]
    wait = data[3 : 3 + data[2] % 32].decode("latin-1")
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    status = STATUSES[data[1] % len(STATUSES)]
    info = at_once(refused(Scripted(data[3:], status, content, retry_after=wait, date=date)))
    return info_of(error_of(info))


def _refusals(spell: Callable[[Failure], st.SearchStrategy[bytes]]) -> st.SearchStrategy[bytes]:
    body = messages(Failure).flatmap(spell)
    return st.tuples(st.integers(0, 9), body).map(lambda both: bytes([0, both[0], 0]) + both[1])


REFUSAL = Decoder(
    _read_refusal,
    (ProtocolError,),
    _refusals(lambda failure: st.just(encode(failure))),
    st.one_of(
        _refusals(twisted_msgpack),
        _refusals(twisted_json).map(lambda data: b"\1" + data[1:]),
        st.binary(max_size=60).map(lambda data: b"\3\6\x1f" + data),
    ),
    memory=200,
)

# ---------------------------------------------------------------------- heads

KNOWN = host_check(("hub.example",))


def _hosting() -> Hosting:
    nobody = cast("Any", None)
    return Hosting(nobody, Peer("127.0.0.1", True, "http"), KNOWN, ChannelLimits(), nobody, place=nobody)


def _read_request(data: bytes) -> object:
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)
    http.receive_data(data)
    event = http.next_event()
    if not isinstance(event, h11.Request):
        return None
    asked = read_head(event, _hosting())
    from_query(asked)
    return asked


def _read_first_bytes(data: bytes) -> object:
    method, path = head_target(data)
    fields = fields_by_name(head_fields(data))
    return method, path, same_site(fields), KNOWN(fields.get("host", "")), refusal_of(data)


HEAD_TWISTS = (
    b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b":", b"\xff\xfe", b"x" * 70_000, b"a: b\r\n" * 500,
    b"Host: evil.example\r\n", b"Host: [::1\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n",
    b"Content-Length: " + b"9" * 5000 + b"\r\n", b"Transfer-Encoding: chunked\r\n", b"Origin: http://[\r\n",
    b"Upgrade: websocket\r\n", b"Atoma-Budget-Ms: 1e9\r\n", "Atoma-Budget-Ms: ٣\r\n".encode(), b"Expect: 100-continue\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/9.9", b"//[", b"http://[", b"%ff%00%2e", b"?scope=%ff&scope=&x",
)  # fmt: skip


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A request head."""
    method = draw(st.sampled_from(["GET", "POST"]))
    path = draw(st.sampled_from(["/v1/notify?scope=main", "/sync", "/", "/v1/pull"]))
    fields = draw(
        st.lists(st.sampled_from(["authorization: Bearer a-secret", "origin: http://localhost"]), unique=True)
    )
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", *fields, "", ""]).encode()


@st.composite
def wrong_heads(draw: st.DrawFn) -> bytes:
    """A request head with one thing wrong."""
    head = draw(heads())
    if draw(st.booleans()):
        return draw(damaged(head))
    lines = head.split(b"\r\n")
    twist = draw(st.sampled_from(HEAD_TWISTS))
    if draw(st.booleans()):
        place = head.find(b"\r\n") + 2
    else:
        place = draw(st.integers(0, len(lines[0])))
    return head[:place] + twist + head[place:]


REQUEST = Decoder(
    _read_request,
    (h11.RemoteProtocolError, HttpError, RefusedRequest),
    heads().filter(lambda head: b"notify" in head),
    wrong_heads(),
    memory=200,
)
FIRST_BYTES = Decoder(_read_first_bytes, (ProtocolError,), heads(), wrong_heads(), memory=200)

# ---------------------------------------------------------------------- small things


def _read_status(data: bytes) -> object:
    if len(data) < 2:
        return None
    from grpclib.const import Status

    status = Status(data[0] % 17)
    info = info_from(status, data[2:].decode("latin-1"), {"atoma-error-bin": data[2:]})
    error = close_error(int.from_bytes(data[:2], "big"), data[2:].decode("utf-8", "replace"))
    assert isinstance(info_of(error_of(info)), ErrorInfo)
    if isinstance(error, AtomaError):
        close_words(info_of(error))
    return error


STATUS = Decoder(
    _read_status,
    (),
    messages(ErrorInfo).map(lambda info: b"\x11\x30" + encode(info)),
    st.one_of(
        st.tuples(INT64, TEXT).map(
            lambda both: (both[0] % 65536).to_bytes(2, "big") + both[1].encode("utf-8", "replace")
        ),
        messages(ErrorInfo).flatmap(twisted_msgpack).map(lambda data: b"\x03\0" + data),
    ),
    memory=400,
)
TIMEOUT = Decoder(
    lambda data: read_timeout(data.decode("latin-1")),
    (ValueError,),
    st.tuples(st.integers(0, 99_999_999), st.sampled_from("HMSmun")).map(lambda both: f"{both[0]}{both[1]}".encode()),
    st.sampled_from([b"", b"1", b"S", b"-1S", b"1e3S", b"999999999S", b"1 S", "٣S".encode(), b"1S\n", b"\xb2S"]),
)

DECODERS: dict[str, Decoder] = {
    "frame": FRAME,
    "message": MESSAGE,
    "json-message": JSON_MESSAGE,
    "protobuf-message": PROTOBUF,
    "json-text": JSON_TEXT,
    "meaning": MEANING,
    "query": QUERY,
    "batch": BATCH,
    "json-batch": JSON_BATCH,
    "records": RECORDS,
    "refusal": REFUSAL,
    "request-head": REQUEST,
    "first-bytes": FIRST_BYTES,
    "status": STATUS,
    "grpc-timeout": TIMEOUT,
}
