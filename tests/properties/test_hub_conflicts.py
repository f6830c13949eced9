"""The hub against a model of its rules: random writes by several clients, every verdict and every row compared.

The model keeps the whole history as a list and reads the rules off the documentation's table; it shares no code with
the hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from atoma.contracts.mutations import Op
from atoma.contracts.sync import Cursor, Outcome
from tests.unit.hub.kit import SCOPE, Client, Rows, apply_page, direct, hub_on, pull_all

RULES = {"cards": "lww", "kept": "server_wins", "mine": "client_wins", "hands": "manual"}
COLUMNS = ("title", "lane", "rank", "done")
START: dict[str, Any] = {"lane": "todo", "rank": 0.0, "done": 0, "board": SCOPE}
Key = tuple[str, str]
Image = dict[str, Any]


@dataclass
class Entry:
    seq: int
    author: str
    key: Key
    pre: Image | None
    post: Image | None


@dataclass
class No(Exception):
    code: str


@dataclass
class Model:
    rows: dict[Key, Image] = field(default_factory=dict)
    log: list[Entry] = field(default_factory=list)
    head: int = 0
    floor: int = 0

    def foreign(self, author: str, base: int, key: Key) -> list[Entry]:
        """What others did to the row, as far as the log tells."""
        return [e for e in self.log if e.key == key and e.seq > max(base, self.floor) and e.author != author]

    def last(self, key: Key) -> Entry | None:
        found = [e for e in self.log if e.key == key]
        return found[-1] if found else None

    def touched(self, author: str, base: int, key: Key, column: str) -> bool:
        if base < self.floor and any(e.key == key and e.seq > base and e.author != author for e in self.log):
            return True  # the log does not tell which columns
        changes = self.foreign(author, base, key)
        return any(e.pre is None or e.post is None or e.pre[column] != e.post[column] for e in changes)

    def compact(self, keep: int) -> None:
        """Raise the floor; of a row that is gone since before it, no trace is left."""
        self.floor = max(self.floor, self.head - keep)
        last = {e.key: e for e in self.log}
        gone = {key for key, e in last.items() if e.post is None and e.seq <= self.floor}
        self.log = [e for e in self.log if e.key not in gone]

    def deleted(self, author: str, base: int, key: Key) -> bool:
        last = self.last(key)
        return last is not None and last.post is None and last.author != author and last.seq > max(base, self.floor)

    def one(self, author: str, base: int, op: Op, now: dict[Key, Image]) -> bool:
        """Apply ``op`` to ``now``; whether it met a foreign change."""
        key = (op.store, op.id)
        rule = "cas" if op.cas else RULES[op.store]
        found, current = self.rows.get(key), now.get(key)
        values = dict(op.values)
        touched = [c for c in COLUMNS if self.touched(author, base, key, c)]
        match op.kind:
            case "create":
                if current not in (None, {**START, **values}):
                    raise No("ALREADY_EXISTS")
                now[key] = {**START, **values}
                return False
            case "delete":
                if current is None:
                    return False
                if touched and rule in ("server_wins", "manual", "cas"):
                    raise No("CONFLICT")
                del now[key]
                return bool(touched)
            case "replace":
                values = {**START, **values}
            case _:
                pass
        gone = self.deleted(author, base, key)
        if current is None:
            return self.absent(author, base, op, rule, gone, values, now)
        if found is None:
            now[key] = {**current, **values}
            return False
        if rule == "cas" and touched:
            raise No("CONFLICT")
        met = [c for c in values if c in touched and values[c] != found[c]]
        differing = [c for c in values if values[c] != found[c]]
        if rule == "manual" and met:
            raise No("CONFLICT")
        if rule == "server_wins" and met:
            if met == differing:
                raise No("CONFLICT")
            values = {c: v for c, v in values.items() if c not in met}
        now[key] = {**current, **values}
        return bool(met)

    def absent(
        self, author: str, base: int, op: Op, rule: str, gone: bool, values: Image, now: dict[Key, Image]
    ) -> bool:
        key = (op.store, op.id)
        last = self.last(key)
        if op.kind == "patch":
            # a row that the log no longer knows may have been deleted by anybody
            forgotten = base < self.floor and last is None
            if self.rows.get(key) is not None:
                raise No("NOT_FOUND")
            if not gone and not forgotten:
                raise No("NOT_FOUND")
            if rule != "client_wins" or not gone:
                raise No("CONFLICT")
            assert last is not None and last.pre is not None
            now[key] = {**last.pre, **values}
            return True
        if gone and rule in ("server_wins", "manual", "cas"):
            raise No("CONFLICT")
        complete = {**START, **op.defaults, **values}
        if "title" not in complete:
            raise No("INVALID")
        now[key] = complete
        return gone

    def decide(self, author: str, base: int, ops: Sequence[Op]) -> tuple[str, str, int]:
        """Status, error code, sequence."""
        now = {key: dict(image) for key, image in self.rows.items()}
        try:
            met = [self.one(author, base, op, now) for op in ops]
        except No as no:
            return "rejected", no.code, 0
        self.commit(author, now)
        return "merged" if any(met) else "applied", "", self.head

    def commit(self, author: str, now: dict[Key, Image]) -> None:
        keys = [k for k in {**self.rows, **now} if self.rows.get(k) != now.get(k)]
        if keys:
            self.head += 1
            self.log += [Entry(self.head, author, k, self.rows.get(k), now.get(k)) for k in keys]
            self.rows = now

    def at(self, seq: int) -> dict[Key, Image]:
        """The rows after ``seq``."""
        rows: dict[Key, Image] = {}
        for entry in self.log:
            if entry.seq <= seq:
                rows.pop(entry.key, None)
                if entry.post is not None:
                    rows[entry.key] = entry.post
        return rows


VALUES: dict[str, st.SearchStrategy[object]] = {
    "title": st.sampled_from(["a", "b"]),
    "lane": st.sampled_from(["todo", "done"]),
    "rank": st.sampled_from([0.0, 1.5]),
    "done": st.sampled_from([0, 1]),
}
some_values: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({}, optional=VALUES)


@st.composite
def ops(draw: st.DrawFn) -> Op:
    kind = draw(st.sampled_from(["create", "patch", "patch", "patch", "replace", "upsert", "delete", "delete"]))
    values = {} if kind == "delete" else draw(some_values)
    if kind in ("create", "replace"):
        values["title"] = draw(VALUES["title"])
    defaults = {"title": "default"} if kind == "upsert" and draw(st.booleans()) else {}
    store = draw(st.sampled_from(sorted(RULES)))
    id = draw(st.sampled_from(["1", "1", "1", "2"]))
    return Op(kind, store, id, values, defaults, cas=draw(st.integers(0, 7)) == 0)  # type: ignore[arg-type]


def writes() -> st.SearchStrategy[tuple[str, int, list[Op]]]:
    """Who, how far behind the head, what; ``hub`` compacts, keeping that many transactions."""
    who = st.sampled_from(["ann", "ann", "ann", "ann", "bob", "bob", "bob", "bob", "direct", "hub"])
    return st.tuples(who, st.integers(0, 6), st.lists(ops(), min_size=1, max_size=3))


def write_directly(model: Model, op: Op) -> tuple[Op, bool]:
    """An upsert or delete by somebody without a client, and whether the model takes it."""
    now = {key: dict(image) for key, image in model.rows.items()}
    key = (op.store, op.id)
    if op.kind == "delete":
        there = now.pop(key, None) is not None
        model.commit("direct", now)
        return Op("delete", op.store, op.id, scope=SCOPE), there
    now[key] = {**now.get(key, {**START, "title": "default"}), **op.values}
    model.commit("direct", now)
    entry = Op("upsert", op.store, op.id, dict(op.values), scope=SCOPE, defaults={"title": "default"})
    return entry, True


def facts(outcome: Outcome) -> tuple[str, str, int]:
    return outcome.status, outcome.error.code if outcome.error else "", outcome.seq


def plain(rows: Rows) -> dict[Key, Image]:
    return {key: dict(image) for key, image in rows.items()}


@settings(max_examples=60)
@given(st.lists(writes(), min_size=12, max_size=30), st.data())
async def test_verdicts_and_rows_are_the_models(history: list[tuple[str, int, list[Op]]], data: st.DataObject) -> None:
    model = Model()
    async with hub_on(":memory:") as hub:
        clients = {name: Client.of(hub, name) for name in ("ann", "bob", "cid")}
        outcomes: dict[str, list[Outcome]] = {name: [] for name in clients}
        begin = [Op("create", store, "1", {"title": "a"}) for store in RULES]
        history = [("cid", 0, begin), *history]
        for number, (who, behind, wanted) in enumerate(history):
            if who == "hub":
                await hub.compact(keep=behind)
                model.compact(behind)
            elif who == "direct":
                entry, taken = write_directly(model, wanted[0])
                result = await clients["ann"].service.write(direct(entry, idem=str(number)))
                assert result.items[0].ok == taken, (entry, result)
            else:
                base = max(0, model.head - behind)
                expected = model.decide(who, base, wanted)
                outcome = await clients[who].do(*wanted, base=base)
                outcomes[who].append(outcome)
                assert facts(outcome) == expected, (who, base, wanted, outcome)
                if outcome.status == "merged":
                    assert outcome.conflicts
                if outcome.error is not None and outcome.error.code in ("CONFLICT", "ALREADY_EXISTS"):
                    conflict = outcome.conflicts[0]
                    assert conflict.current == model.rows.get((conflict.store, conflict.id))
        reader = Client.of(hub, "reader")
        if model.floor == 0:
            rows, end = await pull_all(reader)
            assert (plain(rows), end.seq) == (model.rows, model.head)
            await check_pages(reader, model, data)
        for store in RULES:
            found = await reader.query(store)
            assert found == {id: image for (name, id), image in model.rows.items() if name == store}
        for name, client in clients.items():
            if client.mutations:
                await check_duplicates(client, outcomes[name])


async def check_pages(reader: Client, model: Model, data: st.DataObject) -> None:
    """Pages of any size, cut anywhere: after each, the rows are the model's at its end, and nothing is skipped."""
    rows: Rows = {}
    cursor = Cursor()
    while True:
        changes, size = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([1, 150, 10_000]))
        page = await reader.pull(cursor, max_changes=changes, max_bytes=size)
        apply_page(rows, page)
        assert page.start == cursor
        assert plain(rows) == model.at(page.end.seq)
        assert page.more == (page.end.seq < model.head)
        if not page.more:
            break
        assert page.end.seq > cursor.seq
        cursor = page.end


async def check_duplicates(client: Client, outcomes: list[Outcome]) -> None:
    """Everything pushed again changes nothing and is answered as before."""
    before = (await client.open()).scopes
    reply = await client.push()
    assert all(outcome.duplicate for outcome in reply.outcomes)
    assert [facts(outcome) for outcome in reply.outcomes] == [facts(outcome) for outcome in outcomes]
    assert (await client.open()).scopes == before
