"""``atoma sync …``: shows and repairs a device's file without the program that made it.

Replication moves rows as they are stored, so the file's own declarations are enough: a repair and its offers need no models.
"""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import trio

from atoma.cli import keys
from atoma.cli.numbers import seconds
from atoma.cli.offline import add_device_file
from atoma.cli.reports import Report, answers, commands_of, said
from atoma.cli.words import count, moment, pairs
from atoma.client import Client, open_client
from atoma.contracts.replica import ClientIdentity, InboxEntry, LostRow, RepairReport, Subscription
from atoma.errors import ConfigurationError, ConnectFailed
from atoma.plugins import Plugin
from atoma.ports import Environment, LocalTx, Transport
from atoma.sync import Sync, SyncStatus
from atoma.sync.inbox import open_entries
from atoma.sync.policies import HubLossPolicy
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.device_files import StoredSync, ask_renewal, inspect_file, read_sync
from atoma_stores.sqlite.encryption import FileKey
from atoma_transports.remote import Remote

TOKEN_VARIABLE = "ATOMA_TOKEN"
PATIENCE_S = 60.0
SHOWN = 20


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands with their descriptions and arguments."""
    commands = commands_of(parser)

    status = commands.add_parser(
        "status",
        help="show a file's identity at the hub, its progress, and what waits in it",
        description="Show what a device's file says about its replication. It is only read, and may be open elsewhere.",
    )
    add_device_file(status)
    answers(status, _status)

    repair = commands.add_parser(
        "repair",
        help="repair a file whose history has diverged from the hub's",
        description=(
            "Repair a device's file with the hub, as its program would by itself. The program is not needed: rows move "
            "as they are stored. Close the program first, or call client.sync.repair() in it."
        ),
        epilog=f"The token comes from --token-file or from the variable {TOKEN_VARIABLE}, never from the command line.",
    )
    add_device_file(repair)
    repair.add_argument("--url", required=True, help="the hub: ws://, wss://, http://, https://, grpc:// or grpcs://")
    repair.add_argument("--token-file", type=Path, metavar="PATH", help="file whose first line is the token")
    repair.add_argument("--ca-file", type=Path, metavar="PATH", help="certificates to trust instead of the system's")
    repair.add_argument(
        "--adopt-hub", action="store_true", help="hand the file over to this hub and user if it belongs to others"
    )
    repair.add_argument("--dry-run", action="store_true", help="only say what would be done")
    repair.add_argument(
        "--on-hub-loss",
        choices=get_args(HubLossPolicy),
        default="offer",
        help="what to do with rows that the hub has lost; give the same word as the program gives to Sync (default offer)",
    )
    repair.add_argument("--sync", action="store_true", help="then sync once: send what waits and fetch what is new")
    repair.add_argument(
        "--timeout",
        type=seconds,
        default=PATIENCE_S,
        metavar="SECONDS",
        help="give up after this time (default %(default)g)",
    )
    answers(repair, _repair)

    renewal = commands.add_parser(
        "new-identity",
        help="declare that a file is a deliberate copy",
        description=(
            "Let a copied file take its own identity at its next contact with the hub. Nothing else changes here: only the hub "
            "can say what became of its pending writes."
        ),
    )
    add_device_file(renewal)
    answers(renewal, _new_identity)


# atoma sync status


@dataclass(frozen=True, slots=True)
class FileStatus:
    """The state of replication that a device's file records.

    Attributes:
        identity: The file's identity at the hub.
        scopes: The progress of each scope.
        pending: Number of writes that the hub has not confirmed in a page yet.
        queued: Number of those that were not sent, or not answered.
        held: Number of writes that somebody holds in the file.
        inbox: Open entries of the inbox.
        lost: Open entries among the rows that the hub has lost.
        repairs: The last repairs, oldest first.
    """

    identity: ClientIdentity
    scopes: list[Subscription]
    pending: int
    queued: int
    held: int
    inbox: list[InboxEntry]
    lost: list[LostRow]
    repairs: list[RepairReport]

    @property
    def waiting(self) -> dict[str, int]:
        """How many entries wait, by kind."""
        return {"pending": self.pending, "held": self.held, "inbox": len(self.inbox), "lost": len(self.lost)}


def read_status(path: str, key: FileKey | None = None) -> tuple[StoredSync, FileStatus]:
    """Return the names of a device file's synced stores, and the state of its replication; the file may be open elsewhere.

    Raises:
        StoreError: It is not a device's file, or cannot be read.
    """
    stored = read_sync(path, key)

    def read(tx: LocalTx) -> FileStatus:
        outbox = tx.outbox.every()
        return FileStatus(
            identity=tx.outbox.identity(),
            scopes=[tx.scopes.read(scope) for scope in stored.scopes],
            pending=len(outbox),
            queued=sum(not item.ack_seq for item in outbox),
            held=tx.outbox.held_count(),
            inbox=open_entries(tx),
            lost=[row for row in tx.inbox.lost() if not row.resolution],
            repairs=list(tx.inbox.repairs()),
        )

    return stored, inspect_file(path, read, Environment(), key)


def _status(options: argparse.Namespace) -> Report:
    path: str = options.file
    stored, found = read_status(path, keys.key_of(options))
    return Report(found, lambda: _print_status(path, list(stored.stores), found))


def _print_status(path: str, synced: list[str], found: FileStatus) -> None:
    identity = found.identity
    print(path)
    sent = found.pending - found.queued
    on_the_way = f"{count(found.pending, 'write')}, {sent} of them accepted by the hub" if sent else ""
    pairs(
        [
            ("client", f"{identity.client_id.hex()}, incarnation {identity.incarnation}"),
            ("", "takes a new identity at its next contact with the hub" if identity.renew else None),
            ("hub", identity.hub_id.hex() or "none: it has never connected to one"),
            ("belongs to", identity.principal or None),
            ("stores", ", ".join(synced) or "none are synced"),
            ("pending", on_the_way or (count(found.pending, "write") if found.pending else "nothing")),
            ("held", f"{count(found.held, 'write')}; see atoma outbox list" if found.held else None),
            ("inbox", count(len(found.inbox), "entry", "entries") if found.inbox else "empty"),
            ("lost", f"{count(len(found.lost), 'row')} waiting for a decision" if found.lost else "nothing"),
        ],
        indent=2,
    )
    for scope in found.scopes:
        head = max(scope.head, scope.cursor.seq)
        at = f"{scope.state} at {scope.cursor.seq}" + (f" of {head}" if head > scope.cursor.seq else "")
        pairs([(f"scope {scope.scope}", f"{at}, epoch {scope.cursor.epoch.hex() or 'none yet'}")], indent=2)
    _print_some("inbox", [f"{entry.code}  {entry.store} {entry.id}: {entry.message}" for entry in found.inbox])
    _print_some("lost", [f"{row.store} {row.id}: {_deed(row)} ({row.reason})" for row in found.lost])
    for report in found.repairs:
        print(f"\nrepaired {moment(report.at_ms)}")
        _print_report(report)


def _deed(row: LostRow) -> str:
    return "deleted here; the hub still has it" if row.image is None else "here; the hub does not have it as it was"


def _print_some(title: str, lines: list[str]) -> None:
    if lines:
        print(f"\n{title}")
        for line in lines[:SHOWN]:
            print(f"  {line}")
        if len(lines) > SHOWN:
            print(f"  … and {len(lines) - SHOWN} more; --json prints all")


def _print_report(report: RepairReport) -> None:
    forks = ", ".join(f"{scope} behind {seq}" for scope, seq in report.forks.items())
    pairs(
        [
            ("cause", f"{report.cause}: {report.why}"),
            ("hub lost", forks or None),
            ("offered", f"{count(report.offered, 'row')} to the hub" if report.offered else None),
            ("kept in lost", count(report.lost, "row") if report.lost else None),
            ("settled", f"{count(report.settled, 'write')} that the hub had decided" if report.settled else None),
            ("sent again", count(report.renumbered, "write") if report.renumbered else None),
            (
                "under a guard",
                f"{report.doubtful} of them, since they may have been decided" if report.doubtful else None,
            ),
            ("withdrawn", _withdrawn(report)),
            ("to the inbox", count(report.to_inbox, "write") if report.to_inbox else None),
            ("identity", f"{report.old_client_id.hex()} → {report.new_client_id.hex()}"),
        ],
        indent=2,
    )


def _withdrawn(report: RepairReport) -> str | None:
    verdicts = count(len(report.withdrawn), "verdict")
    return (
        f"{verdicts}: the hub had accepted the writes, and knows nothing of them any more" if report.withdrawn else None
    )


# atoma sync repair


def _repair(options: argparse.Namespace) -> Report:
    report, status = trio.run(_repair_file, options)
    return Report({"report": report, "status": status}, lambda: _print_repair(options, report, status))


def _print_repair(options: argparse.Namespace, report: RepairReport | None, status: SyncStatus | None) -> None:
    if report is None:
        print(f"{options.file}: nothing is wrong; it continues the hub's history")
    else:
        print(f"{options.file}: this would be done" if options.dry_run else f"{options.file}: repaired")
        _print_report(report)
    if status is not None:
        print(f"synced with the hub, {count(status.pending, 'write')} pending")
    elif report is not None and not options.dry_run and (report.offered or report.renumbered):
        print("Offers and repeated writes are sent with the next sync, by the program or by this command with --sync.")


async def _repair_file(options: argparse.Namespace) -> tuple[RepairReport | None, SyncStatus | None]:
    stored = read_sync(options.file, keys.key_of(options))
    if not stored.stores or not stored.scopes:
        raise ConfigurationError(
            f"{options.file}: it has no synced stores, or has never connected to a hub; open it with its program"
        )
    transport = transport_to(options.url, read_token(options.token_file), options.ca_file)
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(options.file, key=keys.secret_of(options))),
        Remote(transport),
        Sync(stored.stores, stored.scopes, mode="manual", on_hub_loss=options.on_hub_loss),
    ]
    async with open_client(stored.schema, plugins=plugins) as client:
        try:
            with trio.fail_after(options.timeout):
                return await _repair_with(client, options)
        except trio.TooSlowError:
            status = client.sync.status
            why = f": {status.reason}" if status.reason else ""
            raise ConnectFailed(f"the hub did not answer within {options.timeout:g} s{why}") from None


async def _repair_with(client: Client, options: argparse.Namespace) -> tuple[RepairReport | None, SyncStatus | None]:
    repair = client.sync.adopt_hub if options.adopt_hub else client.sync.repair
    report = await repair(dry_run=options.dry_run)
    if options.dry_run or not options.sync:
        return report, None
    await client.sync.sync_once()
    return report, client.sync.status


def read_token(path: Path | None) -> str:
    """Return the token in the file or in the environment; ``""`` if there is none.

    Raises:
        ConfigurationError: The file cannot be read, or is empty.
    """
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: the token cannot be read: {error}") from error
    if len(lines) != 1:
        raise ConfigurationError(f"{path}: the file must hold one token and nothing else")
    return lines[0]


def transport_to(url: str, token: str, ca_file: Path | None) -> Transport:
    """Return the transport for ``url``; its module is imported only when it is needed.

    Raises:
        ConfigurationError: No transport has that scheme, or the certificates cannot be read.
    """
    context = None if ca_file is None else _trusting(ca_file)
    makers: dict[str, Callable[[], Transport]] = {
        **dict.fromkeys(("ws", "wss"), lambda: _websocket(url, token, context)),
        **dict.fromkeys(("grpc", "grpcs"), lambda: _grpc(url, token, context)),
        **dict.fromkeys(("http", "https"), lambda: _http(url, token, context)),
    }
    make = makers.get(url.partition("://")[0])
    if make is None:
        raise ConfigurationError(f"--url must begin with {'://, '.join(makers)}://, not {url!r}")
    return make()


def _trusting(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{ca_file}: no certificates can be read from it: {error}") from error


def _websocket(url: str, token: str, context: ssl.SSLContext | None) -> Transport:
    from atoma_transports.websocket import WebSocketTransport

    return WebSocketTransport(url, token=token, ssl_context=context)


def _grpc(url: str, token: str, context: ssl.SSLContext | None) -> Transport:
    from atoma_transports.grpc import GrpcTransport

    return GrpcTransport(url, token=token, ssl_context=context)


def _http(url: str, token: str, context: ssl.SSLContext | None) -> Transport:
    from atoma_transports.http import HttpTransport

    return HttpTransport(url, token=token, ssl_context=context)


# atoma sync new-identity


def _new_identity(options: argparse.Namespace) -> Report:
    asked = ask_renewal(options.file, keys.key_of(options))
    told = "takes a new identity" if asked else "is already marked to take a new identity"
    return said({"file": options.file, "asked": asked}, f"{options.file}: {told} at its next contact with the hub")
