"""What the inspector says of repairs, and what somebody may decide in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.inspector import Inspected, Inspection, add_inspector, take_snapshot
from atoma.inspector.views import InspectorState
from atoma.ports import Peer
from atoma.testing import Device, HubSeat, World, open_world, virtual_time
from atoma_transports.calls import ChannelLimits
from tests.unit.inspector.test_inspection import NOTES, SCHEMA, Note
from tests.unit.transports.http.kit import Hub, Site

HERE, THERE = Peer("127.0.0.1", True, "http"), Peer("192.0.2.1", False, "http")


async def lose(world: World, hub: HubSeat, device: Device) -> None:
    """The hub goes back; note ``old`` was changed since, ``gone`` was deleted, ``new`` came."""
    notes = device.store(NOTES)
    await notes.insert(Note(id="old", text="as it was"))
    await notes.insert(Note(id="gone", text=""))
    await world.settle()
    backup = await hub.backup()
    await notes.update("old", text="as it is")
    await notes.delete("gone")
    await notes.insert(Note(id="new", text="new"))
    await world.settle()
    await trio.sleep(1)
    await world.restore_hub(backup, devices="ask")


async def looked_at(device: Device, eye: Inspection, hub: HubSeat) -> InspectorState:
    target = Inspected("a", "A", device.client, eye)
    return await take_snapshot(target, [target], hub.hub)


@virtual_time
async def test_a_repair_and_what_it_left_are_shown(tmp_path: Path) -> None:
    eye = Inspection()
    async with open_world(SCHEMA, tmp_path) as world, world.hub() as hub, world.device("a", plugins=[eye]) as a:
        await lose(world, hub, a)
        a.unplug()
        before = await looked_at(a, eye, hub)
        assert (before.repairs, before.lost) == ([], [])
        assert before.epochs is not None
        (restored,) = before.epochs
        assert (restored.absent, restored.awaited[0].principal, restored.deletions) == (1, "ann", "allowed")
        assert restored.devices == "devices keep what they have until their users offer it"
        a.plug_in()
        await world.settle()
        state = await looked_at(a, eye, hub)
        (repair,) = state.repairs
        assert (repair.cause, repair.title, repair.numbers) == (
            "HUB_LOST_DATA",
            "The hub was restored from an older state",
            {"rows kept in lost": 3},
        )
        assert repair.forks == {"main": "2"} and repair.old != repair.new
        shown = {row.id: (row.deleted_here, row.gone_there, row.reason) for row in state.lost}
        assert shown == {
            "old": (False, False, "the operator leaves it to you"),
            "gone": (True, False, "the operator leaves it to you"),
            "new": (False, True, "the operator leaves it to you"),
        }
        (old,) = [row for row in state.lost if row.id == "old"]
        assert [(field.name, field.mine, field.theirs) for field in old.fields] == [("text", "as it is", "as it was")]
        assert [epoch.absent for epoch in state.epochs or ()] == [0]
        target = Inspected("a", "A", a.client, eye)
        assert (await take_snapshot(target, [target])).epochs is None, "the hub is not at hand"


async def ask(site: Site, body: object, what: str = "lost", **fields: str) -> tuple[int, Any]:
    """Send ``body`` to one of the inspector's doors; the status and the answer, of which JSON is read."""
    client = site.connect()
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    await client.send("POST", f"/api/inspector/{what}", sent, content_type="application/json", **fields)
    status, head = await client.head()
    answer = await client.read(int(head["content-length"]))
    return status, json.loads(answer) if head["content-type"] == "application/json" else answer


@virtual_time
async def test_rows_are_offered_and_let_go(tmp_path: Path) -> None:
    eye = Inspection()
    async with open_world(SCHEMA, tmp_path) as world, world.hub() as hub, world.device("a", plugins=[eye]) as a:
        await lose(world, hub, a)
        await world.settle()
        numbers = {row.id: row.number for row in await a.sync.lost.entries()}
        async with trio.open_nursery() as nursery:
            site = Site(nursery, Hub(), ChannelLimits(), peer=HERE)
            add_inspector(site.handler, [Inspected("a", "A", a.client, eye)])
            offered = {"client": "a", "numbers": [numbers["new"], numbers["old"]], "action": "offer"}
            assert await ask(site, offered) == (200, {"decided": 2})
            assert await ask(site, offered) == (200, {"decided": 0}), "it is decided"
            assert await ask(site, {"client": "a", "numbers": [numbers["gone"]], "action": "drop"}) == (
                200,
                {"decided": 1},
            )
            nursery.cancel_scope.cancel()
        await world.settle()
        await world.check()
        assert {note.id: note.text for note in await a.store(NOTES).query()} == {
            "old": "as it is",
            "new": "new",
            "gone": "",
        }


@pytest.mark.parametrize(
    ("peer", "fields", "body", "status"),
    [
        (THERE, {}, {"client": "a", "numbers": [1], "action": "offer"}, 403),
        (HERE, {"origin": "https://elsewhere.example"}, {"client": "a", "numbers": [1], "action": "offer"}, 403),
        (HERE, {"sec_fetch_site": "cross-site"}, {"client": "a", "numbers": [1], "action": "offer"}, 403),
        (HERE, {}, {"client": "nobody", "numbers": [1], "action": "offer"}, 404),
        (HERE, {}, {"client": "a", "numbers": [1], "action": "delete"}, 400),
        (HERE, {}, {"client": "a", "numbers": "1", "action": "offer"}, 400),
        (HERE, {}, b"no json", 400),
    ],
)
@virtual_time
async def test_nobody_else_decides(
    tmp_path: Path, peer: Peer, fields: dict[str, str], body: object, status: int
) -> None:
    eye = Inspection()
    async with open_world(SCHEMA, tmp_path) as world, world.hub() as hub, world.device("a", plugins=[eye]) as a:
        await lose(world, hub, a)
        await world.settle()
        async with trio.open_nursery() as nursery:
            site = Site(nursery, Hub(), ChannelLimits(), peer=peer)
            add_inspector(site.handler, [Inspected("a", "A", a.client, eye)])
            assert (await ask(site, body, **fields))[0] == status
            nursery.cancel_scope.cancel()
        assert len(await a.sync.lost.entries()) == 3
