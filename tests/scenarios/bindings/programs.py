"""Programs that end in every way that programs end: ``python programs.py NAME FILE``."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from atoma import Schema, StoreSpec, new_id
from atoma.bindings import aio, blocking
from atoma.errors import WrongLoop
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str = ""


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


def say(word: str) -> None:
    print(word, flush=True)


def waits(file: str) -> None:
    """Waits in a blocking call until it is interrupted."""
    try:
        with blocking.open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(file))]) as client:
            with client.store(NOTES).live() as batches:
                for _ in batches:
                    client.store(NOTES).insert(Note(id="1"))
                    next(batches)
                    say("waiting")
    except KeyboardInterrupt:
        say("interrupted")


def waits_under_asyncio(file: str) -> None:
    """Waits in an asyncio task until it is interrupted."""

    async def main() -> None:
        async with aio.open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(file))]) as client:
            async with client.store(NOTES).live() as batches:
                async for _ in batches:
                    await client.store(NOTES).insert(Note(id="1"))
                    await anext(batches)
                    say("waiting")

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        say("interrupted")


def never_closes(file: str) -> None:
    """Opens a client, writes, and ends; the client is held to the last."""
    lifetime = blocking.open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(file))])
    client = lifetime.__enter__()
    client.store(NOTES).insert(Note(id="1"))
    globals()["held"] = (lifetime, client)


def forks(file: str) -> None:
    """Uses a client in a fork of the process that opened it."""
    with blocking.open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(file))]) as client:
        child = os.fork()
        if child == 0:
            try:
                client.store(NOTES).insert(Note())
            except WrongLoop as error:
                say(str(error))
            os._exit(0)
        os.waitpid(child, 0)
        client.store(NOTES).insert(Note(id="1"))


PROGRAMS: dict[str, Callable[[str], None]] = {
    program.__name__: program for program in (waits, waits_under_asyncio, never_closes, forks)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2])
