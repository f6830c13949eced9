"""Which faults struck in which states: what is counted, what is asked for, and what is shown."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio

from atoma.testing.simulation import Fault, State, apart, can_meet, rarest, seldom, table
from atoma.testing.simulation.encounters import BRIEF, BRIEF_OF, Encounters, Pair
from atoma.testing.simulation.standing import Lookout


def test_a_fault_is_counted_in_every_state_of_every_device_that_it_strikes() -> None:
    states = {"a": {State.PUSHING, State.QUEUED}, "b": {State.DOWN, State.QUEUED}}
    counts: Counter[str] = Counter()
    encounters = Encounters(counts, states.__getitem__)
    encounters.meet(Fault.HUB_CRASH, "a", "b")
    encounters.meet(Fault.DROPPED, "a")
    assert counts == {"hub crashes": 1, "frames dropped": 1}
    assert encounters.met == {
        (Fault.HUB_CRASH, State.QUEUED): 2,
        (Fault.HUB_CRASH, State.PUSHING): 1,
        (Fault.HUB_CRASH, State.DOWN): 1,
        (Fault.DROPPED, State.PUSHING): 1,
        (Fault.DROPPED, State.QUEUED): 1,
    }


def test_what_was_seldom_is_every_pair_that_can_meet_and_has_not_often_enough() -> None:
    met: Counter[Pair] = Counter({(fault, state): 100 for fault in Fault for state in can_meet(fault)})
    assert seldom(met, 100) == {}
    met[Fault.EPOCH, State.FIRST_TAIL] = 99
    del met[Fault.CUT, State.NEW]
    assert seldom(met, 100) == {(Fault.EPOCH, State.FIRST_TAIL): 99, (Fault.CUT, State.NEW): 0}


def test_the_rarest_pairs_are_named_with_how_often_they_have_met() -> None:
    met: Counter[Pair] = Counter({(fault, state): 100 for fault in Fault for state in can_meet(fault)})
    met[Fault.SPLIT, State.OPENING] = 3
    del met[Fault.CLONED, State.NEW_TAIL]
    assert rarest(met, 2) == "file clones × new tail 0, pushes split × opening 3"


def test_what_cannot_meet_says_why_and_is_not_asked_for() -> None:
    assert all(apart().values())
    assert (Fault.DROPPED, State.OFFLINE) in apart()
    for fault in Fault:
        assert set(can_meet(fault)) == {state for state in State if (fault, state) not in apart()}
        for kind, brief in BRIEF_OF.items():
            assert set(can_meet(fault)) & set(brief), (
                f"a fault that waits has something to wait for in a run that is {kind}"
            )


def test_the_table_has_a_line_for_each_state_and_a_column_for_each_fault() -> None:
    lines = table({(Fault.DROPPED, State.PUSHING): 1234}).splitlines()
    assert len(lines) == 2 + len(State)
    shown = {line[:12].strip(): line[12:].split() for line in lines[2:]}
    assert {len(cells) for cells in shown.values()} == {len(Fault)}
    assert shown["pushing"][:2] == ["1234", "0"]
    assert shown["offline"][0] == "·"


class AlwaysHunting(random.Random):
    """Dice by which every fault waits for the state that is drawn."""

    def random(self) -> float:
        return 0.0


@pytest.mark.virtual_time
async def test_a_fault_waits_for_the_device_that_comes_into_the_state() -> None:
    states: dict[str, set[State]] = {"a": {State.BEHIND}, "b": set()}
    lookout = Lookout(AlwaysHunting(1), ("a", "b"), states.__getitem__)
    found: list[tuple[str, float]] = []

    async def find() -> None:
        found.append((await lookout.find(Fault.CUT), trio.current_time()))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(find)
        await trio.sleep(1)
        lookout.notice("b")
        states["b"].update(BRIEF)  # whichever it waits for
        await trio.sleep(1)
        lookout.notice("a")
        lookout.notice("b")
    assert found == [("b", began + 2)]


@pytest.mark.virtual_time
async def test_a_fault_that_finds_no_such_device_strikes_any() -> None:
    lookout = Lookout(random.Random(3), ("a", "b"), lambda site: set())
    assert {await lookout.find(Fault.CUT) for _ in range(20)} == {"a", "b"}
