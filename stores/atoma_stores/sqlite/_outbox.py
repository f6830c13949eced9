"""Pending mutations: the outbox, volatile entries, and who this file is to the hub."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import apsw
from msgspec import json
from msgspec.structs import astuple

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import PendingKind, PendingMutation
from atoma.contracts.replica import ClientIdentity
from atoma.contracts.sync import Outcome
from atoma.contracts.values import RowImage, RowKey
from atoma.errors import ConflictError, OutboxFull
from atoma.schema.kinds import INT64_MAX
from atoma_stores.sqlite._rows import TxState
from atoma_stores.sqlite._tables import pack, unpack
from atoma_stores.sqlite.meta import read_meta, write_meta

PendingRow: TypeAlias = tuple[str, str, RowImage | None]
_PendingColumns: TypeAlias = tuple[int, PendingKind, int, str, str, int, bytes, bytes, int, int, int, int, str, bytes]
_COLUMNS = (
    "lsn, kind, mid, idem, scope, base_seq, body, digest, status, ack_seq, attempts, next_attempt_ms, last_error, local"
)
_PENDING = f"SELECT {_COLUMNS} FROM _atoma_pending"
_ENQUEUE = f"INSERT INTO _atoma_pending({_COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_KEYS = "SELECT mid, idem FROM _atoma_pending WHERE mid IN (SELECT value FROM json_each(?)) AND kind='outbox'"
_REMOVE = (
    "DELETE FROM _atoma_pending WHERE lsn IN (SELECT value FROM json_each(?)) RETURNING lsn, kind, length(body), idem"
)
_REMOVE_ROWS = "DELETE FROM _atoma_pending_row WHERE lsn IN (SELECT value FROM json_each(?)) RETURNING lsn, store, id"
HURRIES = "hurries"
"""Where ``_atoma_meta`` counts how often somebody wanted the outbox sent at once."""
_ASIDE = 1 << 50
"""Numbers below its negative are held while mutations are numbered anew."""


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Bounds of the outbox.

    Attributes:
        rows: Most unsent and unsettled mutations.
        size: Most bytes of their bodies.
    """

    rows: int = 100_000
    size: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Acked:
    """Mutation ``mid`` was applied at the hub as ``seq``."""

    mid: int
    seq: int


@dataclass(frozen=True, slots=True)
class Held:
    """Mutation ``lsn`` is held."""

    lsn: int
    why: str


@dataclass(frozen=True, slots=True)
class Removed:
    """Mutation ``lsn`` left the overlay."""

    lsn: int
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Renumbered:
    """Mutation ``lsn`` is ``mid`` from now on."""

    lsn: int
    mid: int


SettledItem: TypeAlias = Acked | Held | Removed | Renumbered
"""What receipts are notified of after the commit."""


class Outbox:
    """Pending mutations in local order; those of kind ``outbox`` and ``held`` are the outbox. See ``OutboxPart``.

    Attributes:
        settlements: What receipts are notified of after the commit, in order.
        added: Idempotency key → ``(lsn, mid)`` of what this transaction has added.
        identified: Whether the identity was saved.
        holds: Whether mutations were held, or held ones were moved.
        hurried: Whether somebody has asked that what is queued be sent at once.
    """

    __slots__ = (
        "_connection",
        "_counters",
        "_identity",
        "_identity_moved",
        "_limits",
        "_recorder",
        "_state",
        "_tables",
        "added",
        "holds",
        "hurried",
        "identified",
        "settlements",
    )

    def __init__(self, state: TxState, limits: OutboxLimits) -> None:
        self._state = state
        self._connection = state.connection
        self._counters = state.counters
        self._tables = state.tables
        self._limits = limits
        self._recorder = state.recorder
        self._identity: ClientIdentity | None = None
        self._identity_moved = False
        self.settlements: list[SettledItem] = []
        self.added: dict[str, tuple[int, int]] = {}
        self.identified = self.holds = self.hurried = False

    def identity(self) -> ClientIdentity:
        """Who this file is to the hub."""
        if self._identity is None:
            known = self._state.asked
            self._identity = None if known is None else known.identity
        if self._identity is None:
            data: object = self._connection.execute("SELECT value FROM _atoma_meta WHERE key='identity'").get
            self._identity = decode(cast("bytes", data), ClientIdentity)
        return self._identity

    def save_identity(self, identity: ClientIdentity) -> None:
        """Replace the identity."""
        self._identity = identity
        self._identity_moved = self.identified = True

    def flush(self) -> None:
        """Write the identity, which is kept back until the end of the transaction."""
        if self._identity_moved and self._identity is not None:
            self._connection.execute(
                "INSERT INTO _atoma_meta(key, value) VALUES('identity', ?) "
                "ON CONFLICT(key) DO UPDATE SET value=excluded.value",
                (encode(self._identity),),
            )
            self._identity_moved = False

    def leave(self) -> None:
        """Let what follows know the identity as it is now; called once, last, as it cannot be taken back."""
        if self._identity is not None:
            self._state.known.identity = self._identity

    def add(self, mutation: PendingMutation, rows: Sequence[PendingRow], *, limited: bool = True) -> int:
        """Add a pending mutation on ``(store, id, pre-image)`` rows; returns its lsn."""
        if mutation.kind != "volatile":
            count = self._counters.add("outbox_rows", 1)
            size = self._counters.add("outbox_bytes", len(mutation.body))
            if limited and (count > self._limits.rows or size > self._limits.size):
                raise OutboxFull(self._limits.rows if count > self._limits.rows else count - 1)
            self.holds = self.holds or mutation.kind == "held"
        lsn = self._insert(None, mutation, rows)
        self.added[mutation.idem] = (lsn, mutation.mid)
        return lsn

    def _insert(self, lsn: int | None, mutation: PendingMutation, rows: Sequence[PendingRow]) -> int:
        """Insert a mutation with its rows at ``lsn``, None for the next one; returns it."""
        m = mutation
        try:
            self._connection.execute(_ENQUEUE, (lsn, *astuple(m)[1:]))
        except apsw.ConstraintError:
            raise ConflictError(f"a mutation with key {m.idem!r} or number {m.mid} is pending already") from None
        lsn = self._connection.last_insert_rowid()
        # an entry per row: the first pre-image is what the user saw before the mutation
        self._connection.executemany(
            "INSERT OR IGNORE INTO _atoma_pending_row(store, id, lsn, pre) VALUES(?,?,?,?)",
            [(store, id, lsn, pack(pre, self._tables.get(store))) for store, id, pre in rows],
        )
        return lsn

    def select(self, tail: str, values: tuple[str | int, ...] = ()) -> list[PendingMutation]:
        rows = self._connection.execute(f"{_PENDING} {tail}", values).fetchall()
        return [PendingMutation(*cast("_PendingColumns", row)) for row in rows]

    def volatile(self) -> Sequence[PendingMutation]:
        """Mutations that wait for a direct remote answer, in local order."""
        return self.select("WHERE kind='volatile' ORDER BY lsn")

    def on_row(self, store: str, id: str) -> Sequence[PendingMutation]:
        """Pending mutations that touch the row, in local order."""
        tail = "WHERE lsn IN (SELECT lsn FROM _atoma_pending_row WHERE store=? AND id=?) ORDER BY lsn"
        return self.select(tail, (store, id))

    def last_mid(self, store: str, id: str) -> int:
        """``mid`` of the latest pending mutation on the row that is for the hub; see ``OutboxPart``."""
        found: object = self._connection.execute(
            "SELECT p.mid FROM _atoma_pending_row AS r JOIN _atoma_pending AS p ON p.lsn=r.lsn "
            "WHERE r.store=? AND r.id=? AND p.kind<>'volatile' ORDER BY r.lsn DESC LIMIT 1",
            (store, id),
        ).get
        return cast("int", found or 0)

    def by_mid(self, mid: int) -> PendingMutation | None:
        """The outbox mutation ``mid`` if it is still pending."""
        found = self.select("WHERE mid=? AND kind='outbox'", (mid,))
        return found[0] if found else None

    def keys_of(self, mids: Iterable[int]) -> dict[int, str]:
        """The idempotency keys of those of the outbox mutations ``mids`` that are still pending, by ``mid``."""
        asked = json.encode(list(mids)).decode()
        return dict(cast("list[tuple[int, str]]", self._connection.execute(_KEYS, (asked,)).fetchall()))

    def by_keys(self, keys: Iterable[str]) -> dict[str, PendingMutation]:
        """Those of the mutations with these idempotency keys that are still pending, of either kind, by key."""
        rows = self._connection.executemany(f"{_PENDING} WHERE idem=?", ((key,) for key in keys)).fetchall()
        found = [PendingMutation(*cast("_PendingColumns", row)) for row in rows]
        return {mutation.idem: mutation for mutation in found}

    def pre_image(self, store: str, id: str, lsn: int) -> RowImage | None:
        """What the row looked like to the user before mutation ``lsn``."""
        data: object = self._connection.execute(
            "SELECT pre FROM _atoma_pending_row WHERE store=? AND id=? AND lsn=?", (store, id, lsn)
        ).get
        return unpack(data, self._tables.get(store))

    def queued(self, *, limit: int, max_bytes: int) -> Sequence[PendingMutation]:
        """The oldest queued outbox mutations in ``mid`` order; at least one if there is any."""
        found: list[PendingMutation] = []
        size = 0
        for mutation in self.select("WHERE kind='outbox' AND status=0 ORDER BY mid LIMIT ?", (limit,)):
            size += len(mutation.body)
            if found and size > max_bytes:
                break
            found.append(mutation)
        return found

    def every(self, through: int = INT64_MAX) -> Sequence[PendingMutation]:
        """Every outbox mutation up to this number, whatever its status, in ``mid`` order."""
        return self.select("WHERE kind='outbox' AND mid<=? ORDER BY mid", (min(through, INT64_MAX),))

    def add_below(self, mutations: Sequence[tuple[PendingMutation, Sequence[PendingRow]]]) -> None:
        """Add outbox mutations, each with its rows, below everything that is pending."""
        lowest: object = self._connection.execute("SELECT min(lsn) FROM _atoma_pending").get
        first = min(cast("int", lowest or 0), 0) - len(mutations)
        for lsn, (mutation, rows) in enumerate(mutations, first):
            self._counters.add("outbox_rows", 1)
            self._counters.add("outbox_bytes", len(mutation.body))
            self._insert(lsn, mutation, rows)

    def first_missing(self, decided: int) -> int | None:
        """The first number behind ``decided`` that was given out and has left the outbox; see ``OutboxPart``."""
        behind = "FROM _atoma_pending AS p WHERE kind='outbox' AND mid>?"
        count: object = self._connection.execute(f"SELECT count(*) {behind}", (decided,)).get
        if cast("int", count) == self.identity().next_mid - 1 - decided:
            return None
        held = "EXISTS (SELECT 1 FROM _atoma_pending WHERE kind='outbox' AND mid="
        first: object = self._connection.execute(
            f"SELECT ?1 + 1 WHERE NOT {held}?1 + 1) UNION ALL SELECT min(mid) + 1 {behind}1 AND NOT {held}p.mid + 1) LIMIT 1",
            (decided,),
        ).get
        return cast("int", first)

    def held(self) -> Sequence[PendingMutation]:
        """Every held mutation, in local order."""
        return self.select("WHERE kind='held' ORDER BY lsn")

    def held_count(self) -> int:
        """How many mutations are held."""
        return cast("int", self._connection.execute("SELECT count(*) FROM _atoma_pending WHERE kind='held'").get)

    def hurries(self) -> int:
        """How often somebody has asked that what is queued be sent at once."""
        return cast("int", read_meta(self._connection, HURRIES) or 0)

    def hurry(self) -> None:
        """Ask it once more, of whichever program sends."""
        write_meta(self._connection, HURRIES, self.hurries() + 1)
        self.hurried = True

    def rewrite(self, mutations: Sequence[PendingMutation]) -> None:
        """Replace kind, number, base, bytes, digest and status of mutations for the hub, found by their lsn."""
        execute = self._connection.execute
        self.holds = True
        for m in mutations:  # out of the way first: a number belongs to one mutation at a time
            size: object = execute("SELECT length(body) FROM _atoma_pending WHERE lsn=?", (m.lsn,)).get
            self._counters.add("outbox_bytes", len(m.body) - cast("int", size))
            execute("UPDATE _atoma_pending SET mid=? WHERE lsn=?", (-_ASIDE - m.lsn, m.lsn))
        for m in mutations:
            why = m.last_error if m.kind == "held" else ""
            execute(
                "UPDATE _atoma_pending SET kind=?, mid=?, base_seq=?, body=?, digest=?, status=?, ack_seq=?, attempts=0, "
                "next_attempt_ms=0, last_error=?, local=? WHERE lsn=?",
                (m.kind, m.mid, m.base_seq, m.body, m.digest, m.status, m.ack_seq, why, m.local, m.lsn),
            )
            self.settlements.append(Held(m.lsn, why) if m.kind == "held" else Renumbered(m.lsn, m.mid))

    def acked(self, scope: str, through: int = INT64_MAX) -> Sequence[PendingMutation]:
        """Outbox mutations of the scope that are acked, up to this sequence, and wait for their page."""
        tail = "WHERE scope=? AND status=1 AND kind='outbox' AND ack_seq<=? ORDER BY mid"
        return self.select(tail, (scope, through))

    def waits_in(self, scope: str) -> bool:
        """Whether anything is pending in the scope, of any kind."""
        found = self._connection.execute("SELECT 1 FROM _atoma_pending WHERE scope=? LIMIT 1", (scope,)).fetchone()
        return found is not None

    def mark_acked(self, seqs: Mapping[int, int]) -> None:
        """The hub applied mutations, by ``mid``, as these; they stay in the overlay until the page comes."""
        self._connection.executemany(
            "UPDATE _atoma_pending SET status=1, ack_seq=? WHERE mid=? AND kind='outbox'",
            ((seq, mid) for mid, seq in seqs.items()),
        )
        self.settlements += [Acked(mid, seq) for mid, seq in seqs.items()]

    def unmark_acked(self, scope: str) -> None:
        """See ``OutboxPart``; receipts are not told, as they take nothing back."""
        self._connection.execute(
            "UPDATE _atoma_pending SET status=0, ack_seq=0 WHERE scope=? AND status=1 AND kind='outbox'", (scope,)
        )

    def mark_attempt(self, mids: Sequence[int], next_attempt_ms: int, error: str) -> None:
        """Note a failed attempt: count it, keep the error and when the next one is due."""
        self._connection.executemany(
            "UPDATE _atoma_pending SET attempts=attempts+1, next_attempt_ms=?, last_error=? "
            "WHERE mid=? AND kind='outbox'",
            [(next_attempt_ms, error, mid) for mid in mids],
        )

    def remove(self, outcomes: Mapping[int, Outcome | None]) -> Sequence[RowKey]:
        """Take mutations, by lsn, out of the overlay and return the ``(store, id)`` that they touched; see ``OutboxPart``."""
        lsns = json.encode(list(outcomes)).decode()
        found = cast(
            "list[tuple[int, PendingKind, int, str]]",
            self._connection.execute(_REMOVE, (lsns,)).fetchall(),
        )
        touched: dict[int, list[RowKey]] = {lsn: [] for lsn, _, _, _ in found}
        rows = cast("list[tuple[int, str, str]]", self._connection.execute(_REMOVE_ROWS, (lsns,)).fetchall())
        for lsn, store, id in rows:
            touched[lsn].append((store, id))
        queued = [(kind, size) for _, kind, size, _ in found if kind != "volatile"]
        if queued:
            self._counters.add("outbox_rows", -len(queued))
            self._counters.add("outbox_bytes", -sum([size for _, size in queued]))
            self.holds = self.holds or any(kind == "held" for kind, _ in queued)
        self.settlements += [Removed(lsn, outcome) for lsn, outcome in outcomes.items() if lsn in touched]
        for lsn, _, _, idem in found:
            outcome = outcomes[lsn]
            if self._recorder is not None and outcome is not None and outcome.status == "rejected":
                reason = "REJECTED" if outcome.error is None else outcome.error.code
                self._recorder.refuse(idem, touched[lsn], reason)
        return [key for lsn in outcomes for key in sorted(touched.get(lsn, ()))]
