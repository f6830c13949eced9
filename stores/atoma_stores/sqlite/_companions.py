"""The programs that have one file open: each says that it is there, and one of them runs the sync lanes.

Nobody tells a process that another one has written to a file, so a task looks at the number of the last commit, often and
cheaply. A program beats while there are others, so that one that was killed or stopped is found out: nothing is kept for it,
and another one leads.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import apsw
import trio

from atoma.errors import StoreError
from atoma_stores.sqlite.meta import read_meta, write_meta

LOOK_S = 0.05
"""How often a program looks whether others have committed, while there are others."""
LOOK_ALONE_S = 0.25
"""How often it looks where nobody else has been seen for a while: to be woken costs more than to look."""
QUIET_S = 10.0
"""How long a tool that has written is looked for as if it were a program that has the file open."""
BEAT_S = 1.0
"""How often a program says that it is alive, while there are others."""
LEASE_S = 3.0
"""A leader that has not said so for so long is replaced."""
DEAD_S = 10.0
"""A program that has not said so for so long is taken for dead; one that was only stopped announces itself again."""
TERM = "lead_term"
"""The fact that says how often the lead has changed hands."""

_LEADER = "leader"
_JOIN = "INSERT INTO _atoma_process(beat) VALUES(0)"
_JOIN_AGAIN = "INSERT INTO _atoma_process(id, beat) VALUES(?, 0)"
_BEAT = "UPDATE _atoma_process SET beat=beat+1 WHERE id=?"
_LEAVE = "DELETE FROM _atoma_process WHERE id=?"
_ALL = "SELECT id, beat FROM _atoma_process"


@dataclass(frozen=True, slots=True)
class CompanionsSeen:
    """The findings of a program among those that have the file open.

    Attributes:
        beats: The beat of each, by its number.
        term: The number of this program's reign; 0 while another one leads, or nobody.
        led: Whether another one leads.
    """

    beats: dict[int, int]
    term: int
    led: bool = False


class Companions:
    """This program among those that have the file open; implements ``Lead``.

    Whether another one is alive is judged by this program's own clock: it has moved its beat, or it has not. So no two clocks are compared.

    Attributes:
        id: Its number; no other program of this file ever has it.
        term: The number of its reign, which its transactions are fenced with; 0 while it does not lead.
        led: Whether another program led at the last beat.
        fault: Why the last beat failed; None once one did not.
        wanted: Whether it wants to lead.
        woken: Set when the next beat is due at once.
    """

    def __init__(self) -> None:
        self.id = 0
        self.term = 0
        self.led = False
        self.fault: StoreError | None = None
        self.wanted = False
        self.woken = trio.Event()
        self._moved = trio.Event()
        self._since: dict[int, tuple[int, float]] = {}

    # what the sync lanes ask

    def want(self, wanted: bool) -> None:
        """Try to lead from now on, or let another one do it."""
        if self.wanted != wanted:
            self.wanted = wanted
            self.wake()

    def stand_back(self) -> None:
        """Let another program lead, if there is one, until it is wanted again."""
        if len(self._since) > 1:
            self.want(False)

    def doubt(self) -> None:
        """Do not lead before the file was asked again: a transaction was refused."""
        self._take(0)
        self.wake()

    async def wait_change(self, term: int, fault: StoreError | None = None) -> None:
        """Wait until its reign is not ``term``, or what has failed is not ``fault``; at once if so already."""
        while self.term == term and self.fault is fault:
            await self._moved.wait()

    # what the database does

    def wake(self) -> None:
        """Let the next beat come at once."""
        self.woken.set()

    def join(self, connection: apsw.Connection) -> None:
        """Announce it; in a write transaction."""
        connection.execute(_JOIN)
        self.id = connection.last_insert_rowid()

    def beat(self, connection: apsw.Connection, now: float) -> CompanionsSeen:
        """Say that it is alive, and lead if it wants to and nobody does; in a write transaction."""
        connection.execute(_BEAT, (self.id,))
        if not connection.changes():  # it was stopped for so long that others took it for dead
            connection.execute(_JOIN_AGAIN, (self.id,))
        beats = dict(cast("list[tuple[int, int]]", connection.execute(_ALL).fetchall()))
        dead = self._silent(beats, now, DEAD_S)
        connection.executemany(_LEAVE, [(id,) for id in dead])
        leader, term = cast("int", read_meta(connection, _LEADER) or 0), term_of(connection)
        if self.wanted and leader != self.id and (leader not in beats or leader in self._silent(beats, now, LEASE_S)):
            leader, term = self.id, term + 1
            write_meta(connection, _LEADER, leader)
            write_meta(connection, TERM, term)
        elif leader == self.id and not self.wanted:
            leader = 0
            write_meta(connection, _LEADER, leader)
        alive = {id: beat for id, beat in beats.items() if id not in dead}
        return CompanionsSeen(alive, term if leader == self.id else 0, leader != self.id and leader in alive)

    def take(self, seen: CompanionsSeen, now: float) -> None:
        """Go by what a beat has found."""
        known = self._since
        self._since = {
            id: known[id] if id in known and known[id][0] == beat else (beat, now) for id, beat in seen.beats.items()
        }
        self.led = seen.led
        self._take(seen.term)

    def fail(self, error: StoreError) -> None:
        """Have it known that a beat failed; it leads, or follows, as it did, and tries again at the next one."""
        self._take(self.term, error)

    def leave(self, connection: apsw.Connection) -> None:
        """Take this one out; in a write transaction."""
        connection.execute(_LEAVE, (self.id,))

    def _take(self, term: int, fault: StoreError | None = None) -> None:
        if term != self.term or fault is not self.fault:
            self.term, self.fault = term, fault
            self._moved.set()
            self._moved = trio.Event()

    def _silent(self, beats: dict[int, int], now: float, seconds: float) -> list[int]:
        """The others whose beat is what it was for so long."""
        known = self._since
        return [
            id
            for id, beat in beats.items()
            if id != self.id and id in known and known[id][0] == beat and now - known[id][1] > seconds
        ]


def term_of(connection: apsw.Connection) -> int:
    """The number of the reign that the file is in, whoever leads; in a transaction."""
    return cast("int", read_meta(connection, TERM) or 0)
