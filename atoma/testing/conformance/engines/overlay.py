"""The overlay and what follows it: pending mutations over a confirmed base, receipts, the state of replication."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import cast

import trio

from atoma.client import open_client
from atoma.contracts.mutations import Op
from atoma.contracts.replica import InboxEntry, StagedRow, Subscription
from atoma.contracts.sync import Cursor, Outcome
from atoma.contracts.values import ErrorInfo, StoredRow
from atoma.errors import ClosedError, WriteRejected
from atoma.ports import LiveBatch, LocalTx, apply_batch
from atoma.query import select
from atoma.testing.conformance.checks import NotChecked, expect, expect_equal, expect_error, open_background, until
from atoma.testing.conformance.engines.bench import Bench, engine_table, receipts_of
from atoma.testing.conformance.notes import NOTES, NOTES_SCHEMA, Note, delete, insert, note, update
from atoma.testing.queries import rows_of
from atoma_stores.live.dispatch import open_live_queries
from atoma_stores.live.source import LiveSource
from atoma_stores.local import LocalExecution

CHECKS = engine_table()


@CHECKS.add
async def a_pending_write_lies_over_the_confirmed_base(bench: Bench) -> None:
    """While a mutation is pending, the visible row is the user's and the base is the hub's, each moving on its own."""
    async with bench.opened(synced=True) as db:
        await db.db.apply(lambda tx: tx.base.put("notes", "a", "main", note("hub"), 5))
        expect_equal(await db.rows(), {"a": note("hub")}, "the visible rows with nothing pending")
        await db.queue("1", update("a", text="mine"))
        await db.db.apply(lambda tx: tx.base.put("notes", "a", "main", note("hub again"), 6))
        expect_equal(await db.rows(), {"a": note("mine")}, "the visible rows with a pending write")
        base = await db.db.inspect(lambda tx: tx.base.read("notes", "a"))
        expect_equal((base.image, base.seq, base.shadowed), (note("hub again"), 6, True), "the base")
        shadowed = await db.db.inspect(lambda tx: list(tx.base.shadowed("main")))
        expect_equal(shadowed, [("notes", "a")], "what is shadowed")

        def settle(tx: LocalTx) -> None:
            (mutation,) = tx.outbox.on_row("notes", "a")
            touched = tx.outbox.remove({mutation.lsn: Outcome(mutation.mid, "applied", "main", seq=7)})
            expect_equal(list(touched), [("notes", "a")], "what the mutation touched")
            tx.base.put("notes", "a", "main", note("mine"), 7)
            tx.base.unshadow("notes", "a")

        await db.db.apply(settle)
        row, base = await db.get("a"), await db.db.inspect(lambda tx: tx.base.read("notes", "a"))
        expect_equal((row and row.image, row and row.seq, base.shadowed), (note("mine"), 7, False), "the settled row")


@CHECKS.add
async def only_what_is_settled_lets_go_of_its_base(bench: Bench) -> None:
    """Of many rows those come out of the overlay on which nothing is pending and that are visible as they are confirmed."""
    async with bench.opened(synced=True) as db:
        for id in ("settled", "gone", "pending", "differs"):
            await db.queue(id, insert(id, note("mine")))
        await db.queue("more", delete("gone"))

        def land(tx: LocalTx) -> set[str]:
            for id, text in (("settled", "mine"), ("pending", "mine"), ("differs", "theirs")):
                tx.base.put("notes", id, "main", note(text), 7)
            for id in ("settled", "gone", "differs"):
                for mutation in tx.outbox.on_row("notes", id):
                    tx.outbox.remove({mutation.lsn: None})
            return set(tx.base.unshadow_settled("notes", ["settled", "gone", "pending", "differs", "never there"]))

        found = await db.db.apply(land)
        expect_equal(found, {"settled", "gone"}, "what came out of the overlay")
        aside = set(await db.db.inspect(lambda tx: tx.base.shadowed("main")))
        expect_equal(aside, {("notes", "pending"), ("notes", "differs")}, "what is still shadowed")
        row = await db.get("settled")
        expect_equal(row and row.seq, 7, "the sequence of a settled row")
        expect_equal(await db.db.inspect(lambda tx: tx.rows.read("notes", "gone")), None, "the row that is gone")


@CHECKS.add
async def the_outbox_keeps_the_order_of_writing(bench: Bench) -> None:
    """Mutations wait in the order of their numbers, bounded by count, with what each row looked like before."""
    async with bench.opened(synced=True) as db:
        await db.queue("1", insert("a", note("one")))
        await db.queue("2", update("a", text="two"), insert("b"))
        await db.queue("3", delete("a"), update("b", text="x"), atomic=True)
        expect_equal(await db.outbox_mids(), [1, 2, 3, 4], "the outbox")

        def look(tx: LocalTx) -> None:
            expect_equal([m.mid for m in tx.outbox.queued(limit=2, max_bytes=10**9)], [1, 2], "the oldest two")
            expect_equal(
                [m.mid for m in tx.outbox.queued(limit=9, max_bytes=1)], [1], "at least one, whatever its size"
            )
            pending = tx.outbox.on_row("notes", "a")
            expect_equal([m.mid for m in pending], [1, 2, 4], "what is pending on a row")
            images = [tx.outbox.pre_image("notes", "a", m.lsn) for m in pending]
            expect_equal(images, [None, note("one"), note("two")], "the row before each")
            expect_equal(tx.outbox.last_mid("notes", "b"), 4, "the last mutation on a row")
            expect_equal(tx.outbox.by_mid(9), None, "a mutation that is not there")
            missing = [tx.outbox.first_missing(decided) for decided in (0, 2, 4)]
            expect_equal(missing, [None, None, None], "the first number that has left a whole outbox")

        await db.db.inspect(look)
        for gone, missing in ((4, [4, 4, 4, 4, None]), (2, [2, 2, 4, 4, None]), (1, [1, 2, 4, 4, None])):
            await db.db.apply(partial(_take_out, mid=gone))
            found = await db.db.inspect(lambda tx: [tx.outbox.first_missing(decided) for decided in range(5)])
            expect_equal(found, missing, f"the first number behind 0 … 4 that has left the outbox, once {gone} has")


def _take_out(tx: LocalTx, mid: int) -> None:
    pending = tx.outbox.by_mid(mid)
    assert pending is not None
    tx.outbox.remove({pending.lsn: None})


@CHECKS.add
async def a_receipt_follows_its_mutation(bench: Bench) -> None:
    """Receipts go from queued over sent and accepted to observed, or to rejected, and wake whoever waits for them."""
    async with bench.opened(synced=True) as db:
        one, two = receipts_of(await db.queue("k", insert("a"), insert("b")))
        expect_equal((one.state, two.state), ("queued", "queued"), "the states after the write")
        db.db.show_in_flight([1], True)
        expect_equal((one.state, two.state), ("sent", "queued"), "the states while the first is under way")
        answers: list[int] = []

        async def wait() -> None:
            answers.append(await one.wait(observed=False))
            answers.append(await one.wait(observed=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await db.db.apply(lambda tx: tx.outbox.mark_acked({1: 7}))
            await until(lambda: answers, "nobody woke who waits for the verdict")
            expect_equal((answers, one.state), ([7], "accepted"), "what the waiter got, and the state, after an ack")
            await db.db.apply(lambda tx: tx.outbox.remove({1: Outcome(1, "applied", "main", seq=7)}))
        expect_equal((answers, one.state), ([7, 7], "observed"), "what the waiter got in the end")
        refused = Outcome(2, "rejected", "main", error=ErrorInfo("DENIED", "not yours"))
        await db.db.apply(lambda tx: tx.outbox.remove({2: refused}))
        with expect_error(WriteRejected, what="a wait for a refused write") as rejected:
            await two.wait(observed=False)
        expect_equal((rejected.error.reason, two.state), ("DENIED", "rejected"), "the reason and the state")
        (local,) = receipts_of(await db.write("plain", insert("c")))
        expect_equal(local.state, "local", "the state of a write without outbox")


@CHECKS.add
async def a_unit_of_the_outbox_is_recalled_by_its_key(bench: Bench) -> None:
    """What became of a queued unit is found by its key, with receipts that follow it; over a restart, and to its end."""
    async with bench.opened(synced=True) as db:
        await db.queue("k", insert("a"), insert("b"), insert("c"))
        refused = Outcome(2, "rejected", "main", error=ErrorInfo("DENIED", "not yours"))

        def settle(tx: LocalTx) -> None:
            tx.outbox.remove({1: Outcome(1, "applied", "main", seq=7)})
            pending = tx.outbox.by_mid(2)
            assert pending is not None
            op = Op("create", "notes", "b", dict(note()))
            entry = InboxEntry(2, "notes", "b", "main", "DENIED", "not yours", op, None, note(), None, 0, 0)
            tx.inbox.add(entry)
            tx.outbox.remove({2: refused})

        await db.db.apply(settle)
        expect_equal(await db.db.recall("another key"), None, "what is known of a key that nothing was written under")
        if not bench.site.durable:
            return
    async with bench.opened(synced=True) as again:
        told = await again.db.recall("k")
        assert told is not None
        expect_equal([item.id for item in told.items], ["a", "b", "c"], "the items")
        first, second, third = receipts_of(told)
        expect_equal((first.state, second.state, third.state), ("observed", "rejected", "queued"), "their states")
        with expect_error(WriteRejected, what="a wait for a refused write") as rejected:
            await second.wait(observed=False)
        expect_equal(rejected.error.reason, "DENIED", "the reason")
        await again.db.apply(lambda tx: tx.outbox.mark_acked({3: 9}))
        expect_equal((await third.wait(observed=False), third.state), (9, "accepted"), "what the receipt gets")


@CHECKS.add
async def waiting_for_a_receipt_ends_with_the_database(bench: Bench) -> None:
    """A caller that waits for a verdict when the database closes gets ClosedError; the mutation stays in the outbox."""
    async with open_background() as nursery:
        ended = trio.Event()
        async with bench.opened(synced=True) as db:
            (receipt,) = receipts_of(await db.queue("k", insert("a")))

            async def wait() -> None:
                with expect_error(ClosedError, what="a wait that outlives the database"):
                    await receipt.wait(observed=False)
                ended.set()

            nursery.start_soon(wait)
            await trio.sleep(0.01)
        await ended.wait()
    if bench.site.durable:
        async with bench.opened(synced=True) as again:
            expect_equal((await again.outbox_mids(), await again.rows()), ([1], {"a": note()}), "outbox and rows")


@CHECKS.add
async def volatile_writes_do_not_outlive_the_program(bench: Bench) -> None:
    """A volatile mutation found when the place is opened is taken back; outbox mutations stay."""
    if not bench.site.durable:
        raise NotChecked("the site says that it keeps nothing")
    async with bench.opened(synced=True) as db:
        await db.write("1", insert("a", note("before")))
        db.outbox.kind = "volatile"
        await db.queue("2", update("a", text="shown"), insert("b"))
        expect_equal(await db.rows(), {"a": note("shown"), "b": note()}, "the rows while it is shown")
        expect_equal(await db.outbox_mids(), [], "the outbox")
    async with bench.opened(synced=True) as again:
        expect_equal(await again.rows(), {"a": note("before")}, "the rows after opening again")


@CHECKS.add
async def cursors_move_from_where_they_are(bench: Bench) -> None:
    """``advance`` moves a cursor from its present place only; subscriptions, identity and inbox are kept as given."""
    async with bench.opened(synced=True) as db:
        start, end = Cursor(), Cursor(b"e", 3, b"h")
        entry = InboxEntry(
            4, "notes", "a", "main", "DENIED", "no", Op("delete", "notes", "a"), note(), None, None, 0, 1
        )

        def begin(tx: LocalTx) -> tuple[object, ...]:
            expect_equal(tx.scopes.read("main").state, "new", "a scope that was never synced")
            tx.scopes.save(Subscription("main", "live", start))
            tx.inbox.add(entry)
            moved = tx.scopes.advance("main", start, end)
            return (
                moved,
                tx.scopes.advance("main", start, end),
                tx.scopes.read("main").cursor,
                tuple(tx.inbox.entries()),
            )

        expect_equal(await db.db.apply(begin), (True, False, end, (entry,)), "what advance said, cursor and inbox")
        await db.db.apply(lambda tx: tx.inbox.resolve(tx.inbox.entries()[0], "dismissed"))
        inbox = await db.db.inspect(lambda tx: [found.resolution for found in tx.inbox.entries()])
        expect_equal(inbox, ["dismissed"], "the inbox entry's resolution")
        identity = await db.db.inspect(lambda tx: tx.outbox.identity())
        expect_equal((len(identity.client_id), identity.next_mid), (16, 1), "id length and next number of a new file")
    if bench.site.durable:
        async with bench.opened(synced=True) as again:
            kept = await again.db.inspect(lambda tx: (tx.scopes.read("main").cursor, tx.outbox.identity().client_id))
            expect_equal(kept, (end, identity.client_id), "cursor and identity after opening again")


@CHECKS.add
async def a_snapshot_replaces_the_base_of_its_scope(bench: Bench) -> None:
    """``scopes.swap`` makes the staged rows the base: newest image per row, missing rows gone, pending writes still shown."""
    async with bench.opened(synced=True) as db:
        await db.db.apply(lambda tx: tx.base.put_many("notes", "main", [(id, note("old"), 1) for id in "abc"]))
        await db.queue("1", update("c", text="mine"))

        def swap(tx: LocalTx) -> None:
            tx.scopes.stage("main", [StagedRow("notes", "a", 7, note("new")), StagedRow("notes", "d", 7, note("new"))])
            tx.scopes.stage("main", [StagedRow("notes", "a", 6, note("older")), StagedRow("notes", "e", 7, None)])
            tx.scopes.swap("main")

        await db.db.apply(swap)
        found = await db.rows()
        expect_equal(found, {"a": note("new"), "c": note("mine"), "d": note("new")}, "the visible rows")
        base = await db.db.inspect(lambda tx: tx.base.read("notes", "c"))
        expect_equal((base.image, base.shadowed), (None, True), "the base of a row that is not in the snapshot")


@CHECKS.add
async def live_queries_follow_every_commit(bench: Bench) -> None:
    """A live query shows what units and ``apply`` changed, base and overlay alike, and wakes for nothing that was undone."""
    async with AsyncExitStack() as opened:
        db = await opened.enter_async_context(bench.opened(synced=True))
        source = db.db
        if not isinstance(source, LiveSource):
            raise AssertionError("the database does not report its commits, so live queries cannot follow it")
        live = await opened.enter_async_context(open_live_queries(source, NOTES_SCHEMA))
        rows: tuple[StoredRow, ...] = ()
        async with live.open_live(rows_of("notes")) as batches:

            async def expect_rows(what: str, **texts: str) -> None:
                nonlocal rows
                with trio.move_on_after(5):
                    rows = apply_batch(rows, cast("LiveBatch[StoredRow]", await anext(batches)))
                expect_equal({row.id: row.image["text"] for row in rows}, texts, f"the live rows after {what}")

            await expect_rows("opening")
            await db.queue("1", insert("a"))
            await expect_rows("a unit", a="a")
            await db.queue("2", insert("b"), insert("a"), atomic=True)  # rejected
            await db.db.apply(lambda tx: tx.base.put("notes", "c", "main", note("hub"), 5))
            await expect_rows("a base that came", a="a", c="hub")
            await db.db.apply(lambda tx: tx.rows.put("notes", "a", "main", None))
            await expect_rows("a body that deleted a row", c="hub")


@CHECKS.add
async def a_client_works_on_it(bench: Bench) -> None:
    """``open_client`` with the engine writes, reads and follows live queries, with nothing else to be supplied."""
    opening = open_client(
        NOTES_SCHEMA,
        plugins=[LocalExecution(bench.engine)],
        policy="direct-local",
        environment=bench.environment,
    )
    async with opening as client:
        notes = client.store(NOTES)
        async with notes.live(select(NOTES).order_by("id")) as batches:
            first = await anext(batches)
            expect_equal(len(first.changes), 1, "the changes of the first batch")
            await notes.insert_many([Note(id=id, text="x") for id in "ab"])
            await anext(batches)
        await notes.update("a", text="y")
        found = [(row.id, row.text) for row in await notes.query(select(NOTES).order_by("id"))]
        expect(found == [("a", "y"), ("b", "x")], f"the store holds {found}")
