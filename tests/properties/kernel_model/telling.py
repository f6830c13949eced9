"""What an interpretation is made of: where a step stands, what it answers, and what is told of it."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from tests.properties.kernel_model.clock import Clock, Guide, Wait
from tests.properties.kernel_model.faults import Failed, Fault
from tests.properties.kernel_model.worlds import Ask, Graph, World

JITTER = 0.5


@dataclass
class Answer:
    """What a step answers: the rows of a query, or for each entry of a write the code of its refusal or ``""``."""

    rows: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    by: str = ""
    verdicts: tuple[tuple[float, str] | None, ...] = ()

    @property
    def status(self) -> str:
        refused = sum(map(bool, self.items))
        return "confirmed" if not refused else "rejected" if refused == len(self.items) else "partial"


@dataclass
class Path:
    """The trail of a request, or of a branch of it."""

    steps: list[tuple[Any, ...]] = field(default_factory=list)
    source: str | None = None
    answered: tuple[str, ...] | None = None

    def join(self, branch: Path) -> None:
        self.steps += branch.steps
        self.source = branch.source or self.source
        self.answered = self.answered if branch.answered is None else branch.answered


@dataclass(frozen=True)
class At:
    """Where a step stands: its request, trail, deadlines, attempt, reasons, and place in the graph."""

    ask: Ask
    number: int
    path: Path
    caller: float
    deadline: float
    attempt: int = 1
    note: str = ""
    place: tuple[int, ...] = ()
    group: object = None

    def but(self, **changes: Any) -> At:
        return At(**{**self.__dict__, **changes})

    def because(self, reason: str, attempt: int | None = None) -> At:
        return self.but(note=f"{self.note}; {reason}" if self.note else reason, attempt=attempt or self.attempt)

    def child(self, index: int) -> At:
        return self.but(place=(*self.place, index), group=None)


@dataclass
class Outcome:
    """What one request came to."""

    time: float = math.nan
    code: str = ""
    answer: Answer | None = None
    path: list[tuple[Any, ...]] = field(default_factory=list)
    source: str = "local"


@dataclass
class Told:
    """An event: when, by which request, what, and the numbers of the events that led to it."""

    time: float
    what: tuple[Any, ...]
    number: int
    past: frozenset[int]


Steps: TypeAlias = Generator[Wait, None, Answer]


def subject(graph: Graph) -> str:
    """The nodes in a graph, each once."""
    return "+".join(dict.fromkeys(_names(graph)))


def _names(graph: Graph) -> Iterator[str]:
    if graph.kind in ("node", "atomic"):
        yield from graph.ids
    if graph.kind == "merge":
        yield "merge"
    for child in graph.children:
        yield from _names(child)


class Telling:
    """Time, and what is told.

    Attributes:
        told: The events.
        outcomes: What each request came to.
        calls: Every call of a node: request, node, time, deadline it was given.
        commits: Every commit: request, stages, time.
        handed: What detached steps handed on.
    """

    def __init__(self, world: World, choices: list[int], guide: Guide | None = None) -> None:
        self.world = world
        self.clock = Clock(choices, guide)
        self.told: list[Told] = []
        self.outcomes = [Outcome() for _ in world.asks]
        self.calls: list[tuple[Any, ...]] = []
        self.commits: list[tuple[Any, ...]] = []
        self.handed: list[tuple[Any, ...]] = []
        self.counts: dict[tuple[int, str], int] = {}

    def tell(self, *what: Any) -> None:
        past = frozenset(self.clock.current.past)
        self.told.append(Told(self.clock.now, what, self.clock.mark(), past))

    def enter(self, at: At, name: str, outcome: str, start: float, code: str = "", note: str = "") -> None:
        """A step has ended."""
        note = "; ".join(part for part in (at.note, note) if part)
        now = self.clock.now
        at.path.steps.append((name, outcome, now - start, at.attempt, at.caller - start, code, note))
        self.tell("finished", at.number, name, at.attempt, outcome, code, now - start)

    def begun(self, at: At, *names: str) -> int:
        """A node, or a commit of several, begins; how often this request has called it before."""
        for one in names:
            self.tell("started", at.number, one, at.attempt)
            self.clock.touch(("node", at.number, one))
        name = "+".join(names)
        count = self.counts.get((at.number, name), 0)
        self.counts[at.number, name] = count + 1
        return count

    def goes_on(self, at: At, fault: Fault) -> bool:
        return fault.unsent if at.ask.write else fault.kind == "retryable"

    def doubt(self, at: At, fault: Fault) -> Fault:
        """The fault, after something of a write may have been done already."""
        if not at.ask.write or fault.kind in ("rejected", "unknown"):
            return fault
        return Fault("UNKNOWN_OUTCOME", "unknown", again=fault.again, wait=fault.wait)

    def exhausted(self, faults: list[Fault]) -> NoReturn:
        raise Failed(Fault("FALLBACK_EXHAUSTED", "retryable", again=True, unsent=all(one.unsent for one in faults)))

    def run(self, graph: Graph, at: At) -> Steps:
        """Let a step happen."""
        raise NotImplementedError


def outcome_of(fault: Fault) -> str:
    """How the trail calls a fault."""
    return fault.kind if fault.kind in ("rejected", "unknown") else "failed"
