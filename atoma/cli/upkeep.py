"""``atoma hub new-epoch``, ``compact`` and ``verify``: upkeep of a hub, on a file or on PostgreSQL."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar, get_args

import trio

from atoma.cli import schemas
from atoma.cli.numbers import days, whole_number
from atoma.cli.reports import Exit, Report, answers, said, unsound
from atoma.cli.screen import progress
from atoma.cli.serving import POSTGRESQL, held_version, postgresql_at, store_at
from atoma.cli.words import count
from atoma.contracts.sync import DevicePolicy
from atoma.errors import ConfigurationError
from atoma.hub import Hub
from atoma.hub.hub import CLIENT_DAYS, KEEP_DAYS, KEEP_TRANSACTIONS, open_for_upkeep
from atoma.hub.lineage import next_hash
from atoma.ports import Environment
from atoma.schema import Schema
from atoma_stores.sqlite import hub_files

T = TypeVar("T")

WORDS: dict[DevicePolicy, str] = {
    "offer": "devices bring back what they have received of the lost part",
    "ask": "devices keep what they have received of the lost part until their users offer it",
    "forget": "devices bring nothing back; they keep a list of what they had",
}
"""The words of ``--devices``: what devices do after a restore, or in a new epoch."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of a hub, and the stores that it has.

    Attributes:
        where: The hub's file, or the address of its database.
        schema: The schema that was given; None takes the file's own declarations.
    """

    where: str
    schema: Schema | None

    @property
    def shared(self) -> bool:
        """Whether it is a database that several processes may share."""
        return self.where.startswith(POSTGRESQL)

    def declared(self) -> Schema:
        """The hub's stores.

        Raises:
            ConfigurationError: No schema was given, and a database does not describe its stores.
        """
        if self.schema is not None:
            return self.schema
        if self.shared:
            raise ConfigurationError("a hub on PostgreSQL needs --schema MODULE:NAME, as for `atoma hub serve`")
        return hub_files.read_schema(self.where)


def _add_place(command: argparse.ArgumentParser) -> None:
    command.add_argument("where", metavar="WHERE", help="the hub's file, or postgresql://user@host/database")
    schemas.add_option(command, otherwise="required for PostgreSQL; a file describes its own stores")


def _place(options: argparse.Namespace) -> _Place:
    return _Place(options.where, None if options.schema is None else schemas.load(options.schema))


async def at_hub(where: str, schema: Schema, work: Callable[[Hub], Awaitable[T]]) -> T:
    """Return the result of ``work`` with the hub at ``where``, which is open only meanwhile and decides nothing.

    Raises:
        StoreBusy: Another hub is running on the file.
        ConfigurationError: There is no hub, or its version is earlier than the schema's: opening it would create or convert it.
    """
    held = await held_version(where)
    if not held:
        raise ConfigurationError(f"{where}: there is no hub in this database; `atoma hub init` creates one")
    if held < schema.version:
        raise ConfigurationError(
            f"{where} has version {held} of the schema, and --schema has version {schema.version}: migrate it with "
            "`atoma migrate`, or name the schema that its hub uses"
        )
    async with open_for_upkeep(schema, store_at(where)) as hub:
        return await work(hub)


# atoma hub new-epoch


def add_new_epoch(command: argparse.ArgumentParser) -> None:
    """Say what ``atoma hub new-epoch`` takes."""
    command.description = (
        "Declare that part of a hub's history may be lost: it was restored in a way that cannot be detected, or edited by hand. Stop a hub "
        "on a file first; on PostgreSQL, do it before the first device is served. An unnecessary epoch costs nothing."
    )
    command.epilog = "  ".join(f"{word}: {what}." for word, what in WORDS.items())
    _add_place(command)
    command.add_argument(
        "--devices",
        choices=get_args(DevicePolicy),
        required=True,
        help="what devices do with everything they have received of the lost part, deletions included",
    )
    answers(command, _new_epoch)


def _new_epoch(options: argparse.Namespace) -> Report:
    place, devices = _place(options), options.devices
    if place.shared:
        epoch = trio.run(at_hub, place.where, place.declared(), partial(_renewed, devices=devices))
    else:
        epoch = hub_files.begin_epoch(place.where, devices, Environment()).epoch
    told = f"{options.where}: epoch {epoch.hex()}", f"{WORDS[devices]}."
    return said({"where": options.where, "devices": devices, "epoch": epoch}, *told)


async def _renewed(hub: Hub, *, devices: DevicePolicy) -> bytes:
    return (await hub.new_epoch(devices=devices)).epoch


# atoma hub compact


def add_compact(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of ``atoma hub compact``."""
    command.description = (
        "Remove old history. A running hub does it by itself (`serve --compact-days`); this command is for a stopped hub, or for a "
        "database while other processes serve it. With --schema, rows that were softly deleted long enough ago are purged as well."
    )
    _add_place(command)
    command.add_argument(
        "--keep",
        type=whole_number,
        default=KEEP_TRANSACTIONS,
        metavar="N",
        help="keep this many transactions of each scope (default %(default)s)",
    )
    for name, usual, what in (
        ("--keep-days", KEEP_DAYS, "keep answers, verdicts and the log behind a restore for this many days"),
        ("--client-days", CLIENT_DAYS, "keep devices that were last connected within this many days"),
    ):
        command.add_argument(name, type=days, default=usual, metavar="DAYS", help=f"{what} (default %(default)g)")
    command.add_argument(
        "--force",
        action="store_true",
        help="also if all of them would be removed because nobody has connected for days",
    )
    answers(command, _compact)


def _compact(options: argparse.Namespace) -> Report:
    place = _place(options)
    kept = {"keep": options.keep, "keep_days": options.keep_days, "client_days": options.client_days}

    async def work(hub: Hub) -> Report:
        found = await hub.compact(**kept, force=options.force)
        told = [
            count(number, one)
            for one in ("transaction", "tombstone", "outcome", "answer", "client")
            if (number := getattr(found, f"{one}s"))
        ]
        forgotten = f"{options.where}: {', '.join(told) or 'nothing'} removed"
        purged = f", {count(found.purged, 'row')} purged" if found.purged else ""
        return said({"where": options.where, **asdict(found)}, forgotten + purged)

    with progress(f"compacting {options.where}"):
        return trio.run(at_hub, place.where, place.declared(), work)


# atoma hub verify


def add_verify(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of ``atoma hub verify``."""
    command.description = (
        "Check a whole hub: its pages and indexes, and whether log, hashes, rows, tombstones and verdicts agree. The hub may be "
        f"running. The exit code is {Exit.FOUND.value} if something is wrong."
    )
    _add_place(command)
    answers(command, _verify)


def _verify(options: argparse.Namespace) -> Report:
    place = _place(options)
    with progress(f"verifying {options.where}") as told:
        if place.shared:
            found = trio.run(postgresql_at(place.where).verify, place.declared(), next_hash, told)
        else:
            found = hub_files.verify(place.where, next_hash, told)
    data = {"where": options.where, **asdict(found)}
    if found.problems:
        helps = "Stop the hub, keep a copy of it, and restore a backup; devices bring back what they have."
        return unsound(options.where, data, found.problems, helps)
    read = f"{count(found.transactions, 'transaction')} of {count(found.scopes, 'scope')}, {count(found.changes, 'change')}"
    lines = [f"{options.where}: sound; {read}"]
    if found.converted:
        lines.append(
            f"{count(found.converted, 'transaction')} of them were converted by a migration: their hashes are those of their former contents."
        )
    return said(data, *lines)
