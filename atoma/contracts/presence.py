"""The messages of presence: who is in a scope now, each with a small state that nothing stores."""

from __future__ import annotations

import msgspec

SESSION_BYTES = 16
"""Size of a presence's secret name, in bytes; it is random, and known only to its client and the hub."""
STATE_BYTES = 1024
"""Maximum size of a state in bytes, unless a hub sets another limit."""
LEASE_S = 15.0
"""Seconds for which a session is still shown after its connection was lost."""


class PresenceRequest(msgspec.Struct, frozen=True):
    """A request to be in ``scope`` and to be told who else is, until it is cancelled.

    Attributes:
        scope: The scope.
        session: The caller's name for this presence: 16 random bytes, which others are never told.
        number: Number of the session's state, from 1: of two states, the one with the higher number counts.
        state: What others see, as JSON text.
    """

    scope: str
    session: bytes
    number: int
    state: str


class Present(msgspec.Struct, frozen=True):
    """A session that is present in a scope.

    Attributes:
        session: Tells the presences of one subject apart; made from the name that the client gave, which it does not tell.
        subject: The subject of its principal.
        state: Its state, as JSON text.
    """

    session: str
    subject: str
    state: str


class PresenceChange(msgspec.Struct, frozen=True):
    """A change of the sessions in a scope.

    Attributes:
        here: The sessions that have come, or have another state.
        gone: The sessions that have left.
        whole: Whether ``here`` is everybody, so that all other known sessions have left; true for the first change.
    """

    here: tuple[Present, ...] = ()
    gone: tuple[str, ...] = ()
    whole: bool = False


class AppearRequest(msgspec.Struct, frozen=True):
    """A new state of a presence, or its end.

    Attributes:
        scope: As in :class:`PresenceRequest`, as are ``session`` and ``number``.
        state: What others see from now on, as JSON text; None leaves the scope at once.
    """

    scope: str
    session: bytes
    number: int
    state: str | None = None


class AppearReply(msgspec.Struct, frozen=True):
    """The answer to :class:`AppearRequest`.

    Attributes:
        known: False if that session is not present: it must enter the scope again.
    """

    known: bool = True
