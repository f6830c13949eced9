"""``atoma hub …``: run a hub; backup, restore and epochs of its file, which need no program that runs it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import get_args

import trio

from atoma.cli import serving
from atoma.cli.words import count, moment, pairs, print_json, size
from atoma.contracts.sync import DevicePolicy
from atoma.errors import ConfigurationError, StoreBusy
from atoma.hub import AllowLoopback, open_hub
from atoma.ports import Environment
from atoma_stores.sqlite import SQLiteHubStore, hub_files
from atoma_stores.sqlite.hub_files import EpochRecord, HubFile

_WORDS: dict[DevicePolicy, str] = {
    "offer": "devices bring back what they have seen since the backup",
    "ask": "devices keep what they have seen since the backup until their users offer it",
    "forget": "devices bring nothing back; what they had stays listed on them",
}


_PERMISSIONS = {
    "allow_deletes": "delete rows that the hub still has and that they had seen deleted",
    "allow_offers": "bring back by themselves what waits on them, after --devices ask or forget",
    "accept_unproven": "bring back what nothing proves that the hub ever had: files from before proofs",
}
"""Calls of the hub's, and what each of them allows devices."""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Say what the commands take."""
    commands = parser.add_subparsers(dest="action", required=True)

    serving.add_command(commands.add_parser("serve", help="run a hub, on a file or on PostgreSQL"))

    backup = commands.add_parser(
        "backup",
        help="copy a hub's file, also while the hub runs",
        description="Copy a hub's file, with its log, as one state of the hub; also while the hub runs.",
    )
    backup.add_argument("file", metavar="FILE", help="the hub's file")
    backup.add_argument("to", metavar="TO", help="the backup; it must not exist")
    backup.set_defaults(run=_backup)

    restore = commands.add_parser(
        "restore",
        help="put a backup in the place of a hub's file",
        description="Put a copy of a backup in the place of a hub's file, in a new epoch. The hub has to be stopped.",
        epilog="  ".join(f"{word}: {what}." for word, what in _WORDS.items()),
    )
    restore.add_argument("backup", metavar="FROM", help="the backup; it is not changed")
    restore.add_argument("file", metavar="FILE", help="the hub's file; it need not exist")
    restore.add_argument(
        "--devices",
        choices=get_args(DevicePolicy),
        required=True,
        help="what devices do with what they have seen since the backup, deletions among it; nobody but you knows why",
    )
    restore.set_defaults(run=_restore)

    epochs = commands.add_parser(
        "epochs",
        help="what restores there were, who has not come back since, and what devices may do",
        description="List the epochs of a hub that have ended, one for each restore; also while the hub runs.",
        epilog="What is allowed is said in the place of the hub, which has to be stopped. EPOCH is its first digits, or 'last'.",
    )
    epochs.add_argument("file", metavar="FILE", help="the hub's file")
    for name, what in _PERMISSIONS.items():
        epochs.add_argument(f"--{name.replace('_', '-')}", metavar="EPOCH", help=f"let devices {what}")
    epochs.add_argument("--json", action="store_true", help="print JSON")
    epochs.set_defaults(run=_epochs)


def _backup(options: argparse.Namespace) -> int:
    found = hub_files.back_up(options.file, options.to)
    print(f"{options.to}: {_contents(found)}, checked, on the disk")
    return 0


def _contents(found: HubFile) -> str:
    changes = count(sum(found.heads.values()), "change")
    return f"{size(found.bytes)}, {changes} in {count(len(found.heads), 'scope')}"


def _restore(options: argparse.Namespace) -> int:
    devices: DevicePolicy = options.devices
    found = hub_files.restore(options.backup, options.file, devices, Environment())
    print(f"{options.file}: restored, {_contents(found)}, epoch {found.epoch.hex()}")
    print(f"{_WORDS[devices]}. Start the hub.")
    return 0


def _epochs(options: argparse.Namespace) -> int:
    records = hub_files.read_epochs(options.file)
    wanted = {name: _named(digits, records) for name in _PERMISSIONS if (digits := getattr(options, name))}
    if wanted:
        trio.run(_permit, options.file, wanted)
        records = hub_files.read_epochs(options.file)
    file = hub_files.read_file(options.file)
    if options.json:
        print_json({"epoch": file.epoch, "ended": records})
        return 0
    print(f"{options.file}: epoch {file.epoch.hex()}, {_contents(file)}")
    if not records:
        print("No epoch has ended: this hub was never restored.")
    for record in records:
        print()
        _print_epoch(record)
    return 0


async def _permit(path: str, wanted: Mapping[str, bytes]) -> None:
    """Say it as the hub itself would, which for that moment runs here, without a port.

    Raises:
        StoreBusy: A hub is running on the file.
    """
    try:
        async with open_hub(hub_files.read_schema(path), SQLiteHubStore(path), verifier=AllowLoopback()) as hub:
            for name, epoch in wanted.items():
                await getattr(hub, name)(epoch)
    except StoreBusy as error:
        calls = ", ".join(f"hub.{name}(…)" for name in wanted)
        raise StoreBusy(f"{error}; or have its program call {calls}") from error


def _named(digits: str, records: Sequence[EpochRecord]) -> bytes:
    """The epoch whose hexadecimal form begins with ``digits``, or the last that has ended.

    Raises:
        ConfigurationError: None does, or several do.
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
    held = "kept on the devices until --allow-deletes says otherwise"
    pairs(
        [
            ("ended", moment(ended.ended_ms)),
            ("devices", f"{ended.devices}: {_WORDS[ended.devices]}"),
            ("deletions", "allowed" if ended.deletes else held),
            ("unproven", "accepted" if ended.unproven else None),
            (
                "not back yet",
                count(len(absent), "device") if absent else "nobody: every device that has written has called",
            ),
        ],
        indent=2,
    )
    for client in absent:
        print(f"    {client.client_id.hex()}  {client.principal or '(nobody)'}, last seen {moment(client.seen_ms)}")
