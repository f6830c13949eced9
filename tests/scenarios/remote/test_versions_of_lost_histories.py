"""A hub goes back to a backup and gives its sequences out anew: a version of what it has lost is none of what it has now."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import open_client, open_hub
from atoma.errors import ConflictError
from atoma.hub import AllowLoopback, Hub
from atoma.ports import seeded_environment
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

from .conftest import NOTES, SCHEMA, Note

pytestmark = pytest.mark.virtual_time


class Place:
    """A hub's file with a backup of it, and two devices that ask the hub; one of them keeps what it is answered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = MemoryNetwork()
        self.openings = 0

    @asynccontextmanager
    async def hub(self) -> AsyncGenerator[Hub]:
        """The hub runs."""
        store = SQLiteHubStore(self.folder / "hub.db")
        async with (
            open_hub(SCHEMA, store, verifier=AllowLoopback(), environment=seeded_environment(1)) as hub,
            self.network.listen(hub),
        ):
            yield hub

    @asynccontextmanager
    async def device(self, name: str, *, caching: bool) -> AsyncGenerator[Any]:
        """The notes, as a device has them."""
        local = [LocalExecution(SQLiteEngine(self.folder / f"{name}.db"))] if caching else []
        plugins: list[Any] = [*local, Remote(MemoryTransport(self.network))]
        self.openings += 1  # what is opened again draws no key twice
        environment = seeded_environment(self.openings)
        async with open_client(SCHEMA, plugins=plugins, policy="direct-remote", environment=environment) as client:
            yield client.store(NOTES)

    def back_up(self) -> None:
        """The hub is closed."""
        shutil.copy(self.folder / "hub.db", self.folder / "backup.db")

    def restore(self) -> None:
        """The hub is closed."""
        shutil.copy(self.folder / "backup.db", self.folder / "hub.db")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.paths
@pytest.mark.parametrize("by", ["version", "function"])
@pytest.mark.parametrize("caching", [True, False], ids=["cached", "not kept"])
@pytest.mark.parametrize("losses", [1, 2])
async def test_what_was_read_of_a_lost_history_is_a_conflict(place: Place, by: str, caching: bool, losses: int) -> None:
    """What the hub has lost and what somebody has written since have one sequence."""
    async with place.hub(), place.device("other", caching=False) as other:
        await other.insert(Note(id="1"))
        await other.insert(Note(id="2"))
    place.back_up()
    async with place.device("mine", caching=caching) as mine, place.device("other", caching=False) as other:
        for loss in range(losses):
            async with place.hub():
                await mine.update("1", text=f"seen {loss}")
                await mine.query()
                version, kept = await mine.version("1"), await mine.version("2")
            place.restore()
            async with place.hub():
                await other.update("1", text="other's")
                with pytest.raises(ConflictError):
                    await mine.update("1", {"text": "blind"}, base_version=version, confirm="strict")
                assert (await other.get("1")).text == "other's"
                if loss + 1 < losses:
                    continue
                if by == "version":
                    await mine.update("2", {"rank": 9}, base_version=kept, confirm="strict")
                    assert (await other.get("2")).rank == 9, "it has not moved, and no version of it is void"
                    now = await mine.version("1")
                    await mine.update("1", {"text": "seen now"}, base_version=now, confirm="strict")
                    assert (await other.get("1")).text == "seen now"
                else:
                    change = lambda note: Note(id="1", text=note.text, rank=note.rank + 1)  # noqa: E731
                    with trio.fail_after(60):
                        await mine.update("1", change, confirm="strict")
                    assert await other.get("1") == Note(id="1", text="other's", rank=1)


async def test_versions_are_plain_sequences_until_a_hub_has_lost_something(place: Place) -> None:
    async with place.device("other", caching=False) as other:
        async with place.hub() as hub:
            await other.insert(Note(id="1"))
            assert abs(await other.version("1")) == 1
            await hub.new_epoch()
            assert abs(await other.version("1")) == 1, "it was lost by nobody"
            await other.update("1", rank=1)
            version = abs(await other.version("1"))
            assert version != 2 and version & (1 << 38) - 1 == 2 and version < 2**53 - 1
            await hub.new_epoch()
            assert abs(await other.version("1")) == version, "as it was told"
