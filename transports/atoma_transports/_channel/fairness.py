"""What every principal has once on a port, over all its connections."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from atoma.ports.principals import PerPrincipal


@dataclass(slots=True, eq=False)
class Owner:
    """What belongs to one principal.

    Attributes:
        permit: Held while a large request of theirs is read.
    """

    permit: trio.Lock = field(default_factory=trio.Lock)

    @property
    def idle(self) -> bool:
        """Whether it is as good as a fresh one."""
        return not self.permit.locked()


class Fairness:
    """The principals of one port."""

    def __init__(self) -> None:
        self._owners = PerPrincipal(Owner, lambda owner: owner.idle)

    def of(self, subject: str) -> Owner:
        """What belongs to the principal ``subject``."""
        return self._owners.of(subject)
