"""What a request asks for, before its body is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import h11

from atoma.errors import ProtocolError
from atoma.ports import Peer
from atoma_transports.http.messages import HttpError
from atoma_transports.serving.handlers import Hosting
from atoma_transports.serving.head import HEAD_END, fields_by_name

METHODS = frozenset(("GET", "HEAD", "POST", "OPTIONS"))
TARGET_LENGTH_MAX = 8192
UPGRADE = b"upgrade"


@dataclass(frozen=True, slots=True)
class Asked:
    """The head of a request that may be answered.

    Attributes:
        method: ``GET``, ``HEAD``, ``POST`` or ``OPTIONS``.
        path: Decoded path, beginning with ``/``.
        query: The query as it came, without the question mark.
        fields: Header fields by lower-case name; the values of repeated ones with commas between them.
        peer: Who asks.
    """

    method: str
    path: str
    query: str
    fields: Mapping[str, str]
    peer: Peer

    @property
    def content_type(self) -> str:
        """Type of the body, without its parameters."""
        return self.fields.get("content-type", "").partition(";")[0].strip().lower()


def read_head(head: h11.Request, hosting: Hosting) -> Asked:
    """``head`` as it is used here.

    Raises:
        HttpError: It is for another server, or for something that is not spoken here.
    """
    if head.http_version not in (b"1.0", b"1.1"):
        raise HttpError(505, "HTTP/1.1 is spoken here")
    try:
        fields = fields_by_name(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers.raw_items()]
        )
    except ProtocolError as error:
        raise HttpError(400, str(error)) from None
    if "content-length" in fields and "transfer-encoding" in fields:  # which a proxy on the way may read otherwise
        raise HttpError(400, "a body has one length")
    if not hosting.known_host(fields.get("host", "")):
        raise HttpError(421, "this server is not known by that host name; open_server(names=[…]) adds it")
    method = head.method.decode("latin-1")
    if method not in METHODS:
        raise HttpError(405, f"the method {method} is not supported here")
    if asks_for_websocket(head):
        raise HttpError(403, "a WebSocket is not accepted at this path, or from another site")
    target = head.target.decode("latin-1")
    if len(target) > TARGET_LENGTH_MAX:
        raise HttpError(414, f"an address may have at most {TARGET_LENGTH_MAX} characters")
    if target.startswith("/") and not target.startswith("//"):
        path, _, query = target.partition("#")[0].partition("?")
    else:
        try:
            parts = urlsplit(target)
        except ValueError:
            raise HttpError(400, "the request line names no place") from None
        path, query = parts.path, parts.query
    peer = hosting.origins.of(hosting.peer, fields)
    return Asked(method, unquote(path) if "%" in path else path, query, fields, peer)


def asks_for_websocket(head: h11.Request) -> bool:
    """Whether the client would rather go on in frames."""
    for name, value in head.headers.raw_items():
        if len(name) == len(UPGRADE) and name.lower() == UPGRADE and value.lower() == b"websocket":
            return True
    return False


def head_bytes(head: h11.Request) -> bytes:
    """``head`` as it came."""
    lines = [b" ".join((head.method, head.target, b"HTTP/" + head.http_version))]
    lines += (name + b": " + value for name, value in head.headers.raw_items())
    return b"\r\n".join(lines) + HEAD_END
