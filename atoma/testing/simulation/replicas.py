"""A client as its file tells it, checked after every commit against the hub's histories."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from atoma.errors import StoreError
from atoma.testing.simulation.byhand import ByHand, Restated, read_held
from atoma.testing.simulation.disks import Disk
from atoma.testing.simulation.facts import Key, Written, difference, image_of, read_body, replayed
from atoma.testing.simulation.files import RawFile
from atoma.testing.simulation.history import History, check_pairs, read_rows
from atoma.testing.simulation.lineage import State
from atoma.testing.simulation.memory import Memory
from atoma.testing.simulation.parts import MAIN, Parts
from atoma.testing.simulation.rebirth import Rebirth, renamed, same
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.resnapshots import check_base, check_outbox, swapped
from atoma.testing.simulation.snapshots import Identity, Kept, Pending, Place, Shadows, Snapshot
from atoma.testing.simulation.stores import SCOPES, sees


@dataclass(slots=True)
class Replica:
    """One client's file over all its openings.

    Attributes:
        name: Whose it is.
        path: The file.
        history: The hub it follows.
        counts: How often what happened.
        memory: What is known of the file.
        hand: What somebody does about the outbox at this moment, ``""`` for nothing.
        disk: What the file is on, where that may fail.
        user: Whose device it is.
        parts: The parts of a scope that it takes; None for one that takes the whole.
    """

    name: str
    path: Path
    history: History
    counts: Counter[str]
    memory: Memory = field(default_factory=Memory)
    hand: str = ""
    disk: Disk | None = None
    user: str = ""
    parts: Parts | None = None
    _file: RawFile | None = None
    _opening: bool = False
    _fallen: Mapping[int, Written] = field(default_factory=dict[int, Written])

    @property
    def now(self) -> Snapshot | None:
        """What the last commit left."""
        return self.memory.now

    @contextmanager
    def at_work(self, what: str) -> Generator[None]:
        """While somebody does ``what`` about the outbox."""
        self.hand = what
        try:
            yield
        except StoreError:
            self.memory.doubt = what
            raise
        finally:
            self.hand = ""

    def open(self) -> None:
        """Begin to read the file, after the client was opened on it; nothing that was promised may be missing."""
        self._file = RawFile(self.path)
        self.hand, self.memory.doubt = self.memory.doubt, ""
        self._opening = True  # a commit that the disk did not tell of shows now, and its proof may be gone
        try:
            self.observe()
        finally:
            self.hand, self._opening = "", False

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
        if token not in self.memory.tokens:
            raise Violation("I1", self.name, f"the write {token} returned, but no commit put it into the outbox")
        self.memory.promised.add(token)

    def observe(self) -> None:
        """Read what the last commit did and check it.

        Raises:
            Violation: A promise does not hold.
        """
        if self.disk is None or not self.disk.is_synced:
            self._look()
            return
        before = self.memory.copy()
        self._look()
        self.disk.observed(before, self.memory)

    def _look(self) -> None:
        assert self._file is not None
        self._file.begin()
        try:
            reports = self._file.rows("SELECT report FROM _atoma_repair ORDER BY n DESC LIMIT 1")
            report: dict[str, Any] = msgspec.msgpack.decode(reports[0][0]) if reports else {}
            now = self._read(self._file, report)
        finally:
            self._file.end()
        before, self.memory.now = self.memory.now, now
        reborn = None
        if before is not None and before.identity.client != now.identity.client:
            if not report:
                raise Violation("I25", self.name, "the file has taken another identity, and no repair is told")
            reborn = Rebirth(self.name, self.history, before, now, report, self.seen)
        came = [] if before is None or reborn is not None else list(swapped(before, now))
        if before is not None and came and not self.hand:
            check_outbox(self.name, self.history, before, now)
        self._check_own_mutations(now, reborn)
        self._check_fallen(now, before)
        self._check_overlay(now)
        if reborn is not None:
            reborn.check()
            self.counts[f"repairs {reborn.report['cause']}"] += 1
            came_up = [row for number, row in now.lost.items() if number not in reborn.before.lost]
            self.counts["unproven rows kept"] += sum(row.reason == "unproven" for row in came_up)
        elif before is not None:
            self._check_step(before, now)
        for scope in SCOPES:
            self._check_scope(now, scope, before if scope in came else None)

    # reading

    def _read(self, file: RawFile, report: Mapping[str, Any]) -> Snapshot:
        subscriptions = file.rows("SELECT scope, state, cursor, proof FROM _atoma_sub")
        nowhere = Place()
        places: dict[str, Place] = dict.fromkeys(SCOPES, nowhere)
        places.update((scope, _place(cursor)) for scope, _, cursor, _ in subscriptions)
        shadows: Shadows = {scope: {} for scope in SCOPES}
        for store, id, scope, image in file.rows("SELECT store, id, scope, image FROM _atoma_shadow"):
            shadows[scope][store, id] = image_of(image)
        touched: dict[int, set[Key]] = defaultdict(set)
        for lsn, store, id in file.rows("SELECT lsn, store, id FROM _atoma_pending_row"):
            touched[lsn].add((store, id))
        packed = msgspec.msgpack.decode(file.rows("SELECT value FROM _atoma_meta WHERE key='identity'")[0][0])
        identity = Identity(packed["client_id"], packed["next_mid"], packed["tail_digest"])
        self.history.users[identity.client] = self.user
        lost = {
            number: Kept(scope, (store, id), image_of(image), reason, resolution, _place(fork), _place(was))
            for number, scope, store, id, image, reason, resolution, fork, was in file.rows(
                "SELECT n, scope, store, id, image, reason, resolution, fork, recovers FROM _atoma_lost"
            )
        }
        return Snapshot(
            identity=identity,
            visible={scope: read_rows(file, scope) for scope in SCOPES},
            shadows=shadows,
            outbox=self._outbox(file, identity, places, lost, report),
            held=frozenset(self.memory.held),
            touched=touched,
            inbox={
                (lsn, (store, id)): code
                for lsn, store, id, code in file.rows("SELECT lsn, store, id, code FROM _atoma_inbox ORDER BY n")
            },
            lost=lost,
            places=places,
            states={scope: state for scope, state, *_ in subscriptions},
            staged=file.rows("SELECT count(*) FROM _atoma_stage")[0][0],
            repairs=file.rows("SELECT coalesce(max(n), 0) FROM _atoma_repair")[0][0],
            marks={scope: _mark(cursor) for scope, _, cursor, _ in subscriptions},
            proofs={scope: proof for scope, _, _, proof in subscriptions},
        )

    def _outbox(
        self,
        file: RawFile,
        identity: Identity,
        places: Mapping[str, Place],
        lost: Mapping[int, Kept],
        report: Mapping[str, Any],
    ) -> dict[int, Pending]:
        reborn = self.now is not None and self.now.identity.client != identity.client
        known: dict[int, Written] = {} if reborn else self.memory.known
        before = {} if self.now is None else self.now.by_lsn
        byhand = ByHand(self.name, self.hand, self.memory, self.history) if self.hand and not reborn else None
        outbox: dict[int, Pending] = {}
        rows = file.rows(
            "SELECT lsn, mid, scope, digest, status, ack_seq, base_seq FROM _atoma_pending WHERE kind='outbox' "
            "ORDER BY mid"
        )
        if byhand is not None:
            byhand.unwind(identity, {mid: digest for _, mid, _, digest, *_ in rows})
        for lsn, mid, scope, digest, status, seq, base_seq in rows:
            written = known.get(mid)
            if written is None or written.digest != digest:
                if mid in known:
                    raise Violation("I4", self.name, f"mutation {mid} has other bytes than it had")
                if mid != len(known) + 1:
                    raise Violation("I5", self.name, f"mutation {mid} was written after {len(known)}")
                body: bytes = file.rows("SELECT body FROM _atoma_pending WHERE lsn=?", lsn)[0][0]
                previous = known[mid - 1].digest if mid > 1 else b""
                if hashlib.sha256(previous + body).digest() != digest:
                    raise Violation("I5", self.name, f"the digest of mutation {mid} does not continue the chain")
                written = read_body(identity.client, digest, body, places[scope].hash)
                if reborn:
                    old = same(before.get(lsn), written)
                    written = renamed(written, old, places[scope], self.history, self.name)
                    if old is not None:
                        self.memory.unsettled.pop(old.written.name)
                    self.memory.unsettled[written.name] = (written, lsn)
                elif byhand is not None and byhand.knows(lsn):
                    written = byhand.again(lsn, written)
                else:
                    written = self._take_in(file, written, lsn, places[scope], lost)
                known[mid] = self.history.written[written.name] = written
            if base_seq != written.base_seq:
                found = f"mutation {mid} says the user had seen {base_seq}, its bytes say {written.base_seq}"
                raise Violation("I5", self.name, found)
            outbox[mid] = Pending(written, lsn, status, seq)
        self.memory.known = known
        restated = None
        if reborn:
            now = {pending.lsn: mid for mid, pending in outbox.items()}
            numbers = {old.written.mid: now[lsn] for lsn, old in before.items() if lsn in now}
            restated = Restated(numbers, report.get("forks", {}))
        self._fallen = read_held(self.name, self.memory, file, places, byhand, restated, self.counts)
        return outbox

    def _take_in(self, file: RawFile, written: Written, lsn: int, place: Place, lost: Mapping[int, Kept]) -> Written:
        """A mutation that this commit has written; what it says that the user had seen is where the scope was."""
        self.memory.unsettled[written.name] = (written, lsn)
        kept = [row for number, row in lost.items() if row.resolution == "offered" and self._was_open(number)]
        brought = {row.key: row for row in kept if self._brings_back(written, row)}
        if written.ops and brought.keys() == written.keys:
            if written.offered is not None and not written.offered.proven:
                was = brought[written.ops[0].key].was
                written = replace(written, offered=replace(written.offered, hash=was.hash))
                self.counts["unproven rows brought back"] += len(brought)
            fork = (
                self.history.lineage.fork(written.scope, written.offered.hash, place.hash) if written.offered else None
            )
            return replace(written, seen=place.hash if fork is None else fork.hash, brought=True)
        if written.offered is not None or written.origin is not None or written.doubtful:
            raise Violation("I28", self.name, f"mutation {written.mid} came up by itself: {written}")
        if (written.epoch, written.base_seq) != (place.epoch, place.seq):
            found = f"mutation {written.mid} says the user had seen {written.base_seq}, the cursor was at {place.seq}"
            raise Violation("I5", self.name, found)
        self._check_dependencies(file, written, lsn)
        self.memory.note_tokens(written)
        self.counts["mutations"] += 1
        self.counts["atomic units"] += len(written.ops) > 1
        return written

    def _was_open(self, number: int) -> bool:
        return self.now is not None and number in self.now.lost and not self.now.lost[number].resolution

    @staticmethod
    def _brings_back(written: Written, row: Kept) -> bool:
        """Whether the mutation offers a row that was kept, with what it was like; perhaps with others."""
        if (written.epoch, written.base_seq) != (row.fork.epoch, row.fork.seq):
            return False
        return row.key in written.keys and replayed({}, written.ops, row.key) == row.image

    def _check_dependencies(self, file: RawFile, written: Written, lsn: int) -> None:
        """I14: each operation names the mutation that it builds on, so that it can be rejected with it."""
        for op in written.ops:
            earlier = file.rows(
                "SELECT p.mid FROM _atoma_pending_row r JOIN _atoma_pending p ON p.lsn=r.lsn "
                "WHERE r.store=? AND r.id=? AND r.lsn<? ORDER BY r.lsn DESC LIMIT 1",
                *op.key,
                lsn,
            )
            builds_on = earlier[0][0] if earlier else 0
            if op.after_mid != builds_on:
                found = f"mutation {written.mid} builds on {builds_on} at {op.key}, it says {op.after_mid}"
                raise Violation("I14", self.name, found)

    # checking

    def _check_own_mutations(self, now: Snapshot, reborn: Rebirth | None) -> None:
        """I1, I12, I14, I21: every mutation is pending, or in the base, or in the inbox."""
        known = self.memory.known
        if now.identity.next_mid != len(known) + 1:
            found = f"numbers up to {now.identity.next_mid - 1} were given out, {len(known)} mutations were written"
            raise Violation("I2", self.name, found)
        names = {pending.written.name for pending in now.outbox.values()}
        for name in sorted(self.memory.unsettled.keys() - names):
            written, lsn = self.memory.unsettled.pop(name)
            self.memory.fates[written.first_name] = self.fate(written, lsn, now, reborn)
        for one in now.outbox.values():
            if (fate := self.memory.fates.get(one.written.first_name)) is not None:
                raise Violation("I28", self.name, f"a mutation that was {fate} is pending again: {one.written}")

    def fate(self, written: Written, lsn: int, now: Snapshot, reborn: Rebirth | None) -> str:
        """How a mutation ended that has left the outbox.

        Raises:
            Violation: It is nowhere.
        """
        if reborn is not None and reborn.lets_go(written):
            return "let go"
        where = f"mutation {written.mid} left the outbox"
        verdicts = self.history.verdicts.get(written.name, [])
        place = now.places[written.scope]
        missing = [key for key in written.keys if (lsn, key) not in now.inbox]
        refused = not missing and all(now.inbox[lsn, key] != "MERGED" for key in written.keys)
        leads_to = self.history.lineage.leads_to
        if refused and any(told.rejected for told in verdicts):
            return "rejected"  # also when its effect has come back by itself: somebody has offered it before
        if any(not told.rejected and leads_to(written.scope, told.hash, place.hash) for told in verdicts):
            return "observed"
        if any(told.rejected for told in verdicts):
            if missing:
                raise Violation("I14", self.name, f"{where} rejected, but the inbox lacks {missing}")
            return "rejected"
        if reborn is not None and not missing and self._falls_with_another(written):
            return "rejected"  # also when a history that is gone had taken it
        if verdicts:
            found = f"mutation {written.mid}, {verdicts[-1].status} as {verdicts[-1].seq}, is neither pending nor in the base"
            raise Violation("I12", self.name, f"{found} at cursor {place.seq}")
        raise Violation("I1", self.name, f"{where}, and the hub has not decided it")

    def _falls_with_another(self, written: Written) -> bool:
        """Whether a mutation builds on one that was rejected, in the life that ends."""
        roots = {op.after_mid for op in written.ops if op.after_mid}
        lived = (one for one in self.history.written.values() if one.client == written.client and one.mid in roots)
        return any(self.memory.fates.get(one.first_name) == "rejected" for one in lived)

    def _check_fallen(self, now: Snapshot, before: Snapshot | None) -> None:
        """I1, I14: what was held and has gone lies in the inbox, since what it builds on was refused."""
        client = b"" if before is None else before.identity.client
        for lsn, written in self._fallen.items():
            if any(now.inbox.get((lsn, key)) != "DEPENDENCY_REJECTED" for key in written.keys):
                raise Violation("I1", self.name, f"a held write has gone: {written}")
            with_held = any(written.keys & other.keys for at, other in self._fallen.items() if at < lsn)
            if not with_held and not self._falls_with_another(replace(written, client=client)):
                raise Violation(
                    "I14", self.name, f"a held write was refused, and nothing that it builds on was: {written}"
                )
            self.memory.fates[written.first_name] = "rejected"
            self.counts["held writes that fell with another"] += 1

    def _check_overlay(self, now: Snapshot) -> None:
        """I2: rows under pending mutations and shadows are the same rows."""
        wanted = {pending.lsn: set(pending.written.keys) for pending in now.outbox.values() if pending.written.ops}
        wanted |= {lsn: set(written.keys) for lsn, written in self.memory.held.items()}
        if wanted != now.touched:
            raise Violation("I2", self.name, f"the outbox touches {wanted}, its rows say {dict(now.touched)}")
        writes = [*(pending.written for pending in now.outbox.values()), *self.memory.held.values()]
        under = {(written.scope, key) for written in writes for key in written.keys}
        shadowed = {(scope, key) for scope, rows in now.shadows.items() for key in rows}
        if under != shadowed:
            raise Violation("I2", self.name, f"only pending or only shadowed: {sorted(under ^ shadowed)}")

    def _check_step(self, before: Snapshot, now: Snapshot) -> None:
        """I2, I9: what may change in one commit."""
        if now.repairs != before.repairs:
            raise Violation("I26", self.name, "a repair is told, and the file has its old identity")
        for scope in SCOPES:
            old, new = before.places[scope], now.places[scope]
            leads_to = self.history.lineage.leads_to
            if new.seq < old.seq and leads_to(scope, new.hash, old.hash):
                raise Violation("I13", self.name, f"the base of {scope} went back from {old.seq} to {new.seq}")
            if not leads_to(scope, old.hash, new.hash):
                raise Violation(
                    "I9", self.name, f"the cursor of {scope} went from {old.seq} to {new.seq}, another history"
                )
            moved = bool(new.seq) and new.hash != old.hash and not self._opening
            if moved and self.memory.downgraded and not now.proofs[scope]:
                raise Violation("I22", self.name, f"{scope} went on to {new.seq}, and nothing proves it")
            self.counts["snapshots"] += scope in swapped(before, now)
            self.counts["rebases"] += new.seq > old.seq and bool(now.shadows[scope])
        resting = all(before.places[scope].hash == now.places[scope].hash for scope in SCOPES)
        if self.parts is not None and before.marks != now.marks:
            resting = False
            self.counts["other parts"] += 1
        same = before.outbox.keys() == now.outbox.keys() and before.held == now.held
        if resting and same and not self.hand and before.visible != now.visible:
            changed = {scope: difference(now.visible[scope], before.visible[scope]) for scope in SCOPES}
            raise Violation("I2", self.name, f"rows changed without an outbox record and without a page: {changed}")

    def _check_scope(self, now: Snapshot, scope: str, before: Snapshot | None) -> None:
        """I8 to I11, I16 to I18: what is shown; ``before`` is the file before a snapshot was swapped in by this commit."""
        place, visible, shadows = now.places[scope], now.visible[scope], now.shadows[scope]
        where = f"{self.name} {scope}@{place.seq}"
        moment = self.history.lineage.at(scope, place.hash)
        if moment is None or moment.seq != place.seq:
            raise Violation("I9", where, "no hub was ever there")
        base = {**visible, **shadows}
        known = {key: image for key, image in base.items() if image is not None}
        wanted = self.seen(now, scope, moment.rows)
        self.counts["looks at parts"] += len(wanted) < len(moment.rows) and bool(wanted)
        if known != wanted:
            if before is not None:
                old = self.history.lineage.rows(scope, before.places[scope].hash)
                check_base(where, known, wanted, self.seen(before, scope, old))
            if leaked := [key for key, image in known.items() if not sees(self.user, key, image)]:
                raise Violation("I18", where, f"rows are there that {self.user} may not see: {leaked}")
            risen = known.keys() - moment.rows.keys()
            if gone := [key for key in sorted(risen) if self.history.lineage.had(scope, key, place.hash)]:
                raise Violation("I17", where, f"rows are there that the hub has deleted: {gone}")
            raise Violation("I8", where, f"the base is not the hub's state: {difference(known, wanted)}")
        writes = {**{pending.lsn: pending.written for pending in now.outbox.values()}, **self.memory.held}
        here = [writes[lsn] for lsn in sorted(writes) if writes[lsn].scope == scope]
        ops = [op for written in here for op in written.ops]
        seen = dict(wanted)
        for key in shadows:
            image = replayed(wanted.get(key), ops, key)
            if image is None:
                seen.pop(key, None)
            else:
                seen[key] = image
        if seen != visible:
            raise Violation("I10", where, f"visible is not base and pending: {difference(visible, seen)}")
        row_by_row = (one for one in here if one.offered is not None or one.brought or one.epoch != place.epoch)
        check_pairs(visible, where, moment.loose.union(*(one.keys for one in row_by_row)))

    def seen(self, now: Snapshot, scope: str, rows: State) -> State:
        """What of the hub's ``rows`` the base is to hold, which its cursor says."""
        rows = {key: image for key, image in rows.items() if sees(self.user, key, image)}
        if self.parts is None or scope != MAIN:
            return rows
        mark = now.marks.get(scope, b"")
        if mark and self.parts.of(mark) is None:
            raise Violation("shapes", self.name, "the cursor is of parts that nobody takes")
        return self.parts.seen(rows, mark)

    def unfinished(self) -> str:
        """What still differs from the hub's state, ``""`` when the two agree and nothing is left to do."""
        now = self.now
        if now is None:
            return "it was never opened"
        left: list[str] = []
        if self.memory.held:
            left.append(f"{len(self.memory.held)} held")
        if now.outbox:
            left.append(f"{len(now.outbox)} in the outbox from {min(now.outbox)} on")
        for scope in SCOPES:
            place, rows = now.places[scope], self.seen(now, scope, self.history.rows(scope))
            if scope == MAIN and self.parts is not None:
                mark = now.marks.get(scope, b"")
                if mark and not set(self.parts.always) <= (self.parts.of(mark) or frozenset()):
                    left.append("it does not take what it was opened with")
                if not mark:
                    left.append("it takes the whole scope")
            if place.hash != self.history.head_hash(scope) or now.states.get(scope) != "live":
                left.append(f"{scope} {now.states.get(scope, 'new')} at {place.seq} of {self.history.head(scope)}")
            elif self.memory.downgraded and place.seq and not now.proofs.get(scope):
                left.append(f"nothing proves that {scope} is at {place.seq}")
            elif now.visible[scope] != rows:
                left.append(f"{scope} differs: {difference(now.visible[scope], rows)}")
        if any(now.shadows.values()) or now.staged:
            left.append("shadows or staged rows remain")
        return ", ".join(left)


MARK_BYTES = 16


def _mark(packed: bytes) -> bytes:
    """Of which parts a cursor is: what its view ends with."""
    _, _, _, *rest = msgspec.msgpack.decode(packed)
    return rest[0][-MARK_BYTES:] if rest and len(rest[0]) >= MARK_BYTES else b""


def _place(packed: bytes) -> Place:
    epoch, seq, lineage, *_ = msgspec.msgpack.decode(packed)  # and whose view it is of
    return Place(epoch, seq, lineage)
