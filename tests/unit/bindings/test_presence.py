"""Who is here, for asyncio and for blocking code, over a real WebSocket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoma.bindings import aio, blocking
from atoma.sync import Other
from tests.unit.bindings.kit import SCHEMA, loops, running_hub, synced, under_asyncio


@dataclass(frozen=True)
class At:
    """Where somebody is."""

    card: str


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with running_hub(tmp_path) as where:
        yield where


def states(others: tuple[Other[At], ...]) -> list[At]:
    return [other.state for other in others]


def test_an_asyncio_program_sees_who_is_here(address: str) -> None:
    heard: list[list[At]] = []

    async def main() -> None:
        async with (
            aio.open_client(SCHEMA, plugins=synced(address)) as ada,
            aio.open_client(SCHEMA, plugins=synced(address)) as bob,
            ada.presence("main", At("1")) as here,
            here.watch() as changes,
        ):
            undo = await here.subscribe(lambda others: heard.append(states(others)))
            assert states(await anext(changes)) == []
            async with bob.presence("main", At("2")) as there:
                assert states(await anext(changes)) == [At("2")] == states(here.others)
                assert here.connected
                await there.update(At("3"))
                assert there.state == At("3")
                assert states(await anext(changes)) == [At("3")]
            assert await anext(changes) == ()
            undo()

    under_asyncio(main)
    assert heard[0] == []
    assert loops() == []


def test_blocking_code_sees_who_is_here(address: str) -> None:
    with (
        blocking.open_client(SCHEMA, plugins=synced(address)) as ada,
        blocking.open_client(SCHEMA, plugins=synced(address)) as bob,
        blocking.fail_after(20),
        ada.presence("main", At("1")) as here,
        here.watch() as changes,
    ):
        assert states(next(changes)) == []
        with bob.presence("main", At("2")) as there:
            assert states(next(changes)) == [At("2")]
            there.update(At("3"))
            assert states(next(changes)) == [At("3")]
        assert next(changes) == ()
