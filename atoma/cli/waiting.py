"""``atoma outbox …`` and ``atoma inbox …``: the outbox and the inbox of a device's file, and what came back to it.

The program of the file is not needed and may be running: changes are made by the same transactions. Only editing
values needs its schema, which knows their types.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import trio

from atoma.cli import keys, schemas
from atoma.cli.offline import add_device_file, open_offline
from atoma.cli.quarantine import field_value
from atoma.cli.reports import Report, RunCommand, answers, commands_of, said
from atoma.cli.words import count, moment
from atoma.client import Client
from atoma.contracts.outbox import WaitingWrite
from atoma.contracts.replica import InboxEntry
from atoma.errors import ConfigurationError
from atoma.ports import Environment
from atoma.schema import Schema
from atoma.sync.inbox import open_entries
from atoma.sync.waiting import waiting_writes
from atoma_stores.sqlite.device_files import inspect_file

KEY_SHOWN = 8
"""Number of characters of a write's key that are shown: its last ones, which differ. To name a write, enough of them to be unique will do."""
WaitingWork: TypeAlias = Callable[[Client, argparse.Namespace], Awaitable[Report]]


def add_outbox(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of ``atoma outbox``."""
    commands = commands_of(parser)
    listed = commands.add_parser(
        "list", help="list the writes that wait to be sent, in the order in which they were made"
    )
    add_device_file(listed)
    answers(listed, _list_outbox)
    retry = commands.add_parser("retry", help="make the program that has the file open send queued writes now")
    add_device_file(retry)
    answers(retry, _runner(_retry))
    edit = commands.add_parser(
        "edit",
        help="change the values of a write that was never sent",
        description="Change the values of a write that was never sent; it keeps its place in the order. Values are written as in a CSV file.",
    )
    add_device_file(edit)
    edit.add_argument("key", metavar="KEY", help="the end of the write's key")
    schemas.add_option(edit)
    edit.add_argument(
        "--set", action="append", required=True, metavar="FIELD=VALUE", help="a new value; may be repeated"
    )
    edit.add_argument("--row", nargs=2, metavar=("STORE", "ID"), help="the row, if the write is on several")
    answers(edit, _edit)
    for name, told, work in (
        ("hold", "keep writes, and those that build on them, in the file until they are released", _hold),
        ("release", "send held writes after all", _release),
        ("discard", "take back writes that were never sent", _discard),
    ):
        command = commands.add_parser(name, help=told)
        add_device_file(command)
        command.add_argument("keys", metavar="KEY", nargs="+", help="the ends of the writes' keys")
        answers(command, _runner(work))
        if name == "hold":
            command.add_argument("--why", default="", help="a reason, shown beside the writes")
        if name == "discard":
            command.add_argument(
                "--dependents", action="store_true", help="also discard the later writes that build on them"
            )


def add_inbox(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of ``atoma inbox``."""
    commands = commands_of(parser)
    listed = commands.add_parser("list", help="list the changes that the hub refused or dropped, oldest first")
    add_device_file(listed)
    answers(listed, _list_inbox)
    for name, told, work in (
        ("keep-mine", "write a refused change again, over the row as it is now", _keep_mine),
        ("take-theirs", "leave the row as the hub has it", _take_theirs),
    ):
        command = commands.add_parser(name, help=told)
        add_device_file(command)
        command.add_argument("store", metavar="STORE", help="the row's store")
        command.add_argument("id", metavar="ID", help="the row's id; its oldest open entry is taken")
        answers(command, _runner(work))
        if name == "keep-mine":
            command.add_argument("--field", action="append", metavar="NAME", help="only this field; may be repeated")


def _runner(work: WaitingWork) -> RunCommand:
    def run(options: argparse.Namespace) -> Report:
        return trio.run(_done, work, options)

    return run


async def _done(work: WaitingWork, options: argparse.Namespace, schema: Schema | None = None) -> Report:
    """Return the report of ``work`` on the file, which is opened without a hub."""
    async with open_offline(options, schema) as client:
        if not client.topology().synced:
            raise ConfigurationError(f"{options.file}: it has no synced stores, or has never connected to a hub")
        return await work(client, options)


# the outbox


def _list_outbox(options: argparse.Namespace) -> Report:
    found = inspect_file(options.file, waiting_writes, Environment(), keys.key_of(options))
    return Report(found, lambda: _print_outbox(options.file, found))


def _print_outbox(path: str, found: Sequence[WaitingWrite]) -> None:
    print(f"{path}: {count(len(found), 'write') if found else 'nothing'} in the outbox")
    for entry in found:
        why = f"  {entry.why}" if entry.why else ""
        print(f"  {entry.key[-KEY_SHOWN:]}  {entry.state:<8}  {moment(entry.written_ms)}  {rows_of(entry)}{why}")


def rows_of(entry: WaitingWrite) -> str:
    """Return what a write does to which rows, for people."""
    return ", ".join(f"{kind} {store} {id}" for (store, id), kind in entry.rows.items())


async def _chosen(client: Client, keys: Sequence[str]) -> list[WaitingWrite]:
    entries = await client.sync.outbox.entries()
    chosen: list[WaitingWrite] = []
    for key in keys:
        found = [entry for entry in entries if entry.key.endswith(key)]
        if len(found) != 1:
            what = "no write" if not found else f"{len(found)} writes"
            raise ConfigurationError(f"{what} in the outbox with a key that ends in {key!r}; see `atoma outbox list`")
        chosen += found
    return chosen


async def _retry(client: Client, options: argparse.Namespace) -> Report:
    waiting = [entry for entry in await client.sync.outbox.entries() if entry.state in ("queued", "sent")]
    if waiting:
        await client.sync.outbox.retry()
    told = (
        f"{count(len(waiting), 'write')} to send; a program that has the file open sends them at once"
        if waiting
        else "nothing to send"
    )
    return said({"file": options.file, "waiting": len(waiting)}, f"{options.file}: {told}")


def _edit(options: argparse.Namespace) -> Report:
    schema = schemas.load(options.schema)

    async def work(client: Client, options: argparse.Namespace) -> Report:
        (entry,) = await _chosen(client, [options.key])
        row = None if options.row is None else (options.row[0], options.row[1])
        store = next(iter(entry.rows))[0] if row is None else row[0]
        changes = dict(field_value(schema.store(store), text) for text in options.set)
        await client.sync.outbox.edit(entry, changes, row=row)
        data = {"file": options.file, "key": entry.key, "fields": list(changes)}
        return said(data, f"{options.file}: {entry.key[-KEY_SHOWN:]} edited")

    return trio.run(_done, work, options, schema)


async def _hold(client: Client, options: argparse.Namespace) -> Report:
    held = await client.sync.outbox.hold(await _chosen(client, options.keys), why=options.why)
    return said({"file": options.file, "held": held}, f"{options.file}: {count(held, 'write')} held")


async def _release(client: Client, options: argparse.Namespace) -> Report:
    await client.sync.outbox.release(await _chosen(client, options.keys))
    left = client.sync.status.held
    still = f"; {count(left, 'write')} still held" if left else ""
    return said({"file": options.file, "held": left}, f"{options.file}: released{still}")


async def _discard(client: Client, options: argparse.Namespace) -> Report:
    chosen = await _chosen(client, options.keys)
    gone = await client.sync.outbox.discard(chosen, dependents=options.dependents)
    return said({"file": options.file, "discarded": gone}, f"{options.file}: {count(gone, 'write')} discarded")


# the inbox


def _list_inbox(options: argparse.Namespace) -> Report:
    found = inspect_file(options.file, open_entries, Environment(), keys.key_of(options))
    return Report(found, lambda: _print_inbox(options.file, found))


def _print_inbox(path: str, found: Sequence[InboxEntry]) -> None:
    print(f"{path}: {count(len(found), 'open entry', 'open entries') if found else 'nothing'} in the inbox")
    for entry in found:
        print(f"  {entry.store} {entry.id}  {entry.code}  {moment(entry.at_ms)}  {entry.message}")
        for name, value in (entry.mine or {}).items():
            theirs = (entry.theirs or {}).get(name)
            if value != theirs:
                print(f"    {name}: mine {value!r}, theirs {theirs!r}")


async def _entry(client: Client, options: argparse.Namespace) -> InboxEntry:
    for entry in await client.inbox.entries():
        if (entry.store, entry.id) == (options.store, options.id):
            return entry
    raise ConfigurationError(f"no open entry in the inbox for {options.store} {options.id}; see `atoma inbox list`")


async def _keep_mine(client: Client, options: argparse.Namespace) -> Report:
    await client.inbox.keep_mine(await _entry(client, options), fields=options.field)
    return _resolved(options, "kept_mine", "written again; it is sent with the next sync of the program")


async def _take_theirs(client: Client, options: argparse.Namespace) -> Report:
    await client.inbox.dismiss(await _entry(client, options))
    return _resolved(options, "dismissed", "the row stays as the hub has it")


def _resolved(options: argparse.Namespace, resolution: str, told: str) -> Report:
    data = {"file": options.file, "store": options.store, "id": options.id, "resolution": resolution}
    return said(data, f"{options.file}: {told}")
