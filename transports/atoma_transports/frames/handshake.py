"""The first frames of a connection, seen from either end; and the renewal of tokens before they expire."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from atoma.concurrency.backoff import Backoff
from atoma.contracts.codec import decode, encode
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, AuthenticationError, ChannelBroken, ConnectFailed, ProtocolError, RemoteError
from atoma.ports import Peer, ServiceHost
from atoma.ports.service import understood_by
from atoma.ports.sessions import Session, begin_session
from atoma.ports.tasks import open_tasks
from atoma_transports.calls.errors import UNVERIFIED, error_of, info_of
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.dialing.credentials import Token, ask_for
from atoma_transports.frames.client import FrameChannel
from atoma_transports.frames.envelope import Auth, Frame, Welcome, decode_frame, encode_frame, read_welcome
from atoma_transports.frames.pipe import LOST, MessagePipe, allow, close_pipe, explain_close

logger = logging.getLogger("atoma.transports")

EARLY = 0.25  # the last part of a token's lifetime, in which a new one is requested …
EARLY_S_MAX = 60.0  # … but no longer than this
PAUSES = Backoff(0.25, max_s=30.0, jitter=0)  # tokens do not expire in step

AskToken = Callable[[], Awaitable[str]]


def early_s(expires_in: float) -> float:
    """Return how many seconds before its end a token that is valid for ``expires_in`` is replaced."""
    return min(expires_in * EARLY, EARLY_S_MAX)


async def keep_token(channel: FrameChannel, ask: AskToken, expires_in: float | None, limits: ChannelLimits) -> None:
    """Request a new token whenever the old one is about to expire; never raises, and returns when the connection ends.

    After a failure it tries again with growing pauses, even for a while after the expiry, as the server waits a little
    before it closes the connection.
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
                logger.warning("a new token could not be obtained; the next attempt is in %g s: %s", pause_s, error)
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
        raise ConnectFailed(f"the other side sent no greeting within {limits.handshake_s:g} s") from None
    except LOST:
        raise ConnectFailed("the other side closed the connection before its greeting") from None
    except RemoteError as error:
        raise ConnectFailed(f"the other side accepts no connections at the moment ({error})") from None


@asynccontextmanager
async def open_channel(
    pipe: MessagePipe, *, token: Token = "", limits: ChannelLimits | None = None
) -> AsyncGenerator[FrameChannel]:
    """Authenticate over ``pipe`` and make calls over it inside the block; takes the pipe over and closes it.

    A transport that moves whole messages needs to call nothing else.

    Args:
        pipe: The message pipe to the server.
        token: Sent in the first frame, never in an address. A function is called again before the token expires, and
            the connection continues with the new one.
        limits: Limits of the connection.

    Raises:
        AuthenticationError: The server refused the token, or the function returned none.
        ConnectFailed: The server did not answer within ``limits.handshake_s``, or closed the connection.
        ProtocolError: The server speaks another protocol.
    """
    limits = limits or ChannelLimits()
    ask = partial(ask_for, token)
    try:
        welcome = await _greeted(pipe, await ask(), limits)
        allow(pipe, limits.frame_bytes)
        channel = FrameChannel(pipe, welcome, limits)
        async with open_tasks() as nursery:
            nursery.start_soon(channel.run)
            if not isinstance(token, str) and welcome.expires_in is not None:
                nursery.start_soon(keep_token, channel, ask, welcome.expires_in, limits)
            try:
                yield channel
            finally:
                channel.fail(ChannelBroken("the connection is closed"))
                nursery.cancel_scope.cancel()
    finally:
        await close_pipe(pipe, limits.close_s)


def welcome(session: Session, limits: ChannelLimits, host: ServiceHost) -> bytes:
    """Return the payload that describes a session to its client."""
    expires_in = None if math.isinf(session.expires_at) else max(0.0, session.expires_at - trio.current_time())
    subject = session.principal.subject
    return encode(Welcome(subject, limits.frame_bytes, limits.calls, expires_in, understood_by(host)))


async def session_for(frame: Frame, host: ServiceHost, peer: Peer) -> Session | ErrorInfo:
    """Return the session that the token in ``frame`` opens, or the reason why there is none."""
    try:
        return await begin_session(decode(frame.payload, Auth).token, host, peer)
    except AtomaError as error:
        return info_of(error)


async def first_session(
    pipe: MessagePipe, host: ServiceHost, peer: Peer, limits: ChannelLimits, accept: Callable[[str], None]
) -> Session | None:
    """Return the session of the client at the other end once it has been welcomed; None if it is refused.

    ``accept`` is called with the subject before the welcome is sent, and may refuse the client by raising an error.
    """
    found: Session | ErrorInfo = refusal("UNAUTHENTICATED", f"no token came within {limits.handshake_s:g} s")
    greeted = False
    try:
        with trio.move_on_after(limits.handshake_s):
            frame = decode_frame(await pipe.receive(), limits.first_frame_bytes)
            if frame.kind != "auth":
                raise AuthenticationError("the first frame has to be 'auth'")
            found = UNVERIFIED  # replaced if the verifier finishes in time
            found = await session_for(frame, host, peer)
            if isinstance(found, Session):
                accept(found.principal.subject)
                allow(pipe, limits.frame_bytes)
                await pipe.send(encode_frame("welcome", frame.id, welcome(found, limits, host)))
                greeted = True
                return found
    except AtomaError as error:
        refused = info_of(error)
    except LOST:
        return None
    else:
        refused = found if isinstance(found, ErrorInfo) else refusal("TIMEOUT", "the greeting was not read in time")
    finally:
        if isinstance(found, Session) and not greeted:
            found.close()
    explain_close(pipe, refused)
    with trio.move_on_after(limits.close_s):
        await pipe.send(encode_frame("error", payload=encode(refused)))
    return None
