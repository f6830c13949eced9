"""What the client half needs of HTTP: send a request, read its reply. The pool has it, and so have scripts in tests."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import trio


@dataclass(slots=True, eq=False)
class Request:
    """One ``POST``.

    Attributes:
        path: Path below the hub's address, such as ``/v1/query``.
        body: A message, or an envelope of several, as msgpack.
        budget_ms: Milliseconds until the caller's deadline, -1 without one.
        trace_id: The caller's trace.
        token: A token of its own; None takes that of the connection.
        sent: Set once a byte of the request may have reached the other side.
    """

    path: str
    body: bytes
    budget_ms: int = -1
    trace_id: str = ""
    token: str | None = None
    sent: trio.Event = field(default_factory=trio.Event)


class Reply(Protocol):
    """The head of a reply, and its body as it comes."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    def header(self, name: str) -> str:
        """The field of that lower-case name; empty when there is none."""
        ...

    async def receive(self) -> bytes:
        """The next part of the body, ``b""`` at its end.

        Raises:
            ChannelBroken: The connection was lost before the end.
            ProtocolError: What comes is not HTTP.
        """
        ...


class Requests(Protocol):
    """Sends requests."""

    def post(self, request: Request) -> AbstractAsyncContextManager[Reply]:
        """Send ``request``; the block begins with the head of its reply.

        Leaving the block before the end of the body, or being cancelled, closes the connection, which cancels the
        handler at the other side.

        Raises:
            ChannelBroken: No connection, or it was lost; ``maybe_sent`` says whether the request may have been seen.
            ProtocolError: The other side does not speak HTTP.
        """
        ...
