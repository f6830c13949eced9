"""An interpreter of policies, written from their description: what each request comes to, and all that is told of it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from tests.properties.kernel_model.beside import Beside
from tests.properties.kernel_model.clock import Guide, Scope, Stopped, Wait
from tests.properties.kernel_model.faults import Failed
from tests.properties.kernel_model.telling import Answer, At, Path, Steps
from tests.properties.kernel_model.worlds import INF, Ask, Graph, Tell, World


class Interpreter(Beside):
    """Runs a world to its end.

    Attributes:
        remaining: How many detached steps run when the client closes.
        guards: Breakers and bulkheads at that moment.
    """

    def __init__(self, world: World, choices: list[int], guide: Guide | None = None) -> None:
        super().__init__(world, choices, guide)
        self.remaining = 0
        self.guards: dict[str, list[Any]] = {}

    def run(self, graph: Graph, at: At) -> Steps:
        step = {"node": self.node, "atomic": self.atomic, "sequence": self.sequence, "fallback": self.fallback,
                "timeout": self.timeout, "retry": self.retry, "breaker": self.breaker, "bulkhead": self.bulkhead,
                "cache": self.cache, "verdict": self.verdict, "synced": self.synced, "refuse": self.refuse,
                "race": self.race, "hedge": self.race, "parallel": self.parallel, "merge": self.merge}  # fmt: skip
        return (yield from step[graph.kind](graph, at))

    def play(self) -> None:
        """Let the whole schedule happen."""
        number = 0
        for one in self.world.schedule:
            if isinstance(one, Tell):
                self.clock.call_at(one.at, lambda store=one.store: self.changed(store))  # type: ignore[misc]
            else:
                self.clock.call_at(one.at, lambda ask=one, number=number: self.arrive(ask, number))  # type: ignore[misc]
                number += 1
        try:
            self.clock.run(self.world.close)
            self.clock.now = self.world.close
            self.remaining = sum(not task.done.isset for task in self.behinds)
            self.guards = {
                "breaker": [(one.what, one.state, len(one.times), 0) for one in self.breakers.values()],
                "bulkhead": [
                    (one.what, "full" if one.running == key[1] else "free", one.running, len(one.queue))
                    for key, one in self.bulkheads.items()
                ],
            }
            self.clock.stop(self.client, set())
            self.clock.run()
        finally:
            self.clock.over = True

    def arrive(self, ask: Ask, number: int) -> None:
        now = self.clock.now
        scope = Scope()
        limit = now + ask.budget
        path = Path()
        at = At(ask, number, path, limit, limit)
        self.clock.spawn(self.serve(at), scope, set())
        if limit < INF:
            self.clock.call_at(limit, lambda: self.give_up(scope))
        self.clock.call_at(now + ask.cancel, lambda: self.give_up(scope))

    def give_up(self, scope: Scope) -> None:
        self.clock.stop(scope, set())

    def serve(self, at: At) -> Generator[Wait, None, None]:
        ask, outcome = at.ask, self.outcomes[at.number]
        if ask.write and self.barred(ask.store):
            outcome.time, outcome.code = self.clock.now, "POLICY_NOT_ALLOWED"
            return
        if ask.write:
            self.tell("dispatched", at.number)
        try:
            outcome.answer = yield from self.run(self.world.write if ask.write else self.world.query, at)
        except Failed as failed:
            outcome.code = failed.fault.code
        except Stopped:
            outcome.code = "CANCELLED"
        if ask.write:
            self.changed(ask.store)
        status = outcome.answer.status if outcome.answer is not None else None
        outcome.time, outcome.path, outcome.source = self.clock.now, list(at.path.steps), at.path.source or "local"
        self.tell("settled", at.number, status if ask.write else "", outcome.code, tuple(outcome.path))
        if outcome.answer is not None and ask.staged and at.path.answered is not None and ask.write:
            outcome.answer = Answer(items=at.path.answered, by=outcome.answer.by)

    def barred(self, store: str) -> bool:
        """A store that replicates takes only writes that are queued; one that does not may be refused."""
        synced = self.world.synced and store == "notes"
        leaves = list(self.leaves(self.world.write, synced))
        if synced:
            return not all(leaf.kind == "atomic" and "outbox" in leaf.ids for leaf in leaves)
        return any(leaf.kind == "refuse" for leaf in leaves)

    def leaves(self, graph: Graph, synced: bool) -> Generator[Graph, None, None]:
        if graph.kind == "synced":
            yield from self.leaves(graph.children[0 if synced else 1], synced)
        elif not graph.children:
            yield graph
        for child in graph.children if graph.kind != "synced" else ():
            yield from self.leaves(child, synced)
