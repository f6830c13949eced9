"""What a local commit changed, as every follower of the database receives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from atoma.contracts.mutations import Effect
from atoma.contracts.replica import ReplicaDelta
from atoma.contracts.values import StoredRow

BeforeAfter: TypeAlias = tuple[StoredRow | None, StoredRow | None]
"""``(old, new)``: the visible row before and after; None where there was, or is, no row. Never both None."""

StoreDelta: TypeAlias = Mapping[str, BeforeAfter]
"""Row id → change; rows that are the same before and after are not in it."""


class CommitDelta(msgspec.Struct, frozen=True):
    """The net effect of one local commit on the visible rows.

    Attributes:
        commit: Number of the commit; rises by one per committed unit, also by units that change no visible row.
        changes: Store name → delta. Stores without a change are absent; empty for a commit that no view can see.
        saved: See ``Commit.saved``.
        before: The last commit that was told before it; None for the one with the number before. Those between, of which
            nothing is known beside ``unknown``, are told with it.
        unknown: Stores in which rows were changed by other programs that do not say which.
        replica: See ``Commit.replica``.
    """

    commit: int
    changes: Mapping[str, StoreDelta]
    saved: Sequence[Effect] = ()
    before: int | None = None
    unknown: frozenset[str] = frozenset()
    replica: ReplicaDelta | None = None

    @property
    def is_own(self) -> bool:
        """Whether this program made it: what others did is told from where they were heard last."""
        return self.before is None


CommitListener: TypeAlias = Callable[[CommitDelta], None]
"""Called on the loop's thread after COMMIT, in commit order; it must not block."""
