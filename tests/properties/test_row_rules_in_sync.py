"""Devices of principals with row rules, over random histories: each has what it may see, and is never sent anything else.

Some take parts of the scope, in shapes whose values change: each has what it may see of what it has asked for.

The device is the protocol by hand: pages of the log, snapshots that are staged and caught up, and nothing kept at the hub.
What may be seen is said in words of the test's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import pytest

from atoma.contracts.codec import encode
from atoma.contracts.execution import OperationContext, QueryRequest, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op, OpKind
from atoma.contracts.sync import Cursor, PullReply, PullRequest, SnapshotReply, SnapshotRequest
from atoma.contracts.values import RowImage
from atoma.errors import RemoteError
from atoma.hub import AllowLoopback, Caller, Hub, open_hub
from atoma.ports.service import Principal
from atoma.query.shapes import Shapes
from atoma.schema import Schema, Shape, StoreSpec, param
from atoma.schema.expressions import Condition, col
from atoma.testing.queries import rows_of
from tests.unit.hub.homes import home_of

Row: TypeAlias = Mapping[str, Any]
CONTEXT = OperationContext("trace")


@dataclass
class Note:
    id: str
    owner: str
    text: str
    team: str | None = None


NOTES, POSTS = StoreSpec("notes", Note), StoreSpec("posts", Note)
OF_TEAM = Shape("of_team", NOTES, col("team") == param("team", str))
OF_OTHERS = Shape("of_others", NOTES, ~(col("owner") == param("owner", str)) | col("team").is_null())
LATER = Shape("later", POSTS, (col("text") >= param("text", str)) & (col("owner") == param("owner", str)))
EVERY_POST = Shape("every_post", POSTS)
SCHEMA = Schema(NOTES, POSTS, shapes=[OF_TEAM, OF_OTHERS, LATER, EVERY_POST])
SHAPES = Shapes(SCHEMA)
BOSS = Principal("boss", {"role": "boss"})
TEAMS = ("red", "blue", None)


def rule(caller: Caller) -> Condition:
    return (col("owner") == caller.subject) | (col("team") == caller.claim("team")) | (caller.claim("role") == "boss")


def may(who: Principal, store: str, row: Row) -> bool:
    """What :func:`rule` says."""
    if store == "posts" or who.claims.get("role") == "boss":
        return True
    return row["owner"] == who.subject or (row["team"] is not None and row["team"] == who.claims.get("team"))


Wanted: TypeAlias = tuple[str, Mapping[str, str]]
"""A shape by its name, and the values of its parameters."""


def takes(wanted: Wanted, store: str, row: Row) -> bool:
    """What the shapes say."""
    name, values = wanted
    match name:
        case "of_team":
            return store == "notes" and row["team"] is not None and row["team"] == values["team"]
        case "of_others":
            return store == "notes" and (row["owner"] != values["owner"] or row["team"] is None)
        case "later":
            return store == "posts" and row["text"] >= values["text"] and row["owner"] == values["owner"]
        case _:
            return store == "posts"


def some_shapes(random: Random) -> tuple[Wanted, ...]:
    """Parts of the scope; none for all of it."""
    every: list[Wanted] = [
        ("of_team", {"team": random.choice(("red", "blue"))}),
        ("of_others", {"owner": random.choice(("ann", "bob", "cid"))}),
        ("later", {"text": f"text{random.randrange(10)}", "owner": random.choice(("ann", "bob", "cid"))}),
        ("every_post", {}),
    ]
    return tuple(random.sample(every, random.randrange(4)))


@dataclass
class Device:
    """What a device keeps: its rows, or what it has staged, and where it is."""

    name: bytes
    principal: Principal
    wanted: tuple[Wanted, ...] = ()
    rows: dict[tuple[str, str], Row] = field(default_factory=dict[tuple[str, str], Row])
    cursor: Cursor = field(default_factory=Cursor)
    staged: dict[tuple[str, str], tuple[int, Row | None]] | None = None
    staged_at: Cursor | None = None
    token: bytes | None = None

    def is_to_have(self, store: str, row: Row) -> bool:
        """Whether a row is one that it may see and has asked for."""
        asked = not self.wanted or any(takes(wanted, store, row) for wanted in self.wanted)
        return asked and may(self.principal, store, row)

    @property
    def shapes(self) -> tuple[bytes, ...]:
        """What it asks for, as it travels."""
        declared = {shape.name: shape for shape in SCHEMA.shapes}
        return tuple(SHAPES.call(declared[name].of("main", **values)) for name, values in self.wanted)

    def begin(self) -> None:
        """Take a snapshot."""
        self.staged, self.staged_at, self.token = {}, None, b""


@dataclass
class Run:
    """A hub, its devices, and every row that each of them was ever to see."""

    hub: Hub
    random: Random
    devices: list[Device]
    truth: dict[tuple[str, str], Row] = field(default_factory=dict[tuple[str, str], Row])
    shown: dict[bytes, set[tuple[str, str]]] = field(default_factory=dict[bytes, set[tuple[str, str]]])
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    async def look(self) -> None:
        """Note what there is now, and who may see it."""
        for store in ("notes", "posts"):
            found = await self.hub.service(BOSS).query(QueryRequest(rows_of(store), CONTEXT))
            self.truth = {key: row for key, row in self.truth.items() if key[0] != store}
            self.truth |= {(store, row.id): row.image for row in found.rows}
        for device in self.devices:
            self.shown.setdefault(device.name, set()).update(self.seen_by(device))

    def seen_by(self, device: Device) -> set[tuple[str, str]]:
        return {key for key, row in self.truth.items() if device.is_to_have(key[0], row)}

    async def write(self) -> None:
        """Change a row or two, as somebody who may."""
        random = self.random
        ops: list[Op] = []
        for _ in range(random.choice((1, 1, 2))):
            store, id = random.choice(("notes", "notes", "posts")), f"id{random.randrange(6)}-{random.randrange(2)}"
            if any((op.store, op.id) == (store, id) for op in ops):
                continue
            there = (store, id) in self.truth
            image: RowImage = {
                "owner": random.choice(("ann", "bob", "cid")),
                "text": f"text{random.randrange(10**6)}",
                "team": random.choice(TEAMS),
            }
            kind: OpKind = random.choice(("patch", "patch", "delete", "replace")) if there else "create"
            if kind == "patch":
                image = {name: image[name] for name in random.sample(list(image), random.choice((1, 2)))}
            ops.append(Op(kind, store, id, {} if kind == "delete" else image))
        key = f"key {random.getrandbits(60)}"
        result = await self.hub.service(BOSS).write(WriteRequest(tuple(ops), WriteOptions(atomic=True), CONTEXT, key))
        assert all(item.ok for item in result.items), result
        await self.look()

    async def step(self, device: Device) -> bool:
        """One request of ``device``; whether it is up to date with it."""
        service = self.hub.service(device.principal)
        try:
            if device.token is not None:
                rows = self.random.choice((1, 2, 50))
                asked = SnapshotRequest("main", device.name, device.token, max_rows=rows, shapes=device.shapes)
                self.stage(device, await service.snapshot(asked))
                return False
            at = device.cursor if device.staged is None else device.staged_at
            assert at is not None
            changes = self.random.choice((1, 2, 3, 50))
            request = PullRequest("main", at, device.name, max_changes=changes, shapes=device.shapes)
            return self.take(device, await service.pull(request))
        except RemoteError as error:
            if error.remote_code not in ("VIEW_CHANGED", "CURSOR_TOO_OLD", "SNAPSHOT_EXPIRED"):
                raise
            self.count(error.remote_code)
            device.begin()
            return False

    def stage(self, device: Device, page: SnapshotReply) -> None:
        self.check(device, page)
        assert device.staged is not None
        assert device.staged_at in (None, page.start)
        device.staged_at, device.token = page.start, None if page.done else page.token
        self.put(device.staged, page)

    def take(self, device: Device, page: PullReply) -> bool:
        self.check(device, page)
        if device.staged is None:
            fresh: dict[tuple[str, str], tuple[int, Row | None]] = {key: (0, row) for key, row in device.rows.items()}
        else:
            fresh = device.staged
        self.put(fresh, page)
        if device.staged is not None and page.more:
            device.staged_at = page.end
            return False
        device.rows = {key: row for key, (_, row) in fresh.items() if row is not None}
        device.cursor, device.staged, device.staged_at = page.end, None, None
        return not page.more

    def put(self, into: dict[tuple[str, str], tuple[int, Row | None]], page: PullReply | SnapshotReply) -> None:
        for part in page.stores:
            for seq, id, *values in part.rows:
                self.newer(into, (part.store, str(id)), int(str(seq)), dict(zip(part.columns[1:], values, strict=True)))
            for seq, id in part.deletes:
                self.count("gone")
                self.newer(into, (part.store, id), seq, None)

    def newer(
        self, into: dict[tuple[str, str], tuple[int, Row | None]], key: tuple[str, str], seq: int, row: Row | None
    ) -> None:
        if seq >= into.get(key, (0, None))[0]:
            into[key] = (seq, row)

    def check(self, device: Device, page: PullReply | SnapshotReply) -> None:
        """See that nothing is in the page that this device was not to see."""
        ever = self.shown[device.name]
        for part in page.stores:
            for _, id, *values in part.rows:
                row = dict(zip(part.columns[1:], values, strict=True))
                assert device.is_to_have(part.store, row), (device, part.store, id, row)
            for _, id in part.deletes:
                assert (part.store, id) in ever, (device.principal, part.store, id)
        told = encode(page)
        for id in {key[1] for key in self.truth} - {key[1] for key in ever}:
            assert id.encode() not in told, id

    async def catch_up(self, device: Device) -> None:
        while not await self.step(device):
            pass
        assert device.rows == {key: self.truth[key] for key in self.seen_by(device)}, device.principal


@asynccontextmanager
async def open_run(seed: int, store: Any) -> AsyncIterator[Run]:
    random = Random(seed)
    people = [Principal("ann", {"team": "red"}), Principal("bob"), Principal("cid", {"team": "blue"}), BOSS]
    devices = [Device(b"device-of-" + who.subject.encode(), who, some_shapes(random)) for who in people]
    async with open_hub(SCHEMA, store, verifier=AllowLoopback(), row_rules={"notes": rule}) as hub:
        yield Run(hub, random, devices)


async def go(run: Run, steps: int) -> None:
    random = run.random
    await run.look()
    for device in run.devices[::2]:
        device.begin()  # the others follow the log from its beginning
    for _ in range(steps):
        device = random.choice(run.devices)
        match random.randrange(13):
            case 0 | 1 | 2 | 3:
                await run.write()
            case 4 | 5 | 6 | 7:
                await run.step(device)
            case 8 | 9:
                await run.catch_up(device)
            case 10 if device.principal != BOSS:
                team = random.choice(TEAMS)
                device.principal = Principal(device.principal.subject, {"team": team} if team else {})
                run.count("claims changed")
                await run.look()
            case 11 if random.random() < 0.6:
                device.wanted = some_shapes(random)
                run.count("another shape" if device.wanted else "the whole")
                await run.look()
            case _:
                if random.random() < 0.3:
                    await run.hub.compact(keep=random.choice((0, 2)), force=True)
    for device in run.devices:
        await run.catch_up(device)


@pytest.mark.parametrize(("home", "seeds"), [("sqlite", range(16)), ("postgres", range(100, 102))])
async def test_a_device_has_what_it_may_see_and_is_sent_nothing_else(home: str, seeds: range, tmp_path: Path) -> None:
    counts: dict[str, int] = {}
    with home_of(home, tmp_path) as place:
        for seed in seeds:
            async with open_run(seed, place.store(f"hub{seed}")) as run:
                try:
                    await go(run, 60)
                except BaseException:
                    print(f"seed {seed}")
                    raise
                for what, count in run.counts.items():
                    counts[what] = counts.get(what, 0) + count
    wanted = {"VIEW_CHANGED", "CURSOR_TOO_OLD", "gone", "claims changed", "another shape", "the whole"}
    assert counts.keys() >= wanted, counts
