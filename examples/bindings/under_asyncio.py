"""The client under asyncio: a live list, a task that is cancelled, and a time limit.

python examples/bindings/under_asyncio.py [FOLDER]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from atoma import Schema, StoreSpec, col, new_id, select
from atoma.bindings.aio import Store, open_client
from atoma.errors import ConflictError
from atoma.ports import apply_batch
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: str = field(default_factory=new_id)
    title: str
    state: str = "open"


TASKS = StoreSpec("tasks", Task)
SCHEMA = Schema(TASKS)
OPEN = select(TASKS).where(col("state") == "open").order_by("title")


async def show(tasks: Store[Task], shown: asyncio.Queue[int]) -> None:
    """Print the open tasks, again after every change, and tell how many there are."""
    rows: tuple[Task, ...] = ()
    async with tasks.live(OPEN) as batches:
        async for batch in batches:
            rows = apply_batch(rows, batch)
            print("open:", ", ".join(task.title for task in rows) or "nothing")
            await shown.put(len(rows))


async def main(folder: Path) -> None:
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(folder / "tasks.db"))]) as client:
        tasks = client.store(TASKS)
        shown: asyncio.Queue[int] = asyncio.Queue(1)
        showing = asyncio.create_task(show(tasks, shown))
        await shown.get()
        await tasks.insert(Task(id="tea", title="Make tea"))
        await shown.get()
        try:
            await tasks.insert(Task(id="tea", title="Make tea again"))
        except ConflictError as error:
            print("refused:", error.code)
        await tasks.update("tea", state="done")
        await shown.get()
        showing.cancel()  # ends the wait for the next batch, and the subscription
        await asyncio.wait([showing])
        try:
            async with asyncio.timeout(0.05), tasks.live() as batches:
                async for _ in batches:
                    pass
        except TimeoutError:
            print("nothing more")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as place:
            asyncio.run(main(Path(place)))
