"""Ids sort in the order they were made, whatever the clock does; only a day's error of the clock is not carried on."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from atoma.schema import IdSource

MINUTE, DAY, DECADE = 60_000, 86_400_000, 3_650 * 86_400_000
STEPS = st.one_of(
    st.just(0),
    st.integers(-3, 3),
    st.integers(-MINUTE, MINUTE),
    st.sampled_from([-DECADE, DECADE, -DAY - 1, -DAY, DAY, DAY + 1]),
)


def moment(id: str) -> int:
    """The milliseconds that an id tells."""
    return int(id[:8] + id[9:13], 16)


@given(steps=st.lists(st.tuples(STEPS, st.integers(1, 3)), max_size=60), seed=st.integers(0, 2**32))
def test_order_is_kept_over_every_step_of_less_than_a_day(steps: list[tuple[int, int]], seed: int) -> None:
    now = 1_700_000_000_000
    source = IdSource(lambda: now, random.Random(seed))
    made = [source()]
    for step, count in steps:
        now += step
        for _ in range(count):
            before, id = made[-1], source()
            if moment(before) - now > DAY:  # the clock was wrong, and has been set right
                assert moment(id) == now
            else:
                assert id > before
                assert moment(id) == max(now, moment(before))
            made.append(id)
    assert len(set(made)) == len(made)


def test_more_ids_than_a_millisecond_can_number_stay_in_order() -> None:
    source = IdSource(lambda: 1_700_000_000_000, random.Random(1))
    made = [source() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert moment(made[-1]) - moment(made[0]) <= 3
