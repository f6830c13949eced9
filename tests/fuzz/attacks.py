"""What hostile peers send: one thing wrong in a session that is right until then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import msgspec
from hyperframe.frame import (
    GoAwayFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from atoma.contracts.codec import encode
from atoma.contracts.mutations import MutationBody
from atoma.contracts.sync import Mutation, NotifyRequest, PushRequest
from atoma_transports.adapters import METHODS
from atoma_transports.frames.envelope import KINDS, Auth, FrameKind, encode_frame
from atoma_transports.grpc.convert import pack
from atoma_transports.protocol.json_mapping import encode_json
from tests.fuzz.decoders import HEAD_TWISTS, batches, json_batches
from tests.fuzz.grammar import messages
from tests.fuzz.hostile import damaged, twisted, twisted_json, twisted_msgpack, twisted_protobuf
from tests.fuzz.peers import (
    HEADERS,
    PREFACE,
    QUESTION,
    HttpPeer,
    WebSocketPeer,
    data_frame,
    headers_frame,
    joined,
    prefixed,
)
from tests.fuzz.spelling import Node, write_json, write_msgpack
from tests.fuzz.stage import TOKEN


@dataclass(frozen=True)
class Attack:
    """One hostile message.

    Attributes:
        data: Its bytes.
        whole: Whether the server can see that nothing more belongs to it.
        first: It comes before the peer has said who it is.
    """

    data: bytes
    whole: bool = True
    first: bool = False


UNARY = sorted(name for name, served in METHODS.items() if served.answer is not None)
PROPER_AUTH = encode_frame("auth", payload=encode(Auth(TOKEN)))

# ---------------------------------------------------------------------- frames


@st.composite
def _payloads(draw: st.DrawFn, method: str) -> bytes:
    """A request for ``method``: well-formed nonsense, or with one thing wrong."""
    message = draw(messages(METHODS[method].request))
    if method == "push" and draw(st.booleans()):
        message = draw(_pushes())
    return draw(twisted_msgpack(message)) if draw(st.booleans()) else encode(message)


@st.composite
def _pushes(draw: st.DrawFn) -> msgspec.Struct:
    """Mutations whose bodies hold one thing wrong."""
    body = draw(messages(MutationBody))
    data = draw(twisted_msgpack(body)) if draw(st.booleans()) else encode(body)
    return PushRequest(b"client-1", 1, (Mutation(1, data, b"\0" * 32),), b"")


@st.composite
def frame_calls(draw: st.DrawFn) -> tuple[bytes, int]:
    """A call in a proper frame whose message is hostile."""
    method = draw(st.sampled_from(sorted(METHODS)))
    id = draw(st.sampled_from([1, 7, 2**53]))
    kind: FrameKind = "call" if METHODS[method].answer is not None else "stream"
    budget = draw(st.sampled_from([-1, 0, 100, 2**40]))
    data = encode_frame(kind, id, draw(_payloads(method)), method=method, budget_ms=budget, credit=3)
    return data, id


def _fields(**fields: object) -> list[Node]:
    frame: dict[str, Node] = {
        "version": 1, "kind": "call", "id": 5, "method": "query", "budget_ms": -1, "trace_id": "", "credit": 0,
        "payload": encode(QUESTION), **fields,
    }  # fmt: skip
    return list(frame.values())


NOTIFY = encode(NotifyRequest(("main",)))
FRAMES: tuple[bytes, ...] = (
    b"", b"\xc0", b"\x90", b"\xc1" * 9,
    *(encode(_fields(kind=kind)) for kind in sorted(KINDS)),
    *(encode(_fields(kind=kind, id=0, method="", payload=b"")) for kind in sorted(KINDS)),
    encode(_fields(version=0)), encode(_fields(version=2)), encode(_fields(version=-(2**63))),
    encode(_fields(id=-1)), encode(_fields(id=2**53 + 1)), encode(_fields(id=2**64 - 1)),
    encode(_fields(budget_ms=-2)), encode(_fields(budget_ms=2**40 + 1)),
    encode(_fields(credit=1025)), encode(_fields(kind="credit", credit=-1)),
    encode(_fields(method="Query")), encode(_fields(method="hello")), encode(_fields(method="__class__")),
    encode(_fields(method="m" * 65)), encode(_fields(trace_id="t" * 201)), encode(_fields(method="notify")),
    encode(_fields(kind="stream")), encode(_fields(kind="stream", method="notify", payload=NOTIFY, credit=1024)),
    encode([*_fields(), 1]), encode(_fields()[:2]), encode(_fields()[:1]),
    encode(_fields(kind="auth", id=3, payload=encode(Auth("wrong")))),
    encode(_fields(kind="auth", id=3, payload=encode({"token": "a" * 50_000}))),
    encode(_fields(kind="auth", id=3, payload=encode({"token": TOKEN, "more": 1}))),
    encode(_fields(kind="auth", id=3, payload=b"\x81\xa5token\xa3\xed\xa0\x80")),
)  # fmt: skip


@st.composite
def frame_attacks(draw: st.DrawFn) -> list[bytes]:
    """Some frames, as messages."""
    way = draw(st.sampled_from(["call", "call", "strange", "twisted", "again", "credit", "flood", "cancel"]))
    call, id = draw(frame_calls())
    if way == "call":
        return [call]
    if way == "strange":
        return [draw(st.sampled_from(FRAMES))]
    if way == "twisted":
        return [write_msgpack(draw(twisted(cast("Node", msgspec.msgpack.decode(call)))))]
    if way == "again":
        return [call, call, call]
    if way == "credit":
        opened = encode_frame("stream", id, NOTIFY, method="notify", credit=1024)
        return [opened, *[encode_frame("credit", id, credit=1024)] * draw(st.integers(1, 30))]
    if way == "flood":
        return [encode_frame("stream", n, NOTIFY, method="notify", credit=1) for n in range(1, 40)]
    return [call, encode_frame("cancel", id), call, encode_frame("cancel", id), encode_frame("cancel", 2**53)]


@st.composite
def on_frames(draw: st.DrawFn) -> Attack:
    """For the handler that speaks frames."""
    first = draw(st.integers(0, 4)) == 0
    frames = draw(frame_attacks())
    if first and draw(st.booleans()):
        frames = [draw(twisted_msgpack(Auth(TOKEN)).map(lambda data: encode_frame("auth", payload=data)))]
    return Attack(joined(*frames), first=first)


# ---------------------------------------------------------------------- WebSocket


def socket_frame(
    data: bytes, *, opcode: int = 2, final: bool = True, rsv: int = 0, mask: bool = True, size: int | None = None
) -> bytes:
    """One frame of a WebSocket client, or of one that does not keep to the rules."""
    length = len(data) if size is None else size
    head = bytes([(0x80 if final else 0) | rsv << 4 | opcode])
    masked = 0x80 if mask else 0
    if length < 126 and size is None:
        head += bytes([masked | length])
    elif length < 65536 and size is None:
        head += bytes([masked | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + length.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if mask else b"") + data


ASKED = encode_frame("call", 5, encode(QUESTION), method="query")
SOCKET_WHOLE: tuple[bytes, ...] = (
    socket_frame(ASKED, mask=False), socket_frame(ASKED, opcode=1), socket_frame(b"\xff\xfe", opcode=1),
    *(socket_frame(ASKED, rsv=rsv) for rsv in (1, 2, 4)),
    *(socket_frame(b"", opcode=opcode) for opcode in (3, 7, 11, 15)),
    socket_frame(ASKED, opcode=0), socket_frame(b"a", final=False) + socket_frame(ASKED),
    socket_frame(b"x" * 126, opcode=9), socket_frame(b"x", opcode=9, final=False), socket_frame(b"", opcode=10),
    socket_frame(b"x", opcode=9) * 200, socket_frame(b"", opcode=8), socket_frame(b"\x03", opcode=8),
    socket_frame(b"\x03\xe7", opcode=8), socket_frame(b"\x03\xed", opcode=8), socket_frame(b"\x03\xe8\xff", opcode=8),
    socket_frame(b"\x11\x30MALFORMED: it was you", opcode=8), socket_frame(b"\x03\xe8", opcode=8) * 2,
    socket_frame(b"", final=False) + socket_frame(b"", opcode=0, final=False) * 500 + socket_frame(ASKED, opcode=0),
    socket_frame(b"x" * 70_000), socket_frame(b"x" * 300_000), socket_frame(b"x", size=2**63),
    socket_frame(b""),
)  # fmt: skip


SOCKET_PART: tuple[bytes, ...] = (
    socket_frame(b"x", size=2**20), socket_frame(b"x", size=2**62), b"\x82", b"\x82\xff", b"\x82\xfe\xff",
    socket_frame(ASKED, final=False), socket_frame(ASKED)[:-3],
)  # fmt: skip


@st.composite
def on_websocket(draw: st.DrawFn) -> Attack:
    """For the handler that speaks WebSocket."""
    way = draw(st.sampled_from(["frames", "frames", "whole", "part", "damaged", "upgrade"]))
    if way == "upgrade":
        head = WebSocketPeer.UPGRADE
        if draw(st.booleans()):
            data = draw(damaged(head))
        else:
            place = head.find(b"\n", draw(st.integers(0, len(head) - 3))) + 1
            data = head[:place] + draw(st.sampled_from(HEAD_TWISTS)) + head[place:]
        return Attack(data, whole=False, first=True)
    if way == "whole":
        return Attack(draw(st.sampled_from(SOCKET_WHOLE)))
    if way == "part":
        return Attack(draw(st.sampled_from(SOCKET_PART)), whole=False)
    client = Connection(ConnectionType.CLIENT)
    data = b"".join(client.send(BytesMessage(data=frame)) for frame in draw(frame_attacks()))
    if way == "damaged":
        return Attack(draw(damaged(data)), whole=False)
    return Attack(data)


# ---------------------------------------------------------------------- HTTP


def http_request(
    path: str, body: bytes, content: str = "application/json", method: str = "POST", **fields: str
) -> bytes:
    """A request with its length."""
    given = {"host": "localhost", "authorization": f"Bearer {TOKEN}", "content-type": content}
    given |= {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in fields.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


MSGPACK = "application/vnd.msgpack"
HTTP_WHOLE: tuple[bytes, ...] = (
    http_request("/v1/nothing", b"{}"), http_request("/v1/", b"{}"), http_request("/v1/../query", b"{}"),
    http_request("/v1/query%00", b"{}"), http_request("/v1/query", b"", method="GET"),
    http_request("/v1/query", b"", method="DELETE"), http_request("/v1/query", b"<a/>", "text/xml"),
    http_request("/v1/query", b"{}", authorization=""), http_request("/v1/query", b"{}", authorization="Basic eA=="),
    http_request("/v1/query", b"{}", authorization="Bearer wrong"),
    http_request("/v1/query", b"{}", authorization="Bearer \xff"), http_request("/v1/query", b"{}", host="evil.example"),
    http_request("/v1/query", b"{}", origin="http://evil.example"), http_request("/v1/query", b"{}", origin="http://["),
    http_request("/v1/query", HttpPeer.BODY, atoma_budget_ms="-1"),
    http_request("/v1/query", HttpPeer.BODY, atoma_budget_ms="9" * 400),
    http_request("/v1/query", HttpPeer.BODY, atoma_budget_ms="\xb2"),
    http_request("/v1/query", HttpPeer.BODY, atoma_budget_ms="0"),
    http_request("/v1/query", HttpPeer.BODY, atoma_trace="t" * 9000),
    http_request("/v1/query", HttpPeer.BODY, atoma_trace="\xff"),
    http_request("/v1/notify", b"", method="GET"), http_request("/v1/notify?scope=%ff&x=1", b"", method="GET"),
    http_request("/v1/cancel", b'{"batch":"0","calls":["1"]}'), http_request("/v1/cancel", b'{"batch":1}'),
    http_request("http://[/v1/query", b"{}"), http_request("//[", b"{}"), http_request("*", b"{}"),
    http_request("/v1/query", b"{}", upgrade="websocket"), http_request("/v1/query", b"{}", upgrade="h2c"),
    http_request("/v1/query", b"{}", content_length="1, 2"), http_request("/v1/query", b"", content_length="-1"),
    http_request("/v1/query", b"{}", content_length="9" * 30), http_request("/v1/query", b"{}", content_length="999999"),
    http_request("/v1/query", b"", content_length="", transfer_encoding="chunked") + b"zz\r\n",
    http_request("/v1/query", b"", content_length="", transfer_encoding="chunked") + b"1" * 70_000,
    http_request("/v1/query", b"", content_length="", transfer_encoding="gzip"),
    http_request("/", b"", content_length="", transfer_encoding="chunked") + b"zz\r\n",
    http_request("/", b"", "text/xml", content_length="", transfer_encoding="chunked") + b"zz\r\n",
    http_request("/v1/query", b"", "text/xml", content_length="", transfer_encoding="chunked") + b"zz\r\n",
    http_request("/v1/query", b"", content_length="5", transfer_encoding="chunked"),
    http_request("/v1/query", HttpPeer.BODY, big="x" * 70_000), b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"GET\r\n\r\n",
    b"GET / HTTP/2.0\r\nhost: localhost\r\n\r\n", b"\x16\x03\x01\x02\0\r\n\r\n", HttpPeer.QUESTION * 30,
)  # fmt: skip

HTTP_PART: tuple[bytes, ...] = (
    http_request("/v1/query", b"", content_length="", transfer_encoding="chunked") + b"fffffffffffffffffff\r\n",
    http_request("/v1/query", b"{}", content_length="200000"), http_request("/", b"{}", content_length="200"),
    http_request("/v1/query", b"{}", content_length="200", expect="100-continue"), b"G", b"GET / HTTP/1.1\r\n",
)  # fmt: skip


@st.composite
def on_http(draw: st.DrawFn) -> Attack:
    """For the handler that speaks HTTP."""
    first = draw(st.integers(0, 4)) == 0
    way = draw(st.sampled_from(["body", "body", "batch", "json batch", "strange", "part", "head"]))
    if way == "strange":
        return draw(st.sampled_from([attack for attack in KNOWN["http-session"] if attack.first == first]))
    if way == "batch":
        body = write_msgpack(draw(batches().flatmap(twisted)))
        return Attack(http_request("/v1/batch", body, MSGPACK), first=first)
    if way == "json batch":
        return Attack(http_request("/v1/batch", write_json(draw(json_batches().flatmap(twisted)))), first=first)
    method = draw(st.sampled_from(UNARY))
    message = draw(messages(METHODS[method].request))
    if draw(st.booleans()):
        data = http_request(
            f"/v1/{method}", draw(st.one_of(st.just(encode(message)), twisted_msgpack(message))), MSGPACK
        )
    else:
        data = http_request(f"/v1/{method}", draw(st.one_of(st.just(encode_json(message)), twisted_json(message))))
    if way == "body":
        return Attack(data, first=first)
    if way == "part":
        return Attack(draw(damaged(data)), whole=False, first=first)
    place = data.find(b"\n", draw(st.integers(0, data.find(b"\r\n\r\n")))) + 1
    return Attack(data[:place] + draw(st.sampled_from(HEAD_TWISTS)) + data[place:], whole=False, first=first)


# ---------------------------------------------------------------------- gRPC

CALL = 3


def grpc_call(data: bytes, path: str = "", **fields: str) -> bytes:
    """A call whose headers and whose data are given; names with ``_`` first are those of HTTP/2."""
    given = dict(HEADERS)
    if path:
        given[":path"] = path
    for name, value in fields.items():
        given[":" + name[1:] if name.startswith("_") else name.replace("_", "-")] = value
    headers = headers_frame(CALL, [(name, value) for name, value in given.items() if value])
    return headers + data_frame(CALL, data, "END_STREAM")


MESSAGE = prefixed(pack(QUESTION))
GRPC_WHOLE: tuple[bytes, ...] = (
    grpc_call(prefixed(pack(QUESTION), flag=1)), grpc_call(prefixed(pack(QUESTION), flag=255)),
    grpc_call(prefixed(pack(QUESTION), size=2**32 - 1)), grpc_call(prefixed(pack(QUESTION), size=1)), grpc_call(b""),
    grpc_call(b"\0\0"), grpc_call(MESSAGE + MESSAGE), grpc_call(MESSAGE + b"x"),
    grpc_call(MESSAGE, _method="GET"), grpc_call(MESSAGE, _method=""), grpc_call(MESSAGE, "/"), grpc_call(MESSAGE, _path=""),
    grpc_call(MESSAGE, "/atoma.sync.v1.Sync/Nothing"), grpc_call(MESSAGE, "/atoma.sync.v1.Sync/Query/\xff"),
    grpc_call(MESSAGE, content_type="text/html"), grpc_call(MESSAGE, content_type="application/grpc+json"),
    grpc_call(MESSAGE, content_type=""), grpc_call(MESSAGE, te=""), grpc_call(MESSAGE, authorization="wrong"),
    grpc_call(MESSAGE, authorization="Bearer wrong"), grpc_call(MESSAGE, authorization="Bearer \xff"),
    grpc_call(MESSAGE, authorization=""), grpc_call(MESSAGE, grpc_timeout="1"), grpc_call(MESSAGE, grpc_timeout="0n"),
    grpc_call(MESSAGE, grpc_timeout="999999999H"), grpc_call(MESSAGE, x_bin="%%%"), grpc_call(MESSAGE, grpc_encoding="gzip"),
    grpc_call(MESSAGE, x="y" * 10_000), grpc_call(MESSAGE, **{f"x{n}": "y" for n in range(900)}),
    grpc_call(MESSAGE, "/atoma.sync.v1.Sync/Notify"), grpc_call(MESSAGE, "/grpc.health.v1.Health/Check"),
    grpc_call(MESSAGE, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    headers_frame(CALL, HEADERS.items(), "END_HEADERS", "END_STREAM"), headers_frame(2, HEADERS.items()),
    headers_frame(0x7FFFFFF1, HEADERS.items(), "END_HEADERS", "END_STREAM"), headers_frame(CALL, data=b"\xff" * 20),
    headers_frame(CALL, data=b"\x3f\xff\xff\xff\xff\xff"), headers_frame(CALL, data=b"\x40\x7f\xff\xff\xff\xff\x7f"),
    headers_frame(CALL, data=b"\xbe"), headers_frame(1, HEADERS.items()), headers_frame(CALL, HEADERS.items()) * 2,
    data_frame(CALL, MESSAGE), data_frame(0x11, MESSAGE), data_frame(1, MESSAGE),
    b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0", b"\0\0\x04\x08\0\0\0\0\x01\0\0\0\0", b"\0\0\x01\x08\0\0\0\0\0\0",
    WindowUpdateFrame(0, 2**31 - 1).serialize() * 2, WindowUpdateFrame(5, 9).serialize(),
    SettingsFrame(0, {4: 2**31 - 1}).serialize(), b"\0\0\x06\x04\0\0\0\0\0\0\x04\xff\xff\xff\xff",
    b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\0\0", b"\0\0\x06\x04\0\0\0\0\0\0\x02\0\0\0\x07", b"\0\0\x05\x04\0\0\0\0\0\0\0\0\0\0",
    b"\0\0\x06\x04\0\0\0\0\x01\0\x01\0\0\0\0", SettingsFrame(0, {1: 2**32 - 1, 6: 1, 3: 0}).serialize(),
    SettingsFrame(0).serialize() * 2000, PingFrame(0, b"12345678").serialize() * 2000, b"\0\0\x02\x06\0\0\0\0\0ab",
    RstStreamFrame(5, 8).serialize(), RstStreamFrame(1, 8).serialize() * 3, b"\0\0\x01\x03\0\0\0\0\x01\0",
    PriorityFrame(3, depends_on=3).serialize(), b"\0\0\x05\x01\x04\0\0\0\x07\0\0\0\x07\x10",
    PushPromiseFrame(1, 4, data=b"\x82", flags=["END_HEADERS"]).serialize(), GoAwayFrame(0, 0, 2).serialize(),
    GoAwayFrame(0, 99, 0).serialize(), b"\0\0\0\x09\x04\0\0\0\x03", b"\0\0\0\xee\xff\0\0\0\x03", b"\xff\xff\xff\0\0\0\0\0\x03",
    b"\0\0\x01\0\x08\0\0\0\x03\xff", b"".join(headers_frame(n, HEADERS.items()) for n in range(3, 603, 2)),
    b"".join(headers_frame(n, HEADERS.items()) + RstStreamFrame(n, 8).serialize() for n in range(3, 4003, 2)),
)  # fmt: skip
GRPC_PART: tuple[bytes, ...] = (
    headers_frame(CALL, HEADERS.items()) + data_frame(CALL, MESSAGE[:-2]), headers_frame(CALL, HEADERS.items(), "PADDED"),
    headers_frame(CALL, HEADERS.items()) + data_frame(CALL, prefixed(b"x", size=100_000)), b"\0\0", b"\0\x40\0\0\0\0\0\0\x03x",
)  # fmt: skip


@st.composite
def on_grpc(draw: st.DrawFn) -> Attack:
    """For the handler that speaks gRPC."""
    way = draw(st.sampled_from(["message", "message", "message", "whole", "whole", "part", "damaged", "preface"]))
    if way == "preface":
        return Attack(draw(damaged(PREFACE + SettingsFrame(0).serialize())), whole=False, first=True)
    if way == "whole":
        data = draw(st.sampled_from(GRPC_WHOLE))
        return Attack(data)
    if way == "part":
        return Attack(draw(st.sampled_from(GRPC_PART)), whole=False)
    method = draw(st.sampled_from(sorted(METHODS)))
    message = draw(messages(METHODS[method].request))
    data = draw(st.one_of(st.just(pack(message)), twisted_protobuf(message)))
    call = grpc_call(prefixed(data)[:16_000], f"/atoma.sync.v1.Sync/{method.capitalize()}")
    if way == "damaged":
        return Attack(draw(damaged(call)), whole=False)
    return Attack(call)


def _known(whole: tuple[bytes, ...], part: tuple[bytes, ...] = (), *, first: bool = False) -> list[Attack]:
    return [Attack(data, first=first) for data in whole] + [Attack(data, whole=False, first=first) for data in part]


KNOWN: dict[str, list[Attack]] = {
    "frame-session": [Attack(joined(frame), first=first) for frame in FRAMES for first in (False, True)],
    "websocket-session": _known(SOCKET_WHOLE, SOCKET_PART),
    "http-session": _known(HTTP_WHOLE, HTTP_PART) + _known(HTTP_WHOLE, HTTP_PART, first=True),
    "grpc-session": _known(GRPC_WHOLE, GRPC_PART),
}
"""Attacks that need no chance, by session."""
