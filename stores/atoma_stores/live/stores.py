"""The views of one store, and the search for those that a commit may concern."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atoma_stores.changes import BeforeAfter, CommitDelta, StoreDelta
from atoma_stores.live.index import PredicateIndex
from atoma_stores.live.operators.operator import Deltas
from atoma_stores.live.view import View

ConcernedViews: TypeAlias = dict[View, dict[str, BeforeAfter]]
"""View → the changed rows that may concern it, according to the values in its index entry."""
Hits: TypeAlias = dict[View, Deltas]
"""View → the changes that concern it."""


class StoreViews:
    """The views of one store.

    Attributes:
        name: The store.
        commits: Number of commits that have changed it since it was first followed.
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
        """Add to ``found`` the views that a changed row may concern by its values, and return their number.

        Args:
            id: The id of the row.
            change: The change.
            found: The views that were found.
            every: Whether earlier changes have not been examined yet.
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
        """Add ``view`` to ``hits`` with those of ``changes`` that concern it, if any; ``clock`` measures the cost."""
        if deltas := view.concerns(self.name, changes, clock):
            hits[view] = {**hits[view], **deltas} if view in hits else deltas


@dataclass(slots=True)
class PendingCommit:
    """A commit that a round has to process.

    Attributes:
        commit: Its number.
        hits: The views that it concerns, with the changes that concern them.
        later: The changes that were too many to be examined when it was reported.
        unknown: Whether the changes of the commits from ``first`` up to this one were not reported, or are no longer known.
        written: Stores whose changed rows were not reported.
        rows: Number of changed rows that it keeps in memory.
        first: The first commit that it represents, if it represents several.
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
        """Whether all that it concerns is known."""
        return not self.unknown and not self.written and self.later is None
