"""What attackers send. Each shape is bounded by the seconds that its caller gives it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from atoma.contracts.codec import encode
from atoma.contracts.survey import CONTAINERS_MAX
from atoma_transports.frames.envelope import Auth, encode_frame
from atoma_transports.http.envelope import SEPARATORS_MAX
from atoma_transports.protocol.plans import from_plain
from benchmarks.attacks.hub import ATTACKER

PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """An attack.

    Attributes:
        connections: How many at the same time; each connects anew when it is cut.
        opening: Sent first.
        welcome: What has to be in what comes back before the attack goes on; empty for anything,
            or for nothing where units follow.
        unit: Sent after that, again and again; empty for nothing more, then the answer is read and it begins anew.
        patience_s: Seconds after which the attacker hangs up without having been answered.
        stays: Once welcome, stay until the hub hangs up.
        deaf: Once welcome, send a unit now and then, and read nothing.
    """

    opening: bytes
    unit: bytes = b""
    connections: int = 1
    welcome: bytes = b""
    patience_s: float = 60.0
    stays: bool = False
    deaf: bool = False


# ---------------------------------------------------------------------- HTTP


def request(path: str, body: bytes, kind: str = "application/json", *, token: str = ATTACKER, extra: str = "") -> bytes:
    """A request with its length."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n"
    if token:
        head += f"authorization: Bearer {token}\r\n"
    return f"{head}{extra}content-length: {len(body)}\r\n\r\n".encode() + body


def chunked(path: str, *, token: str = ATTACKER) -> bytes:
    """The head of a request whose body comes in chunks."""
    whole = request(path, b"", token=token)
    return whole.replace(b"content-length: 0", b"transfer-encoding: chunked")


def query(where: object) -> bytes:
    """A query with a filter."""
    plan = {"source": ["store", "notes"], "where": where}
    op = {"index": "0", "name": "query", "store": "notes", "query": {"plan": plan}}
    return json.dumps({"ops": [op]}).encode()


def like(pattern: str) -> object:
    """A filter on the text."""
    return ["call", "like", [["col", 0, "text"], ["lit", "text", pattern]]]


def write(values: object) -> bytes:
    """A write of one row in JSON."""
    op = {"index": "0", "name": "insert", "store": "notes", "id": "mine", "scope": "main", "values": values}
    return json.dumps({"ops": [op], "idem": "a-key-of-mine", "options": {}}, separators=(",", ":")).encode()


def deep(size: int, unit: str) -> str:
    """A list of so many small things that it has ``size`` letters."""
    return "[" + ",".join([unit] * (size // (len(unit) + 1))) + "]"


MSGPACK = "application/vnd.msgpack"


def packed_write(value: bytes) -> bytes:
    """A write whose only value is these bytes of MessagePack."""
    op = {
        "index": 0, "name": "insert", "store": "notes", "id": "mine", "scope": "main",
        "values": {"text": msgspec.Raw(value)},
    }  # fmt: skip
    return encode({"ops": [op], "idem": "a-key-of-mine", "options": {}})


def packed_list(count: int, unit: bytes = b"\x90") -> bytes:
    """A list of so many small things."""
    return b"\xdd" + count.to_bytes(4, "big") + unit * count


FIELDS = b"a:\r\n" * 14_000
HEADERS = b"GET / HTTP/1.1\r\nhost: localhost\r\n" + FIELDS + b"\r\n"

# ---------------------------------------------------------------------- WebSocket

UPGRADE = (
    b"GET /sync HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
UPGRADE_FIELDS = UPGRADE[:-2] + FIELDS + b"\r\n"


def socket_frame(data: bytes, *, opcode: int = 2, final: bool = True) -> bytes:
    """One frame of a client; the mask is zero."""
    head = bytes([(0x80 if final else 0) | opcode])
    size = len(data)
    if size < 126:
        return head + bytes([0x80 | size, 0, 0, 0, 0]) + data
    if size < 65536:
        return head + b"\xfe" + size.to_bytes(2, "big") + bytes(4) + data
    return head + b"\xff" + size.to_bytes(8, "big") + bytes(4) + data


AUTH = socket_frame(encode_frame("auth", payload=encode(Auth(ATTACKER))))
PING_FRAME = socket_frame(b"", opcode=9)
FRAGMENT = socket_frame(b"x", opcode=0, final=False)
BEGUN = socket_frame(b"x", final=False)

# ---------------------------------------------------------------------- gRPC

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()


def grpc_call(path: str, *, token: str = "", id: int = 1) -> bytes:
    """The headers of a call."""
    fields = [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"), ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]  # fmt: skip
    if token:
        fields.append(("authorization", f"Bearer {token}"))
    return HeadersFrame(id, Encoder().encode(fields), flags=["END_HEADERS"]).serialize()


def _frame(frame: Frame) -> bytes:
    return frame.serialize()


REFUSED = PREFACE + grpc_call("/nothing/Here")
CALLED = PREFACE + grpc_call("/atoma.sync.v1.Sync/Query", token=ATTACKER)
TINY = _frame(DataFrame(1, b"x"))
SMALL = _frame(DataFrame(1, b"x" * 16))
PADDED = _frame(DataFrame(1, b"x", pad_length=255, flags=["PADDED"]))
UPDATE = _frame(WindowUpdateFrame(0, 1))
PING = _frame(PingFrame(0, b"areyouon"))


def header_block(*parts: bytes) -> bytes:
    """A block of headers in as many frames."""
    frames: list[HeadersFrame | ContinuationFrame] = [HeadersFrame(1, parts[0])]
    frames += [ContinuationFrame(1, part) for part in parts[1:]]
    frames[-1].flags.add("END_HEADERS")
    return PREFACE + b"".join(frame.serialize() for frame in frames)


CALM = (11).to_bytes(4, "big")
REFUSAL = b"\x01\x05\0\0\0\x01"
"""The head of a frame with headers that end the first call."""


def huffman(size: int) -> bytes:
    """A header whose value is written in Huffman's code, in so many bytes, at least 255."""
    rest = size - 127
    length = bytes([0xFF, rest & 0x7F | 0x80, rest >> 7 & 0x7F | (0x80 if rest >> 14 else 0)])
    return b"\0\x01a" + length + (bytes([rest >> 14]) if rest >> 14 else b"") + b"\x1f" * size


WATCHES = 256
"""Streams of a connection: as many as the hub takes."""


def watches(count: int) -> bytes:
    """So many questions that are answered whenever the server's health changes, without a token."""
    asked = b"\0\0\0\0\0"
    return PREFACE + b"".join(
        grpc_call("/grpc.health.v1.Health/Watch", id=id) + _frame(DataFrame(id, asked, flags=["END_STREAM"]))
        for id in range(1, 2 * count, 2)
    )


# ---------------------------------------------------------------------- many who stay

GUESTS, WATCHERS, TABS = 5_010, 60, 60
TAB = b"GET /api/inspector/main/events HTTP/1.1\r\nhost: localhost\r\n\r\n"

CALLERS, QUESTIONS = 16, 60


def questions() -> bytes:
    """Calls whose answers have megabytes."""
    op = {"index": 0, "name": "query", "store": "notes", "query": from_plain({"plan": {"source": ["store", "notes"]}})}
    asked = encode({"ops": [op]})
    return b"".join(socket_frame(encode_frame("call", id, asked, method="query")) for id in range(1, QUESTIONS + 1))


Make = Callable[[], Shape]

SHAPES: Mapping[str, Make] = {
    "LIKE, 40 kB pattern": lambda: Shape(request("/v1/query", query(like("%" + "a" * 40_000 + "b%"))), patience_s=0.2),
    "LIKE, 250 B pattern": lambda: Shape(
        request("/v1/query", query(like("%" + "a" * 250 + "b%"))), connections=4, patience_s=0.2
    ),
    "LIKE, 200 patterns": lambda: Shape(
        request("/v1/query", query(["call", "or", [like("%" + "a" * 250 + "b%")] * 200])), patience_s=0.2
    ),
    "JSON body of 3.8 MB": lambda: Shape(request("/v1/write", write({f"c{n}": 1.5 for n in range(290_000)}))),
    "JSON, 1.4 MB of [[],[],…]": lambda: Shape(request("/v1/write", deep(1_400_000, "[]").encode())),
    "JSON, 1 MB of small values": lambda: Shape(
        request("/v1/write", write({"text": json.loads(deep(900_000, "1.5"))}))
    ),
    "JSON, as much as may be": lambda: Shape(
        request("/v1/write", write({f"c{n}": "x,y" for n in range(SEPARATORS_MAX // 3 - 30)}))
    ),
    "JSON, a query as large as may be": lambda: Shape(
        request("/v1/query", query({"type": "or", "items": [like("a%")] * 2_100})), patience_s=0.2
    ),
    "JSON batch of many calls": lambda: Shape(
        request(
            "/v1/batch",
            json.dumps(
                {
                    "version": "1",
                    "id": "abcdefgh",
                    "calls": [{"id": str(n), "method": "query", "message": {"ops": []}} for n in range(20_000)],
                }
            ).encode(),
        )
    ),
    "MessagePack, lists in a value": lambda: Shape(request("/v1/write", packed_write(packed_list(3_900_000)), MSGPACK)),
    "MessagePack, lists in place of a call": lambda: Shape(request("/v1/write", packed_list(3_900_000), MSGPACK)),
    "MessagePack, as much as may be": lambda: Shape(
        request("/v1/write", packed_write(packed_list(CONTAINERS_MAX - 100, b"\x94\x01\x01\x01\x01")), MSGPACK),
        connections=4,
    ),
    "HTTP: 14,000 header fields": lambda: Shape(HEADERS),
    "HTTP: 14,000 fields behind a body": lambda: Shape(chunked("/v1/write") + b"0\r\n" + FIELDS + b"\r\n"),
    "WebSocket: 14,000 header fields": lambda: Shape(UPGRADE_FIELDS),
    "HTTP: 1-byte chunks to a 404": lambda: Shape(chunked("/nothing", token=""), b"1\r\nx\r\n"),
    "HTTP: 1-byte chunks, no token": lambda: Shape(chunked("/v1/query", token=""), b"1\r\nx\r\n", 20),
    "HTTP: 1-byte chunks, token": lambda: Shape(chunked("/v1/write"), b"1\r\nx\r\n", 4),
    "HTTP: 20-byte chunks, token": lambda: Shape(chunked("/v1/write"), b"14\r\n" + b"x" * 20 + b"\r\n", 20),
    "WebSocket: 1-byte fragments, no token": lambda: Shape(UPGRADE + BEGUN, FRAGMENT, 20, welcome=b"101"),
    "WebSocket: 1-byte fragments, token": lambda: Shape(UPGRADE + AUTH + BEGUN, FRAGMENT, 20, welcome=b"welcome"),
    "WebSocket: 20-byte fragments, token": lambda: Shape(
        UPGRADE + AUTH + BEGUN, socket_frame(b"x" * 20, opcode=0, final=False), 20, welcome=b"welcome"
    ),
    "WebSocket: empty continuations": lambda: Shape(
        UPGRADE + BEGUN, socket_frame(b"", opcode=0, final=False), welcome=b"101"
    ),
    "WebSocket: pings": lambda: Shape(UPGRADE, PING_FRAME, welcome=b"101"),
    "WebSocket: frames of ours that ping": lambda: Shape(
        UPGRADE + AUTH, socket_frame(encode_frame("ping")), welcome=b"welcome"
    ),
    "gRPC: 1-byte DATA, refused": lambda: Shape(REFUSED, TINY),
    "gRPC: 16-byte DATA, refused": lambda: Shape(REFUSED, SMALL, 20),
    "gRPC: padded DATA": lambda: Shape(REFUSED, PADDED),
    "gRPC: 1-byte DATA, token": lambda: Shape(CALLED, TINY, 20),
    "gRPC: WINDOW_UPDATE of 1": lambda: Shape(REFUSED, UPDATE),
    "gRPC: PING": lambda: Shape(REFUSED, PING),
    "gRPC: 4 MB of sizes of the table": lambda: Shape(header_block(*[b"\x20" * 64_000] * 62), welcome=CALM),
    "gRPC: 4 MB of header fields": lambda: Shape(header_block(*[b"\0\0\0" * 20_000] * 62), welcome=CALM),
    "gRPC: as much Huffman as may be": lambda: Shape(header_block(huffman(12_000)), welcome=REFUSAL),
    "gRPC: 64 kB of Huffman": lambda: Shape(header_block(huffman(64_000)), welcome=CALM),
    "gRPC: 5,010 guests who stay": lambda: Shape(PREFACE, connections=GUESTS, stays=True),
    "gRPC: 15,360 watches": lambda: Shape(watches(WATCHES), connections=WATCHERS, stays=True),
    "WebSocket: much is asked, nothing read": lambda: Shape(
        UPGRADE + AUTH + questions(), PING_FRAME, CALLERS, welcome=b"welcome", deaf=True
    ),
    "inspector: 60 tabs": lambda: Shape(TAB, connections=TABS, stays=True),
}
"""Every attack; made when it is needed."""
