"""Generated policies and schedules: what the kernel does equals what an interpreter of policies says, to the event.

The interpreter (``kernel_model/interpreter.py``) is written from the description of the combinators and knows no code of
the kernel. Scripted nodes succeed, fail in each way, hang, are slow and lie; several requests run at the same time, some
are given up, stores change meanwhile. Virtual time makes the comparison exact: answers, trails, all events with their
moments and causes, the calls and commits that were made, what detached steps handed on, and what breakers and bulkheads
hold at the end, when no task is left.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import event, given, note, reject, settings
from hypothesis import strategies as st

from tests.properties.kernel_model.comparison import Tie, compare
from tests.properties.kernel_model.worlds import contains, draw_world

KINDS = (
    "node sequence fallback parallel race hedge timeout retry breaker bulkhead atomic detach cache merge verdict "
    "synced refuse"
).split()
WORLDS = 1_000


def check(source: random.Random) -> None:
    world = draw_world(source)
    note(str(world))
    try:
        problem = compare(world)
    except Tie:
        reject()
    event(f"{len(world.asks)} requests")
    assert not problem, problem


@settings(max_examples=200)
@given(st.randoms(use_true_random=False))
def test_the_kernel_does_what_the_interpreter_says(source: random.Random) -> None:
    check(source)


@pytest.mark.soak
@given(st.randoms(use_true_random=False))
def test_the_kernel_does_what_the_interpreter_says_at_length(source: random.Random) -> None:
    check(source)


@pytest.mark.parametrize("start", range(0, WORLDS, 500))
def test_of_many_worlds_too(start: int) -> None:
    same = 0
    for number in range(start, start + 500):
        world = draw_world(random.Random(number))
        try:
            problem = compare(world)
        except Tie:
            continue
        assert not problem, f"world {number}\n{world}\n{problem}"
        same += 1
    assert same > 450, "too many examples leave open what happens first"


def test_every_combinator_is_in_many_worlds() -> None:
    worlds = [draw_world(random.Random(number)) for number in range(WORLDS)]
    asked = [[one.write for one in world.asks] for world in worlds]
    graphs = [
        graph
        for world, writes in zip(worlds, asked, strict=True)
        for graph, used in ((world.query, not all(writes)), (world.write, any(writes)))
        if used
    ]
    counts = {kind: sum(contains(graph, kind) for graph in graphs) for kind in KINDS}
    assert all(count >= 25 for count in counts.values()), counts
    assert sum(len(writes) > 2 for writes in asked) > WORLDS / 2
