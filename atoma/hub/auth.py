"""Ready-made verifiers, which decide who may connect. Any object with ``async verify(token, peer)`` is a verifier, too."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence

import trio

from atoma.contracts.checks import is_a
from atoma.errors import AuthenticationError, ConfigurationError
from atoma.ports.service import Peer, Principal

LOCAL = "local"
DIGEST = "sha256:"
"""The prefix of a token's digest."""
TOKEN_LETTERS_MIN = 16
"""Minimum number of letters of a token; a shorter one can be guessed."""

_log = logging.getLogger("atoma.hub")


class StaticTokenVerifier:
    """A verifier with a fixed table of tokens, for development and small deployments.

    Every known token is compared in constant time, so that the time of an answer reveals nothing about a token. The log warns of
    tokens that can be guessed.

    Args:
        tokens: Token → subject. The :func:`token_digest` of a token may stand in its place, so that somebody who reads the table
            cannot use it.

    Raises:
        ConfigurationError: The table is not a mapping, is empty, or has an empty token or subject.

    Attributes:
        guessable: Subjects whose tokens have fewer than 16 letters.
    """

    __slots__ = ("_principals", "guessable")

    def __init__(self, tokens: Mapping[str, str]) -> None:
        if not is_a(tokens, Mapping):
            raise ConfigurationError("StaticTokenVerifier takes a mapping, {token: subject}")
        if not tokens or not all(tokens) or not all(tokens.values()):
            raise ConfigurationError("StaticTokenVerifier needs at least one token, and no empty token or subject")
        self._principals = [(_digested(token), Principal(subject)) for token, subject in tokens.items()]
        self.guessable = sorted(subject for token, subject in tokens.items() if is_guessable(token))
        if self.guessable:
            _log.warning("%s", short_tokens(self.guessable))

    def __repr__(self) -> str:
        return f"StaticTokenVerifier({len(self._principals)} tokens)"

    async def verify(self, token: str, peer: Peer) -> Principal:
        """Return the principal of the token.

        Raises:
            AuthenticationError: There is no such token.
        """
        given = token_digest(token)
        found: Principal | None = None
        for known, principal in self._principals:
            if hmac.compare_digest(known, given):
                found = principal
        if found is None:
            raise AuthenticationError("the token is missing or unknown; send one of the hub's tokens")
        return found


def token_digest(token: str) -> str:
    """Return what may replace ``token`` in a table that others can read: ``sha256:`` and 64 hexadecimal digits.

    Use it for random tokens, such as those that ``atoma hub tokens add`` draws: the digest of a token that can be guessed can
    be guessed as well.
    """
    return DIGEST + hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_guessable(token: str) -> bool:
    """Return whether ``token`` has so few letters that it can be guessed."""
    return len(token) < TOKEN_LETTERS_MIN


def is_digest(text: str) -> bool:
    """Return whether ``text`` is a :func:`token_digest` and not a token."""
    return re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None


def _digested(token: str) -> str:
    return token if is_digest(token) else token_digest(token)


def short_tokens(subjects: Sequence[str]) -> str:
    """Return the warning about subjects whose tokens can be guessed."""
    return (
        f"the tokens of {', '.join(subjects)} have fewer than {TOKEN_LETTERS_MIN} letters and can be guessed; draw new ones with: "
        "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
    )


class ThreadVerifier:
    """A verifier that calls a blocking function in a thread, for example one that reads a database with Django's ORM.

    A cancelled call continues in its thread and counts among the running ones until it has ended.

    Args:
        verify: Called with the token and the peer. It returns the principal or only its subject, and None for an unknown token.
        at_once: Maximum number of calls at a time; others wait for their turn.

    Raises:
        ConfigurationError: ``verify`` is not a blocking function, or ``at_once`` is not a positive number.
    """

    __slots__ = ("_turns", "_verify")

    def __init__(self, verify: Callable[[str, Peer], Principal | str | None], *, at_once: int = 8) -> None:
        given: object = verify
        if not callable(given) or inspect.iscoroutinefunction(given):
            raise ConfigurationError(
                "ThreadVerifier takes a blocking function of token and peer; make a coroutine function the method verify of "
                "an object of your own"
            )
        if not (is_a(at_once, int) and at_once > 0):
            raise ConfigurationError(f"ThreadVerifier: at_once must be a positive number, not {at_once!r}")
        self._verify = verify
        self._turns = trio.CapacityLimiter(at_once)

    def __repr__(self) -> str:
        return f"ThreadVerifier({self._verify!r})"

    async def verify(self, token: str, peer: Peer) -> Principal:
        """Return the principal of the token.

        Raises:
            AuthenticationError: Nobody has that token. What the function raises is passed on unchanged.
        """
        found = await trio.to_thread.run_sync(self._verify, token, peer, limiter=self._turns, abandon_on_cancel=True)
        if found is None:
            raise AuthenticationError("the token is missing or unknown")
        return found if isinstance(found, Principal) else Principal(found)


class AllowLoopback:
    """A verifier that admits everybody on this machine as the principal ``local``, and nobody else.

    A request through a proxy may come from another machine, so a port with ``names=`` or ``trusted_proxies=`` refuses to
    serve a hub with this verifier.
    """

    __slots__ = ()

    admits_loopback = True
    """See :class:`atoma.ports.AdmitsLoopback`."""

    def __repr__(self) -> str:
        return "AllowLoopback()"

    async def verify(self, token: str, peer: Peer) -> Principal:
        """Return the principal ``local``, whatever the token.

        Raises:
            AuthenticationError: The peer is on another machine.
        """
        if not peer.loopback:
            raise AuthenticationError(
                "this hub admits connections from its own machine only; to admit others, open it with another verifier"
            )
        return Principal(LOCAL)
