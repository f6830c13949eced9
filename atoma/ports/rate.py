"""How much of something a peer may take in a second, in the long run."""

from __future__ import annotations

import trio

BURST_S = 1.0  # after a pause, as much as in this time may come at once
PAUSE_S = 1.0  # longest time for which a peer that takes too much is made to wait; beyond, it is refused
DEBT_S = 60.0  # a debt grows no larger than this


class Meter:
    """A meter of bytes, or of seconds of work, against a rate: what is over it is a debt that wears off with time.

    A small debt is paid by waiting a moment, so that an honest peer just gets slower (back pressure). Whoever goes on over a
    debt of more than :data:`PAUSE_S` is refused.

    Args:
        per_s: What may be taken in a second.
    """

    def __init__(self, per_s: float) -> None:
        self._rate = per_s
        self._clear_at = trio.current_time() - BURST_S  # when the debt is, or was, worn off

    def debt_s(self) -> float:
        """Seconds until the peer is within its rate again; 0 when it is."""
        return max(0.0, self._clear_at - trio.current_time())

    def count(self, amount: float) -> None:
        """Note that ``amount`` was taken."""
        now = trio.current_time()
        self._clear_at = min(now + DEBT_S, max(self._clear_at, now - BURST_S) + amount / self._rate)

    async def pause(self) -> None:
        """Wait until the debt is worn off, but not longer than :data:`PAUSE_S`."""
        await trio.sleep(min(self.debt_s(), PAUSE_S))
