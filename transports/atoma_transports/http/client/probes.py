"""A request that does nothing: whether the server is there, whether it takes a token, and whose that is."""

from __future__ import annotations

from atoma.contracts.codec import decode, encode
from atoma.contracts.values import ErrorInfo
from atoma_transports.http.client.replies import check_type, read_body, refused
from atoma_transports.http.client.requests import Reply, Request
from atoma_transports.http.envelope import CANCEL, MSGPACK, PREFIX, Cancel, Done

PROBE_BYTES_MAX = 64 * 1024
PROBE = encode(Cancel("0" * 32, ()))


def new_probe(token: str | None = None) -> Request:
    """A request that does nothing: whether the server is there, and takes the token.

    It cancels no calls of no batch, which every hub answers at once.
    """
    return Request(PREFIX + CANCEL, PROBE, token=token)


async def read_probe(reply: Reply) -> Done | ErrorInfo:
    """Who the token of a probe belongs to, and what the server understands; or what it refuses the probe with.

    Raises:
        ChannelBroken: The connection was lost.
        ProtocolError: It is no hub.
    """
    if reply.status != 200:
        return await refused(reply)
    check_type(reply, MSGPACK)
    return decode(await read_body(reply, PROBE_BYTES_MAX), Done)
