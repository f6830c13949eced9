"""What follows a write that is shown before the authority has answered."""

from __future__ import annotations

from collections.abc import Callable

import trio

from atoma.contracts.execution import ExecutionMeta, WriteState
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ClosedError, WriteRejected


class PendingReceipt:
    """Follows one write that is shown before the authority has answered."""

    __slots__ = ("_failure", "_meta", "_moved", "_seq", "_state")

    def __init__(self, state: WriteState = "undecided", seq: int = 0) -> None:
        self._state: WriteState = state
        self._seq = seq
        self._meta: ExecutionMeta | None = None
        self._failure: Callable[[], AtomaError] | None = None
        self._moved = trio.Event()

    @property
    def state(self) -> WriteState:
        """The state now, without waiting."""
        return self._state

    @property
    def meta(self) -> ExecutionMeta | None:
        """How the write came to its end; None while it is undecided."""
        return self._meta

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
        while self._failure is None and self._state == "undecided":
            await self._moved.wait()
        if self._failure is not None:
            raise self._failure()
        return self._seq

    def settle(self, state: WriteState, meta: ExecutionMeta, seq: int = 0) -> None:
        """Take the final state and wake who waits."""
        self._state = state
        self._meta = meta
        self._seq = seq
        self._moved.set()

    def refuse(self, store: str, id: str, error: ErrorInfo, meta: ExecutionMeta) -> None:
        """The write was taken back; waiters hear why."""
        self._failure = lambda: WriteRejected(error.message, reason=error.code, store=store, id=id)
        self.settle("rejected", meta)

    def close(self) -> None:
        """Nothing more will be heard; a write that has its verdict keeps it."""
        if self._state == "undecided":
            self._failure = lambda: ClosedError("the client was closed before the write had its answer")
            self._moved.set()
