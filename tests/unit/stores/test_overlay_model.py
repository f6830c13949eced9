"""The overlay's primitives against a small model of them: visible = base + pending mutations, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from atoma.contracts.mutations import Op
from atoma.contracts.replica import StagedRow
from atoma.contracts.sync import Outcome
from atoma.contracts.values import RowImage
from atoma.mutations import queued, replay
from atoma.ports import LocalTx
from atoma_stores.changes import CommitDelta
from atoma_stores.sqlite import _rows, _scopes
from tests.unit.stores.kit import SYNCED, Opened, card, delete, inline, insert, opened, update

IDS = st.sampled_from(["a", "b", "c"])
RANKS = st.integers(0, 3)
Step: TypeAlias = tuple[object, ...]
LOCAL = st.one_of(
    st.tuples(st.just("insert"), IDS, RANKS),
    st.tuples(st.just("update"), IDS, RANKS),
    st.tuples(st.just("delete"), IDS),
    st.tuples(st.just("two"), IDS, IDS, RANKS),
)
REMOTE = st.one_of(
    st.tuples(st.just("base"), IDS, st.none() | RANKS),
    st.tuples(st.just("bases"), st.dictionaries(IDS, st.none() | RANKS)),
    st.tuples(st.just("swap"), st.dictionaries(IDS, st.none() | RANKS)),
    st.tuples(st.just("settle"), st.integers(0, 5), st.sampled_from(["applied", "rejected"])),
)
STEPS = st.lists(st.one_of(LOCAL, REMOTE), max_size=14)


@dataclass
class Mutation:
    lsn: int
    ops: list[Op]


@dataclass
class Model:
    """What the engine has to be like, written down without tables."""

    base: dict[str, RowImage] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)
    pending: list[Mutation] = field(default_factory=list)

    def touching(self, id: str) -> list[Mutation]:
        return [mutation for mutation in self.pending if any(op.id == id for op in mutation.ops)]

    def visible(self) -> dict[str, RowImage]:
        rows: dict[str, RowImage] = {}
        for id in ("a", "b", "c"):
            image = self.base.get(id)
            for mutation in self.pending:
                for op in mutation.ops:
                    if op.id == id:
                        image = replay(op, image)
            if image is not None:
                rows[id] = image
        return rows

    def set_base(self, id: str, rank: int | None, seq: int) -> None:
        if rank is None:
            self.base.pop(id, None)
        else:
            self.base[id] = card("hub", rank=rank)
        self.seqs[id] = seq


def image_of(rank: int | None) -> RowImage | None:
    return None if rank is None else card("hub", rank=rank)


def rebase(tx: LocalTx, ids: set[str], model: Model) -> None:
    """What the sync lanes do after a base moved: visible = base + what is pending, and no shadow without a reason."""
    for id in sorted(ids):
        if tx.base.read("cards", id).shadowed:
            tx.rows.put("cards", id, "main", model.visible().get(id))
            if not tx.outbox.on_row("cards", id):
                tx.base.unshadow("cards", id)


async def local(db: Opened, model: Model, step: Step) -> None:
    match step:
        case ("insert", str(id), int(rank)):
            entries = [insert(id, card("mine", rank=rank))]
        case ("update", str(id), int(rank)):
            entries = [update(id, rank=rank)]
        case ("delete", str(id)):
            entries = [delete(id)]
        case ("two", str(one), str(other), int(rank)):
            entries = [update(one, rank=rank), update(other, title="both")]
        case _:
            raise AssertionError(step)
    result = await db.queue(*entries, atomic=len(entries) > 1)
    newest = max((mutation.lsn for mutation in model.pending), default=0)
    added = await db.db.inspect(lambda tx: [m for m in tx.outbox.queued(limit=99, max_bytes=10**6) if m.lsn > newest])
    known = model.visible()
    expected = [entry.kind == "create" if entry.id not in known else entry.kind != "create" for entry in entries]
    assert result.status == ("confirmed" if all(expected) else "rejected")
    if result.status == "confirmed" and any(item.changed for item in result.items):
        (mutation,) = added
        changed = [entry for entry, item in zip(entries, result.items, strict=True) if item.changed]
        ops = [queued(entry) for entry in changed]
        model.pending.append(Mutation(mutation.lsn, ops))
    else:
        assert added == []


async def remote(db: Opened, model: Model, step: Step, seq: int) -> None:
    match step:
        case ("base", str(id), int() | None as rank):
            model.set_base(id, rank, seq)

            def body(tx: LocalTx) -> None:
                tx.base.put("cards", id, "main", image_of(rank), seq)
                rebase(tx, {id}, model)

        case ("bases", dict() as ranks):
            dirty = [id for id in ranks if model.touching(id)]
            for id, rank in ranks.items():
                model.set_base(id, rank, seq)

            def body(tx: LocalTx) -> None:
                rows = [(id, image_of(rank), seq) for id, rank in ranks.items()]
                assert sorted(tx.base.put_many("cards", "main", rows)) == sorted(dirty)
                rebase(tx, set(dirty), model)

        case ("swap", dict() as ranks):
            for id in ("a", "b", "c"):
                model.set_base(id, ranks.get(id), seq if ranks.get(id) is not None else 0)

            def body(tx: LocalTx) -> None:
                tx.scopes.stage("main", [StagedRow("cards", id, seq, image_of(rank)) for id, rank in ranks.items()])
                tx.scopes.stage(
                    "main", [StagedRow("cards", id, seq - 1, card("old")) for id in ranks]
                )  # never replaces
                tx.scopes.swap("main")
                rebase(tx, {id for _, id in tx.base.shadowed("main")}, model)

        case ("settle", int(which), status):
            if not model.pending:
                return
            mutation = model.pending.pop(which % len(model.pending))
            outcome = Outcome(0, status, "main", seq)  # type: ignore[arg-type]

            def body(tx: LocalTx) -> None:
                touched = tx.outbox.remove({mutation.lsn: outcome})
                assert set(touched) == {("cards", op.id) for op in mutation.ops}
                rebase(tx, {id for _, id in touched}, model)

        case _:
            raise AssertionError(step)
    await db.db.apply(body)


async def check(db: Opened, model: Model, followed: dict[str, RowImage]) -> None:
    visible = model.visible()
    assert await db.rows() == visible == followed

    def look(tx: LocalTx) -> None:
        dirty = {id for id in ("a", "b", "c") if model.touching(id)}
        assert {id for _, id in tx.base.shadowed("main")} == dirty
        for id in ("a", "b", "c"):
            base = tx.base.read("cards", id)
            assert base.image == model.base.get(id)
            assert base.shadowed == (id in dirty)
            if base.image is not None:
                assert base.seq == model.seqs[id]
            touching = model.touching(id)
            assert [mutation.lsn for mutation in tx.outbox.on_row("cards", id)] == [
                mutation.lsn for mutation in touching
            ]
            assert (tx.outbox.last_mid("cards", id) > 0) == bool(touching)
        mids = [mutation.mid for mutation in tx.outbox.queued(limit=99, max_bytes=10**6)]
        assert len(mids) == len(model.pending)
        assert mids == sorted(mids)

    await db.db.inspect(look)
    counters = await db.db.sqlite.read(
        lambda c: (
            c.execute("SELECT value FROM _atoma_meta WHERE key='outbox_rows'").get,
            c.execute("SELECT value FROM _atoma_meta WHERE key='outbox_bytes'").get,
            c.execute("SELECT coalesce(sum(length(body)), 0) FROM _atoma_pending").get,
        )
    )
    assert counters[0] == len(model.pending)
    assert counters[1] == counters[2]


@pytest.mark.paths
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
async def test_the_overlay_is_what_the_model_says(steps: list[Step]) -> None:
    model, followed = Model(), dict[str, RowImage]()

    def follow(delta: CommitDelta) -> None:
        for id, (old, new) in delta.changes.get("cards", {}).items():
            assert followed.get(id) == (None if old is None else old.image)
            if new is None:
                del followed[id]
            else:
                followed[id] = new.image

    with pytest.MonkeyPatch.context() as chunks:
        for module in (_rows, _scopes):
            chunks.setattr(module, "CHUNK", 2)  # all three rows are more than are written at a time
        async with opened(synced=SYNCED, environment=inline()) as db:
            db.db.subscribe_commits(follow)
            for seq, step in enumerate(steps, 1):
                if step[0] in ("insert", "update", "delete", "two"):
                    await local(db, model, step)
                else:
                    await remote(db, model, step, seq)
                await check(db, model, followed)
