"""Broken links, lost replies, crashes: nothing is lost, nothing is done twice, and what happens is visible."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel

from atoma.contracts.mutations import ACKED, QUEUED
from atoma.contracts.sync import Cursor, PullReply, PushReply
from atoma.contracts.values import ErrorInfo
from atoma.errors import AuthenticationError, RemoteError

pytestmark = pytest.mark.virtual_time


async def until(condition: Any) -> None:
    with trio.fail_after(600):
        while not await condition():
            await trio.sleep(0.05)


@pytest.mark.paths
async def test_what_the_hub_accepted_stays_visible_until_its_page(world: Any) -> None:
    """I12: between the acknowledgement and the page the overlay holds the write."""
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        a.wire.hold["pull"] = release = trio.Event()
        handle = await a.store(world.CARDS).insert(world.Card(id="1", title="mine"))
        assert await handle.accepted() == 1
        assert handle.state == "accepted"
        assert (await a.rows())["1"].title == "mine"
        (entry,) = await a.outbox()
        assert (entry.status, entry.ack_seq) == (ACKED, 1)
        await a.store(world.CARDS).update("1", lane="done")
        assert (await a.rows())["1"] == world.Card(id="1", title="mine", lane="done")
        release.set()
        assert await handle.observed() == 1
        await a.settle()
        assert (await a.rows())["1"] == world.Card(id="1", title="mine", lane="done")
        assert await a.outbox() == []


@pytest.mark.paths
@pytest.mark.parametrize("method", ["open", "push", "pull", "snapshot"])
async def test_a_lost_reply_does_nothing_twice(world: Any, method: str) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a, world.open_device("b") as b:
        await b.store(world.CARDS).insert(world.Card(id="0"))
        await b.settle()
        handles = [await a.store(world.CARDS).insert(world.Card(id=str(number))) for number in range(1, 6)]
        a.wire.lose[method] = 2
        a.wire.repair()
        a.sync.poke()
        await a.settle()
        assert a.wire.lose[method] == 0
        await b.settle()
        assert await a.rows() == await b.rows()
        assert len(await b.rows()) == 6
        assert [handle.state for handle in handles] == ["observed"] * 5
        assert b.sync.status.scope("main").head == 6, "six transactions: nothing was applied twice"


@pytest.mark.paths
@pytest.mark.parametrize("when", ["written", "pushed", "acked", "lost reply"])
async def test_a_crash_loses_nothing(world: Any, when: str) -> None:
    """The file is opened again as it was left: with what was only written, sent, or accepted."""
    async with world.open_hub():
        with trio.CancelScope() as process:
            async with world.open_device("a", down=when == "written") as a:
                if when != "written":
                    await a.settle()
                if when == "acked":
                    a.wire.hold["pull"] = trio.Event()
                if when == "lost reply":
                    a.wire.lose["push"] = 1000
                    a.wire.hold["pull"] = trio.Event()
                if when == "pushed":
                    a.wire.hold["push"] = trio.Event()
                handle = await a.store(world.CARDS).insert(world.Card(id="1", title="kept"))
                await a.store(world.CARDS).update("1", lane="done")
                if when == "acked":
                    await handle.accepted()
                if when == "lost reply":
                    await until(lambda: _is(a.wire.count("push") > 0))
                process.cancel()
                await trio.lowlevel.checkpoint()
        async with world.open_device("a") as a, world.open_device("b") as b:
            assert await a.rows() == {"1": world.Card(id="1", title="kept", lane="done")}
            await a.settle()
            await b.settle()
            assert await a.rows() == await b.rows() == {"1": world.Card(id="1", title="kept", lane="done")}
            assert await a.outbox() == []
            assert b.sync.status.scope("main").head == 2


async def _is(value: bool) -> bool:
    return value


async def test_the_next_attempt_is_visible_and_backs_off(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a:
        seen: list[Any] = []
        a.sync.subscribe(seen.append)
        await trio.sleep(300)
        status = a.sync.status
        assert status.state in ("offline", "connecting")
        offline = [item for item in seen if item.state == "offline" and item.error is not None]
        assert offline[0].error.code == "CONNECT_FAILED"
        assert all(item.next_attempt_ms > 0 for item in offline)
        assert [item.attempt for item in offline] == sorted(item.attempt for item in offline)
        while a.sync.status.state != "offline":
            await trio.sleep(0.1)
        connects, wait_ms = a.wire.connects, a.sync.status.next_attempt_ms - await a.inspect(lambda tx: tx.now_ms)
        await trio.sleep(wait_ms / 1000 - 0.01)
        assert a.wire.connects == connects
        await trio.sleep(0.02)
        assert a.wire.connects == connects + 1, "it is made when it was told"
        assert 8 <= a.wire.connects <= 40, "about 300 s at 0.5, 1, 2 … 60 s with full jitter"
        before = a.wire.connects
        a.sync.poke()
        await trio.lowlevel.checkpoint()
        await trio.sleep(0.001)
        assert a.wire.connects == before + 1
        a.wire.repair()
        a.sync.poke()
        await a.settle()
        assert a.sync.status.state == "online"
        assert a.sync.status.error is None
        assert a.sync.status.next_attempt_ms == 0


async def test_a_local_write_does_not_hammer_a_hub_that_is_away(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a:
        await trio.sleep(300)
        before = a.wire.connects
        for number in range(200):
            await a.store(world.CARDS).insert(world.Card(id=str(number)))
        await trio.sleep(0.01)
        assert a.wire.connects - before <= 1
        assert a.sync.status.pending == 200


async def test_a_hub_that_does_not_answer_is_given_up_and_tried_again(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        a.wire.hold["push"] = stuck = trio.Event()
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await until(lambda: _is(a.sync.status.error is not None))
        assert a.sync.status.error.code == "CHANNEL_BROKEN"
        (entry,) = await a.outbox()
        assert entry.status == QUEUED
        assert entry.attempts >= 1
        assert entry.next_attempt_ms > 0
        assert "push" in entry.last_error
        del a.wire.hold["push"]
        stuck.set()
        await a.settle()
        assert await a.outbox() == []


@pytest.mark.paths
async def test_a_busy_hub_is_obeyed(world: Any) -> None:
    refusals = 3

    def busy(reply: PushReply) -> PushReply:
        nonlocal refusals
        if refusals == 0:
            return reply
        refusals -= 1
        return PushReply((), 0, ErrorInfo("OVERLOADED", "later", True, 7000))

    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        connects = a.wire.connects
        a.wire.tamper["push"] = busy
        began = trio.current_time()
        await a.store(world.CARDS).insert(world.Card(id="1"))
        await until(lambda: _is(a.wire.count("push") > 0))
        await trio.sleep(1)
        (entry,) = await a.outbox()
        assert (entry.attempts, entry.last_error) == (1, "OVERLOADED: later")
        wait_ms = entry.next_attempt_ms - await a.inspect(lambda tx: tx.now_ms)
        assert 0 < wait_ms < 7000, "in the outbox stands when it is tried again"
        assert a.sync.status.next_attempt_ms == entry.next_attempt_ms, "and in the status"
        pushes = a.wire.count("push")
        await trio.sleep(wait_ms / 1000 - 0.002)
        assert a.wire.count("push") == pushes
        await trio.sleep(0.004)
        assert a.wire.count("push") == pushes + 1
        await a.settle()
        assert trio.current_time() - began >= 21
        assert a.wire.connects == connects, "the session went on"
        assert a.sync.status.scope("main").head == 1
        assert (a.sync.status.state, a.sync.status.error, a.sync.status.pending) == ("online", None, 0)


async def test_a_batch_that_is_too_large_is_halved(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a:
        await a.store(world.CARDS).insert_many([world.Card(id=str(number)) for number in range(64)])

        def small(request: Any) -> Any:
            if len(request.mutations) > 10:
                raise RemoteError("too much", remote_code="TOO_LARGE", remote_retryable=True)
            return request

        a.wire.tamper["push request"] = small
        a.wire.repair()
        a.sync.poke()
        await a.settle()
        assert [len(request.mutations) for method, request in a.wire.calls if method == "push"][:4] == [64, 32, 16, 8]
        assert await a.outbox() == []


@pytest.mark.paths
async def test_a_late_page_changes_nothing(world: Any) -> None:
    """I9: every page is applied against exactly the cursor it starts at."""
    old: list[PullReply] = []

    def late(reply: PullReply) -> PullReply:
        if reply.stores:
            old.append(reply)
        if old and not reply.stores:
            return old[0]
        return reply

    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.settle()
        await b.store(world.CARDS).insert(world.Card(id="1", title="first"))
        await b.settle()
        await a.settle()
        a.wire.tamper["pull"] = late
        await b.store(world.CARDS).update("1", title="second")
        await b.settle()
        await until(lambda: _title(a, "1", "second"))
        for _ in range(5):
            a.sync.poke()
            await trio.sleep(1)
        assert (await a.rows())["1"].title == "second"
        assert a.sync.status.scope("main").cursor == 2


async def _title(device: Any, id: str, title: str) -> bool:
    rows = await device.rows()
    return id in rows and rows[id].title == title


async def test_a_page_that_is_malformed_stalls_visibly_and_changes_nothing(world: Any) -> None:
    from msgspec.structs import replace

    def broken(reply: PullReply) -> PullReply:
        return replace(reply, stores=tuple(replace(changes, columns=("id", "title")) for changes in reply.stores))

    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.settle()
        a.wire.tamper["pull"] = broken
        await b.store(world.CARDS).insert(world.Card(id="1"))
        await until(lambda: _is(a.sync.status.state == "stalled"))
        assert a.sync.status.error.code == "MALFORMED"
        assert await a.rows() == {}
        assert a.sync.status.scope("main").cursor == 0
        del a.wire.tamper["pull"]
        await a.settle()
        assert list(await a.rows()) == ["1"]


async def test_a_bug_in_a_lane_is_shown_logged_and_tried_again(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    def bug(reply: object) -> object:
        raise ZeroDivisionError("planted")

    async with world.open_hub(), world.open_device("a") as a:
        a.wire.tamper["open"] = bug
        await until(lambda: _is(a.sync.status.state == "stalled"))
        assert a.sync.status.error == ErrorInfo("INTERNAL", "ZeroDivisionError: planted", True)
        assert "planted" in caplog.text
        await a.store(world.CARDS).insert(world.Card(id="1"))
        del a.wire.tamper["open"]
        await a.settle()
        assert a.sync.status.state == "online"


async def test_no_token_stalls_and_keeps_the_outbox(world: Any) -> None:
    def refuse(reply: object) -> object:
        raise AuthenticationError("the token has expired")

    async with world.open_hub(), world.open_device("a", down=True) as a:
        a.wire.tamper["open"] = refuse
        await a.store(world.CARDS).insert(world.Card(id="1"))
        a.wire.repair()
        a.sync.poke()
        await until(lambda: _is(a.sync.status.state == "stalled"))
        assert a.sync.status.error.code == "UNAUTHENTICATED"
        assert a.sync.status.next_attempt_ms > 0
        assert len(await a.outbox()) == 1
        connects = a.wire.connects
        await trio.sleep(600)
        assert 9 <= a.wire.connects - connects <= 21, "tried again every 30 to 60 s"
        del a.wire.tamper["open"]
        await a.settle()
        assert await a.outbox() == []


async def test_a_scope_that_is_refused_stops_alone(world: Any) -> None:
    class OneOnly:
        """Rules that let everybody into ``x`` only."""

        def scope_access(self, principal: object, scope: str) -> str:
            return "write" if scope == "x" else "none"

    async with world.open_hub(rules=OneOnly()), world.open_device("a", scopes=("x", "y")) as a:
        await a.store(world.CARDS).insert(world.Card(id="1", board="x"))
        await until(lambda: _is(a.sync.status.scope("x").cursor == 1))
        assert a.sync.status.state == "online"
        assert a.sync.status.scope("x").error is None
        assert a.sync.status.scope("y").error is not None
        await a.settle()
        with pytest.raises(RemoteError):
            await a.sync.sync_once()
        assert a.sync.status.state == "online"


@pytest.mark.paths
async def test_closing_with_work_in_flight_leaves_nothing_behind(world: Any) -> None:
    async with world.open_hub():
        before = trio.lowlevel.current_statistics().tasks_living
        async with world.open_device("a") as a:
            await a.settle()
            a.wire.hold["push"] = trio.Event()
            a.wire.hold["pull"] = trio.Event()
            await a.store(world.CARDS).insert(world.Card(id="1"))
            a.sync.poke()
            await trio.sleep(0.1)
            control = a.sync
        assert control.status.state == "stopped"
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_cursor_of_a_fresh_file_is_the_beginning(world: Any) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        subscription = await a.inspect(lambda tx: tx.scopes.read("main"))
        assert subscription.state == "live"
        assert subscription.cursor in (Cursor(), subscription.cursor)
        assert a.wire.count("snapshot") == 0, "a hub with nothing in it needs no snapshot"
