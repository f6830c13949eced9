"""Receipts: they follow a durable write to the authority's verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary, WeakValueDictionary

from atoma.contracts.execution import WriteState
from atoma.contracts.failures import refusal
from atoma.contracts.mutations import ACKED, BUILDS_ON_HELD, HELD_MID, PendingMutation
from atoma.contracts.receipts import WriteReceipt
from atoma.contracts.sync import Outcome
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError
from atoma_stores.sqlite._outbox import Acked, Held, Renumbered, SettledItem

LOCAL = WriteReceipt("local", settled=True)
"""The receipt of a write that nobody else decides about: it is durable, and that is all there is to wait for."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The whereabouts of mutations at this moment.

    Attributes:
        pending: Those that are still pending, by lsn.
        rejected: Why those were refused that lie in the inbox, by lsn.
    """

    pending: Mapping[int, PendingMutation]
    rejected: Mapping[int, ErrorInfo]


class Receipts:
    """The receipts that somebody still holds; notified after each commit."""

    def __init__(self) -> None:
        self._by_lsn: WeakValueDictionary[int, WriteReceipt] = WeakValueDictionary()
        self._by_mid: WeakValueDictionary[int, WriteReceipt] = WeakValueDictionary()
        self._mids: WeakKeyDictionary[WriteReceipt, int] = WeakKeyDictionary()
        self._missing: set[int] = set()

    def issue(self, lsn: int, mid: int, why: str = BUILDS_ON_HELD) -> WriteReceipt:
        """The receipt of a mutation, the same for everybody; ``why`` it is held, if it is."""
        receipt = self._by_lsn.get(lsn)
        if receipt is None:
            receipt = self._by_lsn[lsn] = WriteReceipt()
            if mid == HELD_MID:
                _hold(receipt, why)
            elif mid:
                self._by_mid[mid] = receipt
                self._mids[receipt] = mid
        return receipt

    def reissue(self, mutation: PendingMutation) -> WriteReceipt:
        """The receipt of a mutation that was pending before; a new one when it was held and is not any more."""
        known = self._by_lsn.get(mutation.lsn)
        if known is not None and known.state == "dead" and mutation.kind != "held":
            del self._by_lsn[mutation.lsn]
        receipt = self.issue(mutation.lsn, mutation.mid, mutation.last_error)
        if mutation.kind != "held":
            self._renumber(mutation.lsn, mutation.mid)
        if receipt.state in ("queued", "sent") and mutation.status == ACKED:
            receipt.move("accepted", mutation.ack_seq)
        elif mutation.kind == "held" and not receipt.settled:
            _hold(receipt, mutation.last_error)
        return receipt

    def gone(self, receipt: WriteReceipt, refused: ErrorInfo | None) -> None:
        """Settle the receipt of a mutation that has left the outbox, reported by nobody but the file."""
        if refused is not None:
            receipt.refuse(refused)
        else:
            receipt.settle("observed")

    def waiting(self, most: int) -> dict[int, int]:
        """Outbox mutations whose verdict is still to come, lsn → mid; the oldest ``most`` of them."""
        held = sorted(self._by_lsn.items())
        return dict([(lsn, self._mids[one]) for lsn, one in held if one in self._mids and not one.settled][:most])

    def catch_up(self, asked: Iterable[int], whereabouts: Whereabouts) -> bool:
        """Take what another program has settled in the file; whether to look again.

        A mutation has to be missing twice: what this program has settled itself may be committed and not reported yet, and
        is reported with its sequence in a moment.
        """
        missing: set[int] = set()
        for lsn in asked:
            receipt = self._by_lsn.get(lsn)
            if receipt is None or receipt.settled:
                continue
            if lsn in whereabouts.pending:
                self.reissue(whereabouts.pending[lsn])
            elif lsn not in self._missing:
                missing.add(lsn)
            else:
                self.gone(receipt, whereabouts.rejected.get(lsn))
        self._missing = missing
        return bool(missing)

    def show_in_flight(self, mids: Iterable[int], in_flight: bool) -> None:
        """Say ``sent`` while a push carries a mutation, and ``queued`` again after it failed."""
        before: WriteState = "queued" if in_flight else "sent"
        for mid in mids:
            receipt = self._by_mid.get(mid)
            if receipt is not None and receipt.state == before:
                receipt.move("sent" if in_flight else "queued")

    def settle(self, settlements: Iterable[SettledItem]) -> None:
        """Notify the receipts of what a commit decided."""
        for settlement in settlements:
            if isinstance(settlement, Acked):
                receipt = self._by_mid.get(settlement.mid)
                # a number is given out again in the next life of a file: one that has come to its end stays there
                if receipt is not None and not receipt.settled:
                    receipt.move("accepted", settlement.seq)
            elif isinstance(settlement, Renumbered):
                self._renumber(settlement.lsn, settlement.mid)
            elif (receipt := self._by_lsn.get(settlement.lsn)) is not None:
                self._forget_number(receipt)
                if isinstance(settlement, Held):
                    _hold(receipt, settlement.why)
                else:
                    _remove(receipt, settlement.outcome)

    def _renumber(self, lsn: int, mid: int) -> None:
        receipt = self._by_lsn.get(lsn)
        if receipt is None or self._mids.get(receipt) == mid:
            return
        if receipt.state == "dead":  # it was held; whoever asks again gets another receipt
            del self._by_lsn[lsn]
            return
        self._forget_number(receipt)
        self._by_mid[mid] = receipt
        self._mids[receipt] = mid
        if receipt.state == "sent":
            receipt.move("queued")

    def _forget_number(self, receipt: WriteReceipt) -> None:
        """What is said of its number from now on is about another mutation: a file that is repaired counts anew."""
        if self._by_mid.get(number := self._mids.get(receipt, 0)) is receipt:
            del self._by_mid[number]

    def close(self, error: AtomaError) -> None:
        """Wake everybody who waits."""
        for receipt in list(self._by_lsn.values()):
            receipt.close(str(error))


def _hold(receipt: WriteReceipt, why: str) -> None:
    """The mutation stays here until somebody releases it."""
    receipt.refuse(refusal("HELD", why), "dead")


def _remove(receipt: WriteReceipt, outcome: Outcome | None) -> None:
    """The mutation has left the overlay."""
    if outcome is None:
        receipt.refuse(refusal("TAKEN_BACK", "the write was taken back on this device"))
    elif outcome.status == "rejected":
        receipt.refuse(outcome.error or refusal("REJECTED", "the hub refused the write"))
    else:
        receipt.settle("observed", outcome.seq)
