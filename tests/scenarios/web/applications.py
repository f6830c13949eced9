"""Web applications with live queries and a hub in them: ``uvicorn`` runs one of them for a test. ``ATOMA_FOLDER`` has the files."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoma import Schema, StaticTokenVerifier, StoreSpec, col, new_id, open_hub, select
from atoma.bindings import aio
from atoma.bindings.asgi import HubApp, LiveApp, Receive, Scope, ScriptApp, Send
from atoma.errors import ValidationError
from atoma.hub import ThreadVerifier
from atoma.ports import Peer, TokenVerifier
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore

FOLDER = Path(os.environ.get("ATOMA_FOLDER", "."))


@dataclass(frozen=True, kw_only=True)
class Card:
    id: str = field(default_factory=new_id)
    title: str


CARDS = StoreSpec("cards", Card)
SCHEMA = Schema(CARDS)
OPENED: list[aio.Client] = []
PAGE = """<!doctype html><meta charset="utf-8"><title>cards</title><ul id="cards"></ul><p id="state"></p>
<script type="module">
  import { follow } from "/atoma.js";
  const address = location.hash === "#ws" ? location.origin.replace("http", "ws") + "/live" : "/live";
  follow(address, (rows, state) => {
    document.getElementById("cards").replaceChildren(...rows.map((row) => {
      const item = document.createElement("li"); item.textContent = row.title; return item;
    }));
    document.getElementById("state").textContent = state;
  });
</script>"""


def query(scope: Scope) -> Any:
    text = scope.get("query_string")
    if text == b"secret":
        raise ValidationError("not for you")
    return select(CARDS).where(col("title") != "hidden").order_by("title")


ADA = StaticTokenVerifier({"a long token of ada": "ada"})
LIVE = LiveApp(lambda: OPENED[0], query)
SCRIPT = ScriptApp()


def hub(verifier: TokenVerifier = ADA) -> HubApp:
    return HubApp(lambda: open_hub(SCHEMA, SQLiteHubStore(FOLDER / "hub.db"), verifier=verifier))


@asynccontextmanager
async def client() -> AsyncGenerator[None]:
    plugins = [LocalExecution(SQLiteEngine(FOLDER / "web.db"))]
    async with aio.open_client(SCHEMA, plugins=plugins) as opened:
        OPENED.append(opened)
        yield
        OPENED.clear()


def fastapi() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse
    from starlette.routing import Route, WebSocketRoute

    here = hub()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with client(), here.opened():
            yield

    live = [Route("/live", LIVE), WebSocketRoute("/live", LIVE), Route("/atoma.js", SCRIPT)]
    app = FastAPI(lifespan=lifespan, routes=[WebSocketRoute("/sync", here), *live])

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return PAGE

    @app.post("/cards/{title}")
    async def add(title: str) -> Card:
        handle = await OPENED[0].store(CARDS).insert(Card(title=title))
        return handle.value

    return app


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route, WebSocketRoute

    here = hub()

    async def page(request: object) -> PlainTextResponse:
        return PlainTextResponse("mine")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with here.opened():
            yield

    return Starlette(routes=[Route("/mine", page), WebSocketRoute("/sync", here)], lifespan=lifespan)


def django() -> Any:
    import django as framework
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.db import close_old_connections, connection
    from django.http import HttpResponse
    from django.urls import path

    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "django.db"}}
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for a test", DATABASES=databases)
    framework.setup()
    with closing(sqlite3.connect(FOLDER / "django.db")) as made, made:
        made.execute("CREATE TABLE IF NOT EXISTS token(key TEXT PRIMARY KEY, holder TEXT)")
        made.execute("INSERT OR REPLACE INTO token VALUES('a long token of ada', 'ada')")

    def verify(token: str, peer: Peer) -> str | None:
        """What blocks, and what Django does not let anybody do in a loop."""
        close_old_connections()
        with connection.cursor() as cursor:
            cursor.execute("SELECT holder FROM token WHERE key = %s", [token])
            row = cursor.fetchone()
        return None if row is None else str(row[0])

    globals()["urlpatterns"] = [path("mine", lambda request: HttpResponse(b"mine"))]
    site, here = get_asgi_application(), hub(ThreadVerifier(verify))

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        """What a Django project writes in its ``asgi.py``; Django has no lifespan, so the hub starts when it is first needed."""
        if scope["type"] == "websocket" and scope["path"] == "/sync":
            await here(scope, receive, send)
        else:
            await site(scope, receive, send)

    return application


def alone() -> Any:
    return hub()


def loopback() -> Any:
    from atoma import AllowLoopback

    return HubApp(lambda: open_hub(SCHEMA, SQLiteHubStore(FOLDER / "hub.db"), verifier=AllowLoopback()))
