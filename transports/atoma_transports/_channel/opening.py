"""From a pipe to a channel: the first frames of a client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.values import ErrorInfo
from atoma.errors import ChannelBroken, ConnectFailed, ProtocolError, RemoteError
from atoma.ports.tasks import open_tasks
from atoma_transports._channel.client import FrameChannel
from atoma_transports._channel.codes import error_of
from atoma_transports._channel.frames import Auth, Welcome, decode_frame, encode_frame, read_welcome
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.methods import MethodTable
from atoma_transports._channel.pipe import LOST, MessagePipe, allow, close_pipe
from atoma_transports._channel.renewal import Ask, keep_token


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
