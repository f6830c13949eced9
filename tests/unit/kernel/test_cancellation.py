"""Cancel at every checkpoint of every policy: afterwards nothing runs, nothing is held, and a write succeeds."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from atoma.contracts.policy import Policy
from atoma.errors import AtomaError, ChannelBroken, ConnectFailed
from atoma.kernel import (
    Backoff,
    breaker,
    bulkhead,
    cache,
    fallback,
    hedge,
    local_first,
    merge,
    node,
    parallel,
    race,
    retry,
    timeout,
)

REMOTE, LOCAL = node("remote-test"), node("local-query")
CUSTOM = {
    "volatile": local_first("remote-test", name="volatile", volatile=True),
    "everything": Policy(
        "everything",
        cache(fallback(breaker(bulkhead(retry(timeout(REMOTE, 5), 3, Backoff(0.2)), 1, 1), failures=9), LOCAL), 0.001),
        fallback(breaker(bulkhead(retry(timeout(REMOTE, 5), 3, Backoff(0.2)), 1, 1), failures=9), node("local-write")),
    ),
    "together": Policy(
        "together",
        merge(race(REMOTE, LOCAL), hedge(LOCAL, REMOTE, delay_s=0.5), parallel(LOCAL, REMOTE, answer="all")),
        race(parallel(REMOTE, node("local-write"), answer="all"), hedge(REMOTE, node("local-write"), delay_s=0.5)),
    ),
}
BUILT_IN = ["direct-local", "direct-remote", "remote-first", "sync-queue", "hybrid"]
BEHAVIOURS: dict[str, list[Any]] = {
    "well": [1.0, 1.0, 1.0],
    "refused": [ConnectFailed("down"), ConnectFailed("down"), ConnectFailed("down")],
    "broken": [ChannelBroken("lost"), 1.0, ChannelBroken("lost")],
    "hanging": [60.0, 60.0, 60.0],
}


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the n-th step of any task but the delivery of events."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        self.left = at
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.endswith(("deliver", "main", "<init>")) or self.left <= 0:
            return
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def sweep(open_house: Any, policy: str, behaviour: str, side: str, at: int) -> bool:
    """One run that is cancelled at step ``at``; False when it ended before."""
    async with open_house(*CUSTOM.values()) as house:
        remote, local = house.nodes["remote-test"], house.nodes["local-query"]
        remote.behaviour, local.behaviour = list(BEHAVIOURS[behaviour]), [0.7]
        scope = trio.CancelScope()
        instrument = CancelAt(at, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            with scope:
                try:
                    await (house.query(policy) if side == "query" else house.write(policy))
                except AtomaError:
                    pass
                except trio.Cancelled:
                    raise
                except BaseException as error:
                    raise AssertionError(f"what came out was {error!r}") from error
        finally:
            trio.lowlevel.remove_instrument(instrument)
        await trio.testing.wait_all_tasks_blocked()
        detached = remote.running if policy == "volatile" else 0
        assert remote.running == detached
        assert local.running == house.writer.open == 0
        assert len(house.nursery.child_tasks) == 1 + detached
        assert all(guard.waiting == 0 for guard in house.kernel.guards())
        assert all(guard.state in ("free", "closed") for guard in house.kernel.guards())
        remote.behaviour.clear()
        local.behaviour.clear()
        assert (await house.write(policy)).status == "confirmed"
        assert (await house.query(policy)).rows
    assert remote.running == 0
    return instrument.left == 0


@pytest.mark.parametrize("side", ["query", "write"])
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("policy", [*BUILT_IN, *CUSTOM])
def test_cancelling_anywhere_leaves_nothing(open_house: Any, policy: str, behaviour: str, side: str) -> None:
    at = 0
    for at in range(1, 200):
        clock = trio.testing.MockClock(autojump_threshold=0)
        if not trio.run(sweep, open_house, policy, behaviour, side, at, clock=clock):
            break
    assert 1 < at < 199, "at least one point was hit, and the end was reached"
