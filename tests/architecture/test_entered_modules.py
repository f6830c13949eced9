"""How many modules a call enters: what is always read together stands together."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType

from atoma import Schema, col, open_client, select
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.unit.stores.kit import CARDS, Card

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(str(ROOT / package) for package in ("atoma", "stores", "transports"))
ENTERED_MAX = {"insert": 25, "query": 18}
"""Modules in which a function starts between a call and its return."""
WARM_UP = 20


async def entered(call: Callable[[], Awaitable[object]]) -> set[str]:
    """The modules of the three packages in which a function starts until ``call`` returns."""
    found: set[str] = set()

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGES):
            found.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        await call()
    finally:
        sys.setprofile(before)
    return found


async def test_a_call_enters_few_modules(tmp_path: Path) -> None:
    plugins = [LocalExecution(SQLiteEngine(tmp_path / "a.db"))]
    async with open_client(Schema(CARDS, version=1), plugins=plugins) as client:
        cards = client.store(CARDS)
        query = select(CARDS).where(col("title") == "a").order_by("-rank").limit(5)
        for number in range(WARM_UP):
            await cards.insert(Card(f"{number}", "a"))
            await cards.query(query)
        insert = await entered(lambda: cards.insert(Card("more", "a")))
        asked = await entered(lambda: cards.query(query))
    assert len(insert) <= ENTERED_MAX["insert"], sorted(insert)
    assert len(asked) <= ENTERED_MAX["query"], sorted(asked)
