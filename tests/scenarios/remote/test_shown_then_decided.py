"""Writes that the hub decides, on a store that is cached and not synced: shown at once, then as the hub says."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atoma import col, select
from atoma.contracts.events import WriteDispatched, WriteSettled, WriteTakenBack
from atoma.errors import ClosedError, ConflictError, NotFoundError, WriteRejected, WriteUnknown

from .conftest import NOTES, Note

pytestmark = pytest.mark.virtual_time

REMOTE_POLICIES = ["direct-remote", "remote-first", "local-first-volatile", "hybrid"]


@pytest.mark.parametrize("policy", REMOTE_POLICIES)
async def test_a_write_is_shown_before_the_hub_answers_and_confirmed_after(open_remotely: Any, policy: str) -> None:
    async with open_remotely(policy) as world:
        await world.elsewhere("create", "1", text="theirs", rank=5)
        await world.store.get_all(policy="direct-remote")
        await world.elsewhere("patch", "1", rank=6)
        world.road.close()
        handle = await world.store.update("1", text="mine")
        assert handle.value == Note(id="1", text="mine", rank=5)
        assert (await world.here())["1"] == Note(id="1", text="mine", rank=5)
        assert handle.state == "undecided"
        await wait_all_tasks_blocked()
        assert handle.state == "undecided", "in no outbox, and without an answer"
        assert [step.node for step in handle.meta.path] == ["overlay"]
        assert len(await world.pending()) == 1
        world.road.gate.set()
        assert await handle.accepted() == 3
        assert handle.state == "observed"
        answered = [step.node for step in handle.meta.path if step.outcome == "ok"]
        assert "remote-memory" in answered, "the handle has the trail of how it was settled"
        assert handle.meta.source == ("remote" if answered[-1] == "remote-memory" else "local")
        assert (await world.here())["1"] == Note(id="1", text="mine", rank=6), "the authority's image"
        assert await world.here() == await world.there()
        assert await world.pending() == []


@pytest.mark.parametrize("policy", REMOTE_POLICIES)
async def test_strict_shows_nothing_before_the_hub_answers(open_remotely: Any, policy: str) -> None:
    async with open_remotely(policy) as world, trio.open_nursery() as nursery:
        world.road.close()
        done: list[Any] = []

        async def write() -> None:
            done.append(await world.store.insert(Note(id="1", text="mine"), confirm="strict"))

        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        assert await world.here() == {}
        assert done == []
        world.road.gate.set()
        await world.settled()
        await wait_all_tasks_blocked()
        assert await world.here() == await world.there() == {"1": Note(id="1", text="mine")}
        assert done[0].state == "observed"
        assert await done[0].accepted() == 1
        assert done[0].version == await world.store.version("1")
        gone = await world.store.delete("1", confirm="strict")
        assert (gone.version, await world.here()) == (0, {}), "a row that is not there has no version"


@pytest.mark.parametrize("policy", REMOTE_POLICIES)
async def test_a_later_refusal_takes_the_write_back_and_tells_it(open_remotely: Any, policy: str) -> None:
    """A35: the cache does not know the row that the hub has."""
    async with open_remotely(policy) as world:
        await world.elsewhere("create", "1", text="theirs")
        world.road.close()
        handle = await world.store.insert(Note(id="1", text="mine"))
        assert await world.here() == {"1": Note(id="1", text="mine")}
        world.road.gate.set()
        with pytest.raises(WriteRejected) as caught:
            await handle.accepted()
        assert (caught.value.reason, caught.value.store, caught.value.id) == ("CONFLICT", "notes", "1")
        assert handle.state == "rejected"
        assert await world.here() == {}
        await wait_all_tasks_blocked()
        taken = [event for event in world.probe.heard if isinstance(event, WriteTakenBack)]
        assert [(event.rows, event.code, event.policy) for event in taken] == [((("notes", "1"),), "CONFLICT", policy)]
        dispatched = [event for event in world.probe.heard if isinstance(event, WriteDispatched)]
        assert [(event.idem, event.entries[0].id) for event in dispatched] == [(taken[0].idem, "1")]


@pytest.mark.parametrize("policy", ["direct-remote", "local-first-volatile", "hybrid"])
async def test_a_failure_before_anything_was_sent_leaves_no_ghost(open_remotely: Any, policy: str) -> None:
    async with open_remotely(policy) as world:
        world.network.partition()
        handle = await world.store.insert(Note(id="1"))
        with pytest.raises(WriteRejected, match="taken back") as caught:
            await handle.accepted()
        assert caught.value.reason == "CONNECT_FAILED"
        assert await world.here() == await world.there() == {}
        assert await world.pending() == []


async def test_remote_first_stays_on_this_device_when_certainly_nothing_was_sent(open_remotely: Any) -> None:
    """A36: the fallback of a write, shown in the trail and by the state."""
    async with open_remotely("remote-first") as world:
        world.network.partition()
        handle = await world.store.insert(Note(id="1", text="here"))
        await world.settled()
        assert (handle.state, await handle.accepted()) == ("local", 0)
        assert handle.meta.source == "local"
        assert [(step.node, step.outcome) for step in handle.meta.path] == [
            ("overlay", "ok"),
            ("remote-memory", "failed"),
            ("local-write", "ok"),
        ]
        assert await world.here() == {"1": Note(id="1", text="here")}
        strict = await world.store.insert(Note(id="2"), confirm="strict")
        assert strict.meta.source == "local"
        assert [(step.node, step.outcome) for step in strict.meta.path] == [
            ("remote-memory", "failed"),
            ("local-write", "ok"),
        ]
        read = await world.store.query()
        assert read.meta.source == "local"
        assert {row.id for row in read} == {"1", "2"}


async def test_remote_first_never_hides_a_refusal_behind_the_local_answer(open_remotely: Any) -> None:
    async with open_remotely("remote-first") as world:
        await world.elsewhere("create", "1")
        with pytest.raises(ConflictError):
            await world.store.insert(Note(id="1", text="mine"), confirm="strict")
        assert await world.here() == {}


@pytest.mark.parametrize("policy", REMOTE_POLICIES)
@pytest.mark.parametrize("lost", ["reply", "request"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_lost_answer_is_asked_for_under_the_same_key_and_nothing_is_doubled(
    open_remotely: Any, policy: str, lost: str, times: int
) -> None:
    """F56, A36: shown as undecided until the truth is known, then exactly once at the hub."""
    async with open_remotely(policy) as world:
        await world.store.get_all(policy="direct-remote")  # the connection is made
        setattr(world.road, "break_replies" if lost == "reply" else "break_requests", times)
        handle = await world.store.insert(Note(id="1", text="mine"))
        await wait_all_tasks_blocked()
        assert handle.state == "undecided"
        assert (await world.here()).keys() == {"1"}
        assert len(await world.pending()) == 1
        with trio.fail_after(600):
            assert await handle.accepted() == 1, "one sequence number, however often it was sent"
        assert await world.here() == await world.there() == {"1": Note(id="1", text="mine")}
        sent = [event.idem for event in world.probe.heard if isinstance(event, WriteDispatched)]
        assert len(sent) == times + 1
        assert len(set(sent)) == 1
        unknown = [event for event in world.probe.heard if isinstance(event, WriteSettled) and event.error]
        assert {event.error for event in unknown} == {"UNKNOWN_OUTCOME"}


async def test_the_truth_of_a_lost_answer_may_be_a_refusal(open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.store.get_all()
        await world.elsewhere("create", "1", text="theirs")
        world.road.break_replies = 1
        handle = await world.store.insert(Note(id="1", text="mine"))
        with pytest.raises(WriteRejected) as caught, trio.fail_after(600):
            await handle.accepted()
        assert caught.value.reason == "CONFLICT"
        assert await world.here() == {}
        assert await world.there() == {"1": Note(id="1", text="theirs")}


async def test_what_nobody_can_find_out_is_taken_back_in_the_end(open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.store.get_all()
        world.road.break_replies = 1000
        handle = await world.store.insert(Note(id="1"))
        with pytest.raises(WriteRejected) as caught, trio.fail_after(3600):
            await handle.accepted()
        assert caught.value.reason == "UNKNOWN_OUTCOME"
        assert await world.here() == {}
        await wait_all_tasks_blocked()
        assert [event.code for event in world.probe.heard if isinstance(event, WriteTakenBack)] == ["UNKNOWN_OUTCOME"]
        world.road.break_replies = 0
        assert [note.id for note in await world.store.get_all()] == ["1"], "a read tells what became of it"


async def test_an_outage_after_a_lost_answer_does_not_make_it_local(open_remotely: Any) -> None:
    """A later try that certainly did not get through says nothing about the first one."""
    async with open_remotely("remote-first") as world:
        await world.store.get_all()
        world.road.break_replies = 1
        handle = await world.store.insert(Note(id="1"))
        await wait_all_tasks_blocked()
        world.network.partition()
        await trio.sleep(20)
        assert handle.state == "undecided"
        assert len(await world.pending()) == 1
        world.network.heal()
        with trio.fail_after(600):
            assert await handle.accepted() == 1
        assert handle.state == "observed"


async def test_no_answer_within_the_budget_is_unknown_and_then_resolved(open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.store.get_all()
        world.network.partition(silent=True)
        handle = await world.store.insert(Note(id="1"))
        await trio.sleep(45)
        assert handle.state == "undecided"
        assert (await world.here()).keys() == {"1"}
        world.network.heal()
        with trio.fail_after(900):
            assert await handle.accepted() == 1


@pytest.mark.parametrize("policy", REMOTE_POLICIES)
async def test_a_rejected_older_write_never_erases_a_newer_one(open_remotely: Any, policy: str) -> None:
    async with open_remotely(policy) as world:
        await world.elsewhere("create", "1", text="theirs", rank=5)
        world.road.close()
        older = await world.store.insert(Note(id="1", text="older"))  # the cache does not know that the id is taken
        newer = await world.store.update("1", rank=9)
        assert await world.here() == {"1": Note(id="1", text="older", rank=9)}
        world.road.gate.set()
        with pytest.raises(WriteRejected):
            await older.accepted()
        assert await newer.accepted() == 2
        assert await world.here() == await world.there() == {"1": Note(id="1", text="theirs", rank=9)}


async def test_writes_of_one_row_are_sent_in_their_order(open_remotely: Any) -> None:
    async with open_remotely() as world:
        world.road.close()
        handles = [await world.store.insert(Note(id="1"))]
        handles += [await world.store.update("1", rank=rank) for rank in range(1, 6)]
        handles.append(await world.store.delete("1"))
        handles.append(await world.store.insert(Note(id="1", text="again")))
        world.road.gate.set()
        assert [await handle.accepted() for handle in handles] == [1, 2, 3, 4, 5, 6, 0, 8]
        assert await world.here() == await world.there() == {"1": Note(id="1", text="again")}


async def test_what_this_device_cannot_predict_is_asked_first(open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.elsewhere("create", "1", text="theirs", rank=5)
        handle = await world.store.update("1", rank=6)
        assert handle.value == Note(id="1", text="theirs", rank=6)
        with pytest.raises(NotFoundError):
            await world.store.update("2", rank=6)
        with pytest.raises(ConflictError):
            await world.store.insert(Note(id="1"))
        many = await world.store.update_many({"1": {"rank": 7}, "2": {"rank": 7}})
        assert (many.status, [item.ok for item in many]) == ("partial", [True, False])
        assert await world.here() == await world.there() == {"1": Note(id="1", text="theirs", rank=7)}


@pytest.mark.paths
@pytest.mark.parametrize("policy", REMOTE_POLICIES)
async def test_versions_of_this_device_are_compared_at_the_hub(open_remotely: Any, policy: str) -> None:
    async with open_remotely(policy) as world:
        await world.store.insert(Note(id="0"), confirm="strict")
        first = await world.store.insert(Note(id="1", text="a"))
        second = await world.store.update("1", base_version=first.version, text="b")
        assert await second.accepted() == 3
        version = await world.store.version("1")
        await world.elsewhere("patch", "1", text="theirs")
        stale = await world.store.update("1", base_version=version, text="c")
        with pytest.raises(WriteRejected) as caught:
            await stale.accepted()
        assert caught.value.reason == "CONFLICT"
        with pytest.raises(ConflictError):
            await world.store.update("1", base_version=version + 1000, text="d")
        await world.store.get_all(policy="direct-remote")
        handle = await world.store.update("1", lambda note: Note(id=note.id, text=note.text + "!"))
        await handle.accepted()
        assert await world.here() == await world.there()
        assert (await world.here())["1"].text == "theirs!"


async def test_a_transaction_is_one_layer(open_remotely: Any) -> None:
    async with open_remotely("local-first-volatile") as world:
        await world.store.insert(Note(id="1"), confirm="strict")
        await world.elsewhere("create", "2", text="theirs")
        async with world.client.transaction() as tx:
            await tx.store(NOTES).update("1", text="mine")
            await tx.store(NOTES).insert(Note(id="2", text="mine"))
        assert {note.text for note in (await world.here()).values()} == {"mine"}
        assert len(await world.pending()) == 1
        await world.settled()
        assert (await world.here())["1"] == Note(id="1"), "all of it is taken back"
        assert await world.here() == await world.there()


@pytest.mark.paths
@pytest.mark.parametrize("policy", REMOTE_POLICIES)
@pytest.mark.parametrize("stale", [True, False])
async def test_what_a_transaction_read_is_compared_at_the_hub(open_remotely: Any, policy: str, stale: bool) -> None:
    async with open_remotely(policy) as world:
        await world.store.insert_many([Note(id=f"own {number}") for number in range(20)], policy="direct-local")
        await world.elsewhere("create", "1", text="theirs")
        await world.store.get_all(policy="direct-remote")  # its version here is not the one that it has there
        with suppress(*([ConflictError] if stale else [])):  # a mixed answer has no versions of here: it is asked first
            async with world.client.transaction() as tx:
                note = await tx.store(NOTES).get("1")
                if stale:
                    await world.elsewhere("patch", "1", text="moved")
                await tx.store(NOTES).insert(Note(id="2", text=f"{note.text} seen"))
        await world.settled()
        assert (await world.there()).keys() == ({"1"} if stale else {"1", "2"})
        assert ("2" in await world.here()) is not stale


@pytest.mark.paths
@pytest.mark.parametrize("refused", [True, False])
async def test_what_the_user_saw_is_compared_and_not_what_came_while_the_write_waited(
    open_remotely: Any, refused: bool
) -> None:
    """The second write waits for the first, and meanwhile a read brings a newer row than the one that it was based on."""
    async with open_remotely() as world:
        await world.elsewhere("create", "1", text="theirs")
        await world.elsewhere("create", "2", text="theirs")
        await world.store.get_all()
        world.road.break_replies = 1
        first = await world.store.update("1", text="first")
        await wait_all_tasks_blocked()  # its answer was lost, and it will be asked for again
        async with world.client.transaction(policy="local-first-volatile") as tx:
            seen = await tx.store(NOTES).get("2")
            await tx.store(NOTES).update("1", text=f"first, with {seen.text}")
        if refused:
            await world.elsewhere("patch", "2", text="moved")
        assert (await world.store.get("2")).text == ("moved" if refused else "theirs")
        assert first.state == "undecided"
        assert (await world.here())["1"].text == "first, with theirs"
        await world.settled()
        assert await world.here() == await world.there()
        assert (await world.there())["1"].text == ("first" if refused else "first, with theirs")


async def test_a_write_is_based_on_what_the_one_before_it_made(open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.elsewhere("create", "1", text="theirs")
        await world.store.get_all()
        world.road.break_replies = 1
        first = await world.store.update("1", text="first")
        second = await world.store.update("1", base_version=first.version, text="second")
        third = await world.store.update("1", base_version=second.version, rank=3)
        await wait_all_tasks_blocked()
        await world.store.get_all()  # the hub has the first one already
        for handle in (first, second, third):
            await handle.accepted()
        assert await world.here() == await world.there() == {"1": Note(id="1", text="second", rank=3)}


async def test_a_caller_cancelled_before_the_local_commit_has_written_nothing(open_remotely: Any) -> None:
    async with open_remotely() as world:
        with trio.CancelScope() as scope:
            scope.cancel()
            await world.store.insert(Note(id="1"))
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert world.probe.heard == []
        assert await world.here() == await world.there() == {}


@pytest.mark.parametrize("policy", REMOTE_POLICIES)
async def test_a_strict_write_that_is_cancelled_shows_nothing_and_blocks_nobody(
    open_remotely: Any, policy: str
) -> None:
    """A25."""
    async with open_remotely(policy) as world:
        await world.store.get_all(policy="direct-remote")
        world.road.close()
        with trio.move_on_after(1) as scope:
            await world.store.insert(Note(id="1", text="first"), confirm="strict")
        assert scope.cancelled_caught
        assert await world.here() == {}
        world.road.gate.set()
        await world.store.upsert(Note(id="1", text="second"), confirm="strict")
        assert await world.here() == await world.there() == {"1": Note(id="1", text="second")}


async def test_closing_ends_the_waiting_and_the_next_start_takes_the_undecided_back(open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.store.insert(Note(id="1", text="kept"), confirm="strict")
        await world.store.get_all()
        world.network.partition(silent=True)
        handle = await world.store.update("1", text="undecided")
        await wait_all_tasks_blocked()
    with pytest.raises(ClosedError):
        await handle.accepted()
    async with open_remotely() as world:
        assert await world.here() == {"1": Note(id="1", text="kept")}
        assert await world.pending() == []


async def test_a_strict_write_whose_answer_is_lost_says_so(open_remotely: Any) -> None:
    async with open_remotely() as world:
        await world.store.get_all()
        world.road.break_replies = 1
        with pytest.raises(WriteUnknown) as caught:
            await world.store.insert(Note(id="1"), confirm="strict")
        assert await world.here() == {}
        assert (await world.there()).keys() == {"1"}
        later = await world.store.update("1", text="later")  # it waits for the truth about the first one
        assert later.value == Note(id="1", text="later")
        assert await world.here() == await world.there() == {"1": Note(id="1", text="later")}
        settled = [event for event in world.probe.heard if isinstance(event, WriteSettled)]
        first = [event for event in settled if event.idem == caught.value.idem]
        assert [(event.status, event.error) for event in first] == [(None, "UNKNOWN_OUTCOME"), ("confirmed", "")]


@pytest.mark.parametrize("confirm", ["optimistic", "strict"])
async def test_an_answer_with_more_rows_than_a_message_holds_is_no_refusal(open_remotely: Any, confirm: str) -> None:
    ids, text = [f"{number:03}" for number in range(120)], "x" * 40_000
    async with open_remotely() as world:
        for part in (
            ids[start : start + 20] for start in range(0, len(ids), 20)
        ):  # a write may have 1 MiB, an answer more
            await world.store.insert_many([Note(id=id, text=text) for id in part], confirm="strict")
        result = await world.store.update_many({id: {"rank": 1} for id in ids}, confirm=confirm)
        await world.settled()
        assert result.status == ("undecided" if confirm == "optimistic" else "confirmed")
        assert {item.handle.state for item in result} == {"observed"}
        assert await world.here() == {id: Note(id=id, text=text, rank=1) for id in ids}
        assert await world.store.count(select(world.store.spec).where(col("rank") == 1)) == len(ids)
        same = await world.store.update_many({id: {"rank": 1} for id in ids}, confirm=confirm)
        await world.settled()
        assert {item.handle.state for item in same} == {"observed"}


@pytest.mark.paths
@pytest.mark.parametrize("policy", REMOTE_POLICIES)
async def test_two_strict_writes_on_what_both_have_seen_are_one_write_and_one_conflict(
    open_remotely: Any, policy: str
) -> None:
    """Nothing is shown of the first before its answer, so the second is not based on it, though it waits for it."""
    async with open_remotely(policy) as world:
        version = (await world.store.insert(Note(id="1", text="seen"), confirm="strict")).version
        done: dict[str, object] = {}

        async def write(text: str) -> None:
            try:
                await world.store.update("1", text=text, base_version=version, confirm="strict")
                done[text] = None
            except ConflictError as error:
                done[text] = error

        world.road.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "first")
            await wait_all_tasks_blocked()
            nursery.start_soon(write, "second")
            await wait_all_tasks_blocked()
            world.road.gate.set()
        assert done["first"] is None
        assert isinstance(done["second"], ConflictError)
        assert (await world.here())["1"].text == (await world.there())["1"].text == "first"


async def test_a_strict_write_is_based_on_what_was_shown_before_it_over_one_that_came_between(
    open_remotely: Any,
) -> None:
    async with open_remotely() as world:
        await world.elsewhere("create", "1", text="theirs")
        await world.store.get_all()
        world.road.close()
        shown = await world.store.update("1", text="shown")
        results: list[Any] = []

        async def write(**changes: Any) -> None:
            try:
                results.append(await world.store.update("1", confirm="strict", **changes))
            except ConflictError as error:
                results.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(write, base_version=shown.version + 1000, rank=1))  # a version that nobody had
            await wait_all_tasks_blocked()
            nursery.start_soon(partial(write, base_version=shown.version, rank=2))
            await wait_all_tasks_blocked()
            world.road.gate.set()
        assert [isinstance(result, ConflictError) for result in results] == [True, False]
        assert await world.here() == await world.there() == {"1": Note(id="1", text="shown", rank=2)}


@pytest.mark.parametrize("policy", REMOTE_POLICIES)
@pytest.mark.parametrize("confirm", ["optimistic", "strict"])
async def test_a_number_of_this_device_is_never_taken_for_one_of_the_hub(
    open_remotely: Any, policy: str, confirm: str
) -> None:
    """Both count from 1: a stale version here may be the number that the row has there."""
    async with open_remotely(policy) as world:
        await world.store.insert_many([Note(id=f"own {number}") for number in range(9)], policy="direct-local")
        first = await world.store.insert(Note(id="1", text="seen"), confirm="strict")
        for number in range(first.version - 2):
            await world.elsewhere("create", f"other {number}")
        second = await world.store.update("1", text="newer", confirm="strict")
        assert await second.accepted() == first.version
        with pytest.raises(ConflictError):
            await world.store.update("1", text="stale", base_version=first.version, confirm=confirm)
        with pytest.raises(ConflictError):
            await world.store.delete("1", base_version=first.version, confirm=confirm)
        transaction = world.client.transaction()
        with pytest.raises(ConflictError):
            async with transaction as tx:
                assert (await tx.store(NOTES).get("1")).text == "newer"
                await world.store.update("1", text="newest", confirm="strict")
                await tx.store(NOTES).insert(Note(id="2"))
        assert (await world.here())["1"].text == (await world.there())["1"].text == "newest"


async def test_a_version_of_a_row_that_only_the_hub_has_is_compared_there(open_remotely: Any) -> None:
    async with open_remotely("hybrid") as world:
        await world.store.insert(Note(id="1", text="cached"), confirm="strict")
        await world.elsewhere("patch", "1", text="theirs")
        page = await world.store.query(select(world.store.spec).where(col("id") == "1"))
        assert (page.meta.source, page[0].text) == ("mixed", "theirs")
        await world.elsewhere("patch", "1", text="moved")
        with pytest.raises(ConflictError):
            await world.store.update("1", text="mine", base_version=page.versions[0], confirm="strict")
        handle = await world.store.update("1", lambda note: Note(id=note.id, text=f"{note.text}, mine"))
        await handle.accepted()
        assert (await world.here())["1"].text == (await world.there())["1"].text == "moved, mine"
