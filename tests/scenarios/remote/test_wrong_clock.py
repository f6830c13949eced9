"""Devices whose clock is wrong, and a hub that has forgotten answers: what their direct writes get, and the way out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from atoma import StaticTokenVerifier, Sync, open_client, open_hub
from atoma.contracts.failures import code_of
from atoma.errors import RemoteError, WriteRejected, what_helps
from atoma.plugins import Plugin
from atoma.ports import Environment, seeded_environment
from atoma.schema.ids import IdSource
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

from .conftest import NOTES, SCHEMA, Note

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


def at(clock: list[int]) -> Environment:
    """An environment whose wall clock is to be set."""
    environment = seeded_environment(1)
    ids = IdSource(lambda: clock[0], environment.random)
    return replace(environment, wall_ms=lambda: clock[0], ids=ids)


@pytest.mark.virtual_time
@pytest.mark.parametrize("syncs", [False, True])
async def test_a_device_whose_clock_is_years_behind(tmp_path: Path, syncs: bool) -> None:
    """A direct write is refused before anything is done, and says what helps; one that syncs has no key and goes on."""
    hub_clock, clock = [NOW_MS], [NOW_MS - 2_000 * DAY_MS]
    network = MemoryNetwork()
    verifier = StaticTokenVerifier({"token": "ann"})
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(tmp_path / "client.db")),
        Remote(MemoryTransport(network, token="token")),
        *([Sync([NOTES])] if syncs else []),
    ]
    policy = "sync-queue" if syncs else "direct-remote"
    async with (
        open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=verifier, environment=at(hub_clock)) as hub,
        network.listen(hub),
        open_client(SCHEMA, plugins=plugins, policy=policy, environment=at(clock)) as client,
    ):
        store = client.store(NOTES)
        handle = await store.insert(Note(id="1", text="first"))
        await handle.accepted()  # nothing is forgotten yet, so that no age is asked
        hub_clock[0] += 40 * DAY_MS
        await hub.compact(force=True)
        if syncs:
            await (await store.update("1", text="second")).accepted()
            return
        with pytest.raises(RemoteError) as refused:
            await store.update("1", text="second", confirm="strict")
        assert (code_of(refused.value), what_helps(refused.value)) == ("KEY_EXPIRED", "clock")
        assert "set it" in str(refused.value)
        shown = await store.update("1", text="shown")
        with pytest.raises((WriteRejected, RemoteError)) as taken_back:
            await shown.accepted()
        assert "KEY_EXPIRED" in (code_of(taken_back.value), getattr(taken_back.value, "reason", ""))
        row = await store.get("1", policy="direct-local")
        assert row is not None
        assert row.text == "first", "it is not shown any more"
        clock[0] = hub_clock[0]
        await (await store.update("1", text="third")).accepted()
        assert [note.text for note in await store.query(policy="direct-remote")] == ["third"]
