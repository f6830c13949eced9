"""Devices and a hub that can be closed, killed and opened again while a test holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Generic, TypeVar

import trio

from atoma.client import Client
from atoma.errors import ClosedError
from atoma.hub import Hub
from atoma.runtime import Store
from atoma.schema import StoreSpec
from atoma.sync import SyncControl
from atoma.testing.simulation.files import FileCopy
from atoma_stores.sqlite import hub_files
from atoma_transports.memory import MemoryNetwork

T = TypeVar("T")
V = TypeVar("V")


class Seat(Generic[V]):
    """Something on a file that is open for a while, again and again.

    Args:
        name: What people call it.
        path: Its file.
        opening: Opens it.
        nursery: Where it is kept open.
    """

    def __init__(
        self, name: str, path: Path, opening: Callable[[], AbstractAsyncContextManager[V]], nursery: trio.Nursery
    ) -> None:
        self.name = name
        self.path = path
        self._opening = opening
        self._nursery = nursery
        self._value: V | None = None
        self._scope = trio.CancelScope()
        self._leave = trio.Event()
        self._ended = trio.Event()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {'open' if self.is_open else 'closed'})"

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._value is not None

    @property
    def value(self) -> V:
        """What was opened.

        Raises:
            ClosedError: It is closed.
        """
        if self._value is None:
            raise ClosedError(f"{self.name} is closed; await its start()")
        return self._value

    async def start(self) -> None:
        """Open it on its file; nothing when it is open.

        Raises:
            AtomaError: It cannot be opened.
        """
        if not self.is_open:
            failure: Exception | None = await self._nursery.start(self._keep)
            if failure is not None:
                raise failure

    async def stop(self) -> None:
        """Close it in an orderly way; nothing when it is closed."""
        if self.is_open:
            self._leave.set()
            await self._ended.wait()

    async def kill(self) -> None:
        """End it as a crash does: nothing is finished, and its file is as it lay on the disk at this moment."""
        if self.is_open:
            wreck = self.snapshot_file()
            self._scope.cancel()
            await self._ended.wait()
            wreck.put(self.path)

    def snapshot_file(self) -> FileCopy:
        """What lies on the disk now, as a person copies it; it may be open."""
        return FileCopy.take(self.path)

    async def _keep(self, *, task_status: trio.TaskStatus[Exception | None]) -> None:
        self._scope, self._leave, self._ended = trio.CancelScope(), trio.Event(), trio.Event()
        told = False
        try:
            with self._scope:
                async with self._opening() as self._value:
                    told = True
                    task_status.started(None)
                    await self._leave.wait()
        except Exception as error:
            if told:
                raise
            task_status.started(error)
        finally:
            self._value = None
            self._ended.set()


class Device(Seat[Client]):
    """A device of a test: a client on a file of its own, with a plug that can be pulled. Made by :meth:`World.device`.

    Args:
        name: What people call it, and its place on the network.
        path: Its file.
        opening: Opens its client.
        nursery: Where it is kept open.
        network: What it is plugged into.
        options: What it was made with.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        opening: Callable[[], AbstractAsyncContextManager[Client]],
        nursery: trio.Nursery,
        network: MemoryNetwork,
        options: Mapping[str, object],
    ) -> None:
        super().__init__(name, path, opening, nursery)
        self.options = options
        self.plugged = True
        self._network = network

    @property
    def client(self) -> Client:
        """The open client.

        Raises:
            ClosedError: The device is closed.
        """
        return self.value

    @property
    def sync(self) -> SyncControl:
        """Its replication."""
        return self.value.sync

    def store(self, spec: StoreSpec[T]) -> Store[T]:
        """One of its stores."""
        return self.value.store(spec)

    def unplug(self) -> None:
        """Part it from the hub: its connection breaks, and no other can be made."""
        self.plugged = False
        self._network.partition(self.name)

    def plug_in(self) -> None:
        """Undo :meth:`unplug`, and have it try at once."""
        self.plugged = True
        self._network.heal(self.name)
        if self.is_open:
            self.sync.poke()


class HubSeat(Seat[Hub]):
    """The hub of a test. Made by :meth:`World.hub`.

    Args:
        path: Its file.
        opening: Opens it.
        nursery: Where it is kept open.
        backups: Folder for backups.
    """

    def __init__(
        self, path: Path, opening: Callable[[], AbstractAsyncContextManager[Hub]], nursery: trio.Nursery, backups: Path
    ) -> None:
        super().__init__("the hub", path, opening, nursery)
        self._folder = backups
        self.backups: Sequence[Path] = ()

    @property
    def hub(self) -> Hub:
        """The open hub.

        Raises:
            ClosedError: It is closed.
        """
        return self.value

    async def backup(self) -> Path:
        """Back its file up, as ``atoma hub backup`` does; it may be running.

        Raises:
            StoreError: The file cannot be read.
        """
        await trio.lowlevel.checkpoint()
        self._folder.mkdir(exist_ok=True)
        target = self._folder / f"{len(self.backups) + 1}.db"
        hub_files.back_up(str(self.path), str(target))
        self.backups = (*self.backups, target)
        return target
