"""Parts of scopes where the hub was restored, or exchanged, and does not give them out any more; and parts in which something waits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.sync import OpenReply, PullRequest, ShapeRefusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import RemoteError
from atoma.ports.service import Principal
from atoma.query import col
from atoma.query.shapes import Shapes
from atoma.schema import Schema, ScopePart, Shape, param
from atoma.sync import IdleScopes, ScopeInUse
from tests.scenarios.sync.conftest import CARDS, MANUAL, SCHEMA, Card, Note, World
from tests.scenarios.sync.kit import copy_file, put_in

pytestmark = pytest.mark.virtual_time
IN_LANE = Shape("in_lane", CARDS, col("lane") == param("lane", str))
NOTES = Shape("notes", MANUAL)
TODO, DONE = IN_LANE.of("main", lane="todo"), IN_LANE.of("main", lane="done")


class Shaped(World):
    """A hub that gives out shapes, and devices that know them."""

    schema = Schema(*SCHEMA.stores.values(), shapes=[IN_LANE, NOTES])


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A folder for a hub and devices."""
    return Shaped(tmp_path)


@pytest.mark.paths
@pytest.mark.parametrize("scopes", [("other", TODO), (TODO,)])
async def test_a_restored_hub_without_the_shape_stops_its_scope_alone_and_nothing_of_it_is_lost(
    world: World, scopes: Sequence[str | ScopePart]
) -> None:
    """Until a hub comes back that gives it out, and is offered what the restored one has lost."""
    async with world.open_hub(), world.open_device("writer") as writer:
        await writer.store(CARDS).insert_many([Card(id=name, title=name) for name in ("one", "two")])
        await put_in(writer)
        async with world.open_device("a", scopes=scopes) as a:
            await put_in(a)
    copy_file(world, "hub", "backup")
    async with world.open_hub(), world.open_device("writer") as writer, world.open_device("a", scopes=scopes) as a:
        await writer.store(CARDS).update("one", title="later")
        await writer.store(CARDS).insert(Card(id="three"))
        await put_in(writer)
        await a.store(CARDS).insert(Card(id="of a"))
        if "other" in scopes:
            await a.store(CARDS).insert(Card(id="of other", board="other"))
        await put_in(a)
    copy_file(world, "backup", "hub")
    bare = World(world.folder)
    async with bare.open_hub() as hub:
        world.hub = hub
        async with world.open_device("a", scopes=scopes) as a:
            if "other" in scopes:
                await a.store(CARDS).insert(Card(id="new", board="other"))
            await a.store(CARDS).update("two", title="mine")
            await put_in(a)
            assert a.sync.status.scope("main").error.code == "SHAPE_UNKNOWN"
            assert a.sync.status.error is None
            assert len(await a.sync.repairs()) == 1
            rows = {id: card.title for id, card in (await a.rows()).items() if card.board == "main"}
            assert rows == {"one": "later", "two": "mine", "three": "", "of a": ""}, "all is as it was"
        async with bare.open_device("c", scopes=("main", "other")) as c:
            await put_in(c)
            elsewhere = {"new", "of other"} if "other" in scopes else set()
            assert {id for id, card in (await c.rows()).items() if card.board == "other"} == elsewhere
            assert set(await c.rows()) - elsewhere == {"one", "two"}, "what is not taken is not offered either"
            assert (await c.rows())["two"].title == "mine"
            await c.store(CARDS).update("two", title="of c")
            await put_in(c)
    async with world.open_hub(), world.open_device("a", scopes=scopes) as a, world.open_device("b") as b:
        await put_in(a)
        await put_in(b)
        for device in (a, b):
            rows = {id: card.title for id, card in (await device.rows()).items() if card.board == "main"}
            assert rows == {"one": "later", "two": "of c", "three": "", "of a": ""}
        assert await a.outbox() == []
        assert await a.sync.inbox.entries() == []


@pytest.mark.paths
async def test_what_a_restored_hub_has_lost_does_not_age_out_before_it_can_be_offered(world: World) -> None:
    async with world.open_hub(), world.open_device("a", scopes=("other",)) as a, a.sync.scope(TODO):
        copy_file(world, "hub", "backup")
        await a.store(CARDS).insert(Card(id="lost"))
        await put_in(a)
    copy_file(world, "backup", "hub")
    bare = World(world.folder)
    async with bare.open_hub() as hub:
        world.hub = hub
        async with world.open_device("a", scopes=("other",), idle=IdleScopes(seconds=600)) as a:
            await trio.sleep(3600)
            assert set(await a.rows()) == {"lost"}
    async with world.open_hub(), world.open_device("a", scopes=("other",)) as a, world.open_device("b") as b:
        await put_in(a)
        await put_in(b)
        assert set(await b.rows()) == {"lost"}


async def test_a_shape_that_is_given_out_no_more_while_a_session_is_open_stops_alone(world: World) -> None:
    """The process of the hub was exchanged behind a proxy: one of the parts is refused where rows are asked for."""
    notes = Shapes(world.schema).call(NOTES.of())
    refusal = ShapeRefusal(notes, ErrorInfo("SHAPE_UNKNOWN", "there is no shape 'notes'"))

    def refuse(request: PullRequest) -> PullRequest:
        if notes in request.shapes:
            raise RemoteError("there is no shape 'notes'", remote_code="SHAPE_UNKNOWN")
        return request

    def say(reply: OpenReply) -> OpenReply:
        return replace(reply, scopes=tuple(replace(status, refused=(refusal,)) for status in reply.scopes))

    async with world.open_hub(), world.open_device("writer") as writer:
        async with world.open_device("a", scopes=(TODO, NOTES.of())) as a:
            await put_in(a)
            a.wire.tamper = {"pull request": refuse, "snapshot request": refuse, "open": say}
            await writer.store(CARDS).insert(Card(id="late"))
            await trio.sleep(120)
            assert set(await a.rows()) == {"late"}
            progress = a.sync.status.scope("main")
            assert {part.title: part.error and part.error.code for part in progress.parts} == {
                "in_lane(lane='todo')": None,
                "notes()": "SHAPE_UNKNOWN",
            }
            assert (progress.error, a.wire.connects, a.wire.count("open")) == (None, 1, 3)


@pytest.mark.paths
async def test_a_part_is_not_dropped_while_something_waits_in_one_of_its_rows(world: World) -> None:
    async with (
        world.open_hub(),
        world.open_device("writer") as writer,
        world.open_device("a", scopes=("other", TODO)) as a,
    ):
        await writer.store(MANUAL).insert(Note(id="note"))
        await put_in(writer)
        async with a.sync.scope(NOTES.of()):
            await put_in(a)
            a.wire.cut()
            await a.store(MANUAL).update("note", text="mine")
        with pytest.raises(ScopeInUse, match="writes wait"):
            await a.sync.drop(NOTES.of())
        await writer.store(MANUAL).update("note", text="theirs")
        await put_in(writer)
        await put_in(a)
        with pytest.raises(ScopeInUse, match="inbox"):
            await a.sync.drop(NOTES.of())
        async with a.sync.scope(DONE):
            pass
        await a.sync.drop(DONE)
        (entry,) = await a.sync.inbox.entries()
        await a.sync.inbox.dismiss(entry)
        await a.sync.drop(NOTES.of())
        await put_in(a)
        assert await a.rows(MANUAL) == {}


class Granted:
    """Everybody may use every scope that has not been closed."""

    def __init__(self) -> None:
        self.closed: set[str] = set()

    def scope_access(self, principal: Principal, scope: str) -> str:
        return "none" if scope in self.closed and principal.subject != "boss" else "write"


async def test_a_scope_that_was_refused_and_is_given_in_other_shapes_is_asked_for_no_more(world: World) -> None:
    """It was let go of at once and agreed on anew: what waited to ask again was woken by what was to be pulled."""
    rules = Granted()
    async with world.open_hub(rules=rules), world.open_device("writer", principal="boss") as writer:
        await writer.store(CARDS).insert_many([Card(id=lane, lane=lane) for lane in ("todo", "done")])
        await put_in(writer)
        async with world.open_device("a", scopes=("other", TODO)) as a:
            async with a.sync.scope(DONE):
                await put_in(a)
            a.wire.cut()
            rules.closed = {"main"}
            a.wire.repair()
            await put_in(a)
            assert a.sync.status.scope("main").error.code == "PERMISSION_DENIED"
            rules.closed = set()
            asked = a.wire.count("open")
            await a.sync.drop(DONE)
            await trio.sleep(300)
            assert (set(await a.rows()), a.sync.status.scope("main").error) == ({"todo"}, None)
            assert a.wire.count("open") == asked + 1
            await writer.store(CARDS).insert(Card(id="news"))
            await put_in(writer)
            await trio.sleep(1)
            assert set(await a.rows()) == {"todo", "news"}
