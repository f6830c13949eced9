"""Devices that take parts of a scope, in shapes with values: what is here, what is said of it, and what becomes of writes."""

from __future__ import annotations

import contextlib
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.shapes import SHAPES_MAX, read_call
from atoma.errors import ConfigurationError, RemoteError, SchemaError, ScopeNotSubscribed, ValidationError
from atoma.query import col, select
from atoma.schema import Schema, ScopePart, Shape, param
from atoma.sync import IdleScopes, ScopeInUse, Sync, TooManyScopes, requests
from tests.scenarios.sync.conftest import CARDS, MANUAL, SCHEMA, Card, Device, Note, World
from tests.scenarios.sync.kit import SEEDS, back_up, put_in

pytestmark = pytest.mark.virtual_time
IN_LANE = Shape("in_lane", CARDS, col("lane") == param("lane", str))
FROM = Shape("titled_from", CARDS, (col("title") >= param("title", str)) & (col("lane") == param("lane", str)))
NOTES = Shape("notes", MANUAL)
TODO, DONE = IN_LANE.of("main", lane="todo"), IN_LANE.of("main", lane="done")
IN_TODO = select(CARDS).where(col("board") == "main", col("lane") == "todo")


class Shaped(World):
    """A hub that gives out shapes, and devices that know them."""

    schema = Schema(*SCHEMA.stores.values(), shapes=[IN_LANE, FROM, NOTES])


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A folder for a hub and devices."""
    return Shaped(tmp_path)


async def here(device: Device) -> set[str]:
    return set(await device.rows())


async def told(device: Device, query: Any = IN_TODO) -> str:
    """How complete ``query`` is."""
    state: str = (await device.client.query(query)).meta.completeness.state
    return state


async def fill(writer: Device) -> None:
    """Two cards in each of three lanes, and a note."""
    lanes = ("todo", "doing", "done")
    await writer.store(CARDS).insert_many(
        [Card(id=f"{lane} {n}", title=f"{n}", lane=lane) for lane in lanes for n in (1, 2)]
    )
    await writer.store(MANUAL).insert(Note(id="note"))
    await writer.settle()


@pytest.mark.paths
async def test_a_part_is_here_and_follows_what_enters_it_and_what_leaves(world: World) -> None:
    async with world.open_hub(), world.open_device("writer") as writer, world.open_device("a", scopes=(TODO,)) as a:
        await fill(writer)
        await put_in(a)
        assert await here(a) == {"todo 1", "todo 2"}
        assert await a.rows(MANUAL) == {}
        assert a.wire.count("snapshot") <= 1
        await writer.store(CARDS).update("todo 1", lane="done")
        await writer.store(CARDS).update("doing 1", lane="todo", title="whole")
        await writer.store(CARDS).delete("done 2")
        await put_in(writer)
        await put_in(a)
        assert await here(a) == {"todo 2", "doing 1"}
        assert (await a.rows())["doing 1"].title == "whole"
        progress = a.sync.status.scope("main")
        assert [(part.title, part.here, part.error) for part in progress.parts] == [
            ("in_lane(lane='todo')", True, None)
        ]
        assert progress.narrowed


@pytest.mark.paths
async def test_a_write_to_a_row_that_has_left_is_kept_and_arrives(world: World) -> None:
    async with world.open_hub(), world.open_device("writer") as writer, world.open_device("a", scopes=(TODO,)) as a:
        await fill(writer)
        await put_in(a)
        a.wire.cut()
        await a.store(CARDS).update("todo 1", title="typed in the train")
        await a.store(CARDS).insert(Card(id="elsewhere", lane="done"))
        await writer.store(CARDS).update("todo 1", lane="done")
        await put_in(writer)
        await put_in(a)
        await put_in(writer)
        moved = (await writer.rows())["todo 1"]
        assert (moved.lane, moved.title) == ("done", "typed in the train")
        assert "elsewhere" in await here(writer), "what is in no shape of a device it may write all the same"
        assert await here(a) == {"todo 2"}
        assert await a.outbox() == []
        assert await a.sync.inbox.entries() == []


async def test_other_values_are_another_part_and_who_wants_all_has_all(world: World) -> None:
    async with world.open_hub(), world.open_device("writer") as writer, world.open_device("a", scopes=("other",)) as a:
        await fill(writer)
        async with a.sync.scope(TODO):
            await a.sync.pull([TODO])
            assert await here(a) == {"todo 1", "todo 2"}
            async with a.sync.scope(DONE), a.sync.scope(NOTES.of()):
                await a.sync.pull([DONE, NOTES.of()])
                assert await here(a) == {"todo 1", "todo 2", "done 1", "done 2"}
                assert set(await a.rows(MANUAL)) == {"note"}
                async with a.sync.scope("main"):
                    await a.sync.pull(["main"])
                    assert len(await here(a)) == 6
        with pytest.raises(ScopeInUse, match="names it"):
            await a.sync.drop("other")
        await a.sync.drop("main")
        assert await here(a) == set()
        assert [scope.scope for scope in a.sync.status.scopes] == ["other"]


async def test_a_window_that_moves_on_leaves_nothing(world: World) -> None:
    async with world.open_hub(), world.open_device("writer") as writer, world.open_device("a", scopes=("other",)) as a:
        await fill(writer)
        async with a.sync.scope(NOTES.of()):
            await a.sync.pull([NOTES.of()])
        for title in ("1", "2"):
            part = FROM.of("main", title=title, lane="todo")
            async with a.sync.scope(part):
                await a.sync.pull([part])
        assert await here(a) == {"todo 2"}, "of the window that moved on nothing stays"
        assert set(await a.rows(MANUAL)) == {"note"}, "what is no window ages"
        with pytest.raises(ScopeNotSubscribed):
            await a.sync.pull([TODO])
        async with a.sync.scope(TODO):
            with pytest.raises(ScopeInUse, match="somebody uses it"):
                await a.sync.drop(TODO)


async def test_parts_that_nobody_uses_age_out(world: World) -> None:
    idle = IdleScopes(seconds=600)
    async with (
        world.open_hub(),
        world.open_device("writer") as writer,
        world.open_device("a", scopes=("other", TODO), idle=idle) as a,
    ):
        await fill(writer)
        async with a.sync.scope(DONE), a.sync.scope(NOTES.of()):
            await a.sync.pull([DONE, NOTES.of()])
        await trio.sleep(500)
        assert (len(await here(a)), len(await a.rows(MANUAL))) == (4, 1), "they stay for a while"
        await trio.sleep(200)
        assert (await here(a), await a.rows(MANUAL)) == ({"todo 1", "todo 2"}, {})
        assert await told(a) == "complete"


async def test_a_scope_is_taken_in_so_many_parts_and_no_more(world: World) -> None:
    async with (
        world.open_hub(),
        world.open_device("a", scopes=("other",), down=True) as a,
        contextlib.AsyncExitStack() as stack,
    ):
        for number in range(SHAPES_MAX):
            await stack.enter_async_context(a.sync.scope(IN_LANE.of("main", lane=str(number))))
        with pytest.raises(TooManyScopes, match="32 parts of scope 'main'"):
            async with a.sync.scope(TODO):
                raise AssertionError
        assert len(a.sync.status.scope("main").parts) == SHAPES_MAX


@pytest.mark.paths
async def test_parts_that_nobody_uses_make_room_for_those_that_are_wanted(world: World) -> None:
    async with (
        world.open_hub(),
        world.open_device("writer") as writer,
        world.open_device("a", scopes=("other", TODO)) as a,
    ):
        await fill(writer)
        for shape in (partial(IN_LANE.of, "main"), partial(FROM.of, "main", title="")):
            async with contextlib.AsyncExitStack() as stack:
                for number in range(20):
                    await stack.enter_async_context(a.sync.scope(shape(lane=str(number))))
                await a.settle()
        titles = [part.title for part in a.sync.status.scope("main").parts]
        assert len(titles) == SHAPES_MAX
        assert sum("titled_from" in title for title in titles) == 20, "the longest unused have gone"
        async with a.sync.scope(DONE), a.sync.scope(NOTES.of()):
            await a.store(CARDS).insert(Card(id="new", board="other"))
            await put_in(a)
            assert await here(a) == {"todo 1", "todo 2", "done 1", "done 2", "new"}
            assert set(await a.rows(MANUAL)) == {"note"}


async def test_of_more_parts_than_a_hub_takes_the_others_go_on(world: World) -> None:
    """Two programs at one file want them, and neither could count those of the other."""
    lanes = [IN_LANE.of("main", lane=str(number)) for number in range(SHAPES_MAX + 1)]
    with pytest.raises(ConfigurationError, match="33 parts of scope 'main'"):
        Sync([CARDS], scopes=lanes)
    async with world.open_hub(), world.open_device("writer") as writer:
        await fill(writer)
        async with (
            world.open_device("a", scopes=("other", *lanes[:-1])) as a,
            world.open_device("b", file="a.db", scopes=("other",), down=True) as b,
            b.sync.scope(TODO),
        ):
            await a.store(CARDS).insert(Card(id="new", board="other"))
            with pytest.raises(RemoteError, match="more than 32 parts"):
                await put_in(a)
                await a.sync.pull([TODO])
            assert (await a.outbox(), a.sync.status.error) == ([], None)
            errors = {part.title: part.error for part in a.sync.status.scope("main").parts}
            assert errors.pop("in_lane(lane='todo')").code == "TOO_MANY_SCOPES"
            assert {*errors.values()} == {None}


async def test_shapes_that_do_not_fit_into_one_request_are_asked_for_in_several(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes = [f"s{number}" for number in range(5)]
    monkeypatch.setattr(requests, "TOLD_BYTES", 7_000)
    async with world.open_hub(), world.open_device("writer", scopes=scopes) as writer:
        for scope in scopes:
            await writer.store(CARDS).insert(Card(id=scope, board=scope, lane="x" * 2_000))
        await put_in(writer)
        async with world.open_device("a", scopes=[IN_LANE.of(scope, lane="x" * 2_000) for scope in scopes]) as a:
            await put_in(a)
            assert await here(a) == set(scopes)
            told = [request.shapes for name, request in a.wire.calls if name == "open" and request.shapes]
            assert [len(some) for some in told] == [3, 2]


async def test_what_is_complete_is_what_the_parts_take_in(world: World) -> None:
    wider, narrower = select(CARDS).where(col("board") == "main"), IN_TODO.where(col("title") > "1")
    async with world.open_hub(), world.open_device("writer") as writer, world.open_device("a", scopes=("other",)) as a:
        await fill(writer)
        assert await told(a) == "partial"
        states: list[str] = []
        async with a.client.live(IN_TODO, bring=TODO) as batches:
            with trio.fail_after(60):
                async for batch in batches:
                    states.append(batch.completeness.state)
                    if batch.completeness.state == "complete":
                        break
            assert states[0] == "partial"
            assert {card.id for card in await a.client.query(IN_TODO)} == {"todo 1", "todo 2"}
            assert [await told(a, query) for query in (IN_TODO, narrower, wider)] == ["complete", "complete", "partial"]
            notes = select(MANUAL)
            assert await told(a, notes) == "partial"
            async with a.sync.scope(NOTES.of()):
                await a.sync.pull([NOTES.of()])
                assert [await told(a, query) for query in (IN_TODO, notes, wider)] == [
                    "complete",
                    "complete",
                    "partial",
                ]
            a.wire.cut()
            await trio.sleep(30)
            assert [await told(a, query) for query in (IN_TODO, wider)] == ["stale", "partial"]


@pytest.mark.paths
async def test_the_file_knows_its_parts(world: World) -> None:
    async with world.open_hub(), world.open_device("writer") as writer:
        await fill(writer)
        async with world.open_device("a", scopes=("other",)) as a, a.sync.scope(TODO):
            await a.sync.pull([TODO])
        async with world.open_device("a", scopes=("other",), down=True) as a:
            assert await told(a) == "stale"
            await put_in(a)
            assert [await told(a), await told(a, select(CARDS).where(col("board") == "main"))] == [
                "complete",
                "partial",
            ]
            assert a.wire.count("snapshot") == 0, "nothing is fetched anew"
        async with world.open_device("a", scopes=("other", "main")) as a:
            await put_in(a)
            assert len(await here(a)) == 6, "another program wants all of it"


async def test_a_program_that_follows_has_its_part_brought_and_is_told_of_it(world: World) -> None:
    async with (
        world.open_hub(),
        world.open_device("writer") as writer,
        world.open_device("p", file="shared.db", scopes=("other",)) as p,
        world.open_device("q", file="shared.db", scopes=("other",)) as q,
    ):
        await fill(writer)
        await trio.sleep(5)
        leads, follows = (p, q) if p.sync.status.state == "online" else (q, p)
        async with leads.sync.scope(DONE), follows.sync.scope(TODO):
            await trio.sleep(5)
            assert await here(follows) == {"todo 1", "todo 2", "done 1", "done 2"}
            assert follows.wire.count("snapshot") == 0, "the other one has brought it"
            with pytest.raises(ScopeInUse, match="uses it"):
                await leads.sync.drop(TODO)
            assert all(part.here for device in (p, q) for part in device.sync.status.scope("main").parts)


async def test_a_hub_of_before_gives_out_no_part_and_nothing_is_called_complete(world: World) -> None:
    async with world.open_hub(), world.open_device("writer") as writer:
        await fill(writer)
        async with world.open_device("a", scopes=("other",), down=True) as a:
            a.wire.tamper["open"] = lambda reply: replace(reply, proto=2)
            await put_in(a)
            async with a.sync.scope(TODO):
                with pytest.raises(RemoteError, match="whole scopes only"):
                    await a.sync.pull([TODO])
                await trio.sleep(30)
                assert (await here(a), await told(a)) == (set(), "partial")
                assert all(not request.shapes for name, request in a.wire.calls if name == "open")
                assert {request.scope for name, request in a.wire.calls if name in ("pull", "snapshot")} == {"other"}


async def test_a_process_of_before_beside_others_is_asked_again(world: World) -> None:
    """It passes the shapes over: what it sends is not taken."""
    async with world.open_hub(), world.open_device("writer") as writer, world.open_device("a", scopes=(TODO,)) as a:
        await fill(writer)
        a.wire.cut()
        for method in ("pull", "snapshot"):
            a.wire.tamper[f"{method} request"] = lambda request: replace(request, shapes=())
        a.wire.repair()
        a.sync.poke()
        await trio.sleep(120)
        assert (await here(a), await told(a)) in [(set(), "partial"), (set(), "stale")]
        assert a.sync.status.scope("main").error.code == "HUB_BEHIND"
        a.wire.tamper.clear()
        await put_in(a)
        assert (await here(a), await told(a)) == ({"todo 1", "todo 2"}, "complete")


async def test_a_shape_that_the_hub_declares_otherwise_stops_alone(world: World) -> None:
    other = Shape("in_lane", CARDS, col("title") == param("lane", str))
    async with world.open_hub(), world.open_device("writer") as writer:
        await fill(writer)
        theirs = Shaped(world.folder, hub=world.hub)
        theirs.schema = Schema(*SCHEMA.stores.values(), shapes=[other, NOTES])  # type: ignore[misc]
        async with theirs.open_device("a", scopes=(NOTES.of(),)) as a, a.sync.scope(other.of("main", lane="todo")):
            with pytest.raises(RemoteError, match=r"^SHAPE_UNKNOWN: shape 'in_lane' is declared otherwise"):
                await a.sync.pull([other.of("main", lane="todo")])
            await a.settle()
            assert (await here(a), set(await a.rows(MANUAL))) == (set(), {"note"})
            errors = {part.title: part.error for part in a.sync.status.scope("main").parts}
            assert errors.pop("notes()") is None
            assert [(error.code, error.message[:15]) for error in errors.values()] == [
                ("SHAPE_UNKNOWN", "shape 'in_lane'")
            ]
            assert [await told(a, select(MANUAL)), await told(a)] == ["complete", "partial"]


@pytest.mark.paths
async def test_what_is_written_is_pushed_where_nothing_is_given_out(world: World) -> None:
    """By a hub of before, and by one that does not know the shape; of its own accord, and when it is asked to."""
    other = Shape("other", CARDS)
    async with world.open_hub(), world.open_device("writer") as writer:
        await fill(writer)
        async with world.open_device("a", scopes=(TODO,), down=True) as a:
            a.wire.tamper["open"] = lambda reply: replace(reply, proto=2)
            a.wire.repair()
            await a.store(CARDS).insert(Card(id="of a", lane="todo"))
            await put_in(a)
            assert (a.wire.count("push"), await told(a)) == (1, "partial")
        theirs = Shaped(world.folder, hub=world.hub)
        theirs.schema = Schema(*SCHEMA.stores.values(), shapes=[other])  # type: ignore[misc]
        async with theirs.open_device("b", scopes=(other.of("main"),), mode="manual") as b:
            await b.store(CARDS).insert(Card(id="of b", lane="todo"))
            with pytest.raises(RemoteError, match="no shape 'other'"):
                await b.sync.sync_once()
            assert b.wire.count("push") == 1
        await put_in(writer)
        assert {"of a", "of b"} <= await here(writer)


async def test_what_fits_nothing_is_said_before_anything_is_sent(world: World) -> None:
    with pytest.raises(SchemaError, match="parameters lane"):
        IN_LANE.of("main")
    with pytest.raises(ValidationError, match="lane wants str"):
        IN_LANE.of("main", lane=1)
    with pytest.raises(SchemaError, match="no name of a scope"):
        IN_LANE.of(lane="todo")
    async with world.open_hub(), world.open_device("a") as a:
        with pytest.raises(SchemaError, match="does not declare shape 'other'"):
            async with a.sync.scope(Shape("other", CARDS).of("main")):
                raise AssertionError


@pytest.mark.parametrize("whole_first", [True, False])
async def test_a_restored_hub_gets_back_the_parts_that_devices_have(world: World, whole_first: bool) -> None:
    """What a device has in a part it brings back; that it has nothing else says nothing."""
    async with world.open_hub(), world.open_device("writer") as writer, world.open_device("a", scopes=(TODO,)) as a:
        await fill(writer)
        await put_in(a)
    back_up(world)
    async with world.open_hub(), world.open_device("writer") as writer:
        await writer.store(CARDS).update("todo 2", lane="done")
        await writer.store(CARDS).insert(Card(id="other", lane="doing"))
        await writer.settle()
    async with world.open_hub(), world.open_device("broken") as broken, world.open_device("a", scopes=(TODO,)) as a:
        await broken.settle()
        await broken.store(CARDS).update("todo 1", title="lost")
        await broken.store(CARDS).insert(Card(id="new", lane="todo"))
        await broken.settle()
        await put_in(a)
        assert await here(a) == {"todo 1", "new"}
    shutil.copy(world.folder / "backup.db", world.folder / "hub.db")
    async with world.open_hub() as hub:
        await hub.new_epoch()
        for ended in await hub.epochs():
            await hub.allow_deletes(ended.epoch)
        for name in ("writer", "a") if whole_first else ("a", "writer"):
            async with world.open_device(name, scopes=("main",) if name == "writer" else (TODO,)) as device:
                await put_in(device)
                if name == "a" and not whole_first:
                    assert await here(device) == {"todo 1", "todo 2", "new"}, "it cannot tell that a row was moved away"
        async with world.open_device("c") as c:
            await put_in(c)
            rows = {id: (card.title, card.lane) for id, card in (await c.rows()).items()}
            assert rows == {
                "todo 1": ("lost", "todo"),
                "todo 2": ("2", "done"),
                "doing 1": ("1", "doing"),
                "doing 2": ("2", "doing"),
                "done 1": ("1", "done"),
                "done 2": ("2", "done"),
                "new": ("", "todo"),
                "other": ("", "doing"),
            }


def is_in(name: str, values: dict[str, Any], card: Card) -> bool:
    """What the shapes say, in words of the test's own."""
    return card.lane == values["lane"] and (name == "in_lane" or card.title >= values["title"])


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_any_history_what_is_here_is_what_the_hub_has_of_the_parts(world: World, seed: int) -> None:
    draw, lanes = random.Random(seed), ("todo", "doing", "done")
    async with (
        world.open_hub() as hub,
        world.open_device("writer") as writer,
        world.open_device("a", scopes=("other",)) as a,
        trio.open_nursery() as nursery,
    ):
        wanted: dict[ScopePart | str, trio.Event] = {}

        async def hold(part: ScopePart | str, until: trio.Event, *, task_status: Any) -> None:
            async with a.sync.scope(part):
                task_status.started()
                await until.wait()
            ended.set()

        ended = trio.Event()
        for _ in range(60):
            device = draw.choice((a, writer, writer))
            match draw.randrange(8):
                case 0 | 1 | 2:
                    card = Card(id=f"c{draw.randrange(12)}", title=str(draw.randrange(10)), lane=draw.choice(lanes))
                    await device.store(CARDS).upsert(card) if device is writer or wanted else None
                case 3:
                    found = sorted(await device.rows())
                    if found:
                        await device.store(CARDS).delete(draw.choice(found))
                case 4:
                    drawn = (
                        IN_LANE.of("main", lane=draw.choice(lanes)),
                        FROM.of("main", title="5", lane=draw.choice(lanes)),
                        "main",
                    )
                    part = draw.choice((*drawn[:2], *drawn))
                    if part not in wanted:
                        wanted[part] = trio.Event()
                        await nursery.start(hold, part, wanted[part])
                case 5 if wanted:
                    ended = trio.Event()
                    wanted.pop(draw.choice(list(wanted))).set()
                    await ended.wait()
                case 6:
                    a.wire.cut() if draw.random() < 0.5 else a.wire.repair()
                case _:
                    await trio.sleep(draw.choice((0, 0, 0.3, 5)))
                    if draw.random() < 0.2:
                        await hub.compact(keep=draw.choice((0, 3)), force=True)
        await put_in(writer)
        if not wanted:
            wanted[TODO] = trio.Event()
            await nursery.start(hold, TODO, wanted[TODO])
        await put_in(a)
        await put_in(writer)
        await put_in(a)
        truth, here_now = await writer.rows(), await a.rows()
        progress = a.sync.status.scope("main")
        assert not (progress.narrowed and "main" in wanted)
        parts = [read_call(part.shape) for part in progress.parts]
        named = {(part.shape.name, part.values) for part in wanted if isinstance(part, ScopePart)}
        assert named <= {(call.name, call.values) for call in parts}
        asked = [(call.name, dict(call.values)) for call in parts]
        if progress.narrowed:
            truth = {id: card for id, card in truth.items() if any(is_in(*one, card) for one in asked)}
        assert here_now == truth
        for part in wanted:
            if isinstance(part, ScopePart) and part.shape is IN_LANE:
                query = select(CARDS).where(col("board") == "main", col("lane") == dict(part.values)["lane"])
                assert await told(a, query) == "complete"
        for until in wanted.values():
            until.set()
