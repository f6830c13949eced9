"""What became of writes, for blocking calls; made by ``python -m atoma.bindings.generate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import atoma.runtime.results
from atoma.bindings.blocking.host import run
from atoma.bindings.portal import Portal
from atoma.contracts.execution import ExecutionMeta, WriteState, WriteStatus
from atoma.errors import AtomaError

if TYPE_CHECKING:
    from atoma.bindings.blocking.states import WriteStates

T = TypeVar("T")


class WriteHandle(Generic[T]):
    """One write that is locally durable (or, if it was a direct remote write, answered by the authority).

    Attributes:
        id: The row's id.
        version: Its local version; 0 if the row is gone or the write was remote.
        changed: Whether the write changed anything.
        key: The key by which :meth:`atoma.Client.handle` finds the write, even after a restart; ``""`` if it is in no
            outbox.
    """

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.results.WriteHandle[T]) -> None:
        self._portal = portal
        self._native = native

    def __repr__(self) -> str:
        return repr(self._native)

    @property
    def id(self) -> str:
        """The row's id."""
        return self._native.id

    @property
    def version(self) -> int:
        """Its local version, 0 when it is gone or the write was remote."""
        return self._native.version

    @property
    def changed(self) -> bool:
        """Whether the write changed anything."""
        return self._native.changed

    @property
    def key(self) -> str:
        """What ``client.handle`` finds the write by; empty when it lies in no outbox."""
        return self._native.key

    @property
    def value(self) -> T:
        """The row after the write, or None if it is gone or not known; the same object every time."""
        return self._native.value

    @property
    def meta(self) -> ExecutionMeta:
        """How the write came about; for an undecided write, how it was settled, once it has been."""
        return self._native.meta

    @property
    def state(self) -> WriteState:
        """The state of the write now: ``local undecided queued sent accepted observed rejected dead``.

        An ``undecided`` write is in no outbox, and the machine that decides it has not answered: it is shown
        here, and taken back if that machine refuses it or cannot be asked.
        """
        return self._native.state

    @property
    def states(self) -> WriteStates:
        """The current state of the write, then each later one to the last, as an Observable and for ``for``.

        The last state is ``observed``, ``rejected`` or ``dead``; ``local`` if nobody else decides; or ``accepted`` if
        the authority has answered the write itself. A ``dead`` write that is tried again has a new handle, found by
        its key.
        """
        from atoma.bindings.blocking.states import WriteStates

        return WriteStates(self._portal, lambda: self._native.states)

    def accepted(self) -> int:
        """Wait until the hub has applied the write; returns its sequence at the hub.

        The sequence is 0 without a hub, and if another program on the same file has settled the write. The caller's
        cancel scope is the only timeout; cancelling does not affect the write.

        Raises:
            WriteRejected: The hub refused it; base, mine and theirs are in the inbox.
            WrongLoop: The call comes from a loop other than the client's.
        """
        return run(self._portal, self._native.accepted)

    def observed(self) -> int:
        """As :meth:`accepted`, and wait until this device's confirmed base includes the write."""
        return run(self._portal, self._native.observed)


class ItemResult(Generic[T]):
    """The result of one item of a ``_many`` call."""

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.results.ItemResult[T]) -> None:
        self._portal = portal
        self._native = native

    @property
    def id(self) -> str:
        """The item's id."""
        return self._native.id

    @property
    def handle(self) -> WriteHandle[T] | None:
        """Its handle, None when it was refused."""
        native = self._native.handle
        return None if native is None else WriteHandle(self._portal, native)

    @property
    def error(self) -> AtomaError | None:
        """Why it was refused, None when it was written."""
        return self._native.error

    @property
    def ok(self) -> bool:
        """Whether it was written."""
        return self._native.ok


class ManyResult(Generic[T]):
    """Item by item, in input order; one refused item never spoils the others."""

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.results.ManyResult[T]) -> None:
        self._portal = portal
        self._native = native

    @property
    def status(self) -> WriteStatus:
        """``confirmed`` all, ``partial`` some, ``rejected`` none; ``undecided`` when the authority has not answered yet."""
        return self._native.status

    @property
    def items(self) -> Sequence[ItemResult[T]]:
        """One per input item."""
        return [ItemResult(self._portal, item) for item in self._native.items]

    @property
    def meta(self) -> ExecutionMeta:
        """How the write came about."""
        return self._native.meta

    def __iter__(self) -> Iterator[ItemResult[T]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self._native)

    @property
    def failed(self) -> Sequence[ItemResult[T]]:
        """The refused items."""
        return [ItemResult(self._portal, item) for item in self._native.failed]

    def raise_for_errors(self) -> ManyResult[T]:
        """Raise the first refused item's error, or return self; what is undecided is not an error yet."""
        self._native.raise_for_errors()
        return self
