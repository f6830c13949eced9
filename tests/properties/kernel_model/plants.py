"""Bugs to plant in the kernel, as a change of its text; and a kernel that has one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = "atoma.kernel"


@dataclass(frozen=True)
class Plant:
    """A change of one place of a module of the kernel.

    Attributes:
        module: The module's name in the package.
        right: What stands there once.
        wrong: What stands there with the bug.
    """

    module: str
    right: str
    wrong: str


PLANTS: dict[str, Plant] = {
    # node
    "a cancelled node leaves no entry": Plant(
        "_steps", 'end(events, execution, id, "cancelled", started, clock())', "pass"
    ),
    "a refusal counts as an answer's source": Plant(
        "_steps", 'clock(), code, "", source if outcome == "ok" else None)', 'clock(), code, "", source)'
    ),
    "a foreign error of a remote write is certain": Plant("outcomes", "foreign = remote and", "foreign = False and"),
    "a write whose answer contradicts itself is believed": Plant(
        "outcomes", "if result.status != status_of(items)", "if False and result.status != status_of(items)"
    ),
    "a node is remote when nobody listens": Plant(
        "_steps", "            trail.source = source\n        return result", '            trail.source = "remote"\n        return result'
    ),
    # sequence
    "a sequence goes on after a refused part": Plant("_steps", "if side.refused(result):", "if False:"),
    "a later failure of a write is certain": Plant(
        "_steps", "                failure = side.in_doubt(error, request)\n                if failure is error:",
        "                failure = error\n                if failure is error:",
    ),
    # fallback
    "a fallback after a refusal": Plant(
        "outcomes", 'if _judged(error):\n        return "rejected"', 'if _judged(error):\n        return "retryable"'
    ),
    "a write falls back whenever a query would": Plant(
        "outcomes", "return certainly_not_sent(error)", 'return classify(error) == "retryable"'
    ),
    "a fallback is not told": Plant("_steps", "events.emit(FallbackTaken(", "(lambda event: None)(FallbackTaken("),
    # timeout
    "a timeout gives a node more than is left": Plant(
        "_steps", "inside = side.until(request, deadline) if deadline < request.context.deadline else request",
        "inside = side.until(request, deadline)",
    ),
    "a write that timed out is certain": Plant(
        "outcomes", "return _unknown(request, NodeTimeout(what, seconds))", "return NodeTimeout(what, seconds)"
    ),
    # retry
    "one attempt more": Plant("_steps", "if tries >= spec.attempts or", "if tries > spec.attempts or"),
    "doubt is not kept over retries": Plant(
        "_steps", "failure = side.in_doubt(error, request) if doubt else error", "failure = error"
    ),
    "a retry waits less than it is asked to": Plant(
        "_steps", "backoff.wait_s(tries, random, retry_after_s(failure))",
        "backoff.wait_s(tries, random)",
    ),
    "a wait that outlasts the budget is begun": Plant(
        "_steps", "if clock() + delay >= request.context.deadline:", "if False:"
    ),
    "waits do not grow": Plant("_steps", "backoff.wait_s(tries,", "backoff.wait_s(1,"),
    # breaker
    "two probes at once": Plant("guards", 'if self.state == "open" or self._probing:', 'if self.state == "open":'),
    "a cancelled probe stays": Plant(
        "guards", "            self._probing = False\n            if good:",
        "            self._probing = good is None\n            if good:",
    ),
    "refusals open a breaker": Plant("_guarded", 'good = classify(error) == "rejected"', "good = False"),
    "old failures count": Plant(
        "guards", "if full and now - self._failures[0] <= self._spec.window_s:", "if full:"
    ),
    "a success does not end a row of failures": Plant(
        "guards", "            if good:\n                self._failures.clear()\n                return",
        "            if good:\n                return",
    ),
    "a breaker for each place": Plant(
        "_guarded", "parts.breakers.setdefault(key, Breaker(what, spec, parts.events))",
        "parts.breakers.setdefault((*key, object()), Breaker(what, spec, parts.events))",
    ),
    # bulkhead
    "one more may wait": Plant("guards", "tasks_waiting >= self._spec.queue", "tasks_waiting > self._spec.queue"),
    "a failure keeps its place in a bulkhead": Plant(
        "_guarded", "            return await step(request, execution)\n        finally:\n            bulkhead.leave()",
        "            result = await step(request, execution)\n        except trio.Cancelled:\n            bulkhead.leave()\n"
        "            raise\n        bulkhead.leave()\n        return result",
    ),
    "a bulkhead for each place": Plant(
        "_guarded", "parts.bulkheads.setdefault((what, spec.limit, spec.queue), Bulkhead(what, spec))",
        "Bulkhead(what, spec)",
    ),
    # atomic
    "only the first stage is in the trail": Plant(
        "_steps", '            for id in ids:\n                end(', '            for id in ids[:1]:\n                end('
    ),
    "a stage is left out": Plant(
        "_steps", "staging = tuple(stage for _, stage in stages)", "staging = tuple(stage for _, stage in stages[:2])"
    ),
    # detach
    "a place for a detached step is lost": Plant(
        "_steps", "            for one in places:\n                one.release()", "            pass"
    ),
    "a place is kept when a detached step fails": Plant(
        "_detached", "                failure = error\n            await",
        "                failure = error\n                self._parts.detached_running += 1\n            await",
    ),
    "a detached step has the caller's deadline": Plant(
        "_detached", "later = self._side.until(request, math.inf)", "later = request"
    ),
    "a write is answered without its detached step": Plant("_detached", "if self._required:", "if False:"),
    "a detached write leaves caches as they are": Plant(
        "_detached", "parts.changed({entry.store for entry in request.entries})", "pass"
    ),
    # cache
    "a cached result is kept for ever": Plant("_guarded", "clock() >= entry.expires", "False"),
    "a write leaves caches as they are": Plant(
        "kernel", "            self._parts.changed(stores)\n        meta = trail", "            pass\n        meta = trail"
    ),
    "a failed write leaves caches as they are": Plant(
        "kernel", "        except BaseException as error:\n            self._parts.changed(stores)\n",
        "        except BaseException as error:\n",
    ),
    "a running query is not shared": Plant(
        "_guarded", "if entry is None or (", "if entry is None or not entry.done.is_set() or ("
    ),
    "failures are cached": Plant(
        "_guarded", "if entry.result is None and entries.get(key) is entry:",
        "if entry.error is None and entry.result is None and entries.get(key) is entry:",
    ),
    "caches forget where an answer is from": Plant(
        "_guarded", 'end(events, execution, what, "ok", started, clock(), "", note, entry.source)',
        'end(events, execution, what, "ok", started, clock(), "", note, "local")',
    ),
    # race, hedge, parallel
    "the trail of the winner is not the last": Plant("_concurrent", "if last < 0 else [*order, last]", "if True else [*order, last]"),
    "a race is won by the last of those that end at once": Plant(
        "_concurrent", "            index = branches.ended[seen]\n            seen += 1\n            if index in branches",
        "            index = branches.ended[-1 - seen]\n            seen += 1\n            if index in branches",
    ),
    "a refusal does not end a race": Plant(
        "_concurrent", "if index in branches.results or branches.decisive(index, side):",
        "if index in branches.results:",
    ),
    "a hedge joins at once": Plant("_concurrent", "next_start = trio.current_time() + delay_s", "next_start = 0.0"),
    "a hedge asks on in doubt": Plant(
        "_concurrent", "branches.started < count and all(map(side.goes_on, branches.errors.values()))",
        "branches.started < count",
    ),
    "a failed quorum of writes is certain": Plant(
        "_concurrent", "        failure = side.in_doubt(error, request)\n", "        failure = error\n"
    ),
    "a quorum of one more": Plant("_concurrent", "good >= needed", "good > needed"),
    # merge
    "a merge that tolerates everything": Plant(
        "_concurrent", "not (tolerant and side.goes_on(error))", "not tolerant"
    ),
    "a merge of one side is mixed": Plant(
        "_concurrent", 'sources.pop() if len(sources) == 1 else "mixed"', '"mixed"'
    ),
    # verdict, when_synced, refuse
    "an optimistic write waits for its verdict": Plant(
        "_steps", 'if request.options.confirm != "strict" or not any(', "if not any("
    ),
    "a refusal by the authority is overlooked": Plant(
        "_steps", "items = await await_verdicts(result.items, result.receipts)",
        "await await_verdicts(result.items, result.receipts)\n            items = result.items",
    ),
    "a lost verdict is certain": Plant(
        "_steps", "failure = side.in_doubt(translate(error, what, clock() - started), request)",
        "failure = translate(error, what, clock() - started)",
    ),
    "a replicating store takes the other way": Plant(
        "compiler", "return await (synced if replicates(request) else otherwise)(request, execution)",
        "return await (otherwise if replicates(request) else synced)(request, execution)",
    ),
    "a refused write runs": Plant("kernel", "or not (stores.isdisjoint(self._barred.get(policy, _NOTHING)) or self._draws(request, policy))", ""),
    # the whole
    "the answer of a remote node is lost": Plant("types", "            self.answered = branch.answered", "            pass"),
    "an ended write is told too early": Plant(
        "kernel", "        trail = Trail()\n        events = self._events\n        if events.listeners:\n            events.emit(WriteDispatched",
        "        trail = Trail()\n        events = self._events\n        if events.listeners:\n            await trio.sleep(0.001)\n            events.emit(WriteDispatched",
    ),
}  # fmt: skip


@contextmanager
def planted(name: str) -> Iterator[ModuleType]:
    """The kernel with a bug, beside the real one, which stays as it is."""
    plant = PLANTS[name]
    mine = {key: module for key, module in sys.modules.items() if key == PACKAGE or key.startswith(PACKAGE + ".")}
    parent = sys.modules["atoma"]
    for key in mine:
        del sys.modules[key]
    finder = _Finder(plant)
    sys.meta_path.insert(0, finder)
    try:
        kernel = importlib.import_module(PACKAGE)
        assert finder.used, f"{plant.module} was not loaded"
        yield kernel
    finally:
        sys.meta_path.remove(finder)
        for key in [key for key in sys.modules if key == PACKAGE or key.startswith(PACKAGE + ".")]:
            del sys.modules[key]
        sys.modules.update(mine)
        parent.kernel = mine[PACKAGE]  # type: ignore[attr-defined]


class _Finder:
    """Finds the one module that has the bug."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.used = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if name != f"{PACKAGE}.{self.plant.module}":
            return None
        file = Path(__file__).resolve().parents[3] / "atoma/kernel" / f"{self.plant.module}.py"
        return ModuleSpec(name, _Loader(self, file), origin=str(file))


class _Loader(Loader):
    def __init__(self, finder: _Finder, file: Path) -> None:
        self._finder = finder
        self._file = file

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        plant = self._finder.plant
        text = self._file.read_text(encoding="utf-8")
        assert text.count(plant.right) == 1, f"{plant.module} has {text.count(plant.right)} times {plant.right!r}"
        self._finder.used = True
        exec(compile(text.replace(plant.right, plant.wrong), str(self._file), "exec"), module.__dict__)
