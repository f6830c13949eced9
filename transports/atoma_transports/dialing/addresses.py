"""Addresses of hubs, checked in the same way for every transport over sockets; and why one could not be reached."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from atoma.contracts.checks import is_a
from atoma.errors import ConfigurationError
from atoma.ports.tasks import leaves


@dataclass(frozen=True, slots=True)
class Language:
    """The way in which addresses of one transport are written.

    Attributes:
        name: The transport's name for users, with its article: ``"a gRPC"``.
        plain: Schemes for plain text, with their ports; messages recommend the first one.
        secure: Schemes for TLS, with their ports; messages recommend the first one.
        example: An example of an address, for messages.
        paths: Whether an address may name a path.
    """

    name: str
    plain: Mapping[str, int]
    secure: Mapping[str, int]
    example: str
    paths: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """The place where a hub is.

    Attributes:
        parts: The address, taken apart.
        host: The host name in ASCII, or the IP address without brackets.
        port: The port; that of the scheme if the address names none.
        secure: Whether TLS is used.
    """

    parts: SplitResult
    host: str
    port: int
    secure: bool

    @property
    def authority(self) -> str:
        """``host:port``, the host in brackets if it is an IPv6 address."""
        return authority_of(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy through which a hub is reached.

    Attributes:
        address: The address of the proxy.
        user: The user name for the proxy; None if it needs none.
        password: The password of that user.
    """

    address: Address
    user: str | None = None
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """``scheme://host:port``, without the user."""
        return f"{self.address.parts.scheme}://{self.address.authority}"


def check_address(text: str, language: Language, *, insecure: bool, has_context: bool) -> Address:
    """Return ``text`` as an address.

    Raises:
        ConfigurationError: It is not an address, holds a user or a query, or would send plain text to another machine.
    """
    ports = {**language.plain, **language.secure}
    parts, port = _split(text)
    if parts.scheme not in ports or not parts.hostname or port == -1 or not (language.paths or parts.path in ("", "/")):
        raise ConfigurationError(f"{text!r} is not {language.name} address; write {language.example}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(f"{language.name} address must not hold a user or a query: pass the token as token=…")
    secure = parts.scheme in language.secure
    recommended = next(iter(language.secure))
    if not secure and has_context:
        raise ConfigurationError(f"ssl_context is for {recommended}:// addresses only")
    if not secure and not insecure and not is_loopback(parts.hostname):
        raise ConfigurationError(
            f"{text!r} would send the token and the data in plain text to another machine: "
            f"use {recommended}://, or insecure=True on a network that you trust"
        )
    return Address(parts, _in_ascii(parts.hostname, text), port or ports[parts.scheme], secure)


def check_proxy(text: str) -> Proxy | None:
    """Return the proxy that ``text`` names; None if it is empty.

    Raises:
        ConfigurationError: It is not the address of a proxy.
    """
    if not text:
        return None
    ports = {"http": 80, "https": 443}
    parts, port = _split(text)
    if parts.scheme not in ports or not parts.hostname or port == -1 or parts.query or parts.path not in ("", "/"):
        raise ConfigurationError("proxy must be the address of an HTTP proxy: http://[user:password@]host:port")
    host = _in_ascii(parts.hostname, parts.hostname)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    address = Address(bare, host, port or ports[parts.scheme], parts.scheme == "https")
    user = None if parts.username is None else unquote(parts.username)
    return Proxy(address, user, unquote(parts.password or ""))


def _split(text: str) -> tuple[SplitResult, int | None]:
    """Return the parts of an address, and its port; nothing, and -1, if it is not an address."""
    try:
        parts = urlsplit(text if is_a(text, str) else "")
        return parts, parts.port
    except ValueError:
        return urlsplit(""), -1


def authority_of(host: str, port: int) -> str:
    """``host:port``, the host in brackets if it is an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _in_ascii(host: str, shown: str) -> str:
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise ConfigurationError(f"{shown!r} has an invalid host name") from None


def why_unreachable(error: BaseException) -> str:
    """Return the cause of ``error``: attempts at several addresses are in a group, and failures of TLS are causes."""
    causes = [leaf.__cause__ or leaf for leaf in leaves(error.__cause__ or error)]
    return "; ".join(sorted({_described(cause) for cause in causes}))


def _described(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"its certificate is refused: {cause.verify_message} "
            "(for a CA of your own, pass an ssl_context that trusts it)"
        )
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed ({cause.reason or cause}): does it speak TLS on this port?"
    return str(cause) or type(cause).__name__


def is_loopback(host: str) -> bool:
    """Return whether ``host`` names this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
