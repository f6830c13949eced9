"""A station: the hub for the gateways, and a live page of every sensor, in one FastAPI application.

STATION_PORT=8000 uvicorn --factory examples.sensors.station:app --port 8000 --timeout-graceful-shutdown 5
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute

from atoma import StaticTokenVerifier, open_hub, select
from atoma.bindings.aio import Client, open_client
from atoma.bindings.asgi import HubApp, LiveApp, ScriptApp
from atoma_stores.sqlite import SQLiteHubStore

from .gateway import TOKEN
from .model import POLICY, READINGS, SCHEMA, SENSORS, device

OWN_TOKEN = "token of the station"
PAGE = Path(__file__).with_name("station.html")


def app() -> FastAPI:
    folder, port = Path(os.environ.get("STATION_FOLDER", ".")), os.environ.get("STATION_PORT", "8000")
    verifier = StaticTokenVerifier({TOKEN: "gateway", OWN_TOKEN: "station"})
    hub = HubApp(lambda: open_hub(SCHEMA, SQLiteHubStore(folder / "hub.db"), verifier=verifier))
    opened: list[Client] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        # The page reads a device of the station's own, not the hub: however many look at it, the gateways do not feel it.
        # It connects once this server answers, which is after this function has yielded; until then it waits.
        plugins = device(str(folder / "station.db"), f"ws://127.0.0.1:{port}/sync", OWN_TOKEN)
        async with hub.opened(), open_client(SCHEMA, plugins=plugins, policy=POLICY) as client:
            opened.append(client)
            yield

    live = LiveApp(lambda: opened[0], lambda scope: select(SENSORS).order_by("id"))
    routes: list[BaseRoute] = [WebSocketRoute("/sync", hub), Route("/live", live), Route("/atoma.js", ScriptApp())]
    station = FastAPI(lifespan=lifespan, routes=routes)

    @station.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    @station.get("/sensors/{id}")
    async def history(id: str, limit: int = 100) -> list[float]:
        readings = select(READINGS).where(READINGS.col(lambda reading: reading.sensor) == id).order_by("-id")
        return [reading.celsius for reading in await opened[0].query(readings.limit(min(limit, 1_000)))]

    return station
