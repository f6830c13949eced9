"""What the simulated people do: every kind of write, on few rows, so that they meet."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import trio

from atoma.client import Client
from atoma.errors import AtomaError, StoreError, SyncError, WriteError
from atoma.runtime import Store, WriteHandle
from atoma.schema import Increment, StoreSpec
from atoma.testing.simulation.byhand import EDITED
from atoma.testing.simulation.encounters import Encounters, Fault
from atoma.testing.simulation.standing import Lookout
from atoma.testing.simulation.stores import (
    LATEST,
    MANUAL,
    PAIRED,
    PAIRED_NAMES,
    SEATS,
    SECRET,
    SERVER,
    SINGLES,
    TALLIES,
    Item,
    said,
)
from atoma.testing.simulation.swarm import Swarm

REPAIR_S = 20.0

Promised = Callable[[str, WriteHandle[Item] | None], None]


class Person:
    """A person at one device, who writes over all the crashes of the device.

    Args:
        name: Of the device.
        swarm: How much to write.
        dice: Decides what.
        promised: Told the token of every write that has returned, with its handle if it has one.
        encounters: Told of the writes that are cancelled.
        lookout: Finds the moment to cancel one.

    Attributes:
        user: Who it is; a copy of a device is the same person's.
        left: Calls still to make.
        client: What the device runs, None while it runs nothing.
        opened: Set while it runs.
        at_work: Tells the checker while something is done about the outbox.
        excused: Whether the device's disk is why something has failed.
    """

    def __init__(
        self,
        name: str,
        swarm: Swarm,
        dice: random.Random,
        promised: Promised,
        encounters: Encounters,
        lookout: Lookout,
    ) -> None:
        self.name = name
        self.user = name
        self._encounters = encounters
        self._lookout = lookout
        self.left = swarm.writes
        self._swarm = swarm
        self._dice = dice
        self._promised = promised
        self._counts = encounters.counts
        self._tokens = 0
        self._resolute = self._deciding = False
        self.client: Client | None = None
        self.opened = trio.Event()
        self.at_work: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()
        self.excused: Callable[[BaseException], bool] = lambda _: False

    def begin(self, client: Client) -> None:
        """The device's program runs."""
        self.client = client
        self.opened.set()

    def end(self) -> None:
        """It has ended, or crashed."""
        self.client, self.opened = None, trio.Event()

    async def work(self, client: Client) -> None:
        """Write until all calls are made; a call that a crash cuts short is not made again."""
        extras = self._swarm.extras
        while self.left:
            await trio.sleep(self._dice.expovariate(1 / self._swarm.write_pause))
            self.left -= 1
            call = self._dice.choices(
                (self._single, self._many, self._pair, self._transaction, self._changing, self._tidy),
                (10, 3, 4, 2, 2, 1),
            )[0]
            for share, other in (
                (extras.trades, self._trade),
                (extras.increments, self._count),
                (extras.secrets, self._whisper),
            ):
                if share and self._dice.random() < share:
                    call = other
            try:
                if self._dice.random() < self._swarm.cancel:
                    await self._cancelled(call, client)
                else:
                    await call(client)
            except WriteError:
                self._counts["refused locally"] += 1
            except StoreError as error:
                if not self.excused(error):
                    raise
                self._counts["writes that a disk did not take"] += 1
            if extras.minds and self._dice.random() < extras.minds:
                await self._change_mind(client)
            if self._swarm.restores is not None and self._dice.random() < 0.2:
                await self._see_to(client)

    async def _change_mind(self, client: Client) -> None:
        """Hold, release, edit or discard something that was never sent."""
        outbox = client.sync.outbox
        entries = [entry for entry in await outbox.entries() if entry.editable]
        if not entries:
            return
        entry = self._dice.choice(entries)
        what = self._dice.choice(
            ("release", EDITED, "discard") if entry.state == "held" else ("hold", EDITED, "discard")
        )
        row = self._dice.choice(sorted(entry.rows))
        await trio.sleep(self._dice.random() * self._swarm.latency)
        if self._resolute:
            return
        self._deciding = True
        with self.at_work(what):
            try:
                match what:
                    case "hold":
                        await outbox.hold([entry])
                    case "release":
                        await outbox.release([entry])
                    case "discard":
                        await outbox.discard([entry], dependents=self._dice.random() < 0.5)
                    case _:
                        await outbox.edit(entry, {"left": self._dice.choice("xyz")}, row=row)
                self._counts[f"minds changed: {what}"] += 1
            except (WriteError, SyncError):
                self._counts["minds changed too late"] += 1
            finally:
                self._deciding = False

    async def let_go(self) -> None:
        """Release everything that is held, and hold nothing any more; a program that is being opened is waited for."""
        self._resolute = True
        while self._deciding:  # noqa: ASYNC110 - it is over in a moment, and nobody else waits for it
            await trio.sleep(0.01)
        client = None
        while client is None or client is not self.client:  # a crash may come in between, and take the release back
            await self.opened.wait()
            client = self.client
            if client is not None:
                try:
                    with self.at_work("release"):
                        outbox = client.sync.outbox
                        await outbox.release([entry for entry in await outbox.entries() if entry.state == "held"])
                except StoreError as error:
                    if not self.excused(error):
                        raise
                    client = None  # its program is on its way down
                    await trio.sleep(0.01)

    async def _see_to(self, client: Client) -> None:
        """Look whether the device waits for somebody, and what it keeps."""
        await self.help()
        kept = await client.sync.lost.entries()
        if kept and self._dice.random() < 0.5:
            entry = self._dice.choice(kept)
            await (client.sync.lost.offer([entry]) if self._dice.random() < 0.5 else client.sync.lost.discard([entry]))
            self._counts["lost resolved"] += 1

    async def help(self) -> None:
        """Ask for the repair that the device says it waits for."""
        client = self.client
        if client is None or client.sync.status.state != "stalled":
            return
        with trio.move_on_after(REPAIR_S):
            try:
                await client.sync.repair()
                self._counts["repairs asked for"] += 1
            except AtomaError:
                pass  # the network is not what it should be either

    async def bring_back(self, *, unproven: bool) -> None:
        """Offer everything that is kept; what nothing proves too, or that is left to the operator's word."""
        if self.client is not None:
            kept = await self.client.sync.lost.entries()
            await self.client.sync.lost.offer([row for row in kept if unproven or row.reason != "unproven"])

    async def _cancelled(self, call: Callable[[Client], Awaitable[None]], client: Client) -> None:
        await self._lookout.wait_for(Fault.CANCELLED, self.name)
        with trio.CancelScope() as scope:
            if self._dice.random() < 0.5:
                scope.cancel()
            else:
                scope.deadline = trio.current_time() + self._dice.random() * self._swarm.latency
            await call(client)
        if scope.cancelled_caught:
            self._encounters.meet(Fault.CANCELLED, self.name)

    def _token(self) -> str:
        self._tokens += 1
        return f"{self.name}.{self._tokens}"

    def _ids(self, count: int) -> list[str]:
        return [f"r{number}" for number in self._dice.sample(range(self._swarm.rows), count)]

    def _fields(self, token: str, spec: StoreSpec[Item]) -> dict[str, object]:
        """Some columns to change; the token is always among them, so that every write can be told from every other."""
        fields: dict[str, object] = {"token": token}
        if self._dice.random() < 0.5:
            fields["left"] = self._dice.choice("xyz")
        if self._dice.random() < 0.4:
            fields["right"] = self._dice.choice("xyz")
        if self._dice.random() < 0.2:
            fields["count"] = self._dice.randrange(5)
        if self._dice.random() < (0.6 if spec is SEATS else 0.1):
            fields["place"] = self._dice.choice(("window", "aisle", None))
        return fields

    def _item(self, id: str, token: str, spec: StoreSpec[Item]) -> Item:
        return Item(id=id, **self._fields(token, spec))  # type: ignore[arg-type]  # the values fit by name

    async def _single(self, client: Client) -> None:
        """One row: insert, update (blindly, or only what was read), upsert (merging, or as a whole), delete."""
        dice = self._dice
        spec = dice.choice(SINGLES)
        store = client.store(spec)
        (id,) = self._ids(1)
        token = self._token()
        there = await store.get(id)
        if there is None:
            await self._create(store, id, token)
            return
        match dice.choices(
            ("update", "compare", "agree", "upsert", "replace", "delete", "insert"), (7, 3, 3, 3, 2, 4, 1)
        )[0]:
            case "update":
                handle = await store.update(id, self._fields(token, spec))
            case "compare":
                version = await store.version(id)
                await trio.sleep(dice.random() * self._swarm.latency)
                handle = await store.update(id, self._fields(token, spec), base_version=version)
            case "agree":
                await store.update(id, self._plain_fields())
                return
            case "upsert":
                handle = await store.upsert({"id": id, **self._fields(token, spec)})
            case "replace":
                handle = await store.upsert(self._item(id, token, spec), apply="replace")
            case "delete":
                await store.delete(id)
                return
            case _:
                handle = await store.insert(self._item(id, token, spec))
        if handle.changed:
            self._promised(token, handle)

    def _plain_fields(self) -> dict[str, object]:
        """Columns without a token: two devices may well set them to the same value."""
        fields = self._fields("", LATEST)
        del fields["token"]
        return {"right": self._dice.choice("xyz"), **fields}

    async def _create(self, store: Store[Item], id: str, token: str) -> None:
        if self._dice.random() < 0.6:
            handle = await store.insert(self._item(id, token, store.spec))
        else:
            handle = await store.upsert(self._item(id, token, store.spec))
        self._promised(token, handle)

    async def _many(self, client: Client) -> None:
        """Several rows of one store, item by item."""
        store = client.store(self._dice.choice(SINGLES))
        ids = self._ids(min(self._swarm.rows, self._dice.randrange(2, 4)))
        tokens = [self._token() for _ in ids]
        match self._dice.choice(("insert", "update", "upsert", "delete")):
            case "insert":
                result: Any = await store.insert_many(
                    [self._item(id, t, store.spec) for id, t in zip(ids, tokens, strict=True)]
                )
            case "update":
                result = await store.update_many({id: {"token": t} for id, t in zip(ids, tokens, strict=True)})
            case "upsert":
                if self._dice.random() < 0.3:  # one row twice in one unit
                    ids.append(ids[0])
                    tokens.append(self._token())
                result = await store.upsert_many(
                    [self._item(id, t, store.spec) for id, t in zip(ids, tokens, strict=True)]
                )
            case _:
                await store.delete_many(ids)
                return
        for item, token in zip(result, tokens, strict=True):
            if item.ok and item.handle.changed:
                self._promised(token, item.handle)

    async def _trade(self, client: Client) -> None:
        """Two rows exchange their unique values, in one transaction or one write after the other."""
        store = client.store(SEATS)
        first, second = self._ids(2)
        found = await store.get_many([first, second])
        for id, seat, place in zip((first, second), found, ("window", "aisle"), strict=True):
            if seat is None:
                token = self._token()
                self._promised(token, await store.insert(Item(id=id, token=token, place=place)))
        one, other = found
        if one is None or other is None or one.place == other.place:
            return
        token = self._token()
        steps: list[tuple[str, str | None]] = [(first, None), (second, one.place), (first, other.place)]
        if self._dice.random() < 0.5:
            async with client.transaction() as tx:
                for id, taken in steps:
                    await tx.store(SEATS).update(id, token=token, place=taken)
            self._promised(token, None)
        else:
            for id, taken in steps:
                token = self._token()
                self._promised(token, await store.update(id, token=token, place=taken))
        self._counts["unique values exchanged"] += 1

    async def _pair(self, client: Client) -> None:
        """Both rows of a pair with one token, as one atomic unit or as a transaction."""
        spec = self._dice.choice(PAIRED)
        store = client.store(spec)
        number = self._dice.randrange(min(3, self._swarm.rows))
        ids = [f"a{number}", f"b{number}"]
        token = self._token()
        there = await store.get(ids[0])
        if self._dice.random() < 0.5:
            await self._pair_in_transaction(client, spec, ids, token)
        elif there is None:
            (await store.insert_many([Item(id=id, token=token) for id in ids], atomic=True)).raise_for_errors()
            self._promised(token, None)
        elif self._dice.random() < 0.2:
            (await store.delete_many(ids, atomic=True)).raise_for_errors()
        else:
            (await store.update_many({id: {"token": token} for id in ids}, atomic=True)).raise_for_errors()
            self._promised(token, None)

    async def _pair_in_transaction(self, client: Client, spec: StoreSpec[Item], ids: list[str], token: str) -> None:
        async with client.transaction() as tx:
            there = await tx.store(spec).get(ids[0])
            await trio.sleep(self._dice.random() * self._swarm.latency)
            removing = there is not None and self._dice.random() < 0.2
            for id in ids:
                if removing:
                    await tx.store(spec).delete(id)
                elif there is None:
                    await tx.store(spec).insert(Item(id=id, token=token))
                else:
                    await tx.store(spec).update(id, token=token)
        if not removing:
            self._promised(token, None)

    async def _transaction(self, client: Client) -> None:
        """Rows of several stores, and of unlike rules, as one mutation."""
        token = self._token()
        (id,) = self._ids(1)
        stores = self._dice.sample((LATEST, SERVER, MANUAL), 2)
        async with client.transaction() as tx:
            for spec in stores:
                await tx.store(spec).upsert(self._item(id, token, spec))
        self._promised(token, None)

    async def _changing(self, client: Client) -> None:
        """Read, change by a function, write; again when somebody was faster."""
        (id,) = self._ids(1)
        token = self._token()

        def more(item: Item) -> Item:
            return replace(item, token=token, count=item.count + 1)

        self._promised(token, await client.store(LATEST).update(id, more))

    async def _count(self, client: Client) -> None:
        """A counter: add to it, with or without another word; write it as a number; delete it."""
        dice, store = self._dice, client.store(TALLIES)
        (id,) = self._ids(1)
        token, amount = self._token(), dice.randrange(-2, 6)
        there = await store.get(id)
        if there is None:
            await self._create(store, id, token)
            return
        match dice.choices(("add", "tally", "set", "upsert", "delete"), (6, 6, 2, 2, 1))[0]:
            case "add":
                handle = await store.update(id, {"token": token, "count": Increment(amount)})
            case "tally":
                await store.update(id, {"count": Increment(amount)})
                self._counts["counters added to"] += 1
                return
            case "set":
                handle = await store.update(id, {"token": token, "count": amount})
            case "upsert":
                handle = await store.upsert(self._item(id, token, TALLIES), apply=dice.choice(("merge", "replace")))
            case _:
                await store.delete(id)
                return
        if handle.changed:
            self._promised(token, handle)
            self._counts["counters added to"] += 1

    async def _whisper(self, client: Client) -> None:
        """A row for two: write it, show it to somebody else, or say something in it; also where that is not ours to do."""
        dice, store = self._dice, client.store(SECRET)
        (id,) = self._ids(1)
        token = self._token()
        others = ["nobody", *(f"c{number}" for number in range(self._swarm.clients))]
        pair = [self.user if dice.random() < 0.9 else dice.choice(others), dice.choice(others)]
        dice.shuffle(pair)
        left, right = pair
        names = {"left": left, "right": right, "place": said(left, right)}
        there = await store.get(id)
        if there is None:
            handle = await store.insert(Item(id=id, token=token, left=left, right=right, place=said(left, right)))
        elif dice.random() < 0.1:
            await store.delete(id)
            return
        elif dice.random() < 0.6:
            handle = await store.update(id, {"token": token, **names})
        else:
            handle = await store.update(id, {"token": token, "count": dice.randrange(5)})
        self._counts["secrets written"] += 1
        if handle.changed:
            self._promised(token, handle)

    async def _tidy(self, client: Client) -> None:
        """Look into the inbox: leave what is there to the hub, or insist."""
        entries = [entry for entry in await client.inbox.entries() if entry.store not in PAIRED_NAMES]
        if not entries:
            return
        entry = self._dice.choice(entries)
        if self._dice.random() < 0.5:
            await client.inbox.dismiss(entry)
        else:
            await client.inbox.keep_mine(entry)
        self._counts["inbox resolved"] += 1
