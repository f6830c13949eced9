"""What a port needs of each language that is spoken on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import trio

from atoma.ports import Peer, ServiceHost
from atoma_transports._channel.limits import ChannelLimits


@dataclass(frozen=True, slots=True)
class Hosting:
    """What one connection is served with.

    Attributes:
        host: Authenticates, and hands out services.
        peer: Where the connection comes from; ``transport`` names the face.
        known_host: Whether a host name in a request is one of this server's.
        limits: Bounds of the connection.
        drain: Once set, calls in flight are finished, new ones refused with ``UNAVAILABLE``, then the face returns.
    """

    host: ServiceHost
    peer: Peer
    known_host: Callable[[str], bool]
    limits: ChannelLimits
    drain: trio.Event


@runtime_checkable
class Face(Protocol):
    """One language spoken on a port."""

    @property
    def name(self) -> str:
        """Name of the transport, as its peers see it."""
        ...

    def speaks(self, head: bytes) -> bool:
        """Whether a connection that begins with ``head`` is for this face.

        ``head`` holds the first bytes: all HTTP/1.1 header fields, or the preface of HTTP/2.
        """
        ...

    async def serve(self, stream: trio.abc.Stream, hosting: Hosting) -> None:
        """Answer one connection until it ends; the caller closes ``stream``, whose first bytes are ``head`` again.

        Raises nothing but cancellation and what a lost stream raises.
        """
        ...
