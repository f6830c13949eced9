"""Who a connection belongs to, and until when."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, AuthenticationError
from atoma.ports import Peer, ServiceHost
from atoma.ports.service import understood_by
from atoma.ports.sessions import Session, begin_session
from atoma_transports._channel.codes import info_of
from atoma_transports._channel.frames import Auth, Frame, Welcome, decode_frame, encode_frame
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.pipe import LOST, MessagePipe, allow, explain_close


def welcome(session: Session, limits: ChannelLimits, host: ServiceHost) -> bytes:
    """The payload that tells the client about its session."""
    expires_in = None if math.isinf(session.expires_at) else max(0.0, session.expires_at - trio.current_time())
    subject = session.principal.subject
    return encode(Welcome(subject, limits.frame_bytes, limits.calls, expires_in, understood_by(host)))


async def session_for(frame: Frame, host: ServiceHost, peer: Peer) -> Session | ErrorInfo:
    """What the token in ``frame`` brings: a session, or why there is none."""
    try:
        return await begin_session(decode(frame.payload, Auth).token, host, peer)
    except AtomaError as error:
        return info_of(error)


async def first_session(
    pipe: MessagePipe, host: ServiceHost, peer: Peer, limits: ChannelLimits, accept: Callable[[str], None]
) -> Session | None:
    """The session of whoever is at the other end, who has been greeted; None when they may not come in.

    ``accept`` is called with their subject before they are greeted, and may refuse them by an error.
    """
    found: Session | ErrorInfo = refusal("UNAUTHENTICATED", f"no token came within {limits.handshake_s:g} s")
    greeted = False
    try:
        with trio.move_on_after(limits.handshake_s):
            frame = decode_frame(await pipe.receive(), limits.first_frame_bytes)
            if frame.kind != "auth":
                raise AuthenticationError("the first frame has to be 'auth'")
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
        refused = found if isinstance(found, ErrorInfo) else refusal("TIMEOUT", "the welcome was not taken in time")
    finally:
        if isinstance(found, Session) and not greeted:
            found.close()
    explain_close(pipe, refused)
    with trio.move_on_after(limits.close_s):
        await pipe.send(encode_frame("error", payload=encode(refused)))
    return None
