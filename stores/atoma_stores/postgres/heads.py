"""The heads that other processes have committed: notifications, and a look every second as a fallback.

A notification may be lost, and the connection that listens may be dead without a sign. So nothing depends on notifications:
the look finds what they have missed. Every role that may connect to the database may send notifications on any channel, so those without
the seal of a process of this hub are ignored.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, cast

import msgspec
import trio

from atoma.concurrency.backoff import Backoff, Retries
from atoma.errors import StoreBusy, StoreError
from atoma.ports.environment import Environment
from atoma_stores.postgres.codes import ConnectionLost, ServerError
from atoma_stores.postgres.connection import Connection
from atoma_stores.postgres.intake_ddl import CHANNEL as INTAKE
from atoma_stores.postgres.pool import Pool, read
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.scripts import Execute, Script

CHANNEL = "atoma_heads"
NOTICES = "atoma_notices"
"""The channel of transient notices between processes; processes of older versions do not listen to it."""
NOTICE_SIGN = "notice "
"""The beginning of the text of such a notice."""
EVERY_S = 0.02
LOOK_S = 1.0
NOTICE_BYTES = 7_900
"""The maximum size of a notice; PostgreSQL's own limit is 8,000."""
AGAIN = Backoff(initial_s=0.05, max_s=2.0, jitter=0.5)
SEAL_BYTES = 16
_Said: TypeAlias = tuple[str, dict[str, int]]
"""The sender with its seal, and heads. Earlier versions send no seal, and can still read this form."""
_FAILURES = (ConnectionLost, ServerError, StoreBusy)
"""The last one means that the stores were converted while this program was running, which it keeps reporting to its callers."""


class Heads:
    """A notifier, which reports this process's commits to the other processes and receives theirs.

    Args:
        pool: Connections for notifying and looking.
        connect: Opens a connection to listen on.
        listener: Notified of heads that others have committed.
        watched: Returns the scopes that are followed in this process.
        key: The hub's key, which seals its processes' notifications.
        environment: Clock and chance.

    Attributes:
        heard: Called with the notices that other processes, or this one, have sent by :meth:`say`.
    """

    def __init__(
        self,
        pool: Pool,
        connect: Callable[[], Awaitable[Connection]],
        listener: Callable[[Mapping[str, int]], None],
        watched: Callable[[], Sequence[str]],
        key: bytes,
        environment: Environment,
    ) -> None:
        self._pool, self._connect = pool, connect
        self._listener, self._watched = listener, watched
        self._key, self._environment = key, environment
        self._me = environment.random.randbytes(8).hex()
        self._mine: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._committed, self._look_now = trio.Event(), trio.Event()
        self._left = trio.Event()
        self.heard: Callable[[bytes], None] = lambda notice: None

    def committed(self, heads: Mapping[str, int]) -> None:
        """Note that this process has committed these heads and notified its own listeners."""
        for scope, head in heads.items():
            self._mine[scope] = max(head, self._mine.get(scope, 0))
            self._note(scope, head)
        self._committed.set()

    def look(self) -> None:
        """Look now instead of within a second."""
        self._look_now.set()

    async def say(self, notices: Sequence[bytes]) -> None:
        """Send notices to every process that listens; each has at most ``NOTICE_BYTES`` bytes, those of the port.

        Raises:
            StoreError: The database failed.
        """
        texts = [NOTICE_SIGN + base64.b64encode(notice).decode() for notice in notices]
        try:
            async with self._pool.connection() as connection:
                await connection.trip([Execute("SELECT pg_notify($1, $2)", (NOTICES, text)) for text in texts])
        except (ConnectionLost, ServerError) as error:
            raise StoreError(f"nothing could be told to the other processes of the hub: {error}") from error

    async def left(self) -> None:
        """Wait until another program reports that it has left a write; such a report may be missed."""
        await self._left.wait()

    async def run(self) -> None:
        """Notify and listen until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._persistently, self._tell)
            nursery.start_soon(self._persistently, self._hear)
            nursery.start_soon(self._persistently, self._look)

    async def _persistently(self, task: Callable[[], Awaitable[None]]) -> None:
        """Restart ``task`` whenever the connection is lost, with growing pauses while none can be opened."""
        retries = Retries(AGAIN, self._environment.random)
        while True:
            began = self._environment.clock()
            try:
                await task()
            except _FAILURES:
                if self._environment.clock() - began > AGAIN.max_s:
                    retries.reset()
                await trio.sleep(retries.fail())

    async def _tell(self) -> None:
        while True:
            await self._committed.wait()
            self._committed = trio.Event()
            mine, self._mine = self._mine, {}
            try:
                async with self._pool.connection() as connection:
                    await connection.trip(
                        [Execute("SELECT pg_notify($1, $2)", (CHANNEL, text)) for text in self._notices(mine)]
                    )
            except _FAILURES:
                self.committed({scope: head for scope, head in mine.items() if head > self._mine.get(scope, 0)})
                raise
            await trio.sleep(EVERY_S)

    def _notices(self, heads: Mapping[str, int]) -> Iterator[str]:
        part: dict[str, int] = {}
        size = 0
        for scope, head in heads.items():
            more = len(msgspec.json.encode(scope)) + 24
            if part and size + more > NOTICE_BYTES - 64:
                yield self._notice(part)
                part, size = {}, 0
            part[scope] = head
            size += more
        yield self._notice(part)

    def _notice(self, heads: Mapping[str, int]) -> str:
        return msgspec.json.encode((self._sealed(self._me, heads), heads)).decode()

    def _sealed(self, sender: str, heads: Mapping[str, int]) -> str:
        seal = hmac.digest(self._key, msgspec.json.encode((sender, heads)), "sha256")[:SEAL_BYTES]
        return f"{sender} {seal.hex()}"

    async def _hear(self) -> None:
        connection = await self._connect()
        try:
            await connection.trip([Execute(f"LISTEN {name}") for name in (CHANNEL, INTAKE, NOTICES)])
            self.look()  # what was sent before is not sent again
            while True:
                for text in connection.notices():
                    if not text:  # an empty text reports a left write; others name heads
                        self._left.set()
                        self._left = trio.Event()
                        continue
                    if text.startswith(NOTICE_SIGN):
                        self._take_notice(text.removeprefix(NOTICE_SIGN))
                        continue
                    self._take_heads(text)
                await connection.wait()
        finally:
            connection.close()

    async def _look(self) -> None:
        while True:
            watched = list(self._watched())
            self._told = {scope: self._told[scope] for scope in watched if scope in self._told}
            if watched:
                async with self._pool.connection() as connection:
                    found = await read(connection, _heads_of(watched))
                # a head that went back is reported as well, since the history has changed
                self._pass_on({scope: head for scope, head in found.items() if head != self._told.get(scope)})
            with trio.move_on_after(LOOK_S):
                await self._look_now.wait()
            self._look_now = trio.Event()

    def _take_heads(self, text: str) -> None:
        try:
            sealed, heads = msgspec.json.decode(text, type=_Said)
        except msgspec.DecodeError:
            return
        sender = sealed.partition(" ")[0]
        if sender != self._me and hmac.compare_digest(sealed.encode(), self._sealed(sender, heads).encode()):
            self._pass_on({scope: head for scope, head in heads.items() if head > self._told.get(scope, 0)})

    def _take_notice(self, text: str) -> None:
        try:
            notice = base64.b64decode(text, validate=True)
        except ValueError:
            return
        self.heard(notice)

    def _pass_on(self, heads: Mapping[str, int]) -> None:
        if heads:
            self._told.update(heads)
            self._listener(heads)

    def _note(self, scope: str, head: int) -> None:
        self._told[scope] = max(head, self._told.get(scope, 0))


def _heads_of(scopes: Sequence[str]) -> Script[dict[str, int]]:
    asked = POSTGRESQL.lookup(
        {"scope": "TEXT"}, "SELECT s.scope, s.head FROM {keys} {join} {scope} s ON s.scope=k.scope"
    )
    (rows,) = yield [asked.of([(scope,) for scope in scopes])]
    return dict(cast("Sequence[tuple[str, int]]", rows))
