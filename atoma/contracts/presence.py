"""The messages of presence: who is in a scope now, each with a small state that nothing stores."""

from __future__ import annotations

import msgspec

SESSION_BYTES = 16
"""Size of a presence's secret name: random, known to its client and the hub."""
STATE_BYTES = 1024
"""Most bytes of a state, as a hub that says nothing else takes them."""
LEASE_S = 15.0
"""How long somebody whose connection was lost is still shown."""


class PresenceRequest(msgspec.Struct, frozen=True):
    """A request to be in ``scope`` and to be told who else is, until it is cancelled.

    Attributes:
        scope: The scope.
        session: The caller's name for this presence: 16 random bytes, which others are never told.
        number: Counts what the session has said, from 1: of two states the one with the higher number counts.
        state: What others see, as JSON text.
    """

    scope: str
    session: bytes
    number: int
    state: str


class Present(msgspec.Struct, frozen=True):
    """Somebody who is there.

    Attributes:
        session: Tells the presences of one subject apart; made from the name that the client gave, which it does not tell.
        subject: Whose it is.
        state: What they say, as JSON text.
    """

    session: str
    subject: str
    state: str


class PresenceChange(msgspec.Struct, frozen=True):
    """What has changed about who is there.

    Attributes:
        here: Who has come, or says something else.
        gone: Sessions that are there no more.
        whole: ``here`` is everybody, and whoever else was known is gone; true of the first one.
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
        known: False when nobody of that session is there: it has to ask to be there again.
    """

    known: bool = True
