"""Byte streams over sockets: what was read ahead is kept, and most answers are sent without a detour."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import trio

from atoma_transports.calls.limits import ChannelLimits

EAGER = os.name == "posix"
"""Whether the number of a socket is that of a file, which can be read and written at once."""

CHUNK_BYTES = 64 * 1024
"""What a large message is sent in; each chunk that leaves is a sign of life."""


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


async def send_in_chunks(stream: trio.abc.Stream, data: bytes | memoryview, moved: Callable[[], None]) -> None:
    """Send ``data``; when it is more than a chunk, ``moved`` is called whenever one has left."""
    if len(data) <= CHUNK_BYTES:
        await stream.send_all(data)
        return
    view = memoryview(data)
    for start in range(0, len(view), CHUNK_BYTES):
        await stream.send_all(view[start : start + CHUNK_BYTES])
        moved()


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


def keep_alive(stream: trio.SocketStream, limits: ChannelLimits) -> None:
    """Have the system find out when the other end of an open connection is gone, where the protocol cannot ask.

    Without ``TCP_USER_TIMEOUT``: with it Linux no longer counts what went unanswered, and ends slow readers as well.
    """
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    settings = {"TCP_KEEPIDLE": limits.ping_s, "TCP_KEEPINTVL": limits.pong_s / 2, "TCP_KEEPCNT": 2}
    for name, value in settings.items():
        option = getattr(socket, name, None)  # not every system has them all
        if isinstance(option, int):
            stream.setsockopt(socket.IPPROTO_TCP, option, max(1, round(value)))
