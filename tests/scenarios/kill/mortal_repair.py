"""A device that does not survive its repair: python -m tests.scenarios.kill.mortal_repair FOLDER PLACE

The folder has ``a.db``, which has seen more than the hub's file ``backup.db``. The process kills itself, as kill -9 does:
``before`` the local transaction, with the snapshot staged; ``inside``, with everything written and nothing committed; ``after``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import trio

from atoma.contracts.events import RepairDone
from atoma.sync.repair import changes, procedure
from atoma.sync.repair.rebirth import be_reborn
from tests.scenarios.sync.conftest import World


def die_at(place: str) -> None:
    """Let the process end there."""

    def dying(*given: Any) -> Any:
        if place == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = be_reborn(*given)
        if place == "inside":
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    def told(*given: Any) -> Any:
        if place == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return RepairDone(*given)

    for module, name, patched in ((changes, "be_reborn", dying), (procedure, "RepairDone", told)):
        setattr(module, name, patched)


async def main(folder: Path, place: str) -> None:
    """Repair, and die."""
    world = World(folder, seed=3, hub_file="backup.db")
    die_at(place)
    with trio.fail_after(60):
        async with world.open_hub(), world.open_device("a") as device:
            await device.settle()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2])
