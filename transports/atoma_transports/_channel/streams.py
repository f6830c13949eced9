"""A byte stream with its first bytes already read."""

from __future__ import annotations

import trio


class PrefixedStream(trio.abc.Stream):
    """``stream``, preceded by bytes that were read from it to see what it is.

    Attributes:
        ended: Set once the peer has sent its last byte, or the connection is lost.
    """

    def __init__(self, prefix: bytes, stream: trio.abc.Stream) -> None:
        self._prefix = prefix
        self._stream = stream
        self.ended = trio.Event()

    def take_apart(self) -> tuple[bytes, trio.abc.Stream]:
        """The bytes that are still to be read, and the stream that they come before; this one is of no more use."""
        prefix, stream = self._prefix, self._stream
        while isinstance(stream, PrefixedStream):
            inner, stream = stream.take_apart()
            prefix += inner
        self._prefix = b""
        return prefix, stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, the prefix first; ``b""`` at the end."""
        if self._prefix:
            await trio.lowlevel.checkpoint()
            data, self._prefix = self._prefix[:max_bytes], self._prefix[max_bytes:] if max_bytes else b""
            return data
        try:
            received = bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise
        if not received:
            self.ended.set()
        return received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``."""
        await self._stream.send_all(bytes(data) if isinstance(data, bytearray) else data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in the send buffer."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()
