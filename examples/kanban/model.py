"""What the three front ends share: the store, the question that a lane asks, and how a device is put together.

Nothing here knows how it is shown, and nothing there knows SQL or the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from atoma import Plugin, Schema, StoreSpec, Sync, col, new_id, select
from atoma.query import Rows
from atoma.sync import SyncStatus
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.remote import Remote
from atoma_transports.websocket import WebSocketTransport

Lane = Literal["todo", "doing", "done"]
LANES: tuple[Lane, ...] = ("todo", "doing", "done")
HUB = "ws://127.0.0.1:8765/sync"
POLICY = "sync-queue"
"""A write commits in the device's own file, and travels when there is a hub to travel to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A row of the store ``cards``."""

    id: str = field(default_factory=new_id)
    title: str
    lane: Lane = "todo"


CARDS = StoreSpec("cards", Card, conflict="server_wins")
SCHEMA = Schema(CARDS, version=1)


def in_lane(lane: Lane) -> Rows[Card]:
    """The cards of a lane, oldest first: an id tells when it was made."""
    return select(CARDS).where(col("lane") == lane).order_by("id")


def beside(lane: Lane, by: int) -> Lane:
    """The lane so many to the right; the outer ones are the end."""
    return LANES[max(0, min(LANES.index(lane) + by, len(LANES) - 1))]


def device(file: str, hub: str = HUB) -> list[Plugin]:
    """The plugins of a device with a file of its own."""
    return [LocalExecution(SQLiteEngine(file)), Remote(WebSocketTransport(hub)), Sync(stores=[CARDS])]


def in_words(status: SyncStatus) -> str:
    """One line for a status bar."""
    return f"{status.state}, {status.pending} to send" if status.pending else status.state
