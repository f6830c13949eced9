"""What the checkers know of one device's file over all its openings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from atoma.testing.simulation.facts import Name, Written
from atoma.testing.simulation.snapshots import Snapshot


@dataclass(slots=True)
class Memory:
    """The knowledge of a file; it goes back with the file when that is restored, and twice on with a copy.

    Attributes:
        now: What the last commit left.
        tokens: The first mutation with each token that was committed here, by its first name.
        known: Mutations of the present life, by number.
        unsettled: Those that are in the outbox, by their names, with their local order.
        fates: How those ended that have, by their first name: ``observed``, ``rejected``, ``let go`` or ``renamed``.
        held: Those that are held, by their local order.
        dead: Tokens of writes that were held at some time: their handles have ended.
        doubt: What somebody did about the outbox as the disk failed: whether it was done shows when the file is opened again.
        promised: Tokens of the writes that have returned.
        downgraded: Whether the file was made one of an earlier version, so that it has to be proved again.
        shared: Mutations that a copy of the file holds as well, by their names: what is not done with them here, may be there.
    """

    now: Snapshot | None = None
    tokens: dict[str, Name] = field(default_factory=dict[str, Name])
    known: dict[int, Written] = field(default_factory=dict[int, Written])
    unsettled: dict[Name, tuple[Written, int]] = field(default_factory=dict[Name, tuple[Written, int]])
    fates: dict[Name, str] = field(default_factory=dict[Name, str])
    held: dict[int, Written] = field(default_factory=dict[int, Written])
    dead: set[str] = field(default_factory=set[str])
    doubt: str = ""
    promised: set[str] = field(default_factory=set[str])
    downgraded: bool = False
    shared: set[Name] = field(default_factory=set[Name])

    def names(self) -> set[Name]:
        """What every mutation that the file knows of was called first."""
        return {written.first_name for written, _ in self.unsettled.values()} | self.fates.keys()

    def note_tokens(self, written: Written) -> None:
        """Note the tokens of a mutation that was committed here; whoever insists on a refused write repeats its token."""
        for op in written.ops:
            if "token" in op.values:
                self.tokens.setdefault(str(op.values["token"]), written.name)

    def copy(self) -> Memory:
        """The same, to go on from twice."""
        self.shared |= self.unsettled.keys()
        return replace(
            self,
            tokens=dict(self.tokens),
            known=dict(self.known),
            unsettled=dict(self.unsettled),
            fates=dict(self.fates),
            held=dict(self.held),
            dead=set(self.dead),
            promised=set(self.promised),
            shared=set(self.shared),
        )
