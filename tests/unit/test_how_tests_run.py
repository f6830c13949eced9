"""What every other test leans on: how `async def` tests run, and how their failures read."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.xdist_group("machine")  # it starts programs and waits for one to be killed
ROOT = Path(__file__).resolve().parents[2]
MET_ONLY_HERE = 4_711_815


async def test_an_async_test_runs_under_trio() -> None:
    assert trio.lowlevel.current_task() is not None


@pytest.mark.virtual_time
async def test_virtual_time_jumps_to_the_next_deadline() -> None:
    before = trio.current_time()
    await trio.sleep(3_600)
    assert trio.current_time() == before + 3_600


async def test_the_mock_clock_fixture_is_the_clock_of_the_run(mock_clock: trio.testing.MockClock) -> None:
    await trio.sleep(60)
    assert mock_clock.current_time() == trio.current_time()


@given(st.integers())
async def test_an_async_property_runs_each_example_under_trio(number: int) -> None:
    await trio.lowlevel.checkpoint()
    assert number == int(str(number))


@pytest.mark.parametrize("clock", [pytest.param("virtual", marks=pytest.mark.virtual_time), "real"])
@given(number=st.integers())
async def test_an_async_property_runs_with_every_parameter(clock: str, number: int) -> None:
    assert number is not None
    assert isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock) == (clock == "virtual")


@pytest.mark.parametrize("value", [1, 2])
async def test_fixtures_and_parameters_reach_an_async_test(value: int, tmp_path: Path) -> None:
    assert value in {1, 2}
    assert tmp_path.is_absolute()


def test_what_is_drawn_does_not_depend_on_the_modules_that_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    providers: Any = importlib.import_module("hypothesis.internal.conjecture.providers")

    def drawn(constant: int | None) -> set[int]:
        mixed_in = (
            providers._get_local_constants if constant is None else lambda: providers.Constants(integers={constant})
        )
        met: set[int] = set()
        with monkeypatch.context() as patch:
            patch.setattr(providers, "_get_local_constants", mixed_in)
            providers.CONSTANTS_CACHE.cache.clear()  # of what may be mixed in, by kind and bounds

            @settings(max_examples=300, database=None, derandomize=True)
            @given(st.integers())
            def draw(number: int) -> None:
                met.add(number)

            draw()
        providers.CONSTANTS_CACHE.cache.clear()
        return met

    assert MET_ONLY_HERE in drawn(MET_ONLY_HERE), "it decides what is mixed in"
    assert MET_ONLY_HERE not in drawn(None), "which is nothing of this module"


FAILING = """
import tempfile
import trio
import warnings
import pytest

async def wrong():
    assert 1 == 2

async def test_in_a_nursery():
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        inner.start_soon(wrong)

def test_a_warning():
    warnings.warn("old")

@pytest.mark.xdist_group("machine")
@pytest.mark.parametrize("number", range(6))
async def test_of_the_machine(number):
    met = []

    async def come_by(name):
        for _ in range(10):
            met.append(name)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_by, "a")
        nursery.start_soon(come_by, "b")
    assert 0, "".join(met) + "".join({"c", "d", "e", "f", "g", "h", "i"})

@pytest.mark.parametrize("number", range(4))
def test_where(number, tmp_path):
    print("temporary files:", tempfile.mkdtemp(), tmp_path)
    assert 0
"""
HANGING = """
import threading
import pytest

def test_that_never_ends():
    threading.Event().wait()

@pytest.mark.parametrize("number", range(100))
def test_that_ends(number):
    threading.Event().wait(0.2)
"""
WORKERS = ["-n", "auto", "--maxprocesses", "2"]


def run_tests(folder: Path, tests: str, *arguments: str, seed: int | None = 1) -> str:
    """What pytest prints about tests that run as those of this suite do."""
    (folder / "tests").mkdir()
    (folder / "tests/conftest.py").write_bytes((ROOT / "tests/conftest.py").read_bytes())
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (folder / "tests/test_failing.py").write_text(tests)
    environment = {**os.environ, "COLUMNS": "200", "PYTHONHASHSEED": "random" if seed is None else str(seed)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rf", *arguments]
    outcome = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert outcome.returncode == 1, outcome.stdout
    return outcome.stdout


def order_in(said: str) -> str:
    """In which order tasks ran and a set was iterated."""
    found = re.search(r"test_of_the_machine\[0\] - AssertionError: (\w+)", said)
    assert found, said
    return found[1]


@pytest.fixture(scope="module")
def of_workers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What two workers print, with seed 1."""
    if os.cpu_count() == 1:
        pytest.skip("there is one core, and so no worker")
    return run_tests(tmp_path_factory.mktemp("workers"), FAILING, *WORKERS)


def test_a_failure_reads_as_itself_and_a_warning_is_one(of_workers: str) -> None:
    assert "test_failing.py::test_in_a_nursery - assert 1 == 2" in of_workers
    assert "ExceptionGroup" not in of_workers
    assert "test_failing.py::test_a_warning - UserWarning: old" in of_workers
    assert "12 failed" in of_workers


def test_a_failure_says_how_to_see_it_again(of_workers: str) -> None:
    again = "PYTHONHASHSEED=1 python3 dev.py test"
    assert f"{again} tests/test_failing.py::test_in_a_nursery\n" in of_workers
    assert f"{again} 'tests/test_failing.py::test_of_the_machine[0]'\n" in of_workers


def test_one_worker_runs_the_tests_of_the_machine(of_workers: str) -> None:
    ran = re.findall(r"test_failing.py::(\w+)(?:\[\d\])?'?\n\((gw\d)", of_workers)
    assert len({worker for test, worker in ran if test == "test_of_the_machine"}) == 1
    assert len({worker for test, worker in ran}) == 2


def test_each_worker_has_its_own_temporary_folder(of_workers: str) -> None:
    places = re.findall(r"temporary files: (\S+) (\S+)", of_workers)
    folders = dict(re.findall(r"\((gw\d), files below (\S+)\)", of_workers))
    assert len(places) == 4
    assert len(set(folders.values())) == len(folders) == 2
    for anything, of_a_test in places:
        own = next(folder for folder in folders.values() if anything.startswith(f"{folder}/"))
        assert Path(own).parent == Path(of_a_test).parent


def test_the_seed_decides_the_order_of_tasks_and_of_sets_in_every_worker(tmp_path: Path, of_workers: str) -> None:
    assert "order of tasks and sets, in every worker: seed 1\n" in of_workers
    alone = run_tests(tmp_path, FAILING, *WORKERS, "tests/test_failing.py")
    assert "[gw0]" not in alone, "who names the files waits for no worker"
    assert order_in(alone) == order_in(of_workers)


def test_without_a_seed_one_is_drawn_and_the_header_says_what_it_does_not_decide(
    tmp_path: Path, of_workers: str
) -> None:
    said = run_tests(tmp_path, FAILING, *WORKERS, "-k", "test_of_the_machine", seed=None)
    assert "[gw0]" not in said, "who names a few tests waits for no worker"
    drawn = re.search(r"order of tasks and sets, in every worker: seed (\d+) \(PYTHONHASHSEED was not set", said)
    assert drawn, said
    assert f"PYTHONHASHSEED={drawn[1]} python3 dev.py test" in said
    assert order_in(said)[:20] != order_in(of_workers)[:20]


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "2"]], ids=["alone", "workers"])
def test_a_test_that_hangs_ends_the_run_and_shows_where_it_stood(tmp_path: Path, workers: list[str]) -> None:
    said = run_tests(tmp_path, HANGING, *workers, "-o", "faulthandler_timeout=1")
    assert "Timeout (0:00:01)!" in said
    assert re.search(r'test_failing.py", line 6 in test_that_never_ends', said)
    assert "100 passed" not in said
