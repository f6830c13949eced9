"""Something on the way takes small messages only: whatever a device asks, it asks in pieces that get through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from atoma.errors import RemoteError
from tests.scenarios.sync.conftest import Device, World
from tests.scenarios.sync.kit import back_up, back_up_with, client_id, copy_file, inbox, open_restored, put_in

pytestmark = pytest.mark.virtual_time

TAKEN_BYTES = 2_000
SCOPES = tuple(f"s{number:02}" for number in range(24))


def take_small(device: Device) -> list[str]:
    """Have no larger message get through, and no larger answer; the calls that were refused for it."""
    refused: list[str] = []

    def check(call: str) -> Callable[[Any], Any]:
        def checked(message: Any) -> Any:
            if len(msgspec.msgpack.encode(message)) > TAKEN_BYTES:
                refused.append(call)
                raise RemoteError("request entity too large", remote_code="TOO_LARGE")
            return message

        return checked

    for call in ("open", "push", "pull", "snapshot"):
        device.wire.tamper[f"{call} request"] = device.wire.tamper[call] = check(call)
    return refused


@pytest.mark.paths
async def test_a_repair_gets_through_with_small_pages(world: World) -> None:
    """It staged pages of one size: the repair ended and began again for ever."""
    async with world.open_device("a", down=True, scopes=SCOPES) as a:
        cards = a.store(world.CARDS)
        async with world.open_hub():
            kept = [world.Card(id=f"{scope} {n}", title="x" * 700, board=scope) for scope in SCOPES for n in range(3)]
            await cards.insert_many(kept)
            await put_in(a)
            a.wire.cut()
        back_up(world)
        async with world.open_hub():
            await put_in(a)
            for scope in SCOPES[:3]:
                await cards.insert(world.Card(id=f"{scope} lost", title="y" * 300, board=scope))
            await a.settle()
            a.wire.cut()
        await cards.insert(world.Card(id="pending", board="s00"))
        wanted = await a.rows()
        refused = take_small(a)
        world.hub_file = "backup.db"
        async with world.open_hub() as hub, world.open_device("b", scopes=SCOPES) as b:
            await hub.new_epoch()
            await put_in(a)
            await b.settle()
            assert set(refused) == {"open", "snapshot", "push"}
            (report,) = await a.sync.repairs()
            assert (set(report.forks), report.offered, report.renumbered) == (set(SCOPES[:3]), 3, 1)
            assert await a.rows() == await b.rows() == wanted
            assert (a.sync.status.state, await a.outbox(), await inbox(a)) == ("online", [], [])


@pytest.mark.paths
async def test_a_repair_asks_for_as_many_verdicts_as_get_through(world: World) -> None:
    async with world.open_hub():
        async with world.open_device("a", down=True) as a:
            cards = a.store(world.CARDS)
            for number in range(60):
                await cards.insert(world.Card(id=str(number)))
        copy_file(world, "a", "b")
        async with world.open_device("a") as a, world.open_device("b", down=True) as b:
            await a.store(world.CARDS).insert(world.Card(id="of a"))
            await a.settle()
            await b.store(world.CARDS).insert(world.Card(id="of b"))
            before = await client_id(b)
            refused = take_small(b)
            await put_in(b)
            assert refused.count("open") >= 2
            (report,) = await b.sync.repairs()
            assert (report.cause, report.settled, report.renumbered) == ("CLIENT_FORKED", 60, 61)
            assert await client_id(b) != before and await inbox(b) == []
            await a.settle()
            assert await a.rows() == await b.rows() and len(await a.rows()) == 62


async def test_a_page_of_which_not_even_one_row_gets_through_is_told_and_the_repair_waits_for_it(world: World) -> None:
    async with world.open_device("a", down=True) as a:
        await a.store(world.CARDS).insert(world.Card(id="large", title="x" * 2 * TAKEN_BYTES))
        await back_up_with(world, a)
        async with world.open_hub():
            await put_in(a)
            await a.store(world.CARDS).insert(world.Card(id="lost"))
            await a.settle()
            a.wire.cut()
        take_small(a)
        async with open_restored(world):
            a.wire.repair()
            a.sync.poke()
            with trio.fail_after(2):
                while a.sync.status.state != "stalled":
                    await trio.sleep(0.01)
            assert (a.sync.status.error.code, a.sync.status.helps) == (
                "TOO_LARGE",
                "a smaller request, or a smaller answer",
            )
            assert a.sync.status.reason and a.sync.status.next_attempt_ms > 0
            assert set(await a.rows()) == {"large", "lost"} and await a.sync.repairs() == []
            a.wire.tamper.clear()
            await put_in(a)
            assert set(await a.rows()) == {"large", "lost"} and len(await a.sync.repairs()) == 1
