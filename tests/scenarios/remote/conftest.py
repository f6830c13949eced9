"""A hub behind the memory network and a client that caches its rows without syncing them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from atoma import Client, Hub, Index, Schema, StaticTokenVerifier, StoreSpec, open_client, open_hub, select
from atoma.contracts.events import Event
from atoma.contracts.mutations import Op, OpKind
from atoma.contracts.policy import Policy
from atoma.kernel import local_first
from atoma.plugins import Plugin, PluginContext
from atoma.ports import seeded_environment
from atoma.ports.keys import LOCAL_DATABASE, PortKey
from atoma.testing.queries import rows_of
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    id: str
    name: str


NOTES = StoreSpec("notes", Note)
LABELS = StoreSpec("labels", Label, indexes=[Index("name", unique=True)])
SCHEMA = Schema(NOTES, LABELS)


@dataclass
class Road:
    """Decides about frames: lets them pass, holds them at a gate, or breaks the connection.

    Attributes:
        gate: Frames to the client wait here.
        break_replies: So many replies are lost from now on, each with its connection.
        seen: Frames that have passed, by direction.
    """

    gate: trio.Event = field(default_factory=trio.Event)
    break_replies: int = 0
    break_requests: int = 0
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def close(self) -> None:
        self.gate = trio.Event()

    async def on_frame(self, direction: str, frame: bytes) -> Sequence[bytes]:
        if direction == "to-client":
            await self.gate.wait()
            if self.break_replies and b"results" in frame:
                self.break_replies -= 1
                raise trio.BrokenResourceError
        elif self.break_requests and b"idem" in frame:
            self.break_requests -= 1
            raise trio.BrokenResourceError
        self.seen.append(direction)
        return (frame,)


@dataclass
class Probe:
    """Reaches the ports of a client, hears its events, and registers the policy that has to be asked for."""

    id: str = "probe"
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = (LOCAL_DATABASE,)
    heard: list[Event] = field(default_factory=list)
    database: Any = None

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self.database = context.require(LOCAL_DATABASE)
        context.register_listener(self.heard.append)
        policy: Policy = local_first("remote-memory", name="local-first-volatile", volatile=True)
        context.register_policy(policy)
        yield


@dataclass
class Remotely:
    """One client and its hub.

    Attributes:
        client: The client.
        hub: The hub.
        road: What is between them.
        network: The network they are on.
        probe: What was heard, and the local database.
        store: The notes, as the client's policy has them.
    """

    client: Client
    hub: Hub
    road: Road
    network: MemoryNetwork
    probe: Probe
    spec: StoreSpec[Any] = NOTES

    @property
    def store(self) -> Any:
        return self.client.store(self.spec)

    async def here(self) -> dict[str, Any]:
        """The visible rows of this device."""
        return {row.id: row for row in await self.store.query(select(self.store.spec), policy="direct-local")}

    async def there(self) -> dict[str, Any]:
        """The hub's rows, asked around the client's cache."""
        from atoma.contracts.execution import OperationContext, QueryRequest
        from atoma.ports.service import Principal

        service = self.hub.service(Principal("ann"))
        found = await service.query(QueryRequest(rows_of(self.spec.name), OperationContext("check")))
        return {row.id: self.spec.decode(row.id, row.image) for row in found.rows}

    async def elsewhere(self, kind: OpKind, id: str, **values: Any) -> None:
        """Somebody else writes at the hub."""
        from atoma.contracts.execution import OperationContext, WriteOptions, WriteRequest
        from atoma.ports.service import Principal

        entry = Op(kind, self.spec.name, id, values, scope="main")
        key = f"elsewhere {kind} {id} {values} {trio.current_time()}"
        request = WriteRequest((entry,), WriteOptions(), OperationContext("elsewhere"), key)
        result = await self.hub.service(Principal("ann")).write(request)
        assert result.status == "confirmed"

    async def pending(self) -> list[str]:
        """Keys of the writes that are shown and not decided."""
        found: list[str] = await self.probe.database.inspect(lambda tx: [one.idem for one in tx.outbox.volatile()])
        return found

    async def settled(self) -> None:
        """Wait until nothing is undecided."""
        with trio.fail_after(3600):
            while await self.pending():
                await trio.sleep(0.5)


Open = Callable[..., Any]


@pytest.fixture
def open_remotely(tmp_path: Path) -> Open:
    """Opens a client and its hub."""

    @asynccontextmanager
    async def opened(policy: str = "direct-remote", file: str = "client.db") -> AsyncGenerator[Remotely]:
        road, probe = Road(), Probe()
        network = MemoryNetwork(faults=road)
        verifier = StaticTokenVerifier({"token": "ann"})
        hub_store = SQLiteHubStore(tmp_path / "hub.db")
        plugins: list[Plugin] = [
            LocalExecution(SQLiteEngine(tmp_path / file)),
            Remote(MemoryTransport(network, token="token")),
            probe,
        ]
        async with open_hub(SCHEMA, hub_store, verifier=verifier, environment=seeded_environment(2)) as hub:
            async with network.listen(hub):
                async with open_client(
                    SCHEMA, plugins=plugins, policy=policy, environment=seeded_environment(1)
                ) as client:
                    yield Remotely(client, hub, road, network, probe)
                    await trio.testing.wait_all_tasks_blocked()

    return opened
