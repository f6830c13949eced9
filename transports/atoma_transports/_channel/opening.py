"""From a pipe to a channel: the first frames of a client, and a new token before the old one expires."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from atoma.concurrency.backoff import Backoff
from atoma.contracts.codec import decode, encode
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ChannelBroken, ConnectFailed, ProtocolError, RemoteError
from atoma.ports.tasks import open_tasks
from atoma_transports._channel.client import FrameChannel
from atoma_transports._channel.codes import error_of
from atoma_transports._channel.frames import Auth, Welcome, decode_frame, encode_frame, read_welcome
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.methods import MethodTable
from atoma_transports._channel.pipe import LOST, MessagePipe, allow, close_pipe

logger = logging.getLogger("atoma.transports")

EARLY = 0.25  # of the time a token is good, the last part in which a new one is asked for …
EARLY_S_MAX = 60.0  # … but no longer than this
PAUSES = Backoff(0.25, max_s=30.0, jitter=0)  # tokens do not expire in step

Ask = Callable[[], Awaitable[str]]


def early_s(expires_in: float) -> float:
    """Seconds before its end at which a token that is good for ``expires_in`` is replaced."""
    return min(expires_in * EARLY, EARLY_S_MAX)


async def keep_token(channel: FrameChannel, ask: Ask, expires_in: float | None, limits: ChannelLimits) -> None:
    """Ask for a new token whenever the old one is about to expire; never raises, ends with the connection.

    A failure is tried again with growing pauses, also for a while after the end: the server waits a little before it
    closes the connection.
    """
    while expires_in is not None:
        await trio.sleep(max(PAUSES.initial_s, expires_in - early_s(expires_in)))
        for tries in itertools.count(1):
            if not channel.is_open:
                return
            try:
                with trio.fail_after(limits.handshake_s):
                    expires_in = (await channel.renew(await ask())).expires_in
                break
            except (AtomaError, trio.TooSlowError) as error:
                pause_s = PAUSES.bound(tries)
                logger.warning("a new token could not be brought, the next attempt is in %g s: %s", pause_s, error)
            await trio.sleep(pause_s)


async def _shake_hands(pipe: MessagePipe, token: str, limits: ChannelLimits) -> Welcome:
    await pipe.send(encode_frame("auth", payload=encode(Auth(token))))
    frame = decode_frame(await pipe.receive(), limits.frame_bytes)
    if frame.kind == "error":
        raise error_of(decode(frame.payload, ErrorInfo))
    if frame.kind != "welcome":
        raise ProtocolError(f"expected 'welcome', got {frame.kind!r}; is this an Atoma hub?", maybe_sent=False)
    return read_welcome(frame.payload)


async def _greeted(pipe: MessagePipe, token: str, limits: ChannelLimits) -> Welcome:
    try:
        with trio.fail_after(limits.handshake_s):
            return await _shake_hands(pipe, token, limits)
    except trio.TooSlowError:
        raise ConnectFailed(f"the other side did not greet within {limits.handshake_s:g} s") from None
    except LOST:
        raise ConnectFailed("the other side hung up before it had greeted") from None
    except RemoteError as error:
        raise ConnectFailed(f"the other side does not take connections now ({error})") from None


@asynccontextmanager
async def open_channel(
    pipe: MessagePipe, methods: MethodTable, *, ask: Ask, renews: bool, limits: ChannelLimits
) -> AsyncGenerator[FrameChannel]:
    """Authenticate over ``pipe`` and carry calls over it inside the block; the pipe is closed at the end.

    Args:
        pipe: The road to the server.
        methods: What can be called.
        ask: Gives the token.
        renews: Whether ``ask`` gives another token when this one is about to expire.
        limits: Bounds of the connection.

    Raises:
        AuthenticationError: The other side refused the token, or ``ask`` did not give one.
        ConnectFailed: The other side did not answer within ``limits.handshake_s``, or hung up.
        ProtocolError: The other side speaks something else.
    """
    try:
        welcome = await _greeted(pipe, await ask(), limits)
        allow(pipe, limits.frame_bytes)
        channel = FrameChannel(pipe, methods, welcome, limits)
        async with open_tasks() as nursery:
            nursery.start_soon(channel.run)
            if renews and welcome.expires_in is not None:
                nursery.start_soon(keep_token, channel, ask, welcome.expires_in, limits)
            try:
                yield channel
            finally:
                channel.fail(ChannelBroken("the connection is closed"))
                nursery.cancel_scope.cancel()
    finally:
        await close_pipe(pipe, limits.close_s)
