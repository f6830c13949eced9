"""Copies of database files, put back later or elsewhere: what a restore and a crash leave, seen by the hub itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoma.hub import StaticTokenVerifier, open_hub
from atoma.testing.simulation.files import FileCopy
from atoma.testing.simulation.stores import SCHEMA
from atoma_stores.sqlite import SQLiteHubStore

VERIFIER = StaticTokenVerifier({"a": "a"})


async def epochs_of(path: Path) -> list[tuple[str, bool]]:
    async with open_hub(SCHEMA, SQLiteHubStore(path), verifier=VERIFIER) as hub:
        return [(ended.devices, ended.deletes) for ended in await hub.epochs()]


async def come_further(path: Path) -> None:
    async with open_hub(SCHEMA, SQLiteHubStore(path), verifier=VERIFIER) as hub:
        await hub.new_epoch()


@pytest.mark.paths
async def test_a_copy_of_an_open_hub_is_found_out_by_the_lock_file_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with open_hub(SCHEMA, SQLiteHubStore(path), verifier=VERIFIER):
        copy = FileCopy.take(path)
    await come_further(path)
    assert await epochs_of(path) == [("offer", True)]
    copy.put(path, lock="kept")
    assert await epochs_of(path) == [("offer", False)]


@pytest.mark.parametrize("lock", ["own", "none"])
async def test_a_copy_with_its_own_lock_file_or_none_is_not_found_out(tmp_path: Path, lock: str) -> None:
    path = tmp_path / "hub.db"
    await come_further(path)
    copy = FileCopy.take(path)
    await come_further(path)
    copy.put(path, lock=lock)  # type: ignore[arg-type]  # one of its literals
    assert await epochs_of(path) == [("offer", True)]


async def test_where_there_was_no_file_there_is_none_again(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    nothing = FileCopy.take(path)
    await come_further(path)
    nothing.put(path)
    assert list(tmp_path.iterdir()) == []
