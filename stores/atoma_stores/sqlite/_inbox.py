"""What is left for a person: refused work, lost rows, what repairs did, and what migrations could not convert."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import cast

from atoma.contracts.codec import decode, encode
from atoma.contracts.failures import refusal
from atoma.contracts.mutations import Op, Recovers
from atoma.contracts.quarantine import Quarantined
from atoma.contracts.replica import InboxEntry, LostRow, RepairReport
from atoma.contracts.sync import Cursor
from atoma.contracts.values import ErrorInfo
from atoma.schema.bodies import pack_op, unpack_op
from atoma_stores.sqlite import quarantine
from atoma_stores.sqlite._rows import TxState
from atoma_stores.sqlite._tables import pack, unpack

REPAIRS_KEPT = 20
_LOST = """SELECT n, store, id, scope, image, theirs, reason, fork, recovers, at_ms, resolution FROM _atoma_lost
    WHERE ? OR resolution='' ORDER BY n"""
_INBOX = "SELECT mid, store, id, scope, code, message, op, base, mine, theirs, theirs_seq, at_ms, resolution, lsn, incarnation"


class Inbox:
    """The work that came back to the user; see ``InboxPart``."""

    __slots__ = ("_connection", "_tables")

    def __init__(self, state: TxState) -> None:
        self._connection = state.connection
        self._tables = state.tables

    def add(self, entry: InboxEntry) -> None:
        """Keep something the user typed that the hub refused or cut."""
        e = entry
        table = self._tables.get(e.store)
        images = (pack(e.base, table), pack(e.mine, table), pack(e.theirs, table))
        self._connection.execute(
            "INSERT INTO _atoma_inbox(mid, store, id, scope, code, message, op, base, mine, theirs, theirs_seq, at_ms, "
            "resolution, lsn, incarnation) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                e.mid,
                e.store,
                e.id,
                e.scope,
                e.code,
                e.message,
                encode(pack_op(e.op, None if table is None else table.spec)),
                *images,
                e.theirs_seq,
                e.at_ms,
                e.resolution,
                e.lsn,
                e.incarnation,
            ),
        )

    def entries(self) -> Sequence[InboxEntry]:
        """Every inbox entry, oldest first, resolved ones too."""
        entries: list[InboxEntry] = []
        for row in self._connection.execute(f"{_INBOX} FROM _atoma_inbox ORDER BY n").fetchall():
            mid, store, id, scope, code, message = cast("tuple[int, str, str, str, str, str]", row[:6])
            table = self._tables.get(store)
            base, mine, theirs = (unpack(image, table) for image in row[7:10])
            rest = cast("tuple[int, int, str, int, int]", row[10:])
            op = unpack_op(decode(cast("bytes", row[6]), Op), None if table is None else table.spec)
            entries.append(InboxEntry(mid, store, id, scope, code, message, op, base, mine, theirs, *rest))
        return entries

    def resolve(self, entry: InboxEntry, resolution: str) -> None:
        """Mark an inbox entry as resolved."""
        self._connection.execute(
            "UPDATE _atoma_inbox SET resolution=? WHERE mid=? AND store=? AND id=? AND lsn=?",
            (resolution, entry.mid, entry.store, entry.id, entry.lsn),
        )

    def refusal_of(self, lsn: int, mid: int) -> ErrorInfo | None:
        """Why the hub refused a mutation; None when it was not refused."""
        found = self._connection.execute(
            "SELECT code, message FROM _atoma_inbox WHERE (lsn=? OR lsn=0 AND mid=?) AND code<>'MERGED' ORDER BY n LIMIT 1",
            (lsn, mid),
        ).fetchall()
        return refusal(*cast("tuple[str, str]", found[0])) if found else None

    def keep_lost(self, rows: Iterable[LostRow]) -> None:
        """Keep rows that the hub has lost; their ``number`` is ignored."""
        self._connection.executemany(
            "INSERT INTO _atoma_lost(store, id, scope, image, theirs, reason, fork, recovers, at_ms, "
            "resolution) VALUES(?,?,?,?,?,?,?,?,?,?)",
            (
                (r.store, r.id, r.scope, pack(r.image, table), pack(r.theirs, table), r.reason, encode(r.fork),
                 encode(r.recovers), r.at_ms, r.resolution)
                for r in rows
                for table in [self._tables.get(r.store)]
            ),
        )  # fmt: skip

    def lost(self, *, resolved: bool = True) -> Sequence[LostRow]:
        """Rows that were kept, oldest first; only those that are open when not ``resolved``."""
        entries: list[LostRow] = []
        for row in self._connection.execute(_LOST, (resolved,)).fetchall():
            key = cast("tuple[int, str, str, str]", row[:4])
            fork, recovers = decode(cast("bytes", row[7]), Cursor), decode(cast("bytes", row[8]), Recovers)
            rest = cast("tuple[int, str]", row[9:])
            reason = cast("str", row[6])
            table = self._tables.get(key[1])
            image, theirs = unpack(row[4], table), unpack(row[5], table)
            entries.append(LostRow(*key, image, theirs, reason, fork, recovers, *rest))
        return entries

    def resolve_lost(self, number: int, resolution: str) -> None:
        """Mark a kept row as resolved; one that is resolved already stays so."""
        self._connection.execute(
            "UPDATE _atoma_lost SET resolution=? WHERE n=? AND resolution=''", (resolution, number)
        )

    def forget_lost(self, numbers: Sequence[int]) -> None:
        """Let go of kept rows."""
        self._connection.executemany("DELETE FROM _atoma_lost WHERE n=?", ((number,) for number in numbers))

    def note_repair(self, report: RepairReport) -> None:
        """Remember what a repair did; the last twenty are kept."""
        self._connection.execute("INSERT INTO _atoma_repair(report) VALUES(?)", (encode(report),))
        number = self._connection.last_insert_rowid()
        self._connection.execute("DELETE FROM _atoma_repair WHERE n<=?", (number - REPAIRS_KEPT,))

    def repairs(self) -> Sequence[RepairReport]:
        """The last repairs, oldest first."""
        rows = self._connection.execute("SELECT report FROM _atoma_repair ORDER BY n").fetchall()
        return [decode(cast("bytes", row[0]), RepairReport) for row in rows]

    def quarantine(self) -> Sequence[Quarantined]:
        """What migrations could not convert, oldest first."""
        return quarantine.read(self._connection)

    def forget_quarantined(self, numbers: Collection[int]) -> int:
        """Let go of what was put aside; how many entries there were."""
        return quarantine.forget(self._connection, numbers)
