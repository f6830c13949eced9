import asyncio
import sys
from typing import ClassVar

from model import CHECKS, SCHEMA, Check, plugins
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.widgets import Footer, Header, Input

from atoma import select
from atoma.bindings.aio import Client, open_client
from atoma.bindings.textual import Column, LiveTable

COLUMNS = [Column[Check]("State", lambda check: check.state, 8), Column[Check]("What", lambda check: check.what, 50)]


class Round(App[None]):
    TITLE = "Round"
    BINDINGS: ClassVar[list[BindingType]] = [("f", "mark('fine')", "Fine"), ("x", "mark('fault')", "Fault")]

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.checks = client.store(CHECKS)
        self.table = LiveTable(client, select(CHECKS).order_by("what"), COLUMNS)

    def compose(self) -> ComposeResult:
        yield Header()
        yield self.table
        yield Input(placeholder="What else is to be checked?")
        yield Footer()

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        await self.checks.insert(Check(what=event.value))
        event.input.clear()

    async def action_mark(self, state: str) -> None:
        if (check := self.table.cursor_row) is not None:
            await self.checks.update(check.id, state=state)


async def main(file: str) -> None:
    async with open_client(SCHEMA, plugins=plugins(file)) as client:
        await Round(client).run_async()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
