"""What a campaign has to have met: every kind of fault in every state of the protocol.

A run without a violation says something about the faults that struck, and about the states in which they struck. Both
are enumerations: whoever adds a fault to the simulation adds it to :class:`Fault`, says in :data:`APART` what it cannot
meet, and calls :meth:`Encounters.meet` when it strikes; whoever adds a state adds it to :class:`State` and to
:mod:`atoma.testing.simulation.standing`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Literal, TypeAlias


class Fault(Enum):
    """A kind of fault; the value is the name under which it is counted."""

    DROPPED = "frames dropped"
    DOUBLED = "frames doubled"
    REORDERED = "frames reordered"
    TRUNCATED = "frames truncated"
    BROKEN = "connections broken"
    CUT = "partitions cut"
    SILENT = "partitions silent"
    ONE_WAY = "partitions one-way"
    CLIENT_CRASH = "client crashes"
    HUB_CRASH = "hub crashes"
    CLIENT_CLOCK = "client clock jumps"
    HUB_CLOCK = "hub clock jumps"
    COMPACTION = "hub compactions"
    EPOCH = "hub epochs"
    SPLIT = "pushes split"
    CANCELLED = "writes cancelled"
    HUB_RESTORED = "hub restores"
    FILE_RESTORED = "file restores"
    CLONED = "file clones"
    EXPIRED = "clients expired"
    DOWNGRADED = "file downgrades"
    DISK_FULL = "disks full"
    DISK_FAILING = "disks failing"
    TAIL_LOST = "disks cut"
    HUB_DISK_FULL = "hub-disks full"
    HUB_DISK_FAILING = "hub-disks failing"
    HUB_TAIL_LOST = "hub-disks cut"


class State(Enum):
    """A state of a device in which a fault may strike it; several hold at once.

    A fault of the hub strikes every device. A device that is down is as its file says.
    """

    DOWN = "down"
    """The program is not running."""
    HUB_DOWN = "hub down"
    """The hub is not running."""
    OFFLINE = "offline"
    """It runs and has no connection."""
    CONNECTING = "connecting"
    """A connection is being made, and the token shown."""
    OPENING = "opening"
    """The opening of a session is under way: who are you, what have you decided?"""
    PUSHING = "pushing"
    """A batch of its mutations, or the answer, is under way."""
    PULLING = "pulling"
    """A page of the log, or the question for it, is under way."""
    FETCHING = "fetching"
    """A page of a snapshot, or the question for it, is under way."""
    RESTING = "resting"
    """It is connected, and none of these is under way."""
    NEW = "new"
    """A scope was never replicated."""
    FIRST_PAGES = "first pages"
    """Pages of the first snapshot of a scope are staged; nothing is visible yet."""
    FIRST_TAIL = "first tail"
    """A first snapshot is complete and being caught up."""
    NEW_PAGES = "new pages"
    """Pages of a new snapshot are staged beside older visible rows."""
    NEW_TAIL = "new tail"
    """A new snapshot is complete and being caught up."""
    BEHIND = "behind"
    """A scope follows the log and is not at its end."""
    BELOW_FLOOR = "below floor"
    """A scope follows the log from a place that the hub has forgotten."""
    OTHER_EPOCH = "other epoch"
    """A scope follows the log of an epoch that is over."""
    CURRENT = "current"
    """Every scope is at the end of the log."""
    QUEUED = "queued"
    """A mutation waits that the hub has not decided."""
    UNTOLD = "untold"
    """The hub has decided a mutation, and the device does not know."""
    ACCEPTED = "accepted"
    """A mutation is accepted, and its page has not come."""
    BUILDS_ON = "builds on"
    """A pending mutation builds on another pending one."""
    SETTLED = "settled"
    """Nothing is pending."""
    REFUSED = "refused"
    """The inbox holds something."""
    AHEAD = "ahead"
    """A scope is at a place where the hub, as it is now, never was."""
    FORGOTTEN = "forgotten"
    """The hub has forgotten the device."""
    OFFERING = "offering"
    """A row of a lost history is offered."""
    DOUBTFUL = "doubtful"
    """A mutation is pending of which nobody can tell whether it was decided."""
    KEEPING = "keeping"
    """Rows of a lost history are kept for somebody to decide."""
    UNSYNCED = "unsynced"
    """The disk was not told to keep the last commits yet; looked at where disks may fail."""


Pair: TypeAlias = tuple[Fault, State]
Kind: TypeAlias = Literal["steady", "restored", "kept", "calm"]
"""What a run is about: ``restored`` adds disasters with files to what a ``steady`` one has; in a ``kept`` one they come often, devices
keep what a hub has lost, and nobody decides about it; ``calm`` has one restore and nothing else."""
DISASTERS = (Fault.HUB_RESTORED, Fault.FILE_RESTORED, Fault.CLONED, Fault.EXPIRED)
"""What a repair is for."""

OF_HUB_DISKS = (Fault.HUB_DISK_FULL, Fault.HUB_DISK_FAILING, Fault.HUB_TAIL_LOST)
OF_DISKS = (Fault.DISK_FULL, Fault.DISK_FAILING, Fault.TAIL_LOST, *OF_HUB_DISKS)
"""What strikes a disk: it has no room, it fails, or the power goes, and with it what was not synced."""
OF_FRAMES = (Fault.DROPPED, Fault.DOUBLED, Fault.REORDERED, Fault.TRUNCATED, Fault.BROKEN)
"""What strikes a frame."""
_OF_A_PROGRAM = (Fault.CLIENT_CRASH, Fault.CANCELLED, Fault.SPLIT)
_WITHOUT_CONNECTION = (State.DOWN, State.OFFLINE)
BRIEF: Mapping[State, int] = {
    State.DOWN: 1,
    State.HUB_DOWN: 3,
    State.OFFLINE: 1,
    State.CONNECTING: 1,
    State.OPENING: 1,
    State.FETCHING: 3,
    State.NEW: 1,
    State.FIRST_PAGES: 1,
    State.FIRST_TAIL: 4,
    State.NEW_PAGES: 3,
    State.NEW_TAIL: 12,
    State.BELOW_FLOOR: 3,
    State.OTHER_EPOCH: 1,
    State.CURRENT: 1,
    State.SETTLED: 1,
}
"""States that are over so soon, or come so seldom, that faults have to wait for them, with how often they are to."""

BRIEF_WHERE_RESTORED: Mapping[State, int] = {
    **BRIEF,
    State.AHEAD: 6,
    State.FORGOTTEN: 4,
    State.OFFERING: 6,
    State.DOUBTFUL: 6,
    State.KEEPING: 2,
}
"""The same for runs with disasters."""

BRIEF_WHERE_KEPT: Mapping[State, int] = {
    State.DOWN: 2,
    State.FETCHING: 2,
    State.NEW: 2,
    State.FIRST_TAIL: 2,
    State.NEW_TAIL: 1,
    State.AHEAD: 3,
    State.FORGOTTEN: 2,
    State.OFFERING: 6,
    State.DOUBTFUL: 2,
    State.KEEPING: 12,
}
"""The same for runs in which what is lost is kept: the states that the other runs strike seldom."""

BRIEF_OF: Mapping[Kind, Mapping[State, int]] = {
    "steady": BRIEF,
    "restored": BRIEF_WHERE_RESTORED,
    "kept": BRIEF_WHERE_KEPT,
    "calm": BRIEF_WHERE_RESTORED,
}
"""Which states faults wait for in which kind of run."""

BRIEF_ON_DISKS: Mapping[State, int] = {State.UNSYNCED: 6}
"""States that faults wait for as well where disks may fail."""
BRIEF_IN_PARTS: Mapping[State, int] = {State.OPENING: 4}
"""The same where devices take parts: a session is opened anew in its midst, and only then may a push be split during an opening."""

APART: Iterable[tuple[Iterable[Fault], Iterable[State], str]] = (
    ((*OF_FRAMES, Fault.SPLIT), (State.HUB_DOWN,), "the hub's end of every connection is gone"),
    (OF_FRAMES, _WITHOUT_CONNECTION, "a frame needs a connection"),
    (
        (Fault.TAIL_LOST,),
        (State.DOWN,),
        "what a program that is down has left counts as kept: which part of it may go is told by tests/power",
    ),
    (_OF_A_PROGRAM, (State.DOWN,), "a program that is down neither crashes nor writes nor pushes"),
    (
        (Fault.SPLIT,),
        (State.OFFLINE, State.CONNECTING, State.PUSHING, State.SETTLED),
        "a push needs an open session and something to push, and there is one at a time",
    ),
    ((Fault.SPLIT,), (State.AHEAD,), "who is ahead finds out as a session is opened, and is repaired before it pushes"),
    (
        (Fault.HUB_CRASH, Fault.HUB_TAIL_LOST, Fault.COMPACTION, Fault.EPOCH, Fault.EXPIRED),
        (State.HUB_DOWN,),
        "a hub that is down neither crashes nor is maintained",
    ),
)
"""Faults and states that cannot meet, with the reason."""


def apart() -> Mapping[Pair, str]:
    """Every pair that cannot meet, with the reason."""
    return {(fault, state): why for faults, states, why in APART for fault in faults for state in states}


def can_meet(fault: Fault) -> list[State]:
    """The states in which ``fault`` can strike."""
    never = apart()
    return [state for state in State if (fault, state) not in never]


class Encounters:
    """A count of which faults struck, and in which states.

    Args:
        counts: Counts faults by their names, among other things.
        look: The states of a device now.

    Attributes:
        counts: As given.
        look: As given.
        met: How often a fault struck a device in a state.
    """

    def __init__(self, counts: Counter[str], look: Callable[[str], set[State]]) -> None:
        self.met: Counter[Pair] = Counter()
        self.counts = counts
        self.look = look

    def meet(self, fault: Fault, *sites: str) -> None:
        """``fault`` strikes these devices now: call it before it has changed anything."""
        self.counts[fault.value] += 1
        for site in sites:
            self.met.update((fault, state) for state in self.look(site))


def seldom(met: Mapping[Pair, int], at_least: float) -> dict[Pair, int]:
    """The pairs that can meet and have met too seldom, with how often they did."""
    return {
        (fault, state): met.get((fault, state), 0)
        for fault in Fault
        for state in can_meet(fault)
        if met.get((fault, state), 0) < at_least
    }


def rarest(met: Mapping[Pair, int], count: int = 12) -> str:
    """The pairs that can meet and have met least often, as text."""
    pairs = sorted(seldom(met, math.inf).items(), key=lambda pair: pair[1])
    return ", ".join(f"{fault.value} × {state.value} {often}" for (fault, state), often in pairs[:count])


def table(met: Mapping[Pair, int]) -> str:
    """How often each fault met each state, as text; ``·`` where they cannot meet."""
    never = apart()
    heads = [fault.value.split(" ", 1) for fault in Fault]
    width = max(len(word) for head in heads for word in head) + 2
    first = max(len(state.value) for state in State)
    lines = [" " * first + "".join(f"{head[line]:>{width}}" for head in heads) for line in range(2)]
    for state in State:
        cells = ["·" if (fault, state) in never else str(met.get((fault, state), 0)) for fault in Fault]
        lines.append(f"{state.value:{first}}" + "".join(f"{cell:>{width}}" for cell in cells))
    return "\n".join(lines)
