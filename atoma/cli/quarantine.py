"""``atoma quarantine …``: what migrations of a file could not convert, and what can be done with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from atoma.cli import keys, schemas
from atoma.cli.files import WHOSE, add_file
from atoma.cli.offline import open_offline
from atoma.cli.reports import Exit, Report, answers, commands_of, said
from atoma.cli.words import count
from atoma.contracts.quarantine import Quarantined
from atoma.errors import ConfigurationError
from atoma.schema.portable import from_text, value_of
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec
from atoma_stores.sqlite.files import discard_quarantined, read_quarantine


def add_command(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    commands = commands_of(parser)
    listed = commands.add_parser("list", help="list what could not be converted, oldest first, with the reasons")
    add_file(listed)
    answers(listed, _list)
    back = commands.add_parser(
        "bring-back",
        help="correct a row of a device's file and write it again",
        description=(
            "Write the row of an entry again with corrected values, as the program would. If the row no longer exists, its other "
            "values come from the entry. It is sent with the next sync of the program."
        ),
        epilog="For example: atoma quarantine bring-back shop.db 3 price=12.50 --schema app.models:SCHEMA",
    )
    add_file(back)
    back.add_argument("number", metavar="NUMBER", type=int, help="the entry")
    back.add_argument(
        "fields", metavar="FIELD=VALUE", nargs="*", help="a field of the current schema, and its value as in a CSV file"
    )
    schemas.add_option(back)
    answers(back, _bring_back)
    gone = commands.add_parser("discard", help="discard entries; stop a hub first")
    add_file(gone)
    gone.add_argument("numbers", metavar="NUMBER", type=int, nargs="+", help="the entries")
    answers(gone, _discard)


def _list(options: argparse.Namespace) -> Report:
    layout, found = read_quarantine(options.file, keys.key_of(options))
    return Report(found, lambda: _print(options.file, WHOSE[layout], found), Exit.FOUND if found else Exit.DONE)


def _print(path: str, whose: str, found: Sequence[Quarantined]) -> None:
    print(f"{path}: {whose}, {count(len(found), 'entry', 'entries') if found else 'nothing'} in quarantine")
    for entry in found:
        print(f"  {entry.number}  {entry.store} {entry.id}  {entry.what} of version {entry.version}: {entry.reason}")
        print(f"     {msgspec.json.encode(entry.kept).decode()}")


def _discard(options: argparse.Namespace) -> Report:
    gone = discard_quarantined(options.file, options.numbers, keys.key_of(options))
    if gone < len(set(options.numbers)):
        there = f"; {count(gone, 'entry', 'entries')} discarded" if gone else ""
        raise ConfigurationError(
            f"{options.file}: some of these entries are not in quarantine{there}; see `atoma quarantine list`"
        )
    return said(
        {"file": options.file, "discarded": gone}, f"{options.file}: {count(gone, 'entry', 'entries')} discarded"
    )


def _bring_back(options: argparse.Namespace) -> Report:
    layout, found = read_quarantine(options.file, keys.key_of(options))
    if layout == "hub":
        raise ConfigurationError(
            f"{options.file}: a hub's rows are written by its clients: write the row on one of them, then discard the entry here"
        )
    entry = next((one for one in found if one.number == options.number), None)
    if entry is None:
        raise ConfigurationError(f"{options.file}: there is no entry {options.number}; see `atoma quarantine list`")
    schema = schemas.load(options.schema)
    fields = dict(field_value(schema.store(entry.store), text) for text in options.fields)
    trio.run(_write, options, schema, entry, fields)
    data = {"file": options.file, "store": entry.store, "id": entry.id}
    return said(
        data,
        f"{options.file}: {entry.store} {entry.id} was written again; it is sent with the next sync of the program",
    )


async def _write(options: argparse.Namespace, schema: Schema, entry: Quarantined, fields: dict[str, object]) -> None:
    async with open_offline(options, schema) as client:
        await client.quarantine.bring_back(entry, fields)


def field_value(spec: StoreSpec[Any], text: str) -> tuple[str, object]:
    """Return a field and its value from ``NAME=VALUE``, where the value is written as in a CSV file."""
    name, equals, value = text.partition("=")
    if not equals or name not in spec.columns or name == "id":
        known = ", ".join([column for column in spec.columns if column != "id"])
        raise ConfigurationError(f"{text!r}: name a field and its value, as in price=12.50; {spec.name} has: {known}")
    return name, value_of(spec, name, from_text(spec.name, spec.fields[name], value or None))
