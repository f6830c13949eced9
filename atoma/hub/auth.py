"""Who may connect: two ready-made verifiers. Anything with ``async verify(token, peer)`` will do as well."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from atoma.contracts.checks import is_a
from atoma.errors import AuthenticationError, ConfigurationError
from atoma.ports.service import Peer, Principal

LOCAL = "local"


class StaticTokenVerifier:
    """A fixed table of tokens, for development and small set-ups.

    Every known token is compared in constant time, so that the time of an answer tells nothing about a token.

    Args:
        tokens: Token → subject.

    Raises:
        ConfigurationError: It is no mapping, there is no token, or an empty token or subject.
    """

    __slots__ = ("_principals",)

    def __init__(self, tokens: Mapping[str, str]) -> None:
        if not is_a(tokens, Mapping):
            raise ConfigurationError("StaticTokenVerifier takes a mapping, {token: subject}")
        if not tokens or not all(tokens) or not all(tokens.values()):
            raise ConfigurationError("StaticTokenVerifier needs at least one token, and no empty token or subject")
        self._principals = [(token.encode(), Principal(subject)) for token, subject in tokens.items()]

    def __repr__(self) -> str:
        return f"StaticTokenVerifier({len(self._principals)} tokens)"

    async def verify(self, token: str, peer: Peer) -> Principal:
        """The token's principal.

        Raises:
            AuthenticationError: No such token.
        """
        given = token.encode("utf-8", "surrogatepass")
        found: Principal | None = None
        for known, principal in self._principals:
            if hmac.compare_digest(known, given):
                found = principal
        if found is None:
            raise AuthenticationError("the token is missing or unknown; send one of the hub's tokens")
        return found


class AllowLoopback:
    """Everybody on this machine is the principal ``local``; nobody else gets in.

    A request that came through a proxy is somebody else's. A port with ``names=`` or ``trusted_proxies=`` refuses to
    serve a hub with this verifier.
    """

    __slots__ = ()

    admits_loopback = True
    """See :class:`atoma.ports.AdmitsLoopback`."""

    def __repr__(self) -> str:
        return "AllowLoopback()"

    async def verify(self, token: str, peer: Peer) -> Principal:
        """The principal ``local``, whatever the token.

        Raises:
            AuthenticationError: The peer is on another machine.
        """
        if not peer.loopback:
            raise AuthenticationError("this hub lets in connections from its own machine only; give it a verifier")
        return Principal(LOCAL)
