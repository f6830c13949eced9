"""Writes that the hub decides, on a store that is cached and not synced: shown at once, then as the hub says."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atoma.contracts.events import WriteDispatched, WriteSettled, WriteTakenBack
from atoma.errors import ClosedError, ConflictError, NotFoundError, WriteRejected, WriteUnknown

from .conftest import NOTES, Note  # type: ignore[import-untyped]

pytestmark = pytest.mark.virtual_time

REMOTE_POLICIES = ["direct-remote", "remote-first", "local-first-volatile", "hybrid"]


@pytest.mark.parametrize("policy", REMOTE_POLICIES)
async def test_a_write_is_shown_before_the_hub_answers_and_confirmed_after(open_remotely: Any, policy: str) -> None:
    async with open_remotely(policy) as world:
        await world.elsewhere("insert", "1", text="theirs", rank=5)
        await world.store.get_all(policy="direct-remote")
        await world.elsewhere("update", "1", rank=6)
        world.road.close()
        handle = await world.store.update("1", text="mine")
        assert handle.value == Note(id="1", text="mine", rank=5)
        assert (await world.here())["1"] == Note(id="1", text="mine", rank=5)
        assert handle.state in ("queued", "sent")
        await wait_all_tasks_blocked()
        assert handle.state == "sent"
        assert len(await world.pending()) == 1
        world.road.gate.set()
        assert await handle.accepted() == 3
        assert handle.state == "observed"
        assert (await world.here())["1"] == Note(id="1", text="mine", rank=6), "the authority's image"
        assert await world.here() == await world.there()
        assert await world.pending() == []
