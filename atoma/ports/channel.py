"""Transports as cancellable channels of messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec

from atoma.contracts.understood import Understood


@runtime_checkable
class Channel(Protocol):
    """A live connection that carries calls; many may be in flight at once, up to a bound.

    Cancelling a call cancels its handler at the far end; the caller's deadline travels with it and is enforced there.
    """

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        """Send a request and wait for its reply, of the type the protocol states for ``method``.

        Raises:
            RemoteError: The other side answered with an error.
            ChannelBroken: The connection was lost; the outcome is unknown.
            ProtocolError: The other side broke the protocol.
            Overloaded: Too many calls are in flight; nothing was sent.
        """
        ...

    def stream(
        self, method: str, message: msgspec.Struct
    ) -> AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]:
        """Send a request and receive replies until either side ends; leaving the block cancels the far end.

        The same errors as :meth:`call`, raised by the iterator, each time it is asked from then on. A reader that is too
        slow is throttled; one that is cancelled while it waits for an item may wait again. After the block the iterator
        raises ``trio.ClosedResourceError``.
        """
        ...


@runtime_checkable
class Announced(Protocol):
    """A channel that knows what the other side has said about itself when it greeted."""

    async def understood(self) -> Understood | None:
        """What the other side understands of queries; None when it did not greet. Connects first where need be.

        Raises:
            ConnectFailed: No connection could be made; nothing was sent.
            AuthenticationError: The other side refused the token.
        """
        ...


@runtime_checkable
class Transport(Protocol):
    """A maker of channels."""

    @property
    def name(self) -> str:
        """Short name; its nodes are called ``remote-<name>``."""
        ...

    def connect(self) -> AbstractAsyncContextManager[Channel]:
        """Connect, authenticate and keep the channel alive inside the block.

        Raises:
            ConnectFailed: No connection could be made; nothing was sent.
            AuthenticationError: The other side refused the token.
        """
        ...
