"""The one table of error codes: what each code means, what helps, and how other protocols spell it.

``errors``, the kernel, sync, the hub and the transports read it; no other module keeps a list of codes. A new code is a
new row here: a test fails when an error class has a code without a row, and when the documentation disagrees with the
table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

Category: TypeAlias = Literal["auth", "agreement", "protocol", "transient", "resync", "history", "outcome", "local"]
"""What an error is about. ``auth``: the token. ``agreement``: the two sides may not, or cannot, work together.
``protocol``: they do not understand each other. ``transient``: a condition that passes. ``resync``: the device can no
longer continue from what it has of the hub. ``history``: the hub's history differs from the one the device saw.
``outcome``: the decision about this one request. ``local``: the device, or the program that asks."""

Help: TypeAlias = Literal[
    "retry",
    "less",
    "login",
    "rights",
    "upgrade",
    "resnapshot",
    "repair",
    "adopt",
    "resolve",
    "change",
    "program",
    "clock",
    "room",
    "operator",
    "nothing",
]
"""What helps against an error; :data:`HELP` describes each word."""

Waits: TypeAlias = Literal["online", "offline", "stalled"]
"""What an error means for replication while it waits. ``online``: the hub asks for a pause. ``offline``: the hub is not there, or
the session is over. ``stalled``: something is wrong. The state that the status shows depends on the request as well."""

VerdictKind: TypeAlias = Literal["applied", "refused", "denied", "undone", "unknown"]
"""What an error says about a write. ``applied``: the write was applied. ``refused``: it was decided and will not be applied,
whichever copy of it arrives. ``denied``: this copy was not admitted, which says nothing about an earlier one. ``undone``:
nothing was done and nothing was decided. ``unknown``: nobody can say whether it was applied."""

HELP: Mapping[Help, str] = MappingProxyType(
    {
        "retry": "the same request again, later",
        "less": "a smaller request, or a smaller answer",
        "login": "a new token",
        "rights": "somebody who can grant the right",
        "upgrade": "a newer version of one of the two sides",
        "resnapshot": "a snapshot in place of the cursor; the outbox is kept",
        "repair": "a repair: it is automatic; `client.sync.repair()` makes it too and says why it is impossible",
        "adopt": "the hub and the user to which the file belongs; or `client.sync.adopt_hub()`, which hands the file over",
        "resolve": "asking for the outcome of the write, by its key",
        "change": "a different request: read the current state and decide again",
        "program": "a change to the program or to its configuration",
        "clock": "a correct clock, then the same request again; a write needs a new key",
        "room": "free space: on the disk or in the outbox",
        "operator": "somebody who looks after the machine; its log says more",
        "nothing": "nothing: it is reported for the record",
    }
)


class Code(msgspec.Struct, frozen=True):
    """A row of the table.

    Attributes:
        means: What the code says, for people.
        category: What the error is about.
        help: What helps.
        verdict: What the code says about a write.
        http: HTTP status of a call that fails with this code. Refused items of a write are part of an answer with status 200.
        grpc: gRPC status number of such a call.
        websocket: WebSocket close code; 0 when the connection stays open.
        waits: What the error means for replication while it waits.
    """

    means: str
    category: Category
    help: Help
    verdict: VerdictKind
    http: int = 409
    grpc: int = 9
    websocket: int = 0
    waits: Waits = "stalled"

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, without a change."""
        return self.help == "retry"


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault that the start-up check found, and what to do about it.

    Attributes:
        code: Stable identifier of the kind of fault.
        message: What is wrong and where.
        remedy: What to change.
    """

    code: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"[{self.code}] {self.message} — {self.remedy}"


CODES: Mapping[str, Code] = MappingProxyType(
    {
        # the token
        "UNAUTHENTICATED": Code("the token is missing or wrong", "auth", "login", "denied", 401, 16, 4401),
        "AUTH_EXPIRED": Code("the token is no longer valid", "auth", "login", "denied", 401, 16, 4401),
        # the two sides may not, or cannot, work together
        "PERMISSION_DENIED": Code("you may not do this here", "agreement", "rights", "denied", 403, 7, 4403),
        "SHAPE_UNKNOWN": Code(
            "the hub has no such shape, or a different one of that name", "agreement", "upgrade", "undone"
        ),
        "SCHEMA_TOO_OLD": Code("the device's schema is too old for the hub", "agreement", "upgrade", "undone"),
        "SCHEMA_TOO_NEW": Code("the device's schema is newer than the hub's", "agreement", "upgrade", "undone"),
        "SCHEMA_MISMATCH": Code("the two sides read a field differently", "agreement", "program", "undone"),
        "HUB_MISMATCH": Code("the device belongs to another hub", "agreement", "adopt", "undone"),
        "PROTO_UNSUPPORTED": Code("no common version of the protocol", "agreement", "upgrade", "undone", 426, 12, 4426),
        "FEATURE_REQUIRED": Code(
            "one side lacks what the other needs", "agreement", "upgrade", "undone", 426, 12, 4426
        ),
        # the two sides do not understand each other
        "UNIMPLEMENTED": Code("there is no such method here", "protocol", "upgrade", "undone", 501, 12),
        "MALFORMED": Code("the message cannot be read", "protocol", "program", "refused", 400, 3, 4400),
        "TOO_DEEP": Code("the message is nested too deep", "protocol", "program", "refused", 400, 3, 4400),
        "BAD_CHECKSUM": Code("the message was damaged on its way", "protocol", "program", "undone", 400, 3, 4400),
        # conditions that pass
        "UNAVAILABLE": Code(
            "the hub cannot be reached, or is closing", "transient", "retry", "unknown", 503, 14, 1012, waits="offline"
        ),
        "TIMEOUT": Code("the time allowed for it ran out", "transient", "retry", "unknown", 504, 4),
        "INTERNAL": Code(
            "the answering side failed; its log says why",
            "transient",
            "retry",
            "unknown",
            500,
            13,
            1011,
        ),
        "BUSY": Code("another program holds the database", "transient", "retry", "undone", 503, 14),
        "SESSION_ENDED": Code(
            "the hub has ended this session: connect again",
            "transient",
            "retry",
            "unknown",
            503,
            14,
            1012,
            waits="offline",
        ),
        "OVERLOADED": Code("a bounded queue is full", "transient", "retry", "undone", 503, 8, 1013, waits="online"),
        "RATE_LIMITED": Code(
            "too much was sent in too short a time", "transient", "retry", "undone", 429, 8, 1013, waits="online"
        ),
        "SLOW_CONSUMER": Code(
            "the answer was not read in time", "transient", "retry", "undone", 503, 8, 1013, waits="online"
        ),
        "OUT_OF_ORDER": Code("earlier mutations are missing", "transient", "retry", "undone", waits="offline"),
        "HUB_BEHIND": Code("this copy of the hub has not caught up yet", "transient", "retry", "undone", 503, 14),
        "BLOB_MISSING": Code("the blob it refers to has not been uploaded", "transient", "retry", "undone", 424, 9),
        "TOO_LARGE": Code("the request or its answer is too large", "transient", "less", "refused", 413, 8, 1009),
        "CANCELLED": Code("the caller cancelled the request", "transient", "nothing", "unknown"),
        # the device can no longer continue from what it has of the hub
        "SCOPE_REVOKED": Code("you no longer have access to the scope", "resync", "rights", "denied", 403, 7),
        "CLIENT_FORKED": Code("the file is a copy or an older state of another file", "resync", "repair", "undone"),
        "CLIENT_EXPIRED": Code("the hub has forgotten the device", "resync", "repair", "undone", 410, 5),
        "CURSOR_TOO_OLD": Code(
            "the log no longer reaches back to the cursor", "resync", "resnapshot", "undone", 410, 11
        ),
        "SNAPSHOT_EXPIRED": Code(
            "the log no longer reaches back to the snapshot", "resync", "resnapshot", "undone", 410, 11
        ),
        "CURSOR_AHEAD": Code("the cursor is ahead of the hub", "history", "resnapshot", "undone", 409, 10),
        "LINEAGE_MISMATCH": Code("the hub has another history", "history", "resnapshot", "undone", 409, 10),
        "EPOCH_CHANGED": Code("the hub has begun a new epoch", "history", "resnapshot", "undone", 409, 10),
        "VIEW_CHANGED": Code(
            "the rows that you may see in the scope have changed", "resync", "resnapshot", "undone", 409, 10
        ),
        "RESYNC": Code("the hub does not recognise the cursor", "resync", "resnapshot", "undone"),
        "HISTORY_MOVED": Code(
            "the hub moved since the session was opened", "history", "retry", "undone", waits="offline"
        ),
        "SEVERAL_HUBS": Code("hubs of different histories answer under one address", "history", "operator", "undone"),
        "HUB_LOST_DATA": Code("the hub was restored from an older state", "history", "repair", "undone"),
        "WRONG_HUB": Code("the file belongs to another hub or principal", "agreement", "adopt", "denied", 403, 7),
        # decisions about one request
        "CONFLICT": Code("the row exists already, or has changed", "outcome", "change", "refused"),
        "ALREADY_EXISTS": Code("the id is taken", "outcome", "change", "refused"),
        "NOT_FOUND": Code("the row does not exist", "outcome", "change", "refused"),
        "INVALID": Code("a value is wrong", "outcome", "change", "refused"),
        "CONSTRAINT": Code("another row has the same unique value", "outcome", "change", "refused"),
        "QUERY": Code("the query does not fit the schema", "outcome", "change", "refused"),
        "UNSUPPORTED": Code("this is not supported here, or not yet", "outcome", "change", "refused"),
        "DENIED": Code("you may not write this", "outcome", "rights", "refused"),
        "QUOTA": Code("your quota is used up", "outcome", "rights", "denied"),
        "RESOLVER_FAILED": Code("the application's resolver failed", "outcome", "program", "refused"),
        "DEPENDENCY_REJECTED": Code("a write that it builds on was refused", "outcome", "change", "refused"),
        "ABORTED": Code("another entry of its unit was refused", "outcome", "change", "refused"),
        "ABANDONED": Code("its key was resolved: the write is never applied", "outcome", "change", "refused"),
        "KEY_EXPIRED": Code("the hub no longer keeps answers as old as its key", "outcome", "clock", "denied"),
        "REJECTED": Code("the authority rejected the write", "outcome", "change", "refused"),
        "MERGED": Code("applied, but some fields kept another value", "outcome", "change", "applied"),
        # the device, or the program that asks
        "WRITE": Code("the data was refused", "local", "change", "refused"),
        "SCOPE_NOT_SUBSCRIBED": Code("this device does not sync the scope", "local", "program", "refused"),
        "TAKEN_BACK": Code("the write was taken back on this device", "local", "change", "refused"),
        "HELD": Code("the write is held on this device until somebody releases it", "local", "change", "refused"),
        "UNKNOWN_OUTCOME": Code("nobody can say whether the write was applied", "local", "resolve", "unknown"),
        "NOT_RESOLVABLE": Code(
            "this device decides about the key itself, or it is not known who does", "local", "program", "undone"
        ),
        "EXECUTION": Code("a node failed with an error of its own", "local", "program", "undone"),
        "RESULT_MISMATCH": Code("a result does not fit its request", "local", "program", "unknown"),
        "CIRCUIT_OPEN": Code("a breaker refuses calls for now", "local", "retry", "undone", waits="offline"),
        "FALLBACK_EXHAUSTED": Code("every alternative failed", "local", "retry", "undone"),
        "CONNECT_FAILED": Code("no connection could be made", "local", "retry", "undone", waits="offline"),
        "CHANNEL_BROKEN": Code("the connection was lost", "local", "retry", "unknown", waits="offline"),
        "REMOTE": Code("the other side failed with an error of its own", "local", "operator", "undone"),
        "CONFIGURATION": Code("the program is configured incorrectly", "local", "program", "undone"),
        "SCHEMA": Code("a store declaration cannot be used", "local", "program", "undone"),
        "PLUGIN": Code("a plugin is malformed, or two claim one name", "local", "program", "undone"),
        "TOPOLOGY": Code("the start-up check found faults", "local", "program", "undone"),
        "WRONG_LOOP": Code("called from a different event loop or thread", "local", "program", "undone"),
        "NOT_ENTERED": Code("used without `async with`", "local", "program", "undone"),
        "UNKNOWN_STORE": Code("no store has that name", "local", "program", "undone"),
        "UNKNOWN_POLICY": Code("no policy has that name", "local", "program", "undone"),
        "POLICY_NOT_ALLOWED": Code("this store may not use that policy", "local", "program", "undone"),
        "STORE": Code("the storage engine failed", "local", "operator", "undone"),
        "CORRUPT": Code("the file is damaged, or of another kind", "local", "operator", "undone"),
        "FOREIGN_LOG": Code("the log beside the file is another file's", "local", "operator", "undone"),
        "WRONG_KEY": Code("the key is not the file's, or one is missing", "local", "program", "undone"),
        "DISK_FULL": Code("no space is left", "local", "room", "undone"),
        "MIGRATION": Code("the file's schema cannot be brought to the code's", "local", "program", "undone"),
        "CLOSED": Code("the client, hub or engine is closed", "local", "program", "undone", waits="offline"),
        "CLOCK_AHEAD": Code("the machine's clock is far ahead", "local", "clock", "undone"),
        "SYNC": Code("replication failed", "local", "operator", "undone"),
        "OUTBOX_FULL": Code("too many writes have not been sent yet", "local", "room", "undone"),
        "SCOPE_IN_USE": Code("the scope is in use here, or a write waits in it", "local", "change", "undone"),
        "TOO_MANY_SCOPES": Code("more scopes are in use than a hub accepts", "local", "change", "undone"),
        "SCOPES_NOT_NAMED": Code("the query does not name its scopes", "local", "program", "undone"),
        "LEAD_LOST": Code(
            "another program that has the file open runs the lanes", "local", "retry", "undone", waits="offline"
        ),
        "ALREADY_SENT": Code("the hub may already have the write", "local", "change", "undone"),
        "NOT_PENDING": Code("the write is no longer waiting here", "local", "change", "undone"),
        "PUSH_STALLED": Code("the hub keeps failing to decide a write", "local", "operator", "undone"),
    }
)
"""Every code by its name."""

OTHER = Code("a code that this version does not know", "outcome", "change", "undone")
"""The row of a code that is not in the table; the other side says whether to retry."""

BY_HTTP: Mapping[int, str] = MappingProxyType(
    {
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        408: "UNAVAILABLE",
        413: "TOO_LARGE",
        429: "RATE_LIMITED",
        502: "UNAVAILABLE",
        503: "UNAVAILABLE",
        504: "UNAVAILABLE",
    }
)
"""The code for an HTTP status that comes from an intermediary and not from a hub. For the ambiguous ones nobody knows
whether the hub has seen the request, which is what ``UNAVAILABLE`` says."""

OF_HTTP: Mapping[int, str] = MappingProxyType(
    {
        400: "MALFORMED",
        403: "PERMISSION_DENIED",
        404: "UNIMPLEMENTED",
        405: "UNIMPLEMENTED",
        408: "TIMEOUT",
        413: "TOO_LARGE",
        415: "MALFORMED",
    }
)
"""The code for the status with which a hub refuses an HTTP request before it becomes a call."""

BY_GRPC: Mapping[int, str] = MappingProxyType(
    {
        1: "UNAVAILABLE",  # CANCELLED: cut off by somebody on the way
        2: "INTERNAL",  # UNKNOWN
        3: "INVALID",
        4: "TIMEOUT",
        5: "NOT_FOUND",
        6: "ALREADY_EXISTS",
        7: "PERMISSION_DENIED",
        8: "OVERLOADED",
        9: "CONFLICT",  # FAILED_PRECONDITION
        10: "CONFLICT",  # ABORTED
        11: "INVALID",  # OUT_OF_RANGE
        12: "UNIMPLEMENTED",
        13: "INTERNAL",
        14: "UNAVAILABLE",
        15: "INTERNAL",  # DATA_LOSS
        16: "UNAUTHENTICATED",
    }
)
"""The code for a gRPC status without details: from a server that is not Atoma's, or from an intermediary."""

BY_WEBSOCKET: Mapping[int, str] = MappingProxyType(
    {
        4401: "UNAUTHENTICATED",
        4403: "PERMISSION_DENIED",
        4426: "PROTO_UNSUPPORTED",
        4400: "MALFORMED",
        1002: "MALFORMED",
        1003: "MALFORMED",
        1007: "MALFORMED",
        1009: "TOO_LARGE",
        1011: "INTERNAL",
        1012: "UNAVAILABLE",
        1013: "OVERLOADED",
    }
)
"""The code for a WebSocket close code whose text names no code: another program's, or a proxy's."""


def row(code: str) -> Code:
    """Return the row of ``code``; :data:`OTHER` if the table has none."""
    return CODES.get(code, OTHER)


def known_code(code: str) -> str:
    """Return ``code`` if it is empty or in the table; otherwise ``other``, because an unknown code may contain anything."""
    return code if not code or code in CODES else "other"


__all__ = [
    "BY_GRPC",
    "BY_HTTP",
    "BY_WEBSOCKET",
    "CODES",
    "HELP",
    "OF_HTTP",
    "OTHER",
    "Category",
    "Code",
    "Help",
    "Problem",
    "VerdictKind",
    "Waits",
    "known_code",
    "row",
]
