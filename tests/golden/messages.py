"""Every message of the protocol as the golden commit knew it: one that says everything, and one that says the least.

Values are built by keyword, so that a field added later takes its default, which is what a message without it has to
mean. ``python -m tests.golden.messages FILE`` writes what they are in each encoding; see README.md.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import WriteOptions
from atoma.contracts.sync import (
    Conflict,
    Cursor,
    Hint,
    Limits,
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
from atoma.contracts.values import ErrorInfo
from atoma_transports.grpc.convert import pack, unpack
from atoma_transports.http.envelope import (
    AS_JSON,
    AS_MSGPACK,
    BATCH_VERSION,
    BatchCall,
    CallReply,
    Cancel,
    Done,
    Failure,
    pack_record,
)
from atoma_transports.http.messages import event_text
from atoma_transports.protocol.json_mapping import decode_json, encode_json
from atoma_transports.protocol.operations import (
    OpsReply,
    QueryCall,
    RemoteOp,
    RemoteOpResult,
    ResolveCall,
    ResolveReply,
    Rows,
    WriteCall,
)
from tests.golden.names import (
    FRAME_VERSION,
    METHODS,
    Auth,
    BatchRequest,
    Frame,
    FrameKind,
    HelloReply,
    HelloRequest,
    Welcome,
    decode_frame,
    encode_frame,
    trailer_of,
)

try:
    from atoma.contracts.mutations import MutationBody, Op
except ImportError:  # the golden commit has them in another module
    from atoma.contracts.sync import MutationBody, Op  # type: ignore[attr-defined, no-redef]

CURSOR = Cursor(epoch=b"epoch-of-16-byte", seq=2**40, hash=b"hash-of-16-bytes")
ROW: dict[str, Any] = {
    "text": "ünïcode 𝄞", "int": -(2**63), "big": 2**63 - 1, "real": -0.5, "whole": 1.0, "blob": b"\x00\xff", "none": None
}  # fmt: skip
"""A value of each storage class."""
ERROR = ErrorInfo(
    code="CONFLICT", message="ßomebody was faster", retryable=True, retry_after_ms=1500, info={"seq": "7"}
)
CONFLICT = Conflict(
    store="cards", id="c1", fields=("text", "int"), dropped=("text",), rule="server_wins", current=ROW, current_seq=41
)
APPLIED = Outcome(mid=1, status="applied", scope="main", seq=42)
MERGED = Outcome(mid=2, status="merged", scope="main", seq=43, duplicate=True, conflicts=(CONFLICT,))
REJECTED = Outcome(mid=3, status="rejected", scope="main", error=ERROR, conflicts=(Conflict(store="cards", id="c2"),))
OPS = (
    Op(kind="create", store="cards", id="c1", values=ROW),
    Op(kind="patch", store="cards", id="c1", values={"int": 1}, after_mid=3, cas=True),
    Op(kind="replace", store="cards", id="c1", values=ROW),
    Op(kind="upsert", store="cards", id="c2", values={"int": 2}, defaults={"text": ""}),
    Op(kind="delete", store="cards", id="c1"),
)
BODY = MutationBody(
    mid=4, idem="018bcfe5-6800-7000-8000-00000000000a", scope="main", base_seq=41, schema_version=2, client_ms=1_700_000_000_000,
    ops=OPS,
)  # fmt: skip
MUTATION = Mutation(mid=4, body=encode(BODY), digest=bytes(range(32)))
CHANGES = StoreChanges(
    store="cards", schema_version=2, columns=("id", *ROW), rows=((44, "c1", *ROW.values()),), deletes=((45, "c2"),)
)
WRITES = (
    RemoteOp(index=0, name="insert", store="cards", id="c1", scope="main", values=ROW),
    RemoteOp(index=1, name="update", store="cards", id="c1", values={"int": 1}, base_version=7),
    RemoteOp(index=2, name="upsert", store="cards", id="c2", values={"int": 2}, replace=True),
    RemoteOp(index=3, name="upsert", store="cards", id="c3", values={"int": 2}, defaults={"text": ""}),
    RemoteOp(index=4, name="delete", store="cards", id="c1"),
)
RESULTS = (
    RemoteOpResult(index=0, id="c1", changed=True, version=9, row=ROW),
    RemoteOpResult(index=1, id="c2", ok=False, error=ERROR),
)
FOUND = RemoteOpResult(
    index=0, found=Rows(columns=tuple(ROW), rows=(("c1", 9, 44, "main", *ROW.values()),)), cursor="next"
)


def _queries() -> dict[str, msgspec.Struct]:
    """Queries as they travel today; none where the golden commit runs this, which asks in another form."""
    try:
        from tests.golden.questions import QUERIES
    except ImportError:
        return {}
    calls = {
        name: QueryCall(ops=(RemoteOp(index=0, name="query", store="cards", query=query),), trace_id=trace)
        for name, (query, trace) in QUERIES.items()
    }
    return dict(calls)


def _presence() -> dict[str, msgspec.Struct]:
    """Who is present; the golden commit, where this runs as well, knows nothing of it."""
    try:
        from atoma.contracts.presence import AppearReply, AppearRequest, PresenceChange, PresenceRequest, Present
    except ImportError:
        return {}
    session = bytes(range(16))
    return {
        "PresenceRequest": PresenceRequest("main", session, 1, '{"card":"ü"}'),
        "PresenceChange": PresenceChange(
            (Present("0123456789abcdef", "ann", "{}"),), ("fedcba9876543210",), whole=True
        ),
        "PresenceChange, least": PresenceChange(),
        "AppearRequest": AppearRequest("main", session, 2, "{}"),
        "AppearRequest, least": AppearRequest("main", session, 3),
        "AppearReply": AppearReply(known=False),
        "AppearReply, least": AppearReply(),
    }


MESSAGES: dict[str, msgspec.Struct] = {
    "OpenRequest": OpenRequest(
        client_id=b"client-id-of-16b", incarnation=3, schema_version=2, schema_hash=b"schema", scopes=("main", "side"),
        confirmed_mid=3, tail_mid=9, hub_id=b"hub-id-of-16-byt", proto_min=1, proto_max=1,
    ),
    "OpenRequest, least": OpenRequest(client_id=b"", incarnation=1, schema_version=1, schema_hash=b"", scopes=()),
    "OpenReply": OpenReply(
        hub_id=b"hub-id-of-16-byt", epoch=b"epoch-of-16-byte", principal="ann", last_mid=3, last_digest=bytes(32),
        scopes=(ScopeStatus(scope="main", head=44, floor=11), ScopeStatus(scope="side", error=ERROR)),
        limits=Limits(
            frame_bytes=1, mutation_bytes=2, mutation_ops=3, push_mutations=4, push_bytes=5, page_bytes=6, page_changes=7,
            scopes=8, id_bytes=9,
        ),
        hub_time_ms=1_700_000_000_000, proto=1,
    ),
    "OpenReply, least": OpenReply(hub_id=b"", epoch=b"", principal="", last_mid=0, last_digest=b"", scopes=()),
    "PushRequest": PushRequest(
        client_id=b"client-id-of-16b", incarnation=3, mutations=(MUTATION,), prev_digest=bytes(32), confirmed_mid=3
    ),
    "PushRequest, least": PushRequest(client_id=b"", incarnation=1, mutations=(), prev_digest=b""),
    "PushReply": PushReply(outcomes=(APPLIED, MERGED, REJECTED), last_mid=3, error=ERROR),
    "PushReply, least": PushReply(outcomes=(), last_mid=0),
    "PullRequest": PullRequest(
        scope="main", cursor=CURSOR, client_id=b"client-id-of-16b", outcomes_after_mid=3, max_bytes=1000, max_changes=10
    ),
    "PullRequest, least": PullRequest(scope="", cursor=Cursor(), client_id=b""),
    "PullReply": PullReply(
        scope="main", start=CURSOR, end=CURSOR, stores=(CHANGES,), more=True, head=50, outcomes=(APPLIED, MERGED, REJECTED)
    ),
    "PullReply, least": PullReply(scope="", start=Cursor(), end=Cursor()),
    "SnapshotRequest": SnapshotRequest(
        scope="main", client_id=b"client-id-of-16b", token=b"token", max_bytes=1000, max_rows=10
    ),
    "SnapshotRequest, least": SnapshotRequest(scope="", client_id=b""),
    "SnapshotReply": SnapshotReply(scope="main", start=CURSOR, stores=(CHANGES,), token=b"token", done=True),
    "SnapshotReply, least": SnapshotReply(scope="", start=Cursor(), stores=(), token=b"", done=False),
    "NotifyRequest": NotifyRequest(scopes=("main", "side")),
    "Hint": Hint(scope="main", head=2**53),
    "WriteCall": WriteCall(
        ops=WRITES, idem="018bcfe5-6800-7000-8000-00000000000b",
        options=WriteOptions(confirm="strict", atomic=True, durability="full", reads=(("cards", "c1", 7), ("cards", "c2", None))),
        trace_id="trace",
    ),
    "WriteCall, least": WriteCall(ops=WRITES[4:], idem="", options=WriteOptions()),
    "OpsReply": OpsReply(results=RESULTS),
    "OpsReply, of a query": OpsReply(results=(FOUND,)),
    "OpsReply, least": OpsReply(results=(RemoteOpResult(index=0),)),
    "ResolveCall": ResolveCall(idem="018bcfe5-6800-7000-8000-00000000000c", trace_id="trace"),
    "ResolveReply": ResolveReply(abandoned=False, results=RESULTS),
    "ResolveReply, abandoned": ResolveReply(abandoned=True),
    "ErrorInfo": ERROR,
    "ErrorInfo, least": ErrorInfo(code="INTERNAL", message=""),
    "MutationBody": BODY,
    "Auth": Auth(token="a-token"),
    "Welcome": Welcome(principal="ann", frame_bytes=4_259_840, calls=100, expires_in=12.5),
    "Welcome, least": Welcome(principal="", frame_bytes=1, calls=1),
    "HelloRequest": HelloRequest(),
    "HelloReply": HelloReply(principal="ann", message_bytes=4_259_840, calls=100, expires_in_ms=12_500),
    "HelloReply, least": HelloReply(principal="", message_bytes=1, calls=1),
    "Failure": Failure(error=ERROR),
    "Cancel": Cancel(batch="0123456789abcdef", calls=(1, 2)),
    "Done": Done(),
    **_queries(),
    **_presence(),
}  # fmt: skip


@dataclass(frozen=True)
class Encoding:
    """One way to write messages.

    Attributes:
        write: The bytes of a message.
        read: The message of a type.
        lacks: Types that never travel like this.
    """

    write: Callable[[msgspec.Struct], bytes]
    read: Callable[[bytes, type[Any]], msgspec.Struct]
    lacks: tuple[type[msgspec.Struct], ...]


ENCODINGS = {
    "msgpack": Encoding(encode, decode, (HelloRequest, HelloReply)),
    "json": Encoding(encode_json, decode_json, (HelloRequest, HelloReply, MutationBody, Auth, Welcome)),
    "protobuf": Encoding(pack, unpack, (ErrorInfo, MutationBody, Auth, Welcome, Failure, Cancel, Done)),
}
TRAILER = "ErrorInfo in a gRPC trailer"


def frames() -> dict[str, bytes]:
    """A frame of every kind, and of every call with its answer."""
    made = {
        "auth": encode_frame("auth", payload=encode(MESSAGES["Auth"])),
        "welcome": encode_frame("welcome", payload=encode(MESSAGES["Welcome"])),
        "error": encode_frame("error", 7, encode(ERROR)),
        "error of the connection": encode_frame("error", 0, encode(ERROR)),
        "cancel": encode_frame("cancel", 7),
        "end": encode_frame("end", 8),
        "credit": encode_frame("credit", 8, credit=64),
        "ping": encode_frame("ping", 2**53),
        "pong": encode_frame("pong", 2**53),
    }
    for name, method in METHODS.items():
        request, reply = MESSAGES[method.request.__name__], MESSAGES[method.reply.__name__]
        asks: FrameKind = "stream" if method.streams else "call"
        answers: FrameKind = "item" if method.streams else "reply"
        extra = {"credit": 64} if method.streams else {}
        made[f"{asks} {name}"] = encode_frame(
            asks, 7, encode(request), method=name, budget_ms=2**40, trace_id="trace", **extra
        )
        made[f"{answers} {name}"] = encode_frame(answers, 7, encode(reply))
    return made


def http_bodies() -> dict[str, bytes]:
    """What HTTP puts around messages: batches and their answers, records, server-sent events."""
    made: dict[str, bytes] = {}
    for name, encoding in (("msgpack", AS_MSGPACK), ("json", AS_JSON)):
        plain = msgspec.json.encode if name == "json" else encode
        calls = tuple(
            BatchCall(
                id=id, method=method, message=msgspec.Raw(encoding.encode(MESSAGES[kind])), budget_ms=1500, trace_id="trace"
            )
            for id, (method, kind) in enumerate([("pull", "PullRequest"), ("query", "QueryCall")])
        )  # fmt: skip
        made[f"batch in {name}"] = plain(BatchRequest(version=BATCH_VERSION, id="0123456789abcdef", calls=calls))
    reply = encode(CallReply(id=1, ok=msgspec.Raw(encode(MESSAGES["OpsReply"]))))
    failed = encode(CallReply(id=2, error=ERROR))
    made["answers of a batch"] = b"".join(
        [pack_record("i", reply), pack_record("p"), pack_record("i", failed), pack_record("z")]
    )
    made["a stream that fails"] = pack_record("i", encode(MESSAGES["Hint"])) + pack_record("e", encode(ERROR))
    made["event hint"] = event_text(encode_json(MESSAGES["Hint"]).decode(), "hint").encode()
    made["event error"] = event_text(encode_json(ERROR).decode(), "error").encode()
    return made


def written() -> dict[str, dict[str, bytes]]:
    """Everything as it is written, by encoding and name."""
    made = {
        name: {
            title: encoding.write(message) for title, message in MESSAGES.items() if type(message) not in encoding.lacks
        }
        for name, encoding in ENCODINGS.items()
    }
    made["trailer"] = {TRAILER: trailer_of(ERROR)}
    return {**made, "frames": frames(), "http": http_bodies()}


def dump(made: dict[str, dict[str, bytes]]) -> str:
    """``made`` as JSON, one entry a line: JSON as text, all else in base64."""
    shown = {
        group: {
            name: data.decode() if group == "json" else base64.b64encode(data).decode()
            for name, data in entries.items()
        }
        for group, entries in made.items()
    }
    return json.dumps(shown, indent=1, ensure_ascii=False) + "\n"


def load(text: str) -> dict[str, dict[str, bytes]]:
    """What :func:`dump` wrote."""
    return {
        group: {name: shown.encode() if group == "json" else base64.b64decode(shown) for name, shown in entries.items()}
        for group, entries in json.loads(text).items()
    }


def read_again(made: dict[str, dict[str, bytes]]) -> dict[str, dict[str, bytes]]:
    """Read every message and frame in ``made`` and write it anew."""
    again: dict[str, dict[str, bytes]] = {}
    for name, encoding in ENCODINGS.items():
        again[name] = {
            title: encoding.write(encoding.read(data, type(MESSAGES[title])))
            for title, data in made[name].items()
            if title in MESSAGES
        }
    again["frames"] = {title: encode(decode_frame(data, 2**30)) for title, data in made["frames"].items()}
    return again


def frame_of(data: bytes) -> Frame:
    """The frame that ``data`` is."""
    frame = decode_frame(data, 2**30)
    assert frame.version == FRAME_VERSION
    return frame


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(dump(written()), encoding="utf-8")
