"""What an ASGI server and an application say to each other, as far as it is needed here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TypeAlias, cast

from atoma_transports.serving.sites import Sites

Message: TypeAlias = MutableMapping[str, object]
Scope: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

GOING_AWAY = 1001
REFUSED = 1008
TRY_LATER = 1013


def header(scope: Scope, name: str) -> str:
    """A header field of the request, ``""`` when it has none."""
    fields = cast("Iterable[tuple[bytes, bytes]]", scope.get("headers") or ())
    return next((value.decode("latin-1") for key, value in fields if key.lower() == name.encode()), "")


def client_address(scope: Scope) -> str:
    """The address that the server names as the client's."""
    client = cast("tuple[str, int] | None", scope.get("client"))
    return client[0] if client else "unknown"


def may_ask(scope: Scope, sites: Sites) -> bool:
    """Whether a request comes from no page at all, a page of this site, or one of ``sites``."""
    origin = header(scope, "origin")
    return not origin or sites.takes({"origin": origin, "host": header(scope, "host")})


async def respond(send: Send, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
    """Answer an HTTP request with one piece."""
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(scope: Scope, send: Send, status: int, reason: str, code: int = REFUSED) -> None:
    """Refuse a request before anything has been done for it."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": code, "reason": reason})
    else:
        await respond(send, status, reason.encode())


async def until_gone(receive: Receive) -> None:
    """Return when the other side has gone; what it says until then is not listened to."""
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass
