"""Files of the golden commit, opened by the code of today: everything in them is there, and they go on from it."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from atoma.contracts.codec import decode
from atoma.contracts.mutations import ACKED, QUEUED, MutationBody, Op
from atoma.contracts.sync import Cursor, PullReply, PullRequest
from atoma.contracts.values import RowImage
from atoma.errors import AtomaError, RemoteError
from atoma.hub import Hub
from atoma.ports import seeded_environment
from atoma.ports.service import Principal
from atoma_transports.frames.envelope import decode_frame
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from tests.golden.kit import (
    CARDS,
    DRAFTS,
    FENCED,
    FORGOTTEN,
    FULL,
    KEPT,
    NOTES,
    PAGE_CHANGES,
    SEATS,
    SYNCED,
    THINGS,
    Card,
    Device,
    Mood,
    Note,
    Seat,
    Thing,
    device_on,
    hub_on,
)
from tests.golden.old import FOLDER

pytestmark = pytest.mark.virtual_time

LATER_MS = 1_700_000_100_000
FULL_CHANGED = replace(
    FULL, price=Decimal("0.10"), moment=datetime(2026, 1, 2, tzinfo=UTC), mood=Mood.CALM, tags=["new"]
)
AT_THE_HUB: dict[str, list[Any]] = {
    "cards": [
        Card(id="c0", title="zero", rank=12.0),
        Card(id="c1", title="late", rank=0.5),
        Card(id="c2", title="card 2", rank=2.5),
        Card(id="c3", title="card 3", rank=3.5),
        Card(id="c4", title="card 4", rank=2.0),
        Card(id="c5", title="card 5", rank=2.5),
        Card(id="direct", title="again"),
        Card(id="late", rank=9.5),
        Card(id="s1", rank=12.0, board="side"),
        *(Card(id=f"s{n}", board="side") for n in range(2, 8)),
    ],
    "notes": [Note(id="n0", text="bob's"), Note(id="n2", text="note 2"), Note(id="n3", text="note 3")],
    "kept": [Note(id="k0", text="bob's", color="red")],
    "seats": [Seat(id="p0", place="door"), Seat(id="p2", place="window", by="bob")],
    "things": [Thing(id="bare"), FULL],
}
WRITTEN_BY_DEVICE: dict[str, list[Any]] = {
    "cards": [
        Card(id="c0", title="ann's", rank=0.5),
        Card(id="c1", title="whole"),
        *(card for card in AT_THE_HUB["cards"] if card.id in ("c2", "c3", "c5", "direct", "late")),
        Card(id="q1", title="queued", lane="done", done=True),
        Card(id="q2", title="partly"),
        Card(id="q3", board="side"),
        *(card for card in AT_THE_HUB["cards"] if card.board == "side"),
    ],
    "notes": [Note(id="n0", text="bob's"), Note(id="n2", text="note 2"), Note(id="q4"), Note(id="q5")],
    "kept": AT_THE_HUB["kept"],
    "seats": AT_THE_HUB["seats"],
    "things": [Thing(id="bare"), FULL_CHANGED],
}
"""What the hub holds once it has what the golden device had in its outbox."""


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A folder with a copy of every golden file."""
    for packed in FOLDER.glob("*.atoma.gz"):
        (tmp_path / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    return tmp_path


class Spy:
    """Notes what a device asks its hub."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def on_frame(self, direction: str, frame: bytes) -> Sequence[bytes]:
        told = decode_frame(frame, 2**30)
        if told.kind == "call":
            self.asked.append((told.method, msgspec.msgpack.decode(told.payload)))
        return (frame,)

    def snapshots(self, scope: str) -> list[bytes]:
        """Where the pages of a snapshot were asked to go on from."""
        return [
            message["token"] for method, message in self.asked if (method, message.get("scope")) == ("snapshot", scope)
        ]


@asynccontextmanager
async def open_golden_hub(golden: Path, network: MemoryNetwork | None = None) -> AsyncGenerator[Hub]:
    async with hub_on(golden / "hub.atoma", seeded_environment(1, wall_start_ms=LATER_MS)) as hub:
        if network is None:
            yield hub
        else:
            async with network.listen(hub):
                yield hub


@asynccontextmanager
async def open_golden_device(
    golden: Path, name: str, network: MemoryNetwork | None = None, spy: Spy | None = None, **options: Any
) -> AsyncGenerator[Device]:
    """A golden device; without a network its hub cannot be reached."""
    transport = MemoryTransport(network or MemoryNetwork(), token="a-token", site=name, faults=spy)
    environment = seeded_environment(2, wall_start_ms=LATER_MS)
    async with device_on(golden / f"{name}.atoma", transport, environment, **options) as device:
        yield device


async def all_rows(device: Device) -> dict[str, list[Any]]:
    """What the device shows, by store, in order of ids."""
    return {spec.name: [row for _, row in sorted((await device.rows(spec)).items())] for spec in SYNCED}


def queued(tx: Any) -> list[Any]:
    """What is to be pushed."""
    return list(tx.outbox.queued(limit=100, max_bytes=10**6))


def tables(file: Path) -> dict[str, list[dict[str, object]]]:
    """Everything in a file, by plain SQL."""
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
        return {name: [dict(row) for row in database.execute(f'SELECT * FROM "{name}"')] for name in names}


def stored(file: Path, table: str, *columns: str) -> list[tuple[object, ...]]:
    """Some columns of a table, in their order."""
    return sorted(tuple(row[column] for column in columns) for row in tables(file)[table])


# ---------------------------------------------------------------------- a device


async def test_a_device_shows_what_it_showed(golden: Path) -> None:
    async with open_golden_device(golden, "device") as device:
        shown = await all_rows(device)
        drafts = await device.rows(DRAFTS)
    unknown = ("late", *(f"s{n}" for n in range(9)))  # what others wrote, or what is staged only
    cards = [card for card in WRITTEN_BY_DEVICE["cards"] if card.id not in unknown]
    assert shown == {**WRITTEN_BY_DEVICE, "cards": cards}
    assert drafts == {"d0": Note(id="d0", text="stays here")}


async def test_a_devices_outbox_is_as_it_was(golden: Path) -> None:
    def read(tx: Any) -> Any:
        identity = tx.outbox.identity()
        found = [tx.outbox.by_mid(mid) for mid in range(identity.confirmed_mid + 1, identity.next_mid)]
        return (
            identity,
            found,
            {id: tx.outbox.pre_image("cards", id, lsn) for id, lsn in [("c0", 10), ("c0", 18), ("q1", 8)]},
        )

    async with open_golden_device(golden, "device") as device:
        identity, pending, before = await device.inspect(read)
    card: RowImage = {"lane": "todo", "rank": 0.0, "done": 0, "board": "main"}
    bodies = [decode(item.body, MutationBody) for item in pending]
    assert [(item.mid, item.kind, item.status, item.ack_seq) for item in pending] == [
        (6, "outbox", ACKED, 30),
        *((mid, "outbox", QUEUED, 0) for mid in range(7, 19)),
    ]
    assert [(body.scope, body.base_seq, body.ops) for body in bodies] == [
        ("main", 29, (Op("patch", "cards", "c2", {"rank": 2.5}),)),
        ("main", 29, (Op("patch", "cards", "c3", {"rank": 3.5}),)),
        ("main", 29, (Op("create", "cards", "q1", {**card, "title": "queued", "done": 1}),)),
        ("main", 29, (Op("patch", "cards", "q1", {"lane": "done"}, after_mid=8),)),
        ("main", 29, (Op("patch", "cards", "c0", {"title": "ann's"}),)),
        ("main", 29, (Op("delete", "cards", "c4"),)),
        ("main", 29, (Op("upsert", "cards", "c1", {**card, "title": "whole"}),)),
        ("main", 29, (Op("upsert", "cards", "q2", {"title": "partly"}, defaults=card),)),
        ("side", 0, (Op("create", "cards", "q3", {**card, "title": "", "board": "side"}),)),
        (
            "main",
            29,
            (
                Op(
                    "patch",
                    "things",
                    "full",
                    {"price": "0.10", "moment": "2026-01-02T00:00:00.000000Z", "mood": "calm", "tags": '["new"]'},
                ),
            ),
        ),
        ("main", 29, (Op("create", "notes", "q4", {"text": "", "color": "white"}),)),
        ("main", 29, (Op("create", "notes", "q5", {"text": "", "color": "white"}),)),
        ("main", 29, (Op("patch", "cards", "c0", {"rank": 0.5}, after_mid=10), Op("delete", "notes", "n3"))),
    ]
    assert [(body.mid, body.idem, body.schema_version) for body in bodies] == [
        (item.mid, item.idem, 1) for item in pending
    ]
    assert (identity.next_mid, identity.confirmed_mid, identity.incarnation, identity.principal) == (19, 5, 1, "ann")
    assert identity.tail_digest == pending[-1].digest
    assert before == {"c0": {**card, "title": "ann's", "rank": 12.0}, "q1": None}


async def test_a_devices_inbox_is_as_it_was(golden: Path) -> None:
    async with open_golden_device(golden, "device") as device:
        entries = await device.client.inbox.entries(resolved=True)
        opened = await device.client.inbox.entries()
    manual = "somebody else changed it since it was read (rule manual)"
    note, seat = {"text": "note 0", "color": "white"}, {"place": "window", "by": "ann"}
    found = [
        (item.mid, item.store, item.id, item.code, item.base, item.mine, item.theirs, item.theirs_seq, item.resolution)
        for item in entries
    ]
    assert found == [
        (1, "notes", "n0", "CONFLICT", note, {**note, "text": "ann's"}, {**note, "text": "bob's"}, 25, ""),
        (
            2,
            "notes",
            "n1",
            "CONFLICT",
            {**note, "text": "note 1"},
            {**note, "text": "ann's too"},
            None,
            26,
            "dismissed",
        ),
        (
            3,
            "kept",
            "k0",
            "MERGED",
            {**note, "text": "kept"},
            {"text": "ann's", "color": "red"},
            {**note, "text": "bob's"},
            27,
            "",
        ),
        (4, "seats", "p1", "CONSTRAINT", None, seat, None, 0, ""),
        (5, "seats", "p1", "DEPENDENCY_REJECTED", seat, {**seat, "by": "ann herself"}, None, 0, ""),
    ]
    assert entries[0].message == f"notes row 'n0': {manual}"
    assert entries[4].op == Op("patch", "seats", "p1", {"by": "ann herself"}, after_mid=4)
    assert {item.scope for item in entries} == {"main"}
    assert {item.at_ms for item in entries} == {1_700_000_002_050}
    assert [item.mid for item in opened] == [1, 3, 4, 5]


async def test_a_device_resumes_its_snapshot_and_delivers_its_outbox(golden: Path) -> None:
    assert stored(golden / "device.atoma", "_atoma_stage", "scope", "store", "id", "seq") == [
        ("side", "cards", "s0", 1),
        ("side", "cards", "s1", 13),
        ("side", "cards", "s2", 3),
        ("side", "cards", "s3", 4),
    ]
    network, spy = MemoryNetwork(), Spy()
    async with open_golden_hub(golden, network), open_golden_device(golden, "device", network, spy) as device:
        state = await device.inspect(lambda tx: (tx.scopes.read("main"), tx.scopes.read("side")))
        assert [(item.state, item.cursor.seq, bool(item.token)) for item in state] == [
            ("live", 29, False),
            ("snapshot", 0, True),
        ]
        with trio.fail_after(60):
            await device.sync.wait_idle()
        assert await all_rows(device) == WRITTEN_BY_DEVICE
        assert await device.inspect(queued) == []
        assert len(await device.client.inbox.entries(resolved=True)) == 5, "nothing of it was refused"
        at_the_hub = {spec.name: list((await device.rows(spec, "direct-remote")).values()) for spec in SYNCED}
        assert at_the_hub == WRITTEN_BY_DEVICE
    assert spy.snapshots("side")
    assert b"" not in spy.snapshots("side"), "it goes on from the pages that it has"
    assert spy.snapshots("main") == []
    pushed = [mutation[0] for method, message in spy.asked if method == "push" for mutation in message["mutations"]]
    assert sorted(pushed) == [*range(7, 19)], "7 was decided, and its answer lost"
    outcomes = stored(golden / "hub.atoma", "_atoma_hub_outcome", "client", "mid", "status")
    assert [(mid, status) for client, mid, status in outcomes if client == 7 and status != "applied"] == [
        (1, "rejected"),
        (2, "rejected"),
        (3, "merged"),
        (4, "rejected"),
        (5, "rejected"),
        (12, "merged"),
    ]


async def test_a_late_device_resumes_both_halves_of_its_new_snapshots(golden: Path) -> None:
    """One scope has half of its pages, the other one all of them and waits for the end of the log."""
    staged = stored(golden / "late.atoma", "_atoma_stage", "scope", "id")
    assert [id for scope, id in staged if scope == "main"] == ["c0", "c1", "c2", "c3", "c4", "c5", "direct", "late"]
    assert [id for scope, id in staged if scope == "side"] == [f"s{n}" for n in range(1, 8)]
    network, spy = MemoryNetwork(), Spy()
    async with open_golden_hub(golden, network):
        async with open_golden_device(golden, "late") as alone:
            shown = await all_rows(alone)
            assert [card.id for card in shown["cards"]] == [
                *(f"c{n}" for n in range(8)),
                "direct",
                "late",
                *(f"s{n}" for n in range(1, 9)),
            ]
            assert shown["cards"][0] == Card(id="c0", title="card 0"), "what is staged is not shown"
            assert shown["cards"][1] == Card(id="c1", title="late", rank=0.5)
            assert shown["kept"] == [Note(id="k0", text="kept", color="late's")]
            assert [item.mid for item in await alone.inspect(queued)] == [1, 2, 3, 4]
            state = await alone.inspect(lambda tx: (tx.scopes.read("main"), tx.scopes.read("side")))
            assert [(item.state, item.cursor.seq, item.stage_cursor.seq) for item in state] == [
                ("snapshot", 17, 33),
                ("tail", 9, 14),
            ]
        async with open_golden_device(golden, "late", network, spy) as device:
            with trio.fail_after(60):
                await device.sync.wait_idle()
            assert await all_rows(device) == AT_THE_HUB
            (refused,) = await device.client.inbox.entries()
            assert (refused.mid, refused.code, refused.theirs) == (4, "CONFLICT", {"text": "bob's", "color": "red"})
    assert b"" not in spy.snapshots("main")
    assert spy.snapshots("side") == []


async def test_what_was_shown_until_an_answer_came_is_taken_back(golden: Path) -> None:
    assert stored(golden / "shown.atoma", "drafts", "id", "text") == [("d0", "shown")]
    async with open_golden_device(golden, "shown", syncs=False) as device:
        assert await device.rows(DRAFTS) == {"d0": Note(id="d0", text="before")}
        assert await device.inspect(lambda tx: tx.outbox.volatile()) == []


# ---------------------------------------------------------------------- a hub


async def test_a_hub_holds_what_it_held(golden: Path) -> None:
    """Opening a file changes nothing that was in it."""
    before = tables(golden / "hub.atoma")
    async with open_golden_hub(golden) as hub:
        assert hub.identity.hub_id == before["_atoma_hub_info"][0]["hub_id"]
    after = tables(golden / "hub.atoma")
    assert len(before["_atoma_hub_tx"]) == len(before["_atoma_hub_change"]) == 17
    assert len(before["_atoma_hub_tombstone"]) == 3
    assert len(before["_atoma_hub_outcome"]) == 25
    assert len(before["_atoma_hub_idem"]) == 4
    assert before["_atoma_hub_forgotten"] == [{"one": 1, "before_ms": 1_700_000_001_000}]
    for name, rows in before.items():
        kept = [{column: row[column] for column in rows[0]} for row in after[name]] if rows else []
        if name == "_atoma_meta":  # the file says what it has become
            kept, rows = ([row for row in of if not is_form(row["key"])] for of in (kept, rows))
        if name == "things":  # its columns have the form of today
            rows = [{**row, **BY_VALUE[row["id"]]} for row in rows]
        assert kept == rows, name


def is_form(key: object) -> bool:
    """Whether the file says under ``key`` how it holds what it holds."""
    return str(key).startswith(("form", "indexes:"))


BY_VALUE: dict[object, dict[str, object]] = {
    "bare": {"nickname": ""},
    "full": {"price": "-12345678901234567890.1", "lasts": -86_399_999_999, "nickname": 'the "one"'},
}
"""What columns of things hold otherwise than in the golden file."""


@pytest.mark.parametrize("first", ["hub", "device"])
async def test_golden_files_end_equal_whichever_is_opened_first(golden: Path, first: str) -> None:
    if first == "device":
        async with open_golden_device(golden, "device") as alone:
            assert (await alone.rows(THINGS))["full"] == FULL_CHANGED
    network = MemoryNetwork()
    async with open_golden_hub(golden, network), open_golden_device(golden, "device", network) as device:
        with trio.fail_after(60):
            await device.sync.wait_idle()
        assert await all_rows(device) == WRITTEN_BY_DEVICE
        lasts = FULL_CHANGED.lasts
        assert lasts is not None
        await device.store(THINGS).update("full", lasts=-lasts, nickname='"')
        with trio.fail_after(60):
            await device.sync.wait_idle()
        async with open_golden_device(golden, "late", network) as late:
            with trio.fail_after(60):
                await late.sync.wait_idle()
            assert await late.rows(THINGS) == await device.rows(THINGS) == await device.rows(THINGS, "direct-remote")
    columns = THINGS.columns
    at_the_hub = stored(golden / "hub.atoma", "things", *columns)
    assert at_the_hub[1][columns.index("lasts")] == 86_399_999_999
    for name in ("device", "late"):
        assert stored(golden / f"{name}.atoma", "things", *columns) == at_the_hub, "base and hub are one, by value"


async def test_a_hub_shows_its_rows(golden: Path) -> None:
    network = MemoryNetwork()
    async with open_golden_hub(golden, network), open_golden_device(golden, "shown", network, syncs=False) as device:
        rows = {spec.name: list((await device.rows(spec, "direct-remote")).values()) for spec in SYNCED}
    assert rows == AT_THE_HUB


async def pulled(hub: Hub, scope: str, cursor: Cursor, client_id: bytes) -> list[PullReply]:
    """Every page after ``cursor``."""
    pages: list[PullReply] = []
    while not pages or pages[-1].more:
        start = pages[-1].end if pages else cursor
        pages.append(
            await hub.service(Principal("ann")).pull(PullRequest(scope, start, client_id, max_changes=PAGE_CHANGES))
        )
    return pages


async def test_a_hub_tells_its_log_its_deletes_and_its_verdicts(golden: Path) -> None:
    file = golden / "hub.atoma"
    (info,) = stored(file, "_atoma_hub_info", "epoch")
    scopes = stored(file, "_atoma_hub_scope", "scope", "floor", "floor_hash")
    floors = {scope: Cursor(info[0], floor, lineage) for scope, floor, lineage in scopes}  # type: ignore[arg-type]
    (client_id,) = next(
        (client,) for number, client in stored(file, "_atoma_hub_client", "number", "client_id") if number == 7
    )
    assert isinstance(client_id, bytes)
    async with open_golden_hub(golden) as hub:
        pages = [
            *await pulled(hub, "main", floors["main"], client_id),
            *await pulled(hub, "side", floors["side"], client_id),
        ]
        with pytest.raises(RemoteError) as forgotten:
            await pulled(hub, "main", Cursor(), client_id)
    assert forgotten.value.remote_code == "CURSOR_TOO_OLD"
    parts = [part for page in pages for part in page.stores]
    assert sorted((part.store, row[1], row[0]) for part in parts for row in part.rows) == [
        ("cards", "c0", 23),
        ("cards", "c1", 32),
        ("cards", "c2", 30),
        ("cards", "c3", 31),
        ("cards", "direct", 24),
        ("cards", "late", 33),
        ("cards", "s1", 13),
        ("kept", "k0", 27),
        ("kept", "k0", 29),
        ("notes", "n0", 25),
        ("seats", "p2", 28),
    ]
    assert sorted((part.store, id, seq) for part in parts for seq, id in part.deletes) == [
        ("cards", "c6", 22),
        ("cards", "s0", 14),
        ("notes", "n1", 26),
    ]
    (c3,) = [dict(zip(part.columns, row[1:], strict=True)) for part in parts for row in part.rows if row[1] == "c3"]
    assert c3 == {"id": "c3", "title": "card 3", "lane": "todo", "rank": 3.5, "done": 0, "board": "main"}
    assert {page.head for page in pages} == {33, 14}
    outcomes = {outcome.mid: outcome for page in pages for outcome in page.outcomes}
    verdicts = {mid: (item.status, item.seq, item.error.code if item.error else "") for mid, item in outcomes.items()}
    assert verdicts == {
        1: ("rejected", 0, "CONFLICT"),
        2: ("rejected", 0, "CONFLICT"),
        3: ("merged", 29, ""),
        4: ("rejected", 0, "CONSTRAINT"),
        5: ("rejected", 0, "DEPENDENCY_REJECTED"),
        6: ("applied", 30, ""),
        7: ("applied", 31, ""),
    }
    (met,) = outcomes[1].conflicts
    assert (met.id, met.rule, met.current, met.current_seq) == ("n0", "manual", {"text": "bob's", "color": "white"}, 25)


async def test_a_hub_remembers_its_answers_to_direct_writes(golden: Path) -> None:
    done, refused = "018bcfe5-6be8-70be-bd84-a85051ba509b", "018bcfe5-6be8-70bf-b5ca-8933163a6145"
    network = MemoryNetwork()
    transport = MemoryTransport(network, token="b-token", site="bob")
    async with open_golden_hub(golden, network), device_on(golden / "bob.db", transport, seeded_environment(3, wall_start_ms=LATER_MS), syncs=False) as bob:  # fmt: skip
        told = await bob.client.resolve(done)
        assert told.result is not None
        assert (told.result.status, told.result.items[0].id, told.result.items[0].version) == (
            "confirmed",
            "direct",
            24,
        )
        told = await bob.client.resolve(refused)
        assert told.result is not None
        assert told.result.items[0].error is not None
        assert (told.result.status, told.result.items[0].error.code) == ("rejected", "CONFLICT")
        assert (await bob.client.resolve(FENCED)).abandoned
        with pytest.raises(AtomaError) as forgotten:
            await bob.client.resolve(FORGOTTEN)
        assert isinstance(forgotten.value, RemoteError)
        assert forgotten.value.remote_code == "KEY_EXPIRED"


def test_every_store_of_the_files_is_looked_at() -> None:
    assert {spec.name for spec in (CARDS, NOTES, KEPT, SEATS, THINGS)} == AT_THE_HUB.keys()
