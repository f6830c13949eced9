"""A small application with a rich schema, its hub on a port and its devices on files; and the command line beside it."""

from __future__ import annotations

import contextlib
import enum
import io
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import trio

from atoma.cli import main
from atoma.client import Client, open_client
from atoma.hub import Hub, StaticTokenVerifier, open_hub
from atoma.plugins import Plugin
from atoma.schema import Index, Schema, StoreSpec
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport


class Lane(enum.StrEnum):
    TODO = "todo"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A row of every kind of column, which a file alone does not explain."""

    id: str
    title: str
    lane: Lane = Lane.TODO
    done: bool = False
    price: Decimal | None = None
    due: datetime | None = None
    tags: tuple[str, ...] = ()
    photo: bytes = b""
    team: str = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    id: str
    value: str = ""


TASKS = StoreSpec("tasks", Task, scope="team", indexes=[Index("title", unique=True), Index("lane", "done")])
SETTINGS = StoreSpec("settings", Setting, indexes=[Index("value", unique=True)])
SCHEMA = Schema(TASKS, SETTINGS, version=3)
TOKEN = "long-secret-of-ann"
TEAMS = ("red", "blue")


def task(number: int, **values: Any) -> Task:
    known: dict[str, Any] = {
        "id": str(number),
        "title": f"task {number}",
        "price": Decimal("1.50"),
        "due": datetime(2026, 1, 1, tzinfo=UTC),
        "tags": ("a", "b"),
        "photo": b"\x00\xff",
    }
    return Task(**{**known, **values})


@asynccontextmanager
async def running_hub(path: Path, port: int = 0) -> AsyncGenerator[tuple[Hub, str]]:
    """A hub on ``path`` and the address of its port, a free one by itself."""
    async with open_hub(SCHEMA, SQLiteHubStore(path), verifier=StaticTokenVerifier({TOKEN: "ann"})) as hub:
        async with open_server(hub, f"127.0.0.1:{port}") as address:
            yield hub, f"ws://{address}/sync"


@asynccontextmanager
async def device(path: Path, url: str, *, plugins: Sequence[Plugin] = (), **options: Any) -> AsyncGenerator[Client]:
    """The application on ``path``, with other ``plugins``; ``url`` is empty for one that is offline."""
    way = WebSocketTransport(url or "ws://127.0.0.1:9/sync", token=TOKEN)
    made: list[Plugin] = [
        *plugins,
        LocalExecution(SQLiteEngine(path)),
        Remote(way),
        Sync([TASKS], TEAMS, **{"mode": "full" if url else "manual", **options}),
    ]
    async with open_client(SCHEMA, plugins=made, policy="sync-queue") as client:
        yield client


async def settle(client: Client) -> None:
    with trio.move_on_after(60) as patience:
        await client.sync.wait_idle()
    assert not patience.cancelled_caught, client.sync.status


async def write(path: Path, url: str, numbers: Sequence[int]) -> None:
    """Insert some tasks on a device and let the hub have them, unless it is offline."""
    async with device(path, url) as client:
        for number in numbers:
            await client.store(TASKS).insert(task(number))
        if url:
            await settle(client)


@dataclass(frozen=True)
class Answer:
    """What a command has said."""

    code: int
    out: str
    err: str


def atoma(*arguments: object) -> Answer:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    return Answer(code, out.getvalue(), err.getvalue())


async def atoma_beside(*arguments: object) -> Answer:
    """Run a command in a thread, while the loop goes on."""
    return await trio.to_thread.run_sync(partial(atoma, *arguments))


def titles(path: Path) -> list[str]:
    """The tasks in a file, read by other means than ours."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [str(row[0]) for row in connection.execute("SELECT title FROM tasks ORDER BY CAST(id AS INTEGER)")]
