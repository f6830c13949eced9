"""Local writes through the node: what each operation does, what it refuses, and what a refusal spoils."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import trio

from atoma.contracts.execution import QueryRequest, WriteItemResult
from atoma.contracts.mutations import Op
from atoma.errors import ClosedError, QueryError, UnknownStore, ValidationError
from atoma.ports import Environment, LocalTx
from atoma.query.plans import by_ids, number_of
from atoma.schema.expressions import col
from atoma.testing.queries import count_of, rows_of
from atoma_stores.changes import CommitDelta
from atoma_stores.local import LocalQueryNode
from tests.unit.stores.kit import CONTEXT, SYNCED, card, delete, inline, insert, opened, update


def codes(items: tuple[WriteItemResult, ...]) -> list[str]:
    return ["ok" if item.ok else item.error.code if item.error else "?" for item in items]


@pytest.fixture(params=["memory", "file", "inline file", "synced"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    match request.param:
        case "memory":
            return {}
        case "file":
            return {"path": tmp_path / "a.db"}
        case "inline file":
            return {"path": tmp_path / "a.db", "environment": inline()}
        case _:
            return {"path": tmp_path / "a.db", "synced": SYNCED}


@pytest.mark.paths
async def test_each_operation(places: dict[str, object]) -> None:
    async with opened(**places) as db:  # type: ignore[arg-type]
        made = (await db.write(insert("1", card("one")))).items[0]
        assert (made.ok, made.changed, made.row) == (True, True, card("one"))
        changed = (await db.write(update("1", lane="done"))).items[0]
        assert changed.version > made.version
        assert changed.row == card("one", lane="done")
        merged = (await db.write(Op("upsert", "cards", "1", {"rank": 4}, defaults=card()))).items[0]
        assert merged.row == card("one", lane="done", rank=4)
        fresh = (await db.write(Op("upsert", "cards", "2", {"rank": 9}, defaults=card("new")))).items[0]
        assert fresh.row == card("new", rank=9)
        replaced = (await db.write(Op("replace", "cards", "1", card("r")))).items[0]
        assert replaced.row == card("r")
        gone = (await db.write(delete("2"))).items[0]
        assert (gone.ok, gone.changed, gone.version, gone.row) == (True, True, 0, None)
        assert await db.rows() == {"1": card("r")}


async def test_refusals_say_what_is_there_and_never_overwrite() -> None:
    async with opened() as db:
        version = (await db.write(insert("1", card("kept")))).items[0].version
        taken = await db.write(insert("1", card("other")))
        assert (taken.status, codes(taken.items)) == ("rejected", ["CONFLICT"])
        assert (taken.items[0].version, taken.items[0].row) == (version, card("kept"))
        assert codes((await db.write(update("9", rank=1))).items) == ["NOT_FOUND"]
        assert codes((await db.write(delete("9"))).items) == ["NOT_FOUND"]
        assert await db.rows() == {"1": card("kept")}


@pytest.mark.paths
async def test_compare_and_set() -> None:
    async with opened() as db:
        first = (await db.write(insert("1"))).items[0].version
        second = (await db.write(update("1", base_version=first, rank=1))).items[0].version
        for stale in (
            update("1", base_version=first, rank=2),
            delete("1", base_version=first),
            Op("replace", "cards", "1", card("x"), base_version=first),
            Op("replace", "cards", "9", card("x"), base_version=first),
        ):
            refused = (await db.write(stale)).items[0]
            assert refused.error is not None
            assert refused.error.code == "CONFLICT"
        assert (await db.get("1")) is not None
        swapped = Op("replace", "cards", "1", card("x"), base_version=second)
        assert (await db.write(swapped)).status == "confirmed"
        assert await db.rows() == {"1": card("x")}


async def test_a_version_never_comes_back() -> None:
    async with opened() as db:
        seen: set[int] = set()
        for _ in range(3):
            result = await db.write(insert("1"), update("1", rank=1), update("1", rank=2), delete("1"))
            versions = [item.version for item in result.items[:3]]
            assert not seen & set(versions)
            assert len(set(versions)) == 3
            seen.update(versions)


async def test_writing_what_is_there_changes_nothing() -> None:
    async with opened(synced=SYNCED) as db:
        heard: list[CommitDelta] = []
        db.db.subscribe_commits(heard.append)
        version = (await db.queue(insert("1", card(rank=2)))).items[0].version
        same = await db.queue(update("1", rank=2))
        assert (same.items[0].ok, same.items[0].changed, same.items[0].version) == (True, False, version)
        assert same.meta.commit == 0
        assert db.outbox.seen == [1, 0]
        assert [change.commit for change in heard] == [1]
        receipt = same.receipts[0]
        assert receipt is not None
        assert receipt.state == "local"  # type: ignore[attr-defined]
        assert await receipt.wait(observed=True) == 0  # type: ignore[attr-defined]


@pytest.mark.paths
async def test_a_batch_goes_item_by_item_and_in_order() -> None:
    async with opened() as db:
        result = await db.write(
            insert("1"),
            insert("1"),
            update("1", rank=1),
            update("1", rank=2),
            delete("2"),
            delete("1"),
            insert("1", card("z")),
        )
        assert result.status == "partial"
        assert codes(result.items) == ["ok", "CONFLICT", "ok", "ok", "NOT_FOUND", "ok", "ok"]
        assert [receipt is None for receipt in result.receipts] == [not item.ok for item in result.items]
        assert await db.rows() == {"1": card("z")}


@pytest.mark.paths
async def test_an_atomic_unit_is_all_or_nothing() -> None:
    async with opened(synced=SYNCED) as db:
        await db.write(insert("0"))
        heard: list[CommitDelta] = []
        db.db.subscribe_commits(heard.append)
        result = await db.queue(insert("1"), update("0", rank=5), delete("nope"), insert("2"), atomic=True)
        assert result.status == "rejected"
        assert codes(result.items) == ["ABORTED", "ABORTED", "NOT_FOUND", "ABORTED"]
        assert result.receipts == (None,) * 4
        assert (await db.rows(), heard, db.outbox.seen) == ({"0": card()}, [], [])
        assert (await db.queue(insert("1"), update("0", rank=5), atomic=True)).status == "confirmed"
        assert [set(change.changes["cards"]) for change in heard] == [{"0", "1"}]


@pytest.mark.paths
async def test_reads_are_checked_again() -> None:
    async with opened() as db:
        version = (await db.write(insert("1"))).items[0].version
        ok = await db.write(update("1", rank=1), reads=(("cards", "1", version), ("cards", "2", None)))
        assert ok.status == "confirmed"
        for reads in ((("cards", "1", version),), (("cards", "2", 7),), (("cards", "1", None),)):
            for atomic in (False, True):
                moved = await db.write(insert("3"), update("1", rank=9), reads=reads, atomic=atomic)
                assert moved.status == "rejected"
                assert codes(moved.items) == ["CONFLICT", "CONFLICT"]
        assert await db.rows() == {"1": card(rank=1)}


async def test_a_row_never_leaves_its_scope() -> None:
    async with opened() as db:
        await db.write(insert("1", card(board="red")))
        row = await db.get("1")
        assert row is not None
        assert row.scope == "red"
        wrong = Op("patch", "cards", "1", {"rank": 1}, scope="blue")
        assert codes((await db.write(wrong)).items) == ["INVALID"]
        right = Op("patch", "cards", "1", {"rank": 1}, scope="red")
        assert codes((await db.write(right)).items) == ["ok"]

        def move(tx: LocalTx) -> None:
            tx.rows.put("cards", "1", "blue", card(board="blue"))

        with pytest.raises(ValidationError, match="cannot move"):
            await db.db.apply(move)


@pytest.mark.paths
@pytest.mark.parametrize("synced", [frozenset[str](), SYNCED])
@pytest.mark.parametrize("many", [0, 40])
async def test_a_unique_index_refuses_one_item_and_spoils_nothing(synced: frozenset[str], many: int) -> None:
    def tag(id: str, name: str) -> Op:
        return insert(id, {"name": name}, store="tags")

    async with opened(synced=synced) as db:
        await db.write(tag("1", "red"))
        filler = [tag(f"f{n}", f"filler {n}") for n in range(many)]
        result = await db.write(tag("2", "blue"), *filler, tag("3", "red"), tag("4", "green"))
        assert codes(result.items) == ["ok"] * (1 + many) + ["CONFLICT", "ok"]
        assert "unique" in str(result.items[-2].error) or "same name" in str(result.items[-2].error)
        again = await db.write(update("2", store="tags", name="green"), update("2", store="tags", name="blue"))
        assert codes(again.items) == ["CONFLICT", "ok"]
        assert len(await db.rows("tags")) == 3 + many
        assert (await db.write(tag("5", "blue"), tag("6", "white"), atomic=True)).status == "rejected"
        assert (await db.write(delete("1", store="tags"), tag("7", "red"), atomic=True)).status == "confirmed"
        last = (await db.write(tag("8", "grey"))).items[0].version
        await db.write(tag("9", "grey"))
        assert (await db.write(tag("10", "gold"))).items[0].version == last + 1, "what is refused draws no version"


@pytest.mark.parametrize("queued", [False, True])
async def test_bulk_is_the_same_as_one_by_one(queued: bool) -> None:
    entries = [insert(f"{n:04}", card(f"t{n}", rank=n)) for n in range(500)]
    async with opened(synced=SYNCED) as bulk, opened(synced=SYNCED) as single:
        heard: list[CommitDelta] = []
        bulk.db.subscribe_commits(heard.append)
        write = bulk.queue if queued else bulk.write
        result = await write(*entries)
        for entry in entries:
            await (single.queue if queued else single.write)(entry)
        assert await bulk.rows() == await single.rows()
        assert [item.row for item in result.items] == [entry.values for entry in entries]
        assert len({item.version for item in result.items}) == 500
        (delta,) = heard
        assert {id: new and new.image for id, (_, new) in delta.changes["cards"].items()} == await bulk.rows()
        stored = {row.id: row for row in (await bulk.db.read(rows_of("cards"))).rows}
        assert {id: new for id, (_, new) in delta.changes["cards"].items()} == stored
        pending = await bulk.db.inspect(lambda tx: tx.outbox.queued(limit=1_000, max_bytes=10**9))
        assert [mutation.mid for mutation in pending] == (list(range(1, 501)) if queued else [])


async def test_inserts_at_once_within_a_unit_are_reported_at_their_places() -> None:
    async with opened() as db:
        runs = [[insert(f"{run}{n:02}", card(f"{run}{n}")) for n in range(20)] for run in "ab"]
        result = await db.write(*runs[0], update("a00", rank=1), *runs[1])
        assert [item.id for item in result.items] == [f"a{n:02}" for n in range(20)] + ["a00"] + [
            f"b{n:02}" for n in range(20)
        ]
        stored = {row.id: row.version for row in (await db.db.read(rows_of("cards"))).rows}
        assert [item.version for item in result.items[1:]] == [stored[item.id] for item in result.items[1:]]


async def test_a_bulk_insert_with_one_taken_id_is_decided_row_by_row() -> None:
    async with opened() as db:
        await db.write(insert("0030", card("there")))
        result = await db.write(*(insert(f"{n:04}") for n in range(100)))
        assert [n for n, code in enumerate(codes(result.items)) if code != "ok"] == [30]
        assert (await db.rows())["0030"] == card("there")
        assert len(await db.rows()) == 100


@pytest.mark.paths
async def test_changes_are_the_net_effect_in_commit_order(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as db:
        heard: list[CommitDelta] = []
        undo = db.db.subscribe_commits(heard.append)

        def fail(_delta: CommitDelta) -> None:
            raise LookupError("an error of one listener harms nobody")

        db.db.subscribe_commits(fail)
        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(db.write, insert(f"{n:02}"))
        assert [change.commit for change in heard] == list(range(1, 51))
        heard.clear()
        await db.write(insert("x"), update("x", rank=1), delete("x"), update("00", rank=1), update("00", rank=2))
        ((change),) = heard
        assert set(change.changes["cards"]) == {"00"}
        old, new = change.changes["cards"]["00"]
        assert old is not None
        assert new is not None
        assert (old.image["rank"], new.image["rank"]) == (0, 2)
        assert new == await db.get("00")
        undo()
        await db.write(insert("y"))
        assert len(heard) == 1


async def test_nan_never_reaches_sqlite() -> None:
    async with opened() as db:
        refused = await db.write(insert("1", card(weight=math.nan)), insert("2", card(weight=math.inf)))
        assert codes(refused.items) == ["INVALID", "ok"]
        assert codes((await db.write(update("2", weight=math.nan))).items) == ["INVALID"]
        many = await db.write(*(insert(f"n{n}", card(weight=math.nan if n == 7 else 1.0)) for n in range(40)))
        assert [n for n, code in enumerate(codes(many.items)) if code != "ok"] == [7]
        with pytest.raises(ValidationError, match="NaN"):
            await db.db.apply(lambda tx: tx.base.put("cards", "3", "main", card(weight=math.nan), 1))
        with pytest.raises(QueryError, match=r"not NaN"):  # no row has it, so it is compared with nothing
            not_a_number = float("nan")
            await db.db.read(rows_of("cards", col("weight").in_([not_a_number])))


async def test_queries_through_the_node() -> None:
    async with opened() as db:
        await db.write(*(insert(str(n), card(rank=n)) for n in range(5)))
        node = LocalQueryNode(db.db)
        query = rows_of("cards", col("rank") >= 1, order_by=("-rank",), limit=2)
        result = await node.query(QueryRequest(query, CONTEXT))
        assert [row.id for row in result.rows] == ["4", "3"]
        assert (result.meta.source, result.meta.commit) == ("local", 1)
        assert result.meta.cursor
        assert number_of(await db.db.read(count_of("cards"))) == 5
        missing = await db.db.read(by_ids("cards", ("nope",)))
        assert (missing.rows, missing.meta.commit) == ((), 1)
        with pytest.raises(QueryError, match="no field 'nope'"):
            await db.db.read(rows_of("cards", col("nope") == 1))
        with pytest.raises(UnknownStore):
            await db.db.read(rows_of("nope"))
        with pytest.raises(QueryError):
            await db.db.read(rows_of("cards", order_by=("rank",), after=(1,)))


@pytest.mark.paths
async def test_errors_of_a_stage_undo_the_unit() -> None:
    async with opened(synced=SYNCED) as db:
        heard: list[CommitDelta] = []
        db.db.subscribe_commits(heard.append)
        db.outbox.fail_with = LookupError("stage")
        with pytest.raises(LookupError):
            await db.queue(insert("1"), insert("2"))
        db.outbox.fail_with = None
        assert (await db.rows(), heard) == ({}, [])
        assert await db.db.inspect(
            lambda tx: (tx.outbox.queued(limit=9, max_bytes=10**6), tx.outbox.identity().next_mid)
        ) == ([], 1)
        with pytest.raises(UnknownStore):
            await db.write(insert("1", store="nope"))


@pytest.mark.paths
async def test_inspecting_changes_nothing() -> None:
    async with opened(synced=SYNCED) as db:
        await db.write(insert("1"))
        await db.db.inspect(lambda tx: tx.rows.put("cards", "1", "main", None))  # memory: undone; a file: refused
        assert await db.rows() == {"1": card()}


async def test_after_closing_every_call_says_so() -> None:
    async with opened(environment=Environment()) as db:
        await db.write(insert("1"))
    with pytest.raises(ClosedError):
        await db.write(insert("2"))
    with pytest.raises(ClosedError):
        await db.get("1")
    with pytest.raises(ClosedError):
        await db.db.apply(lambda tx: tx.now_ms)


async def test_an_equal_image_keeps_the_version_and_is_no_change() -> None:
    async with opened(synced=SYNCED) as db:
        version = (await db.write(insert("1"))).items[0].version
        heard: list[CommitDelta] = []
        db.db.subscribe_commits(heard.append)
        assert await db.db.apply(lambda tx: tx.rows.put("cards", "1", "main", card())) == version
        await db.db.apply(lambda tx: tx.base.put("cards", "1", "main", card(), 8))
        row = await db.get("1")
        assert row is not None
        assert (row.version, row.seq) == (version, 8)
        assert [dict(change.changes) for change in heard] == [{}]  # only the sequence moved: nothing to see
