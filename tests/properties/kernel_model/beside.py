"""The steps that run several others at the same time."""

from __future__ import annotations

from collections.abc import Callable, Generator

from tests.properties.kernel_model.clock import Either, Flag, Scope, Stopped, Task, Wait
from tests.properties.kernel_model.faults import Failed, Fault
from tests.properties.kernel_model.remembering import Remembering
from tests.properties.kernel_model.telling import Answer, At, Path, Steps, Telling
from tests.properties.kernel_model.worlds import INF, Graph


class Several:
    """Branches that run side by side, each with a trail of its own."""

    def __init__(self, over: Telling, graph: Graph, at: At) -> None:
        self.over, self.clock, self.graph, self.at = over, over.clock, graph, at
        self.task = over.clock.current
        self.scope = Scope(self.task.scope)
        self.started = 0
        self.ended: list[int] = []
        self.answers: dict[int, Answer] = {}
        self.faults: dict[int, Fault] = {}
        self.paths = [Path() for _ in graph.children]
        self.tasks: list[Task] = []
        self.change = Flag()

    def start(self) -> None:
        index = self.started
        self.started += 1
        at = self.at.but(path=self.paths[index]).child(index).but(group=self)
        self.tasks.append(self.clock.spawn(self.branch(index, at), self.scope))

    def branch(self, index: int, at: At) -> Generator[Wait, None, None]:
        try:
            self.answers[index] = yield from self.over.run(self.graph.children[index], at)
        except Failed as failed:
            self.faults[index] = failed.fault
        self.clock.touch(("ended", self))
        self.ended.append(index)
        self.clock.hoist(self.change)

    def wait(self, seen: int, until: float) -> Generator[Wait, None, None]:
        """Until more than ``seen`` branches have ended, or until a time."""
        while len(self.ended) <= seen and self.clock.now < until:
            self.change = Flag()
            yield Either(self.change, until)

    def decisive(self, index: int) -> bool:
        fault = self.faults.get(index)
        return self.answers[index].status != "confirmed" if fault is None else fault.kind == "rejected"

    def result(self, index: int) -> Answer:
        if index in self.faults:
            raise Failed(self.faults[index])
        return self.answers[index]

    def until(self, complete: Callable[[int], bool]) -> Generator[Wait, None, int]:
        """Start all, and stop what still runs when one that ended decides; which one."""
        seen = 0
        try:
            for _ in self.graph.children:
                self.start()
            for seen in range(len(self.graph.children)):
                yield from self.wait(seen, INF)
                if complete(self.ended[seen]):
                    break
        except Stopped:
            yield from self.finish(-1)
            raise
        last = self.ended[seen]
        yield from self.finish(last)
        return last

    def finish(self, last: int) -> Generator[Wait, None, None]:
        """Stop what still runs, wait for it, and join the trails: that of ``last``, if it is taken, at the end."""
        self.clock.stop(self.scope, set(self.task.past))
        self.task.shield += 1
        for task in self.tasks:
            yield from self._end_of(task)
        self.task.shield -= 1
        stopped = len(self.ended) < self.started
        over = stopped and self.task.scope.over()
        order = [index for index in range(self.started) if index not in self.ended]
        last = -1 if over and self.graph.kind not in ("race", "hedge") and self.graph.answer != "first" else last
        order += [index for index in self.ended if index != last]
        for index in [*order, *([last] if last >= 0 else [])]:
            self.at.path.join(self.paths[index])
        if over:
            raise Stopped

    def _end_of(self, task: Task) -> Generator[Wait, None, None]:
        while not task.done.isset:
            yield task.done
        self.task.past |= task.past


class Beside(Remembering):
    """Races, hedges, parallel steps and merges."""

    def race(self, graph: Graph, at: At) -> Steps:
        several = Several(self, graph, at)
        late = 0.0
        winner = -1
        try:
            seen = 0
            while winner < 0:
                open_ = several.started < len(graph.children) and all(
                    self.goes_on(at, fault) for fault in several.faults.values()
                )
                if open_ and (seen == several.started or not graph.seconds or self.clock.now >= late):
                    several.start()
                    late = self.clock.now + graph.seconds
                    continue
                if seen == several.started:
                    break
                yield from several.wait(seen, late if open_ else INF)
                for index in several.ended[seen:]:
                    seen += 1
                    if index in several.answers or several.decisive(index):
                        winner = index
                        break
        except Stopped:
            yield from several.finish(winner)
            raise
        yield from several.finish(winner)
        if winner >= 0:
            return several.result(winner)
        faults = [several.faults[index] for index in sorted(several.faults)]
        final = [fault for fault in faults if not self.goes_on(at, fault)]
        unknown = [fault for fault in final if fault.kind == "unknown"]
        if final:
            raise Failed((unknown or final)[0])
        self.exhausted(faults)

    def parallel(self, graph: Graph, at: At) -> Steps:
        count = len(graph.children)
        if graph.answer == "first":
            return (yield from self.race(graph, at))
        needed = count if graph.answer == "all" else int(graph.answer)
        several = Several(self, graph, at)

        def complete(index: int) -> bool:
            enough = len(several.answers.keys() & set(several.ended)) >= needed
            return enough or len(several.faults) > count - needed or several.decisive(index)

        last = yield from several.until(complete)
        if last in several.faults and count > 1:
            raise Failed(self.doubt(at, several.faults[last]))
        return several.result(last)

    def merge(self, graph: Graph, at: At) -> Steps:
        several = Several(self, graph, at)

        def bad(index: int) -> bool:
            fault = several.faults.get(index)
            return fault is not None and not (graph.flag and self.goes_on(at, fault))

        last = yield from several.until(bad)
        if bad(last):
            raise Failed(several.faults[last])
        if not several.answers:
            self.exhausted(list(several.faults.values()))
        rows = tuple(sorted({row for answer in several.answers.values() for row in answer.rows}))
        sources = {several.paths[index].source for index in several.answers}
        at.path.source = sources.pop() if len(sources) == 1 else "mixed"
        self.tell("started", at.number, "merge", at.attempt)
        note = f"merged {len(several.answers)} of {len(graph.children)}"
        self.enter(at, "merge", "ok", self.clock.now, "", note)
        return Answer(rows=rows)
