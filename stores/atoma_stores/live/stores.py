"""The views of one store, and which of them a commit may concern."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atoma_stores.changes import BeforeAfter, CommitDelta, StoreDelta
from atoma_stores.live.index import PredicateIndex
from atoma_stores.live.operators.operator import Deltas
from atoma_stores.live.view import View

ConcernedViews: TypeAlias = dict[View, dict[str, BeforeAfter]]
"""View → the changed rows that it may be concerned by, judged by the values it is filed under."""
Hits: TypeAlias = dict[View, Deltas]
"""View → the changes that concern it."""


class StoreViews:
    """The views of one store.

    Attributes:
        name: The store.
        commits: Commits that changed it since it is followed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.commits = 0
        self._index: PredicateIndex[View] = PredicateIndex()
        self._views: dict[View, None] = {}

    def __iter__(self) -> Iterator[View]:
        return iter(tuple(self._views))

    def add(self, view: View) -> None:
        """Follow the store for ``view``."""
        self._views[view] = None
        beside = self._index.add(view.planned.needs[self.name], view)
        if beside is not None:
            view.beside[self.name] = beside

    def remove(self, view: View) -> None:
        """Forget ``view``."""
        del self._views[view]
        view.beside.pop(self.name, None)
        self._index.remove(view.planned.needs[self.name], view)

    def find(self, id: str, change: BeforeAfter, found: ConcernedViews, *, every: bool) -> int:
        """Add to ``found`` the views that a changed row may concern by its values; how many they are.

        Args:
            id: Of the row.
            change: What was done to it.
            found: Where they are added.
            every: Whether there are changes before this one that nobody has looked at yet.
        """
        views: dict[View, None] = {}
        old, new = change
        if old is not None:
            self._index.find(old, views, every=every)
        if new is not None:
            self._index.find(new, views, every=every)
        for view in views:
            found.setdefault(view, {})[id] = change
        return len(views)

    def judge(self, view: View, changes: StoreDelta, hits: Hits, clock: Callable[[], float]) -> None:
        """Add ``view`` to ``hits`` with those of ``changes`` that concern it, if any do; what that costs is measured by ``clock``."""
        if deltas := view.concerns(self.name, changes, clock):
            hits[view] = {**hits[view], **deltas} if view in hits else deltas


@dataclass(slots=True)
class PendingCommit:
    """A commit that a round has to take.

    Attributes:
        commit: Its number.
        hits: The views that it concerns, with what concerns them.
        later: What was too much to be looked at when it was heard.
        unknown: Whether nobody has told, or nobody knows any more, what the commits from ``first`` up to this one changed.
        written: Stores in which rows were changed that nobody has told.
        rows: How many changed rows it keeps in memory.
        first: The first commit that it stands for, where it stands for more than one.
    """

    commit: int
    hits: Hits
    later: CommitDelta | None = None
    unknown: bool = False
    written: Sequence[StoreViews] = ()
    rows: int = 0
    first: int = 0

    @property
    def is_known(self) -> bool:
        """Whether it is known what it concerns."""
        return not self.unknown and not self.written and self.later is None
