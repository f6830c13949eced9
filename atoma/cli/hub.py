"""``atoma hub …``: backup, restore and epochs of a hub's file, without the program that runs it; the other commands are in modules of their own."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import get_args

import trio

from atoma.cli import serving, setup, tokens, upkeep
from atoma.cli.reports import Report, answers, commands_of, said
from atoma.cli.screen import progress
from atoma.cli.upkeep import WORDS, at_hub
from atoma.cli.words import count, moment, pairs, size
from atoma.contracts.sync import DevicePolicy
from atoma.errors import ConfigurationError, StoreBusy
from atoma.hub import Hub
from atoma.ports import Environment
from atoma_stores.sqlite import hub_files
from atoma_stores.sqlite.hub_files import EpochRecord, HubFile

_PERMISSIONS = {
    "allow_deletes": "delete rows that the hub still has and that they had seen deleted",
    "allow_offers": "offer by themselves what they hold back after --devices ask or forget",
    "accept_unproven": "offer rows without a proof that the hub ever had them, as files from before proofs do",
}
"""The hub's methods by name, and what each of them allows devices to do."""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands with their descriptions and arguments."""
    commands = commands_of(parser)

    setup.add_command(
        commands.add_parser("init", help="create what a hub needs: its database, a tokens file, a unit for systemd")
    )
    serving.add_command(commands.add_parser("serve", help="run a hub on a file or on PostgreSQL"))
    tokens.add_commands(commands.add_parser("tokens", help="say who is admitted: add, list, revoke"))

    backup = commands.add_parser(
        "backup",
        help="copy a hub's file; the hub may be running",
        description="Copy a hub's file, with its log, in one consistent state. The hub may be running.",
    )
    backup.add_argument("file", metavar="FILE", help="the hub's file")
    backup.add_argument("to", metavar="TO", help="the backup; it must not exist")
    answers(backup, _backup)

    restore = commands.add_parser(
        "restore",
        help="replace a hub's file with a copy of a backup",
        description="Replace a hub's file with a copy of a backup, in a new epoch. The hub must be stopped.",
        epilog="  ".join(f"{word}: {what}." for word, what in WORDS.items()),
    )
    restore.add_argument("backup", metavar="FROM", help="the backup; it is not changed")
    restore.add_argument("file", metavar="FILE", help="the hub's file; it need not exist")
    restore.add_argument(
        "--devices",
        choices=get_args(DevicePolicy),
        required=True,
        help="what devices do with everything they have received since the backup, deletions included; it depends on why you restore",
    )
    answers(restore, _restore)

    epochs = commands.add_parser(
        "epochs",
        help="list past restores and the devices that have not connected since, and allow devices more",
        description="List the epochs of a hub that have ended, one for each restore. The hub may be running.",
        epilog="To allow devices something, stop the hub first. EPOCH is the first digits of an epoch, or 'last'.",
    )
    epochs.add_argument("file", metavar="FILE", help="the hub's file")
    for name, what in _PERMISSIONS.items():
        epochs.add_argument(f"--{name.replace('_', '-')}", metavar="EPOCH", help=f"let devices {what}")
    answers(epochs, _epochs)

    upkeep.add_new_epoch(commands.add_parser("new-epoch", help="declare that part of a hub's history may be lost"))
    upkeep.add_compact(commands.add_parser("compact", help="remove old history"))
    upkeep.add_verify(commands.add_parser("verify", help="check a whole hub and say whether everything in it agrees"))


def _backup(options: argparse.Namespace) -> Report:
    with progress(f"copying {options.file}", sizes=True) as told:
        found = hub_files.back_up(options.file, options.to, told)
    data = {"file": options.file, "copy": options.to, "found": found}
    return said(data, f"{options.to}: {_contents(found)}, checked, on the disk")


def _contents(found: HubFile) -> str:
    changes = count(sum(found.heads.values()), "change")
    return f"{size(found.bytes)}, {changes} in {count(len(found.heads), 'scope')}"


def _restore(options: argparse.Namespace) -> Report:
    devices: DevicePolicy = options.devices
    found = hub_files.restore(options.backup, options.file, devices, Environment())
    return said(
        {"file": options.file, "devices": devices, "found": found},
        f"{options.file}: restored, {_contents(found)}, epoch {found.epoch.hex()}",
        f"{WORDS[devices]}. Start the hub.",
    )


def _epochs(options: argparse.Namespace) -> Report:
    records = hub_files.read_epochs(options.file)
    wanted = {name: _named(digits, records) for name in _PERMISSIONS if (digits := getattr(options, name))}
    if wanted:
        trio.run(_permit, options.file, wanted)
        records = hub_files.read_epochs(options.file)
    file = hub_files.read_file(options.file)
    return Report({"epoch": file.epoch, "ended": records}, lambda: _print_epochs(options.file, file, records))


def _print_epochs(path: str, file: HubFile, records: Sequence[EpochRecord]) -> None:
    print(f"{path}: epoch {file.epoch.hex()}, {_contents(file)}")
    if not records:
        print("No epoch has ended: this hub was never restored.")
    for record in records:
        print()
        _print_epoch(record)


async def _permit(path: str, wanted: Mapping[str, bytes]) -> None:
    """Record the permissions as the hub itself would.

    Raises:
        StoreBusy: A hub is running on the file.
    """

    async def work(hub: Hub) -> None:
        for name, epoch in wanted.items():
            await getattr(hub, name)(epoch)

    try:
        await at_hub(path, hub_files.read_schema(path), work)
    except StoreBusy as error:
        calls = ", ".join(f"hub.{name}(…)" for name in wanted)
        raise StoreBusy(f"{error}; or call {calls} in its program") from error


def _named(digits: str, records: Sequence[EpochRecord]) -> bytes:
    """Return the epoch whose hexadecimal form begins with ``digits``, or the last one that has ended.

    Raises:
        ConfigurationError: No epoch does, or several do.
    """
    if digits == "last" and records:
        return records[-1].ended.epoch
    found = [record.ended.epoch for record in records if record.ended.epoch.hex().startswith(digits.lower())]
    if len(found) != 1:
        known = ", ".join(record.ended.epoch.hex() for record in records) or "none"
        many = "several epochs begin" if found else "no epoch that has ended begins"
        raise ConfigurationError(f"{many} with {digits!r}; those that have ended: {known}")
    return found[0]


def _print_epoch(record: EpochRecord) -> None:
    ended, absent = record.ended, record.absent
    print(ended.epoch.hex())
    deletions = "allowed" if ended.deletes else "held back on the devices; --allow-deletes allows them"
    pairs(
        [
            ("ended", moment(ended.ended_ms)),
            ("devices", f"{ended.devices}: {WORDS[ended.devices]}"),
            ("deletions", None if ended.devices == "forget" else deletions),  # nothing is offered
            ("unproven", "accepted" if ended.unproven else None),
            (
                "not back yet",
                count(len(absent), "device") if absent else "none: every device that has written has connected",
            ),
        ],
        indent=2,
    )
    for client in absent:
        print(f"    {client.client_id.hex()}  {client.principal or '(nobody)'}, last seen {moment(client.seen_ms)}")
