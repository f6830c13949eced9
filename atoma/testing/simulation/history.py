"""The hub as its file tells it: every state it was in, every verdict, checked after every commit."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container
from pathlib import Path
from typing import Any

from atoma.testing.simulation.facts import Decided, Key, Name, Offered, Written, code_of, difference, image_of
from atoma.testing.simulation.files import RawFile
from atoma.testing.simulation.lineage import BEGINNING, Lineage, Moment, State
from atoma.testing.simulation.recall import Recall, read_recall
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.stores import PAIRED_NAMES, RULE_OF, RULES, SCHEMA, SCOPES, partner
from atoma.testing.simulation.verdicts import Change, Judge, Memory


class Branch:
    """The contents of one history of the hub: all that goes back with its file when that is restored.

    Attributes:
        decided: Every verdict.
        states: Per scope, the rows after each sequence.
        hashes: Per scope, the hash of the log after each sequence.
        last_mids: The last number decided, by client id.
        forgotten: Clients that it has had and has no more.
        memory: Per scope, how far back the log reached when the hub last began to decide.
        judge: Decides everything once more.
        witnesses: Per scope, where the devices had been, by the hash of the log, whose offers have come.
    """

    def __init__(self) -> None:
        self.decided: dict[tuple[bytes, int], Decided] = {}
        self.states: dict[str, list[State]] = {scope: [{}] for scope in SCOPES}
        self.hashes: dict[str, list[bytes]] = {scope: [BEGINNING] for scope in SCOPES}
        self.last_mids: dict[bytes, int] = defaultdict(int)
        self.forgotten: set[bytes] = set()
        self.memory: dict[str, Memory] = {scope: Memory() for scope in SCOPES}
        self.judge = Judge(self.decided)
        self.witnesses: dict[str, frozenset[bytes]] = {scope: frozenset() for scope in SCOPES}

    def copy(self) -> Branch:
        """The same, to go on from twice."""
        other = Branch()
        other.decided.update(self.decided)
        other.states = {scope: list(states) for scope, states in self.states.items()}
        other.hashes = {scope: list(hashes) for scope, hashes in self.hashes.items()}
        other.last_mids.update(self.last_mids)
        other.forgotten |= self.forgotten
        other.memory = dict(self.memory)
        other.judge = self.judge.copy(other.decided)
        other.witnesses.update(self.witnesses)
        return other


class History:
    """The promises of the hub so far, over all its crashes and restores.

    Attributes:
        written: Every mutation that ever lay in an outbox, by its name.
        verdicts: Every verdict that was ever given on it, in whichever history.
        lineage: Every state that the hub ever had.
        now: The history that its file has now.
        counts: How often what happened.
        epoch: The hub's epoch.
        floors: Per scope, the last sequence that is forgotten.
        users: Whose each client is.
        lies: Offers that somebody has invented.
    """

    def __init__(self, path: Path, counts: Counter[str]) -> None:
        self.path = path
        self.counts = counts
        self.written: dict[Name, Written] = {}
        self.verdicts: dict[Name, list[Decided]] = defaultdict(list)
        self.lineage = Lineage()
        self.now = Branch()
        self.epoch = b""
        self.floors: dict[str, int] = {}
        self.users: dict[bytes, str] = {}
        self.lies: set[Name] = set()
        self._recall = Recall()
        self._file: RawFile | None = None

    def open(self) -> None:
        """Begin to read the file, after the hub was opened; what it had promised has to be there."""
        self._file = RawFile(self.path)
        self.observe()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def raw(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the hub's file; it has to be open."""
        assert self._file is not None
        return self._file.rows(sql)

    def head(self, scope: str) -> int:
        """The scope's last sequence."""
        return len(self.now.states[scope]) - 1

    def head_hash(self, scope: str) -> bytes:
        """Hash of the log there."""
        return self.now.hashes[scope][-1]

    def rows(self, scope: str) -> State:
        """The scope's rows now."""
        return self.now.states[scope][-1]

    @property
    def forgotten(self) -> set[bytes]:
        """Clients that the hub has forgotten."""
        return self.now.forgotten

    def verdict(self, written: Written) -> Decided | None:
        """What the hub, as it is now, has decided about this very mutation."""
        found = self.now.decided.get((written.client, written.mid))
        return found if found is not None and found.digest == written.digest else None

    def observe(self) -> None:
        """Read what the last commit did and check it.

        Raises:
            Violation: A promise does not hold.
        """
        assert self._file is not None
        self._file.begin()
        try:
            scopes = self._file.rows("SELECT scope, head, floor FROM _atoma_hub_scope")
            heads = {scope: head for scope, head, _ in scopes}
            self.floors = {scope: floor for scope, _, floor in scopes}
            self.epoch = self._file.rows("SELECT epoch FROM _atoma_hub_info")[0][0]
            logged = self._log(self._file, heads)
            self._verdicts(self._file, logged)
            self._rows(self._file)
        finally:
            self._file.end()

    def decision_begins(self) -> None:
        """Note what the file still tells at the moment the hub begins to decide, and how far back its log reaches."""
        file = self._file
        assert file is not None
        self._recall = read_recall(file)
        memory = self.now.memory
        for scope, floor in file.rows("SELECT scope, floor FROM _atoma_hub_scope WHERE floor>0"):
            known = memory[scope]
            oldest = file.rows("SELECT min(seq) FROM _atoma_hub_change WHERE scope=?", scope)[0][0]
            dead = file.rows("SELECT 1 FROM _atoma_hub_tombstone WHERE scope=? AND seq<=? LIMIT 1", scope, floor)
            log = floor if oldest is None or oldest > floor else known.log
            memory[scope] = Memory(floor, log, known.tombstones if dead else floor)

    def _log(self, file: RawFile, heads: dict[str, int]) -> dict[tuple[bytes, int], tuple[str, int]]:
        """Take new transactions in; their place by client and number."""
        found: dict[tuple[bytes, int], tuple[str, int]] = {}
        for scope in SCOPES:
            known = self.head(scope)
            if heads.get(scope, 0) < known:
                raise Violation("I6", "hub", f"scope {scope} is at {heads.get(scope, 0)}, it had been at {known}")
            if heads.get(scope, 0) == known:
                continue
            transactions = file.rows(
                "SELECT t.seq, t.hash, c.client_id, t.mid, o.digest FROM _atoma_hub_tx t "
                "LEFT JOIN _atoma_hub_client c ON c.number=t.author "
                "LEFT JOIN _atoma_hub_outcome o ON o.client=t.author AND o.mid=t.mid "
                "WHERE t.scope=? AND t.seq>? ORDER BY t.seq",
                scope,
                known,
            )
            for expected, (seq, mark, client, mid, digest) in enumerate(transactions, known + 1):
                if seq != expected:
                    raise Violation("I7", "hub", f"scope {scope} has {seq} where {expected} should be")
                self._append(file, scope, seq, mark, self.written.get((client or b"", mid, digest)))
                if client is not None:
                    found[client, mid] = (scope, seq)
                else:
                    self._withdraw(scope, seq)
            if self.head(scope) != heads[scope]:
                raise Violation("I7", "hub", f"scope {scope} says {heads[scope]}, its log ends at {self.head(scope)}")
        return found

    def _withdraw(self, scope: str, seq: int) -> None:
        """The operator has allowed deletions that were held back."""
        before, after = self.now.states[scope][seq - 1], self.now.states[scope][seq]
        if after.keys() - before.keys() or any(after[key] != before[key] for key in after):
            raise Violation("I22", f"hub {scope}@{seq}", "the operator allowed deletions, and a row was written")
        changed = dict.fromkeys(before.keys() - after.keys())
        change = Change(seq, b"", None, offered=True)
        self.now.judge.follow(scope, changed, change, self.now.memory[scope])

    def _append(self, file: RawFile, scope: str, seq: int, mark: bytes, written: Written | None) -> None:
        state = dict(self.rows(scope))
        loose = self.lineage.loose(scope, self.head_hash(scope))
        changes = file.rows(
            "SELECT store, id, post FROM _atoma_hub_change WHERE scope=? AND seq=? ORDER BY idx", scope, seq
        )
        for store, id, post in changes:
            image = image_of(post)
            if image is None:
                state.pop((store, id), None)
            else:
                state[store, id] = image
        changed = frozenset((store, id) for store, id, _ in changes)
        if written is not None and written.offered is None and not written.brought:
            loose -= written.keys
        else:
            loose |= changed
        check_pairs(state, f"hub {scope}@{seq}", loose)
        self.lineage.add(scope, Moment(seq, mark, self.head_hash(scope), state, loose, changed))
        self.now.states[scope].append(state)
        self.now.hashes[scope].append(mark)
        self.counts["hub transactions"] += 1

    def _verdicts(self, file: RawFile, logged: dict[tuple[bytes, int], tuple[str, int]]) -> None:
        decided = self.now.decided
        for (client, mid), (scope, seq) in logged.items():
            if (known := decided.get((client, mid))) is not None:
                found = (
                    f"mutation {mid}, {known.status} as {known.scope}@{known.seq}, has effects at {scope}@{seq} as well"
                )
                raise Violation("I3", f"hub, client {client.hex()[:6]}", found)
        rows = file.rows(
            "SELECT c.client_id, o.mid, o.status, o.scope, o.seq, o.digest, o.detail FROM _atoma_hub_outcome o "
            "JOIN _atoma_hub_client c ON c.number=o.client ORDER BY o.client, o.mid"
        )
        for client, mid, *rest in rows:
            known = decided.get((client, mid))
            if known is None:
                self._new_verdict(client, mid, rest, logged)
            elif (known.status, known.scope, known.seq, known.digest) != tuple(rest[:4]):
                found = f"mutation {mid} was {known.status}@{known.seq}, is now {rest[0]}@{rest[2]}"
                raise Violation("I4", f"hub, client {client.hex()[:6]}", found)
        for client, mid in logged.keys() - decided.keys():
            raise Violation("I3", "hub", f"mutation {mid} of {client.hex()[:6]} has effects but no outcome")
        clients = dict(file.rows("SELECT client_id, last_mid FROM _atoma_hub_client"))
        self.now.forgotten |= self.now.last_mids.keys() - clients.keys()
        for client, last in clients.items():
            if last != self.now.last_mids[client]:
                found = f"the hub stands at mutation {last}, its verdicts end at {self.now.last_mids[client]}"
                raise Violation("I5", f"hub, client {client.hex()[:6]}", found)

    def _new_verdict(
        self, client: bytes, mid: int, row: list[Any], logged: dict[tuple[bytes, int], tuple[str, int]]
    ) -> None:
        where = f"hub, client {client.hex()[:6]}, mutation {mid}"
        status: str
        scope: str
        seq: int
        status, scope, seq, digest, detail = row
        mark = self.now.hashes[scope][seq] if scope in SCOPES else BEGINNING
        found = Decided(status, scope, seq, digest, code_of(detail), mark)
        if mid != self.now.last_mids[client] + 1:
            raise Violation("I5", where, f"decided after mutation {self.now.last_mids[client]}: there is a gap")
        self.now.last_mids[client] = mid
        written = self.written.get((client, mid, digest))
        if written is None:
            raise Violation("I1", where, "decided, but no client ever committed it: a phantom")
        if (status != "rejected" and (client, mid) in logged) and logged[client, mid] != (scope, seq):
            raise Violation("I3", where, f"its effects are at {logged[client, mid]}, its outcome says {scope}@{seq}")
        if status != "rejected" and written.name in self.lies:
            raise Violation("I22", where, f"the hub was never there, and the offer is {status}: {written}")
        known = self._recall.known_until(written.scope, written.epoch, written.base_seq)
        self._check_base(where, written, known)
        if written.offered is not None:
            self._follow(written, written.offered, found, effective=(client, mid) in logged)
        else:
            self._judge(where, written, found, known)
        self._recall.note(written)
        self.now.decided[client, mid] = found
        self.verdicts[written.name].append(found)
        self._count(written, found)

    def _judge(self, where: str, written: Written, found: Decided, known: int) -> None:
        """The rules, carried out once more, say the same."""
        memory, before = self.now.memory[written.scope], self._recall.outcome(written)
        doubtful = written.doubtful or self._recall.is_doubtful(written)
        brought = set[Key]()
        if written.epoch != self._recall.epoch:  # what an increment has added may be in what was brought back
            brought = {key for key in written.keys if self._recall.brought.get((written.scope, *key), 0) > known}
            brought |= self.now.judge.brought(written, known)
        wanted, changed = self.now.judge.decide(
            written, memory, known, before, doubtful=doubtful, brought=brought, user=self.users.get(written.client, "")
        )
        if (found.status, found.scope, found.seq, found.code) != (wanted.status, wanted.scope, wanted.seq, wanted.code):
            raise Violation("verdict", where, f"{_verdict(found)}, the rules say {_verdict(wanted)}: {written}")
        if changed:
            state = self.now.states[found.scope][found.seq]
            for key, image in changed.items():
                if state.get(key) != image:
                    raise Violation("verdict", where, f"{key} became {state.get(key)}, the rules say {image}")

    def _check_base(self, where: str, written: Written, known: int) -> None:
        """I27: what a user had seen is a number of the history they saw, and of this one only as far as it is the same."""
        fork = self.lineage.fork(written.scope, written.seen, self.head_hash(written.scope))
        if known > fork.seq:
            found = f"taken to have seen {known} of this history, of which they have seen {fork.seq}"
            raise Violation("I27", where, f"{found}: it says {written.base_seq} of epoch {written.epoch.hex()[:6]}")

    def _follow(self, written: Written, offer: Offered, found: Decided, *, effective: bool) -> None:
        """An offer is decided: what it changed, it may have changed, and what is left out, a better witness has brought."""
        scope, seq = found.scope, found.seq
        if found.status == "superseded":
            self._check_superseded(written, offer, found.seq)
        elif found.code not in ("DENIED", "INVALID"):
            self.now.witnesses[written.scope] |= {offer.hash}
        if not effective:
            return
        fork = self.lineage.fork(scope, offer.hash, self.now.hashes[scope][seq - 1])
        before, after = self.now.states[scope][seq - 1], self.now.states[scope][seq]
        changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        for key in changed:
            self.now.judge.check_offer(scope, key, offer, fork.seq, self.users.get(written.client, ""))
        change = Change(seq, written.client, None, offered=True, witness=(offer.epoch, offer.seq))
        self.now.judge.follow(scope, {key: after.get(key) for key in changed}, change, self.now.memory[scope])

    def _check_superseded(self, written: Written, offer: Offered, seq: int) -> None:
        """I22: who has seen more of the same history was here before, or the hub has the rows, or its silence is about a part."""
        witnesses = self.now.witnesses[written.scope]
        if any(self.lineage.leads_to(written.scope, offer.hash, witness) for witness in witnesses):
            return
        rows = self.now.states[written.scope][seq]
        for op in written.ops:
            image = None if op.kind == "delete" else op.values
            if rows.get(op.key) != image and op.key[0] not in RULES:
                where = f"hub {written.scope}, client {written.client.hex()[:6]}"
                raise Violation(
                    "I22", where, f"nobody who has seen more of it was here, and {op.key} is left out: {written}"
                )

    def _count(self, written: Written, found: Decided) -> None:
        self.counts["decided"] += 1
        self.counts["offers decided"] += written.offered is not None and not written.offered.last
        self.counts[f"offers {found.status}"] += written.offered is not None and not written.offered.last
        self.counts["outcomes unknown"] += found.code == "UNKNOWN_OUTCOME"
        rules = {RULE_OF[op.key[0]] for op in written.ops}
        if found.status == "merged" or found.code == "CONFLICT":
            self.counts.update(f"conflicts {rule}" for rule in rules)
        if found.rejected:
            self.counts["rejected"] += 1
            self.counts["unique refused"] += found.code == "CONSTRAINT"
            self.counts["dependants rejected"] += found.code == "DEPENDENCY_REJECTED"

    def _rows(self, file: RawFile) -> None:
        """The hub's own tables are the state its log tells."""
        for scope in SCOPES:
            found = read_rows(file, scope)
            if found != self.rows(scope):
                where = f"hub {scope}@{self.head(scope)}"
                raise Violation("I7", where, f"rows are not what the log says: {difference(found, self.rows(scope))}")


def _verdict(decided: Decided) -> str:
    return f"{decided.status}@{decided.seq}{f' ({decided.code})' if decided.code else ''}"


_SELECT = {
    store.name: f'SELECT id, {", ".join(store.value_columns)} FROM "{store.name}" WHERE _scope=?'
    for store in SCHEMA.stores.values()
}


def read_rows(file: RawFile, scope: str) -> State:
    """The visible rows of a scope, at a hub or at a client."""
    state: State = {}
    for store in SCHEMA.stores.values():
        columns = store.value_columns
        for id, *values in file.rows(_SELECT[store.name], scope):
            state[store.name, id] = dict(zip(columns, values, strict=True))
    return state


def check_pairs(state: State, where: str, loose: Container[Key] = ()) -> None:
    """Rows that are always written together carry the same token, but those that have come back one by one.

    Raises:
        Violation: Half of an atomic mutation is to be seen.
    """
    for (store, id), image in state.items():
        if store in PAIRED_NAMES:
            other = state.get((store, partner(id)))
            if (store, id) in loose or (store, partner(id)) in loose:
                continue
            if other is None or other["token"] != image["token"]:
                found = (
                    f"{store}/{id} has {image['token']!r}, its partner {None if other is None else other['token']!r}"
                )
                raise Violation("I11", where, found)
