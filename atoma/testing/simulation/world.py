"""One run: clients, a hub and a network in one thread, faults, and then the calm in which all has to come together."""

from __future__ import annotations

import logging
import math
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from atoma.client import open_client
from atoma.errors import ClosedError
from atoma.hub import Hub, StaticTokenVerifier, open_hub
from atoma.plugins import Plugin
from atoma.ports import Environment
from atoma.runtime import WriteHandle
from atoma.schema.ids import IdSource
from atoma.sync import Sync
from atoma.testing.simulation.encounters import OF_FRAMES, Encounters, Fault, State
from atoma.testing.simulation.files import FileCopy
from atoma.testing.simulation.history import History
from atoma.testing.simulation.network import Ambush, SplittingLink, StormyTransport, Weather
from atoma.testing.simulation.planted import plant
from atoma.testing.simulation.replicas import Replica
from atoma.testing.simulation.report import Report, Violation
from atoma.testing.simulation.scheduling import Trace, run_seeded
from atoma.testing.simulation.standing import Lookout, states_of_file
from atoma.testing.simulation.stores import SCHEMA, SCOPES, Item
from atoma.testing.simulation.swarm import Swarm, draw_swarm
from atoma.testing.simulation.watching import CommitWatch, WatchedHubStore
from atoma.testing.simulation.witness import Witness
from atoma.testing.simulation.workload import Person
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork
from atoma_transports.remote import Remote

WALL_START_MS = 1_700_000_000_000
DECADE_MS = 10 * 365 * 86_400_000
JUMPS_MS = (0, 5_000, -5_000, DECADE_MS, -DECADE_MS)
CALM_S = 300.0
CALM_PER_MUTATION_S = 5.0
LOOK_S = 1.0


@dataclass
class Mortal:
    """A program that can crash at any moment, with the file it leaves behind.

    Attributes:
        name: What it is called.
        path: Its database file.
        scope: Cancelled by a crash, None while it is down.
        wreck: What it has left, until that is put back.
        doom: The next crash is at its next commit.
    """

    name: str
    path: Path
    scope: trio.CancelScope | None = None
    wreck: FileCopy | None = None
    doom: bool = False
    jump_ms: int = 0
    on_death: Callable[[], None] = lambda: None

    @property
    def down(self) -> bool:
        """Whether it does not run."""
        return self.scope is None or self.dead

    @property
    def dead(self) -> bool:
        """Whether it has crashed and is on its way down: what it does now will not have happened."""
        return self.wreck is not None

    def crash(self) -> None:
        """End it at its next await, with its file as it is now; it has to be running."""
        assert self.scope is not None
        self.wreck = FileCopy.take(self.path)
        self.on_death()
        self.scope.cancel()

    def bury(self) -> None:
        """After it is gone: leave what the crash has left."""
        if self.wreck is not None:
            self.wreck.put(self.path)
            self.wreck = None


@dataclass
class World:
    """Everything in one run.

    Attributes:
        violation: The first broken promise.
    """

    folder: Path
    swarm: Swarm
    dice: random.Random
    trace: Trace
    counts: Counter[str] = field(default_factory=Counter[str])
    violation: Violation | None = None
    hub: Hub | None = None

    def __post_init__(self) -> None:
        self.clients = [Mortal(f"c{number}", self.folder / f"c{number}.db") for number in range(self.swarm.clients)]
        self.lives = {life.name: life for life in self.clients}
        self.sites = tuple(self.lives)
        self.network = MemoryNetwork()
        self.encounters = Encounters(self.counts, self.states_of)
        self.lookout = Lookout(self.dice, self.sites, self.states_of)
        self.weather = Weather(self.network, self.swarm, self.dice, self.counts, self.encounters, self.lookout)
        self.weather.on_frame = self._frame
        self.history = History(self.folder / "hub.db", self.counts)
        self.hub_life = Mortal("hub", self.folder / "hub.db")
        for life in self.clients:
            life.on_death = partial(self.network.disconnect, life.name)
        self.hub_life.on_death = self.network.disconnect
        self.replicas = {life.name: Replica(life.name, life.path, self.history, self.counts) for life in self.clients}
        self.people = {
            life.name: Person(life.name, self.swarm, self.dice, self._promised(life), self.encounters, self.lookout)
            for life in self.clients
        }
        self.witnesses: dict[str, Witness] = {}
        self.over = trio.CancelScope()
        self.written = trio.Event()
        self.virtual_s = 0.0

    # what is told

    def broken(self, violation: Violation) -> None:
        """A promise does not hold: remember the first, and end the run."""
        if self.violation is None:
            self.violation = violation
        self.over.cancel()

    def guarded(self, check: Callable[[], None]) -> Callable[[], None]:
        """``check`` as something that never raises."""

        def run() -> None:
            if self.violation is None:
                try:
                    check()
                except Violation as violation:
                    self.broken(violation)
                except Exception as error:
                    self.broken(Violation("checker", type(error).__name__, str(error)))

        return run

    def states_of(self, site: str) -> set[State]:
        """Where a device stands now."""
        states = set(states_of_file(self.replicas[site]))
        if self.hub is None:
            states.add(State.HUB_DOWN)
        if self.lives[site].down:
            return states | {State.DOWN}
        return states.union(self.weather.lines[site].states())

    def _frame(self, site: str, frame: bytes) -> None:
        self.trace.note(frame)
        self.lookout.notice(site)

    def _committed(self, life: Mortal, check: Callable[[], None]) -> Callable[[], None]:
        """After a commit: check, note, and crash if it was to be then."""
        guarded = self.guarded(check)

        def told() -> None:
            if life.dead:
                return
            self.trace.note(life.name, self.counts["mutations"], self.counts["hub transactions"])
            guarded()
            self._noticed(life)
            if life.doom and self._crash(life):
                self.counts["crashes at a commit"] += 1

        return told

    def _noticed(self, life: Mortal) -> None:
        """The states of a device may have changed; the hub's are part of every device's."""
        for site in self.sites if life is self.hub_life else (life.name,):
            self.lookout.notice(site)

    def environment(self, life: Mortal) -> Environment:
        """The outside world of one program: seeded, on virtual time, with a wall clock that jumps."""
        source = random.Random(self.dice.getrandbits(64))

        def wall_ms() -> int:
            return WALL_START_MS + life.jump_ms + int(trio.current_time() * 1000)

        ids = IdSource(wall_ms, random.Random(source.getrandbits(64)))
        return Environment(wall_ms=wall_ms, ids=ids, random=source, executor="inline")

    def _promised(self, life: Mortal) -> Callable[[str, WriteHandle[Item] | None], None]:
        """What to tell about a write that has returned."""

        def told(token: str, handle: WriteHandle[Item] | None) -> None:
            if not life.dead:
                self.guarded(partial(self.witnesses[life.name].returned, token, handle))()

        return told

    # programs

    def _fell(self, life: Mortal, error: Exception) -> None:
        """A program ended by itself."""
        if not isinstance(error, Violation):
            unexpected = Violation("unexpected", life.name, repr(error))
            unexpected.__cause__ = error
            error = unexpected
        self.broken(error)

    async def _live(self, life: Mortal, run: Callable[[], Awaitable[None]]) -> None:
        """Run a program again and again until the run is over."""
        while True:
            with trio.CancelScope() as life.scope:
                try:
                    await run()
                except Exception as error:
                    self._fell(life, error)
            life.scope = None
            life.bury()
            self._noticed(life)
            await trio.sleep(self.dice.expovariate(1 / 2.0))

    async def run_hub(self) -> None:
        """The hub, until it is cancelled."""
        life, history = self.hub_life, self.history
        store = WatchedHubStore(
            SQLiteHubStore(life.path), history, self._committed(life, history.observe), self.guarded(history.open)
        )
        verifier = StaticTokenVerifier({client.name: client.name for client in self.clients})
        environment = self.environment(life)
        limits = self.swarm.limits
        try:
            async with open_hub(SCHEMA, store, verifier=verifier, environment=environment, limits=limits) as self.hub:
                async with self.network.listen(self.hub):
                    self.weather.hub_runs = True
                    await trio.sleep_forever()
        finally:
            self.hub, self.weather.hub_runs = None, False
            self.network.disconnect()
            self._noticed(life)

    async def run_client(self, life: Mortal) -> None:
        """One client with its person, until it is cancelled."""
        replica, person = self.replicas[life.name], self.people[life.name]
        watch = CommitWatch(self.guarded(replica.open), self._committed(life, replica.observe), replica.close)
        transport = StormyTransport(self.weather, life.name)
        plugins: list[Plugin] = [
            LocalExecution(SQLiteEngine(life.path)),
            watch,
            Remote(transport, link=self.swarm.split == 0),
            Sync(stores=tuple(SCHEMA.stores.values()), scopes=SCOPES),
        ]
        if self.swarm.split:
            plugins.append(SplittingLink(transport, self.weather))
        environment = self.environment(life)
        witness = self.witnesses[life.name] = Witness(replica, self.history)
        async with (
            open_client(SCHEMA, plugins=plugins, policy="sync-queue", environment=environment) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(witness.watch, client)
            await person.work(client)
            if not any(other.left for other in self.people.values()):
                self.written.set()
            await trio.sleep_forever()

    # faults

    async def _now_and_then(self, pause: float, fault: Fault, strike: Callable[[str], Awaitable[None]]) -> None:
        """Strike a device again and again, until the run is calm."""
        while True:
            await trio.sleep(self.dice.expovariate(1 / pause))
            site = await self.lookout.find(fault)
            if self.weather.calm:
                return
            await strike(site)

    async def _crash_client(self, site: str) -> None:
        self._crash_somehow(self.lives[site])

    async def _crash_hub(self, _site: str) -> None:
        self._crash_somehow(self.hub_life)

    def _crash_somehow(self, life: Mortal) -> None:
        """Crash now, at the next commit, or in the middle of whatever happens after some steps."""
        match self.dice.randrange(4):
            case 0 | 1:
                self._crash(life)
            case 2:
                life.doom = True
            case _:
                self.trace.after(self.dice.randrange(1, 400), lambda: self._crash(life))

    def _crash(self, life: Mortal) -> bool:
        life.doom = False
        if self.weather.calm or life.down:
            return False
        if life is self.hub_life:
            self.encounters.meet(Fault.HUB_CRASH, *self.sites)
        else:
            self.encounters.meet(Fault.CLIENT_CRASH, life.name)
        life.crash()
        return True

    async def _jump_client(self, site: str) -> None:
        self.encounters.meet(Fault.CLIENT_CLOCK, site)
        self.lives[site].jump_ms = self.dice.choice(JUMPS_MS)

    async def _jump_hub(self, _site: str) -> None:
        self.encounters.meet(Fault.HUB_CLOCK, *self.sites)
        self.hub_life.jump_ms = self.dice.choice(JUMPS_MS)

    async def _cut(self, site: str) -> None:
        self.encounters.meet(Fault.CUT, site)
        self.network.partition(site)
        await self._heal(site)

    async def _silence(self, site: str) -> None:
        self.encounters.meet(Fault.SILENT, site)
        self.network.partition(site, silent=True)
        await self._heal(site)

    async def _deafen(self, site: str) -> None:
        """Frames of one direction vanish."""
        self.encounters.meet(Fault.ONE_WAY, site)
        direction = (site, self.dice.choice(("to-server", "to-client")))
        self.weather.vanishing.add(direction)
        await self._heal(site)
        self.weather.vanishing.discard(direction)

    async def _heal(self, site: str) -> None:
        await trio.sleep(self.dice.expovariate(1 / 6.0))
        self.network.heal(site)

    async def _compact(self, _site: str) -> None:
        # a hub whose clock jumps by ten years would forget its clients, and the checkers do not follow rebirths yet
        keep = self.dice.randint(0, self.swarm.keep)
        await self._maintain(Fault.COMPACTION, lambda hub: hub.compact(keep=keep, client_days=100 * 365))

    async def _renew(self, _site: str) -> None:
        await self._maintain(Fault.EPOCH, lambda hub: hub.new_epoch())

    async def _maintain(self, fault: Fault, work: Callable[[Hub], Awaitable[object]]) -> None:
        """Let an operator do ``work`` on the hub, if it runs."""
        if self.hub is None:
            return
        self.encounters.meet(fault, *self.sites)
        try:
            await work(self.hub)
        except ClosedError:
            return  # it crashed meanwhile

    # the run

    async def main(self) -> None:
        """Write under faults, then be calm until everything has come together."""
        self.trace.endless = lambda: self.broken(Violation("I19", "the run", "it never comes to rest"))
        with self.over:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._live, self.hub_life, self.run_hub)
                for life in self.clients:
                    nursery.start_soon(self._life_of, life, nursery)
                for pause, fault, strike in self._faults():
                    nursery.start_soon(self._now_and_then, pause, fault, strike)
                if math.isfinite(self.swarm.ambush_pause):
                    nursery.start_soon(self._ambush)
                await self.written.wait()
                await self._calm()
                nursery.cancel_scope.cancel()
        self.virtual_s = trio.current_time()

    async def _ambush(self) -> None:
        """Let the next frame of a device in a brief state suffer something."""
        while not self.weather.calm:
            await trio.sleep(self.dice.expovariate(1 / self.swarm.ambush_pause))
            fault = self.dice.choice(OF_FRAMES)
            self.weather.ambushes.append(Ambush(fault, self.lookout.brief(fault)))

    async def _life_of(self, life: Mortal, nursery: trio.Nursery) -> None:
        if self.swarm.late and life is not self.clients[0]:
            await trio.sleep(self.dice.expovariate(1 / self.swarm.late))
            self.network.partition(life.name)  # its first writes are made without a network
            nursery.start_soon(self._heal, life.name)

        async def run() -> None:
            await self.run_client(life)

        await self._live(life, run)

    def _faults(self) -> Iterator[tuple[float, Fault, Callable[[str], Awaitable[None]]]]:
        """Faults that come by themselves: mean pause, kind, what they do; the others come with frames and writes."""
        swarm = self.swarm
        yield swarm.client_crash_pause, Fault.CLIENT_CRASH, self._crash_client
        yield swarm.hub_crash_pause, Fault.HUB_CRASH, self._crash_hub
        yield swarm.jump_pause, Fault.CLIENT_CLOCK, self._jump_client
        yield swarm.jump_pause, Fault.HUB_CLOCK, self._jump_hub
        yield swarm.partition_pause, Fault.CUT, self._cut
        yield swarm.partition_pause, Fault.SILENT, self._silence
        yield swarm.partition_pause, Fault.ONE_WAY, self._deafen
        yield swarm.compact_pause, Fault.COMPACTION, self._compact
        yield swarm.epoch_pause, Fault.EPOCH, self._renew

    async def _calm(self) -> None:
        """I15: without writes and faults, every client reaches the hub's state, in a time that fits the backlog."""
        self.weather.settle()
        backlog = sum(len(replica.now.outbox) for replica in self.replicas.values() if replica.now is not None)
        with trio.move_on_after(CALM_S + CALM_PER_MUTATION_S * backlog) as patience:
            while any(replica.unfinished() for replica in self.replicas.values()):  # noqa: ASYNC110 - virtual time
                await trio.sleep(LOOK_S)
        if patience.cancelled_caught:
            left = "; ".join(f"{name}: {replica.unfinished()}" for name, replica in self.replicas.items())
            self.broken(Violation("I15", "the end", f"no convergence after {patience.deadline:g} s: {left}"))
            return
        await trio.sleep(LOOK_S)
        for witness in self.witnesses.values():
            self.guarded(witness.check)()


class _Complaints(logging.Handler):
    """Errors that the product logs because it has nobody to raise them to."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first one."""
        self.first = self.first or record


@contextmanager
def _complaints() -> Generator[_Complaints]:
    logger = logging.getLogger("atoma")
    handler, propagates = _Complaints(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


def scratch() -> str | None:
    """A folder in memory where there is one: files there are files, and an fsync costs nothing."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def simulate(seed: int, planted: str = "") -> Report:
    """Run one seed from beginning to end.

    Args:
        seed: Decides everything.
        planted: Name of a bug to plant for this run, see ``PLANTED``.

    Returns:
        What happened; a broken promise is in it, not raised.
    """
    wall_ms = Environment().wall_ms
    began_ms = wall_ms()
    dice = random.Random(seed)
    trace = Trace()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="atoma-", dir=scratch()))
        complaints = stack.enter_context(_complaints())
        stack.enter_context(plant(planted))
        world = World(Path(folder), draw_swarm(dice), dice, trace)
        violation: Violation | None = None
        try:
            run_seeded(world.main, seed, trace)
        except Exception as error:
            violation = Violation("unexpected", type(error).__name__, str(error))
            violation.__cause__ = error
        if complaints.first is not None:
            record = complaints.first
            cause = f": {record.exc_info[1]!r}" if record.exc_info else ""
            violation = violation or Violation("complaint", record.name, record.getMessage() + cause)
    return Report(
        seed,
        planted,
        world.violation or violation,
        world.counts,
        trace.digest,
        world.virtual_s,
        wall_s=(wall_ms() - began_ms) / 1000,
        met=world.encounters.met,
    )
