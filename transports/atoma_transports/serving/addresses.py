"""Addresses to listen on, names to be asked for under, and where a request comes from when there are proxies on the way."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import urlsplit

from atoma.errors import ConfigurationError
from atoma.ports import Peer
from atoma_transports.dialing.addresses import is_loopback

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
    if not host or port is None or any(letter in address for letter in "/?#@ "):
        raise ConfigurationError(
            f"{address!r} is not an address to listen on; write host:port, for example 127.0.0.1:8765"
        )
    return host, port


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
        raise ConfigurationError(f"names must be a list of host names: names=[{names!r}]")
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


IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

BELIEVED = "x-forwarded-for"
"""The one field that a declared proxy is believed in. It passes the others on as it got them, from anybody."""
FORWARDING = (BELIEVED, "forwarded", "x-real-ip", "via")
"""Fields that proxies add: a request that has one of them was made by somebody else than who is connected."""
HOPS_MAX = 16
_FORWARDING = frozenset(FORWARDING)


class Origins:
    """A finder of who made a request.

    Whoever is connected from this machine counts as this machine only when nothing says that it speaks for others: it
    is not a declared proxy, and its request has none of the fields that proxies add.

    Args:
        trusted_proxies: Addresses and networks, ``"10.0.0.7"`` or ``"10.0.0.0/24"``, whose ``X-Forwarded-For`` is true.

    Raises:
        ConfigurationError: One of them is neither.
    """

    def __init__(self, trusted_proxies: Collection[str] = ()) -> None:
        if isinstance(trusted_proxies, str):
            raise ConfigurationError(
                f"trusted_proxies must be a list of addresses: trusted_proxies=[{trusted_proxies!r}]"
            )
        self._trusted = tuple(map(_network, trusted_proxies))

    def connected(self, address: str, transport: str) -> Peer:
        """The other end of a connection from ``address``."""
        return Peer(address, is_loopback(address) and not self.is_proxy(address), transport)

    def of(self, connected: Peer, fields: Mapping[str, str]) -> Peer:
        """Who made the request with these header fields, named in lower case, on the connection of ``connected``."""
        if _FORWARDING.isdisjoint(fields):
            return connected
        address = connected.address
        if BELIEVED in fields and self.is_proxy(address):
            address = self._first_stranger(fields[BELIEVED], address)
        return replace(connected, address=address, loopback=False)

    def is_proxy(self, address: str) -> bool:
        """Whether it was declared that a proxy is at ``address``."""
        if not self._trusted:
            return False
        found = _address(address)
        return found is not None and any(found in network for network in self._trusted)

    def _first_stranger(self, hops: str, address: str) -> str:
        """The last address of the list that does not belong to a declared proxy: each proxy adds the one that called it.

        What stands before that was written by the stranger, who may write anything. Where the list cannot be read on,
        the last proxy that could be is all that is known.
        """
        for hop in reversed(hops.rsplit(",", HOPS_MAX)):
            found = _address(_without_port(hop.strip()))
            if found is None:
                break
            address = str(found)
            if not self.is_proxy(address):
                break
        return address


def _network(text: str) -> IpNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"trusted_proxies must hold addresses and networks, such as '10.0.0.7' or '10.0.0.0/24', not {text!r} ({error})"
        ) from None


def _address(text: str) -> IpAddress | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return found if isinstance(found, ipaddress.IPv4Address) else found.ipv4_mapped or found


def _without_port(hop: str) -> str:
    """``hop``, of which some proxies add the port: ``192.0.2.1:4711``, ``[2001:db8::1]:4711``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
