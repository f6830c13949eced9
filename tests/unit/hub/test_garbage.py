"""The collector of a process that serves a hub, counted in objects: in a process of its own, since it is the process's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("machine")  # it runs a program beside itself

PROGRAM = """
import gc, json, math, weakref
import trio, trio.testing
import atoma
from atoma.hub import garbage, open_garbage_collection

class Knot:
    def __init__(self):
        self.me = self

looked: list[int] = []

def look(phase, info):
    if phase == "start" and info["generation"] == 2:
        looked.append(sum(len(gc.get_objects(generation)) for generation in range(3)))

async def main():
    before = gc.get_threshold()
    gc.callbacks.insert(0, look)
    async with open_garbage_collection():
        looked.clear()
        crowd = [Knot() for _ in range(200_000)]
        grown = looked[:]
        gone = weakref.ref(crowd[0])
        crowd.clear()
        found_at_once = gone() is None
        await trio.sleep(2 * garbage.LOOK_S + garbage.IMPATIENT_S)
        found = gone() is None
        looked.clear()
        garbage_again = [weakref.ref(Knot()) for _ in range(20_000)]
        left = sum(knot() is not None for knot in garbage_again)
    print(json.dumps({
        "grown": grown, "found_at_once": found_at_once, "found": found, "left": left,
        "restored": gc.get_threshold() == before and not gc.get_freeze_count(),
        "callbacks": len(gc.callbacks),
    }))

trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
"""


def test_a_full_collection_looks_at_what_is_new_and_a_thorough_one_finds_the_rest() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    told = json.loads(done.stdout)
    assert len(told["grown"]) >= 5
    assert max(told["grown"]) <= 25_000, "ten milliseconds' worth, while hundreds of thousands are there"
    assert not told["found_at_once"], "what was frozen and then became garbage waits for the thorough collection"
    assert told["found"]
    assert told["left"] < 20_000, "what is new and garbage is found as ever"
    assert told["restored"]
    assert told["callbacks"] == 1
