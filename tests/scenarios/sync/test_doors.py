"""The lanes come into the database through one door: the apply port."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio

from atoma.contracts.writeback import Applied, Writeback
from atoma.kernel import ExecutionKernel
from atoma.runtime.applying import ApplyFlow
from atoma.sync.staging import Fenced
from atoma.sync.writebacks import CHANGES
from atoma_stores.sqlite.engine import SQLiteLocalDatabase

pytestmark = pytest.mark.virtual_time
DOORS = {
    ExecutionKernel: ("execute_query", "execute_write"),
    SQLiteLocalDatabase: ("commit", "apply", "read"),
    ApplyFlow: ("apply_writeback",),
}


def count_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count who comes in by which door; the calls themselves go on as they are."""
    calls: Counter[str] = Counter()

    def counted(owner: type, name: str) -> Any:
        original = getattr(owner, name)

        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return await original(self, *args, **kwargs)

        return call

    for owner, names in DOORS.items():
        for name in names:
            monkeypatch.setattr(owner, name, counted(owner, name))
    return calls


@pytest.mark.paths
async def test_verdicts_and_pages_come_in_by_the_apply_port_only(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b", down=True) as b:
        await a.store(world.CARDS).insert(world.Card(id="1", title="theirs"))
        await a.settle()
        taken = await b.store(world.CARDS).insert(world.Card(id="1", title="mine"))
        kept = await b.store(world.CARDS).insert(world.Card(id="2"))
        calls = count_calls(monkeypatch)
        b.wire.repair()
        b.sync.poke()
        await b.settle()
        assert (taken.state, kept.state) == ("rejected", "observed")
        assert calls["apply_writeback"] == calls["apply"] > 0
        assert calls["commit"] == calls["execute_write"] == calls["execute_query"] == 0
        before = calls["apply_writeback"]
        await b.store(world.CARDS).update("2", lane="done")
        assert calls["commit"] == calls["execute_write"] == 1, "the counter sees the other doors"
        await b.settle()
        assert calls["commit"] == 1
        assert calls["apply_writeback"] > before


async def test_verdicts_come_back_by_the_key_of_their_write(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, Writeback]] = []
    original = ApplyFlow.apply_writeback

    async def spy(flow: ApplyFlow, writeback: Writeback) -> Applied:
        taken.append((await flow._database.inspect(lambda tx: tx.outbox.identity().client_id.hex()), writeback))
        return await original(flow, writeback)

    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await b.settle()
        b.wire.cut()
        await a.store(world.CARDS).insert(world.Card(id="1", title="theirs"))
        await a.settle()
        await b.store(world.CARDS).insert(world.Card(id="1", title="mine"))
        await b.store(world.CARDS).insert(world.Card(id="2"))
        keys = [item.idem for item in await b.inspect(lambda tx: tx.outbox.every())]
        monkeypatch.setattr(ApplyFlow, "apply_writeback", spy)
        b.wire.repair()
        b.sync.poke()
        await b.settle()
        own = await b.inspect(lambda tx: tx.outbox.identity().client_id.hex())
        told = [(key, outcome.status) for who, one in taken if who == own for key, outcome in one.verdicts.items()]
        assert set(told) == {(keys[0], "rejected"), (keys[1], "applied")}
        rows = {(row.id, row.version) for who, one in taken if who == own for row in one.rows}
        assert rows == {("1", 1), ("2", 2)}, "and the confirmed rows beside them"
        changes = [one.replication for who, one in taken if who == own]
        made = {type(one.change if isinstance(one, Fenced) else one) for one in changes}
        assert made <= set(CHANGES)
        assert {one.durability for who, one in taken if who == own and one.verdicts} == {None}, "as the file has it"
        taken.clear()
        await a.store(world.CARDS).insert(world.Card(id="3"))
        await trio.sleep(1)
        theirs = {one.durability for who, one in taken if who == own and one.rows}
        assert theirs == {"normal"}, "what settles nothing can be pulled again"
