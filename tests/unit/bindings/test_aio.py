"""The client under asyncio: as an asyncio program expects it, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

import pytest
import trio
from outcome import Outcome

from atoma import Plugin, Reset, col, open_client, select
from atoma.bindings import aio, blocking
from atoma.errors import ClosedError, ConflictError, NotEntered, NotFoundError, TopologyError, UnknownPolicy, WrongLoop
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History, SQLiteEngine
from tests.unit.bindings.kit import (
    NOTES,
    SCHEMA,
    SLOW,
    Failing,
    Note,
    Slow,
    Stuck,
    local,
    loops,
    running_hub,
    synced,
    under_asyncio,
)


def test_stores_transactions_and_live_queries_work_as_in_trio(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=local(tmp_path / "a.db")) as client:
            notes = client.store(NOTES)
            async with notes.live(select(NOTES).order_by("text")) as batches:
                assert (await anext(batches)).changes == (Reset(()),)
                handle = await notes.insert(Note(id="1", text="a"))
                assert (handle.id, handle.state, handle.value) == ("1", "local", Note(id="1", text="a"))
                assert [type(change).__name__ for change in (await anext(batches)).changes] == ["Insert"]
            many = await notes.insert_many([Note(id="1"), Note(id="2", text="b")])
            assert [(item.id, item.ok) for item in many] == [("1", False), ("2", True)]
            assert isinstance(many.failed[0].error, ConflictError)
            assert many.items[1].handle is not None
            assert many.items[1].handle.version == 2
            async with client.transaction() as tx:
                tx.durability = "full"
                await tx.store(NOTES).update("1", lambda note: Note(id="1", text=note.text + "!"))
                with pytest.raises(LookupError, match="taken back"):
                    async with tx.savepoint() as part:
                        await part.store(NOTES).delete("2")
                        raise LookupError("taken back")
            page = await client.query(select(NOTES).where(col("text") >= "a").order_by("text"))
            assert [note.text for note in page] == ["a!", "b"]
            assert (await client.explain(select(NOTES))).hub == "ok"
            assert "local-query" in await client.explain("direct-local")
            assert (await client.topology()).default == "direct-local"

    under_asyncio(main)
    assert loops() == []


def test_a_synced_client_syncs_and_tells_its_status(tmp_path: Path) -> None:
    async def main(address: str) -> None:
        async with (
            aio.open_client(SCHEMA, plugins=synced(address)) as ada,
            aio.open_client(SCHEMA, plugins=synced(address)) as bob,
        ):
            heard: list[str] = []
            undo = await ada.sync.subscribe(lambda status: heard.append(threading.current_thread().name))
            handle = await ada.store(NOTES).insert(Note(id="1", text="tea"))
            assert await handle.accepted() == 1
            assert handle.state in ("accepted", "observed")
            await bob.sync.wait_idle()
            await bob.sync.pause()
            await ada.store(NOTES).update("1", text="green tea")
            await ada.sync.wait_idle()
            await bob.store(NOTES).update("1", text="coffee")
            await bob.sync.resume()
            await bob.sync.wait_idle()
            (entry,) = await bob.inbox.entries()
            assert (entry.mine or {})["text"] == "coffee"
            await bob.inbox.keep_mine(entry)
            await bob.sync.wait_idle()
            await ada.sync.wait_idle()
            assert await ada.store(NOTES).get("1") == Note(id="1", text="coffee")
            async with ada.sync.watch() as statuses:
                assert (await anext(statuses)).state == ada.sync.status.state == "online"
            undo()
            assert set(heard) == {threading.current_thread().name}
            assert await ada.sync.lost.entries() == []

    with running_hub(tmp_path) as address:
        under_asyncio(lambda: main(address))


def test_the_states_of_a_write_are_iterated_and_observed(tmp_path: Path) -> None:
    told: list[str] = []

    async def main(address: str) -> None:
        async with aio.open_client(SCHEMA, plugins=synced(address)) as client:
            done = asyncio.Event()
            handle = await client.store(NOTES).insert(Note(id="1"))
            (await client.handle(handle.key)).states.subscribe(told.append, on_completed=done.set)
            assert [state async for state in handle.states][-1] == "observed"
            await done.wait()

    with running_hub(tmp_path) as address:
        under_asyncio(lambda: main(address))
    assert told[-1] == "observed"


def test_a_group_is_undone_and_the_past_is_read() -> None:
    async def main() -> None:
        plugins = [LocalExecution(SQLiteEngine(":memory:", history=History()))]
        async with aio.open_client(SCHEMA, plugins=plugins) as client:
            notes = client.store(NOTES)
            await notes.insert(Note(id="1", text="old"))
            with client.undo.group("Rewrite"):
                await asyncio.gather(notes.update("1", text="new"), notes.insert(Note(id="2")))
            newest = (await client.history.commits())[0].commit
            assert [step.label for step in await client.undo.steps()] == ["Rewrite"]
            assert await client.undo.undo() is not None
            assert list(await notes.query()) == [Note(id="1", text="old")]
            assert len(await client.history.at(newest).query(select(NOTES))) == 2

    under_asyncio(main)


def test_errors_are_ours_and_no_groups() -> None:
    async def main() -> None:
        with pytest.raises(TopologyError):
            async with aio.open_client(SCHEMA, plugins=synced("127.0.0.1:9")[1:]):
                pytest.fail("it must not open")
        async with aio.open_client(SCHEMA, plugins=local()) as client:
            with pytest.raises(NotFoundError):
                await client.store(NOTES).update("1", text="x")
            with pytest.raises(UnknownPolicy):
                await client.store(NOTES).get("1", policy="none")

    under_asyncio(main)
    assert loops() == []


def test_cancelling_a_task_cancels_the_call_and_waits_for_its_end() -> None:
    slow = Slow()

    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=[*local(), slow]) as client:
            task = asyncio.create_task(client.store(NOTES).query(policy=SLOW))
            await asyncio.to_thread(slow.begun.wait)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()  # a second one changes nothing
            with pytest.raises(asyncio.CancelledError):
                await task
            assert slow.ended == 1, "the task went on before the call had cleaned up"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.store(NOTES).query(policy=SLOW)
            assert slow.ended == 2

    under_asyncio(main)


def test_a_cancelled_wait_for_a_batch_loses_nothing() -> None:
    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=local()) as client:
            async with client.store(NOTES).live() as batches:
                await anext(batches)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(batches), 0.01)
                await client.store(NOTES).insert(Note(id="1"))
                assert (await anext(batches)).commit == 1

    under_asyncio(main)


def test_a_client_closed_in_mid_call_ends_the_call() -> None:
    slow = Slow()

    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=[*local(), slow]) as client:
            task = asyncio.create_task(client.store(NOTES).query(policy=SLOW))
            batches = client.store(NOTES).live()
            await anext(await batches.__aenter__())
            await asyncio.to_thread(slow.begun.wait)
        with pytest.raises(ClosedError, match="while a call was under way"):
            await task
        await batches.__aexit__(None, None, None)
        with pytest.raises(ClosedError, match="the client is closed"):
            await client.store(NOTES).get("1")

    under_asyncio(main)
    assert (slow.ended, loops()) == (1, [])


def test_cancelling_while_it_opens_leaves_nothing() -> None:
    stuck = Stuck()

    async def opening() -> None:
        async with aio.open_client(SCHEMA, plugins=[*local(), stuck]):
            pytest.fail("it must not open")

    async def main() -> None:
        task = asyncio.create_task(opening())
        await asyncio.to_thread(stuck.opening.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    under_asyncio(main)
    assert loops() == []


def test_a_client_that_fails_says_why_where_it_is_left() -> None:
    failing, slow = Failing(), Slow()

    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=[*local(), slow, failing]) as client:
            task = asyncio.create_task(client.store(NOTES).query(policy=SLOW))
            await asyncio.to_thread(slow.begun.wait)
            failing.fail.set()
            with pytest.raises(ClosedError):
                await task

    with pytest.raises(LookupError, match="the plugin has failed"):
        under_asyncio(main)
    assert loops() == []


@pytest.mark.parametrize("leave", ["close", "drop"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_dies_takes_its_client_with_it(tmp_path: Path, leave: str) -> None:
    async def enter() -> object:
        lifetime = aio.open_client(SCHEMA, plugins=local(tmp_path / "a.db"))
        client = await lifetime.__aenter__()
        await client.store(NOTES).insert(Note())
        return lifetime, client

    def program() -> object:
        loop = asyncio.new_event_loop()
        held = loop.run_until_complete(enter())
        loop.close()
        return held if leave == "close" else None

    held: list[object] = []
    thread = threading.Thread(target=lambda: held.append(program()))
    thread.start()
    thread.join()
    gc.collect()
    (thread,) = loops() or [threading.current_thread()]
    if thread is not threading.current_thread():
        thread.join(10)
    assert loops() == []
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith("-wal")] == [], "the file was not closed"


def test_context_variables_reach_the_call() -> None:
    name: ContextVar[str] = ContextVar("name", default="nobody")
    seen: list[str] = []

    def look(note: Note) -> Note:
        seen.append(name.get())
        return note

    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=local()) as client:
            await client.store(NOTES).insert(Note(id="1"))
            name.set("ada")
            await client.store(NOTES).update("1", look)

    under_asyncio(main)
    assert seen == ["ada"]


def test_a_client_serves_every_loop_of_the_process_and_stands_beside_a_blocking_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=local(tmp_path / "a.db")) as client:
            with blocking.open_client(SCHEMA, plugins=local(tmp_path / "b.db")) as other:

                def from_another_loop() -> None:
                    asyncio.run(client.store(NOTES).insert(Note(id="1")))

                await asyncio.to_thread(from_another_loop)
                await asyncio.to_thread(other.store(NOTES).insert, Note(id="2"))
                assert await client.store(NOTES).count() == other.store(NOTES).count() == 1

    under_asyncio(main)


def test_an_observable_emits_on_the_loop_and_completes_with_the_client() -> None:
    told: list[object] = []

    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=local()) as client:
            notes = client.store(NOTES)
            seen, completed = asyncio.Event(), asyncio.Event()

            def take(rows: tuple[Note, ...]) -> None:
                told.append((len(rows), threading.current_thread() is here))
                if rows:
                    seen.set()

            here = threading.current_thread()
            notes.observe().subscribe(take, on_completed=completed.set)
            disposed = notes.observe().subscribe(lambda rows: told.append("disposed"))
            disposed.dispose()
            await asyncio.sleep(0.05)
            await notes.insert(Note())
            await seen.wait()
        await completed.wait()

    under_asyncio(main)
    assert told == [(0, True), (1, True)]


def test_a_listener_hears_events_in_order_on_its_loop(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=local()) as client:
            finished = asyncio.Event()

            def listen(event: object) -> None:
                heard.append(type(event).__name__)
                if type(event).__name__ == "QueryFinished":
                    finished.set()
                raise LookupError("a listener that fails harms nobody")

            undo = await client.listen(listen)
            await client.store(NOTES).get("1")
            await finished.wait()
            undo()
            await client.store(NOTES).get("1")

    under_asyncio(main)
    assert heard == ["StepStarted", "StepFinished", "QueryFinished"]
    assert "a listener failed" in caplog.text


async def test_a_trio_loop_is_told_of_the_native_client() -> None:
    with pytest.raises(WrongLoop, match=r"needs an asyncio loop.*another Trio loop.*atoma\.open_client"):
        async with aio.open_client(SCHEMA, plugins=local()):
            pytest.fail("it must not open")
    await trio.lowlevel.checkpoint()


def test_where_trio_is_a_guest_of_asyncio_each_side_has_its_own_door() -> None:
    told: list[str] = []

    async def guest() -> None:
        with pytest.raises(WrongLoop, match=r"another Trio loop.*atoma\.open_client"):
            async with aio.open_client(SCHEMA, plugins=local()):
                pytest.fail("it must not open")
        async with open_client(SCHEMA, plugins=local()) as client:
            told.append(f"guest: {await client.store(NOTES).count()}")
            await end.wait()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left: asyncio.Future[Outcome[None]] = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=left.set_result
        )
        async with aio.open_client(SCHEMA, plugins=local()) as client:
            told.append(f"host: {await client.store(NOTES).count()}")
        with pytest.raises(WrongLoop, match=r"an asyncio loop.*atoma\.bindings\.aio"):
            async with open_client(SCHEMA, plugins=local()):
                pytest.fail("it must not open")
        end.set()
        (await left).unwrap()

    end = trio.Event()
    under_asyncio(main)
    assert sorted(told) == ["guest: 0", "host: 0"]


def test_code_without_a_loop_is_told_of_blocking_calls() -> None:
    opening = aio.open_client(SCHEMA, plugins=local()).__aenter__()
    with ThreadPoolExecutor(1) as pool, pytest.raises(WrongLoop, match=r"no loop at all.*atoma\.bindings\.blocking"):
        pool.submit(opening.send, None).result()  # in a thread: a driver of browsers may have left a loop in this one


def test_a_client_that_is_not_entered_says_how() -> None:
    async def main() -> None:
        lifetime = aio.open_client(SCHEMA, plugins=local())
        with pytest.raises(NotEntered, match=r"async with open_client\(…\) as it"):
            lifetime.store(NOTES)
        with pytest.raises(NotEntered, match="not awaited"):
            await lifetime
        with pytest.raises(NotEntered, match="plain `with`"):
            with lifetime:
                pass

    under_asyncio(main)


@pytest.mark.xdist_group("machine")
def test_a_slow_loop_is_never_blocked_by_a_call() -> None:
    slow = Slow()

    async def main() -> float:
        plugins: list[Plugin] = [*local(), slow]
        async with aio.open_client(SCHEMA, plugins=plugins) as client:
            task = asyncio.create_task(client.store(NOTES).query(policy=SLOW))
            await asyncio.to_thread(slow.begun.wait)
            started = time.monotonic()
            await client.store(NOTES).insert(Note())
            task.cancel()
            await asyncio.wait([task])
            return time.monotonic() - started

    assert under_asyncio(main) < 5
