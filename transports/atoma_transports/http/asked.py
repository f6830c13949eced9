"""What a request asks for, before its body is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import h11

from atoma_transports.http.messages import HttpError
from atoma_transports.serving.face import Hosting
from atoma_transports.serving.head import same_site

METHODS = frozenset(("GET", "HEAD", "POST"))
OWN_PAGES = frozenset(("same-origin", "none"))


@dataclass(frozen=True, slots=True)
class Asked:
    """The head of a request that may be answered.

    Attributes:
        method: ``GET``, ``HEAD`` or ``POST``.
        path: Decoded path, beginning with ``/``.
        query: The query as it came, without the question mark.
        fields: Header fields by lower-case name; of repeated ones the last.
    """

    method: str
    path: str
    query: str
    fields: Mapping[str, str]

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
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    if "content-length" in fields and "transfer-encoding" in fields:  # which a proxy on the way may read otherwise
        raise HttpError(400, "a body has one length")
    if not hosting.known_host(fields.get("host", "")):
        raise HttpError(421, "this server is not known under that name")
    method = head.method.decode("latin-1")
    if method not in METHODS:
        raise HttpError(405, f"{method} is not answered here")
    if fields.get("upgrade", "").lower() == "websocket":
        raise HttpError(403, "a WebSocket is not taken under this path, or from another site")
    target = head.target.decode("latin-1")
    if target.startswith("/") and not target.startswith("//"):
        path, _, query = target.partition("#")[0].partition("?")
    else:
        try:
            parts = urlsplit(target)
        except ValueError:
            raise HttpError(400, "the request line names no place") from None
        path, query = parts.path, parts.query
    return Asked(method, unquote(path) if "%" in path else path, query, fields)


def from_own_page(asked: Asked) -> bool:
    """Whether a request was made by a page of this server, or by no page.

    Pages of other sites act behind the user's back, with whatever rights this machine gives to its programs.
    """
    return same_site(asked.fields) and asked.fields.get("sec-fetch-site", "none") in OWN_PAGES
