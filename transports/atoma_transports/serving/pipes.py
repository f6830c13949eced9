"""One connection, whatever carries its messages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import trio

from atoma.ports import Peer, ServiceHost
from atoma_transports._channel.fairness import Fairness, Share
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.pipe import MessagePipe
from atoma_transports._channel.server import serve_connection
from atoma_transports.serving.calls import SERVED


async def serve_pipe(
    pipe: MessagePipe,
    host: ServiceHost,
    peer: Peer,
    *,
    limits: ChannelLimits | None = None,
    drain: trio.Event | None = None,
    accept: Callable[[], None] = lambda: None,
    fairness: Fairness | None = None,
    share: Share | None = None,
) -> None:
    """Answer one connection until it ends; takes the pipe over and closes it.

    Args:
        pipe: The road to the client.
        host: Authenticates, and hands out the service.
        peer: Where the connection comes from.
        limits: Bounds of the connection.
        drain: Once set, calls in flight are finished, new ones refused with ``UNAVAILABLE``, then this returns.
        accept: Called when the token is good, before the client is told; a ``RemoteError`` that it raises is what the
            client is told instead.
        fairness: What principals have once, over several connections.
        share: What this one may take, where the pipe counts what comes.

    Cancelling stops every handler of the connection and closes it.
    """
    limits = limits or ChannelLimits()
    fairness = fairness or Fairness()
    own = fairness.connection(limits, peer) if share is None else nullcontext(share)
    with own as taken:
        await serve_connection(
            pipe,
            SERVED,
            host,
            peer,
            limits=limits,
            drain=trio.Event() if drain is None else drain,
            accept=accept,
            share=taken,
            counted=share is not None,
        )
