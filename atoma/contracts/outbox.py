"""What waits on a device to be sent, as it is shown to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

from atoma.contracts.mutations import Op

WaitingState: TypeAlias = Literal["queued", "held", "sent", "accepted"]
"""``queued`` was never sent, ``held`` stays until it is released, ``sent`` may be decided by now, ``accepted`` waits for its page."""


class WaitingWrite(msgspec.Struct, frozen=True):
    """One write of the outbox: a mutation, which the hub takes or refuses as a whole.

    Attributes:
        key: What it is called here and everywhere; handles know it too.
        scope: The one scope that it touches.
        state: How far it is.
        ops: What it does, in today's terms, in order.
        written_ms: Wall-clock time of this device when it was written.
        mid: Its number towards the hub, -1 while it is held.
        attempts: How often it was sent in vain.
        next_attempt_ms: Wall-clock time of the next attempt, 0 for now.
        why: What the last attempt failed with; of a held one, why it is held; else ``""``.
        editable: Whether it can be held, edited and discarded: nobody but this device has seen it.
    """

    key: str
    scope: str
    state: WaitingState
    ops: tuple[Op, ...]
    written_ms: int
    mid: int
    attempts: int
    next_attempt_ms: int
    why: str
    editable: bool

    @property
    def rows(self) -> Mapping[tuple[str, str], str]:
        """The rows that it is on, as store and id, with the last thing that is done to each."""
        return {(op.store, op.id): op.kind for op in self.ops}
