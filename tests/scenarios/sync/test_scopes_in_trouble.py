"""Scopes that come and go while something goes wrong: refusals, restored hubs, several programs at one file, other claims."""

from __future__ import annotations

import shutil
from typing import Any

import apsw
import pytest
import trio

from atoma.contracts.sync import OpenReply
from atoma.errors import ConflictError, DiskFull, RemoteError, ScopeNotSubscribed
from atoma.hub import Caller
from atoma.ports.keys import LOCAL_DATABASE
from atoma.ports.service import Principal
from atoma.query import col, select
from atoma.schema.expressions import Condition
from atoma.schema.expressions import col as column
from atoma.sync import IdleScopes, ScopeInUse
from atoma_stores.sqlite import History
from atoma_stores.sqlite._scopes import Scopes
from tests.scenarios.sync.boards import BOARD, arrive, ids, open_boards, told, use
from tests.scenarios.sync.conftest import CARDS, Card, Device, World
from tests.scenarios.sync.kit import back_up, open_restored

pytestmark = pytest.mark.virtual_time


class Granted:
    """Everybody may use every board that has not been closed."""

    def __init__(self) -> None:
        self.closed = {"board:7"}

    def scope_access(self, principal: Principal, scope: str) -> str:
        return "none" if scope in self.closed and principal.subject != "boss" else "write"


@pytest.mark.paths
async def test_one_that_is_refused_stops_alone_and_who_asks_is_told(world: World) -> None:
    rules = Granted()
    rules.closed = set()
    async with open_boards(world, rules=rules) as writer, world.open_device("a") as a:
        rules.closed = {"board:7"}
        await a.settle()
        connects = a.wire.connects
        async with a.sync.scope("board:7"), a.sync.scope("board:8"):
            with pytest.raises(RemoteError, match="may not read"):
                await arrive(a, "board:7")
            await arrive(a, "board:8")
            assert await told(a) == "partial"
            error = a.sync.status.scope("board:7").error
            assert error is not None and error.code == "PERMISSION_DENIED"
            assert (a.sync.status.state, a.wire.connects) == ("online", connects), "nothing else is disturbed"
            await writer.store(CARDS).insert(Card(id="news", board="board:8"))
            await writer.settle()
            await trio.sleep(1)
            assert "news" in await ids(a)
            rules.closed = set()
            async with a.sync.scope("board:7"):  # asked again
                await trio.sleep(1)
                await arrive(a, "board:7")
            assert await told(a) == "complete"
            assert a.wire.connects == connects
        rules.closed = {"board:7"}
        await a.settle()
        error = a.sync.status.scope("board:7").error
        assert error is not None and error.code == "PERMISSION_DENIED"
        assert "of board:7" in await ids(a)
        await a.sync.drop("board:7")
        assert "of board:7" not in await ids(a)
        await a.settle()


@pytest.mark.paths
async def test_a_follower_brings_its_scope_to_the_program_that_leads(world: World) -> None:
    idle = IdleScopes(seconds=60)
    async with (
        open_boards(world) as writer,
        world.open_device("p", file="shared.db", idle=idle) as p,
        world.open_device("q", file="shared.db", idle=idle) as q,
    ):
        await trio.sleep(5)
        leads, follows = (p, q) if p.sync.status.state == "online" else (q, p)
        assert (leads.sync.status.state, follows.sync.status.state) == ("online", "following")
        async with follows.sync.scope("board:7"):
            await trio.sleep(2)
            assert follows.wire.count("snapshot") == 0, "the other one has brought it"
            assert "of board:7" in await ids(follows)
            assert leads.sync.status.scope("board:7").state == "live"
            await trio.sleep(600)
            assert "of board:7" in await ids(follows), "the leader does not drop what is used elsewhere"
            with pytest.raises(ScopeInUse, match="uses it"):
                await leads.sync.drop("board:7")
            await writer.store(CARDS).insert(Card(id="news", board="board:7"))
            await writer.settle()
            await trio.sleep(2)
            assert "news" in await ids(follows)
        await trio.sleep(120)
        assert await ids(leads) == await ids(follows) == {"of main"}
        for device in (leads, follows):
            assert [each.scope for each in device.sync.status.scopes] == ["main"]
            with pytest.raises(ScopeNotSubscribed):
                await device.store(CARDS).insert(Card(id="late", board="board:7"))


@pytest.mark.paths
async def test_what_another_program_uses_takes_no_place_of_what_nobody_uses(world: World) -> None:
    idle = IdleScopes(count=1)
    async with (
        open_boards(world),
        world.open_device("p", file="shared.db", idle=idle) as p,
        world.open_device("q", file="shared.db", idle=idle) as q,
    ):
        await trio.sleep(5)
        leads, follows = (p, q) if p.sync.status.state == "online" else (q, p)
        await use(leads, "board:8")
        async with follows.sync.scope("board:7"):
            await trio.sleep(300)
            assert await ids(leads) == {"of main", "of board:7", "of board:8"}


async def test_what_a_program_used_that_was_killed_ages_out(world: World) -> None:
    async with open_boards(world):
        async with world.open_device("a") as a, a.sync.scope("board:7"):
            await arrive(a, "board:7")
            shutil.copy(world.folder / "a.db", world.folder / "b.db")  # as it is while the program runs, and never ends
            shutil.copy(world.folder / "a.db-wal", world.folder / "b.db-wal")
        async with world.open_device("b", idle=IdleScopes(seconds=60)) as b:
            await b.settle()
            assert "of board:7" in await ids(b)
            await trio.sleep(200)
            assert await ids(b) == {"of main"}


async def test_a_restored_hub_gets_back_what_it_has_lost_of_a_scope_that_was_brought_along(world: World) -> None:
    async with open_boards(world):
        pass
    back_up(world)
    async with world.open_device("a", down=True) as a:
        async with world.open_hub():
            a.wire.repair()
            a.sync.poke()
            async with a.sync.scope("board:7"):
                await arrive(a, "board:7")
                await a.store(CARDS).insert(Card(id="lost", board="board:7"))
                await a.settle()
            a.wire.cut()
        async with open_restored(world):
            a.wire.repair()
            a.sync.poke()
            await a.settle()
            assert a.sync.status.last_repair is not None
            async with world.open_device("c", scopes=("board:7",)) as c:
                await c.settle()
                assert await ids(c) == {"of board:7", "lost"}
            await a.sync.drop("board:7")
            assert await ids(a) == {"of main"}


async def test_other_claims_are_another_part_of_a_scope_that_was_brought_along(world: World) -> None:
    def own_lane(caller: Caller) -> Condition:
        return (column("lane") == caller.claim("lane")) | (caller.claim("lane") == "all")

    async with world.open_hub(row_rules={"cards": own_lane}):
        boards = ("main", "board:7")
        async with world.open_device("writer", principal="boss", claims={"lane": "all"}, scopes=boards) as writer:
            cards = [Card(id=lane, lane=lane, board="board:7") for lane in ("todo", "done")]
            await writer.store(CARDS).insert_many(cards)
            await writer.settle()
        async with world.open_device("a", claims={"lane": "todo"}) as a, a.sync.scope("board:7"):
            await arrive(a, "board:7")
            assert await ids(a) == {"todo"}
            a.wire.claims["lane"] = "done"
            a.wire.cut()
            a.wire.repair()
            a.sync.poke()
            await a.settle()
            await arrive(a, "board:7")
            assert await ids(a) == {"done"}


async def test_a_batch_that_lacks_rows_never_calls_itself_complete(world: World) -> None:
    async with open_boards(world), world.open_device("a", idle=IdleScopes(seconds=60)) as a:
        batches: list[tuple[int, str]] = []

        async def follow() -> None:
            rows = 0
            async with a.store(CARDS).live(BOARD) as live:
                async for batch in live:
                    for change in batch.changes:
                        rows = {"Reset": len(getattr(change, "rows", ())), "Insert": rows + 1}.get(
                            type(change).__name__, rows - 1
                        )
                    batches.append((rows, batch.completeness.state))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await a.settle()
            for _ in range(3):
                await use(a, "board:7")
                await trio.sleep(200)
            nursery.cancel_scope.cancel()
        assert {(0, "partial"), (1, "complete")} <= set(batches)
        assert (0, "complete") not in batches


@pytest.mark.paths
async def test_what_nobody_has_decided_keeps_a_scope_and_history_lets_go_of_it(world: World) -> None:
    board = select(CARDS).where(col("board") == "board:7")
    async with open_boards(world) as writer, world.open_device("a", history=History()) as a:
        await a.settle()
        await a.store(CARDS).insert(Card(id="kept"))
        await a.settle()
        async with a.sync.scope("board:7"):
            await arrive(a, "board:7")
            a.wire.cut()
            await a.store(CARDS).update("of board:7", title="mine")
            await writer.store(CARDS).delete("of board:7")
            await writer.settle()
            a.wire.repair()
            a.sync.poke()
            await a.settle()
        (entry,) = await a.client.inbox.entries()
        with pytest.raises(ScopeInUse, match="inbox"):
            await a.sync.drop("board:7")
        await a.client.inbox.dismiss(entry)
        await writer.store(CARDS).insert(Card(id="secret", board="board:7"))
        await writer.settle()
        await arrive(a, "board:7")
        floor = await a.client.history.floor()
        await a.sync.drop("board:7")
        assert len(await a.client.query(board)) == 0
        assert await a.client.history.floor() == floor, "the past of the other rows is still there"
        told_of = {
            row.id
            for past in await a.client.history.commits()
            for row in (await a.client.history.changes(past.commit)).changes
        }
        assert told_of.isdisjoint({"secret", "of board:7"})
        with pytest.raises(ConflictError):
            await a.store(CARDS).insert(Card(id="kept"))


async def test_rows_of_other_scopes_are_not_read_to_take_one_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_boards(world), world.open_device("a") as a:
        await a.settle()
        await a.store(CARDS).insert_many([Card(id=str(number)) for number in range(50)])
        await a.settle()
        assert a.probe.context is not None
        database: Any = a.probe.context.require(LOCAL_DATABASE)
        read, found = database.read, list[int]()

        async def counted(query: Any) -> Any:
            answer = await read(query)
            found.append(len(answer.rows))
            return answer

        monkeypatch.setattr(database, "read", counted)
        async with a.sync.scope("board:7"):
            await arrive(a, "board:7")
        assert found and sum(found) == 0


async def test_a_program_that_has_lost_the_lead_without_knowing_still_brings_a_scope(world: World) -> None:
    async with open_boards(world), world.open_device("a") as a:
        await a.settle()
        assert a.probe.context is not None
        database: Any = a.probe.context.require(LOCAL_DATABASE)
        database.lead.term += 7  # as of a program that was stopped, and woke
        async with a.sync.scope("board:7"):
            await trio.sleep(10)
            await arrive(a, "board:7")
        await a.sync.drop("board:7")
        assert await ids(a) == {"of main"}


async def test_a_drop_that_fails_half_way_has_changed_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = Scopes.remove

    def fail(self: Scopes, scope: str) -> None:
        remove(self, scope)
        raise apsw.FullError("no space is left")

    async with open_boards(world), world.open_device("a") as a:
        await use(a, "board:7")
        with monkeypatch.context() as patch:
            patch.setattr(Scopes, "remove", fail)
            with pytest.raises(DiskFull):
                await a.sync.drop("board:7")
        assert await ids(a) == {"of main", "of board:7"}
        assert a.sync.status.scope("board:7").state == "live"
        assert await told(a) == "complete"
        await a.sync.drop("board:7")
        assert await ids(a) == {"of main"}


async def test_a_scope_that_goes_and_comes_while_another_is_agreed_on_is_fetched(world: World) -> None:
    async with open_boards(world) as writer, world.open_device("a") as a:
        await use(a, "board:7")
        a.wire.latency = lambda: 1.0
        async with a.sync.scope("board:8"):
            await trio.sleep(0.5)  # the hub is being asked for it
            await a.sync.drop("board:7")
            async with a.sync.scope("board:7"):
                with trio.fail_after(20):
                    await a.sync.pull(["board:7"])
                    await arrive(a, "board:7")
                await writer.store(CARDS).insert(Card(id="news", board="board:7"))
                await writer.settle()
                await trio.sleep(10)
                assert "news" in await ids(a), "a hint tells of it"


async def test_a_scope_that_another_program_drops_before_it_is_begun_is_let_go_of(world: World) -> None:
    """Nothing is told of it yet where it is to be begun, which was tried without an end."""
    async with open_boards(world), world.open_device("p", file="s.db") as p, world.open_device("q", file="s.db") as q:
        await trio.sleep(5)
        leads, follows = (p, q) if p.sync.status.state == "online" else (q, p)
        leads.wire.latency = lambda: 1.0
        for early_s in (0.002, 0.02, 0.04):
            asked = leads.wire.count("open")
            async with follows.sync.scope("board:7"):
                while leads.wire.count("open") == asked:
                    await trio.sleep(0.001)
                await trio.sleep(1 - early_s)  # the hub has answered, and that is on its way
            await follows.sync.drop("board:7")
            await trio.sleep(5)
            assert await ids(leads) == {"of main"}
            assert [each.scope for each in leads.sync.status.scopes] == ["main"]


BOARDS = ("main", "board:8", "board:9")


async def written_here(writer: Device, a: Device, id: str, board: str) -> None:
    """What another device writes on ``board`` is here within a moment."""
    await writer.store(CARDS).insert(Card(id=id, board=board))
    with trio.fail_after(2):
        while id not in await ids(a):
            await trio.sleep(0.05)


def refused_here(a: Device, board: str) -> str:
    error = a.sync.status.scope(board).error
    return "" if error is None else str(error.code)


async def test_one_that_is_revoked_costs_the_others_nothing_when_more_is_listened_to(world: World) -> None:
    """Hints are asked for anew, and were refused with it: the session ended, and the next one began within a minute."""
    rules = Granted()
    rules.closed = set()
    async with open_boards(world, rules=rules) as writer, world.open_device("a", scopes=BOARDS) as a:
        await a.settle()
        states = set[str]()
        a.sync.subscribe(lambda status: states.add(status.state))
        rules.closed = {"board:8"}
        async with a.sync.scope("board:7"):
            await arrive(a, "board:7")
            await written_here(writer, a, "news", "board:9")
            await written_here(writer, a, "more", "board:7")
            assert refused_here(a, "board:8") == "PERMISSION_DENIED"
            assert (states, a.wire.connects) == ({"online"}, 1)
            assert a.wire.count("notify") <= 4, "hints of the others arrive"


async def test_one_that_is_revoked_as_the_session_opens_costs_the_others_nothing(world: World) -> None:
    rules = Granted()
    rules.closed = set()

    def revoked(reply: OpenReply) -> OpenReply:
        rules.closed = {"board:8"}
        return reply

    async with open_boards(world, rules=rules) as writer, world.open_device("a", scopes=BOARDS, down=True) as a:
        a.wire.tamper["open"] = revoked
        a.wire.repair()
        a.sync.poke()
        with trio.fail_after(2):
            await a.settle()
        connects = a.wire.connects
        await written_here(writer, a, "news", "board:9")
        assert (refused_here(a, "board:8"), a.wire.connects) == ("PERMISSION_DENIED", connects)


@pytest.mark.parametrize("hurried", [False, True])
async def test_one_that_is_granted_later_comes_by_itself(world: World, hurried: bool) -> None:
    """It was asked for at openings alone: while the connection held, it stayed away."""
    rules = Granted()
    rules.closed = set()
    async with (
        open_boards(world, rules=rules) as writer,
        world.open_device("a", scopes=("main", "board:7"), down=True) as a,
    ):
        rules.closed = {"board:7"}
        a.wire.repair()
        a.sync.poke()
        await a.settle()
        assert refused_here(a, "board:7") == "PERMISSION_DENIED"
        connects = a.wire.connects
        await trio.sleep(600)
        assert a.wire.count("open") <= 14 and a.wire.count("notify") == 1, "the hub is left in peace"
        rules.closed = set()
        if hurried:
            a.sync.poke()
        with trio.fail_after(1 if hurried else 61):
            while "of board:7" not in await ids(a):
                await trio.sleep(0.1)
        assert (refused_here(a, "board:7"), a.wire.connects) == ("", connects)
        await written_here(writer, a, "news", "board:7")
