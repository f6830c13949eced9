"""What the hub writes beside its file, without an fsync, never costs it what it has promised."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import pytest
import trio

from atoma import Client, open_client, open_hub
from atoma.hub import AllowLoopback
from atoma.ports import Environment
from atoma.testing.simulation.running import scratch
from atoma_stores.sqlite import SQLiteHubStore
from atoma_stores.sqlite._readers import CHECKPOINT_PAGES
from atoma_stores.sqlite.database import open_database
from atoma_stores.sqlite.hub_lock import sole_hub
from atoma_stores.sqlite.hub_witness import HubWitness
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.power.disk import Disk, noted_disk
from tests.power.platter import Files, Platter, lay_down
from tests.power.promises import DATABASE, LOCK, read_facts, recovered
from tests.power.story import DOCS, SCHEMA, Doc

LARGE = "x" * 300_000
PAGE = 4_096
WAIT_S = 60.0


@dataclass
class Gate:
    """Holds up the sync of a database for the thread of checkpoints."""

    disk: Disk
    thread: str
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.disk.before_sync = self._before_sync

    def _before_sync(self, name: str) -> None:
        if name == DATABASE["hub"] and threading.current_thread().name == self.thread:
            self.reached.set()
            assert self.release.wait(WAIT_S)

    def power_goes(self) -> Files:
        """What the disk has: nothing that was not synced, but of the lock file everything."""
        platter = Platter(self.disk.notes)
        platter.advance(len(self.disk.notes))
        files = platter.cut("hub", random.Random(1), "nothing")
        return {**files, LOCK: (self.disk.folder / LOCK).read_bytes()}


@contextmanager
def gated(folder: Path, thread: str) -> Generator[Gate]:
    with noted_disk("gated", folder, beside=(LOCK,)) as disk:
        (folder / "hub").mkdir(parents=True)
        gate = Gate(disk, thread)
        try:
            yield gate
        finally:
            gate.release.set()


@asynccontextmanager
async def hub_and_client(path: Path, environment: Environment, vfs: str | None = None) -> AsyncGenerator[Client]:
    network = MemoryNetwork()
    store = SQLiteHubStore(path, vfs=vfs)
    async with (
        open_hub(SCHEMA, store, verifier=AllowLoopback(), environment=environment) as hub,
        network.listen(hub),
        open_client(SCHEMA, plugins=[Remote(MemoryTransport(network))], policy="direct-remote") as client,
    ):
        yield client


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where that is possible: the syncs of a busy disk would take their time."""
    with TemporaryDirectory(prefix="atoma-power-", dir=scratch()) as name:
        yield Path(name)


@pytest.mark.xdist_group("power cuts")
async def test_a_checkpoint_that_is_not_on_the_disk_yet_is_not_believed(folder: Path) -> None:
    """The main file shows what a checkpoint writes before the disk has it.

    Were that written into the lock file, the file would seem older than itself after a power cut, and its log, with all
    that was acknowledged, would be put aside as another file's.
    """
    now = 0.0
    acknowledged: list[str] = []
    with gated(folder / "before", "atoma-checkpoint") as gate:
        path = gate.disk.folder / DATABASE["hub"]
        async with hub_and_client(path, Environment(), "gated"):
            pass  # from now on there is something in the main file
        async with hub_and_client(path, Environment(clock=lambda: now), "gated") as client:

            async def write() -> None:
                acknowledged.append(str(len(acknowledged)))
                await client.store(DOCS).upsert(Doc(id=acknowledged[-1], text=LARGE), confirm="strict")

            while path.with_name("hub.db-wal").stat().st_size < (CHECKPOINT_PAGES + 50) * PAGE:
                await write()
            with trio.fail_after(WAIT_S):
                while not gate.reached.is_set():
                    await trio.sleep(0.01)  # nothing else runs, so that the thread gets on
            for _ in range(2):
                now += 10  # another second, in which the lock file is written
                await write()
            files = gate.power_goes()
            gate.release.set()
    lay_down(files, folder / "after")
    path = folder / "after" / DATABASE["hub"]
    async with hub_and_client(path, Environment()):
        pass  # it recovers the file, or puts its log aside
    with recovered("hub", folder / "after") as connection:
        found = read_facts("hub", connection).rows or {}
    assert sorted(id for _, id in found) == sorted(acknowledged)
    assert [beside.name for beside in path.parent.iterdir() if "orphan" in beside.name] == []


@pytest.mark.xdist_group("power cuts")
async def test_what_is_seen_in_the_main_file_is_synced_before_it_is_written_down(folder: Path) -> None:
    """Whoever else takes a checkpoint at that moment."""
    with gated(folder / "before", "somebody else") as gate:
        path = str(gate.disk.folder / DATABASE["hub"])
        environment = Environment()
        with sole_hub(path) as lock:
            witness = HubWitness(path, lock, "gated", environment)
            async with open_database(path, environment=environment, vfs="gated") as database:
                await database.transact(lambda c: c.execute("CREATE TABLE _atoma_hub_info AS SELECT 3 AS commits"))
            async with open_database(path, environment=environment, vfs="gated") as database:
                await database.transact(lambda c: c.execute("UPDATE _atoma_hub_info SET commits=7"))

                def checkpoint() -> None:
                    threading.current_thread().name = "somebody else"
                    with closing(apsw.Connection(path, vfs="gated")) as other:
                        other.pragma("cache_size", 100)  # whoever has not read the schema knows of no log
                        other.wal_checkpoint()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.to_thread.run_sync, checkpoint)
                    with trio.fail_after(WAIT_S):
                        while not gate.reached.is_set():
                            await trio.sleep(0.001)
                    witness.note(b"e", 7)
                    witness.main.look()
                    witness.write()
                    files = gate.power_goes()
                    gate.release.set()
    lay_down(files, folder / "after")
    after = str(folder / "after" / DATABASE["hub"])
    with sole_hub(after) as lock:
        beside = lock.read()
        assert beside is not None and beside.checkpointed == 7
        HubWitness(after, lock, None, environment).set_foreign_log_aside()
    assert list(Path(after).parent.glob("*orphan*")) == []
