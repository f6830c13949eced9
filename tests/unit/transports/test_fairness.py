"""What reading may take of the loop, on virtual time: parsers here take as long as the test says."""

from __future__ import annotations

import itertools

import pytest
import trio
import trio.testing

from atoma_transports.calls.fairness import (
    CALL_S,
    GUEST_SHARE,
    GUESTS_SHARE,
    KNOWN_SHARE,
    TINY_BYTES,
    TINY_PER_S,
    TURN_S_MAX,
    Fairness,
    Share,
    TinyPieces,
)
from atoma_transports.calls.limits import ChannelLimits

pytestmark = pytest.mark.virtual_time
TURN_S = 0.002
LIMITS = ChannelLimits()


def parse(clock: trio.testing.MockClock, share: Share, seconds: float = TURN_S) -> None:
    """A turn that takes so long; others would have had to wait."""
    began = trio.current_time()
    clock.jump(seconds)
    share.took(began)


async def read(clock: trio.testing.MockClock, share: Share, until: float) -> float:
    """Read without end; the seconds that it took of the loop."""
    took = 0.0
    while trio.current_time() < until:
        parse(clock, share)
        took += TURN_S
        await share.turn()
    return took


async def test_a_guest_has_two_percent_of_a_core(mock_clock: trio.testing.MockClock) -> None:
    took = await read(mock_clock, Share(Fairness(), LIMITS), 100.0)
    assert took == pytest.approx(100 * GUEST_SHARE, rel=0.05)


async def test_a_principal_has_ten_over_all_its_connections(mock_clock: trio.testing.MockClock) -> None:
    fairness = Fairness()
    taken: list[float] = []

    async def one() -> None:
        share = Share(fairness, LIMITS)
        share.admit("mallory")
        taken.append(await read(mock_clock, share, 100.0))

    async with trio.open_nursery() as nursery:
        for _ in range(LIMITS.connections):
            nursery.start_soon(one)
    assert sum(taken) == pytest.approx(100 * KNOWN_SHARE, rel=0.1)
    assert max(taken) < 2 * min(taken), "they take turns"


async def test_the_connections_of_a_principal_go_on_one_after_the_other(mock_clock: trio.testing.MockClock) -> None:
    """When all went on at once, as soon as there is a share again, others would wait for as many turns."""
    fairness = Fairness()
    moments: list[float] = []

    async def one() -> None:
        share = Share(fairness, LIMITS)
        share.admit("mallory")
        while trio.current_time() < 20.0:
            await share.turn()
            if trio.current_time() > 5.0:  # the burst is over
                moments.append(trio.current_time())
            parse(mock_clock, share)

    async with trio.open_nursery() as nursery:
        for _ in range(LIMITS.connections):
            nursery.start_soon(one)
    apart = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert min(apart) >= 0.9 * TURN_S / KNOWN_SHARE


async def test_many_guests_have_ten_together_and_one_who_comes_anew_waits_for_none(
    mock_clock: trio.testing.MockClock,
) -> None:
    fairness = Fairness()
    taken: list[float] = []

    async def one() -> None:
        taken.append(await read(mock_clock, Share(fairness, LIMITS), 100.0))

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(one)
        await trio.sleep(50)
        newcomer = Share(fairness, LIMITS)
        parse(mock_clock, newcomer)
        began = trio.current_time()
        await newcomer.turn()
        assert trio.current_time() - began <= 30 * TURN_S, "it stands in the line, and does not wait for what they owe"
    bursts = 30 * GUEST_SHARE
    assert sum(taken) == pytest.approx(100 * GUESTS_SHARE + bursts, rel=0.1)


async def test_of_guests_who_come_at_once_one_is_read_in_a_pass_of_the_loop(mock_clock: trio.testing.MockClock) -> None:
    """Each is within its own share, so nobody sleeps; others would wait until all of them have been read."""
    fairness = Fairness()
    guests, turns = 100, 5
    read = 0
    passes: list[int] = []

    async def one() -> None:
        nonlocal read
        share = Share(fairness, LIMITS)
        for _ in range(turns):
            if share.is_over():
                await share.turn()
            parse(mock_clock, share)
            read += 1
            await trio.lowlevel.checkpoint()

    async def another() -> None:
        while read < guests * turns:
            before = read
            await trio.lowlevel.checkpoint()
            passes.append(read - before)

    async with trio.open_nursery() as nursery:
        for _ in range(guests):
            nursery.start_soon(one)
        nursery.start_soon(another)
    assert max(passes) <= 2, "tasks of a pass run in any order: one at its end, and one at the beginning of the next"


async def test_one_who_is_over_its_share_keeps_no_other_waiting(mock_clock: trio.testing.MockClock) -> None:
    fairness = Fairness()
    greedy, modest = Share(fairness, LIMITS), Share(fairness, LIMITS)
    greedy.admit("mallory")
    modest.admit("ada")
    for _ in range(100):
        parse(mock_clock, greedy)
    assert greedy.is_over()
    parse(mock_clock, modest)
    assert not modest.is_over()
    began = trio.current_time()
    await modest.turn()
    assert trio.current_time() == began


async def test_who_sends_calls_is_not_slowed_down(mock_clock: trio.testing.MockClock) -> None:
    share = Share(Fairness(), LIMITS)
    share.admit("ada")
    for _ in range(50_000):
        parse(mock_clock, share, CALL_S / 2)
        share.earned(100)
        assert not share.is_over()


async def test_what_another_program_took_is_not_counted(mock_clock: trio.testing.MockClock) -> None:
    share = Share(Fairness(), LIMITS)
    share.admit("ada")
    parse(mock_clock, share, 60.0)
    assert not share.is_over()
    assert TURN_S_MAX < GUEST_SHARE <= KNOWN_SHARE


async def test_a_share_comes_back_with_time(mock_clock: trio.testing.MockClock) -> None:
    share = Share(Fairness(), LIMITS)
    share.admit("ada")
    while not share.is_over():
        parse(mock_clock, share)
    await trio.sleep(1.0)
    assert not share.is_over()


async def test_pieces_that_carry_next_to_nothing_have_a_bound() -> None:
    share = Share(Fairness(), LIMITS)
    for _ in range(10 * TINY_PER_S):
        share.piece(TINY_BYTES)
    for _ in range(TINY_PER_S - 1):
        share.piece(TINY_BYTES - 1)
    with pytest.raises(TinyPieces):  # the thousandth, give or take a rounding
        for _ in range(3):
            share.piece(0)
    await trio.sleep(1.0)
    for _ in range(TINY_PER_S // 2):
        share.piece(0)
