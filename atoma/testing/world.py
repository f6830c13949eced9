"""A world for tests: devices and a hub on files, a network in memory, and everything that may happen to files."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import trio

from atoma.client import Client, open_client
from atoma.contracts.sync import DevicePolicy
from atoma.errors import ConfigurationError
from atoma.hub import Hub, Rules, open_hub
from atoma.plugins import Plugin
from atoma.ports import Environment, Peer, Principal, seeded_environment
from atoma.ports.loops import lifetime
from atoma.ports.tasks import open_tasks
from atoma.schema import Schema, StoreSpec
from atoma.schema.shapes import AnyPart
from atoma.sync import Sync
from atoma.testing.evidence import Evidence, WriteWatch
from atoma.testing.seats import Device, HubSeat
from atoma.testing.simulation.files import FileCopy
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History, SQLiteEngine, SQLiteHubStore, hub_files
from atoma_transports.memory import FaultHook, MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote

USER = "ann"
SETTLE_S = 24 * 3600.0


class ByName:
    """A verifier that takes whoever comes for who they say they are: in a test a token is the name of a user."""

    async def verify(self, token: str, peer: Peer) -> Principal:
        """The principal ``token``."""
        await trio.lowlevel.checkpoint()
        return Principal(token)


class World:
    """Devices and a hub of an application under test. Made by :func:`open_world`.

    Attributes:
        schema: The declared stores.
        folder: Where the files are: ``hub.db`` and one for each device, ``phone.db``.
        network: What they meet on; for partitions of every kind.
    """

    def __init__(self, schema: Schema, folder: Path, seed: int, network: MemoryNetwork, nursery: trio.Nursery) -> None:
        self.schema = schema
        self.folder = folder
        self.network = network
        self._seed = seed
        self._nursery = nursery
        self._openings = 0
        self._hub: HubSeat | None = None
        self._rules: Rules | None = None
        self._devices: dict[str, Device] = {}
        self._evidence = Evidence(schema)

    @property
    def devices(self) -> Sequence[Device]:
        """Every device of the world, also those that are closed."""
        return tuple(self._devices.values())

    @asynccontextmanager
    async def hub(self, *, rules: Rules | None = None, **options: object) -> AsyncGenerator[HubSeat]:
        """A hub on ``hub.db`` that is reachable inside the block.

        Args:
            rules: What users may do; everything when None. A user's name is what :meth:`device` was given as ``user``.
            options: More of ``open_hub``.

        Raises:
            ConfigurationError: The world has a hub.
        """
        if self._hub is not None:
            raise ConfigurationError("a world has one hub at a time")
        path = self.folder / "hub.db"

        @asynccontextmanager
        async def opening() -> AsyncGenerator[Hub]:
            store = SQLiteHubStore(path)
            settings: dict[str, Any] = {"verifier": ByName(), "environment": self._environment("hub"), **options}
            async with open_hub(self.schema, store, rules=rules, **settings) as hub, self.network.listen(hub):
                yield hub

        self._rules = rules
        self._hub = seat = HubSeat(path, opening, self._nursery, self.folder / "backups")
        await seat.start()
        try:
            yield seat
        finally:
            with trio.CancelScope(shield=True):
                await seat.stop()
            self._hub = None

    @asynccontextmanager
    async def device(
        self,
        name: str,
        *,
        user: str = USER,
        stores: Sequence[StoreSpec[Any]] | None = None,
        scopes: Sequence[AnyPart] = ("main",),
        policy: str = "sync-queue",
        plugins: Sequence[Plugin] = (),
        plugged: bool = True,
        history: History | None = None,
        **options: object,
    ) -> AsyncGenerator[Device]:
        """A device on a file of its own, open inside the block; the file stays, and the next block goes on with it.

        Args:
            name: What people call it; its file is ``<name>.db``.
            user: Whose it is.
            stores: What it replicates; every store when None.
            scopes: Scopes that it replicates, or parts of them.
            policy: Of stores and calls that name none.
            plugins: More of ``open_client``: your own policies and nodes, an ``Inspection``.
            plugged: Whether it is connected from the start.
            history: How much of the past its file keeps, for undo; nothing when None.
            options: More of ``Sync``: ``mode``, ``on_hub_loss``, ``repair``.

        Raises:
            ConfigurationError: A device of this name is open, or ``options`` are none of ``Sync``.
            StoreError: Its file cannot be opened.
        """
        if name in self._devices and self._devices[name].is_open:
            raise ConfigurationError(f"the device {name!r} is open; give the other one another name")
        path = self.folder / f"{name}.db"
        settings: dict[str, Any] = dict(options)
        replicated = list(self.schema.stores.values()) if stores is None else list(stores)

        @asynccontextmanager
        async def opening() -> AsyncGenerator[Client]:
            parts: list[Plugin] = [
                LocalExecution(SQLiteEngine(path, history=history)),
                Remote(MemoryTransport(self.network, token=user, site=name)),
                Sync(replicated, scopes, **settings),
                WriteWatch(name, path, self._evidence),
                *plugins,
            ]
            environment = self._environment(name)
            async with open_client(self.schema, plugins=parts, policy=policy, environment=environment) as client:
                yield client

        told: dict[str, Any] = {
            "user": user, "stores": stores, "scopes": scopes, "policy": policy, "plugins": plugins, "history": history
        }  # fmt: skip
        seat = Device(name, path, opening, self._nursery, self.network, {**told, **options})
        self._devices[name] = seat
        if not plugged:
            seat.unplug()
        await seat.start()
        try:
            yield seat
        finally:
            with trio.CancelScope(shield=True):
                await seat.stop()

    @asynccontextmanager
    async def clone(self, device: Device, name: str) -> AsyncGenerator[Device]:
        """A device on a copy of another one's file, as when a disk is copied; both may be open.

        Args:
            device: Whose file to copy, as it lies on the disk now.
            name: What the copy is called.
        """
        device.snapshot_file().put(self.folder / f"{name}.db")
        options: dict[str, Any] = dict(device.options)
        async with self.device(name, **options) as copy:
            yield copy

    async def restore_file(self, device: Device, copy: FileCopy) -> None:
        """Put an older copy in the place of a device's file, and open it again when it was open.

        Args:
            device: Whose file.
            copy: From :meth:`Device.snapshot_file`.
        """
        was_open = device.is_open
        await device.stop()
        copy.put(device.path)
        self._evidence.forget()
        if was_open:
            await device.start()

    async def restore_hub(self, backup: Path, *, devices: DevicePolicy | None = "offer") -> None:
        """Stop the hub, put a backup in the place of its file, and start it again when it was running.

        Args:
            backup: From :meth:`HubSeat.backup`.
            devices: The operator's word, as for ``atoma hub restore``; None is somebody who copies the file by hand and
                tells nobody, so that the hub finds out by itself.

        Raises:
            ConfigurationError: The world has no hub.
        """
        if self._hub is None:
            raise ConfigurationError("the world has no hub: async with world.hub()")
        was_open = self._hub.is_open
        await self._hub.stop()
        path = self._hub.path
        before = hub_files.read_file(str(path)).epoch
        if devices is None:
            shutil.copy(backup, path)  # it was closed in an orderly way, so no log lies beside it
        else:
            hub_files.restore(str(backup), str(path), devices, self._environment("operator"))
        if devices == "offer":
            heads = hub_files.read_file(str(backup)).heads
            self._evidence.restored(self.devices, before, heads, self._may_write)
        else:
            self._evidence.forget()
        if was_open:
            await self._hub.start()

    async def settle(self, *, within_s: float = SETTLE_S) -> None:
        """Wait until nothing is left to do: every device that is open and plugged in has sent and fetched everything.

        Args:
            within_s: For so many seconds of the clock at most, which is a virtual one as a rule.

        Raises:
            AssertionError: It has not come to rest by then; the message says who has not, and why.
        """
        with trio.move_on_after(within_s) as patience:
            heads: object = None
            while True:
                for device in self._reachable():
                    device.sync.poke()
                    await device.sync.wait_idle()
                before, heads = heads, None if self._hub is None else hub_files.read_file(str(self._hub.path)).heads
                if heads == before:
                    break
        if patience.cancelled_caught:
            raise AssertionError("\n".join([f"not settled after {within_s:g} s:", *map(_standing, self._reachable())]))

    async def check(self, *, allow: Collection[Literal["inbox", "lost"]] = ()) -> None:
        """Check what holds for every application once :meth:`settle` has returned.

        * Each device that is open and plugged in has the hub's rows of its scopes, to the last column, and nothing
          pending. Of a scope that shapes or row rules narrow for it, what it has is as at the hub; whether it has everything is
          for the test to say.
        * Nothing waits for a person's decision: neither in an inbox nor in ``lost``.
        * What a device that has come back had seen before a restore with ``devices="offer"``, and nobody has written
          since, is at the hub as it was.

        Args:
            allow: What may wait for a decision, because the test is about that.

        Raises:
            AssertionError: Something does not hold; the message lists everything that was found.
            ConfigurationError: The world has no hub to compare with.
        """
        await trio.lowlevel.checkpoint()
        if self._hub is None:
            raise ConfigurationError("there is no hub to compare with: async with world.hub()")
        found = self._evidence.faults(self._hub.path, self._reachable(), allow)
        if found:
            raise AssertionError("\n".join(["the world is not in order:", *found]))

    def _may_write(self, device: Device, scope: str) -> bool:
        user = Principal(str(device.options["user"]))
        return self._rules is None or self._rules.scope_access(user, scope) == "write"

    def _reachable(self) -> list[Device]:
        return [device for device in self._devices.values() if device.is_open and device.plugged]

    def _environment(self, name: str) -> Environment:
        """Another one at every opening: a second process never draws the ids of the first."""
        self._openings += 1
        return seeded_environment(random.Random(f"{self._seed} {name} {self._openings}").randrange(2**32))


def _standing(device: Device) -> str:
    status = device.sync.status
    scopes = ", ".join(f"{scope.scope} {scope.state} at {scope.cursor} of {scope.head}" for scope in status.scopes)
    return (
        f"  {device.name}: {status.state}, {status.pending} pending, {scopes}{status.reason and f': {status.reason}'}"
    )


@lifetime
async def open_world(
    schema: Schema, folder: str | os.PathLike[str], *, seed: int = 0, faults: FaultHook | None = None
) -> AsyncGenerator[World]:
    """A world for one test, empty at first; leaving the block closes everything in it.

    Under virtual time (:func:`virtual_time`, or a ``MockClock`` of your own) nothing sleeps, and equal seeds give equal
    ids and equal back-off.

    Args:
        schema: The stores of the application.
        folder: Where the files shall be, ``tmp_path`` in pytest.
        seed: Seed of ids and randomness.
        faults: Decides about every frame on the network.
    """
    async with open_tasks() as nursery:
        yield World(schema, Path(folder), seed, MemoryNetwork(faults=faults), nursery)
        nursery.cancel_scope.cancel()
