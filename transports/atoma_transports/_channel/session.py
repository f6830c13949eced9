"""Who a connection belongs to, and until when."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import trio

from atoma.contracts.checks import is_a
from atoma.contracts.codec import decode, encode
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, AuthenticationError, ConfigurationError, RemoteError, TokenExpired
from atoma.ports import Peer, Principal, ServiceHost, SyncService
from atoma.ports.tasks import leaves, single_error
from atoma_transports._channel.codes import info_of
from atoma_transports._channel.frames import Auth, Frame, Welcome, decode_frame, encode_frame
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.pipe import LOST, MessagePipe, allow, explain_close

logger = logging.getLogger("atoma.transports")


@dataclass(frozen=True, slots=True)
class Session:
    """What a good token brings.

    Attributes:
        principal: Who it is.
        service: The service as they may use it.
        expires_at: When, on Trio's clock, the token stops being good; ``math.inf`` for never.
    """

    principal: Principal
    service: SyncService
    expires_at: float

    def expired(self) -> bool:
        """Whether the token is not good any more."""
        return trio.current_time() >= self.expires_at

    def welcome(self, limits: ChannelLimits) -> bytes:
        """The payload that tells the client about it."""
        expires_in = None if math.isinf(self.expires_at) else max(0.0, self.expires_at - trio.current_time())
        return encode(Welcome(self.principal.subject, limits.frame_bytes, limits.calls, expires_in))


async def begin_session(token: str, host: ServiceHost, peer: Peer) -> Session:
    """What ``token`` brings.

    Raises:
        AuthenticationError: It is missing, wrong or expired.
        RemoteError: The verifier failed, which is logged and ends nothing but this attempt.
    """
    began = trio.current_time()
    principal = await _verified(token, host, peer)
    span = math.inf if principal.expires_in_s is None else principal.expires_in_s
    if span <= 0:
        raise TokenExpired("the token has expired")
    return Session(principal, host.service(principal), began + span)


@trio.lowlevel.enable_ki_protection  # so that an interrupt from the keyboard is not raised in here, and lost
async def _verified(token: str, host: ServiceHost, peer: Peer) -> Principal:
    """Who the verifier says it is; whatever else it raises is a fault of its own, and no end of the server."""
    try:
        principal = await host.authenticate(token, peer)
        if not is_a(principal, Principal):
            raise ConfigurationError(f"a verifier returns a Principal, not {principal!r}")
        return principal
    except (trio.Cancelled, GeneratorExit):
        raise
    except BaseException as error:
        cancelled = [leaf for leaf in leaves(error) if isinstance(leaf, trio.Cancelled)]
        if cancelled:
            raise cancelled[0] from None
        cause = single_error(error)
        if isinstance(cause, AtomaError) and not isinstance(cause, ConfigurationError):
            raise cause from None
        logger.error("the verifier failed for a connection from %s", peer.address, exc_info=cause)
    raise RemoteError("the server failed to authenticate; its log says why", remote_code="INTERNAL")


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
    with trio.move_on_after(limits.handshake_s):
        try:
            frame = decode_frame(await pipe.receive(), limits.first_frame_bytes)
            if frame.kind != "auth":
                raise AuthenticationError("the first frame has to be 'auth'")
            found = await session_for(frame, host, peer)
            if isinstance(found, Session):
                accept(found.principal.subject)
                allow(pipe, limits.frame_bytes)
                await pipe.send(encode_frame("welcome", frame.id, found.welcome(limits)))
                return found
        except AtomaError as error:
            found = info_of(error)
        except LOST:
            return None
    if isinstance(found, ErrorInfo):
        explain_close(pipe, found)
        with trio.move_on_after(limits.close_s):
            await pipe.send(encode_frame("error", payload=encode(found)))
    return None
