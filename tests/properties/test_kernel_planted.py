"""Every bug planted in the kernel is seen by the comparison with the interpreter, in a world that the kernel masters."""

from __future__ import annotations

import random
import sys

import pytest

from tests.properties.kernel_model.comparison import Tie, compare
from tests.properties.kernel_model.plants import PLANTS, planted
from tests.properties.kernel_model.worlds import draw_world

# bug → the number of the first world that shows it
FOUND_AT: dict[str, int] = {
    "a cancelled node leaves no entry": 3,
    "a refusal counts as an answer's source": 11,
    "a foreign error of a remote write is certain": 25,
    "a write whose answer contradicts itself is believed": 49,
    "a node is remote when nobody listens": 41,
    "a sequence goes on after a refused part": 13,
    "a later failure of a write is certain": 30,
    "a fallback after a refusal": 5,
    "a write falls back whenever a query would": 6,
    "a fallback is not told": 0,
    "a timeout gives a node more than is left": 3,
    "a write that timed out is certain": 4,
    "one attempt more": 49,
    "doubt is not kept over retries": 248,
    "a retry waits less than it is asked to": 245,
    "a wait that outlasts the budget is begun": 85,
    "waits do not grow": 230,
    "two probes at once": 67,
    "a cancelled probe stays": 2009,
    "refusals open a breaker": 5,
    "old failures count": 205,
    "a success does not end a row of failures": 2,
    "a breaker for each place": 643,
    "one more may wait": 47,
    "a failure keeps its place in a bulkhead": 7,
    "a bulkhead for each place": 1337,
    "only the first stage is in the trail": 4,
    "a stage is left out": 34,
    "a place for a detached step is lost": 24,
    "a place is kept when a detached step fails": 124,
    "a detached step has the caller's deadline": 7,
    "a write is answered without its detached step": 9,
    "a detached write leaves caches as they are": 1175,
    "a cached result is kept for ever": 38,
    "a write leaves caches as they are": 1254,
    "a failed write leaves caches as they are": 202,
    "a running query is not shared": 26,
    "failures are cached": 25,
    "caches forget where an answer is from": 7,
    "the trail of the winner is not the last": 0,
    "a race is won by the last of those that end at once": 43,
    "a refusal does not end a race": 159,
    "a hedge joins at once": 3,
    "a hedge asks on in doubt": 6,
    "a failed quorum of writes is certain": 356,
    "a quorum of one more": 65,
    "a merge that tolerates everything": 139,
    "a merge of one side is mixed": 49,
    "an optimistic write waits for its verdict": 0,
    "a refusal by the authority is overlooked": 61,
    "a lost verdict is certain": 64,
    "a replicating store takes the other way": 31,
    "a refused write runs": 8,
    "the answer of a remote node is lost": 1606,
    "an ended write is told too early": 3,
}
LATER_WORLDS = 400
"""A change of the generator shifts what a number means; then one of so many worlds from there on has to show the bug."""


def test_every_bug_has_its_world() -> None:
    assert set(FOUND_AT) == set(PLANTS)
    assert len(FOUND_AT) >= 20


@pytest.mark.parametrize("bug", FOUND_AT)
def test_a_planted_bug_is_found(bug: str) -> None:
    with planted(bug) as words:
        for number in range(FOUND_AT[bug], FOUND_AT[bug] + LATER_WORLDS):
            world = draw_world(random.Random(number))
            try:
                problem = compare(world, words)
            except Tie:
                continue
            if problem:
                break
        else:
            pytest.fail(f"no world from {FOUND_AT[bug]} on shows it")
    assert not compare(world), "the kernel without the bug does what the interpreter says"


def test_a_bug_is_gone_after_its_run() -> None:
    from atoma import kernel

    with planted("one attempt more") as words:
        assert words is not kernel
        assert words.ExecutionKernel is not kernel.ExecutionKernel
    assert sys.modules["atoma.kernel"] is kernel
