"""What a hub on PostgreSQL does that one on a file cannot: processes beside each other, faults on the way, another server."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.execution import OperationContext, ResolveRequest
from atoma.contracts.limits import TEXTS_MAX
from atoma.contracts.mutations import Edit, Op
from atoma.contracts.presence import AppearRequest, PresenceRequest
from atoma.contracts.sync import Hint, NotifyRequest
from atoma.contracts.understood import UNDERSTOOD
from atoma.contracts.values import RowImage
from atoma.errors import ConfigurationError, MigrationError, RemoteError, StoreBusy
from atoma.hub import Hub
from atoma.ports.environment import Environment
from atoma.ports.service import Principal
from atoma.schema import Index, Schema, StoreSpec
from atoma.schema.texts import document, rewritten
from tests.postgres import server
from tests.steps import Steps
from tests.unit.hub.homes import PostgreSQLHome
from tests.unit.hub.kit import SCHEMA, SCOPE, Client, card, direct, hub_on, pull_all
from tests.unit.hub.test_merging import push
from tests.unit.hub.truth import check_truth

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

from atoma_stores.postgres import PostgreSQLHubStore, lanes
from atoma_stores.postgres.codes import ConnectionLost, ErrorClass, ServerError
from atoma_stores.postgres.database import PostgreSQLHubDatabase
from atoma_stores.postgres.faults import FaultPlan
from atoma_stores.postgres.heads import Heads
from atoma_stores.postgres.pool import BEGIN, COMMIT, Pools
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.hub import tables
from atoma_stores.sql.scripts import Batch, Execute


def create(id: str, **values: Any) -> Op:
    return Op("create", "cards", id, card("t", **values))


def database_of(hub: Hub) -> PostgreSQLHubDatabase:
    return cast("PostgreSQLHubDatabase", cast("Any", hub)._core.database)


@asynccontextmanager
async def hubs(pg: PostgreSQLHome, count: int, schema: Schema = SCHEMA) -> AsyncGenerator[Sequence[Hub]]:
    """Equal hubs over one database, as if each were a process."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(hub_on(pg.store(), schema=schema)) for _ in range(count)]


async def test_equal_hubs_open_an_empty_database_at_the_same_time_as_one_hub(pg: PostgreSQLHome) -> None:
    found: list[bytes] = []

    async def open_one() -> None:
        async with hub_on(pg.store()) as hub:
            found.append(hub.identity.hub_id)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(open_one)
    assert len(found) == 4
    assert len(set(found)) == 1


async def test_what_it_cannot_search_it_does_not_say_that_it_understands(pg: PostgreSQLHome) -> None:
    async with hub_on(pg.store()) as hub:
        unasked = {"matches", "rank", "highlight", "snippet", "regex"}
        assert set(UNDERSTOOD.functions) - set(hub.understood.functions) == unasked
    async with hub_on(":memory:") as hub:
        assert hub.understood.functions == UNDERSTOOD.functions


async def test_hubs_beside_each_other_order_a_scope_and_decide_everything_once(pg: PostgreSQLHome) -> None:
    async with hubs(pg, 3) as three:

        async def write(number: int) -> None:
            client = Client.of(three[number % 3], f"c{number}")
            for at in range(12):
                client = client.on(three[(number + at) % 3])  # any of them takes any call
                await client.do(create(f"{number}-{at}"), scope=f"s{at % 2}")
                again = await client.push(len(client.mutations))
                assert again.outcomes[0].duplicate

        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(write, number)
        rows, end = await pull_all(Client.of(three[0], "reader"), "s0")
        assert len(rows) == end.seq == 9 * 6
    check_truth(pg, SCHEMA)


async def test_a_key_is_applied_once_whichever_hub_is_asked(pg: PostgreSQLHome) -> None:
    entry = Op("create", "cards", "1", {**card("t"), "board": SCOPE}, scope=SCOPE)
    async with hubs(pg, 3) as three:
        results: list[object] = []

        async def write(hub: Hub) -> None:
            results.append((await Client.of(hub, "a").service.write(direct(entry, idem="the key"))).items)

        async with trio.open_nursery() as nursery:
            for hub in [*three, *three, *three]:
                nursery.start_soon(write, hub)
        assert results == [results[0]] * 9
    check_truth(pg, SCHEMA)


async def test_values_that_must_be_unique_are_so_across_hubs(pg: PostgreSQLHome) -> None:
    """Both write at once; one of them is refused by name, and values may change places in one mutation."""
    async with hubs(pg, 2) as two:
        statuses: list[str] = []

        async def take(number: int) -> None:
            client = Client.of(two[number % 2], f"c{number}")
            statuses.append((await client.do(Op("create", "seats", f"{number}", {"place": "window"}))).status)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(take, number)
        assert sorted(statuses) == ["applied", *["rejected"] * 5]
        client = Client.of(two[0], "changes")
        ((id,),) = pg.ask("SELECT id FROM atoma.seats")
        await client.do(Op("create", "seats", "aisle", {"place": "aisle"}))
        swap = (Op("patch", "seats", str(id), {"place": "aisle"}), Op("patch", "seats", "aisle", {"place": "window"}))
        assert (await client.do(*swap, base=2)).status == "applied"
    check_truth(pg, SCHEMA)


# heads


async def test_a_hub_hints_at_what_another_one_has_committed(pg: PostgreSQLHome) -> None:
    async with hubs(pg, 2) as (here, there):
        async with Client.of(here, "listener").service.notify(NotifyRequest((SCOPE,))) as hints:
            assert await anext(hints) == Hint(SCOPE, 0)
            with trio.fail_after(60):
                await Client.of(there, "a").do(create("1"))
                assert await anext(hints) == Hint(SCOPE, 1)


async def test_what_no_notification_tells_the_look_finds(pg: PostgreSQLHome) -> None:
    async with hub_on(pg.store()) as hub:
        async with Client.of(hub, "listener").service.notify(NotifyRequest((SCOPE,))) as hints:
            assert await anext(hints) == Hint(SCOPE, 0)
            await Client.of(hub, "a").do(create("1"))
            assert await anext(hints) == Hint(SCOPE, 1)
            pg.ask("UPDATE {scope} SET head=7")  # as if a connection were silent and dead
            with trio.fail_after(60):
                assert await anext(hints) == Hint(SCOPE, 7)


STRANGE = ("x", "notice \u00e9", "notice AA=", "[]", '["x",{"main":9}]', '["x 00",{"main":9}]', '["x",{"main":1e99}]')


async def test_what_no_process_of_the_hub_has_said_is_passed_over(
    pg: PostgreSQLHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody who may connect to a database may notify there."""
    import psycopg

    heard, take = trio.Event(), Heads._take_notice

    def hear(heads: Heads, text: str) -> None:
        take(heads, text)
        if text == "AA==":
            heard.set()

    monkeypatch.setattr(Heads, "_take_notice", hear)
    async with hub_on(pg.store()) as hub:
        async with Client.of(hub, "listener").service.notify(NotifyRequest((SCOPE,))) as hints:
            assert await anext(hints) == Hint(SCOPE, 0)
            with trio.fail_after(60), psycopg.connect(pg.address(), autocommit=True) as anybody:
                while not heard.is_set():
                    for text in (*STRANGE, "notice AA=="):
                        anybody.execute("SELECT pg_notify('atoma_heads', %s)", (text,))
                    await trio.sleep(0.01)
                await Client.of(hub, "a").do(create("1"))
                assert await anext(hints) == Hint(SCOPE, 1)


# faults


TRIPS_MAX = 60


def writes(batch: Batch) -> bool:
    """Whether it is a trip of a write group."""
    return batch[0].sql == "BEGIN" or batch[-1].sql == "COMMIT"


async def trips_of(plan: FaultPlan, client: Client, number: int) -> list[int]:
    plan.heal()
    assert (await client.do(create(f"probe-{number}"))).status == "applied"
    return list(plan.sizes)


@pytest.mark.parametrize("state", ["40001", "57P01", "23505"])
async def test_an_error_at_any_place_of_a_group_changes_nothing_but_the_time_it_takes(
    pg: PostgreSQLHome, state: str
) -> None:
    plan = FaultPlan(concerns=writes)
    async with hub_on(PostgreSQLHubStore(pg.address(), faults=plan)) as hub:
        client = Client.of(hub, "a")
        await client.do(create("0"))
        first, second = await trips_of(plan, client, 0)
        places = [(trip, at) for trip, size in enumerate((first, second)) for at in range(size)]
        for trip, at in places:
            plan.heal()
            plan.skip, plan.state, plan.at = trip, state, at
            outcome = await client.do(create(f"{trip}-{at}"))
            assert (outcome.status, outcome.seq) == ("applied", len(client.mutations)), (trip, at)
            assert plan.hit == 1, (trip, at)
        at_the_row = int(state == "23505")  # there it may be the row's fault: the step is asked alone
        assert database_of(hub).figures.again == len(places) - at_the_row
    check_truth(pg, SCHEMA)


MEANINGS: dict[str, ErrorClass] = {
    "40001": "again", "40P01": "again", "55P03": "again", "57P01": "again", "57P02": "again", "57P03": "again",
    "25P03": "again", "08006": "again", "57014": "slow", "23505": "value", "23514": "value", "22021": "value",
    "54000": "value", "53100": "passing", "53300": "passing", "25006": "passing", "42P01": "fault", "0A000": "fault",
}  # fmt: skip


def test_what_an_error_means() -> None:
    assert {state: ServerError(state, "").meaning for state in MEANINGS} == MEANINGS


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("trip", [0, 1])
async def test_a_connection_that_is_lost_leaves_one_effect_and_one_truth(
    pg: PostgreSQLHome, trip: int, moment: Any
) -> None:
    plan = FaultPlan(concerns=writes)
    async with hub_on(PostgreSQLHubStore(pg.address(), faults=plan)) as hub:
        client = Client.of(hub, "a")
        async with client.service.notify(NotifyRequest((SCOPE,))) as hints:
            assert await anext(hints) == Hint(SCOPE, 0)
            plan.skip, plan.lost = trip, moment
            outcome = await client.do(create("1"))
            assert (outcome.status, outcome.seq) == ("applied", 1)
            assert outcome.duplicate is ((trip, moment) == (1, "after")), (
                "it is told as what was decided the first time"
            )
            with trio.fail_after(60):
                assert await anext(hints) == Hint(SCOPE, 1), "although whoever committed it did not hear so"
            plan.heal()
            plan.skip, plan.lost = trip, moment
            entry = Op("create", "cards", "2", {**card("t"), "board": SCOPE}, scope=SCOPE)
            result = await client.service.write(direct(entry, idem="the key"))
            assert [item.version for item in result.items] == [2]
    check_truth(pg, SCHEMA)


def is_asked_for(batch: Batch) -> bool:
    """Whether it is a trip of what a test does, and not of what a hub does by itself."""
    texts = [statement.sql for statement in batch]
    return not any(word in text for text in texts for word in ("pg_notify", "LISTEN", "intake"))


STEPS: dict[str, Callable[[Hub, Client, str], Awaitable[object]]] = {
    "push": lambda hub, client, id: client.do(create(id)),
    "open": lambda hub, client, id: client.open(SCOPE, confirmed=len(client.mutations)),
    "write": lambda hub, client, id: client.service.write(
        direct(Op("create", "cards", id, {**card("t"), "board": SCOPE}, scope=SCOPE), idem=f"key of {id}")
    ),
    "resolve": lambda hub, client, id: client.service.resolve(ResolveRequest(f"key of {id}", OperationContext(id))),
    "compact": lambda hub, client, id: hub.compact(keep=1),
}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("kind", STEPS)
async def test_whatever_is_done_outlives_a_connection_that_is_lost_at_any_trip_of_it(
    pg: PostgreSQLHome, kind: str, moment: Any
) -> None:
    plan, ids, trip = FaultPlan(concerns=is_asked_for), ["last"], 0
    async with hub_on(PostgreSQLHubStore(pg.address(), faults=plan)) as hub:
        client = Client.of(hub, "a")
        for trip in range(0, TRIPS_MAX, 9 if kind == "compact" else 1):
            await client.do(create(f"before {trip}"))
            plan.heal()
            plan.skip, plan.lost = trip, moment
            await STEPS[kind](hub, client, f"{trip}")
            ids += [f"before {trip}", *([f"{trip}"] if kind in ("push", "write") else ())]
            if not plan.hit:
                break
        assert 0 < trip < TRIPS_MAX - 9, "it has trips, and an end"
        plan.heal()
        await client.do(create("last"))
        assert sorted(await client.query("cards")) == sorted(ids)
    if kind != "compact":
        check_truth(pg, SCHEMA)


async def test_a_group_that_finds_no_turn_is_told_so_and_nothing_of_it_is_written(
    pg: PostgreSQLHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "AGAIN_S", 0.2)
    plan = FaultPlan(concerns=writes)
    async with hub_on(PostgreSQLHubStore(pg.address(), faults=plan)) as hub:
        client = Client.of(hub, "a")
        plan.lost, plan.lasting = "before", True
        client.write(create("1"))
        with pytest.raises(RemoteError) as busy:
            await client.push()
        assert (busy.value.remote_code, busy.value.remote_retryable) == ("BUSY", True)
        assert plan.hit > 1
        monkeypatch.undo()  # what is there again has the time that it needs
        plan.heal()
        assert [outcome.seq for outcome in (await client.push()).outcomes] == [1]
    check_truth(pg, SCHEMA)


async def test_backends_that_are_killed_all_the_time_cost_nobody_anything(pg: PostgreSQLHome) -> None:
    """Every process of the server that works for the hubs is ended at random, again and again."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=current_database() AND pid<>pg_backend_pid()"
    acked: list[str] = []
    async with hubs(pg, 2) as two:
        over = False

        async def write(number: int) -> None:
            client = Client.of(two[number % 2], f"c{number}")
            while not over:
                id = f"{number}-{len(client.mutations)}"
                assert (await client.do(create(id))).status == "applied"
                acked.append(id)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(write, number)
            for _ in range(25):
                await trio.sleep(0.04)
                await trio.to_thread.run_sync(pg.ask, f"{end} AND random()<{chance.choice([0.2, 0.6, 1.0])}")
            over = True
        rows, end_ = await pull_all(Client.of(two[0], "reader"))
        assert {id for _, id in rows} == set(acked), f"seed {seed}"
        assert end_.seq == len(acked)
        again = [database_of(hub).figures.again for hub in two]
        assert sum(again) > 0, "nothing was hit"
    check_truth(pg, SCHEMA)


async def test_whoever_stops_with_the_lock_of_a_scope_loses_it(pg: PostgreSQLHome) -> None:
    """A process that is suspended, or its machine: the server takes the lock from it, and what it wakes up to write comes to nothing."""
    async with hubs(pg, 2) as (stopped, other):
        client = Client.of(other, "a")
        await client.do(create("1"))
        pools: Pools = cast("Any", database_of(stopped))._pools
        async with pools.writing.connection() as connection:
            connection.in_transaction = True
            lock = POSTGRESQL.lock(tables.SCOPE, "scope", [SCOPE])
            await connection.trip([BEGIN, *lock, Execute(POSTGRESQL.render("UPDATE {scope} SET head=head+1"))])
            with trio.fail_after(60):
                assert (await client.do(create("2"))).seq == 2
            with pytest.raises((ServerError, ConnectionLost)):
                await connection.trip([COMMIT])
        assert (await client.on(stopped).do(create("3"))).seq == 3
    check_truth(pg, SCHEMA)


async def test_a_caller_that_is_cancelled_leaves_a_write_that_is_done_whole(pg: PostgreSQLHome) -> None:
    async with hub_on(pg.store()) as hub:
        for number in range(30):
            client = Client.of(hub, f"c{number}")
            client.write(create(f"{number}a"), create(f"{number}b"))
            with trio.move_on_after(number * 0.0004):
                await client.push()
            later = (await client.push()).outcomes[0]
            assert later.status == "applied"
    check_truth(pg, SCHEMA)


# beside each other


@dataclass(frozen=True, slots=True)
class Note:
    id: str
    title: str


@dataclass(frozen=True, slots=True)
class ColouredNote:
    id: str
    title: str
    colour: str = "blue"


@dataclass(frozen=True, slots=True)
class Tag:
    id: str
    name: str


OLD = Schema(StoreSpec("notes", Note), StoreSpec("tags", Tag))
NEW = Schema(StoreSpec("notes", ColouredNote, indexes=[Index("colour")]), StoreSpec("tags", Tag), version=2)


async def test_an_older_process_reads_on_and_writes_no_store_that_has_grown(pg: PostgreSQLHome) -> None:
    async with hub_on(pg.store(), schema=OLD) as old:
        client = Client.of(old, "a")
        await client.do(Op("create", "notes", "1", {"title": "before"}))
        async with hub_on(pg.store(), schema=NEW) as new:
            newer = Client.of(new, "n")
            assert (await newer.do(Op("patch", "notes", "1", {"colour": "red"}), base=1)).status == "applied"
            client.write(Op("patch", "notes", "1", {"title": "by the older"}), base=1)
            with pytest.raises(RemoteError) as refused:
                await client.push(2)
            assert (refused.value.remote_code, refused.value.remote_retryable) == ("BUSY", True)
            other = Client.of(old, "b")
            assert (await other.do(Op("create", "tags", "1", {"name": "still written"}))).status == "applied"
            rows, _ = await pull_all(other)
            assert rows["notes", "1"]["title"] == "before"
            assert [outcome.status for outcome in (await client.on(new).push(2)).outcomes] == ["applied"]
            assert (await pull_all(newer))[0]["notes", "1"] == {"title": "by the older", "colour": "red"}
    with pytest.raises(MigrationError, match="newer program"):
        async with hub_on(pg.store(), schema=OLD):
            pass


@dataclass(frozen=True, slots=True)
class NumberedNote:
    id: str
    title: int


async def test_changes_that_need_a_step_are_refused_before_anything_is_touched(pg: PostgreSQLHome) -> None:
    async with hub_on(pg.store(), schema=NEW):
        pass
    for schema, why in (
        (
            Schema(StoreSpec("notes", Note), version=3),
            r"a column 'colour' that the code does not declare.*Drop\(\"notes.colour\"\)",
        ),
        (Schema(StoreSpec("notes", NumberedNote), version=3), r"'title' holds text.*Convert\(\"notes.title\""),
        (Schema(StoreSpec("notes", ColouredNote, scope="another"), version=3), "cannot change their scope"),
    ):
        with pytest.raises(MigrationError, match=why):
            async with hub_on(pg.store(), schema=schema):
                pass
    async with hub_on(pg.store(), schema=NEW) as hub:
        assert (await Client.of(hub, "a").do(Op("create", "notes", "1", {"title": "t"}))).status == "applied"


async def test_two_that_compact_at_once_do_it_once_and_the_lease_ends(pg: PostgreSQLHome) -> None:
    async with hubs(pg, 2) as two:
        client = Client.of(two[0], "a")
        for number in range(20):
            await client.do(create(str(number)))
        pg.ask(
            "INSERT INTO atoma_hub.chore VALUES('compact', 'another', (extract(epoch FROM now())*1000)::bigint+60000)"
        )
        assert (await two[0].compact(keep=5)).transactions == 0, "another process is at it"
        pg.ask("UPDATE atoma_hub.chore SET until_ms=0")
        report = await two[1].compact(keep=5)
        assert (report.transactions, dict(report.floors)) == (15, {SCOPE: 15})
        assert pg.ask("SELECT count(*) FROM atoma_hub.chore") == [(0,)]
        assert (await client.do(create("more"))).status == "applied"


# another server


async def test_a_server_with_another_history_ends_the_epoch_on_the_next_connection(pg: PostgreSQLHome) -> None:
    """As after a fail-over, or a restore to a point in time: both break every connection."""
    async with hub_on(pg.store()) as hub:
        client = Client.of(hub, "a")
        await client.do(create("1"))
        cursor = (await client.pull()).end
        before = hub.identity.epoch
        pg.ask("UPDATE atoma_hub.meta SET value='1/00000001' WHERE key='server'")
        pg.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname=current_database() AND pid<>pg_backend_pid()"
        )
        assert (await client.do(create("2"))).seq == 2
        assert (await client.open()).epoch != before
        assert hub.identity.epoch != before
        with pytest.raises(RemoteError) as changed:
            await client.pull(cursor)
        assert changed.value.remote_code == "EPOCH_CHANGED"
        (ended,) = await hub.epochs()
        assert (ended.epoch, ended.devices, ended.deletes) == (before, "offer", False)
        assert pg.ask("SELECT scope, head FROM {epoch_end}") == [(SCOPE, 1)]


async def test_a_hub_that_runs_as_a_plain_role_needs_no_more_than_a_schema_of_its_own(pg: PostgreSQLHome) -> None:
    ((name,),) = pg.ask("SELECT current_database()::text")
    where = server()
    where.sql(f"DROP ROLE IF EXISTS hub_role; CREATE ROLE hub_role LOGIN; GRANT CREATE ON DATABASE {name} TO hub_role")
    async with hub_on(PostgreSQLHubStore(where.dsn(str(name), "hub_role"))) as hub:
        assert (await Client.of(hub, "a").do(create("1"))).status == "applied"


async def test_an_address_that_leads_nowhere_says_so_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from atoma_stores.postgres import hub_store

    monkeypatch.setattr(hub_store, "AGAIN_S", 0.1)
    store = PostgreSQLHubStore("postgresql://ann:secret@127.0.0.1:1/db")
    assert "secret" not in repr(store)
    with pytest.raises(StoreBusy) as busy:
        async with store.open_hub_database(SCHEMA, Environment()):
            pass
    assert "secret" not in str(busy.value)
    for wrong in ("", "postgresql://[", "not an address"):
        with pytest.raises(ConfigurationError):
            async with PostgreSQLHubStore(wrong).open_hub_database(SCHEMA, Environment()):
                pass


async def test_who_is_present_with_one_process_is_seen_with_the_other_and_in_no_table(pg: PostgreSQLHome) -> None:
    async with hub_on(pg.store()) as first, hub_on(pg.store()) as second:
        asked = PresenceRequest("main", b"a" * 16, 1, '"here, and nowhere else"')
        with trio.fail_after(60):
            async with (
                second.service(Principal("bob")).presence(replace(asked, session=b"b" * 16)) as changes,
                first.service(Principal("ann")).presence(asked),
            ):
                assert (await anext(changes)).here == ()
                change = await anext(changes)
                assert [(present.subject, present.state) for present in change.here] == [("ann", asked.state)]
                await first.service(Principal("ann")).appear(AppearRequest("main", asked.session, 2, '"moved"'))
                assert [present.state for present in (await anext(changes)).here] == ['"moved"']
                tables = pg.ask("SELECT schemaname, tablename FROM pg_tables WHERE schemaname LIKE 'atoma%'")
                assert len(tables) > 5
                for schema, table in tables:
                    rows = pg.ask(f'SELECT t::text FROM "{schema}"."{table}" t')
                    assert not any("here, and" in str(row) or "moved" in str(row) for row in rows)
                await first.service(Principal("ann")).appear(AppearRequest("main", asked.session, 3))
                assert len((await anext(changes)).gone) == 1


@dataclass(frozen=True)
class Page:
    id: str
    body: str = ""
    body_state: bytes | None = None


async def test_texts_are_joined_beside_the_loop_of_the_hub(pg: PostgreSQLHome) -> None:
    """A unit of as many texts as may be is decided in one go: in the loop nobody else would be answered meanwhile."""
    pytest.importorskip("pycrdt", reason="the extra text is not installed")
    schema = Schema(StoreSpec("notes", Page, merge={"body": "text"}))
    begin = document("one two three", None)
    mine = theirs = begin
    for number in range(40):
        mine = rewritten(mine, f"{number} mine, one two three")
        theirs = rewritten(theirs, f"one two three and theirs {number}")
    ids = [f"{number}" for number in range(TEXTS_MAX)]
    steps = Steps()
    async with hub_on(pg.store(), schema=schema) as hub:
        ann, bob = Client.of(hub, "ann"), Client.of(hub, "bob")
        image: RowImage = {"body": "one two three", "body_state": begin}
        await push(ann, *(Op("create", "notes", id, image) for id in ids), base=0)
        edited = [Op("patch", "notes", id, edits=(Edit("body_state", "text", mine),)) for id in ids]
        assert (await push(ann, *edited, base=1)).status == "applied"
        edited = [Op("patch", "notes", id, edits=(Edit("body_state", "text", theirs),)) for id in ids]
        trio.lowlevel.add_instrument(steps)
        assert (await push(bob, *edited, base=1)).status == "applied"
        trio.lowlevel.remove_instrument(steps)
    assert steps.most < 5_000, "joining them takes 70,000"
