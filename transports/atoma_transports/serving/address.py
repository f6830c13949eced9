"""Addresses to listen on, and the names under which they may be asked for."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection
from functools import lru_cache
from urllib.parse import urlsplit

from atoma.errors import ConfigurationError

PORT_MAX = 65535
NAMES_KEPT = 256
NAME_LENGTH_MAX = 300


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of ``"127.0.0.1:8765"`` or ``"[::1]:8765"``; port 0 takes a free one.

    Raises:
        ConfigurationError: It is neither.
    """
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts_extra(address):
        raise ConfigurationError(f"{address!r} is no address to listen on; write host:port, for example 127.0.0.1:8765")
    return host, port


def parts_extra(address: str) -> bool:
    """Whether there is more in ``address`` than host and port."""
    return any(letter in address for letter in "/?#@ ")


def format_address(host: str, port: int) -> str:
    """The text for ``host`` and ``port``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_name(field: str) -> str:
    """The host of a ``Host`` field without its port; empty when it is none."""
    try:
        return urlsplit(f"//{field}").hostname or ""
    except ValueError:
        return ""


def host_check(names: Collection[str]) -> Callable[[str], bool]:
    """Whether a ``Host`` field may be answered: an IP address, ``localhost``, or one of ``names``.

    Pages of other sites can make a browser call this machine under a name of theirs (DNS rebinding), but not under
    an address or a name they do not own.
    """
    if isinstance(names, str):
        raise ConfigurationError(f"names is a list of host names, names=[{names!r}]")
    own = {"localhost", *(name.lower() for name in names)}

    @lru_cache(NAMES_KEPT)
    def known(field: str) -> bool:
        name = host_name(field)
        if name in own:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    return lambda field: len(field) <= NAME_LENGTH_MAX and known(field)
