"""A client as its file tells it, checked after every commit against the hub's history."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from atoma.testing.simulation.facts import Image, Key, Written, difference, image_of, operations, replayed
from atoma.testing.simulation.files import RawFile
from atoma.testing.simulation.history import History, State, check_pairs, read_rows
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.stores import SCOPES

Shadows = dict[str, dict[Key, Image | None]]


@dataclass(frozen=True, slots=True)
class Pending:
    """A mutation in the outbox."""

    written: Written
    lsn: int
    status: int
    seq: int


@dataclass(slots=True)
class Snapshot:
    """What a client's file holds after a commit."""

    visible: dict[str, State]
    shadows: Shadows
    outbox: dict[int, Pending]
    touched: dict[int, set[Key]]
    inbox: set[tuple[int, Key]]
    cursors: dict[str, int]
    epochs: dict[str, bytes]
    states: dict[str, str]
    staged: int
    next_mid: int


@dataclass(slots=True)
class Replica:
    """One client's file over all its openings.

    Attributes:
        name: Whose it is.
        path: The file.
        history: The hub it follows.
        counts: How often what happened.
        now: What the last commit left.
        tokens: The first mutation with each token that was committed here.
    """

    name: str
    path: Path
    history: History
    counts: Counter[str]
    now: Snapshot | None = None
    tokens: dict[str, int] = field(default_factory=dict[str, int])
    client: bytes = b""
    _file: RawFile | None = None
    _known: dict[int, Written] = field(default_factory=dict[int, Written])
    _unsettled: set[int] = field(default_factory=set[int])

    def open(self) -> None:
        """Begin to read the file, after the client was opened on it; nothing that was promised may be missing."""
        self._file = RawFile(self.path)
        identity = self._file.rows("SELECT value FROM _atoma_meta WHERE key='identity'")
        self.client = msgspec.msgpack.decode(identity[0][0])["client_id"]
        self.observe()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def expect(self, token: str) -> None:
        """A write with ``token`` has returned: it has to be among what was committed.

        Raises:
            Violation: It was never put into the outbox.
        """
        if token not in self.tokens:
            raise Violation("I1", self.name, f"the write {token} returned, but no commit put it into the outbox")

    def observe(self) -> None:
        """Read what the last commit did and check it.

        Raises:
            Violation: A promise does not hold.
        """
        assert self._file is not None
        self._file.begin()
        try:
            now = self._read(self._file)
        finally:
            self._file.end()
        before, self.now = self.now, now
        self._check_own_mutations(now)
        self._check_overlay(now)
        if before is not None:
            self._check_step(before, now)
        for scope in SCOPES:
            self._check_scope(now, scope)

    # reading

    def _read(self, file: RawFile) -> Snapshot:
        subscriptions = file.rows("SELECT scope, state, cursor FROM _atoma_sub")
        cursors: dict[str, int] = dict.fromkeys(SCOPES, 0)
        epochs: dict[str, bytes] = dict.fromkeys(SCOPES, b"")
        for scope, _, cursor in subscriptions:
            epochs[scope], cursors[scope], _ = msgspec.msgpack.decode(cursor)
        shadows: Shadows = {scope: {} for scope in SCOPES}
        for store, id, scope, image in file.rows("SELECT store, id, scope, image FROM _atoma_shadow"):
            shadows[scope][store, id] = image_of(image)
        touched: dict[int, set[Key]] = defaultdict(set)
        for lsn, store, id in file.rows("SELECT lsn, store, id FROM _atoma_pending_row"):
            touched[lsn].add((store, id))
        identity = file.rows("SELECT value FROM _atoma_meta WHERE key='identity'")
        return Snapshot(
            visible={scope: read_rows(file, scope) for scope in SCOPES},
            shadows=shadows,
            outbox=self._outbox(file, cursors),
            touched=touched,
            inbox={(mid, (store, id)) for mid, store, id in file.rows("SELECT mid, store, id FROM _atoma_inbox")},
            cursors=cursors,
            epochs=epochs,
            states={scope: state for scope, state, _ in subscriptions},
            staged=file.rows("SELECT count(*) FROM _atoma_stage")[0][0],
            next_mid=msgspec.msgpack.decode(identity[0][0])["next_mid"],
        )

    def _outbox(self, file: RawFile, cursors: dict[str, int]) -> dict[int, Pending]:
        outbox: dict[int, Pending] = {}
        rows = file.rows(
            "SELECT lsn, mid, scope, digest, status, ack_seq, base_seq FROM _atoma_pending WHERE kind='outbox' ORDER BY lsn"
        )
        for lsn, mid, scope, digest, status, seq, base_seq in rows:
            written = self._known.get(mid)
            if written is None or written.digest != digest:
                written = self._take_in(file, lsn, mid, scope, digest, cursors[scope])
            if base_seq != written.base_seq:
                found = f"mutation {mid} says the user had seen {base_seq}, the cursor was at {written.base_seq}"
                raise Violation("I5", self.name, found)
            outbox[mid] = Pending(written, lsn, status, seq)
        return outbox

    def _take_in(self, file: RawFile, lsn: int, mid: int, scope: str, digest: bytes, cursor: int) -> Written:
        """A mutation that this commit has written."""
        if mid in self._known:
            raise Violation("I4", self.name, f"mutation {mid} has other bytes than it had")
        if mid != len(self._known) + 1:
            raise Violation("I5", self.name, f"mutation {mid} was written after {len(self._known)}")
        body = file.rows("SELECT body FROM _atoma_pending WHERE lsn=?", lsn)[0][0]
        written = Written(self.client, mid, scope, cursor, digest, operations(body))
        self._check_dependencies(file, written, lsn)
        self._known[mid] = self.history.written[self.client, mid] = written
        self._unsettled.add(mid)
        for op in written.ops:
            if "token" in op.values:  # who insists on a refused write repeats its token
                self.tokens.setdefault(str(op.values["token"]), mid)
        self.counts["mutations"] += 1
        self.counts["atomic units"] += len(written.ops) > 1
        return written

    def _check_dependencies(self, file: RawFile, written: Written, lsn: int) -> None:
        """I14: each operation names the mutation that it builds on, so that it can be rejected with it."""
        for op in written.ops:
            earlier = file.rows(
                "SELECT max(p.mid) FROM _atoma_pending_row r JOIN _atoma_pending p ON p.lsn=r.lsn "
                "WHERE r.store=? AND r.id=? AND r.lsn<?",
                *op.key,
                lsn,
            )[0][0]
            if op.after_mid != (earlier or 0):
                found = f"mutation {written.mid} builds on {earlier or 0} at {op.key}, it says {op.after_mid}"
                raise Violation("I14", self.name, found)

    # checking

    def _check_own_mutations(self, now: Snapshot) -> None:
        """I1, I12, I14: every mutation is pending, or in the base, or in the inbox."""
        if now.next_mid != len(self._known) + 1:
            found = f"numbers up to {now.next_mid - 1} were given out, {len(self._known)} mutations were written"
            raise Violation("I2", self.name, found)
        for mid in sorted(self._unsettled - now.outbox.keys()):
            written = self._known[mid]
            decided = self.history.decided.get((self.client, mid))
            if decided is None:
                raise Violation("I1", self.name, f"mutation {mid} left the outbox, and the hub has not decided it")
            if decided.rejected:
                missing = [key for key in written.keys if (mid, key) not in now.inbox]
                if missing:
                    raise Violation("I14", self.name, f"mutation {mid} was rejected, but the inbox lacks {missing}")
            elif decided.seq > now.cursors[written.scope]:
                found = f"mutation {mid}, applied as {decided.seq}, is neither pending nor in the base"
                raise Violation("I12", self.name, f"{found} at cursor {now.cursors[written.scope]}")
            self._unsettled.discard(mid)

    def _check_overlay(self, now: Snapshot) -> None:
        """I2: rows under pending mutations and shadows are the same rows."""
        wanted = {pending.lsn: pending.written.keys for pending in now.outbox.values()}
        if wanted != now.touched:
            raise Violation("I2", self.name, f"the outbox touches {wanted}, its rows say {dict(now.touched)}")
        under = {(pending.written.scope, key) for pending in now.outbox.values() for key in pending.written.keys}
        shadowed = {(scope, key) for scope, rows in now.shadows.items() for key in rows}
        if under != shadowed:
            raise Violation("I2", self.name, f"only pending or only shadowed: {sorted(under ^ shadowed)}")

    def _check_step(self, before: Snapshot, now: Snapshot) -> None:
        """I2, I9: what may change in one commit."""
        for scope in SCOPES:
            old, new = before.cursors[scope], now.cursors[scope]
            if new < old:
                raise Violation("I9", self.name, f"the cursor of {scope} went back from {old} to {new}")
            self.counts["snapshots"] += before.states.get(scope) == "tail" and now.states.get(scope) == "live"
            self.counts["rebases"] += new > old and bool(now.shadows[scope])
        resting = before.cursors == now.cursors and before.outbox.keys() == now.outbox.keys()
        if resting and before.visible != now.visible:
            changed = {scope: difference(now.visible[scope], before.visible[scope]) for scope in SCOPES}
            raise Violation("I2", self.name, f"rows changed without an outbox record and without a page: {changed}")

    def _check_scope(self, now: Snapshot, scope: str) -> None:
        cursor, visible, shadows = now.cursors[scope], now.visible[scope], now.shadows[scope]
        where = f"{self.name} {scope}@{cursor}"
        if cursor > self.history.head(scope):
            raise Violation("I9", where, f"the hub is only at {self.history.head(scope)}")
        base = {**visible, **shadows}
        known = {key: image for key, image in base.items() if image is not None}
        wanted = self.history.states[scope][cursor]
        if known != wanted:
            raise Violation("I8", where, f"the base is not the hub's state: {difference(known, wanted)}")
        ops = [op for pending in now.outbox.values() if pending.written.scope == scope for op in pending.written.ops]
        seen = dict(wanted)
        for key in shadows:
            image = replayed(wanted.get(key), ops, key)
            if image is None:
                seen.pop(key, None)
            else:
                seen[key] = image
        if seen != visible:
            raise Violation("I10", where, f"visible is not base and pending: {difference(visible, seen)}")
        check_pairs(visible, where)

    def unfinished(self) -> str:
        """What still differs from the hub's state, ``""`` when the two agree and nothing is left to do."""
        now = self.now
        if now is None:
            return "it was never opened"
        left: list[str] = []
        if now.outbox:
            left.append(f"{len(now.outbox)} in the outbox from {min(now.outbox)} on")
        for scope in SCOPES:
            head = self.history.head(scope)
            if now.cursors[scope] != head or now.states.get(scope) != "live":
                left.append(f"{scope} {now.states.get(scope, 'new')} at {now.cursors[scope]} of {head}")
            elif now.visible[scope] != self.history.states[scope][-1]:
                left.append(f"{scope} differs: {difference(now.visible[scope], self.history.states[scope][-1])}")
        if any(now.shadows.values()) or now.staged:
            left.append("shadows or staged rows remain")
        return ", ".join(left)
