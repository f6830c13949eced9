"""What follows a write that is shown before the authority has answered."""

from __future__ import annotations

from collections.abc import Callable

import trio

from atoma.contracts.execution import WriteState
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ClosedError, WriteRejected


class PendingReceipt:
    """Follows one write that is shown before the authority has answered."""

    __slots__ = ("_failure", "_moved", "_seq", "_state")

    def __init__(self, state: WriteState = "queued", seq: int = 0) -> None:
        self._state: WriteState = state
        self._seq = seq
        self._failure: Callable[[], AtomaError] | None = None
        self._moved = trio.Event()

    @property
    def state(self) -> WriteState:
        """The state now, without waiting."""
        return self._state

    async def wait(self, *, observed: bool) -> int:
        """Wait for the verdict and return the sequence the authority gave the write.

        The answer changes the local cache before it is told here, so what is accepted is observed as well.

        Raises:
            WriteRejected: It was refused or could not be sent, and was taken back; ``reason`` says why.
            ClosedError: The client was closed first; what is undecided then is taken back at the next start.

        Cancelling the wait changes nothing about the write.
        """
        del observed
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._failure is None and self._state in ("queued", "sent"):
            await self._moved.wait()
        if self._failure is not None:
            raise self._failure()
        return self._seq

    def move(self, state: WriteState, seq: int = 0) -> None:
        """Take a new state and wake who waits."""
        self._state = state
        self._seq = seq or self._seq
        moved, self._moved = self._moved, trio.Event()
        moved.set()

    def refuse(self, store: str, id: str, error: ErrorInfo) -> None:
        """The write was taken back; waiters hear why."""
        self._failure = lambda: WriteRejected(error.message, reason=error.code, store=store, id=id)
        self.move("rejected")

    def close(self) -> None:
        """Nothing more will be heard; a write that has its verdict keeps it."""
        if self._state in ("queued", "sent"):
            self._failure = lambda: ClosedError("the client was closed before the write had its answer")
            self.move(self._state)
