"""Makes the golden files. It is run once per golden commit, by that commit's own code; see README.md.

Everything is a function of the seeds: the clock is virtual, the order of tasks, ids and identities are drawn. Made again,
the files hold the same.
"""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from atoma.errors import ConflictError
from atoma.ports import seeded_environment
from atoma.testing.simulation.scheduling import Trace, run_seeded
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from tests.golden.kit import (
    CARDS,
    DRAFTS,
    FENCED,
    FORGOTTEN,
    FULL,
    KEPT,
    NOTES,
    SEATS,
    THINGS,
    Card,
    Device,
    Mood,
    Note,
    Seat,
    Thing,
    device_on,
    hub_on,
)
from tests.golden.names import decode_frame

HOLD = 0


class Valve:
    """Lets so many replies to a method through, then none.

    Attributes:
        left: How many more, by method and scope; what is not in it passes.
    """

    def __init__(self) -> None:
        self.left: dict[tuple[str, str], int] = {}
        self._asked: dict[int, tuple[str, str]] = {}

    async def on_frame(self, direction: str, frame: bytes) -> Sequence[bytes]:
        told = decode_frame(frame, 2**30)
        if told.kind == "call":
            scope = msgspec.msgpack.decode(told.payload).get("scope", "")
            self._asked[told.id] = (told.method, scope)
        elif told.kind == "reply":
            asked = self._asked[told.id]
            left = self.left.get(asked)
            if left is not None:
                if left <= HOLD:
                    return ()
                self.left[asked] = left - 1
        return (frame,)


def copy_of(source: Path, target: Path) -> None:
    """What a program that is killed now would leave, in one file."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / source.name
        for suffix in ("", "-wal"):
            if Path(f"{source}{suffix}").exists():
                shutil.copy(f"{source}{suffix}", f"{copied}{suffix}")
        with closing(sqlite3.connect(copied)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        target.with_suffix(".atoma.gz").write_bytes(gzip.compress(copied.read_bytes(), mtime=0))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so."""
    with trio.fail_after(20):
        while not await condition():
            await trio.sleep(0.05)


class Story:
    """A hub, a device that fills it, and the two devices that become files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = MemoryNetwork()
        self.openings = 0

    def environment(self) -> Any:
        """Another one at every opening."""
        self.openings += 1
        return seeded_environment(self.openings)

    @asynccontextmanager
    async def device(
        self, name: str, token: str, valve: Valve | None = None, *, syncs: bool = True
    ) -> AsyncGenerator[Device]:
        transport = MemoryTransport(self.network, token=token, site=name, faults=valve)
        async with device_on(self.folder / f"{name}.db", transport, self.environment(), syncs=syncs) as device:
            yield device

    async def settle(self, *devices: Device) -> None:
        """Until nothing is left to do."""
        with trio.fail_after(100):
            for device in devices:
                await device.sync.wait_idle()

    async def tell(self, target: Path) -> None:
        """The whole story; leaves the golden files in ``target``."""
        async with hub_on(self.folder / "hub.db", self.environment()) as hub, self.network.listen(hub):
            async with self.device("filling", "b-token") as bob:
                await self.fill(bob)
                await self.write_directly(Card(id="direct", title="by itself"), FORGOTTEN)
                await self.leave_late_behind(bob)
                await trio.sleep(1)
                await hub.compact(keep=2, keep_days=0)
                await bob.store(CARDS).delete("c6")
                await bob.store(CARDS).update("c0", title="zero")
                await self.settle(bob)
                await self.write_directly(Card(id="direct", title="again"), FENCED)
                await self.make_shown(target / "shown")
                await self.make_device(bob, target / "device")
            await self.make_late(target / "late")
            copy_of(self.folder / "hub.db", target / "hub")

    async def fill(self, bob: Device) -> None:
        """Rows of every kind in two scopes."""
        await bob.store(CARDS).insert_many([Card(id=f"c{n}", title=f"card {n}", rank=n / 2) for n in range(8)])
        await bob.store(CARDS).insert_many([Card(id=f"s{n}", board="side") for n in range(9)])
        await bob.store(NOTES).insert_many([Note(id=f"n{n}", text=f"note {n}") for n in range(4)])
        await bob.store(KEPT).insert(Note(id="k0", text="kept"))
        await bob.store(SEATS).insert(Seat(id="p0", place="door"))
        await bob.store(THINGS).insert_many([FULL, Thing(id="bare")])
        await self.settle(bob)

    async def write_directly(self, card: Card, lost: str) -> None:
        """Answers of direct writes at the hub: one that was done, one that was refused, and a key that is fenced."""
        async with self.device("direct", "b-token", syncs=False) as direct:
            await direct.store(CARDS).upsert(card, confirm="strict")
            with pytest.raises(ConflictError):
                await direct.store(CARDS).insert(Card(id="c0"), confirm="strict")
            assert (await direct.client.resolve(lost)).abandoned

    async def leave_late_behind(self, bob: Device) -> None:
        """The late device has it all, writes, and is not heard of while the hub goes on."""
        async with self.device("late", "a-token") as late:
            await self.settle(late)
            late.sync.pause()
            await late.store(CARDS).update("c1", title="late")
            await late.store(CARDS).insert(Card(id="late", rank=9.5))
            await late.store(CARDS).delete("s0")
            await late.store(KEPT).update("k0", color="late's")
        await bob.store(CARDS).delete("c7")
        await bob.store(CARDS).delete("s8")
        for n in range(3):
            await bob.store(CARDS).update("c0", rank=10.0 + n)
            await bob.store(CARDS).update("s1", rank=10.0 + n)
        await self.settle(bob)

    async def make_shown(self, target: Path) -> None:
        """A direct write is shown until its answer comes, which a program that is killed never sees."""
        valve = Valve()
        valve.left["write", ""] = HOLD
        async with self.device("shown", "a-token", valve, syncs=False) as ann, trio.open_nursery() as nursery:
            await ann.store(DRAFTS).insert(Note(id="d0", text="before"), policy="direct-local")
            nursery.start_soon(self.show, ann)
            await trio.sleep(1)
            copy_of(self.folder / "shown.db", target)
            nursery.cancel_scope.cancel()

    async def show(self, ann: Device) -> None:
        """Write and never hear the answer."""
        await ann.store(DRAFTS).update("d0", text="shown")
        await trio.sleep_forever()

    async def make_device(self, bob: Device, target: Path) -> None:
        """One scope live with everything pending that there can be, the other one in the middle of its first sync."""
        valve = Valve()
        valve.left["snapshot", "side"] = 1
        async with self.device("device", "a-token", valve) as ann:
            await until(lambda: self._is_live(ann, "main"))
            await until(lambda: self._is_staged(ann, "side"))
            ann.sync.pause()
            await self.quarrel(bob, ann)
            valve.left["snapshot", "side"] = HOLD
            ann.sync.resume()
            await until(lambda: self._is_sent(ann))
            await trio.sleep(1)
            dismissed = [entry for entry in await ann.client.inbox.entries() if entry.id == "n1"]
            await ann.client.inbox.dismiss(dismissed[0])
            valve.left["pull", "main"] = HOLD
            await ann.store(CARDS).update("c2", rank=2.5)  # accepted, and its page is still to come
            await until(lambda: self._is_sent(ann))
            valve.left["push", ""] = HOLD
            await ann.store(CARDS).update("c3", rank=3.5)  # decided, and the reply is lost
            await trio.sleep(2)
            ann.sync.pause()
            await trio.sleep(1)
            await self.write_offline(ann)
            copy_of(self.folder / "device.db", target)

    async def quarrel(self, bob: Device, ann: Device) -> None:
        """Both change the same rows: the hub refuses some of ann's writes, and merges one."""
        await ann.store(NOTES).update("n0", text="ann's")
        await ann.store(NOTES).update("n1", text="ann's too")
        await ann.store(KEPT).update("k0", text="ann's", color="red")
        await ann.store(SEATS).insert(Seat(id="p1", place="window", by="ann"))
        await ann.store(SEATS).update("p1", by="ann herself")
        await bob.store(NOTES).update("n0", text="bob's")
        await bob.store(NOTES).delete("n1")
        await bob.store(KEPT).update("k0", text="bob's")
        await bob.store(SEATS).insert(Seat(id="p2", place="window", by="bob"))
        await self.settle(bob)

    async def write_offline(self, ann: Device) -> None:
        """Every kind of operation, alone, in units and in transactions."""
        await ann.store(CARDS).insert(Card(id="q1", title="queued", done=True))
        await ann.store(CARDS).update("q1", lane="done")
        await ann.store(CARDS).update("c0", title="ann's")
        await ann.store(CARDS).delete("c4")
        await ann.store(CARDS).upsert(Card(id="c1", title="whole"))
        await ann.store(CARDS).upsert({"id": "q2", "title": "partly"})
        await ann.store(CARDS).insert(Card(id="q3", board="side"))
        await ann.store(THINGS).update(
            "full", price=Decimal("0.10"), moment=datetime(2026, 1, 2, tzinfo=UTC), mood=Mood.CALM, tags=["new"]
        )
        await ann.store(NOTES).insert_many([Note(id="q4"), Note(id="q5")])
        async with ann.client.transaction() as tx:
            await tx.store(CARDS).update("c0", rank=0.5)
            await tx.store(NOTES).delete("n3")
        await ann.store(DRAFTS).insert(Note(id="d0", text="stays here"), policy="direct-local")

    async def make_late(self, target: Path) -> None:
        """Behind the hub's log: one scope in the middle of its new snapshot, the other one with all but its end."""
        valve = Valve()
        valve.left = {("snapshot", "main"): 2, ("pull", "side"): HOLD, ("push", ""): HOLD}
        async with self.device("late", "a-token", valve) as late:
            await until(lambda: self._is_staged(late, "main"))
            await trio.sleep(2)
            copy_of(self.folder / "late.db", target)

    async def _is_live(self, device: Device, scope: str) -> bool:
        return bool(device.sync.status.scope(scope).state == "live")

    async def _is_sent(self, device: Device) -> bool:
        return not await device.inspect(lambda tx: tx.outbox(limit=1, max_bytes=1))

    async def _is_staged(self, device: Device, scope: str) -> bool:
        """Whether a page, and not the first, is there."""
        return bool((await device.inspect(lambda tx: tx.subscription(scope))).token)


def make(target: Path) -> None:
    """Write the golden files into ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder))
        run_seeded(lambda: story.tell(target), 1, Trace())


if __name__ == "__main__":
    make(Path(sys.argv[1]))
