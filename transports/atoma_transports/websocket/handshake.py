"""The opening handshake of a WebSocket, by trio-websocket; that library is not concerned with the messages after it.

Both sides are shown the stream up to the end of the header fields only, so that whatever comes after them is left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from trio_websocket import HandshakeError, WebSocketConnection, wrap_client_stream, wrap_server_stream

from atoma.errors import ProtocolError
from atoma.ports.tasks import open_tasks
from atoma_transports.serving.head import HEAD_BYTES_MAX, HEAD_END, RECEIVE_BYTES

SUBPROTOCOL = "atoma.v1"
"""Offered by our client, accepted when offered; a client that offers none is as welcome."""

HUB_PATH = "/sync"
"""Where a hub takes WebSockets."""
SWITCHING = b"HTTP/1.1 101"


class _Head(trio.abc.Stream):
    """``stream``, as far as the end of its header fields; then silence. A refusal is shown with its body.

    Attributes:
        rest: What was read from it that comes after the header fields.
        ended: Set when it ended before that, or is too long.
    """

    def __init__(self, stream: trio.abc.Stream, *, answers: bool) -> None:
        self._stream = stream
        self._answers = answers
        self._seen = b""
        self._whole = False
        self.rest = b""
        self.ended = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._whole:
            await trio.sleep_forever()
        data = b""
        try:
            data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
        finally:
            if not data:
                self.ended.set()
        known = len(self._seen)
        self._seen += data
        end = self._seen.find(HEAD_END, max(0, known - len(HEAD_END)))
        if end < 0 or (self._answers and not self._seen.startswith(SWITCHING)):
            if len(self._seen) > HEAD_BYTES_MAX:
                self.ended.set()
            return data
        self._whole = True
        self.rest = self._seen[end + len(HEAD_END) :]
        return data[: end + len(HEAD_END) - known]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(bytes(data) if isinstance(data, bytearray) else data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """The library gives the handshake up, after it has said why."""
        self.ended.set()
        await self._stream.aclose()


async def _shake(head: _Head, talk: Callable[[trio.Nursery, _Head], Awaitable[WebSocketConnection]]) -> bytes:
    """Let ``talk`` shake hands; the bytes that came after that.

    Raises:
        trio.BrokenResourceError: The other side hung up, or talks about something else.
    """
    done = False
    async with open_tasks() as nursery:

        async def hung_up() -> None:  # which the library itself does not notice in time
            await head.ended.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(hung_up)
        await talk(nursery, head)
        done = True
        nursery.cancel_scope.cancel()
    if not done:
        raise trio.BrokenResourceError("it hung up")
    return head.rest


async def ask_for_upgrade(stream: trio.abc.Stream, host: str, path: str) -> bytes:
    """Become a WebSocket client on ``stream``; the bytes that came after the answer.

    Raises:
        trio.BrokenResourceError: The other side hung up, or does not speak HTTP.
        trio_websocket.HandshakeError: It refused.
    """

    async def talk(nursery: trio.Nursery, head: _Head) -> WebSocketConnection:
        return await wrap_client_stream(
            nursery,
            head,  # type: ignore[arg-type]  # any stream will do
            host,
            path,
            subprotocols=[SUBPROTOCOL],
        )

    try:
        return await _shake(_Head(stream, answers=True), talk)
    except (HandshakeError, OSError, trio.BrokenResourceError):
        raise
    except Exception:  # the library lets out what its parser says of an answer that is not HTTP
        raise trio.BrokenResourceError("it does not speak HTTP") from None


async def answer_upgrade(stream: trio.abc.Stream) -> bytes:
    """Become a WebSocket server on ``stream``; the bytes that came after the request.

    Raises:
        ProtocolError: The request is not a proper WebSocket upgrade; it has been refused.
    """

    async def talk(nursery: trio.Nursery, head: _Head) -> WebSocketConnection:
        request = await wrap_server_stream(nursery, head)
        offered = SUBPROTOCOL in request.proposed_subprotocols
        return await request.accept(subprotocol=SUBPROTOCOL if offered else None)

    try:
        return await _shake(_Head(stream, answers=False), talk)
    except trio.BrokenResourceError:
        raise ProtocolError("not a WebSocket upgrade") from None
