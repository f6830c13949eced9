"""Disks that are full, that fail, or that lose their power, each under one program."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack

import trio

from atoma.testing.simulation.disks import Disk, disk, is_of_a_disk
from atoma.testing.simulation.encounters import Fault
from atoma.testing.simulation.programs import Mortal
from atoma.testing.simulation.replicas import Replica

OUTAGE_S = 4.0
"""How long a disk is full, or fails."""


class Outages:
    """The disks of a run.

    Args:
        dice: Decides how they fail, and for how long.
        counts: Counts what that does.

    Attributes:
        under: The disk under each program, by its name; none in a run whose disks work.
        stack: Lets go of them.
    """

    def __init__(self, dice: random.Random, counts: Counter[str]) -> None:
        self.under: dict[str, Disk] = {}
        self.stack = ExitStack()
        self._dice = dice
        self._counts = counts

    def add(self, life: Mortal) -> Disk:
        """Put a disk under a program that was never opened."""
        found = self.under[life.name] = self.stack.enter_context(disk(life.path))
        return found

    def excuse(self, life: Mortal, error: BaseException) -> bool:
        """Whether a program may have ended, or a call of it, with ``error``: its disk does not work, or did not."""
        own = self.under.get(life.name)
        return own is not None and own.struck and is_of_a_disk(error)

    async def fail(self, life: Mortal, fault: Fault) -> None:
        """Let the disk of ``life`` be full, or fail, for a while."""
        self.under[life.name].strike(fault, self._dice)
        await trio.sleep(self._dice.expovariate(1 / OUTAGE_S))
        self.mend(life)

    def mend(self, life: Mortal) -> None:
        """Let its disk work again; where it has failed, somebody starts the program again, as that says that they should."""
        if (own := self.under.get(life.name)) is None:
            return
        own.plan.heal()
        if own.doubtful and not life.down:
            self._counts["programs started again for their disks"] += 1
            life.crash()

    def cut(self, life: Mortal, replica: Replica | None) -> None:
        """End a program with its file as its disk was told to keep it; what is known of a device goes back with it.

        Raises:
            Violation: I1: what was told durable is not in it. What a hub has lost shows when it is opened again.
        """
        own = self.under[life.name]
        if replica is None:
            life.crash()
            life.wreck = own.left()
            return
        left, known = own.remains(replica.memory)
        self._counts["tails lost"] += known.now is not replica.now
        life.crash()
        life.wreck, replica.memory = left, known
