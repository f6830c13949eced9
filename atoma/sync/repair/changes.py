"""What repairs change in the local database, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoma.contracts.replica import LostRow, RepairReport
from atoma.ports.execution import Voided
from atoma.sync.repair.offers import expire_lost, offer_again
from atoma.sync.repair.rebirth import Rebirth, be_reborn
from atoma.sync.settle import Settlement
from atoma.sync.staging import Opened


@dataclass(frozen=True, slots=True)
class Offered:
    """Rows that the hub has lost and this device had are offered to it again.

    Attributes:
        entries: The rows.
        released: Whether the operator takes them, also if nothing proves them.
    """

    entries: Sequence[LostRow]
    released: bool = False

    def stage(self, at: Opened) -> None:
        """Queue the offers."""
        at.touched.update(offer_again(at.tx, self.entries, at.ids, released=self.released))


@dataclass(frozen=True, slots=True)
class Discarded:
    """Rows that the hub has lost are left as the hub has them."""

    numbers: Sequence[int]

    def stage(self, at: Opened) -> None:
        """Mark them as resolved."""
        for number in self.numbers:
            at.tx.inbox.resolve_lost(number, "discarded")


@dataclass(frozen=True, slots=True)
class Aged:
    """The closing of what nobody has decided about for long; what was closed long ago is forgotten."""

    def stage(self, at: Opened) -> int:
        """Look for it; how many rows were closed."""
        return expire_lost(at.tx)


@dataclass(frozen=True, slots=True)
class Reborn:
    """The file begins anew under another name.

    Attributes:
        rebirth: What it is made of.
        rehearsal: Take it back, and only tell what it would have done.
    """

    rebirth: Rebirth
    rehearsal: bool = False

    def stage(self, at: Opened) -> tuple[RepairReport, Settlement]:
        """Be reborn; what that did, and what to tell listeners.

        Raises:
            HistoryMoved: A staged snapshot is no longer there.
            Voided: It was a rehearsal.
        """
        work = Settlement(at.touched)
        done = (be_reborn(at.tx, self.rebirth, at.ids, work), work)
        if self.rehearsal:
            raise Voided(done)
        return done
