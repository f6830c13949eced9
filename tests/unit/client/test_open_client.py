"""The composition root: what is listed runs, what is missing is named, what was set up is taken back."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from atoma import Schema, StoreSpec, Sync, new_id, open_client
from atoma.contracts.events import Event, WriteSettled
from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.policy import Policy
from atoma.contracts.values import StoredRow
from atoma.errors import ConfigurationError, PluginError, TopologyError, UnknownPolicy
from atoma.kernel import merge, node
from atoma.kernel.merging import MergeNode
from atoma.plugins import Plugin, PluginContext
from atoma.ports import APPLY, LIVE_QUERIES, LOCAL_DATABASE, PortKey
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


def local(path: Path | str = ":memory:") -> LocalExecution:
    return LocalExecution(SQLiteEngine(path))


class Extra:
    """A user's own plugin: one face, or several, and a record of its life."""

    def __init__(
        self, id: str, *faces: str, needs: Sequence[PortKey[object]] = (), log: list[str] | None = None
    ) -> None:
        self.id = id
        self.faces = faces
        self.needs = needs
        self.provides: Sequence[PortKey[object]] = ()
        self.log = log if log is not None else []
        self.heard: list[Event] = []

    async def query(self, request: QueryRequest) -> QueryResult:
        return QueryResult(())

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        self.log.append(f"open {self.id}")
        if "node" in self.faces:
            context.register_node("always-empty", self)
        if "policy" in self.faces:
            context.register_policy(Policy("mine", node("local-query"), node("local-write")))
        if "events" in self.faces:
            context.register_listener(self.heard.append)
        if "fail" in self.faces:
            raise PluginError("set-up failed")
        try:
            yield
        finally:
            self.log.append(f"close {self.id}")


async def test_nothing_to_run_on_is_one_error_that_names_the_remedies() -> None:
    with pytest.raises(TopologyError) as caught:
        async with open_client(SCHEMA, plugins=[]):
            pytest.fail("it must not open")
    assert {problem.code for problem in caught.value.problems} >= {"NO_QUERY_NODE", "NO_WRITE_NODE"}
    assert all(problem.remedy for problem in caught.value.problems)
    assert all(
        "LocalExecution" in problem.remedy for problem in caught.value.problems if problem.code.startswith("NO_")
    )


async def test_missing_ports_are_all_listed_before_anything_starts(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(TopologyError) as caught:
        async with open_client(SCHEMA, plugins=[Extra("first", log=log), Sync(stores=[NOTES])]):
            pytest.fail("it must not open")
    assert "local-database" in str(caught.value)
    assert "sync-link" in str(caught.value)
    assert log == []


async def test_exactly_what_is_listed_is_there_with_its_owner() -> None:
    async with open_client(SCHEMA, plugins=[local()]) as client:
        topology = client.topology()
        assert topology.default == "direct-local"
        assert {info.id for info in topology.nodes} == {"local-query", "local-write", "merge"}
        assert {info.id: info.owner for info in topology.nodes} == {
            "local-query": "local",
            "local-write": "local",
            "merge": "kernel",
        }
        assert {info.owner for info in topology.policies} == {"kernel"}
        assert topology.transports == {}
        assert topology.ports == {
            "local-database": "local",
            "completeness": "local",
            "live-queries": "local",
            "apply": "client",
        }
        assert "direct-local" in client.explain("direct-local")


@pytest.mark.parametrize("face", ["node", "policy", "events"])
async def test_a_plugin_with_one_face_works(face: str) -> None:
    extra = Extra("extra", face)
    async with open_client(SCHEMA, plugins=[extra, local()]) as client:
        await client.store(NOTES).insert(Note(text="x"), policy="mine" if face == "policy" else None)
        if face == "node":
            assert {info.id: info.owner for info in client.topology().nodes}["always-empty"] == "extra"
    if face == "events":
        assert [event for event in extra.heard if isinstance(event, WriteSettled)]
    else:
        assert not extra.heard


async def test_plugins_open_in_the_order_of_their_needs_and_close_in_reverse() -> None:
    log: list[str] = []
    late = Extra("late", needs=(LOCAL_DATABASE, LIVE_QUERIES), log=log)  # type: ignore[arg-type]
    async with open_client(SCHEMA, plugins=[late, Extra("early", log=log), local()]):
        assert log == ["open early", "open late"]
    assert log == ["open early", "open late", "close late", "close early"]


async def test_who_needs_what_the_client_offers_comes_after_what_that_takes() -> None:
    class Applying(Extra):
        @asynccontextmanager
        async def open(self, context: PluginContext) -> AsyncGenerator[None]:
            context.require(APPLY)
            self.log.append("applies")
            yield

    applying = Applying("applying", needs=(APPLY,))  # type: ignore[arg-type]
    async with open_client(SCHEMA, plugins=[applying, local()]):
        assert applying.log == ["applies"]
    with pytest.raises(TopologyError, match="'applying' needs apply — add LocalExecution"):
        async with open_client(SCHEMA, plugins=[applying]):
            pytest.fail("it must not open")
    with pytest.raises(PluginError, match="plugin 'words' names the port 'apply'"):
        async with open_client(SCHEMA, plugins=[Extra("words", needs=("apply",)), local()]):  # type: ignore[arg-type]
            pytest.fail("it must not open")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_plugin_cleans_up_after_the_tasks_and_uncancelled(fails: bool) -> None:
    log: list[str] = []

    class Tidy(Extra):
        @asynccontextmanager
        async def open(self, context: PluginContext) -> AsyncGenerator[None]:
            context.nursery.start_soon(self.work)
            await trio.lowlevel.checkpoint()
            try:
                yield
            finally:
                await trio.lowlevel.checkpoint()
                log.append("cleaned up")

        async def work(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                log.append("task ended")

    plugins: list[Plugin] = [local(), Tidy("tidy")]
    if fails:
        with pytest.raises(PluginError, match="set-up failed"):
            async with open_client(SCHEMA, plugins=[*plugins, Extra("bad", "fail")]):
                pytest.fail("it must not open")
    else:
        async with open_client(SCHEMA, plugins=plugins):
            pass
    assert log == ["task ended", "cleaned up"]


async def test_a_task_that_fails_ends_the_client_as_itself() -> None:
    class Failing(Extra):
        @asynccontextmanager
        async def open(self, context: PluginContext) -> AsyncGenerator[None]:
            context.nursery.start_soon(self.work)
            yield

        async def work(self) -> None:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        async with open_client(SCHEMA, plugins=[local(), Failing("failing")]):
            await trio.sleep_forever()


async def test_a_failed_set_up_is_undone() -> None:
    log: list[str] = []
    with pytest.raises(PluginError, match="set-up failed"):
        async with open_client(SCHEMA, plugins=[Extra("good", log=log), Extra("bad", "fail", log=log), local()]):
            pytest.fail("it must not open")
    assert log == ["open good", "open bad", "close good"]


async def test_two_claims_on_one_name_are_refused() -> None:
    with pytest.raises(PluginError, match="already registered by plugin 'a'"):
        async with open_client(SCHEMA, plugins=[local(), Extra("a", "node"), Extra("b", "node")]):
            pytest.fail("it must not open")
    with pytest.raises(PluginError, match="two plugins have the id"):
        async with open_client(SCHEMA, plugins=[local(), local()]):
            pytest.fail("it must not open")


async def test_the_retired_single_way_in_is_refused() -> None:
    class Old:
        id = "old"
        provides: Sequence[PortKey[object]] = ()
        needs: Sequence[PortKey[object]] = ()

        def operations(self, register: object) -> None:
            raise AssertionError("never called")

        @asynccontextmanager
        async def open(self, context: PluginContext) -> AsyncGenerator[None]:
            yield

    with pytest.raises(PluginError, match="operations"):
        async with open_client(SCHEMA, plugins=[local(), Old()]):
            pytest.fail("it must not open")


async def test_an_unknown_or_unavailable_default_policy_does_not_start() -> None:
    for name in ("nope", "sync-queue", "remote-first"):
        with pytest.raises((TopologyError, UnknownPolicy), match=name):
            async with open_client(SCHEMA, plugins=[local()], policy=name):
                pytest.fail("it must not open")


async def test_an_error_in_the_block_comes_out_as_itself_and_closes_everything(tmp_path: Path) -> None:
    threads = threading.active_count()
    plugins: list[Plugin] = [local(tmp_path / "a.db")]
    with pytest.raises(ZeroDivisionError):
        async with open_client(SCHEMA, plugins=plugins) as client:
            await client.store(NOTES).insert(Note(text="x"))
            raise ZeroDivisionError
    assert threading.active_count() == threads
    async with open_client(SCHEMA, plugins=[local(tmp_path / "a.db")]) as client:
        assert await client.store(NOTES).count() == 1


async def test_a_cancelled_block_leaves_nothing_behind(tmp_path: Path) -> None:
    threads = threading.active_count()
    with trio.move_on_after(0.2) as scope:
        async with open_client(SCHEMA, plugins=[local(tmp_path / "a.db")]) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(_write_for_ever, client)
    assert scope.cancelled_caught
    assert threading.active_count() == threads
    async with open_client(SCHEMA, plugins=[local(tmp_path / "a.db")]) as client:
        await client.store(NOTES).insert(Note(text="works again"))


async def _write_for_ever(client: object) -> None:
    from atoma import Client

    assert isinstance(client, Client)
    while True:
        await client.store(NOTES).insert(Note(text="x"), durability="full")


class Ours:
    """A merge node under a name of its own, a node to merge with, and the policy that joins them."""

    id = "ours"
    provides: Sequence[PortKey[object]] = ()
    needs: Sequence[PortKey[object]] = ()

    async def query(self, request: QueryRequest) -> QueryResult:
        row = StoredRow("a", 1, 0, "main", {"text": "theirs"})
        return QueryResult((row,))

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.register_node("theirs", self)
        context.register_node("ours-wins", MergeNode("first"))
        both = (node("local-query"), node("theirs"))
        context.register_policy(Policy("kept", query=merge(*both, by="ours-wins"), write=None))
        context.register_policy(Policy("taken", query=merge(*both), write=None))
        yield


async def test_a_merge_node_of_ones_own_decides_who_wins() -> None:
    async with open_client(SCHEMA, plugins=[local(), Ours()]) as client:
        notes = client.store(NOTES)
        await notes.insert(Note(id="a", text="ours"))
        found = {name: [note.text for note in await notes.query(policy=name)] for name in ("kept", "taken")}
    assert found == {"kept": ["ours"], "taken": ["theirs"]}


@dataclass(frozen=True)
class Registering:
    """Registers whatever it is given as a policy."""

    policy: Any
    id: str = "registering"
    provides: Sequence[PortKey[object]] = ()
    needs: Sequence[PortKey[object]] = ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.register_policy(self.policy)
        yield


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (5, "make it with Policy"),
        (Policy("mine", query=cast("Any", "local-query"), write=None), "made of steps"),
        (Policy("mine", query=None, write=None), "needs a name, and a way"),
        (Policy("", query=node("local-query"), write=None), "needs a name, and a way"),
    ],
)
async def test_what_is_no_policy_is_not_registered(policy: object, told: str) -> None:
    with pytest.raises(PluginError, match=told):
        async with open_client(SCHEMA, plugins=[local(), Registering(policy)]):
            pytest.fail("it must not open")


async def test_a_store_is_asked_for_by_its_declaration_and_a_write_by_its_error_or_key() -> None:
    async with open_client(SCHEMA, plugins=[local()]) as client:
        with pytest.raises(ConfigurationError, match="by its declaration"):
            client.store(cast("Any", "notes"))
        with pytest.raises(ConfigurationError, match="WriteUnknown error or its key"):
            await client.resolve(cast("Any", 5))
