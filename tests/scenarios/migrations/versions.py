"""An application in four versions: a rename, a type that changes, a field that is parted, one that is given up and one added."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import trio

from atoma.client import Client, open_client
from atoma.hub import AllowLoopback, Hub, open_hub
from atoma.ports import seeded_environment
from atoma.ports.hub import HubStore
from atoma.schema import Convert, Drop, Index, MigrationStep, Rename, Scale, Schema, Split, StoreSpec
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

Money = Annotated[Decimal, Scale(2)]


@dataclass(frozen=True)
class Item1:
    id: str
    name: str
    price: int = 0  # in tenths
    person: str = "Ann Lee"
    color: str | None = None


@dataclass(frozen=True)
class Item2:
    id: str
    title: str
    price: int = 0
    person: str = "Ann Lee"
    color: str | None = None


@dataclass(frozen=True)
class Item3:
    id: str
    title: str
    price: Money = Decimal(0)
    person: str = "Ann Lee"
    color: str | None = None


@dataclass(frozen=True)
class Item4:
    id: str
    title: str
    price: Money = Decimal(0)
    first: str = "Ann"
    last: str = "Lee"
    note: str = ""


def in_money(tenths: int) -> Decimal:
    return Decimal(tenths) / 10


def in_tenths(money: Decimal) -> int:
    return int(money * 10)


def parted(person: str) -> tuple[str, str]:
    first, _, last = person.partition(" ")
    return first, last


def joined(first: str, last: str) -> str:
    return f"{first} {last}".strip()


TO_2: list[MigrationStep] = [Rename("items.name", "title")]
TO_3: list[MigrationStep] = [Convert("items.price", in_money, was=int, back=in_tenths)]
TO_4: list[MigrationStep] = [
    Split("items.person", ("first", "last"), parted, was=str, back=joined),
    Drop("items.color", was=str | None),
]


def store(model: type[Any], name: str) -> StoreSpec[Any]:
    return StoreSpec("items", model, indexes=[Index(name), Index("price")], conflict="server_wins")


VERSIONS: dict[int, Schema] = {
    1: Schema(store(Item1, "name")),
    2: Schema(store(Item2, "title"), version=2, steps={2: TO_2}),
    3: Schema(store(Item3, "title"), version=3, steps={2: TO_2, 3: TO_3}),
    4: Schema(store(Item4, "title"), version=4, steps={2: TO_2, 3: TO_3, 4: TO_4}),
}

NEWEST = VERSIONS[4]
UNEXPLAINED = Schema(store(Item4, "title"), version=4)


@dataclass(frozen=True)
class Team1:
    id: str
    team: str
    word: str = ""


@dataclass(frozen=True)
class Team2:
    id: str
    club: str
    text: str = ""
    more: int = 3


TEAMS = StoreSpec("teams", Team1, scope="team", indexes=[Index("word", "team")])
CLUBS = StoreSpec("teams", Team2, scope="club", indexes=[Index("text", "club")])
RENAMED = Schema(CLUBS, version=2, steps={2: [Rename("teams.team", "club"), Rename("teams.word", "text")]})
"""What :data:`TEAMS` becomes by other names alone, that of the scope among them, and a field that is new."""


def _schema(version: int | Schema) -> Schema:
    return VERSIONS[version] if isinstance(version, int) else version


def today(item: Item1, note: str = "") -> Item4:
    """What an item of the first version is in the fourth: an oracle that knows nothing of steps."""
    first, _, last = item.person.partition(" ")
    return Item4(item.id, item.name, Decimal(item.price) / 10, first, last, note)


class Place:
    """A folder with a hub and devices, each in a version of its own or with another schema, and the network between them.

    Args:
        folder: The folder.
        hub_store: Where the hub is; in a file there unless this says otherwise.
    """

    def __init__(self, folder: Path, hub_store: HubStore | None = None) -> None:
        self.folder = folder
        self._hub_store = SQLiteHubStore(folder / "hub.db") if hub_store is None else hub_store
        self.network = MemoryNetwork()
        self.openings = 0

    def _environment(self) -> Any:
        self.openings += 1
        return seeded_environment(self.openings)

    @asynccontextmanager
    async def hub(self, version: int | Schema) -> AsyncGenerator[Hub]:
        schema, environment = _schema(version), self._environment()
        async with open_hub(schema, self._hub_store, verifier=AllowLoopback(), environment=environment) as hub:
            async with self.network.listen(hub):
                yield hub

    @asynccontextmanager
    async def device(self, name: str, version: int | Schema) -> AsyncGenerator[Client]:
        schema = _schema(version)
        plugins: list[Any] = [
            LocalExecution(SQLiteEngine(self.folder / f"{name}.db")),
            Remote(MemoryTransport(self.network, site=name)),
            Sync(schema.stores.values(), ["main"]),
        ]
        async with open_client(schema, plugins=plugins, policy="sync-queue", environment=self._environment()) as client:
            yield client

    def table(self, name: str) -> list[tuple[Any, ...]]:
        """The rows of a file as they are stored."""
        with closing(sqlite3.connect(self.folder / f"{name}.db")) as file:
            return file.execute("SELECT id, title, price, first, last, note FROM items ORDER BY id").fetchall()

    def count(self, name: str, what: str) -> int:
        with closing(sqlite3.connect(self.folder / f"{name}.db")) as file:
            return int(file.execute(f"SELECT count(*) FROM {what}").fetchone()[0])


def items(client: Client) -> Any:
    return client.store(client.schema.stores["items"])


async def rows(client: Client) -> dict[str, Any]:
    return {item.id: item for item in await items(client).query(policy="direct-local")}


async def settle(client: Client) -> None:
    with trio.fail_after(600):
        await client.sync.wait_idle()
