"""Answers of the protocol: what they look like over HTTP."""

from __future__ import annotations

from atoma.codes import OF_HTTP, row
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma_transports.http.envelope import AS_JSON, Encoding, Failure
from atoma_transports.http.gzip import LEAST_BYTES, compressed
from atoma_transports.http.wire import Fields, ServerWire

COMMON = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class RefusedRequest(Exception):
    """A request that is answered with an error."""

    def __init__(self, info: ErrorInfo, status: int = 0, fields: Fields | None = None) -> None:
        super().__init__(info.code)
        self.info = info
        self.status = status or row(info.code).http
        self.fields = fields or []


def refused(status: int, message: str, fields: Fields | None = None) -> RefusedRequest:
    """What is wrong with a request as such."""
    return RefusedRequest(refusal(OF_HTTP.get(status, "MALFORMED"), message), status, fields)


def fields_of(encoding: Encoding, body: bytes) -> list[tuple[bytes, bytes]]:
    """Header fields of an answer with ``body``."""
    return [
        (b"content-type", encoding.content_type.encode()),
        (b"content-length", b"%d" % len(body)),
        *COMMON,
    ]


async def send_answer(wire: ServerWire, encoding: Encoding, body: bytes) -> None:
    """Answer the request in hand; what is long is compressed for whoever takes that.

    Raises:
        Gone: The client has left.
    """
    if len(body) < LEAST_BYTES:
        return await wire.send(200, fields_of(encoding, body), body)
    also = [(b"vary", b"accept-encoding")]
    if wire.takes_gzip:
        body = await compressed(body, wire.share)
        also.append((b"content-encoding", b"gzip"))
    return await wire.send(200, [*fields_of(encoding, body), *also], body)


def failure(error: RefusedRequest, encoding: Encoding | None) -> tuple[int, Fields, bytes]:
    """Status, fields and body of an answer that is an error."""
    encoding = encoding or AS_JSON
    try:
        body = encoding.encode(Failure(error.info))
    except (UnicodeError, ProtocolError):  # a text of somebody else's that is not Unicode
        body = encoding.encode(Failure(refusal("INTERNAL", "the server failed to answer; its log says why")))
    fields = [*fields_of(encoding, body), *error.fields]
    if error.status == 401:
        fields.append((b"www-authenticate", b"Bearer"))
    if error.info.retry_after_ms:
        fields.append((b"retry-after", b"%d" % -(-error.info.retry_after_ms // 1000)))
    return error.status, fields, body
