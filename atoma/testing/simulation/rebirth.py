"""The one commit in which a file takes another identity, checked from outside: what it had is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from atoma.testing.simulation.facts import Key, Offered, Written, replayed
from atoma.testing.simulation.history import History
from atoma.testing.simulation.lineage import State
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.snapshots import Pending, Place, Snapshot
from atoma.testing.simulation.stores import SCOPES


def renamed(written: Written, before: Pending | None, place: Place, history: History, where: str) -> Written:
    """A mutation of a new life, with what its user had seen when it was first written.

    Args:
        written: As its bytes tell.
        before: What it was in the life before, None when it is new.
        place: Where its scope is now.
        history: The hub.
        where: For the violation.

    Raises:
        Violation: It is neither an offer nor a mutation that was pending before.
    """
    if before is None:
        if written.offered is None:
            raise Violation("I26", where, f"a repair wrote a mutation of its own: {written}")
        if not written.offered.proven:  # the operator takes such only when everything has been repaired
            raise Violation(
                "I22", where, f"nothing proves what a repair offers, and nobody has said that it may: {written}"
            )
        return replace(written, seen=history.lineage.fork(written.scope, written.offered.hash, place.hash).hash)
    old = before.written
    if _told(written) != _told(old) or (written.origin is None) != (old.offered is not None):
        raise Violation("I26", where, f"{old} became {written}")
    if written.origin is not None and written.origin != old.first_name:
        raise Violation("I24", where, f"{old.first_name} is called {written.origin} in its new life")
    if [op.said for op in old.ops] != [op.said for op in written.ops]:
        raise Violation("I26", where, f"{old} became {written}")
    return written.known_by(old)


def _told(written: Written) -> Offered | None:
    return None if written.offered is None else written.offered.told


def same(before: Pending | None, written: Written) -> Pending | None:
    """What ``written`` was before: offers of a repair lie where those of an earlier one may have lain."""
    if before is not None and before.written.offered is not None and _told(before.written) != _told(written):
        return None
    return before


@dataclass(frozen=True, slots=True)
class Rebirth:
    """The commit.

    Attributes:
        name: Whose file it is.
        history: The hub.
        before: The file before.
        now: The file after.
        report: What the file says about it.
        seen: What of a scope's rows a file shows that is as it is in a snapshot.
    """

    name: str
    history: History
    before: Snapshot
    now: Snapshot
    report: Mapping[str, Any]
    seen: Callable[[Snapshot, str, State], State]

    def again(self) -> Iterator[tuple[Written, Written]]:
        """Mutations that are sent again: what they were, and what they are now."""
        before = self.before.by_lsn
        for pending in self.now.outbox.values():
            if (old := same(before.get(pending.lsn), pending.written)) is not None:
                yield old.written, pending.written

    def lets_go(self, written: Written) -> bool:
        """Whether the device need not say any more, with ``written``, that all its offers have come.

        One of them has left the outbox by a verdict, which the hub may have lost: nobody can tell that it has come.
        """
        return not written.ops and any(mid not in self.before.outbox for mid in range(1, written.mid))

    def cuts(self) -> Iterator[str]:
        """Scopes whose history the file has left."""
        for scope in SCOPES:
            if not self.history.lineage.leads_to(scope, self.before.places[scope].hash, self.now.places[scope].hash):
                yield scope

    def check(self) -> None:
        """I21, I25, I26: nothing has gone, and what was done is what is told.

        Raises:
            Violation: A promise does not hold.
        """
        for scope in self.cuts():
            self._check_lost_part(scope)
        self._check_numbers()
        self._check_report()

    def _check_lost_part(self, scope: str) -> None:
        """I21: each row that the hub has lost is offered, or kept, or is as it was."""
        lineage = self.history.lineage
        old, new = self.before.places[scope], self.now.places[scope]
        fork = lineage.fork(scope, old.hash, new.hash)
        told: int = self.report["forks"].get(scope, fork.seq)
        if told > fork.seq:
            raise Violation("I27", self.name, f"{scope} is taken to part at {told}, it parts at {fork.seq}")
        had, was = (self.seen(self.before, scope, rows) for rows in (lineage.rows(scope, old.hash), fork.rows))
        has = self.seen(self.now, scope, lineage.rows(scope, new.hash))
        for key in had.keys() | was.keys():
            image = had.get(key)
            if image in (was.get(key), has.get(key)):
                continue
            if image is None and self.before.marks.get(scope):
                continue  # it may have left the part that the file takes
            if image is None and self._is_written_anew(scope, key, told):
                continue
            offers = [
                p.written for p in self.now.outbox.values() if p.written.offered and p.written.offered.hash == old.hash
            ]
            if any(key in offer.keys and replayed({}, offer.ops, key) == image for offer in offers):
                continue
            kept = (row for number, row in self.now.lost.items() if number not in self.before.lost)
            reasons = [row.reason for row in kept if (row.scope, row.key, row.image) == (scope, key, image)]
            if "unproven" in reasons and self.before.proofs.get(scope):
                raise Violation("I22", self.name, f"{key} is taken to be unproven, and the file had a proof")
            if not reasons:
                where = f"{self.name} {scope}@{old.seq}, forked at {fork.seq}"
                raise Violation("I21", where, f"{key}, {image}, is neither offered nor kept")

    def _is_written_anew(self, scope: str, key: Key, fork: int) -> bool:
        """Whether the hub has written the row since: a device that saw it deleted cannot tell it from a new one.

        Where the hub does not know the device's epoch, ``fork`` lies before the place where the histories part, and that
        goes for more rows.
        """
        way = self.history.lineage.back(scope, self.now.places[scope].hash)
        behind = takewhile(lambda moment: moment.seq > fork, way)
        return any(key in moment.changed for moment in behind)

    def _check_numbers(self) -> None:
        """What builds on another mutation names its new number, or none when that is settled."""
        again = list(self.again())
        numbers = {old.mid: new.mid for old, new in again}
        for old, new in again:
            wanted = [numbers.get(op.after_mid, 0) if op.after_mid else 0 for op in old.ops]
            if [op.after_mid for op in new.ops] != wanted:
                raise Violation("I14", self.name, f"mutation {new.mid} builds on {wanted}, it says {new.ops}")

    def _check_report(self) -> None:
        """I25: the repair tells which identity it took, what it sends again, what it offers and what it keeps."""
        again = list(self.again())
        said = {new.name for _, new in again}
        offers = [p.written for p in self.now.outbox.values() if p.written.name not in said]
        found = {
            "old_client_id": self.before.identity.client,
            "new_client_id": self.now.identity.client,
            "renumbered": len(again),
            "doubtful": sum(new.doubtful for _, new in again),
            "offered": sum(len(offer.ops) for offer in offers),
            "lost": sum(number not in self.before.lost and not row.resolution for number, row in self.now.lost.items()),
        }
        told = {name: self.report[name] for name in found}
        if told != found or self.now.repairs != self.before.repairs + 1:
            raise Violation("I25", self.name, f"the repair did {found}, it tells {told}")
