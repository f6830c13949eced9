"""What the golden files hold: stores, users, and how a hub and a device are opened on them.

The golden commit runs this too, so it uses only what was there then.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NewType, TypeVar

from atoma.client.client import Client, open_client
from atoma.contracts.sync import Limits
from atoma.hub import Hub, StaticTokenVerifier, open_hub
from atoma.plugins import PluginContext
from atoma.ports import Environment, PortKey
from atoma.ports.keys import LOCAL_DATABASE
from atoma.schema import Index, Schema, StoreSpec
from atoma.sync import Sync
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.remote import Remote

T = TypeVar("T")

TOKENS = {"a-token": "ann", "b-token": "bob"}
SCOPES = ("main", "side")
PAGE_CHANGES = 4
"""Pages are small, so that a snapshot has several."""

FORGOTTEN = "018bcfe5-6800-7000-8000-000000000001"
"""Key of a direct write that was given up, which the hub has forgotten."""
FENCED = "018bcfe5-6be8-7000-8000-000000000002"
"""Key of another one, which it has not."""

Nickname = NewType("Nickname", str)


class Mood(enum.Enum):
    """How a thing feels."""

    CALM = "calm"
    WILD = "wild"


@dataclass(frozen=True, slots=True)
class Size:
    """A value that is stored as JSON."""

    wide: int
    high: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A row with its scope in a field."""

    id: str
    title: str = ""
    lane: Literal["todo", "done"] = "todo"
    rank: float = 0.0
    done: bool = False
    board: str = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A row of the scope ``main``."""

    id: str
    text: str = ""
    color: str = "white"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A row with a unique column."""

    id: str
    place: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A row with a column of every kind."""

    id: str
    text: str = ""
    count: int = 0
    ratio: float = 0.0
    flag: bool = False
    blob: bytes = b""
    moment: datetime | None = None
    day: date | None = None
    price: Decimal | None = None
    lasts: timedelta | None = None
    mood: Mood = Mood.CALM
    nickname: Nickname = Nickname("")
    tags: list[str] = field(default_factory=list)
    size: Size | None = None


CARDS = StoreSpec("cards", Card, scope="board", indexes=[Index("lane")])
NOTES = StoreSpec("notes", Note, conflict="manual")
KEPT = StoreSpec("kept", Note, conflict="server_wins")
SEATS = StoreSpec("seats", Seat, indexes=[Index("place", unique=True)])
THINGS = StoreSpec("things", Thing)
DRAFTS = StoreSpec("drafts", Note)
"""Stays on the device."""
SCHEMA = Schema(CARDS, NOTES, KEPT, SEATS, THINGS, DRAFTS)
SYNCED = (CARDS, NOTES, KEPT, SEATS, THINGS)


@asynccontextmanager
async def hub_on(path: Path, environment: Environment | None = None) -> AsyncGenerator[Hub]:
    """The hub of the golden files, with pages of a few rows."""
    async with open_hub(
        SCHEMA,
        SQLiteHubStore(path),
        verifier=StaticTokenVerifier(TOKENS),
        environment=environment,
        limits=Limits(page_changes=PAGE_CHANGES),
    ) as hub:
        yield hub


@dataclass
class Probe:
    """Plugin that lets its owner look into the database."""

    context: PluginContext | None = None

    id = "probe"
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = (LOCAL_DATABASE,)

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self.context = context
        yield


@dataclass
class Device:
    """An open client on a file."""

    client: Client
    probe: Probe

    @property
    def sync(self) -> Any:
        """The sync lanes."""
        return self.client.sync

    def store(self, spec: StoreSpec[T]) -> Any:
        """One of its stores."""
        return self.client.store(spec)

    async def rows(self, spec: StoreSpec[Any], policy: str = "direct-local") -> dict[str, Any]:
        """What is there, by id."""
        return {item.id: item for item in await self.client.store(spec).query(policy=policy)}

    async def inspect(self, body: Any) -> Any:
        """What ``body`` reads in a transaction."""
        assert self.probe.context is not None
        return await self.probe.context.require(LOCAL_DATABASE).inspect(body)


@asynccontextmanager
async def device_on(
    path: Path, transport: Any, environment: Environment | None = None, *, syncs: bool = True
) -> AsyncGenerator[Device]:
    """A device on ``path`` that reaches its hub by ``transport``; one that does not sync asks the hub about everything."""
    probe = Probe()
    plugins: list[Any] = [LocalExecution(SQLiteEngine(path)), probe, Remote(transport)]
    if syncs:
        plugins.append(Sync(SYNCED, SCOPES))
    policy = "sync-queue" if syncs else "direct-remote"
    async with open_client(SCHEMA, plugins=plugins, policy=policy, environment=environment) as client:
        yield Device(client, probe)


FULL = Thing(
    id="full",
    text="ünïcode 𝄞",
    count=-(2**63),
    ratio=0.1,
    flag=True,
    blob=bytes(range(256)),
    moment=datetime.fromisoformat("2026-02-28T23:59:59.000001+00:00"),
    day=date(2026, 2, 28),
    price=Decimal("-12345678901234567890.10"),
    lasts=timedelta(days=-1, microseconds=1),
    mood=Mood.WILD,
    nickname=Nickname('the "one"'),
    tags=["a", "ü", ""],
    size=Size(3, 0.5),
)
"""A thing in which every field says something."""
