"""Units that are queued: receipts, repeats, limits, volatile writes, the inbox and the state of replication."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio
import trio.testing
from msgspec import structs

from atoma.contracts.execution import Receipt
from atoma.contracts.mutations import HELD_MID, Op, PendingMutation, Recovers
from atoma.contracts.replica import InboxEntry, LostRow, StagedRow, Subscription
from atoma.contracts.sync import Cursor, Mark, Outcome
from atoma.contracts.values import ErrorInfo
from atoma.errors import ClosedError, ConflictError, DiskFull, OutboxFull, WriteRejected
from atoma.mutations import ops_by_row, overlay, rebase_rows
from atoma.ports import LocalTx
from atoma.schema import Schema
from atoma_stores.changes import CommitDelta
from atoma_stores.sqlite._outbox import OutboxLimits
from atoma_stores.sqlite._queries import commit_number
from atoma_stores.sqlite._rows import FileKnowledge
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.faults import fault_vfs
from tests.paths import memory
from tests.unit.stores.kit import SYNCED, Opened, card, delete, in_turn, insert, opened, request, update


def receipt_of(value: object) -> Receipt:
    assert isinstance(value, Receipt)
    return value


async def settle(db: Opened, lsn: int, outcome: Outcome | None) -> None:
    await db.db.apply(lambda tx: tx.outbox.remove({lsn: outcome}))


@pytest.mark.paths
async def test_a_receipt_follows_its_mutation() -> None:
    async with opened(synced=SYNCED) as db:
        one, two = [receipt_of(r) for r in (await db.queue(insert("1"), insert("2"))).receipts]
        assert (one.state, two.state) == ("queued", "queued")
        answers: dict[str, int] = {}

        async def wait(name: str, receipt: Receipt, observed: bool) -> None:
            answers[name] = await receipt.wait(observed=observed)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "one accepted", one, False)
            nursery.start_soon(wait, "one observed", one, True)
            await trio.testing.wait_all_tasks_blocked()
            await db.db.apply(lambda tx: tx.outbox.mark_acked({1: 7}))
            await trio.testing.wait_all_tasks_blocked()
            assert answers == {"one accepted": 7}
            assert (one.state, two.state) == ("accepted", "queued")
            await settle(db, 1, Outcome(1, "applied", "main", 7))
        assert answers == {"one accepted": 7, "one observed": 7}
        assert (one.state, two.state) == ("observed", "queued")


async def test_a_row_that_an_index_refuses_is_hidden_and_comes_back_with_the_next_rebase() -> None:
    def rename(tx: LocalTx) -> list[str]:
        """The authority's image of 1 has the name that 2 shows."""
        tx.base.shadow("tags", "1", "main", {"name": "one"})
        tx.base.put("tags", "1", "main", {"name": "two"}, 5)
        rebase_rows(tx, [("tags", "1")])
        return list(tx.base.hidden("tags"))

    def take_away(tx: LocalTx) -> list[str]:
        tx.base.put("tags", "2", "main", None, 0)
        rebase_rows(tx, [("tags", "2")])
        return list(tx.base.hidden("tags"))

    async with opened() as db:
        await db.write(insert("1", {"name": "one"}, "tags"), insert("2", {"name": "two"}, "tags"))
        assert await db.db.apply(rename) == ["1"]
        assert await db.rows("tags") == {"2": {"name": "two"}}
        assert await db.db.apply(take_away) == []
        row = await db.get("1", "tags")
        assert row is not None
        assert (row.image, row.seq) == ({"name": "two"}, 5)


async def test_a_mutation_is_decoded_once_however_many_rows_it_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def counted(body: bytes, schema: Schema) -> dict[tuple[str, str], list[Op]]:
        decoded.append(body)
        return ops_by_row(body, schema)

    monkeypatch.setattr(overlay, "ops_by_row", counted)
    ids = [f"{number}" for number in range(20)]
    async with opened(synced=SYNCED) as db:
        await db.queue(*(insert(id) for id in ids), atomic=True)
        await db.db.apply(lambda tx: rebase_rows(tx, [("cards", id) for id in ids]))
        assert len(decoded) == 1
        assert sorted(await db.rows()) == sorted(ids)


async def test_a_base_that_comes_again_is_no_change() -> None:
    async with opened(synced=SYNCED) as db:
        await db.db.apply(lambda tx: tx.base.put("cards", "1", "main", card("hub"), 5))
        heard: list[CommitDelta] = []
        db.db.subscribe_commits(heard.append)
        for seq in (5, 5, 6):  # the same page twice, then the same image under a later sequence
            await db.db.apply(lambda tx, seq=seq: tx.base.put("cards", "1", "main", card("hub"), seq))  # type: ignore[misc]
        assert [change.changes for change in heard if change.changes] == [], "nothing that anybody sees has changed"
        assert await db.db.inspect(lambda tx: tx.base.read("cards", "1").seq) == 6


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(Outcome(1, "rejected", "main", error=ErrorInfo("DENIED", "not yours")), "DENIED"), (None, "TAKEN_BACK")],
)
async def test_a_refused_mutation_is_an_error_of_its_receipt(outcome: Outcome | None, reason: str) -> None:
    async with opened(synced=SYNCED) as db:
        receipt = receipt_of((await db.queue(insert("1"))).receipts[0])
        await settle(db, 1, outcome)
        assert receipt.state == "rejected"
        with pytest.raises(WriteRejected) as rejected:
            await receipt.wait(observed=False)
        assert rejected.value.reason == reason


def hold(tx: LocalTx) -> None:
    held = [
        structs.replace(one, kind="held", mid=HELD_MID, last_error="too large")
        for one in tx.outbox.on_row("cards", "1")
    ]
    tx.outbox.rewrite(held)


async def test_a_held_mutation_is_dead_and_still_there() -> None:
    async with opened(synced=SYNCED) as db:
        receipt = receipt_of((await db.queue(insert("1"))).receipts[0])
        await db.db.apply(hold)
        assert receipt.state == "dead"
        with pytest.raises(WriteRejected, match="too large"):
            await receipt.wait(observed=False)
        pending = await db.db.inspect(lambda tx: tx.outbox.on_row("cards", "1"))
        assert [(m.kind, m.last_error) for m in pending] == [("held", "too large")]
        assert await db.db.inspect(lambda tx: tx.outbox.queued(limit=9, max_bytes=99)) == []
        assert await db.db.inspect(lambda tx: tx.outbox.held_count()) == 1


async def test_a_held_mutation_that_is_released_has_a_new_receipt() -> None:
    async with opened(synced=SYNCED) as db:
        dead = receipt_of((await db.queue(insert("1"), idem="k")).receipts[0])
        await db.db.apply(hold)
        assert await dead.moved("queued") == "dead"
        assert await dead.moved("dead") is None

        def release(tx: LocalTx) -> None:
            tx.outbox.rewrite([structs.replace(one, kind="outbox", mid=1) for one in tx.outbox.on_row("cards", "1")])

        await db.db.apply(release)
        recalled = await db.db.recall("k")
        assert recalled is not None
        alive = receipt_of(recalled.receipts[0])
        assert (dead.state, alive.state) == ("dead", "queued")
        await db.db.apply(lambda tx: tx.outbox.mark_acked({1: 7}))
        assert (await alive.moved("queued"), dead.state) == ("accepted", "dead")


@pytest.mark.paths
async def test_an_undone_settlement_tells_nobody() -> None:
    def body(tx: LocalTx) -> None:
        tx.outbox.remove({1: Outcome(1, "applied", "main", 1)})
        raise LookupError

    async with opened(synced=SYNCED) as db:
        receipt = receipt_of((await db.queue(insert("1"))).receipts[0])
        with pytest.raises(LookupError):
            await db.db.apply(body)
        assert receipt.state == "queued"


async def test_one_receipt_for_the_entries_of_an_atomic_unit() -> None:
    async with opened(synced=SYNCED) as db:
        result = await db.queue(insert("1"), insert("2"), atomic=True)
        assert result.receipts[0] is result.receipts[1]


async def test_closing_ends_the_wait_for_a_verdict() -> None:
    async def wait(receipt: Receipt) -> None:
        with pytest.raises(ClosedError, match="stays in the outbox"):
            await receipt.wait(observed=False)

    async with trio.open_nursery() as nursery:
        async with opened(synced=SYNCED) as db:
            nursery.start_soon(wait, receipt_of((await db.queue(insert("1"))).receipts[0]))
            await trio.testing.wait_all_tasks_blocked()


@pytest.mark.paths
async def test_a_repeated_unit_answers_the_same_and_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    unit = request(insert("1", card("x")), insert("1"), update("1", rank=3), delete("9"), idem="key")
    async with opened(path, synced=SYNCED) as db:
        first = await db.queue_request(unit)
        heard: list[CommitDelta] = []
        db.db.subscribe_commits(heard.append)
        again = await db.queue_request(unit)
        assert again.status == first.status == "partial"
        assert [(i.id, i.ok, i.changed, i.version, i.error) for i in again.items] == [
            (i.id, i.ok, i.changed, i.version, i.error) for i in first.items
        ]
        assert again.receipts == first.receipts
        assert heard == []
    async with opened(path, synced=SYNCED) as db:
        later = await db.queue_request(unit)
        assert [i.version for i in later.items] == [i.version for i in first.items]
        assert receipt_of(later.receipts[0]).state == "queued"
        assert [m.idem for m in await db.db.inspect(lambda tx: tx.outbox.queued(limit=9, max_bytes=10**6))] == [
            "key:0",
            "key:2",
        ]
        await db.db.apply(lambda tx: tx.outbox.mark_acked({1: 4}))
        assert await receipt_of((await db.queue_request(unit)).receipts[0]).wait(observed=False) == 4
    async with opened(path, synced=SYNCED) as db:
        assert receipt_of((await db.queue_request(unit)).receipts[0]).state == "accepted"
        await settle(db, 1, Outcome(1, "applied", "main", 4))
        assert receipt_of((await db.queue_request(unit)).receipts[0]).state == "observed"
        entry = InboxEntry(2, "cards", "1", "main", "DENIED", "", Op("patch", "cards", "1"), None, None, None, 0, 0)
        await db.db.apply(in_turn(lambda tx: tx.inbox.add(entry), lambda tx: tx.outbox.remove({2: None})))
        assert receipt_of((await db.queue_request(unit)).receipts[2]).state == "rejected"
        assert len(await db.rows()) == 1


async def test_a_write_that_failed_is_not_taken_for_a_repeat(tmp_path: Path) -> None:
    with fault_vfs("filling-outbox") as plan:
        engine = SQLiteEngine(tmp_path / "a.db", vfs="filling-outbox")
        async with opened(engine=engine, synced=SYNCED) as db:
            heard: list[CommitDelta] = []
            db.db.subscribe_commits(heard.append)
            unit = request(insert("1"), idem="key")
            plan.fail("write", "full")
            with pytest.raises(DiskFull):
                await db.queue_request(unit)
            plan.heal()
            assert (await db.rows(), heard) == ({}, [])
            result = await db.queue_request(unit)
            assert (result.status, result.meta.commit) == ("confirmed", 1)
            assert await db.db.inspect(lambda tx: tx.outbox.identity().next_mid) == 2


async def test_what_a_group_has_left_is_written_once_and_never_after_it_was_given_up() -> None:
    async with opened(synced=SYNCED) as db:
        await db.queue(insert("1"))
        sqlite, known = db.db.sqlite, FileKnowledge()
        sqlite.before_commit(known.write, known.forget)

        def leave(connection: apsw.Connection, *, number: int, gives_up: bool = False) -> None:
            known.refresh(connection)
            known.left(connection, {**known.counters, "commit": number, "version": number})
            if gives_up:
                connection.execute("ROLLBACK")
                raise DiskFull("SQLite gave the transaction up")

        with pytest.raises(DiskFull):
            await sqlite.transact(partial(leave, number=50, gives_up=True))
        await sqlite.transact(lambda _: None)
        assert await sqlite.read(commit_number) == 1
        await sqlite.transact(partial(leave, number=7))
        await sqlite.transact(lambda _: None)
        assert await sqlite.read(commit_number) == 7


@pytest.mark.paths
@pytest.mark.parametrize(
    ("limits", "fits"), [(OutboxLimits(rows=3), 3), (OutboxLimits(size=450), 2), (OutboxLimits(rows=1, size=10**6), 1)]
)
async def test_a_full_outbox_fails_the_whole_write(limits: OutboxLimits, fits: int) -> None:
    async with opened(engine=SQLiteEngine(memory(), outbox_limits=limits), synced=SYNCED) as db:
        for n in range(fits):
            await db.queue(insert(str(n)))
        for atomic in (False, True):
            with pytest.raises(OutboxFull, match="nothing was written"):
                await db.queue(insert("x"), insert("y"), atomic=atomic)
        assert len(await db.rows()) == fits
        await settle(db, 1, None)
        await db.queue(insert("z"))
        with pytest.raises(OutboxFull):
            await db.queue(insert("zz"))
        assert await db.db.inspect(lambda tx: tx.outbox.identity().next_mid) == fits + 2


@pytest.mark.paths
async def test_volatile_writes_do_not_outlive_the_program(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, synced=SYNCED) as db:
        await db.db.apply(lambda tx: tx.base.put("cards", "1", "main", card("hub"), 5))
        await db.queue(update("1", lane="done"))
        db.outbox.kind = "volatile"
        await db.queue(update("1", rank=9), insert("2"), delete("1"))
        assert await db.rows() == {"2": card()}
        assert [m.kind for m in await db.db.inspect(lambda tx: tx.outbox.on_row("cards", "1"))] == [
            "outbox",
            "volatile",
            "volatile",
        ]
    async with opened(path, synced=SYNCED) as db:
        assert await db.rows() == {"1": card("hub", lane="done")}
        assert await db.db.inspect(lambda tx: tx.base.shadowed("main")) == [("cards", "1")]
        base = await db.db.inspect(lambda tx: tx.base.read("cards", "1"))
        assert (base.image, base.seq, base.shadowed) == (card("hub"), 5, True)
        await db.db.apply(in_turn(lambda tx: tx.outbox.remove({1: None}), lambda tx: tx.base.unshadow("cards", "1")))
    async with opened(path, synced=SYNCED) as db:
        row = await db.get("1")
        assert row is not None
        assert row.seq == 5


async def test_a_volatile_write_that_was_taken_back_may_be_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    unit = request(insert("1"), idem="key")
    for _ in range(2):
        async with opened(path, synced=SYNCED) as db:
            db.outbox.kind = "volatile"
            assert (await db.queue_request(unit)).items[0].changed
            assert await db.rows() == {"1": card()}


async def test_the_outbox_is_read_in_order_and_in_portions() -> None:
    async with opened(synced=SYNCED) as db:
        await db.queue(*(insert(str(n)) for n in range(6)))
        await db.db.apply(
            in_turn(lambda tx: tx.outbox.mark_acked({2: 5}), lambda tx: tx.outbox.mark_attempt([3, 4], 77, "offline"))
        )

        def look(tx: LocalTx) -> None:
            size = len(tx.outbox.queued(limit=1, max_bytes=0)[0].body)
            assert [m.mid for m in tx.outbox.queued(limit=9, max_bytes=10**6)] == [1, 3, 4, 5, 6]
            assert [m.mid for m in tx.outbox.queued(limit=2, max_bytes=10**6)] == [1, 3]
            assert [m.mid for m in tx.outbox.queued(limit=9, max_bytes=2 * size)] == [1, 3]
            assert [(m.mid, m.ack_seq) for m in tx.outbox.acked("main")] == [(2, 5)]
            assert tx.outbox.acked("other") == []
            tried = tx.outbox.by_mid(3)
            assert tried is not None
            assert (tried.attempts, tried.next_attempt_ms, tried.last_error) == (1, 77, "offline")
            assert tx.outbox.by_mid(99) is None
            assert tx.outbox.pre_image("cards", "1", 2) is None

        await db.db.inspect(look)


async def test_what_is_added_below_has_numbers_that_are_nobody_elses() -> None:
    """Zero is nobody's: an entry of the inbox that has it is found by another number."""

    def below(count: int, first: int) -> Callable[[LocalTx], None]:
        found = [PendingMutation(0, "outbox", n, f"k{n}", "main", 0, b"b", b"d") for n in range(first, first + count)]
        return lambda tx: tx.outbox.add_below([(mutation, ()) for mutation in found])

    async with opened(synced=SYNCED) as db:
        await db.queue(insert("1"))
        await db.db.apply(below(2, 11))
        await db.db.apply(below(3, 13))
        places = {one.mid: one.lsn for one in await db.db.inspect(lambda tx: tx.outbox.every())}
    assert [places.pop(mid) for mid in (13, 14, 15, 11, 12)] == [-5, -4, -3, -2, -1]
    assert list(places.values()) == [1]


async def test_whoever_sends_hears_how_often_it_was_hurried() -> None:
    async with opened(synced=SYNCED) as db:
        for asked in range(3):
            assert await db.db.inspect(lambda tx: tx.outbox.hurries()) == asked
            await db.db.apply(lambda tx: tx.outbox.hurry())


async def test_a_key_is_pending_once() -> None:
    def twice(tx: LocalTx) -> None:
        (mutation,) = tx.outbox.queued(limit=1, max_bytes=1)
        tx.outbox.add(mutation, [])

    async with opened(synced=SYNCED) as db:
        await db.queue(insert("1"))
        with pytest.raises(ConflictError, match="pending already"):
            await db.db.apply(twice)


async def test_the_inbox_keeps_everything_in_order() -> None:
    first = InboxEntry(
        3, "cards", "1", "main", "CONFLICT", "m", Op("patch", "cards", "1", {"rank": 1}), card(), card("m"), None, 8, 99
    )
    second = InboxEntry(
        1, "cards", "2", "main", "MERGED", "", Op("delete", "cards", "2"), None, None, card("t"), 2, 100
    )
    async with opened(synced=SYNCED) as db:
        await db.db.apply(in_turn(lambda tx: tx.inbox.add(first), lambda tx: tx.inbox.add(second)))
        assert await db.db.inspect(lambda tx: tx.inbox.entries()) == [first, second]
        await db.db.apply(lambda tx: tx.inbox.resolve(second, "dismissed"))
        assert [entry.resolution for entry in await db.db.inspect(lambda tx: tx.inbox.entries())] == ["", "dismissed"]


async def test_lost_rows_are_listed_with_what_has_become_of_them() -> None:
    fork, recovers = Cursor(b"e" * 16, 3, b"h" * 16), Recovers(b"e" * 16, 4, b"h" * 16, b"")
    rows = [LostRow(n, "cards", str(n), "main", card(), None, "ask", fork, recovers, 99) for n in (1, 2)]
    async with opened(synced=SYNCED) as db:
        await db.db.apply(
            in_turn(lambda tx: tx.inbox.keep_lost(rows), lambda tx: tx.inbox.resolve_lost(1, "discarded"))
        )
        assert await db.db.inspect(lambda tx: tx.inbox.lost()) == [
            structs.replace(rows[0], resolution="discarded"),
            rows[1],
        ]
        assert await db.db.inspect(lambda tx: tx.inbox.lost(resolved=False)) == [rows[1]]


@pytest.mark.paths
async def test_cursors_move_from_where_they_are_only() -> None:
    a, b, c = Cursor(b"e", 0, b"h"), Cursor(b"e", 5, b"i"), Cursor(b"e", 9, b"j")
    async with opened(synced=SYNCED) as db:

        def body(tx: LocalTx) -> None:
            assert tx.scopes.read("main") == Subscription("main")
            tx.scopes.save(Subscription("main", "live", a, None, b"", 3))
            assert tx.scopes.advance("main", a, b)
            assert not tx.scopes.advance("main", a, c)
            assert tx.scopes.read("main").cursor == b
            assert not tx.scopes.advance("other", a, c)
            staging = Subscription("main", "snapshot", b, c, b"token", 12)
            tx.scopes.save(staging)
            assert tx.scopes.read("main") == structs.replace(staging, trail=(Mark(b.seq, b.hash),))
            tx.scopes.save(Subscription("main", "live", c))
            with pytest.raises(AssertionError, match="advance"):
                tx.scopes.save(Subscription("main", "live", a))

        await db.db.apply(body)


@pytest.mark.paths
async def test_a_snapshot_replaces_the_scope_and_nothing_else() -> None:
    async with opened(synced=frozenset({"cards"})) as db:
        rows = [("1", card("one"), 1), ("2", card("two"), 1), ("3", card("three"), 1)]
        await db.db.apply(lambda tx: tx.base.put_many("cards", "main", rows))
        await db.db.apply(lambda tx: tx.base.put("cards", "r", "red", card(board="red"), 1))
        await db.write(insert("t", {"name": "unsynced"}, store="tags"))
        kept = await db.get("1")
        heard: list[CommitDelta] = []
        db.db.subscribe_commits(heard.append)

        def body(tx: LocalTx) -> None:
            tx.scopes.stage("main", [StagedRow("cards", "1", 7, card("one")), StagedRow("cards", "2", 7, card("new"))])
            tx.scopes.stage("main", [StagedRow("cards", "2", 6, card("older")), StagedRow("cards", "4", 7, None)])
            tx.scopes.swap("main")

        await db.db.apply(body)
        assert await db.rows() == {"1": card("one"), "2": card("new"), "r": card(board="red")}
        assert await db.rows("tags") == {"t": {"name": "unsynced"}}
        assert [set(change.changes["cards"]) for change in heard] == [{"2", "3"}]  # what differs
        now = await db.get("1")
        assert kept is not None
        assert now is not None
        assert (now.version, now.seq) == (kept.version, 7)


async def test_what_the_hub_sends_may_pass_through_a_collision() -> None:
    def names(**pairs: str) -> list[tuple[str, dict[str, str], int]]:
        return [(id, {"name": name}, 1) for id, name in pairs.items()]

    async with opened(synced=SYNCED) as db:
        await db.db.apply(lambda tx: tx.base.put_many("tags", "main", names(a="x", b="y")))  # type: ignore[arg-type]
        await db.db.apply(lambda tx: tx.base.put_many("tags", "main", names(a="y", b="x")))  # type: ignore[arg-type]
        assert await db.rows("tags") == {"a": {"name": "y"}, "b": {"name": "x"}}


async def test_a_deletion_of_an_older_life_is_passed_over() -> None:
    async with opened(synced=SYNCED) as db:
        await db.db.apply(lambda tx: tx.base.put("cards", "1", "red", card(board="red"), 3))
        await db.db.apply(lambda tx: tx.base.put("cards", "1", "blue", card(board="blue"), 9))
        await db.db.apply(lambda tx: tx.base.put("cards", "1", "red", None, 4))
        row = await db.get("1")
        assert row is not None
        assert (row.scope, row.seq) == ("blue", 9)


@pytest.mark.paths
async def test_durability_follows_the_store(tmp_path: Path) -> None:
    with fault_vfs("watching") as plan:
        engine = SQLiteEngine(tmp_path / "a.db", vfs="watching")
        async with opened(engine=engine, synced=frozenset({"cards"})) as db:
            for write, fsync in ((insert("1"), True), (insert("t", {"name": "n"}, store="tags"), False)):
                before = plan.done["sync"]
                await db.write(write)
                assert (plan.done["sync"] > before) == fsync
            before = plan.done["sync"]
            await db.write(insert("2"), durability="normal")
            assert plan.done["sync"] == before


async def test_a_caller_that_is_cancelled_too_late_has_written(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", synced=SYNCED) as db:
        begun, gate = threading.Event(), threading.Event()
        heard: list[CommitDelta] = []
        db.db.subscribe_commits(heard.append)

        class Slow:
            database = db.db.database

            def stage(self, tx: LocalTx, request: object) -> None:
                begun.set()
                assert gate.wait(10)

        result = None
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:
                    while not begun.is_set():
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
                    gate.set()

                nursery.start_soon(cancel)
                result = await db.db.commit(request(insert("1")), [db.node, Slow(), db.outbox])
        assert result is not None
        assert result.status == "confirmed"
        assert len(heard) == 1
        assert await db.rows() == {"1": card()}
