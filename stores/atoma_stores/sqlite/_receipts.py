"""Receipts: they follow a durable write to the authority's verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

import trio

from atoma.contracts.execution import WriteState
from atoma.contracts.overlay import ACKED, PARKED, PendingMutation
from atoma.contracts.sync import Outcome
from atoma.errors import AtomaError, ClosedError, WriteRejected
from atoma_stores.sqlite._outbox import Acked, Removed, Renumbered, Settlement


class MutationReceipt:
    """The receipt of one pending mutation; told about it after each commit, on the loop's thread."""

    def __init__(self, lsn: int, mid: int) -> None:
        self.lsn = lsn
        self.mid = mid
        self._state: WriteState = "queued"
        self._seq = 0
        self._failure: tuple[str, str] | None = None
        self._closed = ""
        self._moved = trio.Event()

    @property
    def state(self) -> WriteState:
        """The state now, without waiting."""
        return self._state

    @property
    def meta(self) -> None:
        """None: the lanes settle it, which no trail of a request tells."""
        return None

    async def wait(self, *, observed: bool) -> int:
        """Wait for the verdict and return the hub sequence the write got.

        Args:
            observed: Also wait until the confirmed base holds the write.

        Raises:
            WriteRejected: The authority refused it, it was taken back, or it was set aside (``reason`` says which).
            ClosedError: The database was closed first.

        Cancelling the wait changes nothing about the write.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._settled(observed):
            await self._moved.wait()
        return self._seq

    def _settled(self, observed: bool) -> bool:
        if self._failure is not None:
            reason, message = self._failure
            raise WriteRejected(message, reason=reason)
        if self._state == "observed" or (self._state == "accepted" and not observed):
            return True
        if self._closed:
            raise ClosedError(self._closed)
        return False

    def move(self, state: WriteState, seq: int = 0) -> None:
        """Take a new state and wake who waits."""
        self._state = state
        self._seq = seq or self._seq
        moved, self._moved = self._moved, trio.Event()
        moved.set()

    def fail(self, state: WriteState, reason: str, message: str) -> None:
        """Take a final state that waiters hear as an error."""
        self._failure = (reason, message)
        self.move(state)

    def settle(self, outcome: Outcome | None) -> None:
        """Hear that the mutation left the overlay."""
        if outcome is None:
            self.fail("rejected", "TAKEN_BACK", "the write was taken back on this device")
        elif outcome.status == "rejected":
            error = outcome.error
            code, message = ("REJECTED", "the hub refused the write") if error is None else (error.code, error.message)
            self.fail("rejected", code, message)
        else:
            self.move("observed", outcome.seq)

    def close(self, message: str) -> None:
        """Wake who waits: nothing more will be heard."""
        self._closed = message
        self.move(self._state)


class LocalReceipt:
    """The receipt of a write that nobody else decides about: it is durable, and that is all there is to wait for."""

    @property
    def state(self) -> WriteState:
        """Always ``local``."""
        return "local"

    @property
    def meta(self) -> None:
        """None: its own result says it all."""
        return None

    async def wait(self, *, observed: bool) -> int:
        """0 at once: there is no authority whose verdict could be waited for."""
        await trio.lowlevel.checkpoint()
        return 0


LOCAL = LocalReceipt()


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where mutations are now.

    Attributes:
        pending: Those that are still pending, by lsn.
        rejected: Lsns of those that lie in the inbox.
    """

    pending: Mapping[int, PendingMutation]
    rejected: frozenset[int]


class Receipts:
    """The receipts that somebody still holds."""

    def __init__(self) -> None:
        self._by_lsn: WeakValueDictionary[int, MutationReceipt] = WeakValueDictionary()
        self._by_mid: WeakValueDictionary[int, MutationReceipt] = WeakValueDictionary()
        self._missing: set[int] = set()

    def issue(self, lsn: int, mid: int) -> MutationReceipt:
        """The receipt of a mutation, the same for everybody."""
        receipt = self._by_lsn.get(lsn)
        if receipt is None:
            receipt = self._by_lsn[lsn] = MutationReceipt(lsn, mid)
            if mid:
                self._by_mid[mid] = receipt
        return receipt

    def reissue(self, mutation: PendingMutation) -> MutationReceipt:
        """The receipt of a mutation that was pending before."""
        receipt = self.issue(mutation.lsn, mutation.mid)
        self._renumber(mutation.lsn, mutation.mid)
        if receipt.state in ("queued", "sent") and mutation.status == ACKED:
            receipt.move("accepted", mutation.ack_seq)
        elif receipt.state in ("queued", "sent") and mutation.status == PARKED:
            receipt.fail("dead", "PARKED", mutation.last_error)
        return receipt

    def waiting(self, most: int) -> dict[int, int]:
        """Outbox mutations whose verdict is still to come, lsn → mid; the oldest ``most`` of them."""
        held = sorted(self._by_lsn.items())
        return dict(
            [(lsn, one.mid) for lsn, one in held if one.mid and one.state in ("queued", "sent", "accepted")][:most]
        )

    def catch_up(self, asked: Iterable[int], whereabouts: Whereabouts) -> bool:
        """Hear what another program has settled in the file; whether to look again.

        A mutation has to be missing twice: what this program has settled itself may be committed and not told yet, and
        is told with its sequence in a moment.
        """
        missing: set[int] = set()
        for lsn in asked:
            receipt = self._by_lsn.get(lsn)
            if receipt is None or receipt.state not in ("queued", "sent", "accepted"):
                continue
            if lsn in whereabouts.pending:
                self.reissue(whereabouts.pending[lsn])
            elif lsn not in self._missing:
                missing.add(lsn)
            elif lsn in whereabouts.rejected:
                receipt.fail("rejected", "REJECTED", "the hub refused the write; the inbox says why")
            else:
                receipt.move("observed")
        self._missing = missing
        return bool(missing)

    def show_in_flight(self, mids: Iterable[int], in_flight: bool) -> None:
        """Say ``sent`` while a push carries a mutation, and ``queued`` again after it failed."""
        before: WriteState = "queued" if in_flight else "sent"
        for mid in mids:
            receipt = self._by_mid.get(mid)
            if receipt is not None and receipt.state == before:
                receipt.move("sent" if in_flight else "queued")

    def settle(self, settlements: Iterable[Settlement]) -> None:
        """Tell the receipts what a commit decided."""
        for settlement in settlements:
            if isinstance(settlement, Removed):
                receipt = self._by_lsn.get(settlement.lsn)
                if receipt is not None:
                    receipt.settle(settlement.outcome)
            elif isinstance(settlement, Renumbered):
                self._renumber(settlement.lsn, settlement.mid)
            elif (receipt := self._by_mid.get(settlement.mid)) is not None:
                if isinstance(settlement, Acked):
                    receipt.move("accepted", settlement.seq)
                else:
                    receipt.fail("dead", "PARKED", settlement.error)

    def _renumber(self, lsn: int, mid: int) -> None:
        receipt = self._by_lsn.get(lsn)
        if receipt is None or receipt.mid == mid:
            return
        if self._by_mid.get(receipt.mid) is receipt:
            del self._by_mid[receipt.mid]
        receipt.mid = mid
        self._by_mid[mid] = receipt
        if receipt.state == "sent":
            receipt.move("queued")

    def close(self, error: AtomaError) -> None:
        """Wake everybody who waits."""
        for receipt in list(self._by_lsn.values()):
            receipt.close(str(error))
