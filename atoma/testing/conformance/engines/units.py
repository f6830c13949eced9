"""Units of a local database: what is read, what is written, and what is left when something goes wrong."""

from __future__ import annotations

import trio

from atoma.contracts.execution import WriteOptions, WriteRequest
from atoma.errors import AtomaError, ClosedError, QueryError
from atoma.ports import LocalTx
from atoma.schema.expressions import col
from atoma.testing.conformance.cancelling import cancel_everywhere, cancel_sampled
from atoma.testing.conformance.checks import NotChecked, expect, expect_equal, expect_error
from atoma.testing.conformance.engines.bench import Bench, engine_table
from atoma.testing.conformance.notes import CONTEXT, delete, insert, note, unit, update
from atoma.testing.conformance.questions import IMAGES, check_queries
from atoma.testing.queries import rows_of

CHECKS = engine_table()

POINTS = 30


class Mishap(Exception):
    """The error that a body raises."""


@CHECKS.add
async def what_is_written_is_read_back_exactly(bench: Bench) -> None:
    """Every kind of value comes back as it was written: whole 64-bit numbers, floats, bytes, any text, nothing."""
    images = {
        "plain": note("a"),
        "ints": note(count=2**63 - 1),
        "negative": note(count=-(2**63)),
        "floats": note(weight=0.1),
        "tiny": note(weight=5e-324),
        "bytes": note(blob=bytes(range(256))),
        "☃/räume": note("ß\n\t'\"; -- \u202e🦜"),
        "large": note("ü" * 200_000),
    }
    async with bench.opened() as db:
        result = await db.write("k", *(insert(id, image) for id, image in images.items()))
        expect_equal(result.status, "confirmed", "the status")
        found = await db.rows()
        for id, image in images.items():
            expect_equal(found.get(id), image, f"the row {id!r}")
        expect_equal(await db.get("nobody"), None, "a row that was never written")


@CHECKS.add
async def results_are_one_per_entry_and_in_order(bench: Bench) -> None:
    """Each entry has its own result, in the order of the unit; a refused one says why and carries the row as it is."""
    async with bench.opened() as db:
        await db.write("1", insert("a", note("first")))
        entries = (insert("b"), insert("a"), update("nobody", text="x"), update("a", text="new"), delete("b"))
        result = await db.write("2", *entries)
        expect_equal([item.id for item in result.items], ["b", "a", "nobody", "a", "b"], "the ids")
        expect_equal([item.ok for item in result.items], [True, False, False, True, True], "what was written")
        codes = [item.error.code for item in result.items if item.error is not None]
        expect_equal((result.status, codes), ("partial", ["CONFLICT", "NOT_FOUND"]), "the status and the reasons")
        shown = [item.row for item in result.items]
        expect_equal(shown, [note(), note("first"), None, note("new"), None], "the rows that the results carry")
        expect_equal(await db.rows(), {"a": note("new")}, "the rows")


@CHECKS.add
async def versions_move_with_visible_changes_only(bench: Bench) -> None:
    """A row's version rises with every change the user can see; writing what is there already keeps it.

    A row that comes again after its end has none of its old versions: a writer that has seen one of those is refused.
    """
    async with bench.opened() as db:
        first = (await db.write("1", insert("a"))).items[0]
        same = (await db.write("2", update("a", text="a"))).items[0]
        other = (await db.write("3", update("a", text="b"))).items[0]
        expect_equal((first.changed, same.changed, other.changed), (True, False, True), "what changed")
        expect_equal(same.version, first.version, "the version after a write that changed nothing")
        expect(other.version > first.version, f"the version went from {first.version} to {other.version}")
        stale = (await db.write("4", update("a", base_version=first.version, text="c"))).items[0]
        expect_equal(stale.error.code if stale.error else None, "CONFLICT", "a write on a version that has gone")
        fresh = (await db.write("5", update("a", base_version=other.version, text="c"))).items[0]
        expect(fresh.ok, "a write on the version that is there was refused")
        await db.write("6", delete("a"))
        again = (await db.write("7", insert("a"))).items[0]
        expect(again.version > fresh.version, f"the version of a row that came again is {again.version}")


@CHECKS.add
async def an_atomic_unit_leaves_all_or_nothing(bench: Bench) -> None:
    """One refused entry of an atomic unit undoes the others; the status is rejected and no commit is reported."""
    async with bench.opened() as db:
        await db.write("1", insert("a"))
        before = (await db.db.read(rows_of("notes"))).meta.commit
        result = await db.write("2", insert("b"), update("nobody", text="x"), update("a", text="x"), atomic=True)
        expect_equal((result.status, any(item.changed for item in result.items)), ("rejected", False), "the answer")
        expect_equal(await db.rows(), {"a": note()}, "the rows after a rejected unit")
        expect_equal((await db.db.read(rows_of("notes"))).meta.commit, before, "the commit number")
        expect_equal(
            (await db.write("3", insert("b"), update("a", text="x"), atomic=True)).status, "confirmed", "status"
        )
        expect_equal(await db.rows(), {"a": note("x"), "b": note()}, "the rows after a good unit")


@CHECKS.add
async def a_unit_whose_reads_moved_is_refused(bench: Bench) -> None:
    """``options.reads`` is looked at inside the transaction: a version that moved refuses the whole unit."""
    async with bench.opened() as db:
        version = (await db.write("1", insert("a"))).items[0].version
        await db.write("2", update("a", text="moved"))
        for reads in ((("notes", "a", version),), (("notes", "a", None),), (("notes", "b", 1),)):
            request = WriteRequest((insert("c"),), WriteOptions(atomic=True, reads=reads), CONTEXT, f"k{reads}")
            result = await db.node.write(request)
            expect_equal((result.status, await db.get("c")), ("rejected", None), f"a unit that depends on {reads}")


@CHECKS.add
async def a_stage_that_raises_undoes_its_unit(bench: Bench) -> None:
    """An error in a stage comes out of ``commit``, and neither rows nor mutations of the unit stay."""
    async with bench.opened(synced=True) as db:
        db.outbox.fail_with = Mishap("stage")
        with expect_error(Mishap, what="a unit whose stage raised"):
            await db.queue("1", insert("a"), insert("b"))
        expect_equal(db.outbox.seen, [2], "effects that the second stage saw")
        expect_equal(await db.rows(), {}, "the rows")
        expect_equal(await db.outbox_mids(), [], "the outbox")
        db.outbox.fail_with = None
        await db.queue("2", insert("a"))
        expect_equal(
            (await db.rows(), await db.outbox_mids()), ({"a": note()}, [1]), "rows and outbox of the next unit"
        )


@CHECKS.add
async def a_body_that_raises_leaves_nothing(bench: Bench) -> None:
    """``apply`` runs its body in one transaction: its result comes back, its error undoes everything it did."""
    async with bench.opened() as db:

        def good(tx: LocalTx) -> str:
            tx.rows.put("notes", "a", "main", note("one"))
            return "done"

        def bad(tx: LocalTx) -> None:
            tx.rows.put("notes", "a", "main", None)
            tx.rows.put("notes", "b", "main", note())
            raise Mishap("body")

        expect_equal(await db.db.apply(good), "done", "what the body returned")
        with expect_error(Mishap, what="a body that raised"):
            await db.db.apply(bad)
        expect_equal(await db.rows(), {"a": note("one")}, "the rows")
        expect_equal(await db.db.inspect(lambda tx: tx.rows.read("notes", "b")), None, "a row that was undone")


@CHECKS.add
async def commits_are_numbered_in_order(bench: Bench) -> None:
    """Each unit that changed something moves ``meta.commit`` up; reading does not, and a read says where it is."""
    async with bench.opened() as db:
        seen: list[int] = []
        for number in range(5):
            await db.write(f"k{number}", insert(str(number)))
            for _ in range(2):
                seen.append((await db.db.read(rows_of("notes"))).meta.commit)
        expect_equal(seen[::2], seen[1::2], "the commit number before and after a read")
        expect(sorted(set(seen)) == seen[::2], f"the commit numbers are {seen[::2]}")


@CHECKS.add
async def queries_mean_what_they_mean_in_python(bench: Bench) -> None:
    """Filters, order, pages and counts are those of :mod:`atoma.query.evaluate`, and an unknown field is a QueryError."""
    async with bench.opened() as db:
        await db.write("k", *(insert(id, image) for id, image in IMAGES.items()))
        await check_queries(db.db.read)
        with expect_error(QueryError, what="a query of an unknown field"):
            await db.db.read(rows_of("notes", col("nonsense") == 1))


@CHECKS.add
async def units_of_many_callers_do_not_mix(bench: Bench) -> None:
    """Units of concurrent callers are each whole, and a refused one among them harms no other."""
    async with bench.opened() as db:
        await db.write("0", insert("taken"))
        statuses: dict[int, str] = {}

        async def caller(number: int) -> None:
            extra = [insert("taken")] if number % 3 == 0 else []
            entries = [insert(f"{number}a"), insert(f"{number}b"), *extra]
            statuses[number] = (await db.write(f"k{number}", *entries, atomic=True)).status

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(caller, number)
        wanted = {number: "rejected" if number % 3 == 0 else "confirmed" for number in range(30)}
        expect_equal(statuses, wanted, "the statuses")
        rows = {"taken"} | {f"{number}{half}" for number in range(30) if number % 3 for half in "ab"}
        expect_equal(set(await db.rows()), rows, "the rows")


@CHECKS.add
async def a_cancelled_unit_is_whole_or_not_there(bench: Bench) -> None:
    """Cancelling is noticed before BEGIN and after COMMIT only: wherever it comes, all of a unit is there or nothing.

    The next unit is carried out as ever.
    """
    async with bench.opened(synced=True) as db:
        numbers = iter(range(10**6))
        last = [0]

        async def write() -> None:
            last[0] = next(numbers)
            await db.queue(f"k{last[0]}", insert(f"{last[0]}a"), insert(f"{last[0]}b"), atomic=True)

        async def whole() -> None:
            there = [await db.get(f"{last[0]}{half}") is not None for half in "ab"]
            expect(there[0] == there[1], f"a cancelled unit left {there.count(True)} of its two rows")
            mids = await db.outbox_mids()
            expect_equal(len(mids) * 2, len(await db.rows()), "rows, against two for each mutation in the outbox,")
            done = (await db.queue(f"after{last[0]}", insert(f"{last[0]}c"), insert(f"{last[0]}d"), atomic=True)).status
            expect_equal(done, "confirmed", "the status of the next unit")

        if bench.site.virtual:
            await cancel_everywhere(write, whole)
        else:
            await cancel_sampled(write, whole, POINTS)


@CHECKS.add
async def a_closed_database_says_so(bench: Bench) -> None:
    """After its block a database refuses with ClosedError, and the place can be opened again at once."""
    async with bench.opened() as db:
        await db.write("k", insert("a"))
        await db.db.flush()
    with expect_error(ClosedError, what="a read of a closed database"):
        await db.db.read(rows_of("notes"))
    with expect_error(ClosedError, what="a flush of a closed database"):
        await db.db.flush()
    with expect_error(ClosedError, what="a write to a closed database"):
        await db.db.commit(unit("k2", insert("b")), (db.node,))
    with expect_error(KeyError, what="the block of a database"):
        async with bench.opened():
            raise KeyError("mine")
    async with bench.opened() as again:
        expect_equal(await again.get("b"), None, "a row that was refused")


@CHECKS.add
async def what_was_committed_is_there_after_opening_again(bench: Bench) -> None:
    """Rows, versions and commit numbers outlive the program; what was rejected or undone does not come back."""
    if not bench.site.durable:
        raise NotChecked("the site says that it keeps nothing")
    async with bench.opened() as db:
        await db.write("1", insert("a"), insert("b"))
        await db.write("2", update("a", text="new"), delete("b"))
        try:
            await db.write("3", insert("c"), insert("a"), atomic=True)
        except AtomaError as error:
            raise AssertionError(f"a refused entry is a result, not {error!r}") from error
        row, commit = await db.get("a"), (await db.db.read(rows_of("notes"))).meta.commit
    async with bench.opened() as again:
        expect_equal(await again.get("a"), row, "the row")
        expect_equal(await again.rows(), {"a": note("new")}, "the rows")
        expect_equal((await again.db.read(rows_of("notes"))).meta.commit, commit, "the commit number")
        await again.write("4", insert("d"))
        after = (await again.db.read(rows_of("notes"))).meta.commit
        expect(after > commit, f"the commit number went from {commit} to {after}")
