"""One device's board: follows its live query and its sync, and carries out what people do on the page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import trio

from atoma.contracts.outbox import WaitingWrite
from atoma.contracts.replica import InboxEntry
from atoma.demo.cards import BOARD, CARDS, LANES, Card, Lane, first_cards, lane_of, title_of
from atoma.demo.devices import Device
from atoma.errors import NotFoundError, ValidationError
from atoma.inspector import Inspected, Inspection
from atoma.inspector.conflicts import conflict_view
from atoma.inspector.snapshot import read_backlog
from atoma.inspector.views import ConflictView
from atoma.ports.live import apply_batch
from atoma.query import col, select

STEP = 1.0
COALESCE_S = 0.01


class CardView(msgspec.Struct, frozen=True):
    """One card as the page shows it; ``sync`` is ``waiting``, ``sent`` or ``synced``."""

    id: str
    title: str
    lane: Lane
    pos: float
    by: str
    sync: str


class BoardState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page shows of one device.

    Attributes:
        key: ``a`` or ``b``.
        name: What people call the device.
        file: Name of its database file.
        plugged: Whether the cable is in.
        link: State of the sync lanes.
        reason: Why, for a person.
        outbox: Mutations that have not come back from the hub.
        cursor: Hub sequence that the confirmed base is at.
        head: Highest sequence that the hub has told of.
        lanes: Cards by lane, in order.
        inbox: Open conflicts, oldest first.
    """

    key: str
    name: str
    file: str
    plugged: bool
    link: str
    reason: str
    outbox: int
    cursor: int
    head: int
    lanes: dict[Lane, tuple[CardView, ...]]
    inbox: tuple[ConflictView, ...]


class Board:
    """A device on the page.

    Args:
        key: Short name, in addresses and on cards.
        device: The device.
        eye: The inspection plugin of its client, which reads outbox and inbox.
    """

    def __init__(self, key: str, device: Device, eye: Inspection) -> None:
        self.key = key
        self._device = device
        self._eye = eye
        self._cards: tuple[Card, ...] = ()
        self._state: BoardState | None = None
        self._stale = trio.Event()
        self._changed = trio.Event()

    @property
    def inspected(self) -> Inspected:
        """The device for the inspector."""
        return Inspected(self.key, self._device.name, self._device.client, self._eye, self._device.path)

    async def seed(self) -> None:
        """Write the cards that this device has at the beginning."""
        (await self._device.client.store(CARDS).insert_many(first_cards(self.key))).raise_for_errors()

    async def wait_idle(self) -> None:
        """Wait until the hub has what is written here, and this device has what the hub has."""
        await self._device.client.sync.wait_idle()

    async def next_state(self, seen: BoardState | None) -> BoardState:
        """The state as soon as it is another than ``seen``."""
        while self._state is None or self._state == seen:
            await self._changed.wait()
        return self._state

    async def follow(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the state up to date until cancelled; started once the board has its first state."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._follow_cards)
            nursery.start_soon(self._follow_sync)
            while True:
                self._stale = trio.Event()
                self._show(await self._take())
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await self._stale.wait()
                await trio.sleep(COALESCE_S)

    async def _follow_cards(self, task_status: trio.TaskStatus[None]) -> None:
        query = select(CARDS).where(col("board") == BOARD).order_by("pos")
        async with self._device.client.store(CARDS).live(query) as batches:
            async for batch in batches:
                self._cards = apply_batch(self._cards, batch)
                self._stale.set()
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED

    async def _follow_sync(self) -> None:
        async with self._device.client.sync.watch() as changes:
            async for _ in changes:
                self._stale.set()

    def _show(self, state: BoardState) -> None:
        if state != self._state:
            self._state = state
            self._changed.set()
            self._changed = trio.Event()

    async def _take(self) -> BoardState:
        status = self._device.client.sync.status
        backlog = await read_backlog(self._eye, [scope.scope for scope in status.scopes])
        cards, scope = self._cards, status.scope(BOARD)
        waiting = _sync_states(backlog.outbox, online=status.state == "online")
        titles = {card.id: card.title for card in cards}
        schema = self._device.client.schema
        inbox = [entry for entry in backlog.inbox if not entry.resolution]
        views = [
            CardView(card.id, card.title, card.lane, card.pos, card.by, waiting.get(card.id, "synced"))
            for card in cards
        ]
        return BoardState(
            key=self.key,
            name=self._device.name,
            file=self._device.path.name,
            plugged=self._device.cable.state == "whole",
            link=status.state,
            reason=status.reason,
            outbox=len(backlog.outbox),
            cursor=scope.cursor,
            head=scope.head,
            lanes={lane: tuple(view for view in views if view.lane == lane) for lane in LANES},
            inbox=tuple(conflict_view(entry, schema, _title(entry, titles)) for entry in inbox),
        )

    # what people do

    async def add(self, title: object, lane: object) -> None:
        """Hang a new card at the end of ``lane``."""
        where = lane_of(lane)
        card = Card(title=title_of(title), lane=where, pos=self._place(where, None, ""), by=self.key)
        await self._device.client.store(CARDS).insert(card)

    async def edit(self, id: str, title: object) -> None:
        """Give a card another title."""
        await self._device.client.store(CARDS).update(id, title=title_of(title))

    async def move(self, id: str, lane: object, before: object) -> None:
        """Hang a card in ``lane``, before the card ``before``, or at the end when that is None."""
        where = lane_of(lane)
        await self._device.client.store(CARDS).update(id, lane=where, pos=self._place(where, before, id))

    async def delete(self, id: str) -> None:
        """Take a card down."""
        await self._device.client.store(CARDS).delete(id)

    def plug(self, plugged: bool) -> None:
        """Pull the cable out, or put it in again and try at once."""
        if plugged:
            self._device.cable.repair()
            self._device.client.sync.poke()
        else:
            self._device.cable.cut()
        self._stale.set()

    async def resolve(self, mid: object, id: str, action: object, fields: object = None) -> None:
        """Settle a conflict: ``keep`` writes mine again, or ``fields`` of it, ``dismiss`` leaves what the hub has.

        Raises:
            NotFoundError: It is settled already.
            ValidationError: There is no such action, or no such field was changed here.
        """
        inbox = self._device.client.inbox
        entry = next((item for item in await inbox.entries() if item.mid == mid and item.id == id), None)
        if entry is None:
            raise NotFoundError("inbox", f"{mid}/{id}")
        if action == "keep":
            await inbox.keep_mine(entry, fields=_names(fields))
        elif action == "dismiss":
            await inbox.dismiss(entry)
        else:
            raise ValidationError(f"an action is keep or dismiss, not {action!r}", store="cards")
        self._stale.set()

    def _place(self, lane: Lane, before: object, moving: str) -> float:
        """A place before the card ``before`` of ``lane``, or after its last card."""
        others = [card for card in self._cards if card.lane == lane and card.id != moving]
        if not others:
            return 0.0
        if others[0].id == before:
            return others[0].pos - STEP
        for card, following in pairwise(others):
            if following.id == before:
                return (card.pos + following.pos) / 2
        return others[-1].pos + STEP


def _names(fields: object) -> list[str] | None:
    try:
        return msgspec.convert(fields, list[str] | None)
    except msgspec.ValidationError:
        raise ValidationError(f"fields is a list of names, not {fields!r}", store="cards") from None


def _sync_states(outbox: Sequence[WaitingWrite], *, online: bool) -> dict[str, str]:
    """Row id → ``waiting`` or ``sent``, for the rows that the outbox touches."""
    found: dict[str, str] = {}
    for item in outbox:
        state = "sent" if online or item.state == "accepted" else "waiting"
        for op in item.ops:
            found[op.id] = state
    return found


def _title(entry: InboxEntry, titles: dict[str, str]) -> str:
    for image in (entry.theirs, entry.mine, entry.base):
        if image is not None:
            return str(image.get("title", entry.id))
    return titles.get(entry.id, entry.id)
