"""No state without a way out: whatever keeps a device waiting is told at once, with what helps, and ends when that is done."""

from __future__ import annotations

import ast
import inspect
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.codes import HELP, row
from atoma.contracts.sync import PushReply
from atoma.contracts.values import ErrorInfo
from atoma.errors import RemoteError, StoreError, SyncError
from atoma.ports import Principal
from atoma.sync.conditions import what_helps
from atoma_stores.sqlite.faults import Operation, fault_vfs
from tests.architecture.test_codes import error_classes
from tests.scenarios.sync import real_ways
from tests.scenarios.sync.conftest import Device, World
from tests.scenarios.sync.kit import back_up_with, copy_file
from tests.scenarios.sync.ways import AT_ONCE_S, WalkOut, device_with, free, held, hub_with, insert, stoppable, stuck


async def insert_another(world: World, device: Device) -> None:
    """A write of the device itself, which its disk may fail."""
    with suppress(StoreError):
        await device.store(world.CARDS).insert(world.Card(id="another"))


def refuse(code: str, *, retryable: bool = False, info: dict[str, str] | None = None) -> Callable[[Any], Any]:
    """A hub that answers a call with ``code``."""

    def answer(request: object) -> object:
        raise RemoteError("planted", remote_code=code, remote_retryable=retryable, info=info)

    return answer


def by_open(code: str) -> WalkOut:
    """The hub refuses the session until somebody has acted."""

    async def walk(world: World) -> None:
        async with world.open_hub(), world.open_device("a", down=True) as a:
            a.wire.tamper["open request"] = refuse(code)
            a.wire.repair()
            await insert(world, a)
            a.sync.poke()
            await stuck(a, code)
            del a.wire.tamper["open request"]
            await free(a)

    return walk


async def hub_away(world: World) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a:
        await insert(world, a)
        await stuck(a, "CONNECT_FAILED")
        a.wire.repair()
        await free(a)


async def cable_pulled(world: World) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        a.wire.cut()
        await insert(world, a)
        await stuck(a, "CHANNEL_BROKEN")
        a.wire.repair()
        await free(a)


async def disk_full(world: World) -> None:
    """The hub's disk: what it says is told in the words of a disk, not of a hub that is away."""
    with fault_vfs("a-full-hub") as plan:
        async with hub_with(world, vfs="a-full-hub"), world.open_device("a") as a:
            await a.settle()
            plan.fail("write", "full")
            await insert(world, a)
            await stuck(a, "DISK_FULL")
            assert "disk is full" in a.sync.status.reason
            await trio.sleep(600)  # however often it is tried
            assert a.sync.status.state in ("stalled", "connecting")
            plan.heal()
            await free(a)


async def hub_file_held(world: World) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        async with held(world.folder / world.hub_file):
            await insert(world, a)
            await stuck(a, "BUSY", within_s=30)
        await free(a)


async def device_file_held(world: World) -> None:
    """Nothing can be written down meanwhile; what the hub sends waits."""
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.settle()
        async with held(world.folder / "a.db"):
            await insert(world, b)
            await stuck(a, "BUSY", within_s=30)
        await free(a)


async def device_disk_full(world: World) -> None:
    with fault_vfs("a-full-device") as plan:
        async with world.open_hub(), device_with(world, vfs="a-full-device") as a, world.open_device("b") as b:
            await a.settle()
            plan.fail("write", "full")
            await insert(world, b)
            await stuck(a, "DISK_FULL")
            plan.heal()
            await free(a)


def hub_disk(operation: Operation, *, once: bool) -> WalkOut:
    """Nobody knows what a failed COMMIT left in the file: the hub answers nothing until it is opened again."""

    async def walk(world: World) -> None:
        with fault_vfs("a-failing-hub") as plan:
            async with stoppable(hub_with(world, vfs="a-failing-hub")) as stop, world.open_device("a") as a:
                await a.settle()
                plan.fail(operation, "io", once=once)
                await insert(world, a)
                await stuck(a, "STORE")
                await trio.sleep(300)
                assert a.sync.status.state in ("stalled", "connecting")
                await stop()
                async with world.open_hub():
                    await free(a)

    walk.__name__ = f"hub_disk_{operation}"
    return walk


async def device_disk_fails(world: World) -> None:
    """The same on the device: the next start shows what is in the file, and nothing that was promised is gone."""
    with fault_vfs("a-failing-device") as plan:
        async with world.open_hub(), world.open_device("b") as b:
            async with device_with(world, vfs="a-failing-device") as a:
                await a.settle()
                await insert(world, b)
                plan.fail("sync", "io", once=True)
                await insert_another(world, a)
                await stuck(a, "STORE", within_s=30)
            async with device_with(world, vfs="a-failing-device") as a:
                await free(a)


async def device_disk_turns_read_only(world: World) -> None:
    """What a file system that is mounted read-only after a fault of the disk says to SQLite: each write to the log is an I/O error.

    Reading goes on, and so does what is shown.
    """
    with fault_vfs("a-read-only-device") as plan:
        async with world.open_hub(), world.open_device("b") as b:
            async with device_with(world, vfs="a-read-only-device") as a:
                await a.store(world.CARDS).insert(world.Card(id="before"))
                await a.settle()
                plan.fail("write", "io")
                await insert(world, b)
                await stuck(a, "STORE")
                await trio.sleep(300)
                assert a.sync.status.state in ("stalled", "connecting") and a.sync.status.error.code == "STORE"
            plan.heal()
            async with device_with(world, vfs="a-read-only-device") as a:
                await free(a)
                assert "before" in await a.rows()


def damage(path: Path) -> None:
    """What a disk makes of a file that rots: nothing is left but its first page. What programs remember of it is out of date."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        (page,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(page)
        file.write(b"\xff" * (size - page))


async def hub_file_damaged(world: World) -> None:
    """A backup in its place helps, and the devices bring what it lacks."""
    await back_up_with(world)
    async with stoppable(world.open_hub()) as stop, world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="later"))
        await a.settle()
        damage(world.folder / "hub.db")
        await insert(world, a)
        await stuck(a, "CORRUPT")
        assert "hub's database" in a.sync.status.reason
        await stop()
        copy_file(world, "backup", "hub")
        async with world.open_hub(), world.open_device("b") as b:
            await free(a)
            await b.settle()
            assert set(await b.rows()) == {"later", "waits"}


async def device_file_damaged(world: World) -> None:
    """A copy in its place helps: what the hub has heard comes back from there."""
    async with world.open_hub(), world.open_device("b") as b:
        async with world.open_device("a") as a:
            await a.settle()
        copy_file(world, "a", "copy")
        async with world.open_device("a") as a:
            await a.store(world.CARDS).insert(world.Card(id="later"))
            await a.settle()
            damage(world.folder / "a.db")
            await insert(world, b)
            await stuck(a, "CORRUPT")
            assert "a.db: the file is damaged; restore a copy" in a.sync.status.reason
        copy_file(world, "copy", "a")
        async with world.open_device("a") as a:
            await free(a)
            assert set(await a.rows()) == {"later", "waits"}


async def scope_refused(world: World) -> None:
    class Rules:
        access = "none"

        def scope_access(self, principal: Principal, scope: str) -> Any:
            return "write" if scope == "main" else self.access

    rules = Rules()
    async with world.open_hub(rules=rules), world.open_device("a", scopes=("main", "secret")) as a:
        with trio.fail_after(AT_ONCE_S):
            while (progress := a.sync.status.scope("secret")).error is None:
                await trio.sleep(0.01)
        assert progress.error.code == "PERMISSION_DENIED"
        assert progress.helps == HELP[row("PERMISSION_DENIED").help]
        assert a.sync.status.state == "online"
        rules.access = "write"
        await insert(world, a)
        a.sync.pause()
        a.sync.resume()
        await free(a)
        assert a.sync.status.scope("secret").error is None


async def wrong_hub(world: World) -> None:
    """Another hub answers under the address; nothing is sent to it."""
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        own = world.running_hub()
        other = World(world.folder, seed=2, hub_file="other.db")
        async with other.open_hub():
            a.wire.hub = other.running_hub
            a.wire.cut()
            await insert(world, a)
            a.wire.repair()
            a.sync.poke()
            await stuck(a, "HUB_MISMATCH")
            assert a.wire.count("push") == 0
            a.wire.hub = lambda: own
            await free(a)


async def wrong_user(world: World) -> None:
    """The token is somebody else's; what is in the file is not sent in their name."""
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        a.wire.principal = "eve"
        a.wire.cut()
        await insert(world, a)
        a.wire.repair()
        a.sync.poke()
        await stuck(a, "WRONG_HUB")
        assert "eve" in a.sync.status.reason
        assert a.wire.count("push") == 0
        a.wire.principal = "ann"
        await free(a)


async def handed_over_to_the_other_hub(world: World) -> None:
    """The hub was set up anew, and the file belongs to the one that is gone."""
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        a.wire.cut()
        other = World(world.folder, seed=2, hub_file="other.db")
        async with other.open_hub():
            a.wire.hub = other.running_hub
            await insert(world, a)
            a.wire.repair()
            a.sync.poke()
            await stuck(a, "HUB_MISMATCH")
            assert "adopt_hub" in a.sync.status.helps
            await a.sync.adopt_hub()
            await free(a)


async def handed_over_to_the_other_user(world: World) -> None:
    """The file has written in somebody else's name before, so the hub knows whose it is."""
    async with world.open_hub(), world.open_device("a") as a:
        await a.store(world.CARDS).insert(world.Card(id="ann's"))
        await a.settle()
        a.wire.principal = "eve"
        a.wire.cut()
        await insert(world, a)
        a.wire.repair()
        a.sync.poke()
        await stuck(a, "WRONG_HUB")
        assert "adopt_hub" in a.sync.status.helps
        await a.sync.adopt_hub()
        await free(a)


WAYS_OUT: dict[str, list[WalkOut]] = {
    "CONNECT_FAILED": [hub_away, real_ways.identities_away, real_ways.too_many_connections],
    "CHANNEL_BROKEN": [cable_pulled],
    "UNAVAILABLE": [real_ways.hub_closing],
    "TIMEOUT": [real_ways.reads_take_too_long],
    "INTERNAL": [real_ways.rules_fail],
    "BUSY": [hub_file_held, device_file_held],
    "SESSION_ENDED": [by_open("SESSION_ENDED"), real_ways.session_ended],
    "OVERLOADED": [real_ways.too_many_calls],
    "RATE_LIMITED": [real_ways.too_much_is_read],
    "DISK_FULL": [disk_full, device_disk_full],
    "STORE": [
        hub_disk("sync", once=True),
        hub_disk("write", once=False),
        device_disk_fails,
        device_disk_turns_read_only,
    ],
    "CORRUPT": [hub_file_damaged, device_file_damaged],
    "UNAUTHENTICATED": [real_ways.no_token],
    "AUTH_EXPIRED": [real_ways.token_expired],
    "PERMISSION_DENIED": [scope_refused],
    "WRONG_HUB": [wrong_user, handed_over_to_the_other_user],
    "HUB_MISMATCH": [wrong_hub, handed_over_to_the_other_hub],
    "SCHEMA_TOO_NEW": [real_ways.device_newer],
    "SCHEMA_TOO_OLD": [real_ways.device_too_old],
    "SCHEMA_MISMATCH": [real_ways.hub_that_reads_otherwise],
    "MALFORMED": [real_ways.damaged_on_the_way],
    "PUSH_STALLED": [real_ways.rules_fail_for_long],
}
ELSEWHERE = {
    "CLIENT_FORKED": "test_repair.py::test_a_file_whose_repair_waits_for_somebody_pulls_on",
    "CLIENT_EXPIRED": "test_repair.py::test_repairs_that_do_not_help_end_in_a_stall_with_the_reason",
    "HUB_LOST_DATA": "test_repair.py::test_a_repair_that_waits_for_somebody_is_rehearsed_and_made",
    "PROTO_UNSUPPORTED": "../../golden/test_neighbours.py::test_an_increment_waits_for_a_hub_that_does_not_pass_over_it",
    "SEVERAL_HUBS": "test_several_hubs.py::test_a_history_that_moves_again_and_again_has_a_code_and_a_way_out",
}
"""Conditions whose ways out are repairs, or want more than one hub, or the hub of an earlier release, in a process of its own."""
OF_REPLICATION = ("atoma.errors", "atoma.sync.failures", "atoma.sync.push")
PASSING = {
    "SYNC": "the class of the others",
    "OUTBOX_FULL": "its caller is told",
    "RESYNC": "of one scope, which is fetched whole meanwhile",
    "HISTORY_MOVED": "another session is opened at once, and tells what it is",
}
"""What keeps nothing waiting for somebody."""
WALKS = [(code, walk) for code, walks in WAYS_OUT.items() for walk in walks]


@pytest.mark.virtual_time
@pytest.mark.parametrize(("code", "walk"), WALKS, ids=[f"{code}-{walk.__name__}" for code, walk in WALKS])
async def test_every_condition_is_told_at_once_and_has_a_way_out(code: str, walk: WalkOut, tmp_path: Path) -> None:
    await walk(World(tmp_path))


def test_no_condition_is_left_out() -> None:
    """Whatever this device says by itself of replication has a walk; what a hub answers has one in ``test_conditions.py``.

    A walk makes the cause itself, by doors that everybody has, and does what the table says helps; none lifts only an answer that was planted.
    """
    known = WAYS_OUT.keys() | ELSEWHERE.keys()
    found = {kind.code for kind in error_classes(SyncError) if kind.__module__ in OF_REPLICATION}
    assert len(found) > 5 and found - known - PASSING.keys() == set()
    planted = {code for code, walks in WAYS_OUT.items() if all("tamper" in inspect.getsource(walk) for walk in walks)}
    assert planted == set()
    for code, place in ELSEWHERE.items():
        file, _, name = place.partition("::")
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        (test,) = [each for each in ast.parse(text).body if getattr(each, "name", "") == name]
        first = min([test.lineno, *(each.lineno for each in test.decorator_list)])  # type: ignore[attr-defined]
        assert f'"{code}"' in "\n".join(text.splitlines()[first - 1 : test.end_lineno]), (
            f"{place} does not speak of {code}"
        )


def test_what_is_no_condition_is_helped_by_the_table_of_codes() -> None:
    assert what_helps(ErrorInfo("CORRUPT", "")) == HELP["operator"]
    assert what_helps(ErrorInfo("UNAVAILABLE", "", info={"reason": "DISK_FULL"})) == HELP["room"]
    assert what_helps(ErrorInfo("UNAVAILABLE", "", info={"reason": "CLOSED"})) == HELP["retry"]


@pytest.mark.virtual_time
@pytest.mark.paths
async def test_a_write_that_the_hub_cannot_take_goes_to_the_inbox_and_the_rest_moves_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.open_hub():
        pass
    with closing(sqlite3.connect(tmp_path / "hub.db")) as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE INSERT ON cards WHEN NEW.title = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    async with world.open_hub(), world.open_device("a") as a:
        for number, title in enumerate(("good", "bad", "good")):
            await a.store(world.CARDS).insert(world.Card(id=str(number), title=title))
        await a.settle()
        assert a.sync.status.state == "online"
        (entry,) = await a.client.inbox.entries()
        assert (entry.id, entry.code) == ("1", "CONSTRAINT")
        assert set(await a.rows()) == {"0", "2"}


@pytest.mark.parametrize("code", ["UNAVAILABLE", "BUSY", "INTERNAL", "TIMEOUT"])
async def test_a_device_that_only_reads_says_why_it_waits(world: World, code: str) -> None:
    """It was online for ever, whatever the hub answered to its pulls."""
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.settle()
        connects = a.wire.connects
        a.wire.tamper["pull request"] = refuse(code, retryable=True)
        await insert(world, b)
        with trio.fail_after(30):
            while a.sync.status.state != "stalled":
                await trio.sleep(0.1)
        status = a.sync.status
        assert (status.error.code, status.helps) == (code, what_helps(status.error))
        assert status.reason and status.attempt > 0 and status.next_attempt_ms > 0
        assert status.scope("main").error.code == code
        del a.wire.tamper["pull request"]
        with trio.fail_after(60):
            while a.sync.status.state != "online":
                await trio.sleep(0.1)
        status = a.sync.status
        assert (status.reason, status.error, status.attempt, status.scope("main").error) == ("", None, 0, None)
        assert "waits" in await a.rows() and a.wire.connects == connects


@pytest.mark.virtual_time
async def test_a_device_that_waited_for_a_hub_waits_no_more_once_its_scope_alone_is_refused(world: World) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.settle()
        a.wire.tamper["pull request"] = refuse("UNAVAILABLE", retryable=True)
        await insert(world, b)
        await stuck(a, "UNAVAILABLE", within_s=30)
        a.wire.tamper["pull request"] = refuse("PERMISSION_DENIED")
        with trio.fail_after(60):
            while a.sync.status.scope("main").error.code != "PERMISSION_DENIED":
                await trio.sleep(0.1)
        status = a.sync.status
        assert (status.state, status.error, status.next_attempt_ms) == ("online", None, 0)
        del a.wire.tamper["pull request"]
        with trio.fail_after(600):
            while "waits" not in await a.rows():
                await trio.sleep(1)
        await free(a)


@pytest.mark.paths
async def test_a_write_that_no_request_is_small_enough_for_goes_to_the_inbox_and_the_rest_moves_on(
    world: World,
) -> None:
    """Something on the way takes smaller requests than the hub; the write waited for ever, and everything behind it."""

    def small(request: Any) -> Any:
        if sum(len(mutation.body) for mutation in request.mutations) > 2_000:
            raise RemoteError("request entity too large", remote_code="TOO_LARGE")
        return request

    async with world.open_hub(), world.open_device("a", down=True) as a, world.open_device("b") as b:
        cards = a.store(world.CARDS)
        before = await cards.insert(world.Card(id="before"))
        large = await cards.insert(world.Card(id="large", title="x" * 4_000))
        built = await cards.update("large", lane="done")
        after = await cards.insert(world.Card(id="after"))
        more = await cards.update("after", lane="done")
        a.wire.tamper["push request"] = small
        a.wire.lose["push"] = 1  # all of it was sent before, as far as anybody knows
        a.wire.repair()
        a.sync.poke()
        await free_of(a)
        await b.settle()
        assert [each.state for each in (before, large, built, after, more)] == [
            "observed", "rejected", "rejected", "observed", "observed",
        ]  # fmt: skip
        entries = await a.sync.inbox.entries()
        assert [(each.code, each.id) for each in entries] == [("TOO_LARGE", "large"), ("DEPENDENCY_REJECTED", "large")]
        assert entries[0].mine["title"] == "x" * 4_000
        assert await a.rows() == await b.rows() == {name: world.Card(id=name, lane=lane) for name, lane in KEPT}
        again = await cards.insert(world.Card(id="again"))
        await free_of(a)
        assert again.state == "observed" and list(await a.sync.repairs()) == []


KEPT = (("before", "todo"), ("after", "done"))


async def free_of(device: Device) -> None:
    await device.settle()
    assert (device.sync.status.state, device.sync.status.error, await device.outbox()) == ("online", None, [])


async def test_a_write_of_which_the_answer_is_too_large_is_not_refused_here(world: World) -> None:
    """The hub has decided it; the page tells the outcome."""

    def answer(reply: PushReply) -> PushReply:
        raise RemoteError("the answer takes too many bytes", remote_code="TOO_LARGE")

    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        a.wire.tamper["push"] = answer
        handle = await a.store(world.CARDS).insert(world.Card(id="waits"))
        with trio.fail_after(120):
            while handle.state != "observed":
                await trio.sleep(0.1)
        del a.wire.tamper["push"]
        await free(a)
        assert await a.sync.inbox.entries() == []


async def test_a_hub_for_which_nothing_is_small_enough_costs_one_write_and_is_told(world: World) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        await a.settle()
        a.wire.tamper["push request"] = refuse("TOO_LARGE")
        first = await a.store(world.CARDS).insert(world.Card(id="first"))
        await insert(world, a)
        await stuck(a, "TOO_LARGE")
        assert (first.state, len(await a.sync.inbox.entries())) == ("rejected", 1)
        del a.wire.tamper["push request"]
        await free(a)
