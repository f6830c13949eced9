"""The board as a page, by FastAPI.

    uvicorn --factory examples.kanban.web:app        KANBAN_FILE and KANBAN_HUB in the environment

The server is a device like the others: it has a file, works without the hub, and every page that it serves follows its queries.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Body, FastAPI
from fastapi.responses import FileResponse
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from atoma import Rows
from atoma.bindings.aio import Client, open_client
from atoma.bindings.asgi import LiveApp, Scope, ScriptApp
from atoma.errors import ValidationError

from .model import CARDS, HUB, LANES, POLICY, SCHEMA, Card, Lane, device, in_lane

PAGE = Path(__file__).with_name("board.html")


def asked(scope: Scope) -> Rows[Card]:
    """The query that a page follows. It names a lane, and never a query: what it may read is decided here."""
    name = Request(scope).url.query
    for lane in LANES:
        if name == lane:
            return in_lane(lane)
    raise ValidationError(f"there is no lane {name!r}")


def app() -> FastAPI:
    opened: list[Client] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        file, hub = os.environ.get("KANBAN_FILE", "web.db"), os.environ.get("KANBAN_HUB", HUB)
        async with open_client(SCHEMA, plugins=device(file, hub), policy=POLICY) as client:
            opened.append(client)
            yield

    live = LiveApp(lambda: opened[0], asked)
    routes: list[BaseRoute] = [Route("/live", live), Route("/atoma.js", ScriptApp())]
    board = FastAPI(lifespan=lifespan, routes=routes)

    @board.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    @board.post("/cards", status_code=201)
    async def add(title: Annotated[str, Body(embed=True, min_length=1)]) -> None:
        await opened[0].store(CARDS).insert(Card(title=title))

    @board.put("/cards/{id}/lane")
    async def move(id: str, lane: Annotated[Lane, Body(embed=True)]) -> None:
        await opened[0].store(CARDS).update(id, lane=lane)

    return board
