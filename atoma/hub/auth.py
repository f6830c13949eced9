"""Who may connect: ready-made verifiers. Anything with ``async verify(token, peer)`` will do as well."""

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
"""What a digest begins with."""
TOKEN_LETTERS_MIN = 16
"""A token with fewer letters can be guessed."""

_log = logging.getLogger("atoma.hub")


class StaticTokenVerifier:
    """A fixed table of tokens, for development and small set-ups.

    Every known token is compared in constant time, so that the time of an answer reveals nothing about a token. Of tokens that can
    be guessed the log tells at once.

    Args:
        tokens: Token → subject. In the place of a token its :func:`token_digest` may stand, so that whoever reads the table
            cannot use it.

    Raises:
        ConfigurationError: It is not a mapping, there is no token, or an empty token or subject.

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
        """The token's principal.

        Raises:
            AuthenticationError: No such token.
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
    """What stands for ``token`` in a table that others may read: ``sha256:`` and 64 hexadecimal digits.

    It is for tokens that were drawn at random, as ``atoma hub tokens add`` draws them: of one that can be guessed, a digest can
    be guessed as well.
    """
    return DIGEST + hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_guessable(token: str) -> bool:
    """Whether ``token`` has so few letters that it can be guessed."""
    return len(token) < TOKEN_LETTERS_MIN


def is_digest(text: str) -> bool:
    """Whether ``text`` is a :func:`token_digest`, and no token."""
    return re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None


def _digested(token: str) -> str:
    return token if is_digest(token) else token_digest(token)


def short_tokens(subjects: Sequence[str]) -> str:
    """What is said about subjects whose tokens can be guessed."""
    return (
        f"the tokens of {', '.join(subjects)} have fewer than {TOKEN_LETTERS_MIN} letters and can be guessed; draw others with: "
        "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
    )


class ThreadVerifier:
    """A verifier that asks a blocking function, in a thread: one that reads a database by Django's ORM, say.

    A call that is given up goes on in its thread, and counts among those that run until it has ended.

    Args:
        verify: Called with the token and the peer. It returns the principal, or only its subject; None for a token that nobody has.
        at_once: How many calls may run at a time; others wait for their turn.

    Raises:
        ConfigurationError: ``verify`` is no function that blocks, or ``at_once`` is no positive number.
    """

    __slots__ = ("_turns", "_verify")

    def __init__(self, verify: Callable[[str, Peer], Principal | str | None], *, at_once: int = 8) -> None:
        given: object = verify
        if not callable(given) or inspect.iscoroutinefunction(given):
            raise ConfigurationError(
                "ThreadVerifier takes a blocking function of token and peer; a coroutine function is a verifier as the "
                "method verify of an object of yours"
            )
        if not (is_a(at_once, int) and at_once > 0):
            raise ConfigurationError(f"ThreadVerifier: at_once is a positive number, not {at_once!r}")
        self._verify = verify
        self._turns = trio.CapacityLimiter(at_once)

    def __repr__(self) -> str:
        return f"ThreadVerifier({self._verify!r})"

    async def verify(self, token: str, peer: Peer) -> Principal:
        """The token's principal.

        Raises:
            AuthenticationError: Nobody has that token. Whatever the function raises is raised as it is.
        """
        found = await trio.to_thread.run_sync(self._verify, token, peer, limiter=self._turns, abandon_on_cancel=True)
        if found is None:
            raise AuthenticationError("the token is missing or unknown")
        return found if isinstance(found, Principal) else Principal(found)


class AllowLoopback:
    """A verifier to which everybody on this machine is the principal ``local``; nobody else gets in.

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
