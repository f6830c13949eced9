"""Tests that ask for a ``home`` run over every store of hubs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.hub.homes import Home, PostgreSQLHome, home_of

STORES = ("sqlite", "postgres")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A server does not live by virtual time: such tests run on SQLite."""
    if "home" in metafunc.fixturenames:
        virtual = "mock_clock" in metafunc.fixturenames or metafunc.definition.get_closest_marker("virtual_time")
        metafunc.parametrize("home", STORES[:1] if virtual else STORES, indirect=True)


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """Where the hub of the test lives."""
    with home_of(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def pg() -> Iterator[PostgreSQLHome]:
    """A place for hubs on PostgreSQL."""
    with contextlib.ExitStack() as stack:
        yield PostgreSQLHome(stack)
