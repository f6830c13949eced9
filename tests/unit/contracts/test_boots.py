"""Places that bear one epoch's name are told apart by the boots of the hub that have written what led to them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from atoma.contracts.boots import BOOTS_MAX, BootedPlace, booted, boots_up_to


@dataclass(frozen=True)
class Machine:
    """A hub's file at some moment: the whole log, as an oracle has it, and what is noted of it."""

    log: tuple[int, ...] = ()
    boots: bytes = b""

    def written(self, boot: int, count: int) -> Machine:
        log, boots = self.log, self.boots
        for _ in range(count):
            log = (*log, boot)
            boots = booted(boots, len(log), boot.to_bytes(4, "big"))
        return Machine(log, boots)

    def place(self, seq: int) -> tuple[tuple[int, ...], BootedPlace]:
        return self.log[:seq], BootedPlace(seq, boots_up_to(self.boots, seq))


@pytest.mark.parametrize("seed", range(20))
def test_two_places_are_on_one_way_exactly_where_one_log_begins_with_the_other(seed: int) -> None:
    """A boot writes nothing twice, so equal boots all the way are equal logs."""
    dice = random.Random(seed)
    machines, places = [Machine()], [Machine().place(0)]
    for boot in range(1, BOOTS_MAX):
        machine = dice.choice(machines).written(boot, dice.randrange(4))
        machines.append(machine)
        places.append(machine.place(dice.randint(0, len(machine.log))))
    for log, place in places:
        for other_log, other in places:
            shortest = min(len(log), len(other_log))
            assert place.is_on_the_way_of(other) is (log[:shortest] == other_log[:shortest]), (seed, log, other_log)


def test_where_too_many_boots_lie_between_nobody_says_that_they_are_on_one_way() -> None:
    machine = Machine().written(1, 1)
    early = machine.place(1)[1]
    for boot in range(2, BOOTS_MAX + 2):
        assert early.is_on_the_way_of(machine.place(len(machine.log))[1])
        machine = machine.written(boot, 1)
    late = machine.place(len(machine.log))[1]
    assert not early.is_on_the_way_of(late) and not late.is_on_the_way_of(early)


def test_of_what_was_written_before_boots_were_noted_it_is_said_as_ever() -> None:
    earlier, later = BootedPlace(3), BootedPlace(9, booted(b"", 5, b"boot"))
    assert earlier.is_on_the_way_of(later) and later.is_on_the_way_of(earlier)
