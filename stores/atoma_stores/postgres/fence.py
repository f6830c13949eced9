"""The lock that keeps all other programs out while steps convert the stores.

Converted rows have another meaning to an older program, which would read them as its own. So every connection of a hub holds a
shared lock for as long as it is open, and checks, once it has the lock, that the stores are still as it knows them. The program
that converts them takes the lock exclusively, and gets it only when the last of the others has gone.
"""

from __future__ import annotations

from typing import Final, cast

from atoma.errors import StoreBusy
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.scripts import Execute, Script

STEPS: Final = "steps"
"""The key in ``meta`` of the version that the last steps have led to."""
_LOCK: Final = ("1635020653", "1")
"""``atom``, and the number of the lock."""
JOIN: Final = Execute(f"SELECT 1 FROM pg_advisory_lock_shared({', '.join(_LOCK)})")
"""Waits for a program that converts the stores; a separate statement, so that later reads see the result."""
_ALONE: Final = Execute(f"SELECT pg_try_advisory_xact_lock({', '.join(_LOCK)})::int")
_OTHERS: Final = Execute(
    "SELECT DISTINCT coalesce(host(a.client_addr), 'this machine') FROM pg_locks l JOIN pg_stat_activity a ON a.pid=l.pid "
    f"WHERE l.locktype='advisory' AND l.classid={_LOCK[0]} AND l.objid={_LOCK[1]} AND a.datname=current_database() ORDER BY 1"
)
_REACHED: Final = Execute(POSTGRESQL.render("SELECT m.value FROM {meta} m WHERE m.key={p1}"), (STEPS,))


class NotAlone(Exception):
    """A refusal: other programs have the stores open.

    Args:
        where: The machines that they run on.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def told(self, database: str) -> StoreBusy:
        """Return the error that says what to do."""
        return StoreBusy(
            f"{database}: steps convert the stores, and hub processes of before have them open (on {self.where}): stop every one "
            "of them, then start this one; devices keep what they write meanwhile"
        )


def take_alone() -> Script[None]:
    """Keep every other program out until the transaction ends.

    Raises:
        NotAlone: Other programs are connected.
    """
    (taken,) = yield [_ALONE]
    if not taken[0][0]:
        (others,) = yield [_OTHERS]
        raise NotAlone(", ".join(str(row[0]) for row in others) or "another machine")


def check_known(version: int) -> Script[None]:
    """Check that no step has led beyond ``version``.

    Raises:
        StoreBusy: One has, so this program does not know the stores any more.
    """
    (rows,) = yield [_REACHED]
    reached = int(cast("str", rows[0][0])) if rows else 0
    if reached > version:
        raise StoreBusy(
            f"a newer program has converted the stores to version {reached}, and this one knows version {version}: start it again "
            "as the newer program"
        )
