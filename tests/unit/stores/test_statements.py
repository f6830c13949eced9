"""How many SQL statements a write takes, and that what is known of the file is asked again once somebody else has written."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest
from msgspec.structs import replace

from atoma import Schema, open_client
from atoma.contracts.sync import Outcome
from atoma.ports import LocalTx
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.unit.stores.kit import CARDS, SYNCED, Card, card, delete, insert, opened, request, update

WARM_UP = 20


@contextmanager
def statements(*, of_triggers: bool = False) -> Generator[list[str]]:
    """The statements at top level, or those of triggers, of every connection that is opened within the block."""
    told: list[str] = []

    def listen(connection: apsw.Connection) -> None:
        def tell(event: dict[str, object]) -> None:
            if bool(event["trigger"]) is of_triggers:
                told.append(str(event["sql"]))

        connection.trace_v2(apsw.SQLITE_TRACE_STMT, tell)

    apsw.connection_hooks.append(listen)
    try:
        yield told
    finally:
        apsw.connection_hooks.remove(listen)


async def test_a_write_takes_as_few_statements_as_it_needs(tmp_path: Path) -> None:
    counts: dict[str, int] = {}
    with statements() as told:
        plugins = [LocalExecution(SQLiteEngine(tmp_path / "a.db"))]
        async with open_client(Schema(CARDS, version=1), plugins=plugins) as client:
            cards = client.store(CARDS)
            for number in range(WARM_UP):
                await cards.insert(Card(f"warm {number}", "a"))
                await cards.update(f"warm {number}", title="b")
            for name, write in (
                ("insert", lambda: cards.insert(Card("1", "a"))),
                ("update", lambda: cards.update("1", title="b")),
                ("delete", lambda: cards.delete("1")),
            ):
                del told[:]
                await write()
                counts[name] = len(told)
                assert (told[0], told[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
    assert counts == {"insert": 4, "update": 5, "delete": 5}


@pytest.mark.paths
async def test_an_insert_that_meets_a_row_says_what_is_there() -> None:
    async with opened() as db:
        await db.write(insert("1", card("there")))
        met = await db.write(insert("1", card("mine")))
        (item,) = met.items
        assert item.error is not None and item.error.code == "CONFLICT" and "exists already" in item.error.message
        assert item.row is not None and item.row["title"] == "there"
        assert (await db.write(insert("2"))).items[0].version == item.version + 1, "no version was drawn for it"


async def test_what_another_program_writes_is_known_to_the_next_write(tmp_path: Path) -> None:
    """Counters, confirmed images and kept answers are remembered, and asked for again once somebody else has written."""
    path = tmp_path / "a.db"
    async with opened(path, synced=SYNCED) as mine, opened(path, synced=SYNCED) as other:
        first = await mine.write(insert("1"))
        assert not await mine.db.apply(lambda tx: tx.base.read("cards", "1").shadowed)
        met = await other.write(insert("2"))
        assert met.meta.commit == (first.meta.commit or 0) + 1
        assert met.items[0].version == first.items[0].version + 1
        again = await mine.write(insert("3"))
        assert again.meta.commit == met.meta.commit + 1
        assert again.items[0].version == met.items[0].version + 1
        unit = request(update("1", title="once"), idem="once")
        queued = await other.queue_request(unit)
        assert await mine.db.apply(lambda tx: tx.base.read("cards", "1").shadowed)
        repeated = await mine.queue_request(unit)
        assert repeated.items[0].version == queued.items[0].version
        assert len(await mine.db.inspect(lambda tx: tx.outbox.on_row("cards", "1"))) == 1


@pytest.mark.parametrize("synced", [frozenset[str](), SYNCED])
async def test_triggers_of_the_engine_cost_it_nothing_and_those_of_others_run(
    tmp_path: Path, synced: frozenset[str]
) -> None:
    path = tmp_path / "a.db"

    def by_hand(sql: str) -> None:
        with closing(apsw.Connection(str(path))) as tool:
            tool.execute(sql)

    with statements(of_triggers=True) as told:
        async with opened(path, synced=synced) as db:
            del told[:]
            await db.write(insert("1"))
            await db.write(*(insert(f"many {number}") for number in range(40)))
            await db.write(update("1", title="b"), delete("many 1"))
            assert told == []
            by_hand(
                "CREATE TABLE seen(id TEXT); "
                "CREATE TRIGGER see AFTER INSERT ON cards BEGIN INSERT INTO seen VALUES(NEW.id); END"
            )
            await db.write(insert("2"))
            by_hand("DROP TRIGGER see")
            await db.write(insert("3"))
            by_hand("CREATE TRIGGER see AFTER INSERT ON cards BEGIN INSERT INTO seen VALUES(NEW.id); END")
        async with opened(path, synced=synced) as db:
            await db.write(*(insert(f"more {number}") for number in range(40)))
    with closing(apsw.Connection(str(path))) as tool:
        seen = [id for (id,) in tool.execute("SELECT id FROM seen ORDER BY rowid")]
    assert seen == ["2", *(f"more {number}" for number in range(40))]


async def test_what_was_rolled_back_is_not_known(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", synced=SYNCED) as db:
        first = (await db.write(insert("1"))).items[0]

        def fail(tx: LocalTx) -> None:
            tx.rows.put("cards", "2", "main", card())
            tx.base.shadow("cards", "1", "main", card())
            raise RuntimeError("no")

        for _ in range(2):
            with pytest.raises(RuntimeError):
                await db.db.apply(fail)
            last = await db.write(update("1", title=f"after {first.version}"))
            assert last.items[0].version == first.version + 1
            first = last.items[0]
        assert not await db.db.apply(lambda tx: tx.base.read("cards", "1").shadowed)


async def test_a_queued_write_takes_as_few_statements_as_it_needs(tmp_path: Path) -> None:
    counts: dict[str, int] = {}
    with statements() as told:
        async with opened(tmp_path / "a.db", synced=SYNCED) as db:
            for number in range(WARM_UP):
                await db.queue(insert(f"warm {number}"))
            for name, op in (("insert", insert("1")), ("update", update("warm 1", title="b"))):
                del told[:]
                await db.queue(op)
                counts[name] = len(told)
                assert (told[0], told[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
    assert counts == {"insert": 12, "update": 14}


@pytest.mark.parametrize("count", [1, 40])
async def test_what_many_mutations_came_to_takes_as_many_statements_as_what_one_did(tmp_path: Path, count: int) -> None:
    counts: dict[str, int] = {}
    with statements() as told:
        async with opened(tmp_path / "a.db", synced=SYNCED) as db:
            await db.queue(*(insert(str(number)) for number in range(count)))
            mids = range(1, count + 1)
            del told[:]
            keys = await db.db.inspect(lambda tx: tx.outbox.keys_of([*mids, 99]))
            counts["keys"] = len(told)
            lsns = {one.mid: one.lsn for one in await db.db.inspect(lambda tx: tx.outbox.every())}
            del told[:]
            gone = {lsns[mid]: Outcome(mid, "applied", "main", seq=mid) for mid in mids}
            touched = await db.db.apply(lambda tx: tx.outbox.remove({**gone, 4711: None}))
            counts["remove"] = len(told)
            assert sorted(keys) == list(mids)
            assert list(touched) == [("cards", str(number)) for number in range(count)]
            assert not await db.db.inspect(lambda tx: tx.outbox.every())
            left = await db.db.inspect(lambda tx: tx.outbox.keys_of(mids))
            assert not left
    assert counts == {"keys": 4, "remove": 6}


async def test_numbers_of_mutations_go_on_behind_what_another_program_and_a_failure_have_left(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, synced=SYNCED) as mine, opened(path, synced=SYNCED) as other:
        await mine.queue(insert("1"))
        await other.queue(insert("2"))
        await mine.queue(insert("3"))

        def fail(tx: LocalTx) -> None:
            assert not tx.base.read("cards", "4").shadowed
            tx.outbox.save_identity(replace(tx.outbox.identity(), next_mid=99))
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            await mine.db.apply(fail)
        await mine.queue(insert("4"))
        await other.queue(insert("5"))
        found = await mine.db.inspect(lambda tx: [each.mid for each in tx.outbox.every()])
        assert found == [1, 2, 3, 4, 5]
        assert await other.db.inspect(lambda tx: tx.outbox.identity().next_mid) == 6
