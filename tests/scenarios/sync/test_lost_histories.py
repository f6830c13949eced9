"""What a device had seen counts in the history it comes from, and below the log's floor nobody's change is hidden."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.sync.kit import back_up, open_restored

pytestmark = pytest.mark.virtual_time


@pytest.mark.paths
async def test_a_base_of_a_lost_history_does_not_hide_what_was_written_since(world: Any) -> None:
    """Device a saw sequences that the restored hub gives out anew: its pending CAS write must meet c's change."""
    async with world.open_device("a", down=True) as a, world.open_device("b", down=True) as b:
        async with world.open_hub():
            for d in (a, b):
                d.wire.repair()
                d.sync.poke()
            await b.store(world.MANUAL).insert(world.Note(id="1", text="first"))
            await b.settle()
            await a.settle()
            for d in (a, b):
                d.wire.cut()
        back_up(world)
        async with world.open_hub():
            for d in (a, b):
                d.wire.repair()
                d.sync.poke()
            for n in range(5):
                await b.store(world.CARDS).insert(world.Card(id=f"later{n}"))
            await b.settle()
            await a.settle()
            for d in (a, b):
                d.wire.cut()
        handle = await a.store(world.MANUAL).update("1", text="a's")
        async with open_restored(world):
            async with world.open_device("c") as c:
                await c.settle()
                await c.store(world.MANUAL).update("1", text="c's, newer")
                await c.settle()
                a.wire.repair()
                a.sync.poke()
                await a.settle()
                await c.settle()
                now = await c.store(world.MANUAL).get("1")
                assert handle.state == "rejected", f"a's write is {handle.state}; c now reads {now.text!r}"
                (entry,) = await a.sync.inbox.entries()
                assert (entry.mine["text"], entry.theirs["text"]) == ("a's", "c's, newer")


async def test_a_forgotten_foreign_change_is_not_hidden_by_my_own_last_one(world: Any) -> None:
    """The log is compacted; a's first pending write becomes the row's last author and hides b's change from a's second."""
    async with world.open_hub() as hub, world.open_device("a") as a, world.open_device("b") as b:
        await a.store(world.CLIENT).insert(world.Note(id="1", text="first"))
        await a.settle()
        await b.settle()
        a.wire.cut()
        for column, value in (("color", "red"), ("text", "a's")):
            await a.store(world.CLIENT).update("1", **{column: value})
        await b.store(world.CLIENT).update("1", text="b's")
        await b.settle()
        await hub.compact(keep=0, keep_days=0)
        a.wire.repair()
        a.sync.poke()
        await a.settle()
        verdicts = {mid: (o.status, [c.fields for c in o.conflicts]) for mid, o in a.wire.outcomes.items()}
        assert [v[0] for v in verdicts.values()][-1] == "merged", f"b's text was overwritten, told as {verdicts}"
