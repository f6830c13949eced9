"""Receipts, which follow writes to the authority's verdict: one side waits on them, the other side moves them."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from atoma.contracts.execution import ExecutionMeta, WriteItemResult, WriteState, as_receipt
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import ClosedError, WriteRejected


class WriteReceipt:
    """The :class:`~atoma.contracts.execution.Receipt` of one write; notified on the loop's thread.

    Args:
        state: The present state of the write.
        seq: The sequence that the authority gave the write, if it is known.
        meta: How the write came to its end, if that adds to the write's own result.
        settled: Whether the state is final, so that there is nothing to wait for.
    """

    __slots__ = ("__weakref__", "_closed", "_failure", "_meta", "_moved", "_seq", "_settled", "_state")

    def __init__(
        self, state: WriteState = "queued", seq: int = 0, meta: ExecutionMeta | None = None, *, settled: bool = False
    ) -> None:
        self._state: WriteState = state
        self._seq = seq
        self._meta = meta
        self._settled = settled
        self._failure: tuple[ErrorInfo, str, str] | None = None
        self._closed = ""
        self._moved = trio.Event()

    @property
    def state(self) -> WriteState:
        """The state now, without waiting."""
        return self._state

    @property
    def meta(self) -> ExecutionMeta | None:
        """How the write came to its end, if that adds to the write's own result; else None."""
        return self._meta

    @property
    def settled(self) -> bool:
        """Whether the write has come to its end."""
        return self._settled

    async def wait(self, *, observed: bool) -> int:
        """Wait for the verdict and return the sequence that the authority gave the write.

        Args:
            observed: Also wait until the confirmed base holds the write.

        Raises:
            WriteRejected: The authority refused it, it was taken back, or it was set aside; ``reason`` says which.
            ClosedError: The client was closed first.

        Cancelling the wait does not affect the write.
        """
        await trio.lowlevel.checkpoint()
        while not self._answers(observed):
            await self._moved.wait()
        return self._seq

    async def moved(self, since: WriteState) -> WriteState | None:
        """Wait until the state of the write is no longer ``since``, and return the new state; None if ``since`` is its last.

        Raises:
            ClosedError: The client was closed first.

        Cancelling the wait does not affect the write.
        """
        await trio.lowlevel.checkpoint()
        while self._state == since and not self._settled:
            if self._closed:
                raise ClosedError(self._closed)
            await self._moved.wait()
        return None if self._state == since else self._state

    def _answers(self, observed: bool) -> bool:
        """Whether whoever waits can go on; raises what ended the write."""
        if self._failure is not None:
            error, store, id = self._failure
            raise WriteRejected(error.message, reason=error.code, store=store, id=id)
        if self._settled or (self._state == "accepted" and not observed):
            return True
        if self._closed:
            raise ClosedError(self._closed)
        return False

    def move(self, state: WriteState, seq: int = 0) -> None:
        """Take a new state and wake the tasks that wait."""
        self._state = state
        self._seq = seq or self._seq
        moved, self._moved = self._moved, trio.Event()
        moved.set()

    def settle(self, state: WriteState, seq: int = 0, meta: ExecutionMeta | None = None) -> None:
        """Take the final state."""
        self._settled = True
        self._meta = meta
        self.move(state, seq)

    def refuse(
        self,
        error: ErrorInfo,
        state: WriteState = "rejected",
        *,
        store: str = "",
        id: str = "",
        meta: ExecutionMeta | None = None,
    ) -> None:
        """Take a final state that is raised as an error in the tasks that wait."""
        self._failure = (error, store, id)
        self.settle(state, meta=meta)

    def close(self, message: str) -> None:
        """Wake the tasks that wait, because no further state will come. A write that has its verdict keeps it."""
        self._closed = message
        self.move(self._state)


async def await_verdicts(items: Sequence[WriteItemResult], receipts: Sequence[object]) -> tuple[WriteItemResult, ...]:
    """Return ``items`` with the verdicts of the authority: those that it refused are refused here, too.

    Raises:
        ClosedError: The client was closed first.

    Cancelling the wait does not affect the writes.
    """
    judged: list[WriteItemResult] = []
    for item, value in zip(items, receipts, strict=True):
        receipt = as_receipt(value)
        if item.ok and receipt is not None:
            try:
                await receipt.wait(observed=False)
            except WriteRejected as error:
                judged.append(WriteItemResult(item.id, ok=False, error=refusal(error.reason, str(error))))
                continue
        judged.append(item)
    return tuple(judged)


__all__ = ["WriteReceipt", "await_verdicts"]
