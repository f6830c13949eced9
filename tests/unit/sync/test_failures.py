"""What helps against which failure, and that no group ever comes out of a lane."""

from __future__ import annotations

import random

import pytest
import trio

from atoma.concurrency.backoff import Backoff, Retries
from atoma.contracts.failures import info_from, refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import (
    AuthenticationError,
    ChannelBroken,
    ClientForked,
    ConnectFailed,
    DiskFull,
    ProtocolError,
    RemoteError,
    StoreBusy,
)
from atoma.sync.failures import HubLostData, Remedy, WrongHub, error_from, remedy
from atoma.sync.lanes import contained
from atoma.sync.replica import BACKOFF


def refused(code: str, *, retryable: bool = False) -> RemoteError:
    return RemoteError("no", remote_code=code, remote_retryable=retryable)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectFailed("x"), Remedy.RECONNECT),
        (ChannelBroken("x"), Remedy.RECONNECT),
        (StoreBusy("x"), Remedy.RECONNECT),
        (ProtocolError("x"), Remedy.STALL),
        (AuthenticationError("x"), Remedy.STALL),
        (DiskFull("x"), Remedy.STALL),
        (WrongHub("x"), Remedy.STALL),
        (HubLostData("x"), Remedy.STALL),
        (ClientForked("x"), Remedy.STALL),
        (ZeroDivisionError("x"), Remedy.STALL),
        (refused("UNAVAILABLE"), Remedy.RETRY),
        (refused("BUSY", retryable=True), Remedy.RETRY),
        (refused("SOMETHING_NEW", retryable=True), Remedy.RETRY),
        (refused("SOMETHING_NEW"), Remedy.STALL),
        (refused("PERMISSION_DENIED"), Remedy.STALL),
        (refused("UNAUTHENTICATED"), Remedy.STALL),
        (refused("CLIENT_FORKED", retryable=True), Remedy.STALL),
        *[
            (refused(code), Remedy.RESNAPSHOT)
            for code in ("CURSOR_TOO_OLD", "CURSOR_AHEAD", "LINEAGE_MISMATCH", "EPOCH_CHANGED", "SNAPSHOT_EXPIRED")
        ],
    ],
)
def test_remedies(error: Exception, expected: Remedy) -> None:
    assert remedy(error) is expected


def test_errors_keep_their_facts_as_data() -> None:
    info = ErrorInfo("OVERLOADED", "busy", True, 1500, {"queue": "push"})
    error = error_from(info)
    assert isinstance(error, RemoteError)
    assert (error.remote_code, error.retry_after_s, error.info) == ("OVERLOADED", 1.5, {"queue": "push"})
    assert info_from(error) == info
    assert isinstance(error_from(ErrorInfo("CLIENT_FORKED", "copy")), ClientForked)
    assert info_from(ZeroDivisionError("boom")) == refusal("INTERNAL", "ZeroDivisionError: boom")


def test_backoff_doubles_to_its_limit_with_full_jitter() -> None:
    class Highest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    retries = Retries(BACKOFF, Highest())
    assert [retries.fail() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert retries.failures == 9
    retries.reset()
    assert retries.fail() == 0.5
    assert retries.fail(at_least_s=7.0) == 7.0
    seeded = Retries(BACKOFF, random.Random(1))
    delays = [seeded.fail() for _ in range(200)]
    assert min(delays) < 5 < 55 < max(delays) <= 60
    assert all(30 <= seeded.slow() <= 60 for _ in range(50))


def test_a_part_of_a_wait_can_be_fixed() -> None:
    source = random.Random(1)
    drawn = [Backoff(1, max_s=8, jitter=0.25).wait_s(9, source) for _ in range(200)]
    assert 6 <= min(drawn) < 6.2 < 7.8 < max(drawn) <= 8
    assert Backoff(1, max_s=8, jitter=0).wait_s(3, source) == 4
    assert [Backoff(wait, 1, 5).bound(10**9) for wait in (0, 2)] == [0, 2]


async def test_a_group_becomes_its_worst_error() -> None:
    async def two_fail() -> None:
        raise BaseExceptionGroup(
            "g", [ChannelBroken("wire"), ExceptionGroup("h", [refused("DENIED"), KeyError("bug")])]
        )

    assert isinstance(await contained(two_fail), KeyError)


async def test_cancellation_is_never_an_error() -> None:
    async def fail_while_cancelled() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ChannelBroken("closing")

    with trio.CancelScope() as scope:
        scope.cancel()
        await contained(fail_while_cancelled)
        raise AssertionError("the cancellation was swallowed")
    assert scope.cancelled_caught


async def test_an_interrupt_is_passed_on() -> None:
    async def interrupted() -> None:
        raise BaseExceptionGroup("g", [KeyboardInterrupt(), ChannelBroken("wire")])

    with pytest.raises(KeyboardInterrupt):
        await contained(interrupted)
