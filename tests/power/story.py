"""A device, its hub and others who write there: a random story over public doors, on a disk that notes everything."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from atoma import Client, Schema, StoreSpec, Sync, open_client, open_hub
from atoma.contracts.execution import Durability, WriteRequest, WriteResult
from atoma.contracts.sync import (
    Hint,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
)
from atoma.contracts.versions import SEQ_BITS
from atoma.hub import AllowLoopback, Hub
from atoma.plugins import Plugin
from atoma.ports import Channel, Environment, seeded_environment
from atoma.ports.service import Peer, Principal, SyncService
from atoma.testing.simulation.scheduling import Trace, run_seeded
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_stores.sqlite.paths import Paths, forced_paths
from atoma_transports.adapters import PassingService
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.power.disk import Note, noted_disk
from tests.power.promises import (
    DATABASE,
    LOCK,
    Facts,
    Machine,
    Promise,
    RowKey,
    has_answered,
    has_commit,
    has_confirmed,
    has_decided,
    has_epoch,
    has_given_out,
    has_head,
    has_one_of,
    has_refusals,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doc:
    """A row; large ones fill the log."""

    id: str
    text: str = ""


SEQ_MASK = (1 << SEQ_BITS) - 1  # above it a version names its epoch
DOCS = StoreSpec("docs", Doc)
DISPUTED = StoreSpec("disputed", Doc, conflict="manual")
OWN = StoreSpec("own", Doc)
SCHEMA = Schema(DOCS, DISPUTED, OWN)
SYNCED = (DOCS, DISPUTED)
ROWS = 5
SIZES = (10, 3_000, 20_000, 200_000)
LIVES = 3
ACTIONS = 15
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Since(Sequence[str | None]):
    """The texts of a row from one on; those that come later belong to it."""

    texts: list[str | None]
    first: int

    def __len__(self) -> int:
        return len(self.texts) - self.first

    def __getitem__(self, place: int) -> str | None:  # type: ignore[override]  # nobody slices it
        if place >= len(self):
            raise IndexError(place)
        return self.texts[self.first + place]


@dataclass(slots=True)
class Tape:
    """What happened in a story.

    Attributes:
        notes: What the disk was asked for.
        promises: What must not be lost, by machine.
        written: Every text of a row that one writer alone writes, in order; None stands for no row.
        epochs: Epochs of the hub of which somebody has heard, in order.
        given_out: The device's life, and the last mutation that it has sent in it.
        durability: What the device's writes were to survive.
    """

    seed: int
    durability: Durability
    notes: list[Note] = field(default_factory=list)
    given_out: tuple[int, int] = (1, 0)
    promises: dict[Machine, list[Promise]] = field(default_factory=lambda: {"device": [], "hub": []})
    written: dict[RowKey, list[str | None]] = field(default_factory=dict[RowKey, list[str | None]])
    epochs: list[bytes] = field(default_factory=list[bytes])

    def promise(self, machine: Machine, what: str, kept: Callable[[Facts], bool], row: RowKey | None = None) -> None:
        """Note that ``machine`` has made a promise just now."""
        self.promises[machine].append(Promise(len(self.notes), what, kept, row))

    def promise_row(self, machine: Machine, key: RowKey, place: int) -> None:
        """Note that ``machine`` has acknowledged the write at ``place`` of the row's texts."""
        kept = has_one_of(key, Since(self.written[key], place))
        self.promise(machine, f"write {place} of {key} was acknowledged", kept, key)

    def writes(self, key: RowKey, text: str | None) -> int:
        """Note that ``text`` is about to be written; its place among the row's texts."""
        self.written.setdefault(key, [None]).append(text)
        return len(self.written[key]) - 1

    def is_in(self, epoch: bytes) -> Callable[[Facts], bool]:
        """The hub is in ``epoch``, which somebody has heard of, or in a later one."""
        if epoch not in self.epochs:
            self.epochs.append(epoch)
        return has_epoch(self.epochs, self.epochs.index(epoch))


@dataclass(frozen=True, slots=True)
class Spoken:
    """A channel of the device: what it says is a promise as soon as it is said."""

    channel: Channel
    tape: Tape

    async def call(self, method: str, message: msgspec.Struct) -> msgspec.Struct:
        """Note what is promised, and pass it on."""
        tape = self.tape
        if isinstance(message, OpenRequest | PushRequest):
            mids = [mutation.mid for mutation in message.mutations] if isinstance(message, PushRequest) else []
            tape.given_out = max(tape.given_out, (message.incarnation, max(mids, default=0)))
            for mid in mids or [0]:
                kept = has_given_out(message.client_id, message.incarnation, mid)
                tape.promise("device", f"mutation {mid} of life {message.incarnation} was sent", kept)
            confirmed = has_confirmed(message.incarnation, message.confirmed_mid)
            tape.promise("device", f"settled up to {message.confirmed_mid}, the hub was told", confirmed)
        return await self.channel.call(method, message)

    def stream(
        self, method: str, message: msgspec.Struct
    ) -> AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]:
        """Pass it on."""
        return self.channel.stream(method, message)


@dataclass(frozen=True, slots=True)
class SpokenTransport:
    """The device's way to the hub."""

    inner: MemoryTransport
    tape: Tape

    @property
    def name(self) -> str:
        """As the transport says."""
        return self.inner.name

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        """Connect, and listen."""
        async with self.inner.connect() as channel:
            yield Spoken(channel, self.tape)


@dataclass(frozen=True, slots=True)
class HeardHub:
    """A host whose every answer is a promise."""

    hub: Hub
    tape: Tape

    @property
    def admits_loopback(self) -> bool:
        """As the hub says."""
        return self.hub.admits_loopback

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        """As the hub says."""
        return await self.hub.authenticate(token, peer)

    def service(self, principal: Principal) -> SyncService:
        """The hub, listened to."""
        return HeardService(self.hub.service(principal), self.tape)


class HeardService(PassingService):
    """The hub as one principal sees it: each answer is a promise as soon as it is given."""

    def __init__(self, service: SyncService, tape: Tape) -> None:
        super().__init__(service)
        self.tape = tape

    def _promise(self, what: str, kept: Callable[[Facts], bool]) -> None:
        self.tape.promise("hub", what, kept)

    async def open(self, request: OpenRequest) -> OpenReply:
        reply = await self.service.open(request)
        self._promise("an epoch was told", self.tape.is_in(reply.epoch))
        self._promise(f"decided up to {reply.last_mid}, was told", has_decided(request.client_id, reply.last_mid))
        for status in reply.scopes:
            self._promise(f"head {status.head} was told", has_head(status.scope, status.head))
        return reply

    async def push(self, request: PushRequest) -> PushReply:
        reply = await self.service.push(request)
        for outcome in reply.outcomes:
            self._promise(f"mutation {outcome.mid} was decided", has_decided(request.client_id, outcome.mid))
            self._promise(f"a mutation became {outcome.seq}", has_head(outcome.scope, outcome.seq))
        return reply

    async def pull(self, request: PullRequest) -> PullReply:
        page = await self.service.pull(request)
        self._promise(f"a page up to {page.end.seq} was given", has_head(page.scope, page.end.seq))
        return page

    @asynccontextmanager
    async def notify(self, request: NotifyRequest) -> AsyncGenerator[AsyncIterator[Hint]]:
        async with self.service.notify(request) as hints:
            yield self._heard(hints)

    async def _heard(self, hints: AsyncIterator[Hint]) -> AsyncGenerator[Hint]:
        async for hint in hints:
            self._promise(f"a hint at {hint.head} was given", has_head(hint.scope, hint.head))
            yield hint

    async def write(self, request: WriteRequest) -> WriteResult:
        result = await self.service.write(request)
        self._promise("a direct write was answered", has_answered(request.idem))
        for item in result.items:
            self._promise(f"a direct write became {item.version}", has_head("main", (item.version or 0) & SEQ_MASK))
        return result


class Story:
    """One random story.

    Args:
        seed: Decides everything.
        folder: Where the files are.
        durability: What the device's writes are to survive; with ``full`` one in four is ``normal`` all the same.
        lives: How often hub and device are opened; from the second time on, the hub has forgotten the device.
        threads: Let threads work beside the loop, as in production; then time is real, and chance has a part in it.
    """

    def __init__(self, seed: int, folder: Path, durability: Durability, *, lives: int, threads: bool) -> None:
        self.tape = Tape(seed, durability)
        self._lives = lives
        self._threads = threads
        self._dice = random.Random(f"{seed} {durability}")
        self._folder = folder
        self._vfs = f"noted-{seed}-{durability}"
        self._network = MemoryNetwork()
        self._texts = 0

    def run(self) -> Tape:
        """Play it."""
        for name in DATABASE.values():
            (self._folder / name).parent.mkdir(parents=True)
        paths = Paths(writes=self._dice.choice(("quick", "loop", "thread")))
        with noted_disk(self._vfs, self._folder, beside=(LOCK,)) as disk:
            disk.notes = self.tape.notes
            if self._threads:
                trio.run(self._play)
            else:
                with forced_paths(paths):
                    run_seeded(self._play, self.tape.seed, Trace())
        return self.tape

    def _environment(self) -> Environment:
        seed = self._dice.randrange(2**32)
        return Environment(random=random.Random(seed)) if self._threads else seeded_environment(seed)

    async def _play(self) -> None:
        for life in range(self._lives):
            store = SQLiteHubStore(self._folder / DATABASE["hub"], vfs=self._vfs)
            async with open_hub(SCHEMA, store, verifier=AllowLoopback(), environment=self._environment()) as hub:
                await trio.sleep(0.1)
                if life == 1:
                    await hub.compact(keep=0, client_days=0)  # the device comes back under a new name
                async with self._network.listen(HeardHub(hub, self.tape)), self._peer() as peer, self._web() as web:
                    async with self._device() as device:
                        await self._live(device, peer, web)
                    if life == 1:
                        identity = await hub.new_epoch(devices="forget")
                        self.tape.promise("hub", "a new epoch was begun", self.tape.is_in(identity.epoch))

    @asynccontextmanager
    async def _device(self) -> AsyncGenerator[Client]:
        engine = SQLiteEngine(self._folder / DATABASE["device"], durability=self.tape.durability, vfs=self._vfs)
        transport = SpokenTransport(MemoryTransport(self._network, site="device"), self.tape)
        plugins: list[Plugin] = [LocalExecution(engine), Remote(transport), Sync(SYNCED)]
        async with open_client(SCHEMA, plugins=plugins, environment=self._environment()) as client:
            self.tape.promise("device", "the file was opened", lambda facts: not facts.is_new)
            yield client
        self.tape.promise("device", "the client was closed", lambda facts: not facts.is_new)

    @asynccontextmanager
    async def _peer(self) -> AsyncGenerator[Client]:
        plugins: list[Plugin] = [
            LocalExecution(SQLiteEngine(":memory:")),
            Remote(MemoryTransport(self._network, site="peer")),
            Sync(SYNCED),
        ]
        async with open_client(SCHEMA, plugins=plugins, environment=self._environment()) as client:
            yield client

    @asynccontextmanager
    async def _web(self) -> AsyncGenerator[Client]:
        plugins: list[Plugin] = [Remote(MemoryTransport(self._network, site="web"))]
        async with open_client(
            SCHEMA, plugins=plugins, policy="direct-remote", environment=self._environment()
        ) as client:
            yield client

    async def _live(self, device: Client, peer: Client, web: Client) -> None:
        acts: list[Callable[[], Awaitable[object]]] = [
            *[lambda: self._write_some(device)] * 5,
            lambda: self._write_many(device),
            lambda: self._write_together(device),
            lambda: self._dispute(device, peer),
            lambda: peer.store(DOCS).upsert(self._doc("p")),
            lambda: self._write_there(web),
            self._rest,
            self._part,
            lambda: self._settle(device),
        ]
        for act in [self._dice.choice(acts) for _ in range(ACTIONS)]:
            await act()
        self._network.heal("device")
        await self._settle(device)

    async def _settle(self, device: Client) -> None:
        """Wait until everything is settled; then it stays settled."""
        with trio.move_on_after(PATIENCE_S) as waiting:
            await device.sync.wait_idle()
        if not waiting.cancelled_caught:
            life, mid = self.tape.given_out
            self.tape.promise("device", f"all up to {mid} of life {life} was settled", has_confirmed(life, mid))

    async def _rest(self) -> None:
        await trio.sleep(self._dice.choice((0.001, 0.1, 3.0)))

    async def _part(self) -> None:
        self._network.partition("device") if self._dice.random() < 0.4 else self._network.heal("device")
        await trio.sleep(self._dice.choice((0.0, 1.0)))

    def _doc(self, writer: str) -> Doc:
        self._texts += 1
        size = self._dice.choice(SIZES)
        return Doc(id=f"{writer}{self._dice.randrange(ROWS)}", text=f"{self._texts} {'x' * size}")

    def _word(self) -> Durability | None:
        if self.tape.durability == "normal":
            return None
        return self._dice.choice((None, None, "full", "normal"))

    async def _write_some(self, device: Client) -> None:
        """Some writes at the same time, each to a row of its own."""
        docs = {doc.id: doc for doc in (self._doc("a") for _ in range(self._dice.randrange(1, 4)))}
        spec = self._dice.choice((DOCS, DOCS, OWN))
        async with trio.open_nursery() as nursery:
            for doc in docs.values():
                nursery.start_soon(self._write, device, spec, doc, self._word())

    async def _write(self, device: Client, spec: StoreSpec[Doc], doc: Doc, word: Durability | None) -> None:
        key, store = (spec.name, doc.id), device.store(spec)
        if self._dice.random() < 0.15:
            handle = await store.upsert(doc, durability="normal")
            self.tape.writes(key, doc.text)  # and the same again, which changes nothing
        place = self.tape.writes(key, doc.text)
        handle = await store.upsert(doc, durability=word)
        self._acknowledged(key, place, word, handle.meta.commit)
        if self._dice.random() < 0.2:
            place = self.tape.writes(key, None)
            gone = await store.delete(doc.id, durability=word)
            self._acknowledged(key, place, word, gone.meta.commit)

    def _acknowledged(self, key: RowKey, place: int, word: Durability | None, commit: int | None = None) -> None:
        if (word or self.tape.durability) == "full":
            if commit:
                self.tape.promise("device", f"commit {commit} was acknowledged", has_commit(commit))
            self.tape.promise_row("device", key, place)

    async def _write_many(self, device: Client) -> None:
        docs = [Doc(id=f"a{number}", text=self._doc("a").text) for number in range(ROWS)]
        places = [self.tape.writes(("docs", doc.id), doc.text) for doc in docs]
        word = self._word()
        await device.store(DOCS).upsert_many(docs, durability=word, atomic=self._dice.random() < 0.5)
        for doc, place in zip(docs, places, strict=True):
            self._acknowledged(("docs", doc.id), place, word)

    async def _write_together(self, device: Client) -> None:
        """Two rows in one transaction."""
        word = self._word()
        first, second = self._dice.sample(range(ROWS), 2)
        docs = [Doc(id=f"a{number}", text=self._doc("a").text) for number in (first, second)]
        places = [self.tape.writes(("docs", doc.id), doc.text) for doc in docs]
        async with device.transaction() as tx:
            tx.durability = word
            for doc in docs:
                await tx.store(DOCS).upsert(doc)
        for doc, place in zip(docs, places, strict=True):
            self._acknowledged(("docs", doc.id), place, word)

    async def _dispute(self, device: Client, peer: Client) -> None:
        """The peer writes a row of a store in which nobody may overwrite anybody, then the device, which has not heard."""
        id = f"d{self._dice.randrange(ROWS)}"
        self._network.partition("device")
        for client, name in ((peer, "peer"), (device, "device")):
            self._texts += 1
            await client.store(DISPUTED).upsert(Doc(id=id, text=f"{name} {self._texts}"))
            await trio.sleep(1.0)
        self._network.heal("device")
        await self._settle(device)
        refused = len(await device.sync.inbox.entries())
        self.tape.promise("device", f"{refused} refusals were shown", has_refusals(refused))

    async def _write_there(self, web: Client) -> None:
        doc = self._doc("w")
        place = self.tape.writes(("docs", doc.id), doc.text)
        await web.store(DOCS).upsert(doc, confirm="strict")
        self.tape.promise_row("hub", ("docs", doc.id), place)
