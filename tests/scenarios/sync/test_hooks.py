"""Hooks of a store that syncs: a write passes them once, whatever becomes of it on its way to the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoma.schema import Schema, StoreSpec
from atoma.schema.hooks import Saved
from tests.scenarios.sync.conftest import CARDS, Card, World
from tests.scenarios.sync.kit import copy_file, put_in

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def calls() -> list[str]:
    """What the hooks were called for, in order."""
    return []


@pytest.fixture
def world(tmp_path: Path, calls: list[str]) -> World:
    """Devices and a hub that share a schema with hooks."""

    def stamp(card: Card) -> Card:
        calls.append(f"before {card.title}")
        return replace(card, title=card.title.strip())

    def tell(saved: Saved[Card]) -> None:
        calls.append(f"after {'' if saved.after is None else saved.after.title}")

    spec = StoreSpec("cards", Card, scope="board", before_save=stamp, after_save=tell)

    class Hooked(World):
        CARDS = spec
        SYNCED = (spec,)
        schema = Schema(spec)

    assert CARDS.name == spec.name
    return Hooked(tmp_path)


@pytest.mark.paths
async def test_sent_again_rebased_and_repaired_a_write_passes_its_hooks_once(world: Any, calls: list[str]) -> None:
    async with world.open_hub():
        async with world.open_device("a") as a, world.open_device("b") as b:
            await a.store(world.CARDS).insert(Card(id="1", title=" one "))
            await a.settle()
            await b.settle()
            assert (await b.rows(world.CARDS))["1"].title == "one", "the body has what the hook has made"
            a.wire.cut()
            await a.store(world.CARDS).update("1", title=" mine ")
            await b.store(world.CARDS).update("1", lane="done")
            await b.settle()
            a.wire.lose["push"] = 2
            await put_in(a)
            assert (await a.rows(world.CARDS))["1"] == Card(id="1", title="mine", lane="done")
            assert [call for call in calls if "before" in call] == ["before  one ", "before  mine ", "before one"]
            assert [call for call in calls if "after" in call] == ["after one", "after mine", "after one"]
        copy_file(world, "a", "copy")
        async with world.open_device("a") as a:
            await a.store(world.CARDS).update("1", title="original")
            await a.settle()
        async with world.open_device("copy", down=True) as copy:
            await copy.store(world.CARDS).insert(Card(id="2", title=" copied "))
            del calls[:]
            await put_in(copy)
            assert (await copy.rows(world.CARDS))["2"].title == "copied"
            assert len(await copy.sync.repairs()) == 1, "it took an identity of its own, and sent the write again"
            assert calls in ([], ["after copied"]), "at most the commit itself is told, and nothing that came"
