"""Which pages may call a server: its own, and those of sites that are named (CORS, WHATWG Fetch §3.3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias
from urllib.parse import urlsplit

from atoma.contracts.checks import is_a
from atoma.errors import ConfigurationError
from atoma_transports.serving.head import same_site

Fields: TypeAlias = list[tuple[bytes, bytes]]
OWN_PAGES = frozenset(("same-origin", "none"))
SHOWN_FIELDS = b"retry-after, www-authenticate"
PREFLIGHT_S = 600


class Sites:
    """The other sites whose pages may call this server; none by default.

    A page acts behind its user's back, with whatever rights this machine gives to its programs: so no site is let in that is not
    named, and none ever gets cookies.

    Args:
        origins: As browsers send them: ``"https://app.example.org"``, with a port where it is not the usual one.

    Raises:
        ConfigurationError: One of them is no origin.
    """

    def __init__(self, origins: Collection[str] = ()) -> None:
        if is_a(origins, str):
            raise ConfigurationError(f"origins= must be a list of origins: origins=[{origins!r}]")
        for origin in origins:
            _check(origin)
        self._origins = frozenset(origins)

    def __bool__(self) -> bool:
        return bool(self._origins)

    def takes(self, fields: Mapping[str, str]) -> bool:
        """Whether a page that wants a WebSocket is one of this site, or of those that are named, or there is none."""
        return self.names(fields) or same_site(fields)

    def admits(self, fields: Mapping[str, str]) -> bool:
        """Whether a request was made by a page of this site, or of those that are named, or by none."""
        if self.names(fields):
            return True
        return same_site(fields) and fields.get("sec-fetch-site", "none") in OWN_PAGES

    def names(self, fields: Mapping[str, str]) -> bool:
        """Whether a request is from a page of a site that is named."""
        return fields.get("origin", "") in self._origins

    def answered(self, fields: Mapping[str, str]) -> Fields:
        """What an answer tells the browser of such a page, so that it may read it."""
        if not self._origins:
            return []
        vary = (b"vary", b"origin")
        if not self.names(fields):
            return [vary]
        origin = fields["origin"].encode("latin-1")
        return [vary, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", SHOWN_FIELDS)]

    def preflight(self, fields: Mapping[str, str], takes: Collection[str]) -> Fields | None:
        """What a browser is told that asks before it sends a request, with which fields it may; None when it is told nothing."""
        if not self.names(fields) or "access-control-request-method" not in fields:
            return None
        return [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", ", ".join(takes).encode()),
            (b"access-control-max-age", b"%d" % PREFLIGHT_S),
        ]


def _check(origin: object) -> None:
    """Raise ``ConfigurationError`` unless ``origin`` is one as browsers send it."""
    if isinstance(origin, str):
        try:
            parts = urlsplit(origin)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        usual = {"http": 80, "https": 443}.get(parts.scheme)
        text = f"{parts.scheme}://{host}" + ("" if port in (None, usual) else f":{port}")
        if usual is not None and host and origin == text:
            return
    raise ConfigurationError(
        f"origins= takes origins as browsers send them, such as 'https://app.example.org' or 'http://localhost:5173', without a path; not {origin!r}"
    )
