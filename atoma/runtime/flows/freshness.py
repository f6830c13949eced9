"""Which answers are older than what is known since: an answer of before a write must not put the old row back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from atoma.mutations import RowKey

ROWS_MAX = 4096
READS_MAX = 256


class Freshness:
    """Remembers when rows were settled; bounded, and careful about what it has forgotten.

    Attributes:
        now: How many settlements there were: what a read notes when it begins.
    """

    def __init__(self) -> None:
        self.now = 0
        self._forgotten = 0
        self._settled: OrderedDict[RowKey, int] = OrderedDict()
        self._behind: OrderedDict[str, int] = OrderedDict()

    def settled(self, rows: Iterable[RowKey]) -> None:
        """The authority's images of ``rows`` are here."""
        self.now += 1
        for row in rows:
            self._settled[row] = self.now
            self._settled.move_to_end(row)
        while len(self._settled) > ROWS_MAX:
            _, self._forgotten = self._settled.popitem(last=False)

    def goes_on(self, trace_id: str, began: int) -> None:
        """A part of the read goes on behind its answer."""
        self._behind[trace_id] = began
        while len(self._behind) > READS_MAX:
            self._behind.popitem(last=False)

    def ended(self, trace_id: str) -> int:
        """That part has its answer; returns when the read began."""
        return self._behind.pop(trace_id, self.now)

    def is_old(self, began: int, row: RowKey) -> bool:
        """Whether the row may have been settled after a read that ``began`` then."""
        return began < self._forgotten or began < self._settled.get(row, 0)
