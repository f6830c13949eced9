"""Commits in which somebody holds, releases, edits or discards what was never sent, checked from outside.

Numbers that were given out are given out again, which nothing else may do. A mutation that loses its number here leaves what is
known of the outboxes: should the hub decide it all the same, it had been sent, and is a phantom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from atoma.testing.simulation.facts import Written, read_body
from atoma.testing.simulation.files import RawFile
from atoma.testing.simulation.history import History
from atoma.testing.simulation.memory import Memory
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.snapshots import Identity, Place

EDITED = "edit"
RENAMED = "renamed"
"""The fate of a name, in this file, that a copy of the file may still use for the mutation."""


class ByHand:
    """One commit while somebody is at work on an outbox; perhaps another one's.

    Args:
        name: Whose outbox it is.
        hand: What is done.
        memory: What is known of the file.
        history: The hub that it follows.
    """

    def __init__(self, name: str, hand: str, memory: Memory, history: History) -> None:
        self._name = name
        self._hand = hand
        self._memory = memory
        self._history = history
        self._moved: dict[int, Written] = {}

    def unwind(self, identity: Identity, digests: Mapping[int, bytes]) -> None:
        """Take back what is known of the numbers that were given out anew.

        Raises:
            Violation: One of them was decided.
        """
        memory, history = self._memory, self._history
        first = min(
            (mid for mid, digest in digests.items() if mid in memory.known and memory.known[mid].digest != digest),
            default=0,
        )
        first = first or (identity.next_mid if identity.next_mid <= len(memory.known) else 0)
        if not first:
            return
        history.counts["numbers given out anew"] += 1
        for mid in range(first, len(memory.known) + 1):
            written = memory.known.pop(mid)
            _, lsn = memory.unsettled.pop(written.name)
            if written.name not in memory.shared:
                if history.verdict(written) is not None:
                    raise Violation("I4", self._name, f"{written} was decided, and is taken back")
                del history.written[written.name]
            self._moved[lsn] = written

    def knows(self, lsn: int) -> bool:
        """Whether the mutation was there before this commit."""
        return lsn in self._moved or lsn in self._memory.held

    def again(self, lsn: int, written: Written) -> Written:
        """A mutation with its new number, and with what its user had seen when it was first written.

        Raises:
            Violation: It does something else than before.
        """
        memory = self._memory
        old = self._moved.pop(lsn, None) or memory.held.pop(lsn)
        self.check_same(old, written)
        written = written.known_by(old)
        memory.unsettled[written.name] = (written, lsn)
        self._rename(old, written)
        if memory.fates.get(written.first_name) == RENAMED:  # it has the number again that it had before
            del memory.fates[written.first_name]
        return written

    def check_same(self, old: Written, new: Written) -> None:
        """The same mutation by another number, or with one operation edited.

        Raises:
            Violation: It does something else than before.
        """
        changed = sum(before.said != after.said for before, after in zip(old.ops, new.ops, strict=True))
        if changed > (self._hand == EDITED) or old.base_seq != new.base_seq:
            raise Violation("I4", self._name, f"{old} became {new}")

    def _rename(self, old: Written, new: Written) -> None:
        if old.first_name in self._memory.shared and old.first_name != new.first_name:
            self._memory.fates[old.first_name] = RENAMED
        if old.name in self._memory.shared:  # whoever numbers it anew in the copy comes to the same name
            self._memory.shared.add(new.name)
        tokens = self._memory.tokens
        tokens.update({token: new.name for token, name in tokens.items() if name == old.name})

    def hold(self, lsn: int, written: Written) -> None:
        """A mutation that has lost its number, and stays."""
        old = self._moved.pop(lsn)
        self.check_same(old, written)
        written = written.known_by(old)
        self._rename(old, written)
        self._memory.held[lsn] = written

    def discarded(self) -> None:
        """What is nowhere any more was taken back."""
        memory = self._memory
        for written in self._moved.values():
            memory.fates[written.name] = "rejected"
            self._history.counts["writes discarded"] += 1


@dataclass(frozen=True, slots=True)
class Restated:
    """The terms in which a repair says held mutations anew.

    Attributes:
        numbers: The new number of each mutation that is sent again, by its old one.
        forks: How far the hub's history is the file's, by scope, where a part is lost.
    """

    numbers: Mapping[int, int]
    forks: Mapping[str, int]

    def of(self, written: Written, epoch: bytes) -> Written:
        """What ``written`` has to become; ``epoch`` is what it says."""
        ops = tuple(replace(op, after_mid=self.numbers.get(op.after_mid, 0)) for op in written.ops)
        fork = self.forks.get(written.scope)
        if fork is None:
            return replace(written, ops=ops)
        return replace(written, ops=ops, base_seq=min(written.base_seq, fork), epoch=epoch)


def read_held(
    name: str,
    memory: Memory,
    file: RawFile,
    places: Mapping[str, Place],
    byhand: ByHand | None,
    restated: Restated | None,
    counts: Counter[str],
) -> Mapping[int, Written]:
    """What is held after a commit; the mutations that were held and have gone, which nobody has discarded.

    Raises:
        Violation: One is held that nobody held and that builds on none, or says something else than before.
    """
    rows = file.rows("SELECT lsn, scope, body FROM _atoma_pending WHERE kind='held' ORDER BY lsn")
    for lsn, scope, body in rows:
        known = memory.held.get(lsn)
        written = read_body(b"", b"held:%d" % lsn, body, places[scope].hash)
        if known is not None:
            written = written.known_by(known)
        if known is None and byhand is not None and byhand.knows(lsn):
            byhand.hold(lsn, written)
        elif known is None:
            if not any(written.keys & other.keys for other in memory.held.values()):
                raise Violation("F76", name, f"a write is held that builds on no held one: {written}")
            memory.held[lsn] = written
            memory.note_tokens(written)
        elif byhand is not None:
            byhand.check_same(known, written)
            memory.held[lsn] = written
        else:
            wanted = known if restated is None else restated.of(known, written.epoch)
            if written != wanted:
                raise Violation("I4", name, f"{known} became {written}")
            memory.held[lsn] = written
        memory.dead.update(str(op.values["token"]) for op in written.ops if "token" in op.values)
        counts["writes held"] += known is None
    gone = {lsn: memory.held.pop(lsn) for lsn in memory.held.keys() - {row[0] for row in rows}}
    if byhand is not None:
        memory.fates.update(dict.fromkeys((written.name for written in gone.values()), "rejected"))
        byhand.discarded()
        return {}
    return gone
