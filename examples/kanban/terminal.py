"""The board in a terminal, by Textual.

    python -m examples.kanban.terminal [FILE [HUB]]

Textual runs on asyncio, so the client is the one of `atoma.bindings.aio`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, Header, Input

from atoma.bindings.aio import Client, open_client
from atoma.bindings.textual import Column, LiveTable

from .model import CARDS, HUB, LANES, POLICY, SCHEMA, Card, Lane, beside, device, in_lane, in_words


class Board(App[None]):
    """Three tables beside one another, and a line for a new card."""

    TITLE = "Kanban"
    CSS = """
    LiveTable { width: 1fr; border: round $panel; padding: 0 1; overflow-x: hidden; }
    LiveTable:focus { border: round $accent; }
    Input { dock: bottom; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("n", "write", "New card"),
        ("tab", "app.focus_next", "Next lane"),
        ("less_than_sign", "move(-1)", "Move left"),
        ("greater_than_sign", "move(1)", "Move right"),
        ("d", "delete", "Delete"),
        ("q", "quit", "Quit"),
    ]

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client, self.cards = client, client.store(CARDS)
        self.lanes: dict[Lane, LiveTable[Card]] = {
            lane: LiveTable(client, in_lane(lane), [Column[Card](lane.upper(), lambda card: card.title, 40)])
            for lane in LANES
        }

    def compose(self) -> ComposeResult:
        yield Header()
        yield Horizontal(*self.lanes.values())
        yield Input(placeholder="n: what is to be done?")
        yield Footer()

    def on_mount(self) -> None:
        self.lanes["todo"].focus()
        # A worker ends with the application: so does the subscription that it holds.
        self.run_worker(self.follow_status())

    async def follow_status(self) -> None:
        async with self.client.sync.watch() as statuses:
            async for status in statuses:
                self.sub_title = in_words(status)

    @property
    def lane(self) -> Lane:
        """The lane that has the focus."""
        for lane, table in self.lanes.items():
            if table.has_focus:
                return lane
        return "todo"

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.value.strip():
            # Nothing is drawn here: the row is in the file, and the table of its lane sees it like everybody else's.
            await self.cards.insert(Card(title=event.value.strip()))
        event.input.clear()
        self.lanes["todo"].focus()

    def action_write(self) -> None:
        self.query_one(Input).focus()

    async def action_move(self, by: int) -> None:
        if (card := self.lanes[self.lane].cursor_row) is not None:
            # A patch of one field: a colleague who changes the title meanwhile does not lose it.
            await self.cards.update(card.id, lane=beside(card.lane, by))

    async def action_delete(self) -> None:
        if (card := self.lanes[self.lane].cursor_row) is not None:
            await self.cards.delete(card.id)


async def main(file: str = "terminal.db", hub: str = HUB) -> None:
    # The client is opened around the application: when that ends, everything the client does has ended as well.
    async with open_client(SCHEMA, plugins=device(file, hub), policy=POLICY) as client:
        await Board(client).run_async()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
