"""A hub with one empty page on its port, in a program of its own: prints its address.

Given the origin of another site, it lets in pages of that one, with a token. With ``--log`` it logs all it can.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

import trio

from atoma.hub import AllowLoopback, StaticTokenVerifier, open_hub
from atoma.schema import Schema, StoreSpec
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.http import HttpHandler, HttpRequest, HttpResponse
from atoma_transports.serving import open_server

TOKEN = "canary-4711-of-eve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    board: str = "main"
    data: bytes = b""
    number: int = 0


async def page(request: HttpRequest) -> HttpResponse:
    anywhere = {"content-security-policy": "connect-src *"}  # what is refused elsewhere, others refuse
    return HttpResponse(
        b"<!doctype html><title>a page</title>", content_type="text/html; charset=utf-8", headers=anywhere
    )


async def main(*given: str) -> None:
    path, *origins = (word for word in given if word != "--log")
    if "--log" in given:
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s %(message)s %(args)s")
    handler = HttpHandler()
    handler.get("/page", page)
    schema = Schema(StoreSpec("cards", Card, scope="board"))
    verifier = StaticTokenVerifier({"good": "ada", TOKEN: "eve"}) if origins else AllowLoopback()
    async with open_hub(schema, SQLiteHubStore(path), verifier=verifier) as hub:
        async with open_server(hub, "127.0.0.1:0", pages=handler, origins=origins) as address:
            print(address, flush=True)
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
