"""A store is an Observable: a status line that is made of its rows by operators, and drawn when it is another one.

python examples/quickstart/observable.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trio
from reactivex import operators as ops

from atoma import Schema, StoreSpec, open_client
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A row of the store ``cards``."""

    id: str
    title: str
    lane: Literal["todo", "doing", "done"] = "todo"


CARDS = StoreSpec("cards", Card)


def status(cards: tuple[Card, ...]) -> str:
    """What the status line says."""
    done = sum(card.lane == "done" for card in cards)
    return f"{done} of {len(cards)} done"


async def main(folder: Path) -> None:
    """Follow a store while it is written to."""
    async with open_client(Schema(CARDS), plugins=[LocalExecution(SQLiteEngine(folder / "cards.db"))]) as client:
        cards = client.store(CARDS)
        drawn = trio.Event()

        def draw(line: str) -> None:
            print(line)
            drawn.set()

        line = cards.pipe(ops.map(status)).pipe(ops.distinct_until_changed())
        with line.subscribe(draw):
            await drawn.wait()
            drawn = trio.Event()
            await cards.insert_many([Card(id="tea", title="Make tea"), Card(id="note", title="Write it down")])
            await drawn.wait()
            drawn = trio.Event()
            await cards.update("tea", title="Make green tea")  # the line stays as it is
            await cards.update("tea", lane="done")
            await drawn.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(main, Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            trio.run(main, Path(place))
