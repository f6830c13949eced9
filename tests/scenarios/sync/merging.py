"""What tests of fields that merge have in common: devices that write the row ``1`` apart from one another, and what they have then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from atoma import StoreSpec
from atoma.testing.seats import Device
from atoma.testing.world import World

T = TypeVar("T")


async def write_apart(store: StoreSpec[T], world: World, *writes: tuple[Device, Mapping[str, object]]) -> None:
    """Each device writes on its own, and then they come to the hub in this order."""
    for device, changes in writes:
        device.unplug()
        await device.store(store).update("1", changes)
    for device, _ in writes:
        device.plug_in()
        await world.settle()


async def same_row(store: StoreSpec[T], *devices: Device) -> T:
    """The row that all of them have."""
    rows = [await device.store(store).get("1") for device in devices]
    assert rows[0] is not None
    assert all(row == rows[0] for row in rows), rows
    return rows[0]


async def codes(device: Device) -> list[str]:
    return [entry.code for entry in await device.client.inbox.entries()]
