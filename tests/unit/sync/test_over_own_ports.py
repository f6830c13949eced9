"""The lanes over ports that this file makes by hand: they know a transaction, an apply port and a hub, and no engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import ACKED, BaseRow, MutationBody, Op, PendingMutation
from atoma.contracts.replica import BroughtScope, ClientIdentity, InboxEntry, Portion, Subscription
from atoma.contracts.sync import (
    PROTOCOL_VERSION,
    Cursor,
    Limits,
    OpenRequest,
    Outcome,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    StoreChanges,
)
from atoma.contracts.values import ErrorInfo, RowImage, StoredRow
from atoma.contracts.writeback import Applied, Writeback
from atoma.ports import seeded_environment
from atoma.query.shapes import Shapes
from atoma.schema import Schema, StoreSpec
from atoma.schema.kinds import INT64_MAX
from atoma.sync.failures import HubLostData
from atoma.sync.outbox import next_digest
from atoma.sync.position import Position
from atoma.sync.pull import PullLane
from atoma.sync.push import PushLane
from atoma.sync.replica import Replica
from atoma.sync.scopes import ReplicatedScopes
from atoma.sync.session import SyncSession
from atoma.sync.staging import Replied
from atoma.sync.status import ScopeProgress, StatusBoard, SyncStatus
from atoma.sync.wake import Bell
from atoma.sync.writebacks import ReplicationPart

pytestmark = pytest.mark.virtual_time
T = TypeVar("T")
Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Note:
    id: str
    text: str = ""


SCHEMA = Schema(StoreSpec("notes", Note))
FILE = ClientIdentity(b"client-1", 1, 1, b"", 0, b"hub", "ann")
LIVE = Subscription("main", "live", Cursor(b"e", 0, b""))


@dataclass
class Memory:
    """A database and its transaction in dictionaries: as much of the ports as lanes use."""

    schema: Schema = SCHEMA
    now_ms: int = 0
    visible: dict[Key, RowImage] = field(default_factory=dict)
    shadows: dict[Key, RowImage | None] = field(default_factory=dict)
    waiting: dict[int, PendingMutation] = field(default_factory=dict)
    kept: list[InboxEntry] = field(default_factory=list)
    who: ClientIdentity = FILE
    live: Subscription = LIVE
    doors: list[str] = field(default_factory=list)
    taken: list[Writeback] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows, self.base, self.outbox = Rows(self), Base(self), Outbox(self)
        self.inbox, self.scopes = Inbox(self), Scopes(self)

    # the database and the apply port

    async def inspect(self, body: Callable[[Any], T]) -> T:
        self.doors.append("inspect")
        return body(self)

    async def apply_writeback(self, writeback: Writeback) -> Applied:
        """The rows go into the base, the part does its own, and rows that are touched are rebuilt: as a runtime does."""
        self.doors.append("apply")
        self.taken.append(writeback)
        touched: dict[Key, None] = {}
        for row in writeback.rows:
            aside = self.base.put_many(row.store, row.scope, [(row.id, row.image, row.version)])
            touched.update(dict.fromkeys((row.store, id) for id in aside))
        found = self.outbox.by_keys(writeback.verdicts)
        decided = [(found[key], outcome) for key, outcome in writeback.verdicts.items() if key in found]
        tx: Any = self
        told = ReplicationPart(lambda: "id").stage(tx, writeback, decided, touched)
        for store, id in touched:
            if (store, id) in self.shadows and not self.outbox.on_row(store, id):  # what is pending stays visible
                self.rows.put(store, id, "main", self.shadows.pop((store, id)))
        return Applied(told=told)

    async def flush(self) -> None:
        self.doors.append("flush")

    def show_in_flight(self, mids: Sequence[int], *, in_flight: bool) -> None:
        self.doors.append("show")

    def write(self, op: Op) -> None:
        """What a local write leaves behind."""
        key, mid = (op.store, op.id), self.who.next_mid
        self.shadows.setdefault(key, self.visible.get(key))
        self.visible[key] = {**self.visible.get(key, {}), **op.values}
        body = encode(MutationBody(mid, f"k{mid}", "main", self.live.cursor.seq, 1, 0, (op,)))
        digest = next_digest(self.who.tail_digest, body)
        self.waiting[mid] = PendingMutation(mid, "outbox", mid, f"k{mid}", "main", 0, body, digest)
        self.who = replace(self.who, next_mid=mid + 1, tail_digest=digest)


@dataclass
class Part:
    """A part of the transaction."""

    memory: Memory


class Rows(Part):
    def read(self, store: str, id: str) -> StoredRow | None:
        image = self.memory.visible.get((store, id))
        return None if image is None else StoredRow(id, 1, 0, "main", image)

    def put(self, store: str, id: str, scope: str, image: RowImage | None) -> int:
        self.memory.visible.pop((store, id), None)
        if image is not None:
            self.memory.visible[store, id] = image
        return 1


class Base(Part):
    def read(self, store: str, id: str) -> BaseRow:
        shadows, key = self.memory.shadows, (store, id)
        return BaseRow(shadows[key] if key in shadows else self.memory.visible.get(key), 0, "main", key in shadows)

    def put_many(self, store: str, scope: str, rows: Iterable[tuple[str, RowImage | None, int]]) -> list[str]:
        shadows = self.memory.shadows
        for id, image, _ in rows:
            if (store, id) in shadows:
                shadows[store, id] = image
            else:
                self.memory.rows.put(store, id, scope, image)
        return [id for name, id in shadows if name == store]

    def unshadow(self, store: str, id: str) -> None:
        del self.memory.shadows[store, id]


class Outbox(Part):
    def identity(self) -> ClientIdentity:
        return self.memory.who

    def save_identity(self, identity: ClientIdentity) -> None:
        self.memory.who = identity

    def queued(self, *, limit: int, max_bytes: int) -> list[PendingMutation]:
        return [item for _, item in sorted(self.memory.waiting.items()) if item.status == 0][:limit]

    def held_count(self) -> int:
        return 0

    def hurries(self) -> int:
        return 0

    def acked(self, scope: str, through: int = INT64_MAX) -> list[PendingMutation]:
        return [item for item in self.memory.waiting.values() if item.status == ACKED and item.ack_seq <= through]

    def by_mid(self, mid: int) -> PendingMutation | None:
        return self.memory.waiting.get(mid)

    def by_keys(self, keys: Iterable[str]) -> dict[str, PendingMutation]:
        wanted = set(keys)
        return {item.idem: item for item in self.memory.waiting.values() if item.idem in wanted}

    def keys_of(self, mids: Iterable[int]) -> dict[int, str]:
        return {mid: self.memory.waiting[mid].idem for mid in mids if mid in self.memory.waiting}

    def on_row(self, store: str, id: str) -> list[PendingMutation]:
        return [item for _, item in sorted(self.memory.waiting.items()) if (store, id) in touched(item)]

    def pre_image(self, store: str, id: str, lsn: int) -> RowImage | None:
        return self.memory.shadows.get((store, id))

    def mark_acked(self, seqs: Mapping[int, int]) -> None:
        for mid, seq in seqs.items():
            self.memory.waiting[mid] = replace(self.memory.waiting[mid], status=ACKED, ack_seq=seq)

    def remove(self, outcomes: Mapping[int, Outcome | None]) -> list[Key]:
        return [key for lsn in outcomes for key in touched(self.memory.waiting.pop(lsn))]


class Inbox(Part):
    def add(self, entry: InboxEntry) -> None:
        self.memory.kept.append(entry)


class Scopes(Part):
    def read(self, scope: str) -> Subscription:
        return self.memory.live

    def brought(self) -> list[BroughtScope]:
        return []

    def advance(self, scope: str, start: Cursor, end: Cursor, proof: bytes = b"") -> bool:
        live = self.memory.live
        if live.cursor != start:
            return False
        self.memory.live = replace(live, cursor=end, proof=proof)
        return True


def touched(item: PendingMutation) -> list[Key]:
    return [(op.store, op.id) for op in decode(item.body, MutationBody).ops]


@dataclass
class Hub:
    """Answers what the test prepared."""

    outcomes: tuple[Outcome, ...]
    page: PullReply
    pushed: list[int] = field(default_factory=list)

    async def push(self, request: PushRequest) -> PushReply:
        self.pushed += [item.mid for item in request.mutations]
        return PushReply(self.outcomes, max(self.pushed))

    async def pull(self, request: PullRequest) -> PullReply:
        if request.cursor == self.page.end:
            return PullReply("main", self.page.end, self.page.end, head=self.page.end.seq)
        return self.page


def opened(memory: Memory, hub: Hub) -> tuple[Replica, SyncSession]:
    """A session in which nothing is known to be decided."""
    board = StatusBoard(SyncStatus(scopes=(ScopeProgress("main"),)), Bell())
    ports: Any = memory
    service: Any = hub
    replicated, shapes = ReplicatedScopes((Portion("main"),)), Shapes(SCHEMA)
    replica = Replica(
        database=ports, apply=ports, environment=seeded_environment(1), schema=SCHEMA, stores=frozenset({"notes"}),
        replicated=replicated, shapes=shapes, board=board, position=Position(ports, replicated, shapes, board, lambda event: None),
        emit=lambda event: None, bell=Bell(),
    )  # fmt: skip
    request = OpenRequest(memory.who.client_id, 1, 1, b"", ("main",))
    return replica, SyncSession(service, request, memory.who, Limits(), 0, b"", proto=PROTOCOL_VERSION)


async def test_lanes_need_no_more_than_the_ports() -> None:
    memory = Memory()
    memory.write(Op("create", "notes", "1", {"text": "mine"}))
    memory.write(Op("create", "notes", "2", {"text": "taken"}))
    end = Cursor(b"e", 2, b"h")
    changes = StoreChanges("notes", 1, ("id", "text"), ((1, "1", "mine"), (2, "2", "theirs")))
    refused = ErrorInfo("ALREADY_EXISTS", "there is one")
    verdicts = (Outcome(1, "applied", "main", 1), Outcome(2, "rejected", "main", error=refused))
    hub = Hub(verdicts, PullReply("main", memory.live.cursor, end, (changes,), head=2))
    replica, session = opened(memory, hub)
    await PushLane(replica, session).drain()
    assert hub.pushed == [1, 2]
    assert [(mid, item.status, item.ack_seq) for mid, item in memory.waiting.items()] == [(1, ACKED, 1)]
    assert memory.visible == {("notes", "1"): {"text": "mine"}}, "the refused row is taken back, the acked one stays"
    assert [(entry.code, entry.mine) for entry in memory.kept] == [("ALREADY_EXISTS", {"text": "taken"})]
    await PullLane(replica, session, "main").catch_up()
    assert memory.visible == {("notes", "1"): {"text": "mine"}, ("notes", "2"): {"text": "theirs"}}
    assert (memory.waiting, memory.shadows, memory.live.cursor) == ({}, {}, end)
    assert memory.who.confirmed_mid == 2
    assert set(memory.doors) == {"inspect", "apply", "show", "flush"}
    sending, replied, paged = memory.taken
    assert (sending.rows, memory.who.sent_mid) == ((), 2), "what may have been sent is known before it is"
    assert dict(replied.verdicts) == {"k1": verdicts[0], "k2": verdicts[1]} and replied.replication == Replied()
    assert [(row.id, row.image, row.version) for row in paged.rows] == [
        ("1", {"text": "mine"}, 1),
        ("2", {"text": "theirs"}, 2),
    ]


async def test_the_push_lane_does_not_wait_for_a_number_that_has_left_the_outbox() -> None:
    """Nothing is queued, and what lies behind the number can never be sent: that is told, not slept through."""
    memory = Memory()
    for id in ("1", "2", "3"):
        memory.write(Op("create", "notes", id, {"text": ""}))
    for mid in (1, 3):
        memory.outbox.mark_acked({mid: mid})
    memory.outbox.remove({2: None})
    cursor = memory.live.cursor
    hub = Hub((Outcome(1, "applied", "main", 1),), PullReply("main", cursor, cursor))
    with pytest.raises(HubLostData, match="mutation 2 has left the outbox"):
        await PushLane(*opened(memory, hub)).drain()
    assert hub.pushed == [1] and list(memory.waiting) == [1, 3]
