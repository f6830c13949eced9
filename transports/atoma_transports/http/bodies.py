"""Bodies of requests as they are meant."""

from __future__ import annotations

from atoma_transports.http.asked import Asked
from atoma_transports.http.gzip import GZIP, inflated
from atoma_transports.http.messages import HttpError
from atoma_transports.http.wire import ServerWire


async def whole_body(wire: ServerWire, asked: Asked, most: int) -> bytes:
    """The body of the request in hand, of at most ``most`` bytes, inflated where it came compressed.

    Raises:
        HttpError: It is larger, inflated or not (413), takes too long to arrive (408), is encoded in another way than by gzip (415),
            or is not what it says (400).
        Gone: The client has left in the middle of it.
    """
    encoding = asked.fields.get("content-encoding", "identity").strip().lower()
    if encoding not in (GZIP, "identity"):
        raise HttpError(415, "a body comes as it is, or with Content-Encoding: gzip")
    body = await wire.body(most)
    return body if encoding == "identity" else await inflated(body, most, wire.share)
