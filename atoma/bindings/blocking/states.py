"""The states that a write goes through, for blocking calls; loaded when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

from reactivex import Observable, abc

from atoma.bindings.blocking.host import Values, observe_each
from atoma.bindings.portal import Portal
from atoma.contracts.execution import WriteState
from atoma.runtime import states


class WriteStates(Observable[WriteState]):
    """The states of one write: the one that it is in, then each that it takes, to its last.

    An Observable, each subscription to which emits in a thread of its own, and for ``for``; see
    :class:`atoma.runtime.states.WriteStates`.
    """

    def __init__(self, portal: Portal, native: Callable[[], states.WriteStates]) -> None:
        self._portal = portal
        self._native = native
        watch = observe_each(portal, lambda: nullcontext(aiter(native())))

        def subscribe(
            observer: abc.ObserverBase[WriteState], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return watch.subscribe(observer, scheduler=scheduler)

        super().__init__(subscribe)

    def __iter__(self) -> Iterator[WriteState]:
        """The states from now on."""
        return Values(self._portal, aiter(self._native()))
