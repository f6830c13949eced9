"""What tests are written with: a small world of devices and a hub, a network link that can fail, the simulation, conformance suites.

>>> @virtual_time
... async def test_two_devices_agree(tmp_path):
...     async with open_world(SCHEMA, tmp_path) as world, world.hub(), world.device("a") as a, world.device("b") as b:
...         await a.store(NOTES).insert(Note(text="hello"))
...         await world.settle()
...         assert await b.store(NOTES).count() == 1
...         await world.check()
"""

from __future__ import annotations

from atoma.testing.clock import virtual_time
from atoma.testing.seats import Device, HubSeat
from atoma.testing.simulator import Faults, SimulationFailed, SimulationReport, Simulator, seeds
from atoma.testing.world import World, open_world

__all__ = [
    "Device",
    "Faults",
    "HubSeat",
    "SimulationFailed",
    "SimulationReport",
    "Simulator",
    "World",
    "open_world",
    "seeds",
    "virtual_time",
]
