"""Several processes at one file of a device: each writes, one of them syncs, and another takes over when that one is gone."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest
import trio

from atoma.contracts.writeback import Writeback
from atoma.hub import AllowLoopback, Hub, open_hub
from atoma.ports import Environment, LocalTx
from atoma.sync.staging import Fenced, HubMet, LeadLost
from atoma.sync.writebacks import ReplicationPart
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_stores.sqlite._companions import LEASE_S, Companions, CompanionsSeen, term_of
from atoma_transports.serving import open_server
from tests.scenarios.kill.programs import NOTES, SCHEMA

TAKE_OVER_S = 5.0
START_S = 60.0


@dataclass
class Program:
    """A process at the file, and what it has said."""

    process: trio.Process
    said: list[str] = field(default_factory=list)
    heard: trio.Event = field(default_factory=trio.Event)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            self.said += [line.decode() for line in lines]
            self.heard.set()
            self.heard = trio.Event()

    async def until(self, line: str, seconds: float = START_S) -> None:
        """Wait until it has said ``line`` last of all, or has reported it."""
        with trio.fail_after(seconds):
            while not (self.said and (self.said[-1] == line or (line.startswith("accepted") and line in self.said))):
                await self.heard.wait()

    async def write(self, id: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(f"{id}\n".encode())


@asynccontextmanager
async def hub_of(folder: Path) -> AsyncIterator[tuple[Hub, int]]:
    async with open_hub(SCHEMA, SQLiteHubStore(folder / "hub.db"), verifier=AllowLoopback()) as hub:
        async with open_server(hub, "127.0.0.1:0") as bound:
            yield hub, int(str(bound).rpartition(":")[2])


async def start(nursery: trio.Nursery, folder: Path, port: int, name: str) -> Program:
    command = [sys.executable, "-m", "tests.scenarios.processes.lanes", str(folder / "device.db"), str(port), name]
    process = await trio.lowlevel.open_process(command, stdin=-1, stdout=-1)
    program = Program(process)
    nursery.start_soon(program.listen)
    return program


@pytest.mark.xdist_group("machine")
@pytest.mark.parametrize("by", ["SIGKILL", "SIGSTOP"])
async def test_another_process_takes_the_lanes_over(tmp_path: Path, by: str) -> None:
    async with hub_of(tmp_path) as (_, port), trio.open_nursery() as nursery:
        programs: list[Program] = []
        try:
            leader = await start(nursery, tmp_path, port, "one")
            programs.append(leader)
            await leader.until("online")
            other = await start(nursery, tmp_path, port, "two")
            programs.append(other)
            await other.until("following")
            await other.write("written where nobody syncs")
            await other.until("accepted written where nobody syncs")
            assert "online" not in other.said, "the other process has pushed it"

            leader.process.send_signal(signal.Signals[by])
            await other.until("online", TAKE_OVER_S)
            await other.write("after")
            await other.until("accepted after")

            if by == "SIGSTOP":
                leader.process.send_signal(signal.SIGCONT)
                await leader.until("following", TAKE_OVER_S)
                await leader.write("by the one that slept")
                await leader.until("accepted by the one that slept")
                assert other.said[-1] != "following", "one leads, and the one that woke is not it"
        finally:
            for program in programs:
                program.process.send_signal(signal.SIGKILL)
                await program.process.wait()
            nursery.cancel_scope.cancel()


async def test_a_transaction_of_an_earlier_reign_changes_nothing(tmp_path: Path) -> None:
    part = ReplicationPart(str)

    def fenced(term: int) -> Callable[[LocalTx], object]:
        change = Writeback(replication=Fenced(HubMet(b"hub", "somebody", ()), term))
        return lambda tx: part.stage(tx, change, [], {})

    engine = SQLiteEngine(tmp_path / "device.db")
    async with engine.open_database(SCHEMA, Environment(), frozenset({NOTES.name})) as one:
        async with engine.open_database(SCHEMA, Environment(), frozenset({NOTES.name})) as other:
            reigns: list[int] = []
            for database in (one, other):
                assert database.lead is not None
                database.lead.want(True)
                with trio.fail_after(TAKE_OVER_S):
                    await database.lead.wait_change(0)
                reigns.append(database.lead.term)
                database.lead.want(False)
            with pytest.raises(LeadLost):
                await one.apply(fenced(reigns[0]))
            assert (await one.inspect(lambda tx: tx.outbox.identity())).hub_id == b""
            await other.apply(fenced(reigns[1]))
            assert (await one.inspect(lambda tx: tx.outbox.identity())).hub_id == b"hub"
            assert reigns == [1, 2]


async def test_a_reign_that_began_before_anybody_waited_for_it_is_noticed() -> None:
    """The first beat may come before the task that follows the lead has begun to run."""
    companions = Companions()
    companions.take(CompanionsSeen({1: 1}, 1), 0.0)
    with trio.fail_after(60):
        await companions.wait_change(0)
    assert companions.term == 1


async def test_a_program_that_is_stopped_within_a_beat_does_not_take_the_others_for_silent(tmp_path: Path) -> None:
    ahead = 0.0
    environment = Environment(clock=lambda: trio.current_time() + ahead)
    engine, synced = SQLiteEngine(tmp_path / "device.db"), frozenset({NOTES.name})
    async with (
        engine.open_database(SCHEMA, Environment(), synced) as leader,
        engine.open_database(SCHEMA, environment, synced) as stopped,
    ):
        assert leader.lead is not None
        assert stopped.lead is not None
        with trio.fail_after(TAKE_OVER_S), closing(apsw.Connection(engine.path)) as tool:
            leader.lead.want(True)
            await leader.lead.wait_change(0)

            def beats(program: int) -> int:
                found: object = tool.execute("SELECT beat FROM _atoma_process WHERE id=?", (program,)).get
                assert isinstance(found, int)
                return found

            before = beats(stopped.lead.id)
            tool.set_busy_timeout(1_000)
            tool.execute("BEGIN IMMEDIATE")
            stopped.lead.want(True)
            while stopped.lead.woken.is_set():
                await trio.lowlevel.checkpoint()
            ahead = LEASE_S + 1  # its beat is on its way, and waits for the file
            tool.execute("ROLLBACK")
            while beats(stopped.lead.id) < before + 2:
                await trio.sleep(0.01)
            assert term_of(tool) == 1, "the leader has said that it is alive, and nobody was looking"


async def test_a_program_knows_whether_another_one_leads(tmp_path: Path) -> None:
    engine, synced = SQLiteEngine(tmp_path / "device.db"), frozenset({NOTES.name})
    async with (
        engine.open_database(SCHEMA, Environment(), synced) as one,
        engine.open_database(SCHEMA, Environment(), synced) as other,
    ):
        assert one.lead is not None
        assert other.lead is not None
        with trio.fail_after(TAKE_OVER_S):
            one.lead.want(True)
            await one.lead.wait_change(0)
            while not other.lead.led:
                await trio.sleep(0.01)
            assert not one.lead.led
            one.lead.want(False)
            other.lead.want(True)
            await other.lead.wait_change(0)
            while not one.lead.led:
                await trio.sleep(0.01)
            assert not other.lead.led
