"""Devices of principals who may see a part of a store: what enters, what leaves, and what becomes of their own writes."""

from __future__ import annotations

from typing import Any

import pytest

from atoma.contracts.execution import OperationContext, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.hub import Caller, Hub
from atoma.ports.service import Principal
from atoma.schema.expressions import Condition, col
from tests.scenarios.sync.kit import inbox, put_in

pytestmark = pytest.mark.virtual_time
BOSS = Principal("boss", {"role": "boss"})


def of_the_color(caller: Caller) -> Condition:
    return (col("color") == caller.claim("color")) | (caller.claim("role") == "boss")


RULES = {"manual_notes": of_the_color}


async def boss_writes(hub: Hub, key: str, *ops: Op) -> None:
    request = WriteRequest(ops, WriteOptions(atomic=True), OperationContext("trace"), key)
    result = await hub.service(BOSS).write(request)
    assert all(item.ok for item in result.items), result


async def colors(world: Any, device: Any) -> dict[str, str]:
    return {id: row.color for id, row in (await device.rows(world.MANUAL)).items()}


@pytest.mark.paths
async def test_a_row_that_leaves_is_gone_and_one_that_enters_comes_whole(world: Any) -> None:
    async with (
        world.open_hub(row_rules=RULES) as hub,
        world.open_device("red", principal="red", claims={"color": "red"}) as red,
        world.open_device("blue", principal="blue", claims={"color": "blue"}) as blue,
    ):
        await red.store(world.MANUAL).insert(world.Note(id="1", text="whole", color="red"))
        await blue.store(world.MANUAL).insert(world.Note(id="2", color="blue"))
        for device in (red, blue):
            await put_in(device)
        assert [await colors(world, device) for device in (red, blue)] == [{"1": "red"}, {"2": "blue"}]
        await boss_writes(hub, "moves", Op("patch", "manual_notes", "1", {"color": "blue"}))
        for device in (red, blue):
            await put_in(device)
        assert [await colors(world, device) for device in (red, blue)] == [{}, {"1": "blue", "2": "blue"}]
        assert (await blue.rows(world.MANUAL))["1"].text == "whole"


@pytest.mark.paths
async def test_an_edit_of_a_row_that_has_left_waits_in_the_inbox(world: Any) -> None:
    async with (
        world.open_hub(row_rules=RULES) as hub,
        world.open_device("red", principal="red", claims={"color": "red"}) as red,
    ):
        await red.store(world.MANUAL).insert(world.Note(id="1", color="red"))
        await put_in(red)
        red.wire.cut()
        await red.store(world.MANUAL).update("1", text="typed in the train")
        await boss_writes(hub, "moves", Op("patch", "manual_notes", "1", {"color": "blue", "text": "secret"}))
        await put_in(red)
        assert await colors(world, red) == {}
        (entry,) = await red.sync.inbox.entries()
        assert (entry.code, entry.mine["text"]) == ("DENIED", "typed in the train")
        assert "secret" not in repr(entry)


@pytest.mark.paths
async def test_other_claims_are_another_part_and_one_snapshot(world: Any) -> None:
    async with (
        world.open_hub(row_rules=RULES) as hub,
        world.open_device("one", principal="one", claims={"color": "red", "phone": "1"}) as device,
    ):
        await boss_writes(
            hub,
            "both",
            Op("create", "manual_notes", "r", {"text": "", "color": "red"}),
            Op("create", "manual_notes", "b", {"text": "", "color": "blue"}),
        )
        await put_in(device)
        assert await colors(world, device) == {"r": "red"}
        before = device.wire.count("snapshot")
        device.wire.cut()
        await device.store(world.MANUAL).update("r", text="unsent")
        device.wire.claims["color"] = "blue"
        await put_in(device)
        assert await colors(world, device) == {"b": "blue"}
        assert await inbox(device) == [("DENIED", "r")]
        assert device.wire.count("snapshot") == before + 1
        device.wire.cut()
        device.wire.claims["phone"] = "2"  # no rule looks at it
        await put_in(device)
        device.wire.cut()
        del device.wire.claims["color"]
        await put_in(device)
        assert await colors(world, device) == {}
        assert device.wire.count("snapshot") == before + 2
