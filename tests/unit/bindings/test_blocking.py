"""The client for code without a loop: plain calls from any thread, and nothing is left behind."""

from __future__ import annotations

import gc
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from atoma import Client, Reset, col, open_client, select
from atoma.bindings import blocking
from atoma.bindings.blocking import host
from atoma.bindings.delivery import QUEUE_LIMIT, Delivery
from atoma.errors import ClosedError, ConflictError, NotEntered, NotFoundError, StoreError, WrongLoop
from atoma.ports.loops import Lifetime
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History, SQLiteEngine
from tests.unit.bindings.kit import NOTES, SCHEMA, SLOW, Failing, Note, Slow, local, loops, running_hub, synced


def test_stores_transactions_and_live_queries_work_without_await(tmp_path: Path) -> None:
    with blocking.open_client(SCHEMA, plugins=local(tmp_path / "a.db")) as client:
        notes = client.store(NOTES)
        with notes.live(select(NOTES).order_by("text")) as batches:
            assert next(batches).changes == (Reset(()),)
            assert notes.insert(Note(id="1", text="a")).value == Note(id="1", text="a")
            for batch in batches:
                assert [type(change).__name__ for change in batch.changes] == ["Insert"]
                break
        many = notes.insert_many([Note(id="1"), Note(id="2", text="b")])
        with pytest.raises(ConflictError):
            many.raise_for_errors()
        with client.transaction() as tx:
            tx.store(NOTES).update("1", text="a!")
            with pytest.raises(LookupError, match="taken back"), tx.savepoint() as part:
                part.store(NOTES).delete("2")
                raise LookupError("taken back")
        with pytest.raises(LookupError, match="not written"), client.transaction() as tx:
            tx.store(NOTES).delete("1")
            raise LookupError("not written")
        page = client.query(select(NOTES).where(col("text") >= "a").order_by("text"))
        assert [note.text for note in page] == ["a!", "b"]
        assert client.explain(select(NOTES)).hub == "ok"
        assert client.topology().default == "direct-local"
        with pytest.raises(NotFoundError):
            notes.delete("3")
    assert loops() == []


def test_a_synced_client_syncs(tmp_path: Path) -> None:
    with running_hub(tmp_path) as address, blocking.open_client(SCHEMA, plugins=synced(address)) as client:
        handle = client.store(NOTES).insert(Note(id="1"))
        with blocking.fail_after(10):
            assert handle.accepted() == 1
            client.sync.wait_idle()
        assert (client.sync.status.pending, list(client.inbox.entries())) == (0, [])
        with client.sync.watch() as statuses:
            assert next(statuses).state == "online"


def test_the_states_of_a_write_are_iterated_and_observed(tmp_path: Path) -> None:
    told: list[str] = []
    done = threading.Event()
    with running_hub(tmp_path) as address, blocking.open_client(SCHEMA, plugins=synced(address)) as client:
        handle = client.store(NOTES).insert(Note(id="1"))
        client.handle(handle.key).states.subscribe(told.append, on_completed=done.set)
        with blocking.fail_after(10):
            assert list(handle.states)[-1] == "observed"
        assert done.wait(10)
    assert told[-1] == "observed"


def test_the_time_of_fail_after_is_for_the_whole_block_and_cancels() -> None:
    slow = Slow()
    with blocking.open_client(SCHEMA, plugins=[*local(), slow]) as client:
        notes = client.store(NOTES)
        with blocking.fail_after(0.2), blocking.fail_after(60):  # the inner one only shortens it
            notes.insert(Note(id="1"))
            with pytest.raises(TimeoutError, match="fail_after"):
                notes.query(policy=SLOW)
            with pytest.raises(TimeoutError):
                notes.query(policy=SLOW)
        assert slow.ended == 2, "the call went on before it had cleaned up"
        assert notes.count() == 1


def test_a_client_may_be_used_from_any_number_of_threads() -> None:
    with blocking.open_client(SCHEMA, plugins=local()) as client, ThreadPoolExecutor(8) as pool:
        notes = client.store(NOTES)
        assert all(pool.map(lambda number: notes.insert(Note(id=str(number))).changed, range(100)))
        assert notes.count() == 100


def test_a_client_closed_in_mid_call_ends_the_call() -> None:
    slow = Slow()
    waiting: Future[object] = Future()

    def wait(client: blocking.Client) -> None:
        with client.store(NOTES).live() as batches:
            try:
                for _ in batches:
                    client.store(NOTES).query(policy=SLOW)
            except ClosedError as error:
                waiting.set_result(str(error))

    with blocking.open_client(SCHEMA, plugins=[*local(), slow]) as client:
        thread = threading.Thread(target=wait, args=(client,))
        thread.start()
        slow.begun.wait(10)
    assert "while a call was under way" in str(waiting.result(10))
    thread.join(10)
    with pytest.raises(ClosedError, match="the client is closed"):
        client.store(NOTES).get("1")
    assert loops() == []


def test_an_update_function_that_calls_the_client_is_told() -> None:
    with blocking.open_client(SCHEMA, plugins=local()) as client:
        notes = client.store(NOTES)
        notes.insert(Note(id="1"))
        with pytest.raises(WrongLoop, match="own thread"):
            notes.update("1", lambda note: notes.get("1") or note)


async def test_a_trio_loop_is_not_stopped() -> None:
    with pytest.raises(WrongLoop, match=r"would stop the loop.*atoma\.open_client"):
        with blocking.open_client(SCHEMA, plugins=local()):
            pytest.fail("it must not open")


def test_a_client_that_is_not_entered_says_how() -> None:
    lifetime = blocking.open_client(SCHEMA, plugins=local())
    with pytest.raises(NotEntered, match=r"`with open_client\(…\) as it:`"):
        lifetime.store(NOTES)
    with blocking.open_client(SCHEMA, plugins=local()) as client:
        with pytest.raises(NotEntered, match=r"`with live\(…\) as it:`"):
            next(iter(client.store(NOTES).live()))  # pyright: ignore[reportGeneralTypeIssues]


def test_a_client_that_nobody_has_any_more_is_closed() -> None:
    stack = ExitStack()
    cards = stack.enter_context(blocking.open_client(SCHEMA, plugins=local())).store(NOTES)
    gc.collect()
    assert cards.count() == 0, "who holds a store holds the client"
    (thread,) = loops()
    stack.pop_all()
    del cards, stack
    gc.collect()
    thread.join(10)
    assert loops() == []


def test_a_client_that_fails_says_why_where_it_is_left() -> None:
    failing = Failing()
    with pytest.raises(LookupError, match="the plugin has failed"):
        with blocking.open_client(SCHEMA, plugins=[*local(), failing]) as client:
            with client.store(NOTES).live() as batches:
                next(batches)
                failing.fail.set()
                with pytest.raises(ClosedError):
                    next(batches)


def test_a_file_that_cannot_be_opened_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError), blocking.open_client(SCHEMA, plugins=local(tmp_path / "a.db")):
        pytest.fail("it must not open")
    assert loops() == []


def test_a_group_is_undone_and_the_past_is_read() -> None:
    plugins = [LocalExecution(SQLiteEngine(":memory:", history=History()))]
    with blocking.open_client(SCHEMA, plugins=plugins) as client:
        notes = client.store(NOTES)
        notes.insert(Note(id="1", text="old"))
        with client.undo.group("Rewrite"):
            notes.update("1", text="new")
        (newest, *_) = client.history.commits()
        done = client.undo.undo()
        assert done is not None and done.label == "Rewrite"
        assert notes.get("1") == Note(id="1", text="old")
        assert client.history.at(newest.commit).first(select(NOTES)) == Note(id="1", text="new")
        client.undo.scope("other").redo()
        assert client.undo.redo() is not None
        client.history.apply(client.history.changes(newest.commit).inverted())
        assert notes.get("1") == Note(id="1", text="old")


def test_an_observer_is_told_in_a_thread_and_may_call_the_client() -> None:
    told: list[object] = []
    done, full = threading.Event(), threading.Event()
    with blocking.open_client(SCHEMA, plugins=local()) as client:
        notes = client.store(NOTES)

        def take(rows: tuple[Note, ...]) -> None:
            told.append((len(rows), notes.count()))
            if rows:
                full.set()

        notes.observe().subscribe(take, on_completed=done.set)
        left = notes.observe().subscribe(lambda rows: told.append("nobody listens"))
        left.dispose()
        notes.insert(Note())
        assert full.wait(10)
    assert done.wait(10)
    assert told[-1] == (1, 1)


def test_a_listener_may_call_the_client_and_hears_no_more_when_it_stops() -> None:
    heard: list[str] = []
    finished = threading.Event()
    with blocking.open_client(SCHEMA, plugins=local()) as client:

        def listen(event: object) -> None:
            heard.append(type(event).__name__)
            if type(event).__name__ == "QueryFinished":
                undo()
                client.store(NOTES).count()
                finished.set()

        undo = client.listen(listen)
        client.store(NOTES).get("1")
        assert finished.wait(10)
    assert heard == ["StepStarted", "StepFinished", "QueryFinished"]


def test_a_listener_that_is_too_slow_loses_the_oldest_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []
    waiting: list[object] = []
    delivery: Delivery[int] = Delivery(heard.append, waiting.append)
    for number in range(QUEUE_LIMIT + 10):
        delivery(number)
    (empty,) = waiting
    assert callable(empty)
    with caplog.at_level(logging.WARNING):
        empty()
    assert heard == list(range(10, QUEUE_LIMIT + 10))
    assert [record.message for record in caplog.records] == [
        f"a listener is too slow: it loses the oldest of {QUEUE_LIMIT} values"
    ]


def test_a_portal_that_has_ended_may_be_ended_again() -> None:
    def opened() -> Lifetime[Client]:
        return open_client(SCHEMA, plugins=local())

    with host.open_portal("the client", opened, lambda portal, client: portal) as portal:
        portal.send_sync(lambda: None)
    wait = host.Wait()
    wait.until_told(portal.end(wait.tell))
    portal.join()
    with pytest.raises(ClosedError):
        portal.start(trio.sleep_forever, wait.tell)
