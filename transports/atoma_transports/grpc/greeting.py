"""The first call of a client: is the token good, and what are the server's bounds?

The other transports say this when they connect. gRPC has a connection before anybody has said who they are.
"""

from __future__ import annotations

import msgspec

from atoma.contracts.understood import Understood


class HelloRequest(msgspec.Struct, frozen=True):
    """Asks; the token is in the call's metadata, as in every call."""


class HelloReply(msgspec.Struct, frozen=True):
    """Answers.

    Attributes:
        principal: Who the token belongs to.
        message_bytes: Largest message that the server takes or sends.
        calls: Calls and streams in flight that it takes on one connection.
        expires_in_ms: Milliseconds for which the token is still good; None for ever.
        queries: What the server understands of queries.
    """

    principal: str
    message_bytes: int
    calls: int
    expires_in_ms: int | None = None
    queries: Understood = Understood()
