"""A byte stream that is read no faster than a rate."""

from __future__ import annotations

import trio

from atoma.ports.rate import Meter


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
