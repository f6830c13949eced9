"""Whether what was seen is what the interpreter says: nothing more, nothing less, and in an order that its causes allow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from atoma import kernel as kernel_package
from tests.properties.kernel_model.clock import Guide, Tie
from tests.properties.kernel_model.interpreter import Interpreter
from tests.properties.kernel_model.real import Observed, observe
from tests.properties.kernel_model.telling import Told
from tests.properties.kernel_model.worlds import World

WAYS_TRIED = 300
"""Of an example with more choices than this, the rest of the ways is not tried."""


def rounded(value: Any) -> Any:
    """``value`` with every number in it to the tenth of a millisecond."""
    if isinstance(value, float):
        return round(value, 4) + 0.0
    return tuple(map(rounded, value)) if isinstance(value, tuple | list) else value


def interpretations(world: World, guide: Guide) -> Iterator[Interpreter]:
    """What may happen: one after the other, every way to go where several things happen at once.

    Raises:
        Tie: The example leaves open what happens first.
    """
    choices: list[int] = []
    for _ in range(WAYS_TRIED):
        model = Interpreter(world, choices, guide)
        model.play()
        yield model
        offered = model.clock.offered
        choices = [*choices, *[0] * (len(offered) - len(choices))][: len(offered)]
        while choices and choices[-1] + 1 >= offered[len(choices) - 1]:
            choices.pop()
        if not choices:
            return
        choices[-1] += 1


def guide_by(real: Observed) -> Guide:
    """Of nodes that end at the same instant, the first is the one that was done first, as the nodes saw it."""
    places: dict[object, list[tuple[float, int]]] = {}
    for place, (time, label) in enumerate(real.ends):
        places.setdefault(label, []).append((time, place))

    def first(now: float, labels: list[object]) -> int:
        def place(index: int) -> int:
            found = [place for time, place in places.get(labels[index], []) if abs(time - now) < 1e-3]
            return found[0] if found else len(real.ends)

        return min(range(len(labels)), key=place)

    return first


def difference(model: Interpreter, real: Observed) -> str:
    """What of the real run is not as the interpreter says, ``""`` when all of it is."""
    told = model.told if model.world.heard else []
    found = (_different_answers(model, real), _different_notes(model, real), _different_events(told, real.told))
    return "\n".join(itertools.chain(*found))


def _differ(what: str, said: object, seen: object) -> Iterator[str]:
    if rounded(said) != rounded(seen):
        yield f"{what}: the interpreter says\n  {rounded(said)}\nand the kernel\n  {rounded(seen)}"


def _different_answers(model: Interpreter, real: Observed) -> Iterator[str]:
    for number, (said, seen, ask) in enumerate(zip(model.outcomes, real.seen, model.world.asks, strict=True)):
        what = f"request {number}"
        yield from _differ(f"{what}, code and time", (said.code, said.time), (seen.code, seen.time))
        answer = said.answer
        if answer is None or seen.meta is None:
            yield from _differ(f"{what}, has an answer", answer is not None, seen.meta is not None)
            continue
        yield from _differ(f"{what}, rows", answer.rows, seen.rows)
        yield from _differ(f"{what}, items", answer.items, seen.items)
        yield from _differ(f"{what}, status", answer.status if ask.write else "", seen.status)
        yield from _differ(f"{what}, trail", tuple(said.path), tuple(map(_row, seen.meta.path)))
        meta = (seen.meta.source, seen.meta.trace_id, seen.meta.policy)
        yield from _differ(f"{what}, meta", (said.source, f"t{number}", "generated"), meta)


def _row(step: Any) -> tuple[Any, ...]:
    return (step.node, step.outcome, step.seconds, step.attempt, step.budget_s, step.error, step.note)


def _different_notes(model: Interpreter, real: Observed) -> Iterator[str]:
    yield from _differ("calls of nodes", sorted(model.calls), sorted(real.calls))
    yield from _differ("commits", sorted(model.commits), sorted(real.commits))
    handed = [(*one[:5], one[5] if not one[3] else None) for one in model.handed]
    yield from _differ("handed on", sorted(handed, key=repr), sorted(real.handed, key=repr))
    for kind, unused in (("breaker", ("closed", 0, 0)), ("bulkhead", ("free", 0, 0))):
        said, seen = (sorted(one for one in guards.get(kind, []) if one[1:] != unused)
                      for guards in (model.guards, real.guards))  # fmt: skip
        yield from _differ(kind, said, seen)
    yield from _differ("detached tasks at the end", model.remaining, real.remaining)
    yield from _differ("tasks left", 0, real.left)


def _different_events(said: list[Told], seen: list[tuple[float, tuple[Any, ...]]]) -> Iterator[str]:
    """Each event as said, at its time, and none before another that led to it."""
    missing = {one.number: (rounded(one.time), rounded(one.what)) for one in said}
    events = frozenset(missing)
    causes = {one.number: one.past & events for one in said}
    for time, what in seen:
        key = (rounded(time), rounded(what))
        for number, other in missing.items():
            if _close(other, key) and missing.keys().isdisjoint(causes[number]):
                del missing[number]
                break
        else:
            yield f"at {key[0]} the kernel tells {key[1]}, the interpreter waits for {list(missing.values())[:5]}"
            return
    if missing:
        yield f"the kernel never tells {list(missing.values())}"


def _close(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return bool(abs(one[0] - other[0]) < 1e-3) and one[1] == other[1]


def compare(world: World, words: ModuleType = kernel_package) -> str:
    """Run the world on both sides; ``""`` when the kernel does what the interpreter says.

    Raises:
        Tie: The example leaves open what happens first.
    """
    model = Interpreter(world, [])
    model.play()
    real = observe(world, words)
    if not model.clock.offered:
        return difference(model, real)
    problem = ""
    for way in interpretations(world, guide_by(real)):
        found = difference(way, real)
        if not found:
            return ""
        problem = problem or found
    return problem


__all__ = ["Tie", "compare", "difference", "guide_by", "interpretations"]
