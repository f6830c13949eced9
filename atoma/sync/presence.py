"""Who is here: what this device says in a scope, and what the others there say. Nothing of it is stored anywhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
import trio

from atoma.concurrency.listeners import Listeners
from atoma.contracts.presence import STATE_BYTES, AppearRequest, PresenceChange, PresenceRequest
from atoma.errors import AtomaError, ValidationError
from atoma.ports.loops import LoopGuard, lifetime
from atoma.sync.wake import Bell

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Other(Generic[T]):
    """Somebody else who is here.

    Attributes:
        subject: Whose presence it is, as the hub knows them.
        session: Tells the presences of one subject apart: a device has another one each time it is present.
        state: What they say.
    """

    subject: str
    session: str
    state: T


class Appearance(Generic[T]):
    """One presence, as the lane works with it.

    Args:
        scope: Where.
        state: What is said at first.
        session: Its secret name.

    Attributes:
        scope: Where.
        state: What is said now.
        others: Who else is there.
        connected: Whether the hub has answered over the connection of now.
        answered: How many connections it has answered over.
        error: Why it has not.
        closed: Whether the block was left.
        left: Set by the lane once the hub knows that, or cannot be told.
        shown: Rung when ``others`` changes, and at the end.

    Raises:
        ValidationError: The state is no JSON, cannot be read back as what it is, or is too large.
    """

    def __init__(self, scope: str, state: T, session: bytes) -> None:
        self.scope = scope
        self.state: T = state
        self.others: tuple[Other[T], ...] = ()
        self.connected = False
        self.answered = 0
        self.error: AtomaError | None = None
        self.closed = False
        self.left = trio.Event()
        self.shown = Bell()
        self._kind: type[T] = type(state)
        self._text = _text_of(state)
        _check_readable(self._text, self._kind, state)
        self._session = session
        self._number = 0
        self._told = 0  # the number of what the hub has been told last
        self._by_session: dict[str, Other[T]] = {}
        self._listeners: Listeners[[tuple[Other[T], ...]]] = Listeners("a presence")
        self._lane = Bell()

    @property
    def moved(self) -> trio.Event:
        """Set once there may be something to tell, or it is over; take it before looking."""
        return self._lane.next

    def ring(self) -> None:
        """Have the lane look."""
        self._lane.ring()

    def say(self, state: T) -> None:
        """Have the hub told another state.

        Raises:
            ValidationError: It has another type than the first one, is no JSON, or is too large.
        """
        if type(state) is not self._kind:
            message = f"this presence says a {self._kind.__name__}, not a {type(state).__name__}"
            raise ValidationError(message, field="state", value=state)
        self._text, self.state = _text_of(state), state
        self._number += 1
        self.ring()

    def request(self) -> PresenceRequest:
        """What asks to be here, with the state of now."""
        self._number += 1
        self._told = self._number
        return PresenceRequest(self.scope, self._session, self._number, self._text)

    def change(self) -> AppearRequest | None:
        """What the hub has not been told yet; None when it knows everything, or does not know this presence."""
        if self._told == self._number or not self.connected:
            return None
        self._told = self._number
        return AppearRequest(self.scope, self._session, self._number, self._text)

    def leaving(self) -> AppearRequest:
        """What ends it."""
        self._number += 1
        self._told = self._number
        return AppearRequest(self.scope, self._session, self._number)

    def forget_told(self) -> None:
        """What was told last was not taken: tell it again."""
        self._told = 0

    def take(self, change: PresenceChange) -> None:
        """The hub tells who is here; whoever says what this device cannot read is not shown."""
        if change.whole:
            known = {present.session for present in change.here}
            self._by_session = {session: other for session, other in self._by_session.items() if session in known}
        for session in change.gone:
            self._by_session.pop(session, None)
        for present in change.here:
            try:
                state = msgspec.json.decode(present.state, type=self._kind)
            except msgspec.MsgspecError:
                self._by_session.pop(present.session, None)
                continue
            self._by_session[present.session] = Other(present.subject, present.session, state)
        if not self.connected:
            self.connected, self.error = True, None
            self.answered += 1
            self.ring()
        self._show()

    def lost(self, error: AtomaError | None) -> None:
        """The hub does not know this presence, for a while or until somebody acts."""
        self.connected, self.error = False, error

    def clear(self) -> None:
        """Nobody is known to be here any more."""
        self._by_session = {}
        self._show()

    def close(self) -> None:
        """The block is left."""
        self.closed = True
        self.ring()
        self.shown.ring()

    def subscribe(self, listener: Callable[[tuple[Other[T], ...]], None]) -> Callable[[], None]:
        """See :meth:`Presence.subscribe`."""
        undo = self._listeners.add(listener)
        listener(self.others)
        return undo

    def _show(self) -> None:
        others = tuple(self._by_session.values())
        if others == self.others:
            return
        self.others = others
        self.shown.ring()
        self._listeners.tell(others)


class Presence(Generic[T]):
    """What this device says in a scope, and who else is there. Get one with ``client.presence(scope, state)``."""

    def __init__(self, appearance: Appearance[T], guard: LoopGuard) -> None:
        self._inside = appearance
        self._guard = guard

    def __repr__(self) -> str:
        return f"<presence in {self.scope!r} with {len(self.others)} others>"

    @property
    def scope(self) -> str:
        """The scope."""
        return self._inside.scope

    @property
    def state(self) -> T:
        """What this device says."""
        return self._inside.state

    @property
    def others(self) -> tuple[Other[T], ...]:
        """Who else is here, in the order in which they came.

        Without a connection those who were here when it was lost, for fifteen seconds; then nobody.
        """
        return self._inside.others

    @property
    def connected(self) -> bool:
        """Whether the others can see this device, as far as it knows."""
        return self._inside.connected

    @property
    def error(self) -> AtomaError | None:
        """Why they cannot: ``PERMISSION_DENIED``, a hub of before presence, no connection. It is tried again."""
        return self._inside.error

    def update(self, state: T) -> None:
        """Say something else. Returns at once; of states that follow one another quickly the hub is told the last.

        Raises:
            ValidationError: The state has another type than the first one, is no JSON, or is too large.
            ClosedError: The block was left.
        """
        self._guard.check()
        self._inside.say(state)

    def subscribe(self, listener: Callable[[tuple[Other[T], ...]], None]) -> Callable[[], None]:
        """Call ``listener`` with the others now and after every change; returns the undo. One that raises is logged.

        Raises:
            ConfigurationError: There are too many: nobody calls the undo.
            ClosedError: The block was left.
        """
        self._guard.check()
        return self._inside.subscribe(listener)

    @lifetime
    async def watch(self) -> AsyncGenerator[AsyncIterator[tuple[Other[T], ...]]]:
        """Iterate over the others: those of now, then the latest after every change; a slow reader skips some.

        The iteration ends when the presence does.
        """
        self._guard.check()
        values = self._follow()
        try:
            yield values
        finally:
            await values.aclose()

    async def _follow(self) -> AsyncGenerator[tuple[Other[T], ...]]:
        inside = self._inside
        seen = inside.others
        yield seen
        while True:
            while inside.others == seen and not inside.closed:
                await inside.shown.next.wait()
            if inside.closed:
                return
            seen = inside.others
            yield seen


def _text_of(state: object) -> str:
    """``state`` as JSON.

    Raises:
        ValidationError: It is none, or too large.
    """
    try:
        data = msgspec.json.encode(state)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        message = f"a state is what JSON can say, as a dataclass of texts and numbers is: {error}"
        raise ValidationError(message, field="state", value=state) from None
    if len(data) > STATE_BYTES:
        message = f"a state has at most {STATE_BYTES} bytes as JSON, this one has {len(data)}"
        raise ValidationError(message, field="state", value=state)
    return data.decode()


def _check_readable(text: str, kind: type[object], state: object) -> None:
    """Refuse a type whose values nobody could read."""
    try:
        msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, TypeError) as error:
        message = f"a {kind.__name__} cannot be read back from JSON: {error}"
        raise ValidationError(message, field="state", value=state) from None
