"""An application's own stores, actions and invariants under seeded faults: what is sound passes, what is not is found."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from atoma.errors import ConfigurationError, NotFoundError
from atoma.query import select
from atoma.schema import Schema, StoreSpec
from atoma.testing import Device, Faults, SimulationFailed, Simulator, World, seeds
from atoma.testing.simulator import NO_FAULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    id: str
    cents: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    id: str
    account: str
    cents: int


ENTRIES = StoreSpec("entries", Entry)
ACCOUNTS = StoreSpec("accounts", Account)
SCHEMA = Schema(ENTRIES, ACCOUNTS)
NAMES = ("ann", "bob")


async def book(device: Device, dice: random.Random) -> None:
    """Both halves in one transaction."""
    cents, (giver, taker) = dice.randrange(1, 100), dice.sample(NAMES, 2)
    async with device.client.transaction() as tx:
        for account, amount in ((giver, -cents), (taker, cents)):
            await tx.store(ENTRIES).insert(Entry(id=f"{dice.getrandbits(64):x}", account=account, cents=amount))


async def book_in_two(device: Device, dice: random.Random) -> None:
    """The bug: a crash comes between the halves."""
    cents = dice.randrange(1, 100)
    await device.store(ENTRIES).insert(Entry(id=f"{dice.getrandbits(64):x}", account="ann", cents=-cents))
    await device.store(ENTRIES).insert(Entry(id=f"{dice.getrandbits(64):x}", account="bob", cents=cents))


async def look(device: Device, _dice: random.Random) -> None:
    await device.store(ENTRIES).count()


async def overwrite(device: Device, dice: random.Random) -> None:
    """The bug: a sum that is read and written back loses what others have added."""
    found = await device.store(ACCOUNTS).get("ann")
    if found is None:
        await device.store(ACCOUNTS).upsert(Account(id="ann", cents=1))
    else:
        await device.store(ACCOUNTS).update("ann", {"cents": found.cents + 1})
    await device.store(ENTRIES).insert(Entry(id=f"{dice.getrandbits(64):x}", account="ann", cents=1))


async def money_is_conserved(device: Device) -> None:
    total = sum(entry.cents for entry in await device.client.query(select(ENTRIES)))
    assert total == 0, f"{total} cents too many"


async def sums_agree(world: World) -> None:
    device = world.devices[0]
    account = await device.store(ACCOUNTS).get("ann")
    assert (account.cents if account else 0) == await device.store(ENTRIES).count()


SOUND = Simulator(SCHEMA, actions=[book, book, look], always=[money_is_conserved], steps=40)


@pytest.mark.parametrize("seed", seeds(3))
def test_what_is_sound_passes_whatever_happens(seed: int) -> None:
    report = SOUND.run(seed)
    assert report.counts["book"] + report.counts["look"] == 40
    assert report.virtual_s > 100


def test_a_seed_meets_faults_of_every_kind() -> None:
    met = SOUND.run(2).counts
    busy = replace(Faults(), lost=0.1)
    more = Simulator(SCHEMA, actions=[book], always=[money_is_conserved], steps=80, faults=busy).run(1).counts
    assert {"unplugged", "silenced", "crashed", "hub crashed"} <= met.keys() | more.keys()


def first_failure(simulator: Simulator, count: int) -> SimulationFailed:
    for seed in range(count):
        try:
            simulator.run(seed)
        except SimulationFailed as failure:
            return failure
    raise AssertionError(f"{count} seeds have found nothing")


def test_half_a_booking_is_found_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    crashes = replace(NO_FAULTS, crashed=1)
    simulator = Simulator(SCHEMA, actions=[book_in_two], always=[money_is_conserved], faults=crashes)
    failure = first_failure(simulator, 20)
    assert failure.what.startswith("money_is_conserved on d")
    told = str(failure)
    assert f"seed {failure.seed} fails in {failure.what}: AssertionError" in told
    assert ": book_in_two" in told
    assert f"ATOMA_SEEDS={failure.seed} pytest 'tests/unit/testing/test_simulator.py::test_half_a_booking" in told
    with pytest.raises(SimulationFailed) as again:
        simulator.run(failure.seed)
    assert str(again.value) == told, "a seed that fails fails again, with the same words"
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    with pytest.raises(SimulationFailed, match=rf"again: run\({failure.seed}\)"):
        simulator.run(failure.seed)


def test_lost_updates_are_found_once_everybody_has_everything() -> None:
    simulator = Simulator(SCHEMA, actions=[overwrite], settled=[sums_agree], allow=["inbox"])
    assert first_failure(simulator, 5).what == "sums_agree"


def test_an_error_of_an_action_is_a_failure_and_a_crash_is_none() -> None:
    async def absent(device: Device, _dice: random.Random) -> None:
        await device.store(ACCOUNTS).update("nobody", {"cents": 1})

    with pytest.raises(SimulationFailed, match="absent on d") as caught:
        Simulator(SCHEMA, actions=[absent], faults=NO_FAULTS).run(1)
    assert isinstance(caught.value.__cause__, NotFoundError)


PROGRAM = """
from tests.unit.testing.test_simulator import SOUND
print(SOUND.run(2).trace)
"""


def test_a_seed_is_the_same_run_in_every_process() -> None:
    root = Path(__file__).resolve().parents[3]
    told = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True, timeout=120,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert told == {SOUND.run(2).trace + "\n"}
    assert SOUND.run(3).trace + "\n" not in told


def test_other_seeds_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(seeds(3)) == [0, 1, 2]
    monkeypatch.setenv("ATOMA_SEEDS", "17")
    assert list(seeds(3)) == [17]
    monkeypatch.setenv("ATOMA_SEEDS", "100-102")
    assert list(seeds(3)) == [100, 101, 102]
    for wrong in ("x", "3-", "5-3", "-1"):
        monkeypatch.setenv("ATOMA_SEEDS", wrong)
        with pytest.raises(ConfigurationError, match="ATOMA_SEEDS is a seed"):
            seeds(3)


def test_a_simulator_without_actions_or_people_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs actions"):
        Simulator(SCHEMA, actions=[])
    with pytest.raises(ConfigurationError, match="devices and steps"):
        Simulator(SCHEMA, actions=[look], devices=0)
