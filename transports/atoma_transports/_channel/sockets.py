"""Plain sockets without the detours: most answers fit into the socket's buffer, and most waits are for a request."""

from __future__ import annotations

import os
import sys

import trio

from atoma_transports._channel.streams import PrefixedStream

EAGER = sys.platform != "win32"


class EagerSocket(trio.abc.HalfCloseableStream):
    """``stream``, which is sent to at once, without a checkpoint, when its buffer has room, and awaited before it is read.

    One task at a time may send, and one may receive.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._number = stream.socket.fileno()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes; ``b""`` at the end."""
        while True:
            await trio.lowlevel.wait_readable(self._number)
            try:
                return os.read(self._number, max_bytes or 65536)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                raise trio.BrokenResourceError from None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``."""
        try:
            sent = os.write(self._number, data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            raise trio.BrokenResourceError from None
        if sent < len(data):
            await self._stream.send_all(memoryview(data)[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in the send buffer."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()


def unwrapped(stream: trio.abc.Stream) -> tuple[bytes, trio.abc.Stream, trio.abc.Stream]:
    """What was read ahead from ``stream``, the stream that goes on after it, and the fastest way to use that."""
    ahead = b""
    if isinstance(stream, PrefixedStream):
        ahead, stream = stream.take_apart()
    if EAGER and isinstance(stream, trio.SocketStream):
        return ahead, stream, EagerSocket(stream)
    return ahead, stream, stream
