"""Which scopes a device replicates: those that it was configured with, and those that were brought along while it ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from atoma.contracts.replica import BroughtScope
from atoma.errors import ConfigurationError
from atoma.sync.wake import Bell

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class IdleScopes:
    """The bounds of what stays of scopes that were brought along and that nobody uses any more; what is beyond them is dropped.

    Attributes:
        count: So many of them stay, those that were used last.
        seconds: Each stays for so long after its last use.

    Raises:
        ConfigurationError: Either is below 0.
    """

    count: int = 32
    seconds: float = 7 * DAY_S

    def __post_init__(self) -> None:
        if not (self.count >= 0 and self.seconds >= 0):
            raise ConfigurationError(
                f"IdleScopes(): a count and seconds of at least 0, not {self.count}, {self.seconds}"
            )


@dataclass(slots=True)
class ReplicatedScopes:
    """The scopes that replicate now. The file is the truth of those that were brought along; this is what was read of it last.

    Attributes:
        fixed: Those that the program was configured with, in order.
        brought: Those that were brought along, by name.
        leaving: Those of them that are being dropped: nobody is shown them any more.
        anew: Scopes that somebody asks for though the hub has refused them in this session.
        bell: Rung when any of this changes.
    """

    fixed: tuple[str, ...]
    brought: dict[str, BroughtScope] = field(default_factory=dict[str, BroughtScope])
    leaving: set[str] = field(default_factory=set[str])
    anew: set[str] = field(default_factory=set[str])
    bell: Bell = field(default_factory=Bell)

    @property
    def every(self) -> tuple[str, ...]:
        """All that replicate: the fixed ones in order, then the others by name."""
        return (*self.fixed, *(scope for scope in sorted(self.brought) if scope not in self.leaving))

    def read(self, found: Sequence[BroughtScope]) -> tuple[list[str], list[str]]:
        """Take over what the file says of scopes that were brought along; names of those that are new, and of those that are gone."""
        brought = {each.scope: each for each in found if each.scope not in self.fixed}
        new = [scope for scope in brought if scope not in self.brought]
        gone = [scope for scope in self.brought if scope not in brought]
        if brought != self.brought:
            self.brought = brought
            self.bell.ring()
        return new, gone

    def ask_anew(self, scopes: Iterable[str]) -> None:
        """Have the hub asked again for scopes that it has refused."""
        self.anew.update(scopes)
        self.bell.ring()
