"""A device that takes another part of a scope for a while, now and then."""

from __future__ import annotations

from collections import Counter

import trio

from atoma.client import Client
from atoma.errors import AtomaError
from atoma.sync import ScopeInUse
from atoma.testing.simulation.network import Weather
from atoma.testing.simulation.parts import Parts

WANDER_S = 4.0
"""Between two parts that a device takes, and how long it keeps one."""
PULL_S = 5.0


async def wander(client: Client, parts: Parts, weather: Weather, counts: Counter[str]) -> None:
    """Take another part for a while, now and then, until the run is calm."""
    dice = weather.dice
    while not weather.calm:
        await trio.sleep(dice.expovariate(1 / WANDER_S))
        piece = dice.choice(parts.pool)
        async with client.sync.scope(piece.part):
            counts["parts held"] += 1
            await trio.sleep(dice.expovariate(1 / WANDER_S))
            if dice.random() < 0.3:
                with trio.move_on_after(PULL_S):
                    try:
                        await client.sync.pull([piece.part])
                    except AtomaError:
                        pass
        if dice.random() < 0.3:
            try:
                await client.sync.drop(piece.part)
                counts["parts dropped"] += 1
            except ScopeInUse:
                pass
