"""A checker of histories, which knows nothing of hubs: what was appended to lists and what was read of them, by whom and when.

Every list tells the order of its writes itself. From that and from what each transaction has read follows who came before whom: a write
before the next one of its list, a write before whoever read it, a reader before the write that it did not see, and what had
ended before what began later. A circle among these is an order that cannot have been; so are lost, doubled and unknown values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Verdict = Literal["written", "refused", "read"]


@dataclass(frozen=True)
class Transaction:
    """What somebody did at once.

    Attributes:
        name: Its name.
        began: When it was asked for.
        ended: When its answer had come.
        reads: List → the values that it found there.
        appends: List → the value that it put behind those.
        verdict: What was answered.
    """

    name: str
    began: float
    ended: float
    reads: Mapping[str, Sequence[str]]
    appends: Mapping[str, str] = field(default_factory=dict[str, str])
    verdict: Verdict = "read"


def faults_of(history: Sequence[Transaction], last: Mapping[str, Sequence[str]]) -> list[str]:
    """What cannot have happened in ``history``, whose lists are ``last`` at its end; nothing where all is well."""
    writers = {(at, value): each for each in history for at, value in each.appends.items()}
    found: list[str] = []
    for at, values in last.items():
        found += [f"{at}: {value} is there twice" for value in sorted(set(values)) if values.count(value) > 1]
        for value in values:
            if (at, value) not in writers:
                found.append(f"{at}: nobody has appended {value}")
            elif writers[at, value].verdict != "written":
                found.append(f"{at}: {value} was refused, and is there")
    for (at, value), writer in writers.items():
        if writer.verdict == "written" and value not in last[at]:
            found.append(f"{at}: {value} was written, and is lost")
    for each in history:
        for at, values in each.reads.items():
            if list(values) != list(last[at][: len(values)]):
                found.append(f"{each.name} has read {list(values)} of {at}, which was never so")
    return found or _circles(_edges(history, last, writers))


def _edges(
    history: Sequence[Transaction],
    last: Mapping[str, Sequence[str]],
    writers: Mapping[tuple[str, str], Transaction],
) -> dict[str, set[str]]:
    """Name → the names of those that came later."""
    after: dict[str, set[str]] = {each.name: set() for each in history}
    for at, values in last.items():
        for one, other in pairwise(values):
            after[writers[at, one].name].add(writers[at, other].name)
    for each in history:
        for at, values in each.reads.items():
            if values:
                after[writers[at, values[-1]].name].add(each.name)
            if len(values) < len(last[at]):
                after[each.name].add(writers[at, last[at][len(values)]].name)
    _add_times(history, after)
    for name, others in after.items():
        others.discard(name)
    return after


def _add_times(history: Sequence[Transaction], after: dict[str, set[str]]) -> None:
    """What had ended comes before what began later: by a chain of moments, so that there is an edge for each and not for each pair."""
    told = [each for each in history if each.verdict != "refused"]
    moments = sorted([(each.ended, 1, each.name) for each in told] + [(each.began, 0, each.name) for each in told])
    moment = ""
    for number, (_, ends, name) in enumerate(moments):
        if ends:
            following = f"moment {number}"
            after[following] = set()
            after[name].add(following)
            if moment:
                after[moment].add(following)
            moment = following
        elif moment:
            after[moment].add(name)


def _circles(after: Mapping[str, set[str]]) -> list[str]:
    """The circles among these, a line for each strongly connected part."""
    return [
        f"a circle: {' → '.join(sorted(name for name in part if not name.startswith('moment')))}"
        for part in _parts(after)
        if len(part) > 1
    ]


def _parts(after: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """The strongly connected parts, by Tarjan's algorithm, without recursion."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    waiting: list[str] = []
    is_waiting: set[str] = set()
    for root in after:
        work = [] if root in numbers else [(root, iter(sorted(after[root])))]
        while work:
            name, others = work[-1]
            if name not in numbers:
                numbers[name] = lowest[name] = len(numbers)
                waiting.append(name)
                is_waiting.add(name)
            for other in others:
                if other not in numbers:
                    work.append((other, iter(sorted(after[other]))))
                    break
                if other in is_waiting:
                    lowest[name] = min(lowest[name], numbers[other])
            else:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[name])
                if lowest[name] == numbers[name]:
                    part = waiting[waiting.index(name) :]
                    del waiting[len(waiting) - len(part) :]
                    is_waiting -= set(part)
                    yield part
