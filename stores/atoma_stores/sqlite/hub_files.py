"""Access to a hub's file from outside the hub: backups, restores, and its contents.

Functions that only read work while a hub runs on the file; a restore takes the hub's own lock. No function here needs the schema of
the application.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import apsw

from atoma.contracts.progress import Progress
from atoma.contracts.sync import DevicePolicy
from atoma.errors import ConfigurationError, StoreBusy, StoreCorrupt, StoreError
from atoma.ports.environment import Environment
from atoma.ports.hub import ClientState, EndedEpoch
from atoma.schema.schema import Schema
from atoma_stores.sql.dialect import SQLITE
from atoma_stores.sql.hub import epochs, verifying
from atoma_stores.sql.hub.rows import stores_of
from atoma_stores.sql.hub.verifying import ChainHash, Verification
from atoma_stores.sqlite.connections import make_private, open_existing, transaction
from atoma_stores.sqlite.copies import (
    SIDE_FILES,
    UNFINISHED,
    copy_checked,
    copy_to_new,
    damage_of,
    remove_file,
    sync_file,
    sync_folder,
)
from atoma_stores.sqlite.ddl import check_layout, prepare_internals
from atoma_stores.sqlite.hub_driver import ADDITIONS, INTERNALS, drive
from atoma_stores.sqlite.hub_lock import SUFFIX, Beside, sole_hub
from atoma_stores.sqlite.hub_witness import HubWitness
from atoma_stores.sqlite.main_files import COMMITS_OF_HUB, MainFile
from atoma_stores.sqlite.migrating import converted_heads
from atoma_stores.sqlite.stored_schema import stored_schema


def _unheard(_done: int, _of: int) -> None:
    """Tell nobody how far a copy is."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """The contents of a hub's file.

    Attributes:
        hub_id: The id of the hub.
        epoch: Its present epoch.
        heads: Sequence of every scope.
        clients: Files of devices that it knows.
        bytes: Size.
    """

    hub_id: bytes
    epoch: bytes
    heads: Mapping[str, int]
    clients: int
    bytes: int


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """An epoch that has ended, and the clients that were known then and have not connected since.

    Attributes:
        ended: The epoch.
        absent: Clients that have not opened a session since it ended.
    """

    ended: EndedEpoch
    absent: Sequence[ClientState]


def back_up(path: str, target: str, told: Progress = _unheard) -> HubFile:
    """Copy the hub file ``path``, with its log, to ``target``, which appears as a whole or not at all.

    A hub may be running on it. The copy is one consistent state of the hub, is checked as a whole, and is on the
    disk when this returns.

    Args:
        path: The hub's file.
        target: The path of the copy; nothing may exist there.
        told: Called now and then with the number of bytes that were copied, and about the total.

    Raises:
        ConfigurationError: ``target`` exists.
        StoreError: ``path`` is not a hub's file, or something cannot be read or written.
    """
    with _opened(path):
        pass  # it is a hub's
    copy_to_new(path, target, told)
    return _describe(target)


def restore(backup: str, path: str, devices: DevicePolicy, environment: Environment) -> HubFile:
    """Replace the hub file ``path`` with a copy of ``backup``, in a new epoch.

    If it is interrupted at any moment, even by force, it leaves the former file with all its commits, or the restored one; done
    again, it completes. ``backup`` is not changed.

    Args:
        backup: A backup or another hub file, with its log if there is one beside it.
        path: The hub file; it need not exist.
        devices: What devices do with what they have received since the backup; see ``Hub.new_epoch``.
        environment: Clock and randomness.

    Raises:
        StoreBusy: A hub or another program has ``path`` open.
        StoreCorrupt: ``backup`` is damaged, or is not a hub's file; nothing was changed.
        StoreError: Something cannot be read or written.
    """
    path = os.path.realpath(path)  # as SQLite does, which puts the log beside the file and not beside a link to it
    unfinished = path + UNFINISHED
    if os.path.exists(path) and os.path.exists(backup) and os.path.samefile(backup, path):
        raise ConfigurationError(f"{backup} is the hub file itself; name the backup")
    _check_hub(backup)
    with _unless_damaged():
        if os.path.exists(path) and os.path.getsize(path):
            _check_hub(path)
    with _told(path), sole_hub(path) as lock:
        HubWitness(path, lock, None, environment).set_foreign_log_aside()
        try:
            _copy(backup, unfinished)
            epoch, commits = _begin_epoch(unfinished, devices, environment)
            sync_file(unfinished)
            found = _describe(unfinished)
            _let_go(path, found.hub_id, environment)
            # The two renewals below belong together. Between them nothing stands beside the file, which says nothing of
            # either: the old file is still the old one, and the new one has its new epoch inside.
            lock.forget()
            os.replace(unfinished, path)
            sync_folder(path)
            lock.write(Beside(epoch, commits, commits))
        finally:
            remove_file(unfinished)
    return found


def read_file(path: str) -> HubFile:
    """Return the contents of the hub file ``path``.

    Raises:
        StoreError: It is not a hub's file, or cannot be read.
    """
    return _describe(path)


def read_epochs(path: str) -> Sequence[EpochRecord]:
    """Return every epoch that has ended, oldest first.

    Raises:
        StoreError: ``path`` is not a hub's file, or cannot be read.
    """
    with _opened(path) as connection, transaction(connection, "BEGIN", "ROLLBACK"):
        found = drive(connection, epochs.ended_epochs(SQLITE))
        return [EpochRecord(ended, drive(connection, epochs.absent_clients(SQLITE, ended.epoch))) for ended in found]


def verify(path: str, link: ChainHash, told: Progress) -> Verification:
    """Check the whole hub file ``path``, even while a hub runs on it, and return what does not agree in it.

    SQLite checks its pages, indexes and types; then log, hashes, rows, tombstones and verdicts are compared.

    Args:
        path: The hub's file.
        link: Computes the hash of a transaction.
        told: Called now and then with the number of transactions that were read, and the total.

    Raises:
        StoreError: It is not a hub's file, or cannot be read at all.
    """
    with _opened(path) as connection, transaction(connection, "BEGIN", "ROLLBACK"):
        damage = damage_of(connection, lambda: told(0, 0))
        if damage:
            return Verification(problems=damage)
        stores = stores_of(SQLITE, stored_schema(connection, "hub"))
        return drive(connection, verifying.verify(SQLITE, stores, link, converted_heads(connection), told))


def begin_epoch(path: str, devices: DevicePolicy, environment: Environment) -> HubFile:
    """Begin a new epoch in the hub file ``path``, which no program may have open, because part of its history may be lost.

    Args:
        path: The hub's file.
        devices: What devices do with what they have received of the lost part; see ``Hub.new_epoch``.
        environment: Clock and randomness.

    Raises:
        StoreBusy: A hub is running on it.
        StoreError: It is not a hub's file, or cannot be written.
    """
    _check_hub(path)
    with sole_hub(path) as lock:
        witness = HubWitness(path, lock, None, environment)
        witness.set_foreign_log_aside()
        witness.begin_anew(*_begin_epoch(path, devices, environment))
    return _describe(path)


def read_schema(path: str) -> Schema:
    """Return the stores that the hub file ``path`` declares; see :func:`atoma_stores.sqlite.stored_schema.stored_schema`.

    Raises:
        StoreError: It is not a hub's file, or cannot be read.
    """
    with _opened(path) as connection:
        return stored_schema(connection, "hub")


# inside


@contextmanager
def _told(path: str) -> Generator[None]:
    """Turn what the system says into an error that names the file."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise StoreError(f"{where}: {error.strerror or error}") from error


@contextmanager
def _opened(path: str, *, writing: bool = False, leaves_log: bool = False) -> Generator[apsw.Connection]:
    """A connection to a hub file, whether or not a hub has it too."""
    look_whose_log(path)
    with open_existing(path, writing=writing, leaves_log=leaves_log) as connection:
        check_layout(connection, "hub")
        yield connection


def _has_log(path: str) -> bool:
    """Whether there is a log beside the file."""
    return os.path.exists(os.path.realpath(path) + "-wal")


def look_whose_log(path: str) -> None:
    """Set the log of another file aside, as the hub itself would, before a first connection replays it over this one."""
    if not os.path.isfile(path) or not os.path.exists(os.path.realpath(path) + SUFFIX):
        return
    with contextlib.suppress(StoreBusy), sole_hub(path) as lock:  # a hub that runs has looked
        HubWitness(path, lock, None, Environment()).set_foreign_log_aside()


def _check_hub(path: str) -> None:
    """Check that ``path`` is a hub's file before a lock is made beside it, which would stay.

    The main file alone says so where it can: its log may be another file's, which nobody sets aside without the lock.

    Raises:
        StoreError: It is not, or cannot be read.
    """
    if MainFile(path, COMMITS_OF_HUB, None).alone() is None:
        with _opened(path, leaves_log=_has_log(path)):
            pass


@contextmanager
def _unless_damaged() -> Generator[None]:
    """Let a damaged file be replaced, and refuse one that can be read and is none of a hub.

    Raises:
        ConfigurationError: The file is something else: probably a mistake.
    """
    try:
        yield
    except StoreCorrupt as error:
        if not isinstance(error.__cause__, apsw.Error):
            raise ConfigurationError(f"{error}; nothing was replaced, remove the file first if that is meant") from None


def _describe(path: str) -> HubFile:
    with _opened(path) as connection, transaction(connection, "BEGIN", "ROLLBACK"):
        hub_id, epoch = cast("tuple[bytes, bytes]", connection.execute("SELECT hub_id, epoch FROM _atoma_hub_info").get)
        heads = cast("list[tuple[str, int]]", connection.execute("SELECT scope, head FROM _atoma_hub_scope").fetchall())
        clients = cast("int", connection.execute("SELECT count(*) FROM _atoma_hub_client").get)
        return HubFile(hub_id, epoch, dict(sorted(heads)), clients, os.path.getsize(path))


def _copy(path: str, target: str) -> None:
    """Copy a hub file, which is left as it is, as one whole state, check it and have it on the disk.

    Raises:
        StoreCorrupt: It is damaged.
    """
    remove_file(target)
    with_log = _has_log(path)  # without one, what SQLite puts beside the file goes again
    with _opened(path, leaves_log=with_log):
        pass  # it is a hub's, and its log is its own
    make_private(target)
    copy_checked(path, target, _unheard, leaves_log=with_log)
    sync_file(target)


def _begin_epoch(path: str, devices: DevicePolicy, environment: Environment) -> tuple[bytes, int]:
    """Let a new epoch begin in a file that nobody else has; the epoch, and the file's counter of commits."""
    epoch = epochs.mint_epoch(environment)
    with _opened(path, writing=True) as connection, transaction(connection, "BEGIN IMMEDIATE", "COMMIT"):
        prepare_internals(connection, INTERNALS, ADDITIONS)
        commits = drive(connection, epochs.end_epoch(SQLITE, epoch, environment.wall_ms(), devices, deletes=True))
    return epoch, commits


def _let_go(path: str, hub_id: bytes, environment: Environment) -> None:
    """Let the file that is to be replaced be one file, its log within it, and make sure that nobody has it open.

    A damaged one is not worth that; its log is set aside, so that it does not fall upon the restored file.

    Raises:
        ConfigurationError: It is intact, and not this hub's: probably a mistake.
        StoreBusy: Another program has it open.
    """
    if os.path.exists(path) and os.path.getsize(path):
        try:
            with _unless_damaged(), _opened(path, writing=True) as connection:
                found: object = connection.execute("SELECT hub_id FROM _atoma_hub_info").get
                if found != hub_id:
                    whose = found.hex() if isinstance(found, bytes) else "nobody"
                    raise ConfigurationError(
                        f"{path} is the file of hub {whose}, the backup is of {hub_id.hex()}; "
                        "remove the file first if that is meant"
                    )
                if connection.pragma("journal_mode", "delete") != "delete":  # it needs the file for itself
                    raise StoreBusy("it is in use")
        except StoreBusy as error:
            message = f"{path}: another program has it open, Litestream perhaps, or a hub; stop it first"
            raise StoreBusy(message) from error
    mark = f".replaced-{environment.wall_ms()}"
    for suffix in SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            os.replace(path + suffix, path + suffix + mark)
