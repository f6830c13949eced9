"""Who may have the stores open while steps convert them: nobody but the program that does it.

Rows that are converted mean something else to a program of before, which would read them as its own. So every connection of a hub
holds a lock for as long as it is there, shared with the others, and looks, once it has that, whether the stores are still as it knows
them. Whoever converts them takes the lock for itself, and gets it only when the last of the others has gone.
"""

from __future__ import annotations

from typing import Final, cast

from atoma.errors import StoreBusy
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.scripts import Execute, Script

STEPS: Final = "steps"
"""Where ``meta`` has the version that steps have led to last."""
_LOCK: Final = ("1635020653", "1")
"""``atom``, and which of our locks."""
JOIN: Final = Execute(f"SELECT 1 FROM pg_advisory_lock_shared({', '.join(_LOCK)})")
"""Waits for whoever converts the stores; a statement of its own, as what is read behind it is to be of later."""
_ALONE: Final = Execute(f"SELECT pg_try_advisory_xact_lock({', '.join(_LOCK)})::int")
_OTHERS: Final = Execute(
    "SELECT DISTINCT coalesce(host(a.client_addr), 'this machine') FROM pg_locks l JOIN pg_stat_activity a ON a.pid=l.pid "
    f"WHERE l.locktype='advisory' AND l.classid={_LOCK[0]} AND l.objid={_LOCK[1]} AND a.datname=current_database() ORDER BY 1"
)
_REACHED: Final = Execute(POSTGRESQL.render("SELECT m.value FROM {meta} m WHERE m.key={p1}"), (STEPS,))


class NotAlone(Exception):
    """Other programs have the stores open.

    Args:
        where: The machines that they run on.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def told(self, database: str) -> StoreBusy:
        """The error that says what to do."""
        return StoreBusy(
            f"{database}: steps convert the stores, and hub processes of before have them open (on {self.where}): stop every one "
            "of them, then start this one; devices keep what they write meanwhile"
        )


def take_alone() -> Script[None]:
    """Keep every other program out until the transaction ends.

    Raises:
        NotAlone: There are others.
    """
    (taken,) = yield [_ALONE]
    if not taken[0][0]:
        (others,) = yield [_OTHERS]
        raise NotAlone(", ".join(str(row[0]) for row in others) or "another machine")


def check_known(version: int) -> Script[None]:
    """See that no step has led beyond ``version``.

    Raises:
        StoreBusy: One has: this program knows the stores no more.
    """
    (rows,) = yield [_REACHED]
    reached = int(cast("str", rows[0][0])) if rows else 0
    if reached > version:
        raise StoreBusy(
            f"a newer program has converted the stores to version {reached}, and this one knows version {version}: start it again "
            "as the newer program"
        )
