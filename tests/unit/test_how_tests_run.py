"""What every other test leans on: how `async def` tests run, and how their failures read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.parametrize("value", [1, 2])
async def test_fixtures_and_parameters_reach_an_async_test(value: int, tmp_path: Path) -> None:
    assert value in {1, 2}
    assert tmp_path.is_absolute()


FAILING = """
import trio
import warnings

async def wrong():
    assert 1 == 2

async def test_in_a_nursery():
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        inner.start_soon(wrong)

async def test_a_warning():
    warnings.warn("old")
"""


def test_a_failure_in_a_nursery_reads_as_itself_and_a_warning_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_bytes((ROOT / "tests/conftest.py").read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / "test_failing.py").write_text(FAILING)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rf", "test_failing.py"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "test_failing.py::test_in_a_nursery - assert 1 == 2" in outcome.stdout
    assert "ExceptionGroup" not in outcome.stdout
    assert "test_failing.py::test_a_warning - UserWarning: old" in outcome.stdout
    assert "2 failed" in outcome.stdout
