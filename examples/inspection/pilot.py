import asyncio

from app import Round
from model import SCHEMA, plugins

from atoma.bindings.aio import open_client


async def main() -> None:
    async with open_client(SCHEMA, plugins=plugins("round.db")) as client:
        app = Round(client)
        async with app.run_test(size=(70, 12)) as pilot:
            while app.table.cursor_row is None:  # rows come in a moment
                await pilot.pause(0.01)
            app.table.focus()
            await pilot.press("f")  # the row under the cursor is fine
            while (check := app.table.cursor_row) is None or check.state != "fine":
                await pilot.pause(0.01)
            print(check.what, "is", check.state)
            app.save_screenshot("round.svg")


asyncio.run(main())
