"""A device whose file may be encrypted, as a program that ends in the middle of its work, and by hand in a test.

device.py FILE die      writes, keeps what it wrote in its log, and kills itself
device.py FILE change   changes the key of copies of the file, one for each of ``STEPS``, and is killed there
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import trio

from atoma.client import Client, open_client
from atoma.schema import Schema, StoreSpec
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History, SQLiteEngine, change_key
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

KEY = bytes(range(32))
OTHER = bytes(reversed(range(32)))
STEPS = ("fsync 1 before", "fsync 1 after", "fsync 2 before", "fsync 2 after", "pwrite 1 before")
"""The copy is put on the disk, takes the place of the file, has its name put on the disk; what was there is spoilt."""
CANARIES = ("canary-of-a-row", "canary-of-the-outbox", "canary-in-a-long-text", "canary-of-what-was-deleted")
ROWS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str


NOTES = StoreSpec("notes", Note, search=("text",))
DRAFTS = StoreSpec("drafts", Note)
SCHEMA = Schema(NOTES, DRAFTS)


def engine(path: str | Path, key: bytes | str | None = KEY) -> SQLiteEngine:
    return SQLiteEngine(path, key=key, history=History(days=1))


@asynccontextmanager
async def opened(path: str | Path, key: bytes | str | None = KEY) -> AsyncGenerator[Client]:
    """The device, offline: what it writes to ``NOTES`` waits in its outbox."""
    away = Remote(MemoryTransport(MemoryNetwork(), token="t"))
    async with open_client(SCHEMA, plugins=[LocalExecution(engine(path, key)), away, Sync(stores=[NOTES])]) as client:
        yield client


async def write(client: Client) -> None:
    """Every canary, by ways that leave it in rows, indexes of words, the outbox, the history and free pages."""
    row, outbox, long, deleted = CANARIES
    for number in range(ROWS):
        await client.store(DRAFTS).insert(Note(id=str(number), text=f"{row} {number}"))
    await client.store(NOTES).insert(Note(id="1", text=outbox))
    await client.store(NOTES).insert(Note(id="2", text=f"{long} " * 2_000))
    await client.store(DRAFTS).insert(Note(id="gone", text=f"{deleted} " * 500))
    await client.store(DRAFTS).update("gone", {"text": ""})
    await client.store(DRAFTS).delete("gone")


async def die(path: str) -> None:
    async with opened(path) as client:
        await write(client)
        print("written", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


def change(path: str, step: str) -> None:
    """Change the key, and end at a call of the system, before it is made or after."""
    name, which, when = step.split()
    real, calls = getattr(os, name), count(1)

    def mortal(*arguments: object) -> object:
        here = next(calls) == int(which)
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = real(*arguments)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(os, name, mortal)
    change_key(path, old=KEY, new=OTHER)


def main() -> None:
    path, what = sys.argv[1:]
    if what == "die":
        trio.run(die, path)
    else:
        for step in STEPS:
            copy = shutil.copyfile(path, f"{path}-{step}")
            child = os.fork()
            if not child:
                change(copy, step)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
