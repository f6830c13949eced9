"""Where a device stands: the states of the protocol that it is in, as its file, the hub's and the wire tell them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from atoma.contracts.mutations import ACKED
from atoma.testing.simulation.encounters import BRIEF, Fault, State, can_meet
from atoma.testing.simulation.history import History
from atoma.testing.simulation.replicas import Replica
from atoma.testing.simulation.snapshots import Snapshot
from atoma.testing.simulation.stores import SCOPES

PATIENCE_S = 12.0
HUNTS = 0.8
"""The share of faults that wait for a state."""


class Asking(Protocol):
    """A connection that knows which calls wait for their answers."""

    @property
    def asked(self) -> Mapping[int, str]:
        """Methods by the ids of their calls."""
        ...


@dataclass
class Lines:
    """The connections of one device.

    Attributes:
        connecting: How many are being made.
        open: Those that are open.
    """

    connecting: int = 0
    open: list[Asking] = field(default_factory=list[Asking])

    def states(self) -> Iterator[State]:
        """What is under way."""
        if self.connecting:
            yield State.CONNECTING
        elif not self.open:
            yield State.OFFLINE
        asked = {method for line in self.open for method in line.asked.values()}
        under_way = [state for method, state in _OF_METHODS.items() if method in asked]
        yield from under_way
        if self.open and not under_way:
            yield State.RESTING


_OF_METHODS = {
    "open": State.OPENING,
    "push": State.PUSHING,
    "pull": State.PULLING,
    "snapshot": State.FETCHING,
}


def states_of_scopes(now: Snapshot, history: History) -> Iterator[State]:
    """How far the scopes are replicated."""
    current = 0
    for scope in SCOPES:
        cursor, epoch = now.places[scope].seq, now.places[scope].epoch
        match now.states.get(scope, "new"):
            case "new":
                yield State.NEW
            case "snapshot":
                yield State.NEW_PAGES if cursor else State.FIRST_PAGES
            case "tail":
                yield State.NEW_TAIL if cursor else State.FIRST_TAIL
            case _ if epoch not in (b"", history.epoch):
                yield State.OTHER_EPOCH
            case _ if cursor < history.floors.get(scope, 0):
                yield State.BELOW_FLOOR
            case _ if cursor < history.head(scope):
                yield State.BEHIND
            case _:
                current += 1
    if current == len(SCOPES):
        yield State.CURRENT


def states_of_writes(now: Snapshot, history: History) -> Iterator[State]:
    """What is pending, and what came back."""
    if not now.outbox:
        yield State.SETTLED
    for pending in now.outbox.values():
        if pending.status == ACKED:
            yield State.ACCEPTED
        else:
            yield State.QUEUED if history.verdict(pending.written) is None else State.UNTOLD
        if any(op.after_mid in now.outbox for op in pending.written.ops):
            yield State.BUILDS_ON
    if now.inbox:
        yield State.REFUSED


def states_of_disasters(now: Snapshot, history: History) -> Iterator[State]:
    """What a repair is needed for, and what it has left."""
    if any(now.places[scope].hash not in history.now.hashes[scope] for scope in SCOPES):
        yield State.AHEAD
    if now.identity.client in history.forgotten:
        yield State.FORGOTTEN
    if any(pending.written.offered is not None for pending in now.outbox.values()):
        yield State.OFFERING
    if any(pending.written.doubtful for pending in now.outbox.values()):
        yield State.DOUBTFUL
    if any(not row.resolution for row in now.lost.values()):
        yield State.KEEPING


def states_of_file(replica: Replica) -> Iterator[State]:
    """What the device's file says, beside the hub's."""
    if replica.now is None:
        yield State.NEW
        return
    yield from states_of_scopes(replica.now, replica.history)
    yield from states_of_writes(replica.now, replica.history)
    yield from states_of_disasters(replica.now, replica.history)


@dataclass(eq=False)
class Hunt:
    """A fault that waits for a device in a state.

    Attributes:
        state: The state.
        sites: The devices.
        found: The one that came into it.
        over: Set when one did.
    """

    state: State
    sites: Sequence[str]
    found: str = ""
    over: trio.Event = field(default_factory=trio.Event)


class Lookout:
    """A lookout for the moment of a fault, so that the states that last shortly are struck as well.

    Args:
        dice: Decides when to wait for what.
        sites: The devices.
        look: The states of a device now.
        brief: States that faults wait for, with how often.
    """

    def __init__(
        self,
        dice: random.Random,
        sites: Sequence[str],
        look: Callable[[str], set[State]],
        brief: Mapping[State, int] = BRIEF,
    ) -> None:
        self._dice = dice
        self._brief = brief
        self._sites = sites
        self._look = look
        self._hunts: list[Hunt] = []

    async def find(self, fault: Fault) -> str:
        """A device to strike: any one, or the first that comes into a state that is drawn for this fault."""
        found = await self._hunt(fault, self._dice.sample(self._sites, len(self._sites)))
        return found or self._dice.choice(self._sites)

    async def wait_for(self, fault: Fault, site: str) -> None:
        """Wait until ``site`` is in a state that is drawn for this fault, for a while, or not at all."""
        await self._hunt(fault, [site])

    async def _hunt(self, fault: Fault, sites: Sequence[str]) -> str:
        if self._dice.random() >= HUNTS:
            return ""
        hunt = Hunt(self.brief(fault), sites)
        self._hunts.append(hunt)
        for site in sites:
            self.notice(site)
        with trio.move_on_after(PATIENCE_S):
            await hunt.over.wait()
        if hunt in self._hunts:
            self._hunts.remove(hunt)
        return hunt.found

    def brief(self, fault: Fault) -> State:
        """One of the brief states in which ``fault`` can strike."""
        states = [state for state in can_meet(fault) if state in self._brief]
        return self._dice.choices(states, [self._brief[state] for state in states])[0]

    def notice(self, site: str) -> None:
        """Look whether somebody waits for a state that ``site`` is in now; call it whenever it may have changed."""
        hunts = [hunt for hunt in self._hunts if site in hunt.sites]
        if hunts:
            states = self._look(site)
            for hunt in hunts:
                if hunt.state in states:
                    self._hunts.remove(hunt)
                    hunt.found = site
                    hunt.over.set()
