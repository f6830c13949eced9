"""The steps that remember something between requests."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from tests.properties.kernel_model.clock import Flag, Guide, Stopped, Wait
from tests.properties.kernel_model.faults import Failed, Fault
from tests.properties.kernel_model.stepping import Stepping
from tests.properties.kernel_model.telling import Answer, At, Steps, subject
from tests.properties.kernel_model.worlds import Graph, World


@dataclass
class Entry:
    """A place in a cache."""

    done: bool = False
    expires: float = 0.0
    answer: Answer | None = None
    source: str = "local"
    fault: Fault | None = None
    waiting: list[Flag] = field(default_factory=list)


@dataclass
class Guard:
    """A breaker or a bulkhead."""

    what: str
    state: str = "closed"
    times: list[float] = field(default_factory=list)
    opened: float = 0.0
    probing: bool = False
    running: int = 0
    queue: list[Flag] = field(default_factory=list)


class Remembering(Stepping):
    """Breakers, bulkheads and caches."""

    def __init__(self, world: World, choices: list[int], guide: Guide | None = None) -> None:
        super().__init__(world, choices, guide)
        self.breakers: dict[Any, Guard] = {}
        self.bulkheads: dict[Any, Guard] = {}
        self.caches: dict[tuple[int, ...], dict[Any, Entry]] = {}

    def breaker(self, graph: Graph, at: At) -> Steps:
        what = subject(graph)
        key = (what, graph.count, graph.seconds, graph.cooldown)
        guard = self.breakers.setdefault(key, Guard(what))
        self.clock.touch(key)
        left = guard.opened + graph.cooldown - self.clock.now
        if guard.state == "open":
            self.clock.apart(guard.opened + graph.cooldown)
            if left <= 0:
                self.move(guard, "half-open")
        if guard.state == "open" or guard.probing:
            self.enter(at, what, "skipped", self.clock.now, "CIRCUIT_OPEN", f"breaker {guard.state}")
            raise Failed(Fault("CIRCUIT_OPEN", "retryable", again=True, unsent=True, wait=max(left, 0.0), here=True))
        probe = guard.probing = guard.state == "half-open"
        good: bool | None = None
        try:
            answer = yield from self.run(graph.children[0], (at.because("breaker half-open") if probe else at).child(0))
            good = True
            return answer
        except Failed as failed:
            good = None if failed.fault.here else failed.fault.kind == "rejected"
            raise
        finally:
            self.clock.touch(key)
            self.ended(guard, graph, probe, good)

    def ended(self, guard: Guard, graph: Graph, probe: bool, good: bool | None) -> None:
        """A call behind a breaker ended; None says that it was stopped, which tells nothing."""
        now = self.clock.now
        if probe:
            guard.probing = False
        elif guard.state != "closed":
            return
        if good:
            guard.times = []
            if probe:
                self.move(guard, "closed")
        elif good is not None:
            if not probe:
                guard.times = [*guard.times, now][-graph.count :]
                self.clock.apart(guard.times[0] + graph.seconds)
            if probe or (len(guard.times) == graph.count and now - guard.times[0] <= graph.seconds):
                guard.opened = now
                self.move(guard, "open")

    def move(self, guard: Guard, state: str) -> None:
        guard.state = state
        self.tell("breaker", guard.what, state)

    def bulkhead(self, graph: Graph, at: At) -> Steps:
        what = subject(graph)
        key = (what, graph.count, graph.queue)
        guard = self.bulkheads.setdefault(key, Guard(what, "free"))
        self.clock.touch(key)
        if guard.running < graph.count:
            guard.running += 1
        elif len(guard.queue) >= graph.queue:
            self.enter(at, what, "skipped", self.clock.now, "OVERLOADED", "bulkhead full")
            raise Failed(Fault("OVERLOADED", "retryable", again=True, unsent=True, here=True))
        else:
            turn = Flag()
            guard.queue.append(turn)
            try:
                yield turn
            except Stopped:
                if turn in guard.queue:
                    guard.queue.remove(turn)
                else:  # it was given the place at the instant at which it was stopped
                    self.pass_on(guard)
                raise
        try:
            return (yield from self.run(graph.children[0], at.child(0)))
        finally:
            self.clock.touch(key)
            self.pass_on(guard)

    def pass_on(self, guard: Guard) -> None:
        """Give the place in a bulkhead to the next that waits."""
        if guard.queue:
            self.clock.hoist(guard.queue.pop(0))
        else:
            guard.running -= 1

    def cache(self, graph: Graph, at: At) -> Steps:
        entries = self.caches.setdefault(at.place, {})
        self.clock.touch(("generation", at.ask.store))
        key = (at.ask.store, self.generations[at.ask.store], "any" if graph.flag else at.ask.variant)
        start, note, what = self.clock.now, "cached", subject(graph)
        while True:
            entry = entries.get(key)
            if entry is not None and entry.answer is not None:
                self.clock.apart(entry.expires)
            if entry is None or (entry.answer is not None and self.clock.now >= entry.expires):
                return (yield from self.lead(graph, at, entries, key))
            if not entry.done:
                note = "shared"
                yield from self.follow(entry)
            if entry.answer is not None:
                at.path.source = entry.source
                self.enter(at, what, "ok", start, "", note)
                return entry.answer
            if entry.fault is not None:
                self.enter(at, what, "failed", start, entry.fault.code, note)
                raise Failed(entry.fault)

    def follow(self, entry: Entry) -> Generator[Wait, None, None]:
        """Wait for the one that asks; when that one was stopped, any of those that wait asks next."""
        turn = Flag()
        entry.waiting.append(turn)
        try:
            yield turn
        finally:
            if turn in entry.waiting:
                entry.waiting.remove(turn)

    def lead(self, graph: Graph, at: At, entries: dict[Any, Entry], key: Any) -> Steps:
        entry = entries[key] = Entry()
        if len(entries) > self.world.cached:
            entries.pop(next(iter(entries)))
        try:
            entry.answer = yield from self.run(graph.children[0], at.child(0))
            entry.expires = self.clock.now + graph.seconds
            entry.source = at.path.source or "local"
            return entry.answer
        except Failed as failed:
            entry.fault = failed.fault
            raise
        finally:
            if entry.answer is None and entries.get(key) is entry:
                del entries[key]
            entry.done = True
            if entry.answer is None and entry.fault is None and entry.waiting:
                self.clock.hoist(entry.waiting.pop(self.clock.choose(len(entry.waiting))))
            for turn in list(entry.waiting):
                self.clock.hoist(turn)
