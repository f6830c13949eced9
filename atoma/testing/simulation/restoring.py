"""Files put back, copied and forgotten: the disasters that a repair is for.

Each is made as a person would make it: the program ends, another file lies in the place of its own, the program starts
again. What the checkers know goes back with the file.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from atoma.contracts.sync import DevicePolicy
from atoma.testing.simulation.files import FileCopy, backup, downgrade
from atoma.testing.simulation.history import Branch, History
from atoma.testing.simulation.memory import Memory
from atoma.testing.simulation.programs import Mortal
from atoma.testing.simulation.replicas import Replica
from atoma.testing.simulation.swarm import Restores

COPIES_MAX = 4
AGAIN = 0.5
"""Share of restores by which the hub goes back once more to where it went when nothing told it."""
Copy = TypeVar("Copy")


@dataclass(frozen=True, slots=True)
class HubCopy:
    """A backup of the hub's file, with the history it holds.

    Attributes:
        files: The file as a backup that was made while the hub ran, and the lock file beside it then.
        branch: What the checkers know of it.
        epoch: Its epoch.
        commits: How many commits it holds.
    """

    files: FileCopy
    branch: Branch
    epoch: bytes
    commits: int

    def is_found_out(self, path: Path) -> bool:
        """Whether a hub on this copy sees, from the lock file at ``path``, that its file is an older one."""
        beside = FileCopy.take(path).beside
        try:
            _, epoch, commits, *_ = (beside or b"").decode("ascii").split()
        except ValueError:
            return False
        return bytes.fromhex(epoch) != self.epoch or self.commits < int(commits)


@dataclass(frozen=True, slots=True)
class DeviceCopy:
    """A device's file at some moment, with what is known of it."""

    files: FileCopy
    memory: Memory

    def put(self, replica: Replica) -> None:
        """Put it in the place of the file of ``replica``, which is closed."""
        self.files.put(replica.path)
        replica.memory = self.memory.copy()


def downgrade_device(life: Mortal, replica: Replica) -> None:
    """Make of a device's file one of an earlier version; what is known of it is the same, but for the proofs."""

    def put() -> None:
        if replica.now is not None:  # its disk may have kept nothing
            downgrade(replica.path)
            replica.memory.downgraded = True

    life.replace(put)


@dataclass
class Disasters:
    """A maker of copies, which puts them back.

    Attributes:
        restores: What is drawn for this run.
        dice: Decides which copy, and which way.
        history: The hub's.
        hub: The hub.
        counts: How often what happened.
        backups: Copies of the hub's file.
        snapshots: Copies of each device's file.
        words: What the operator still has to say about devices, before the hub serves anybody.
        untold: The copy that was put back last with nothing to tell of it, None for none.
        gone: First names of mutations that went down with the file that held them.
    """

    restores: Restores
    dice: random.Random
    history: History
    hub: Mortal
    counts: Counter[str]
    backups: list[HubCopy] = field(default_factory=list[HubCopy])
    snapshots: dict[str, list[DeviceCopy]] = field(default_factory=dict[str, list[DeviceCopy]])
    words: list[DevicePolicy] = field(default_factory=list[DevicePolicy])
    untold: HubCopy | None = None
    gone: set[tuple[bytes, int, bytes]] = field(default_factory=set[tuple[bytes, int, bytes]])

    def back_up(self) -> HubCopy:
        """Make a backup of the running hub."""
        epoch, commits = self.history.raw("SELECT epoch, commits FROM _atoma_hub_info")[0]
        files = replace(backup(self.hub.path), beside=FileCopy.take(self.hub.path).beside)
        copy = HubCopy(files, self.history.now.copy(), epoch, commits)
        self._keep(self.backups, copy)
        return copy

    def restore_hub(self, copy: HubCopy, *, found_out: bool, word: DevicePolicy = "offer") -> None:
        """Put a backup in the place of the hub's file.

        Args:
            copy: The backup.
            found_out: Leave the lock file, so that the hub sees it by itself, where it can.
            word: What the operator says about devices otherwise, before the hub serves anybody.
        """

        def put() -> None:
            by_itself = found_out and copy.is_found_out(self.hub.path)
            copy.files.put(self.hub.path, lock="kept" if by_itself else "none")
            self.history.now = copy.branch.copy()
            self.words = [] if by_itself else [word]
            self.counts["hub restores found out" if by_itself else f"hub restores told, {word}"] += 1

        self.hub.replace(put)

    def go_back(self, copy: HubCopy, *, untold: float) -> None:
        """Put ``copy`` in the place of the hub's file.

        A hub that is told of it may go where it went when nothing told it, and then two histories bear the name of its epoch.

        Args:
            copy: The backup.
            untold: The share of times at which nothing tells the hub.
        """
        dice = self.dice
        if untold and dice.random() < untold:
            self._restore_untold(copy)
            return
        if self.untold is not None and dice.random() < AGAIN:
            copy = self.untold
        found_out = dice.random() < self.restores.found_out
        self.restore_hub(copy, found_out=found_out, word=dice.choice(self.restores.words))

    def _restore_untold(self, copy: HubCopy) -> None:
        """Put a backup and its lock file in the place of the hub's, as with a snapshot of the whole machine: nothing tells the hub."""

        def put() -> None:
            copy.files.put(self.hub.path)
            self.history.now = copy.branch.copy()
            self.words = []
            self.counts["hub restores untold"] += 1

        self.untold = copy
        self.hub.replace(put)

    def snapshot(self, replica: Replica) -> DeviceCopy:
        """Copy a device's file as it is."""
        copy = DeviceCopy(FileCopy.take(replica.path), replica.memory.copy())
        self._keep(self.snapshots.setdefault(replica.name, []), copy)
        return copy

    def restore_device(self, life: Mortal, replica: Replica, copy: DeviceCopy) -> None:
        """Put a copy in the place of a device's file."""

        def put() -> None:
            had = replica.memory.names()
            copy.put(replica)
            self.gone |= had - replica.memory.names()

        life.replace(put)

    def _keep(self, copies: list[Copy], copy: Copy) -> None:
        if len(copies) == COPIES_MAX:
            copies.pop(self.dice.randrange(COPIES_MAX))
        copies.append(copy)
