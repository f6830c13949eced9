"""What somebody decides in the inspector about writes that wait, and about conflicts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.inspector import Inspected, Inspection, add_inspector, take_snapshot
from atoma.inspector.views import InspectorState
from atoma.ports import Peer
from atoma.schema import Schema, StoreSpec
from atoma.testing import Device, World, open_world, virtual_time
from atoma_transports.calls import ChannelLimits
from tests.unit.inspector.test_inspection import Note
from tests.unit.inspector.test_repairs import ask
from tests.unit.transports.http.kit import Hub, Site

NOTES = StoreSpec("notes", Note, conflict="manual")
HERE, THERE = Peer("127.0.0.1", True, "http"), Peer("192.0.2.1", False, "http")


class Desk:
    """A device, its world, and the inspector's doors to it."""

    def __init__(self, world: World, device: Device, eye: Inspection, site: Site) -> None:
        self.world = world
        self.device = device
        self.site = site
        self.target = Inspected("a", "A", device.client, eye)
        add_inspector(site.handler, [self.target])

    async def state(self) -> InspectorState:
        return await take_snapshot(self.target, [self.target])

    async def decide(self, what: str, **body: object) -> tuple[int, Any]:
        return await ask(self.site, {"client": "a", **body}, what)

    async def waiting(self) -> list[tuple[str, str, bool]]:
        return [(item.ops[0].id, item.state, item.editable) for item in (await self.state()).outbox]


@asynccontextmanager
async def opened(folder: Path, peer: Peer = HERE) -> AsyncGenerator[tuple[Desk, Device]]:
    """A desk for device ``a``, and the device ``b``; both have the note ``n`` and are apart from the hub."""
    eye = Inspection()
    async with (
        open_world(Schema(NOTES), folder) as world,
        world.hub(),
        world.device("a", plugins=[eye]) as a,
        world.device("b") as b,
        trio.open_nursery() as nursery,
    ):
        await a.store(NOTES).insert(Note(id="n", text="as it was"))
        await world.settle()
        for device in (a, b):
            device.unplug()
        await trio.sleep(1)
        yield Desk(world, a, eye, Site(nursery, Hub(), ChannelLimits(), peer=peer)), b
        nursery.cancel_scope.cancel()


@virtual_time
async def test_writes_are_held_released_and_taken_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as (desk, _):
        notes = desk.device.store(NOTES)
        await notes.insert(Note(id="one", text=""))
        await notes.insert(Note(id="two", text=""))
        keys = {item.ops[0].id: item.key for item in (await desk.state()).outbox}
        assert await desk.waiting() == [("one", "queued", True), ("two", "queued", True)]
        assert await desk.decide("outbox", keys=[keys["one"]], action="hold") == (200, {"decided": 1})
        assert sorted(await desk.waiting()) == [("one", "held", True), ("two", "queued", True)]
        assert await desk.decide("outbox", keys=[keys["two"]], action="discard") == (200, {"decided": 1})
        assert await desk.decide("outbox", keys=[keys["two"]], action="discard") == (200, {"decided": 0}), "it is gone"
        desk.device.plug_in()
        await desk.world.settle()
        assert [state for _, state, _ in await desk.waiting()] == ["held"]
        assert await desk.decide("outbox", keys=[keys["one"]], action="release") == (200, {"decided": 1})
        assert (await desk.decide("outbox", action="retry"))[0] == 200
        await desk.world.settle()
        assert await desk.waiting() == []
        assert [note.id for note in await notes.query()] == ["n", "one"]


@virtual_time
async def test_a_write_that_others_build_on_is_not_taken_back_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as (desk, _):
        notes = desk.device.store(NOTES)
        await notes.insert(Note(id="one", text=""))
        await notes.update("one", text="more")
        first = (await desk.state()).outbox[0].key
        status, answer = await desk.decide("outbox", keys=[first], action="discard")
        assert (status, answer["error"]["code"]) == (409, "CONFLICT")
        assert len(await desk.waiting()) == 2
        assert (await desk.decide("outbox", keys=[first], action="discard", dependents=True))[0] == 200
        assert await desk.waiting() == []


@virtual_time
@pytest.mark.parametrize(("action", "text"), [("mine", "of a"), ("theirs", "of b")])
async def test_a_conflict_is_decided(tmp_path: Path, action: str, text: str) -> None:
    async with opened(tmp_path) as (desk, b):
        await desk.device.store(NOTES).update("n", text="of a", photo=b"a")
        await b.store(NOTES).update("n", text="of b", photo=b"b")
        b.plug_in()
        await desk.world.settle()
        desk.device.plug_in()
        await desk.world.settle()
        (entry,) = (await desk.state()).conflicts
        assert [(field.name, field.kept) for field in entry.fields] == [("text", True), ("photo", True)]
        named = {"number": entry.number, "store": entry.store, "id": entry.id}
        assert (await desk.decide("conflicts", **named, action=action, fields=["id"]))[0] == (
            409 if action == "mine" else 200
        )
        fields = ["text"] if action == "mine" else None
        assert (await desk.decide("conflicts", **named, action=action, fields=fields))[0] == 200
        await desk.world.settle()
        assert await b.store(NOTES).get("n") == Note(id="n", text=text, photo=b"b"), "the photo stays as the hub has it"
        (entry,) = (await desk.state()).conflicts
        assert entry.resolution == {"mine": "kept mine", "theirs": "dismissed"}[action]


@virtual_time
@pytest.mark.parametrize("what", ["outbox", "conflicts", "sql"])
async def test_who_is_elsewhere_decides_nothing(tmp_path: Path, what: str) -> None:
    async with opened(tmp_path, THERE) as (desk, _):
        assert (await desk.decide(what, action="retry", text="SELECT id FROM notes"))[0] == 403
    (tmp_path / "again").mkdir()
    async with opened(tmp_path / "again") as (desk, _):
        assert (await desk.decide(what, action="burn", text=1))[0] == 400
