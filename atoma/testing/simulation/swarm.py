"""What a seed makes of a run: how many clients, which faults and how often, how small pages and batches are."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from atoma.contracts.sync import DevicePolicy, Limits
from atoma.sync.policies import HubLossPolicy
from atoma.testing.simulation.encounters import Kind
from atoma.testing.simulation.extras import PLAIN, Extras

WRITES = 100


@dataclass(frozen=True, slots=True)
class Restores:
    """The mix of disasters in a run that has them; pauses as in :class:`Swarm`.

    Attributes:
        backup_pause: Between backups of the hub.
        hub_pause: Between restores of the hub.
        snapshot_pause: Between snapshots of devices' files.
        file_pause: Between restores of devices' files.
        clone_pause: Between copies of devices that go on beside them.
        clones: How many of those there are at most.
        expiry_pause: Between compactions of the hub that forget clients.
        keep_days: Choices of how long a compaction keeps verdicts.
        found_out: The share of restores that the hub is left to find out by itself.
        words: Choices of what the operator says about devices otherwise.
        policies: Choices of what a device does with what the hub has lost.
        answered: Whether deletions are allowed in the end, and what was kept is offered.
    """

    backup_pause: float
    hub_pause: float
    snapshot_pause: float
    file_pause: float
    clone_pause: float
    clones: int
    expiry_pause: float
    keep_days: Sequence[float]
    found_out: float
    words: Sequence[DevicePolicy]
    policies: Sequence[HubLossPolicy]
    answered: bool


@dataclass(frozen=True, slots=True)
class Swarm:
    """The mix of one run; rates are probabilities per frame or per event, pauses are mean virtual seconds.

    Attributes:
        clients: Devices, 2 to 5.
        writes: Calls that each of them makes.
        write_pause: Between two calls of one device.
        rows: Ids per store: few of them, so that devices meet on the same rows.
        drop: Frames lost.
        double: Frames that come twice.
        reorder: Frames held back behind a later one.
        broken: Frames that break their connection.
        latency: Seconds a frame takes.
        split: Push batches that arrive in two parts, the second one first.
        cancel: Writes that are cancelled at some point.
        client_crash_pause: Between crashes of clients.
        hub_crash_pause: Between crashes of the hub.
        partition_pause: Between partitions.
        compact_pause: Between compactions of the hub.
        jump_pause: Between jumps of a wall clock.
        epoch_pause: Between new epochs of the hub, after which every client takes a snapshot.
        ambush_pause: Between faults that wait for a frame of a device in some brief state.
        late: Before a device is first used.
        keep: Most transactions a compaction keeps.
        limits: Bounds of the hub: pages and batches of a few rows.
        kind: What the run is about.
        restores: Disasters, None for a run without.
        extras: What it has beside plain writes.
    """

    clients: int
    writes: int
    write_pause: float
    rows: int
    drop: float
    double: float
    reorder: float
    broken: float
    latency: float
    split: float
    cancel: float
    client_crash_pause: float
    hub_crash_pause: float
    partition_pause: float
    compact_pause: float
    jump_pause: float
    epoch_pause: float
    ambush_pause: float
    late: float
    keep: int
    limits: Limits
    kind: Kind = "steady"
    restores: Restores | None = None
    extras: Extras = PLAIN


def draw_swarm(dice: random.Random) -> Swarm:
    """A mix in which some faults are frequent, some rare, some absent."""
    clients = dice.choice((2, 2, 3, 3, 4, 5))

    def rate(*choices: float) -> float:
        return dice.choice(choices)

    return Swarm(
        clients=clients,
        writes=WRITES // clients,
        write_pause=rate(0.3, 1.0, 1.0, 2.0),
        rows=dice.choice((3, 4, 6)),
        drop=rate(0.0, 0.01, 0.03, 0.06),
        double=rate(0.0, 0.02, 0.1),
        reorder=rate(0.0, 0.01, 0.03),
        broken=rate(0.0, 0.005, 0.02),
        latency=rate(0.005, 0.05, 0.3),
        split=rate(0.0, 0.3, 0.8),
        cancel=rate(0.0, 0.05, 0.15),
        client_crash_pause=rate(8.0, 20.0, 60.0),
        hub_crash_pause=rate(15.0, 30.0, 90.0),
        partition_pause=rate(8.0, 20.0, 60.0),
        compact_pause=rate(4.0, 10.0, 60.0),
        jump_pause=rate(8.0, 20.0, 60.0),
        epoch_pause=rate(10.0, 30.0, 300.0),
        ambush_pause=rate(2.0, 4.0, math.inf),
        late=rate(0.0, 5.0, 20.0),
        keep=dice.choice((0, 0, 1, 4)),
        limits=Limits(
            push_mutations=dice.choice((1, 2, 3, 8, 256)),
            page_changes=dice.choice((1, 2, 5, 20, 5000)),
            page_bytes=dice.choice((400, 2000, 1024 * 1024)),
            push_bytes=dice.choice((600, 1024 * 1024)),
        ),
    )


def draw_restores(dice: random.Random) -> Restores:
    """A mix of disasters, of which some are frequent, some rare, some absent."""
    never = math.inf
    words: Sequence[Sequence[DevicePolicy]] = (("offer",), ("offer", "ask"), ("offer", "offer", "ask", "forget"))
    policies: Sequence[Sequence[HubLossPolicy]] = (("offer",), ("offer",), ("offer", "offer", "inbox", "drop"))
    return Restores(
        backup_pause=dice.choice((4.0, 8.0, 15.0)),
        hub_pause=dice.choice((15.0, 25.0, 40.0, never)),
        snapshot_pause=dice.choice((4.0, 10.0)),
        file_pause=dice.choice((12.0, 30.0, never)),
        clone_pause=dice.choice((8.0, 20.0, never)),
        clones=dice.choice((1, 2)),
        expiry_pause=dice.choice((10.0, 30.0, never)),
        keep_days=dice.choice(((30.0,), (30.0, 0.0), (0.0,))),
        found_out=dice.choice((0.0, 0.5, 1.0)),
        words=dice.choice(words),
        policies=dice.choice(policies),
        answered=dice.random() < 0.5,
    )


def draw_kept(dice: random.Random) -> Restores:
    """A mix of many disasters, after which rows are kept that nobody decides about."""
    words: Sequence[Sequence[DevicePolicy]] = (("ask",), ("ask", "offer"), ("ask", "forget"))
    return replace(
        draw_restores(dice),
        hub_pause=dice.choice((10.0, 20.0)),
        file_pause=dice.choice((8.0, 16.0)),
        clone_pause=dice.choice((15.0, 30.0)),  # not before there is something to keep
        clones=3,
        expiry_pause=dice.choice((8.0, 20.0)),
        words=dice.choice(words),
        policies=("offer", "offer", "inbox"),
        answered=False,
    )


def draw_calm(swarm: Swarm, dice: random.Random) -> Swarm:
    """``swarm`` without any fault, and one restore of the hub."""
    never = math.inf
    restores = replace(
        draw_restores(dice), policies=("offer",), words=("offer",), found_out=dice.choice((0.0, 1.0)), answered=True
    )
    return replace(
        swarm,
        clients=3,
        write_pause=0.1,
        drop=0.0,
        double=0.0,
        reorder=0.0,
        broken=0.0,
        latency=0.005,
        split=0.0,
        cancel=0.0,
        ambush_pause=never,
        late=0.0,
        kind="calm",
        restores=restores,
    )
