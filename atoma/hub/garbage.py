"""Garbage collection of a process that serves a hub: a little at a time while it works, thoroughly when it has little to do."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator

import trio

from atoma.ports.loops import lifetime
from atoma.ports.tasks import open_tasks

THRESHOLDS = (700, 5, 3)
"""Those of the collector: in a full collection at most 701 · 6 · 4 objects are new, which takes about ten milliseconds."""
LOOK_S = 60.0
"""How often it is asked whether a thorough collection is due."""
GROWN = 100_000
"""It is due when there are twice as many objects as after the last one, and so many more."""
QUIET_SHARE = 0.1
"""Of a core: a process that took less in the last second has little to do."""
IMPATIENT_S = 600.0
"""After so long a thorough collection waits for a quiet second no more."""


@lifetime
async def open_garbage_collection() -> AsyncGenerator[None]:
    """Collect garbage inside the block so that it holds the process no longer than about ten milliseconds at a time.

    Python's full collection looks through all objects that a process holds, and nothing else runs meanwhile: with thousands of
    connections that is a tenth of a second, every few seconds. Inside the block, what has survived one full collection is left out of
    the next ones. What becomes garbage later, and is part of a cycle, is found by a thorough collection, once the number of objects
    has doubled and the process has little to do, or ten minutes later.

    It is for a program that serves a hub and does nothing else: it changes the collector of the whole process, freezes all objects
    that exist (``gc.freeze``), and restores both at the end. Open it last, when everything has been imported and the hub is open.
    ``atoma hub serve`` does so by itself.
    """
    before = gc.get_threshold()
    gc.callbacks.append(_freeze)
    try:
        gc.set_threshold(*THRESHOLDS)
        _collect()
        async with open_tasks() as nursery:
            nursery.start_soon(_collect_when_due, gc.get_freeze_count())
            yield
            nursery.cancel_scope.cancel()
    finally:
        gc.callbacks.remove(_freeze)
        gc.set_threshold(*before)
        gc.unfreeze()


def _freeze(phase: str, info: dict[str, int]) -> None:
    """Leave what has survived a full collection out of the next ones."""
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


def _collect() -> None:
    """Look through all objects."""
    gc.unfreeze()
    gc.collect()
    gc.collect()  # of what is frozen by now it finds nothing: the collector waits for a quarter of what it found last


async def _collect_when_due(left: int) -> None:
    """Look through all objects when there are many more than the ``left`` that the last time had left."""
    while True:
        await trio.sleep(LOOK_S)
        if gc.get_freeze_count() > max(2 * left, left + GROWN):
            await _quiet()
            _collect()
            left = gc.get_freeze_count()


async def _quiet() -> None:
    """Wait for a second in which the process has little to do."""
    with trio.move_on_after(IMPATIENT_S):
        while True:
            before = time.process_time()
            await trio.sleep(1.0)
            if time.process_time() - before < QUIET_SHARE:
                return
