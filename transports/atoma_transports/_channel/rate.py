"""How many bytes a second a peer may send, in the long run."""

from __future__ import annotations

import trio

BURST_S = 1.0  # after a pause, as much as in this time may come at once
PAUSE_S = 1.0  # longest time for which nothing is read from a peer that sends too much
DEBT_S = 60.0  # a debt grows no larger than this


class Meter:
    """Counts bytes against a rate: what is over it is a debt that wears off with time.

    A small debt is paid by reading a moment later, so that an honest sender just gets slower (back pressure). Whoever
    sends on over a debt of more than :data:`PAUSE_S` is refused.
    """

    def __init__(self, bytes_per_s: int) -> None:
        self._rate = bytes_per_s
        self._clear_at = trio.current_time() - BURST_S  # when the debt is, or was, worn off

    def debt_s(self) -> float:
        """Seconds until the peer is within its rate again; 0 when it is."""
        return max(0.0, self._clear_at - trio.current_time())

    def count(self, amount: int) -> None:
        """Note that ``amount`` bytes came."""
        now = trio.current_time()
        self._clear_at = min(now + DEBT_S, max(self._clear_at, now - BURST_S) + amount / self._rate)

    async def pause(self) -> None:
        """Wait until the debt is worn off, but not longer than :data:`PAUSE_S`."""
        await trio.sleep(min(self.debt_s(), PAUSE_S))


class MeteredStream(trio.abc.Stream):
    """``stream``, read no faster than ``meter`` allows in the long run: an honest sender just gets slower."""

    def __init__(self, stream: trio.abc.Stream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, after a pause when there were too many; ``b""`` at the end."""
        if self._meter.debt_s():
            await self._meter.pause()
        data = bytes(await self._stream.receive_some(max_bytes))
        self._meter.count(len(data))
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in the send buffer."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()
