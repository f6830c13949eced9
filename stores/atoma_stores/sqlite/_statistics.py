"""What an open file has done, in figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """The work of a database since it was opened.

    Attributes:
        commits: Transactions committed; each FULL one is one fsync.
        units: Units committed in them.
        largest_group: Most units in one transaction.
        inline_commits: Transactions committed on the loop's thread.
        moved_reads: Reads that took too long on the loop and were run again in the pool.
        checkpoints: Checkpoints taken.
        reading: Reads that are running in the pool now.
        stuck: Those of them that should have been stopped long ago.
    """

    commits: int
    units: int
    largest_group: int
    inline_commits: int
    moved_reads: int
    checkpoints: int
    reading: int
    stuck: int
