"""What a port needs of each language that is spoken on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import trio

from atoma.ports import Peer, ServiceHost
from atoma_transports._channel.fairness import Fairness, Share
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports.serving.forwarding import Origins
from atoma_transports.serving.places import Place


@dataclass(frozen=True, slots=True)
class Hosting:
    """What one connection is served with.

    Attributes:
        host: Authenticates, and hands out services.
        peer: Who is at the other end of the connection; ``transport`` names the face.
        known_host: Whether a host name in a request is one of this server's.
        limits: Bounds of the connection.
        drain: Once set, calls in flight are finished, new ones refused with ``UNAVAILABLE``, then the face returns.
        origins: Tells who made a request, which may be somebody else than ``peer``.
        place: The connection's place on the port.
        fairness: What principals have once, over all connections of the port.
        face_for: The face that speaks what begins with some first bytes, for connections that change their language.
    """

    host: ServiceHost
    peer: Peer
    known_host: Callable[[str], bool]
    limits: ChannelLimits
    drain: trio.Event
    origins: Origins = field(default_factory=Origins)
    place: Place = field(default_factory=Place.alone)
    fairness: Fairness = field(default_factory=Fairness)
    face_for: Callable[[bytes], Face | None] = lambda head: None

    def share(self) -> AbstractContextManager[Share]:
        """What the connection may take, as long as the block runs."""
        return self.fairness.connection(self.limits, self.peer)


@runtime_checkable
class Face(Protocol):
    """One language spoken on a port."""

    @property
    def name(self) -> str:
        """Name of the transport, as its peers see it."""
        ...

    def speaks(self, head: bytes) -> bool:
        """Whether a connection that begins, or goes on, with ``head`` is for this face.

        ``head`` holds the first bytes: all HTTP/1.1 header fields, or the preface of HTTP/2.
        """
        ...

    async def serve(self, stream: trio.abc.Stream, hosting: Hosting) -> None:
        """Answer one connection until it ends; the caller closes ``stream``, whose first bytes are ``head`` again.

        Raises nothing but cancellation and what a lost stream raises.
        """
        ...
