"""What a client is made of is what its plugin list says: owners, policies, and the answer when a part is missing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import AllowLoopback, Client, Schema, StoreSpec, Sync, new_id, open_client, open_hub
from atoma.client.context import Planes
from atoma.contracts.events import Event, QueryFinished, WriteSettled
from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.policy import Policy
from atoma.errors import PluginError, UnknownPolicy
from atoma.kernel import direct_local, merge, node
from atoma.plugins import Plugin, PluginContext
from atoma.ports import LOCAL_DATABASE, SYNC_LINK, Channel, PortKey, Transport
from atoma_stores.local import LocalExecution, LocalQueryNode
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote, adapt

GOLDEN = Path(__file__).with_name("topology.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str


NOTES = StoreSpec("notes", Note)
DRAFTS = StoreSpec("drafts", Note, policy="direct-local")
SCHEMA = Schema(NOTES, DRAFTS)


def local() -> LocalExecution:
    return LocalExecution(SQLiteEngine(":memory:"))


def remote() -> Remote:
    return Remote(MemoryTransport(MemoryNetwork()))


def dump(client: Client) -> str:
    """Everything that a client says about how it is put together."""
    topology = client.topology()
    lines = [f"default: {topology.default}", f"synced: {', '.join(sorted(topology.synced)) or 'none'}"]
    for info in topology.nodes:
        lines.append(f"node {info.id}: {', '.join(info.roles)}{' remote' if info.remote else ''}, of {info.owner}")
    lines += [f"transport {name}, of {owner}" for name, owner in topology.transports.items()]
    lines += [f"port {name}, of {owner}" for name, owner in topology.ports.items()]
    lines += [f"store {name}: {policy}, {topology.durability[name]}" for name, policy in topology.stores.items()]
    return "\n".join([*lines, "", client.explain(), ""])


async def dump_of(*plugins: Plugin, policy: str = "direct-local") -> str:
    async with open_client(SCHEMA, plugins=plugins, policy=policy) as client:
        return dump(client)


async def test_what_a_client_does_by_default_can_be_read_off() -> None:
    """The file is the whole behaviour of a client with nothing but a local database."""
    assert await dump_of(local()) == GOLDEN.read_text(encoding="utf-8")
    async with open_client(SCHEMA, plugins=[local()]) as client:
        drawn = {policy.name: client.explain(policy.name) for policy in client.policies}
        infos = {info.name: info for info in client.topology().policies}
        everything = client.explain()
    assert infos.keys() == drawn.keys()
    for name, info in infos.items():
        reason = f"\n  unavailable: {info.unavailable}" if info.unavailable else ""
        assert drawn[name] + reason in everything.split("\n\n"), "topology() and explain() say the same"


async def test_changing_one_plugin_changes_its_own_lines_only() -> None:
    before, after = (await dump_of(local())).splitlines(), (await dump_of(local(), remote())).splitlines()
    lost, new = [line for line in before if line not in after], [line for line in after if line not in before]
    assert "node remote-memory: query, write remote, of remote-memory" in new
    assert [line for line in new + lost if "remote" not in line] == ["policy direct-memory"]


async def test_sync_registers_its_two_nodes_and_touches_no_policy() -> None:
    clients: list[tuple[set[tuple[str, str]], dict[str, str]]] = []
    policies: list[object] = []
    variants: list[list[Plugin]] = [[local(), remote()], [local(), remote(), Sync(stores=[NOTES])]]
    for plugins in variants:
        synced = len(plugins) == 3
        async with open_client(SCHEMA, plugins=plugins, policy="sync-queue" if synced else "direct-local") as client:
            topology = client.topology()
            nodes = {(node.id, node.owner) for node in topology.nodes}
            clients.append((nodes, {policy.name: policy.owner for policy in topology.policies}))
            policies.append(client.policies)
    (before, owners), (after, owners_after) = clients
    assert after - before == {("outbox", "sync"), ("pull", "sync")}
    assert before <= after
    assert policies[0] == policies[1], "policies are values: the same ones"
    assert owners == owners_after


@pytest.mark.parametrize("policy", ["sync-queue", "direct-remote", "remote-first", "hybrid", "direct-http", "nonsense"])
async def test_a_missing_policy_or_node_is_an_error_and_never_an_empty_answer(policy: str) -> None:
    heard: list[Event] = []
    async with open_client(SCHEMA, plugins=[local()]) as client:
        notes = client.store(NOTES)
        await notes.insert(Note(id="1", text="here"))
        client.listen(heard.append)
        for work in (notes.get, notes.delete):
            with pytest.raises(UnknownPolicy) as caught:
                await work("1", policy=policy)
            assert caught.value.policy == policy
        with pytest.raises(UnknownPolicy):
            await notes.query(policy=policy)
        with pytest.raises(UnknownPolicy):
            await notes.insert(Note(id="2", text="x"), policy=policy)
        assert [note.id for note in await notes.query()] == ["1"]
    settled = [event for event in heard if isinstance(event, WriteSettled)]
    finished = [event for event in heard if isinstance(event, QueryFinished)]
    assert settled == []
    assert [event.policy for event in finished] == ["direct-local"]


class Pigeons:
    """A transport of a user's own."""

    name = "pigeons"

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        raise PluginError("no pigeon flies today")
        yield


@dataclass
class Registering:
    """A plugin that registers what it is told to and remembers its context."""

    id: str
    fail: bool = False
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = ()
    context: PluginContext | None = None

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self.context = context
        context.register_transport(Pigeons(), adapt)
        if self.fail:
            raise PluginError("set-up failed")
        yield


def tables(plugin: Registering) -> list[dict[str, Any]]:
    assert isinstance(plugin.context, Planes)
    planes = plugin.context
    link = planes.find(SYNC_LINK)
    return [planes.nodes, planes.policies, dict(planes.transports), {} if link is None else {"link": link}]


@dataclass
class Bringing:
    """A plugin that brings a transport, and nothing else."""

    transport: Transport
    link: bool = True
    id: str = "pigeon-house"
    needs: Sequence[PortKey[Any]] = ()

    @property
    def provides(self) -> Sequence[PortKey[Any]]:
        return (SYNC_LINK,) if self.link else ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self.context = context
        context.register_transport(self.transport, adapt, link=self.link)
        yield


async def test_a_plugin_with_a_transport_alone_brings_node_policies_and_link() -> None:
    """A54: what it registers is a remote like those that come with Atoma; topology() shows whose it is."""
    network = MemoryNetwork()
    plugin = Bringing(MemoryTransport(network))
    async with (
        open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub,
        network.listen(hub),
        open_client(SCHEMA, plugins=[local(), plugin, Sync(stores=[NOTES])]) as client,
    ):
        topology = client.topology()
        assert topology.transports == {"memory": "pigeon-house"}
        assert topology.ports["sync-link"] == "pigeon-house"
        (remote_node,) = [node for node in topology.nodes if node.id == "remote-memory"]
        assert (remote_node.owner, remote_node.remote, remote_node.roles) == ("pigeon-house", True, ("query", "write"))
        now_open = {policy.name for policy in topology.policies if not policy.unavailable}
        assert now_open >= {"direct-remote", "direct-memory", "local-first", "remote-first", "hybrid", "sync-queue"}
        drafts = client.store(DRAFTS)
        await drafts.insert(Note(id="d", text="there"), policy="direct-memory", confirm="strict")
        for policy in ("direct-remote", "remote-first", "hybrid"):
            page = await drafts.query(policy=policy)
            assert [note.text for note in page] == ["there"]
            assert "remote-memory" in [step.node for step in page.meta.path]
        with trio.fail_after(30):
            handle = await client.store(NOTES).insert(Note(id="n", text="synced"))
            assert await handle.accepted() > 0
            await client.sync.wait_idle()
    assert isinstance(plugin.context, Planes)
    assert (plugin.context.nodes, plugin.context.transports, plugin.context.find(SYNC_LINK)) == ({}, {}, None)


async def test_what_a_transport_brought_is_taken_back_with_it() -> None:
    plugin = Registering("pigeon-house")
    async with open_client(SCHEMA, plugins=[plugin, local()]) as client:
        planes = plugin.context
        assert isinstance(planes, Planes)
        assert planes.find(SYNC_LINK) is not None, "Registering brings the pigeons"
        undo = planes.register_transport(Doves(), adapt, link=False)
        assert {"remote-pigeons", "remote-doves"} <= planes.nodes.keys()
        undo()
        assert "remote-doves" not in planes.nodes
        assert planes.transports.keys() == {"pigeons"}
        await client.store(NOTES).insert(Note(text="x"))
    assert tables(plugin) == [{}, {}, {}, {}], "every registration was undone"


async def test_a_second_hub_to_sync_with_is_refused_and_leaves_nothing() -> None:
    plugin = Registering("pigeon-house")
    async with open_client(SCHEMA, plugins=[plugin, local()]):
        planes = plugin.context
        assert isinstance(planes, Planes)
        before = [dict(table) for table in tables(plugin)]
        with pytest.raises(PluginError, match="sync-link"):
            planes.register_transport(Doves(), adapt)
        assert tables(plugin) == before
        with pytest.raises(PluginError, match="is not a Transport"):
            planes.register_transport("doves", adapt)  # type: ignore[arg-type]  # it is the point
        assert tables(plugin) == before


async def test_a_failed_set_up_takes_every_registration_back() -> None:
    plugin = Registering("pigeon-house", fail=True)
    with pytest.raises(PluginError, match="set-up failed"):
        async with open_client(SCHEMA, plugins=[local(), plugin]):
            raise AssertionError("it opened")
    assert tables(plugin) == [{}, {}, {}, {}]
    assert trio.lowlevel.current_statistics().tasks_living <= 3


class Registers:
    """A plugin that registers what it is given."""

    id = "registers"
    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = ()

    def __init__(self, *policies: Any, **nodes: Any) -> None:
        self.policies = policies
        self.nodes = nodes

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        for id, one in self.nodes.items():
            context.register_node(id, one)
        for policy in self.policies:
            context.register_policy(policy)
        yield


class Newest:
    """A merge node of a user's own."""

    def spread(self, request: QueryRequest) -> QueryRequest:
        return request

    def merge(self, request: QueryRequest, results: Sequence[QueryResult]) -> QueryResult:
        return QueryResult(results[-1].rows[:1])


@pytest.mark.parametrize("id", ["newest", "merge"])
async def test_a_merge_node_of_a_users_own_joins(id: str) -> None:
    policy = Policy("joined", merge(node("local-query"), node("local-query"), by=id), None)
    async with open_client(SCHEMA, plugins=[local(), Registers(policy, **{id: Newest()})]) as client:
        await client.store(NOTES).insert_many([Note(id="1", text="a"), Note(id="2", text="b")])
        assert [note.id for note in await client.store(NOTES).query(policy="joined")] == ["1"]
        assert {info.id: info.owner for info in client.topology().nodes}[id] == "registers"


@pytest.mark.parametrize("wrong", [direct_local, node("local-query"), "direct-local"])
async def test_what_is_no_policy_is_not_registered(wrong: object) -> None:
    with pytest.raises(PluginError, match="is not a Policy"):
        async with open_client(SCHEMA, plugins=[local(), Registers(wrong)]):
            raise AssertionError("it opened")


async def test_registrations_are_taken_back_the_last_one_first() -> None:
    """What was built on an earlier registration goes before it: a policy before the transport that it calls."""
    plugin = Registering("pigeon-house")
    taken_back: list[str] = []

    class Noting(dict[str, Any]):
        def __delitem__(self, name: str) -> None:
            taken_back.append(name)
            super().__delitem__(name)

    async with open_client(SCHEMA, plugins=[local(), plugin]):
        planes = plugin.context
        assert isinstance(planes, Planes)
        planes.transports, planes.policies = Noting(planes.transports), Noting(planes.policies)
        planes.register_policy(Policy("by-dove", node("local-query"), node("local-write")))
        planes.register_transport(Doves(), adapt, link=False)
    assert taken_back == ["doves", "by-dove"]


@pytest.mark.parametrize("kind", ["node", "policy", "transport"])
async def test_no_plane_takes_a_name_twice(kind: str) -> None:
    plugin = Registering("pigeon-house")
    async with open_client(SCHEMA, plugins=[local(), plugin]):
        assert isinstance(plugin.context, Planes)
        register: dict[str, Callable[[], object]] = {
            "node": lambda: planes.register_node("local-query", LocalQueryNode(planes.require(LOCAL_DATABASE))),
            "policy": lambda: planes.register_policy(Policy("mine", node("local-query"), None)),
            "transport": lambda: planes.register_transport(Pigeons(), adapt, link=False),
        }
        planes = plugin.context
        if kind == "policy":
            register[kind]()
        before = tables(plugin)
        with pytest.raises(PluginError, match=f"{kind} .* is already registered by plugin"):
            register[kind]()
        assert tables(plugin) == before


async def test_what_is_taken_back_early_is_forgotten() -> None:
    plugin = Registering("pigeon-house")
    async with open_client(SCHEMA, plugins=[local(), plugin]) as client:
        planes = plugin.context
        assert isinstance(planes, Planes)
        undo = planes.register_transport(Doves(), adapt, link=False)
        assert set(planes.transports) == {"pigeons", "doves"}
        undo()
        undo()
        assert set(planes.transports) == {"pigeons"}
        kept = weakref.ref(heard := Heard())
        client.listen(heard)()
        del heard
        gc.collect()
        assert kept() is None, "a client that lives long keeps nothing of listeners that have left"


class Doves(Pigeons):
    name = "doves"


class Heard:
    def __call__(self, event: Event) -> None:
        raise AssertionError("nobody listens")
