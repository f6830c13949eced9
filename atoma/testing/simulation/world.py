"""One run: clients, a hub and a network in one thread, faults, and then the calm in which all has to come together."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from atoma.client import open_client
from atoma.errors import ClosedError, StoreError
from atoma.hub import Hub, StaticTokenVerifier, open_hub
from atoma.plugins import Plugin
from atoma.runtime import WriteHandle
from atoma.schema import ScopePart
from atoma.sync import IdleScopes, Sync
from atoma.sync.policies import HubLossPolicy
from atoma.testing.simulation.accounts import check_every_write
from atoma.testing.simulation.encounters import (
    BRIEF_IN_PARTS,
    BRIEF_OF,
    BRIEF_ON_DISKS,
    OF_DISKS,
    OF_FRAMES,
    OF_HUB_DISKS,
    Encounters,
    Fault,
    State,
)
from atoma.testing.simulation.history import History
from atoma.testing.simulation.liar import Liar
from atoma.testing.simulation.network import Ambush, SplittingLink, StormyTransport, Weather
from atoma.testing.simulation.outages import Outages
from atoma.testing.simulation.parts import SHAPED, Parts
from atoma.testing.simulation.programs import Mortal, outside
from atoma.testing.simulation.replicas import Replica
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.restoring import Disasters, downgrade_device
from atoma.testing.simulation.scheduling import Trace
from atoma.testing.simulation.standing import Lookout, states_of_file
from atoma.testing.simulation.stores import RULES, SCHEMA, SCOPES, Item, written_for
from atoma.testing.simulation.swarm import Restores, Swarm
from atoma.testing.simulation.wandering import wander
from atoma.testing.simulation.watching import CommitWatch, WatchedHubStore
from atoma.testing.simulation.witness import Witness
from atoma.testing.simulation.workload import Person
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork
from atoma_transports.remote import Remote

DECADE_MS = 10 * 365 * 86_400_000
JUMPS_MS = (0, 5_000, -5_000, DECADE_MS, -DECADE_MS)
CALM_S = 300.0
CALM_PER_MUTATION_S = 5.0
REPAIRS_S = 2_000.0
"""A device that was repaired again and again waits longer than it does for anything else."""
LOOK_S = 1.0
IDLE_S = 3
DAY_S = 86_400.0
HUB_GOES_TOO = 0.3
NEVER_DAYS = 100 * 365


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
        self.schema = SHAPED if self.swarm.extras.parts else SCHEMA
        names = [f"c{number}" for number in range(self.swarm.clients)]
        self.clients = [Mortal(name, self.folder / f"{name}.db", name) for name in names]
        self.lives = {life.name: life for life in self.clients}
        self.sites = list(self.lives)
        self.network = MemoryNetwork()
        self.encounters = Encounters(self.counts, self.states_of)
        extras, brief = self.swarm.extras, BRIEF_OF[self.swarm.kind]
        for asked, more in ((extras.disks, BRIEF_ON_DISKS), (extras.parts, BRIEF_IN_PARTS)):
            brief = {**brief, **more} if asked else brief
        self.lookout = Lookout(self.dice, self.sites, self.states_of, brief)
        self.weather = Weather(self.network, self.swarm, self.dice, self.counts, self.encounters, self.lookout)
        self.weather.on_frame = self._frame
        self.history = History(self.folder / "hub.db", self.counts)
        self.hub_life = Mortal("hub", self.folder / "hub.db")
        self.hub_life.on_death = self.network.disconnect
        self.replicas: dict[str, Replica] = {}
        self.people: dict[str, Person] = {}
        self.policies: dict[str, HubLossPolicy] = {}
        self.outages = Outages(self.dice, self.counts)
        if self.swarm.extras.disks:
            self.outages.add(self.hub_life)
        for life in self.clients:
            self.furnish(life)
        self.witnesses: dict[str, Witness] = {}
        self.disasters = None
        if (restores := self.swarm.restores) is not None:
            self.disasters = Disasters(restores, self.dice, self.history, self.hub_life, self.counts)
        self.over = trio.CancelScope()
        self.written = trio.Event()
        self.virtual_s = 0.0

    def furnish(self, life: Mortal) -> None:
        """Give a device its person and its checker."""
        life.on_death = partial(self.network.disconnect, life.name)
        self.replicas[life.name] = Replica(life.name, life.path, self.history, self.counts, user=life.user)
        if self.swarm.extras.disks:
            self.replicas[life.name].disk = self.outages.add(life)
        self.people[life.name] = Person(
            life.name, self.swarm, self.dice, self._promised(life), self.encounters, self.lookout
        )
        self.people[life.name].user = life.user
        self.people[life.name].excused = partial(self.outages.excuse, life)
        if (share := self.swarm.extras.parts) and self.dice.random() < share:
            self.replicas[life.name].parts = Parts.drawn(self.dice)
        self.people[life.name].at_work = self.replicas[life.name].at_work
        restores = self.swarm.restores
        self.policies[life.name] = "offer" if restores is None else self.dice.choice(restores.policies)

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
        if (own := self.replicas[site].disk) is not None and own.has_tail:
            states.add(State.UNSYNCED)
        return states.union(self.weather.lines[site].states())

    def _frame(self, site: str, direction: str, frame: bytes) -> None:
        if self.swarm.extras.secrets and direction == "to-client":
            self.guarded(partial(self._check_readable, site, frame))()
        self.trace.note(frame)
        self.lookout.notice(site)

    def _check_readable(self, site: str, frame: bytes) -> None:
        """I18: each row that leaves the hub says for whom it is."""
        user = self.lives[site].user
        for told in written_for(frame):
            if user not in told:
                raise Violation("I18", site, f"the hub sent {user} what is for {' and '.join(told)}")

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

    def _promised(self, life: Mortal) -> Callable[[str, WriteHandle[Item] | None], None]:
        """What to tell about a write that has returned."""

        def told(token: str, handle: WriteHandle[Item] | None) -> None:
            if not life.dead:
                self.guarded(partial(self.witnesses[life.name].returned, token, handle))()

        return told

    # programs

    def _fell(self, life: Mortal, error: Exception) -> None:
        """A program ended by itself, as one may when its disk fails."""
        if self.outages.excuse(life, error):
            self.counts["programs ended by their disks"] += 1
            return
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
        if (own := self.outages.under.get(life.name)) is not None:
            own.begin()
        store = WatchedHubStore(
            SQLiteHubStore(life.path, vfs=None if own is None else own.vfs),
            history,
            self._committed(life, history.observe),
            self.guarded(history.open),
        )
        verifier = StaticTokenVerifier({client.name: client.name for client in self.clients})
        environment = outside(life, self.dice)
        limits, rules = self.swarm.limits, RULES if self.swarm.extras.secrets else None
        try:
            async with open_hub(
                self.schema, store, verifier=verifier, row_rules=rules, environment=environment, limits=limits
            ) as hub:
                await self._say_what_was_lost(hub)
                self.hub = hub
                async with self.network.listen(hub):
                    self.weather.hub_runs = True
                    await trio.sleep_forever()
        finally:
            self.hub, self.weather.hub_runs = None, False
            self.network.disconnect()
            self._noticed(life)

    async def _say_what_was_lost(self, hub: Hub) -> None:
        """The operator of a hub that cannot know of its restore says so before it serves anybody."""
        while self.disasters is not None and self.disasters.words:
            await hub.new_epoch(devices=self.disasters.words[0])
            self.disasters.words.pop(0)

    async def run_client(self, life: Mortal) -> None:
        """One client with its person, until it is cancelled."""
        replica, person = self.replicas[life.name], self.people[life.name]
        if (own := replica.disk) is not None:
            own.begin(replica.memory)
        watch = CommitWatch(self.guarded(replica.open), self._committed(life, replica.observe), replica.close)
        transport = StormyTransport(self.weather, life.name, life.user)
        plugins: list[Plugin] = [
            LocalExecution(SQLiteEngine(life.path, vfs=None if own is None else own.vfs)),
            watch,
            Remote(transport, link=self.swarm.split == 0),
            self._sync_of(life),
        ]
        if self.swarm.split:
            plugins.append(SplittingLink(transport, self.weather))
        environment = outside(life, self.dice)
        witness = self.witnesses[life.name] = Witness(replica)
        async with (
            open_client(self.schema, plugins=plugins, policy="sync-queue", environment=environment) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(witness.watch, client)
            if (parts := replica.parts) is not None:
                nursery.start_soon(wander, client, parts, self.weather, self.counts)
            person.begin(client)
            try:
                await person.work(client)
                if not any(other.left for other in self.people.values()):
                    self.written.set()
                await trio.sleep_forever()
            finally:
                person.end()

    def _sync_of(self, life: Mortal) -> Sync:
        stores, policy, parts = tuple(SCHEMA.stores.values()), self.policies[life.name], self.replicas[life.name].parts
        if parts is None:
            return Sync(stores=stores, scopes=SCOPES, on_hub_loss=policy)
        parts.draw(self.dice)
        scopes: tuple[str | ScopePart, ...] = (*(piece.part for piece in parts.always), "side")
        return Sync(stores=stores, scopes=scopes, on_hub_loss=policy, idle=IdleScopes(seconds=IDLE_S))

    # faults

    async def _now_and_then(self, pause: float, fault: Fault, strike: Callable[[str], Awaitable[None]]) -> None:
        """Strike a device again and again, until the run is calm."""
        while math.isfinite(pause):
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
            if self.hub is not None:  # else it is being opened, and nobody is served yet
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
        # a hub whose clock jumps by ten years would forget its clients: that is a fault of its own
        keep = self.dice.randint(0, self.swarm.keep)
        days = 30.0 if self.swarm.restores is None else self.dice.choice(self.swarm.restores.keep_days)
        await self._maintain(
            Fault.COMPACTION, lambda hub: hub.compact(keep=keep, keep_days=days, client_days=NEVER_DAYS, force=True)
        )

    async def _renew(self, _site: str) -> None:
        await self._maintain(Fault.EPOCH, lambda hub: hub.new_epoch())

    async def _expire(self, _site: str) -> None:
        """Forget devices that were not here for some seconds, with or without a part of the log."""
        assert self.disasters is not None
        restores, dice = self.disasters.restores, self.dice
        keep, days = dice.choice((0, self.swarm.keep, 10_000)), dice.choice(restores.keep_days)
        seconds = dice.choice((0.0, 5.0, 20.0))
        await self._maintain(
            Fault.EXPIRED, lambda hub: hub.compact(keep=keep, keep_days=days, client_days=seconds / DAY_S, force=True)
        )

    async def _back_up(self, _site: str) -> None:
        if self.disasters is not None and self.hub is not None:
            self.disasters.back_up()

    async def _restore_hub(self, _site: str) -> None:
        """Go back to a backup, or forward again to one that was made before going back."""
        disasters, dice = self.disasters, self.dice
        if disasters is None or not disasters.backups:
            return
        copy = dice.choice(disasters.backups)
        if self.hub is not None and dice.random() < 0.5:
            disasters.back_up()
        self.encounters.meet(Fault.HUB_RESTORED, *self.sites)
        disasters.go_back(copy, untold=self.swarm.extras.untold)

    async def _snapshot(self, site: str) -> None:
        if self.disasters is not None and self.replicas[site].now is not None and not self.lives[site].dead:
            self.disasters.snapshot(self.replicas[site])

    async def _restore_device(self, site: str) -> None:
        copies = () if self.disasters is None else self.disasters.snapshots.get(site, ())
        if self.disasters is not None and copies:
            self.encounters.meet(Fault.FILE_RESTORED, site)
            self.disasters.restore_device(self.lives[site], self.replicas[site], self.dice.choice(copies))

    async def _clone(self, site: str, nursery: trio.Nursery) -> None:
        """A copy of a device's file goes on as another device of the same user."""
        disasters, replica, source = self.disasters, self.replicas[site], self.lives[site]
        if disasters is None or replica.now is None or source.dead or self.written.is_set():
            return
        if len(self.sites) >= self.swarm.clients + disasters.restores.clones:
            return
        self.encounters.meet(Fault.CLONED, site)
        name = f"{site}copy{len(self.sites)}"
        life = Mortal(name, self.folder / f"{name}.db", source.user)
        self.furnish(life)
        if (parts := replica.parts) is not None:
            self.replicas[name].parts = parts.copy()
        self.people[name].left = self.swarm.writes // 2
        disasters.snapshot(replica).put(self.replicas[name])
        self.clients.append(life)
        self.lives[name] = life
        self.sites.append(name)
        nursery.start_soon(self._life_of, life, nursery)

    async def _downgrade(self, site: str, nursery: trio.Nursery) -> None:
        """A device's file turns out to be one of an earlier version; it finds no network at first, and perhaps another hub."""
        if self.replicas[site].now is not None:
            self.encounters.meet(Fault.DOWNGRADED, site)
            downgrade_device(self.lives[site], self.replicas[site])
            self.network.partition(site)
            nursery.start_soon(self._heal, site)
            if self.dice.random() < HUB_GOES_TOO:
                await self._restore_hub(site)

    async def _strike_disk(self, site: str, fault: Fault) -> None:
        """The power goes, or a disk is full, or fails."""
        of_hub = fault in OF_HUB_DISKS
        life = self.hub_life if of_hub else self.lives[site]
        cut = fault in (Fault.TAIL_LOST, Fault.HUB_TAIL_LOST)
        if cut and (life.down or (of_hub and self.hub is None)):
            return
        self.encounters.meet(fault, *(self.sites if of_hub else (site,)))
        if cut:
            self.guarded(partial(self.outages.cut, life, None if of_hub else self.replicas[site]))()
        else:
            await self.outages.fail(life, fault)

    async def _maintain(self, fault: Fault, work: Callable[[Hub], Awaitable[object]]) -> None:
        """Let an operator do ``work`` on the hub, if it runs."""
        if self.hub is None:
            return
        self.encounters.meet(fault, *self.sites)
        try:
            await work(self.hub)
        except ClosedError:
            return  # it crashed meanwhile
        except StoreError as error:
            if not self.outages.excuse(self.hub_life, error):
                raise

    # the run

    async def main(self) -> None:
        """Write under faults, then be calm until everything has come together."""
        self.trace.endless = lambda: self.broken(Violation("I19", "the run", "it never comes to rest"))
        with self.outages.stack, self.over:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._live, self.hub_life, self.run_hub)
                for life in tuple(self.clients):
                    nursery.start_soon(self._life_of, life, nursery)
                for pause, fault, strike in self._faults(nursery):
                    nursery.start_soon(self._now_and_then, pause, fault, strike)
                if lies := self.swarm.extras.lies:
                    liar = Liar(self.history, self.dice)
                    nursery.start_soon(liar.go_on, 1 / lies, lambda: self.hub, lambda: self.weather.calm)
                if math.isfinite(self.swarm.ambush_pause):
                    nursery.start_soon(self._ambush)
                if (restores := self.swarm.restores) is not None:
                    nursery.start_soon(self._copy_files, restores)
                await self.written.wait()
                await self._calm()
                nursery.cancel_scope.cancel()
        self.virtual_s = trio.current_time()

    async def _copy_files(self, restores: Restores) -> None:
        """Make backups and snapshots, so that there is something to put back."""
        while not self.weather.calm:
            hub = self.dice.random() * restores.snapshot_pause < self.dice.random() * restores.backup_pause
            await trio.sleep(self.dice.expovariate(1 / (restores.snapshot_pause if hub else restores.backup_pause)))
            await (self._back_up("") if hub else self._snapshot(self.dice.choice(self.sites)))

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

    def _faults(self, nursery: trio.Nursery) -> Iterator[tuple[float, Fault, Callable[[str], Awaitable[None]]]]:
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
        if rate := swarm.extras.disks:
            for fault in OF_DISKS:
                yield len(OF_DISKS) / rate, fault, partial(self._strike_disk, fault=fault)
        if rate := swarm.extras.downgrades:
            yield 1 / rate, Fault.DOWNGRADED, partial(self._downgrade, nursery=nursery)
        if (restores := swarm.restores) is not None:
            yield restores.hub_pause, Fault.HUB_RESTORED, self._restore_hub
            yield restores.file_pause, Fault.FILE_RESTORED, self._restore_device
            yield restores.clone_pause, Fault.CLONED, partial(self._clone, nursery=nursery)
            yield restores.expiry_pause, Fault.EXPIRED, self._expire

    async def _calm(self) -> None:
        """I15: without writes and faults, every client reaches the hub's state, in a time that fits the backlog."""
        self.weather.settle()
        for life in (self.hub_life, *self.clients):
            self.outages.mend(life)
        if self.swarm.extras.minds:
            for person in self.people.values():
                await person.let_go()
        if not await self._come_together():
            return
        if self.disasters is not None:
            await self._answer(self.disasters.restores)
            if not await self._come_together():
                return
        await trio.sleep(LOOK_S)
        for witness in self.witnesses.values():
            self.guarded(witness.check)()
        if self.disasters is not None:
            self.guarded(partial(check_every_write, self.history, self.replicas.values(), self.disasters.gone))()

    async def _come_together(self) -> bool:
        backlog = sum(len(replica.now.outbox) for replica in self.replicas.values() if replica.now is not None)
        bound = CALM_S if self.disasters is None else CALM_S + REPAIRS_S
        with trio.move_on_after(bound + CALM_PER_MUTATION_S * backlog) as patience:
            while any(replica.unfinished() for replica in self.replicas.values()):
                await trio.sleep(LOOK_S)
                if self.disasters is not None:
                    for person in self.people.values():
                        await person.help()
        if patience.cancelled_caught:
            left = "; ".join(f"{name}: {replica.unfinished()}" for name, replica in self.replicas.items())
            self.broken(Violation("I15", "the end", f"no convergence after {patience.deadline:g} s: {left}"))
        return not patience.cancelled_caught

    async def _answer(self, restores: Restores) -> None:
        """The operator allows deletions, the people bring back what is still kept; or nobody does."""
        if not restores.answered or self.hub is None:
            return
        for ended in await self.hub.epochs():
            await self.hub.allow_deletes(ended.epoch)
            if self.swarm.extras.downgrades:
                await self.hub.accept_unproven(ended.epoch)
        for person in self.people.values():
            await person.bring_back(unproven=not self.swarm.extras.downgrades or self.dice.random() < 0.5)
        self.network.disconnect()
