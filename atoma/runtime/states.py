"""The states that a write goes through, as an Observable and for ``async for``; loaded when somebody asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import trio
from reactivex import Observable, abc

from atoma.contracts.execution import Receipt, WriteState
from atoma.ports.loops import LoopGuard
from atoma.runtime.observable import Emit, observable


class ClientLoop(Protocol):
    """The loop of a client."""

    @property
    def guard(self) -> LoopGuard:
        """Refuses calls from other loops."""
        ...

    @property
    def nursery(self) -> trio.Nursery:
        """Where Observables run."""
        ...


class WriteStates(Observable[WriteState]):
    """The states of one write: the one that it is in, then each that it takes, to its last.

    ``async for state in handle.states`` and ``handle.states.subscribe(…)`` give the same, as often as you like. The last one is
    ``observed``, ``rejected`` or ``dead``; ``local`` where nobody else decides, and ``accepted`` where the authority has answered
    the write itself. Who is slower than the write sees the state that it is in by then.

    An iteration raises ``ClosedError`` when the client is closed first; a subscription completes then.

    Args:
        receipt: Follows the write; None when it has come to its end.
        state: Says the state of the write now.
        loop: The client's, in whose nursery subscriptions live.
    """

    def __init__(self, receipt: Receipt | None, state: Callable[[], WriteState], loop: ClientLoop) -> None:
        self._receipt = receipt
        self._state = state
        self._guard = loop.guard
        watch: Observable[WriteState] = observable(self._tell, loop.nursery, loop.guard)

        def subscribe(
            observer: abc.ObserverBase[WriteState], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return watch.subscribe(observer, scheduler=scheduler)

        super().__init__(subscribe)

    def __aiter__(self) -> AsyncIterator[WriteState]:
        """The states from now on."""
        return _Following(self._receipt, self._state, self._guard)

    async def _tell(self, emit: Emit[WriteState]) -> None:
        async for state in self:
            emit(state)


class _Following(AsyncIterator[WriteState]):
    """An iterator, not a generator: one that is left half-read has nothing to clean up."""

    def __init__(self, receipt: Receipt | None, state: Callable[[], WriteState], guard: LoopGuard) -> None:
        self._receipt = receipt
        self._state = state
        self._guard = guard
        self._last: WriteState | None = None

    async def __anext__(self) -> WriteState:
        self._guard.check_loop()
        following: WriteState | None = None
        if self._last is None:
            following = self._state()
        elif self._receipt is not None:
            following = await self._receipt.moved(self._last)
        if following is None:
            raise StopAsyncIteration
        self._last = following
        return following
