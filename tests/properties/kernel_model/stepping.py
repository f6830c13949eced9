"""The steps that run one thing after the other."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from tests.properties.kernel_model.clock import Guide, Scope, Sleep, Stopped, Task, Wait
from tests.properties.kernel_model.faults import Failed, Fault, fault_of
from tests.properties.kernel_model.telling import JITTER, Answer, At, Path, Steps, Telling, outcome_of, subject
from tests.properties.kernel_model.worlds import INF, STAGES, Graph, World


class Stepping(Telling):
    """Nodes, commits, sequences with what runs behind the answer, fallbacks, timeouts, retries, verdicts."""

    def __init__(self, world: World, choices: list[int], guide: Guide | None = None) -> None:
        super().__init__(world, choices, guide)
        self.client = Scope()
        self.generations = {"things": 0, "notes": 0}
        self.detached = 0
        self.behinds: list[Task] = []

    def changed(self, store: str) -> None:
        """Rows of a store changed: what was cached of it is stale."""
        self.generations[store] += 1

    def node(self, graph: Graph, at: At) -> Steps:
        name = graph.ids[0]
        if name in STAGES:
            return (yield from self.atomic(graph, at))
        start, script = self.clock.now, self.world.scripts[name]
        call = script.at(at.number, self.begun(at, name))
        self.calls.append((at.number, name, start, at.deadline))
        try:
            label = (at.number, name)
            yield Sleep(INF if call.kind == "hang" else start + call.seconds, at.group, label)
        except Stopped:
            self.enter(at, name, "cancelled", start)
            raise
        fault = fault_of(call.kind, at.ask.write, script.remote)
        if fault is not None:
            self.enter(at, name, outcome_of(fault), start, fault.code)
            raise Failed(fault)
        source = script.says if script.remote is None else "remote" if script.remote else "local"
        return self.answered(call.kind, call.verdicts, [name], at, start, source)

    def answered(
        self, kind: str, verdicts: tuple[Any, ...], names: list[str], at: At, start: float, source: str, note: str = ""
    ) -> Answer:
        by = "+".join(names)
        if not at.ask.write:
            at.path.source = source
            self.enter(at, by, "ok", start)
            return Answer(rows=(by,))
        count = at.ask.entries
        good = 0 if kind == "refused" else count - 1 if kind == "partial" else count
        due = tuple(None if said is None else (self.clock.now + said[0], said[1]) for said in verdicts[:count])
        answer = Answer(items=("",) * good + ("CONFLICT",) * (count - good), by=by, verdicts=due)
        if source == "remote":
            at.path.answered = answer.items
        if answer.status != "rejected":
            at.path.source = source
        outcome = "rejected" if answer.status == "rejected" else "ok"
        for name in names:
            self.enter(at, name, outcome, start, "" if good == count else "CONFLICT", note)
        return answer

    def atomic(self, graph: Graph, at: At) -> Steps:
        """One commit: it notices that it was stopped before it begins and after it has ended."""
        names, name, start = list(graph.ids), "+".join(graph.ids), self.clock.now
        count = self.begun(at, *names)
        call = self.world.scripts[name].at(at.number, count)
        task = self.clock.current
        try:
            yield Sleep(start)
            task.shield += 1
            yield Sleep(start + call.seconds)
            task.shield -= 1
            fault = fault_of(call.kind, True, False)
            if fault is None:
                self.commits.append((at.number, name, self.clock.now, at.deadline))
                yield Sleep(self.clock.now)
        except Stopped:
            for one in names:
                self.enter(at, one, "cancelled", start, "", "atomic")
            raise
        if fault is not None:
            for one in names:
                self.enter(at, one, outcome_of(fault), start, fault.code, "atomic")
            raise Failed(fault)
        return self.answered(call.kind, call.verdicts, names, at, start, "local", "atomic")

    def refuse(self, graph: Graph, at: At) -> Steps:
        raise Failed(Fault("POLICY_NOT_ALLOWED", "fatal"))
        yield

    def synced(self, graph: Graph, at: At) -> Steps:
        index = 0 if self.world.synced and at.ask.store == "notes" else 1
        return (yield from self.run(graph.children[index], at.child(index)))

    def sequence(self, graph: Graph, at: At) -> Steps:
        places: list[int] = []
        try:
            for index, child in enumerate(graph.children):
                if child.kind == "detach" and self.place_for(child, at):
                    places.append(index)
            answer = yield from self.run(graph.children[0], at.child(0))
            for index, child in list(enumerate(graph.children))[1:]:
                if answer.status != "confirmed":
                    break
                if child.kind != "detach":
                    try:
                        answer = yield from self.run(child, at.child(index))
                    except Failed as failed:
                        raise Failed(self.doubt(at, failed.fault)) from None
                elif index in places:
                    places.remove(index)
                    self.detach(child, at.child(index))
            return answer
        finally:
            if places:
                self.clock.touch("detached")
                self.detached -= len(places)

    def place_for(self, child: Graph, at: At) -> bool:
        self.clock.touch("detached")
        if self.detached < self.world.detached:
            self.detached += 1
            return True
        self.enter(at, subject(child), "skipped", self.clock.now, "OVERLOADED", "no place to run detached")
        if at.ask.write:
            raise Failed(Fault("OVERLOADED", "retryable", again=True, unsent=True, here=True))
        return False

    def detach(self, graph: Graph, at: At) -> None:
        self.enter(at, subject(graph), "detached", self.clock.now)
        later = at.but(path=Path(), caller=INF, deadline=INF, attempt=1, note="detached").child(0)
        self.behinds.append(self.clock.spawn(self.behind(graph.children[0], later), self.client))

    def behind(self, graph: Graph, at: At) -> Generator[Wait, None, None]:
        """What runs after the answer: told, and handed on."""
        answer, code = None, ""
        try:
            try:
                answer = yield from self.run(graph, at)
            except Failed as failed:
                code = failed.fault.code
            status = answer.status if answer is not None else None
            if at.ask.write:
                self.changed(at.ask.store)
            self.tell("settled", at.number, status if at.ask.write else "", code, tuple(at.path.steps))
            if at.ask.write or answer is not None:
                said = () if answer is None else answer.items or answer.rows
                source = "" if answer is None else at.path.source or "local"
                self.handed.append((at.number, self.clock.now, said, code, source, tuple(at.path.steps)))
        finally:
            self.clock.touch("detached")
            self.detached -= 1

    def fallback(self, graph: Graph, at: At) -> Steps:
        faults: list[Fault] = []
        current = at
        for index, child in enumerate(graph.children):
            try:
                return (yield from self.run(child, current.child(index)))
            except Failed as failed:
                if not self.goes_on(at, failed.fault):
                    raise
                faults.append(failed.fault)
            if index + 1 < len(graph.children):
                self.tell("fallback", at.number, subject(child), faults[-1].code)
                current = at.because(f"fallback: {faults[-1].code}")
        self.exhausted(faults)

    def timeout(self, graph: Graph, at: At) -> Steps:
        task, start = self.clock.current, self.clock.now
        outside = task.scope
        scope = task.scope = Scope(outside)
        mine = start + graph.seconds

        def ring() -> None:
            if not scope.stopped:
                self.clock.stop(scope, set())

        self.clock.call_at(mine, ring)
        try:
            return (yield from self.run(graph.children[0], at.but(deadline=min(at.deadline, mine)).child(0)))
        except Stopped:
            if not scope.stopped or outside.over():
                raise
        finally:
            task.scope = outside
            scope.stopped = True
        task.stopping = False
        code, kind = ("UNKNOWN_OUTCOME", "unknown") if at.ask.write else ("TIMEOUT", "retryable")
        fault = Fault(code, kind, again=True)
        self.enter(at, subject(graph), outcome_of(fault), start, code, f"timeout {graph.seconds:g} s")
        raise Failed(fault)

    def retry(self, graph: Graph, at: At) -> Steps:
        current, doubtful = at, False
        first, factor, most = graph.backoff
        for attempt in range(1, graph.count + 1):
            try:
                return (yield from self.run(graph.children[0], current.child(0)))
            except Failed as failed:
                fault = self.doubt(at, failed.fault) if doubtful else failed.fault
            doubtful = doubtful or fault.kind == "unknown"
            delay = max(JITTER * min(first * factor ** (attempt - 1), most), fault.wait)
            if attempt == graph.count or not fault.again:
                raise Failed(fault)
            self.clock.apart(at.deadline - delay)
            if self.clock.now + delay >= at.deadline:
                raise Failed(fault)
            self.tell("retry", at.number, subject(graph), attempt + 1, delay, fault.code)
            current = at.because(f"retry: {fault.code}", attempt + 1)
            yield Sleep(self.clock.now + delay)
        raise AssertionError("a retry has a last attempt")

    def verdict(self, graph: Graph, at: At) -> Steps:
        answer = yield from self.run(graph.children[0], at.child(0))
        if not at.ask.strict or not any(answer.verdicts):
            return answer
        what, start, items = subject(graph), self.clock.now, list(answer.items)
        try:
            for place, said in enumerate(answer.verdicts):
                if said is None or items[place]:
                    continue
                due, kind = said
                yield Sleep(INF if kind == "hang" else due)
                if kind == "rejected":
                    items[place] = "DENIED"
                elif kind == "broken":
                    fault = Fault("UNKNOWN_OUTCOME", "unknown", again=True)
                    self.enter(at, what, "unknown", start, fault.code, "verdict")
                    raise Failed(fault)
        except Stopped:
            self.enter(at, what, "cancelled", start, "", "verdict")
            raise
        final = Answer(items=tuple(items), by=answer.by, verdicts=answer.verdicts)
        outcome = "rejected" if final.status == "rejected" else "ok"
        self.enter(at, what, outcome, start, next(filter(None, items), ""), "verdict")
        return final
