"""The simulation of an application: its own stores, actions and invariants, on many devices and a hub, under seeded faults.

A seed decides everything: who does what and when, what the network loses, who crashes. So a seed that fails fails again. It runs
in one thread on virtual time, with real files, and with the scheduler of ``atoma.testing.simulation``.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import trio

from atoma.contracts.checks import is_a
from atoma.errors import ClosedError, ConfigurationError
from atoma.hub import Rules
from atoma.ports.tasks import open_tasks
from atoma.schema import Schema
from atoma.testing.seats import Device, HubSeat
from atoma.testing.simulation.running import scratch
from atoma.testing.simulation.scheduling import Trace, run_seeded
from atoma.testing.world import World, open_world

Action: TypeAlias = Callable[[Device, random.Random], Awaitable[object]]
"""What somebody does on a device, with the dice that decide the rest of it."""
Invariant: TypeAlias = Callable[[Device], Awaitable[object]]
"""What holds on a device at any moment; it raises when it does not."""
Outcome: TypeAlias = Callable[[World], Awaitable[object]]
"""What holds once everybody has everything; it raises when it does not."""

SEEDS = "ATOMA_SEEDS"
"""The variable of the environment that names other seeds: ``17``, or ``100-199``."""
SHOWN = 12
THINK_S = 30.0
"""A person does something so often, on the average."""
FATE_S = 40.0
"""Something goes wrong so often, on the average."""
OUTAGE_S = 300.0
"""A mishap lasts so long, on the average."""
STEPS_INTO = 8
"""A device crashes before it has made so many steps of what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, and how often.

    Attributes:
        lost: The share of frames that do not arrive.
        doubled: The share of frames that arrive twice.
        delay_s: How long a frame is on its way at most.
        unplugged: How often a device is unplugged, among the mishaps; as the other numbers of this kind, it is a weight.
        silenced: How often its connection dies without anybody being told.
        crashed: How often a device crashes and is started again.
        hub_crashed: How often the hub does.
    """

    lost: float = 0.02
    doubled: float = 0.02
    delay_s: float = 1.0
    unplugged: int = 3
    silenced: int = 1
    crashed: int = 2
    hub_crashed: int = 1


NO_FAULTS = Faults(lost=0, doubled=0, delay_s=0, unplugged=0, silenced=0, crashed=0, hub_crashed=0)


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What a seed has met.

    Attributes:
        seed: The seed.
        counts: How often each action was carried out and each fault struck.
        virtual_s: How long it took by the clock of the devices.
        trace: A hash of every step of every task: equal for equal seeds.
    """

    seed: int
    counts: Mapping[str, int]
    virtual_s: float
    trace: str


class SimulationFailed(AssertionError):
    """A seed breaks what the application promises; the message says what, when, what came before, and how to see it again.

    Attributes:
        seed: The seed.
        what: The action or invariant that failed, and on which device; or ``settling``.
    """

    def __init__(self, seed: int, what: str, steps: Collection[str], cause: BaseException) -> None:
        again = f"{SEEDS}={seed}"
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0].partition("[")[0]
        lines = [
            f"seed {seed} fails in {what}: {type(cause).__name__}: {cause}",
            "before that:",
            *(f"  {step}" for step in steps),
            f"again: {again} pytest '{test}'" if test else f"again: run({seed})",
        ]
        super().__init__("\n".join(lines))
        self.seed = seed
        self.what = what


def seeds(count: int) -> Sequence[int]:
    """The seeds to run: the first ``count``, or those that ``ATOMA_SEEDS`` names, one (``17``) or a range (``100-199``).

    Raises:
        ConfigurationError: It names none.
    """
    named = os.environ.get(SEEDS, "")
    if not named:
        return range(count)
    first, dash, last = named.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
        raise ConfigurationError(f"{SEEDS} is a seed such as 17, or a range such as 100-199, not {named!r}")
    return range(int(first), int(last or first) + 1)


class Simulator:
    """An application under simulation: what its people do, and what has to hold.

    Args:
        schema: Its stores.
        actions: What people do: ``async def rename(device, dice)``. An error that one raises is a failure, unless the device
            crashed meanwhile; what the application expects, the action catches.
        always: What holds on every device after every action of its own.
        settled: What holds in the end, when the faults are over and every device has everything.
        devices: How many there are; they are called ``d0``, ``d1`` …
        steps: How many actions all of them carry out together.
        faults: What goes wrong.
        options: What every device is opened with; see ``World.device``.
        rules: Those of the hub; every device may do everything when None.
        allow: What may wait for a person in the end; see ``World.check``.

    Raises:
        ConfigurationError: There are no actions, or no devices or steps.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        actions: Sequence[Action],
        always: Sequence[Invariant] = (),
        settled: Sequence[Outcome] = (),
        devices: int = 3,
        steps: int = 60,
        faults: Faults | None = None,
        options: Mapping[str, object] | None = None,
        rules: Rules | None = None,
        allow: Collection[Literal["inbox", "lost"]] = (),
    ) -> None:
        if not actions or not all(callable(action) for action in (*actions, *always, *settled)):
            raise ConfigurationError("Simulator() needs actions: async functions of a device and of dice")
        if not (is_a(devices, int) and devices > 0 and is_a(steps, int) and steps > 0):
            raise ConfigurationError(f"Simulator() needs devices and steps, not {devices!r} and {steps!r}")
        self.schema = schema
        self.actions = tuple(actions)
        self.always = tuple(always)
        self.settled = tuple(settled)
        self.devices = devices
        self.steps = steps
        self.faults = Faults() if faults is None else faults
        self.options: dict[str, Any] = dict(options or {})
        self.rules = rules
        self.allow = allow

    def run(self, seed: int) -> SimulationReport:
        """Run one seed from beginning to end; called outside of any loop.

        Raises:
            SimulationFailed: Something does not hold. Its cause is what was raised.
        """
        trace = Trace()
        with tempfile.TemporaryDirectory(prefix="atoma-", dir=scratch()) as folder:
            run = _Run(self, seed, Path(folder), trace)
            try:
                run_seeded(run.main, seed, trace)
            except Exception as error:
                what, cause = run.failure or ("the simulation", error)
                raise SimulationFailed(seed, what, run.told, cause) from cause
        return SimulationReport(seed, dict(run.counts), run.virtual_s, trace.digest)


@dataclass
class _Storm:
    """What the network does to frames while the faults last."""

    faults: Faults
    dice: random.Random
    over: bool = False

    async def on_frame(self, direction: str, frame: bytes) -> Sequence[bytes]:
        """What arrives in place of ``frame``, the same in either direction."""
        await trio.sleep(self.dice.random() * self.faults.delay_s)
        chance = 1.0 if self.over else self.dice.random()
        if chance < self.faults.lost:
            return []
        return [frame, frame] if chance < self.faults.lost + self.faults.doubled else [frame]


@dataclass
class _Run:
    """One seed."""

    simulator: Simulator
    seed: int
    folder: Path
    trace: Trace
    failure: tuple[str, Exception] | None = None
    virtual_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter[str])
    told: deque[str] = field(default_factory=lambda: deque[str](maxlen=SHOWN))
    working: dict[str, trio.CancelScope] = field(default_factory=dict[str, trio.CancelScope])
    begun: dict[str, trio.Event] = field(default_factory=dict[str, trio.Event])
    struck: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.left = self.simulator.steps
        self.storm = _Storm(self.simulator.faults, self.dice)

    async def main(self) -> None:
        """The storm, and the calm after it."""
        simulator, began = self.simulator, trio.current_time()
        async with AsyncExitStack() as stack:
            opened = open_world(simulator.schema, self.folder, seed=self.seed, faults=self.storm)
            world = await stack.enter_async_context(opened)
            hub = await stack.enter_async_context(world.hub(rules=simulator.rules))
            for number in range(simulator.devices):
                await stack.enter_async_context(world.device(f"d{number}", **simulator.options))
            async with open_tasks() as fate:
                fate.start_soon(self._strike, world, hub, fate)
                async with open_tasks() as people:
                    for device in world.devices:
                        people.start_soon(self._work, device)
                fate.cancel_scope.cancel()
            await self._calm(world, hub)
            await self._judge("settling", world.settle())
            await self._judge("settling", world.check(allow=simulator.allow))
            for device in world.devices:
                await self._hold(device)
            for outcome in simulator.settled:
                await self._judge(_name(outcome), outcome(world))
            self.virtual_s = trio.current_time() - began

    async def _work(self, device: Device) -> None:
        """A person at a device, until everything is done."""
        while True:
            await trio.sleep(self.dice.expovariate(1 / THINK_S))
            if self.left <= 0:
                return
            if not device.is_open:
                continue
            self.left -= 1
            action = self.dice.choice(self.simulator.actions)
            self._tell(device.name, _name(action))
            with trio.CancelScope() as scope:
                self.working[device.name] = scope
                if device.name in self.begun:
                    self.begun.pop(device.name).set()
                try:
                    await self._judge(f"{_name(action)} on {device.name}", action(device, self._own_dice()), scope)
                    await self._hold(device, scope)
                except ClosedError:
                    if not scope.cancel_called:  # a crash ends what is being done
                        raise

    async def _hold(self, device: Device, scope: trio.CancelScope | None = None) -> None:
        for invariant in self.simulator.always:
            await self._judge(f"{_name(invariant)} on {device.name}", invariant(device), scope)

    async def _judge(self, what: str, call: Awaitable[object], scope: trio.CancelScope | None = None) -> None:
        """Await ``call``; the first one that fails is what the run fails in."""
        try:
            await call
        except Exception as error:
            crashed = scope is not None and scope.cancel_called and isinstance(error, ClosedError)
            if self.failure is None and not crashed:
                self.failure = (what, error)
            raise

    async def _strike(self, world: World, hub: HubSeat, fate: trio.Nursery) -> None:
        """Mishaps, one after the other, each for a while."""
        faults = self.simulator.faults
        kinds = {
            "unplugged": faults.unplugged, "silenced": faults.silenced,
            "crashed": faults.crashed, "hub crashed": faults.hub_crashed,
        }  # fmt: skip
        while any(kinds.values()):
            await trio.sleep(self.dice.expovariate(1 / FATE_S))
            (kind,) = self.dice.choices(list(kinds), list(kinds.values()))
            seat: Device | HubSeat = hub if kind == "hub crashed" else self.dice.choice(world.devices)
            if seat.name not in self.struck:
                self.struck.add(seat.name)
                self._tell(seat.name, kind)
                fate.start_soon(self._suffer, world, seat, kind)

    async def _suffer(self, world: World, seat: Device | HubSeat, kind: str) -> None:
        if kind == "silenced":
            world.network.partition(seat.name, silent=True)
        elif kind == "unplugged" and isinstance(seat, Device):
            seat.unplug()
        else:
            if isinstance(seat, Device):
                await self._in_the_middle(seat)
            with trio.CancelScope(shield=True):  # a crash that is half done would be none that can happen
                await seat.kill()
        await trio.sleep(self.dice.expovariate(1 / OUTAGE_S))
        await self._repair(world, seat)
        self.struck.discard(seat.name)
        self._tell(seat.name, f"no longer {kind}")

    async def _in_the_middle(self, device: Device) -> None:
        """Return some steps of the scheduler after the next action on ``device`` has begun, and end that action."""
        begun = self.begun[device.name] = trio.Event()
        await begun.wait()
        for _ in range(self.dice.randrange(STEPS_INTO)):
            await trio.lowlevel.checkpoint()
        self.working[device.name].cancel()

    async def _repair(self, world: World, seat: Device | HubSeat) -> None:
        with trio.CancelScope(shield=True):
            await seat.start()
        if isinstance(seat, Device):
            world.network.heal(seat.name)
            seat.plug_in()

    async def _calm(self, world: World, hub: HubSeat) -> None:
        """End every fault for good."""
        self.storm.over = True
        seats: list[Device | HubSeat] = [hub, *world.devices]
        for seat in seats:
            await self._repair(world, seat)

    def _own_dice(self) -> random.Random:
        """Dice for one action, so that how often it throws them changes nothing else."""
        return random.Random(self.dice.getrandbits(64))

    def _tell(self, who: str, what: str) -> None:
        self.counts[what] += 1
        self.trace.note(who, what)
        self.told.append(f"{trio.current_time():8.0f} s  {who}: {what}")


def _name(part: Callable[..., object]) -> str:
    return getattr(part, "__name__", repr(part))
