"""What a local commit changed, as every follower of the database hears it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from atoma.contracts.values import StoredRow

RowChange: TypeAlias = tuple[StoredRow | None, StoredRow | None]
"""``(old, new)``: the visible row before and after; None where there was or is no row. Never both None."""

StoreDelta: TypeAlias = Mapping[str, RowChange]
"""Row id → change; rows that are the same before and after are not in it."""


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """The net effect of one local commit on the visible rows.

    Attributes:
        commit: Number of the commit; rises by one per committed unit, also by units that change no visible row.
        changes: Store name → delta. Stores without a change are absent; empty for a commit that no view can see.
    """

    commit: int
    changes: Mapping[str, StoreDelta]


CommitListener: TypeAlias = Callable[[ChangeSet], None]
"""Called on the loop's thread after COMMIT, in commit order; it must not block."""
