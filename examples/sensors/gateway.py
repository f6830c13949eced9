"""A gateway beside some machines: it keeps what 200 sensors say, whether anybody is there to hear it or not.

    python -m examples.sensors.gateway FILE HUB [READINGS_EACH [EVERY_S]]

Pull its plug, or the network's. What it has printed as kept is in the file, and travels when the hub can be reached again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator

import trio

from atoma import Client, open_client

from .model import POLICY, READINGS, SCHEMA, SENSORS, Reading, Sensor, device

COUNT = 200
TOKEN = "token of the gateway"  # a real one comes from the environment, or from a file that only the gateway may read
LAST_WORDS_S = 30.0


async def sense(number: int, times: int, every_s: float, say: trio.MemorySendChannel[Reading]) -> None:
    """Stand in for one sensor."""
    async with say:
        for turn in range(times):
            await trio.sleep(every_s * (0.5 + (number * 7 + turn * 13) % 100 / 100))  # they do not speak in chorus
            celsius = round(20 + 8 * math.sin(turn / 9 + number), 2)
            await say.send(Reading(sensor=f"sensor-{number:03}", celsius=celsius))


async def together(heard: trio.MemoryReceiveChannel[Reading]) -> AsyncIterator[list[Reading]]:
    """What has been said since the last time. A memory card wears with every commit, not with every row."""
    async for first in heard:
        batch = [first]
        while True:
            try:
                batch.append(heard.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        yield batch


async def keep(client: Client, heard: trio.MemoryReceiveChannel[Reading]) -> None:
    """Write what is heard, and say so once it is in the file."""
    counts = {sensor.id: sensor.readings for sensor in await client.store(SENSORS).query()}  # those of earlier runs
    kept = sum(counts.values())
    print(f"begins with {kept}", flush=True)
    async for batch in together(heard):
        last: dict[str, Sensor] = {}
        for reading in batch:
            counts[reading.sensor] = counts.get(reading.sensor, 0) + 1
            last[reading.sensor] = Sensor(id=reading.sensor, celsius=reading.celsius, readings=counts[reading.sensor])
        # Both stores change in one transaction: no count is ever without its readings, here or at the hub.
        async with client.transaction() as tx:
            for reading in batch:
                await tx.store(READINGS).insert(reading)
            for sensor in last.values():
                await tx.store(SENSORS).upsert(sensor)
        kept += len(batch)
        print(f"kept {kept}", flush=True)


async def main(file: str, hub: str, times: int, every_s: float) -> None:
    """Measure, keep, and then wait a while for the hub to have it all."""
    async with open_client(SCHEMA, plugins=device(file, hub, TOKEN), policy=POLICY) as client:
        # A bounded channel: when the card is slow the sensors wait, and nothing piles up in memory.
        say, heard = trio.open_memory_channel[Reading](COUNT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, client, heard)
            async with say:
                for number in range(COUNT):
                    nursery.start_soon(sense, number, times, every_s, say.clone())
        with trio.move_on_after(LAST_WORDS_S):
            await client.sync.wait_idle()
        print(f"{client.sync.status.pending} to send", flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int((sys.argv[3:4] or ["1000000"])[0]), float((sys.argv[4:5] or ["1"])[0]))
