"""The hub as its file tells it: every state it was in, every verdict, checked after every commit."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from atoma.testing.simulation.facts import Decided, Image, Key, Written, code_of, difference, image_of
from atoma.testing.simulation.files import RawFile
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.stores import PAIRED_NAMES, RULE_OF, SCHEMA, SCOPES, partner
from atoma.testing.simulation.verdicts import Judge, Memory

State = dict[Key, Image]


class History:
    """What the hub has promised so far, over all its crashes.

    Attributes:
        written: Every mutation that was ever committed at a client, by client id and number.
        decided: Every verdict.
        states: Per scope, the rows after each sequence.
        counts: How often what happened.
        epoch: The hub's epoch.
        floors: Per scope, the last sequence that is forgotten.
    """

    def __init__(self, path: Path, counts: Counter[str]) -> None:
        self.path = path
        self.counts = counts
        self.written: dict[tuple[bytes, int], Written] = {}
        self.decided: dict[tuple[bytes, int], Decided] = {}
        self.states: dict[str, list[State]] = {scope: [{}] for scope in SCOPES}
        self.epoch = b""
        self.floors: dict[str, int] = {}
        self._last_mids: dict[bytes, int] = defaultdict(int)
        self._memory: dict[str, Memory] = {scope: Memory() for scope in SCOPES}
        self._judge = Judge(self.decided)
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

    def head(self, scope: str) -> int:
        """The scope's last sequence."""
        return len(self.states[scope]) - 1

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
        """Note how far back the log reaches at the moment the hub begins to decide."""
        file = self._file
        assert file is not None
        for scope, floor in file.rows("SELECT scope, floor FROM _atoma_hub_scope WHERE floor>0"):
            known = self._memory[scope]
            oldest = file.rows("SELECT min(seq) FROM _atoma_hub_change WHERE scope=?", scope)[0][0]
            dead = file.rows("SELECT 1 FROM _atoma_hub_tombstone WHERE scope=? AND seq<=? LIMIT 1", scope, floor)
            log = floor if oldest is None or oldest > floor else known.log
            self._memory[scope] = Memory(floor, log, known.tombstones if dead else floor)

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
                "SELECT t.seq, c.client_id, t.mid FROM _atoma_hub_tx t JOIN _atoma_hub_client c ON c.number=t.author "
                "WHERE t.scope=? AND t.seq>? ORDER BY t.seq",
                scope,
                known,
            )
            for expected, (seq, client, mid) in enumerate(transactions, known + 1):
                if seq != expected:
                    raise Violation("I7", "hub", f"scope {scope} has {seq} where {expected} should be")
                self._append(file, scope, seq)
                found[client, mid] = (scope, seq)
            if self.head(scope) != heads[scope]:
                raise Violation("I7", "hub", f"scope {scope} says {heads[scope]}, its log ends at {self.head(scope)}")
        return found

    def _append(self, file: RawFile, scope: str, seq: int) -> None:
        before = self.states[scope][-1]
        state = dict(before)
        changes = file.rows(
            "SELECT store, id, post FROM _atoma_hub_change WHERE scope=? AND seq=? ORDER BY idx", scope, seq
        )
        for store, id, post in changes:
            image = image_of(post)
            if image is None:
                state.pop((store, id), None)
            else:
                state[store, id] = image
        check_pairs(state, f"hub {scope}@{seq}")
        self.states[scope].append(state)
        self.counts["hub transactions"] += 1

    def _verdicts(self, file: RawFile, logged: dict[tuple[bytes, int], tuple[str, int]]) -> None:
        for (client, mid), (scope, seq) in logged.items():
            if (known := self.decided.get((client, mid))) is not None:
                found = (
                    f"mutation {mid}, {known.status} as {known.scope}@{known.seq}, has effects at {scope}@{seq} as well"
                )
                raise Violation("I3", f"hub, client {client.hex()[:6]}", found)
        rows = file.rows(
            "SELECT c.client_id, o.mid, o.status, o.scope, o.seq, o.digest, o.detail FROM _atoma_hub_outcome o "
            "JOIN _atoma_hub_client c ON c.number=o.client ORDER BY o.client, o.mid"
        )
        for client, mid, *rest in rows:
            known = self.decided.get((client, mid))
            if known is None:
                self._new_verdict(client, mid, rest, logged)
            elif (known.status, known.scope, known.seq, known.digest) != tuple(rest[:4]):
                found = f"mutation {mid} was {known.status}@{known.seq}, is now {rest[0]}@{rest[2]}"
                raise Violation("I4", f"hub, client {client.hex()[:6]}", found)
        for client, mid in logged.keys() - self.decided.keys():
            raise Violation("I3", "hub", f"mutation {mid} of {client.hex()[:6]} has effects but no outcome")
        for client, last in file.rows("SELECT client_id, last_mid FROM _atoma_hub_client"):
            if last != self._last_mids[client]:
                found = f"the hub stands at mutation {last}, its verdicts end at {self._last_mids[client]}"
                raise Violation("I5", f"hub, client {client.hex()[:6]}", found)

    def _new_verdict(
        self, client: bytes, mid: int, row: list[Any], logged: dict[tuple[bytes, int], tuple[str, int]]
    ) -> None:
        where = f"hub, client {client.hex()[:6]}, mutation {mid}"
        status: str
        scope: str
        seq: int
        status, scope, seq, digest, detail = row
        found = Decided(status, scope, seq, digest, code_of(detail))
        if mid != self._last_mids[client] + 1:
            raise Violation("I5", where, f"decided after mutation {self._last_mids[client]}: there is a gap")
        self._last_mids[client] = mid
        written = self.written.get((client, mid))
        if written is None or written.digest != digest:
            raise Violation("I1", where, "decided, but no client ever committed it: a phantom")
        if (status != "rejected" and (client, mid) in logged) and logged[client, mid] != (scope, seq):
            raise Violation("I3", where, f"its effects are at {logged[client, mid]}, its outcome says {scope}@{seq}")
        wanted, changed = self._judge.decide(written, self._memory[written.scope])
        if (found.status, found.scope, found.seq, found.code) != (wanted.status, wanted.scope, wanted.seq, wanted.code):
            raise Violation("verdict", where, f"{_verdict(found)}, the rules say {_verdict(wanted)}: {written.ops}")
        self.decided[client, mid] = found
        if changed:
            state = self.states[scope][seq]
            for key, image in changed.items():
                if state.get(key) != image:
                    raise Violation("verdict", where, f"{key} became {state.get(key)}, the rules say {image}")
        self._count(written, found)

    def _count(self, written: Written, found: Decided) -> None:
        self.counts["decided"] += 1
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
            if found != self.states[scope][-1]:
                where = f"hub {scope}@{self.head(scope)}"
                raise Violation(
                    "I7", where, f"rows are not what the log says: {difference(found, self.states[scope][-1])}"
                )


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


def check_pairs(state: State, where: str) -> None:
    """Rows that are always written together carry the same token.

    Raises:
        Violation: Half of an atomic mutation is to be seen.
    """
    for (store, id), image in state.items():
        if store in PAIRED_NAMES:
            other = state.get((store, partner(id)))
            if other is None or other["token"] != image["token"]:
                found = (
                    f"{store}/{id} has {image['token']!r}, its partner {None if other is None else other['token']!r}"
                )
                raise Violation("I11", where, found)
