"""Fields that merge by rules of their own, on devices: what is written, undone, refused, brought back after a restore."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated, Any

import msgspec
import pytest
import trio

from atoma import Excluding, Including, Increment, Schema, StoreSpec
from atoma.contracts.replica import InboxEntry
from atoma.errors import ConfigurationError, ConflictError, SchemaError, ValidationError
from atoma.hub.custom import Met
from atoma.testing.seats import Device, HubSeat
from atoma.testing.world import World, open_world
from atoma_stores.sqlite import History
from tests.scenarios.cancel.test_everywhere import CancelAt
from tests.scenarios.sync.merging import codes, same_row, write_apart

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True)
class Poll:
    id: str
    title: str = ""
    votes: int = 0
    left: Annotated[int, msgspec.Meta(ge=0)] = 3
    tags: set[str] = field(default_factory=set[str])
    best: int = 0
    body: str = ""
    note: str = ""


POLLS = StoreSpec(
    "polls",
    Poll,
    merge={
        "votes": "counter", "left": "counter", "tags": "set", "best": "max", "body": "custom", "note": "lww_hlc",
        "title": "manual",
    },
)  # fmt: skip
SCHEMA = Schema(POLLS)
DIGIT = 4
"""Increments are powers of it, so that the sum tells how often each is in it."""


def joined(met: Met) -> str:
    """Both texts, one after the other; an application's own rule."""
    if met.mine == "no":
        raise ConflictError("it is not to be")
    return f"{met.base}:{met.theirs}+{met.mine}"


CUSTOM = {"polls": {"body": joined}}
apart, same = partial(write_apart, POLLS), partial(same_row, POLLS)


@asynccontextmanager
async def opened(folder: Path, seed: int = 0) -> AsyncGenerator[tuple[World, HubSeat]]:
    async with open_world(SCHEMA, folder, seed=seed) as world, world.hub(conflicts=CUSTOM) as hub:
        yield world, hub


@asynccontextmanager
async def pair(folder: Path, **options: Any) -> AsyncGenerator[tuple[World, Device, Device]]:
    """Two devices that have the poll ``1``."""
    async with opened(folder) as (world, _), world.device("a", **options) as a, world.device("b", **options) as b:
        await a.store(POLLS).insert(Poll("1"))
        await world.settle()
        yield world, a, b


@pytest.mark.paths
async def test_counters_sets_and_maxima_merge_and_nobody_is_asked(tmp_path: Path) -> None:
    async with pair(tmp_path) as (world, a, b):
        await apart(
            world,
            (a, {"votes": Increment(2), "tags": Including("red", "new"), "best": 7}),
            (b, {"votes": Increment(-5), "tags": Including("blue"), "best": 4}),
        )
        poll = await same(a, b)
        assert (poll.votes, poll.tags, poll.best) == (-3, {"red", "new", "blue"}, 7)
        await a.store(POLLS).update("1", tags=Excluding("red", "never there"))
        await b.store(POLLS).upsert({"id": "1", "votes": Increment(10)})
        await b.store(POLLS).upsert({"id": "2", "votes": Increment(10)})
        await world.settle()
        poll = await same(a, b)
        assert (poll.votes, poll.tags) == (7, {"new", "blue"})
        made = await a.store(POLLS).get("2")
        assert made is not None and made.votes == 10
        assert await codes(a) == await codes(b) == []


async def test_a_value_that_is_written_travels_as_its_difference(tmp_path: Path) -> None:
    """By a function, as a whole row, in a transaction."""
    async with pair(tmp_path) as (world, a, b):
        for device in (a, b):
            device.unplug()
        await a.store(POLLS).update("1", lambda poll: Poll("1", votes=poll.votes + 1, tags={*poll.tags, "x"}))
        row = await b.store(POLLS).get("1")
        assert row is not None
        await b.store(POLLS).upsert(Poll("1", votes=row.votes + 20, tags={"y"}, best=3))
        async with b.client.transaction() as tx:
            await tx.store(POLLS).update("1", lambda poll: Poll("1", votes=poll.votes + 300, tags=poll.tags, best=1))
        assert await same(b) == Poll("1", votes=320, tags={"y"}, best=3)
        for device in (a, b):
            device.plug_in()
        await world.settle()
        assert await same(a, b) == Poll("1", votes=321, tags={"x", "y"}, best=3)
        assert await codes(a) == await codes(b) == []


async def test_the_undo_of_an_increment_is_the_opposite_one(tmp_path: Path) -> None:
    async with pair(tmp_path, history=History()) as (world, a, b):
        undo = a.client.undo
        with undo.group("Vote"):
            await a.store(POLLS).update("1", votes=Increment(5), tags=Including("mine"))
        await world.settle()
        await b.store(POLLS).update("1", votes=Increment(100), tags=Including("theirs"))
        a.unplug()
        await undo.undo()
        assert (await same(a)).votes == 0, "theirs has not come here yet, and is no conflict"
        a.plug_in()
        await world.settle()
        poll = await same(a, b)
        assert (poll.votes, poll.tags) == (100, {"theirs"})
        await undo.redo()
        await world.settle()
        poll = await same(a, b)
        assert (poll.votes, poll.tags) == (105, {"theirs", "mine"})
        with undo.group("Record"):
            await a.store(POLLS).update("1", best=9)
        with pytest.raises(ConflictError, match="does not go back"):
            await undo.undo()
        assert await codes(a) == await codes(b) == []


async def test_an_increment_beyond_a_bound_is_refused_and_kept_as_an_increment(tmp_path: Path) -> None:
    """Three are left; one device takes two and the other two: the second one is told, and may take them when there are more."""
    async with pair(tmp_path) as (world, a, b):
        with pytest.raises(ValidationError, match="polls/1: left after inc"):
            await a.store(POLLS).update("1", left=Increment(-4))
        with pytest.raises(ValidationError, match="beyond 64 bits"):
            await a.store(POLLS).update("1", left=Increment(2**63 - 1))
        await apart(world, (a, {"left": Increment(-2)}), (b, {"left": Increment(-2)}))
        assert (await same(a, b)).left == 1
        (entry,) = await b.client.inbox.entries()
        assert (entry.code, entry.base["left"], entry.mine["left"]) == ("INVALID", 3, 1)  # type: ignore[index]
        await a.store(POLLS).update("1", left=Increment(9))
        await world.settle()
        await b.client.inbox.keep_mine(entry)
        await world.settle()
        assert (await same(a, b)).left == 8
        assert await codes(b) == []


async def test_rules_of_fields_decide_field_by_field(tmp_path: Path) -> None:
    async with pair(tmp_path) as (world, a, b):
        await apart(world, (a, {"body": "a"}), (b, {"body": "b"}))
        assert (await same(a, b)).body == ":a+b"
        await apart(world, (a, {"body": "c"}), (b, {"body": "no", "votes": Increment(1)}))
        assert (await same(a, b)).body == "c"
        (entry,) = await b.client.inbox.entries()
        assert entry.code == "CONFLICT" and "body: it is not to be" in entry.message
        await b.client.inbox.dismiss(entry)
        assert (await same(a, b)).votes == 0, "a mutation is taken or refused as a whole"
        await apart(world, (a, {"title": "a"}), (b, {"title": "b", "best": 8}))
        assert ((await same(a, b)).title, await codes(b)) == ("a", ["CONFLICT"])


@dataclass(frozen=True)
class Call:
    id: str
    due: datetime | None = None


CALLS = StoreSpec("calls", Call, merge={"due": "custom"})


@pytest.mark.paths
async def test_a_rule_of_the_application_sees_values_and_its_mistakes_refuse_the_write(tmp_path: Path) -> None:
    first, second, third, fourth, fifth = (datetime(2030, 1, day, tzinfo=UTC) for day in range(1, 6))
    seen: list[Met] = []

    def decide(met: Met) -> object:
        seen.append(met)
        if met.mine == fourth:
            raise ValueError(met)
        return {second: met.mine, third: None}.get(met.mine, "soon")

    async with (
        open_world(Schema(CALLS), tmp_path) as world,
        world.hub(conflicts={"calls": {"due": decide}}),
        world.device("a") as a,
        world.device("b") as b,
    ):
        await a.store(CALLS).insert(Call("1"))
        await world.settle()
        decided: list[datetime | None] = []
        for mine, theirs in ((second, first), (third, fourth), (fifth, third), (fourth, fifth)):
            await write_apart(CALLS, world, (a, {"due": theirs}), (b, {"due": mine}))
            decided.append((await same_row(CALLS, a, b)).due)
        assert decided == [second, None, third, fifth]
        assert [(met.store, met.id, met.field, met.base, met.mine, met.theirs, met.row) for met in seen] == [
            ("calls", "1", "due", base, mine, theirs, Call("1", theirs))
            for base, mine, theirs in ((None, second, first), (second, third, fourth), (None, fifth, third), (third, fourth, fifth))
        ]  # fmt: skip
        failed, wrong = sorted(entry.message for entry in await b.client.inbox.entries())
        assert "failed (ValueError)" in failed and "a value that the column cannot hold" in wrong


async def test_what_was_written_later_wins_whoever_comes_first(tmp_path: Path) -> None:
    async with pair(tmp_path) as (world, a, b):
        for device in (a, b):
            device.unplug()
        await a.store(POLLS).update("1", note="earlier")
        await trio.sleep(10)
        await b.store(POLLS).update("1", note="later")
        b.plug_in()
        await world.settle()
        a.plug_in()
        await world.settle()
        assert ((await same(a, b)).note, await codes(a), await codes(b)) == ("later", ["CONFLICT"], [])
        await a.store(POLLS).update("1", note="seen, and written anew")
        await world.settle()
        assert (await same(a, b)).note == "seen, and written anew"


async def test_a_deleted_row_that_both_bring_back_has_what_each_did_to_it(tmp_path: Path) -> None:
    """Over a row that was deleted softly an upsert is an edit, and an increment that meets a deletion is kept as one."""
    spec = StoreSpec("polls", Poll, soft_delete=True, merge={"votes": "counter", "tags": "set", "best": "max"})
    async with (
        open_world(Schema(spec), tmp_path) as world,
        world.hub(),
        world.device("a") as a,
        world.device("b") as b,
    ):
        await a.store(spec).insert(Poll("1", votes=5, tags={"old"}))
        await a.store(spec).delete("1")
        await world.settle()
        for device, changes in (
            (a, {"votes": Increment(1), "tags": Including("red"), "best": 3}),
            (b, {"votes": Increment(10), "tags": Including("blue"), "best": 2}),
        ):
            device.unplug()
            await device.store(spec).upsert({"id": "1", **changes})
        assert await b.store(spec).get("1") == Poll("1", votes=15, tags={"old", "blue"}, best=2)
        for device in (a, b):
            device.plug_in()
            await world.settle()
        both = Poll("1", votes=16, tags={"old", "red", "blue"}, best=3)
        assert [await device.store(spec).get("1") for device in (a, b)] == [both, both]
        for device in (a, b):
            device.unplug()
        await a.store(spec).delete("1")
        await b.store(spec).update("1", votes=Increment(100))
        for device in (a, b):
            device.plug_in()
            await world.settle()
        assert [await device.store(spec).get("1") for device in (a, b)] == [None, None]
        (entry,) = await b.client.inbox.entries()
        assert (entry.code, await codes(a)) == ("CONFLICT", [])
        await b.client.inbox.keep_mine(entry)
        await world.settle()
        both = replace(both, votes=116)
        assert [await device.store(spec).get("1") for device in (a, b)] == [both, both]


@pytest.mark.parametrize("apply", ["merge", "replace"])
@pytest.mark.parametrize("deleted", [False, True])
async def test_a_maximum_does_not_go_back_for_who_does_not_know_the_row(
    tmp_path: Path, deleted: bool, apply: Any
) -> None:
    spec = StoreSpec("polls", Poll, soft_delete=True, merge={"best": "max"})
    async with (
        open_world(Schema(spec), tmp_path) as world,
        world.hub(),
        world.device("a") as a,
        world.device("b") as b,
    ):
        b.unplug()
        await a.store(spec).insert(Poll("1", best=7))
        if deleted:
            await a.store(spec).delete("1")
        await world.settle()
        await b.store(spec).upsert(Poll("1", best=2, title="mine"), apply=apply)
        b.plug_in()
        await world.settle()
        both = Poll("1", best=7, title="mine")
        assert [await device.store(spec).get("1") for device in (a, b)] == [both, both]


async def test_what_waits_of_an_increment_is_not_edited(tmp_path: Path) -> None:
    async with pair(tmp_path) as (_, a, _b):
        a.unplug()
        await trio.sleep(1)  # the break is noticed, else the write might be on its way already
        await a.store(POLLS).update("1", votes=Increment(5), title="t")
        (waiting,) = await a.sync.outbox.entries()
        with pytest.raises(ValidationError, match="votes merges by itself"):
            await a.sync.outbox.edit(waiting, {"votes": 7})
        await a.sync.outbox.edit(waiting, {"title": "u"})
        poll = await same(a)
        assert (poll.votes, poll.title) == (5, "u")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"title": Increment(1)}, "title is not declared as a counter"),
        ({"votes": Including("x")}, "votes is not declared as a set"),
        ({"nothing": Excluding("x")}, "nothing is not declared as a set"),
        ({"votes": Increment("1")}, "polls.votes wants int"),  # type: ignore[arg-type]
        ({"votes": Increment(None)}, "takes a number to add"),  # type: ignore[arg-type]
        ({"tags": Including(1)}, "polls.tags wants"),
    ],
)
async def test_edits_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    async with pair(tmp_path) as (_, a, _b):
        with pytest.raises(ValidationError, match=why):
            await a.store(POLLS).update("1", changes)
        assert await a.sync.outbox.entries() == []


@pytest.mark.parametrize(
    ("merge", "why"),
    [
        ({"nothing": "lww"}, "not a field"),
        ({"id": "lww"}, "it is the id"),
        ({"title": "newest"}, "merges by one of lww, lww_hlc"),
        ({"title": "counter"}, "declare int, timedelta or a Decimal"),
        ({"title": "set"}, "declare a set of text or of whole numbers"),
        ({"tags": "max"}, "does not sort"),
        (["votes"], "merge maps fields to rules"),
    ],
)
def test_rules_that_do_not_fit_are_refused(merge: Any, why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        StoreSpec("polls", Poll, merge=merge)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "polls.body has no function"),
        ({"polls": {"body": joined, "note": joined}}, "polls.note is not declared"),
        ({"polls": {"body": 1}}, "must be a function"),
        ([joined], "conflicts must be a mapping"),
    ],
)
async def test_a_hub_has_the_functions_that_stores_declare(tmp_path: Path, given: Any, why: str) -> None:
    async with open_world(SCHEMA, tmp_path) as world:
        with pytest.raises(ConfigurationError, match=why):
            async with world.hub(conflicts=given):
                pass


class LosesVerdicts:
    """Once armed: lets no verdict through, so that what the hub has decided is not known to whoever wrote it."""

    def __init__(self) -> None:
        self.armed = False
        self.lost = trio.Event()

    async def on_frame(self, direction: str, frame: bytes) -> Sequence[bytes]:
        await trio.lowlevel.checkpoint()
        if self.armed and direction == "to-client" and b"applied" in frame:
            self.lost.set()
            raise trio.BrokenResourceError
        return [frame]


@pytest.mark.parametrize(
    ("reborn", "witness_first", "renewed"),
    [
        pytest.param(False, True, False, id="goes on, offered before"),
        pytest.param(False, False, False, id="goes on, offered behind"),
        pytest.param(True, True, False, id="is reborn, offered before"),
        pytest.param(True, False, False, id="is reborn, offered behind"),
        pytest.param(False, True, True, id="goes on, offered before from an epoch that the backup does not know"),
    ],
)
async def test_an_increment_that_others_bring_back_with_the_row_is_not_counted_again(
    tmp_path: Path, reborn: bool, witness_first: bool, renewed: bool
) -> None:
    """The hub has decided it, nobody told its device, another one has pulled it; then the hub goes back to before."""
    faults = LosesVerdicts()
    async with open_world(SCHEMA, tmp_path, faults=faults) as world, world.hub(conflicts=CUSTOM) as hub:
        async with world.device("a") as a, world.device("b") as b:
            await a.store(POLLS).insert(Poll("1"))
            await world.settle()
            backup = await hub.backup()
            if renewed:
                await hub.hub.new_epoch()
                await world.settle()
            if reborn:
                await a.store(POLLS).update("1", votes=Increment(16))
                await world.settle()
            b.unplug()
            faults.armed = True
            await a.store(POLLS).update("1", votes=Increment(1))
            await faults.lost.wait()
            a.unplug()
            faults.armed = False
            b.plug_in()
            await trio.sleep(60)
            assert (await same(b)).votes == 1 + 16 * reborn
            b.unplug()
            await world.restore_hub(backup)
            for device in (b, a) if witness_first else (a, b):
                device.plug_in()
                await trio.sleep(600)
            await world.settle()
            value = digits((await same(a, b)).votes)
            assert set(value.values()) == {1}, value
            told = [code for device in (a, b) for code in await codes(device)]
            assert value == ({0: 1, 2: 1} if reborn else {0: 1})
            assert set(told) <= {"UNKNOWN_OUTCOME", "HUB_LOST_DATA"}
            assert told or not witness_first


def digits(value: int) -> dict[int, int]:
    found: dict[int, int] = {}
    place = 0
    while value:
        value, digit = divmod(value, DIGIT)
        if digit:
            found[place] = digit
        place += 1
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_after_restores_an_increment_is_in_once_or_in_sight(tmp_path: Path, seed: int) -> None:
    """Devices come and go in the middle of calls; the hub goes back to a backup, and they bring back what they have seen."""
    random = Random(seed)
    made = 0
    async with opened(tmp_path, seed) as (world, hub):
        async with world.device("a") as a, world.device("b") as b, world.device("c") as c:
            devices = [a, b, c]
            await a.store(POLLS).insert(Poll("1"))
            await world.settle()
            backup = await hub.backup()
            for step in range(24):
                device = random.choice(devices)
                await device.store(POLLS).update("1", votes=Increment(DIGIT**made))
                made += 1
                device.plug_in()
                await trio.sleep(random.choice([0, 0.0005, 0.002, 0.01, 5]))
                if random.random() < 0.7:
                    device.unplug()
                if step % 6 == 5:
                    await world.restore_hub(backup)
                    if random.random() < 0.5:
                        backup = await hub.backup()
            for device in devices:
                device.plug_in()
            await world.settle()
            value = digits((await same(a, b, c)).votes)
            assert set(value.values()) <= {1}, f"doubled: {value}"
            seen = set(value)
            for device in devices:
                for entry in await device.client.inbox.entries():
                    seen |= set(digits(int((entry.mine or {}).get("votes") or 0)))
                for row in await device.sync.lost.entries():
                    seen |= set(digits(int((row.image or {}).get("votes") or 0)))
            assert seen == set(range(made)), "lost, and nowhere in sight"


async def refused(world: World, a: Device, b: Device, word: str) -> InboxEntry:
    """What comes back to ``b`` of an increment beside a title that ``a`` has changed as well."""
    await apart(world, (a, {"title": f"a, {word}"}), (b, {"title": f"b, {word}", "votes": Increment(1)}))
    (entry,) = await b.client.inbox.entries()
    return entry


async def test_an_increment_that_is_kept_twice_counts_once(tmp_path: Path) -> None:
    """By two tabs at once, and by one that comes later with what it was shown before."""
    async with pair(tmp_path) as (world, a, b):
        inbox, entry = b.client.inbox, await refused(world, a, b, "at once")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(inbox.keep_mine, entry)
        await inbox.keep_mine(entry)
        await inbox.dismiss(entry)
        await world.settle()
        poll = await same(a, b)
        assert (poll.title, poll.votes) == ("b, at once", 1)
        assert [each.resolution for each in await inbox.entries(resolved=True)] == ["kept_mine"]
        entry = await refused(world, a, b, "dismissed")
        await inbox.dismiss(entry)
        await inbox.keep_mine(entry)
        await world.settle()
        assert (await same(a, b)).votes == 1
        (_, left) = await inbox.entries(resolved=True)
        await inbox.keep_mine(left)  # by somebody who knows that it was dismissed
        await world.settle()
        assert (await same(a, b)).votes == 2


async def test_keeping_mine_is_cancelled_anywhere_and_an_increment_counts_once(tmp_path: Path) -> None:
    async with pair(tmp_path) as (world, a, b):
        inbox, step, ended = b.client.inbox, 0, False
        while not ended:
            step += 1
            entry = await refused(world, a, b, f"{step}")
            with trio.CancelScope() as scope:
                instrument = CancelAt(step, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await inbox.keep_mine(entry)
                    ended = not scope.cancel_called
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            await inbox.keep_mine(entry)
            await world.settle()
            assert ((await same(a, b)).votes, await codes(b)) == (step, [])
        assert step > 2
