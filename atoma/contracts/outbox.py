"""The outbox as it is shown to people."""

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
        key: Its idempotency key, by which handles and the hub know it too.
        scope: The one scope that it touches.
        state: Its progress.
        ops: Its operations in order, in terms of the current schema.
        written_ms: Wall-clock time of this device when it was written.
        mid: Its number towards the hub, -1 while it is held.
        attempts: How often it was sent without success.
        next_attempt_ms: Wall-clock time of the next attempt, 0 for now.
        why: Why the last attempt failed; for a held one, why it is held; else ``""``.
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
        """The rows that it changes, as store and id, with the last operation on each."""
        return {(op.store, op.id): op.kind for op in self.ops}
