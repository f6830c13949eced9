"""``atoma hub init``: makes what ``atoma hub serve`` needs, over nothing that is there."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import trio

from atoma.cli import schemas
from atoma.cli.reports import Report, answers, said
from atoma.cli.serving import LISTEN, POSTGRESQL, held_version, load_served, store_at
from atoma.cli.tokens import draw
from atoma.cli.words import count
from atoma.errors import ConfigurationError
from atoma.hub.hub import open_for_upkeep
from atoma.ports.hub import HubStore
from atoma.schema import Schema
from atoma_stores.sqlite.connections import OWNER_ONLY
from atoma_transports.serving.addresses import parse_address

_TOKENS = """\
# Who gets in. A table for each subject, which is what the hub knows its user by:
#
#     [ada]
#     token = "sha256:…"                          # atoma hub tokens add FILE ada
#     scopes = {{ red = "write", blue = "read" }}   # write, read or none; without scopes: every one may be written
#
# A token may stand here itself in place of its digest. SIGHUP has a hub that runs read the file anew.

{table}"""
_UNIT = """\
# For systemd: copy to /etc/systemd/system, then: systemctl enable --now atoma-hub
[Unit]
Description=Atoma hub
After=network-online.target
Wants=network-online.target

[Service]
# The user whose files these are: User=…
# Devices on other machines need TLS: --certificate and --key, or a proxy in front.
WorkingDirectory={folder}
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def add_command(command: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    command.description = (
        "Make what a hub needs: its database for your schema, a TOML file that says who gets in, with one token, and a unit for "
        "systemd. Nothing that is there is written over."
    )
    command.add_argument("folder", metavar="FOLDER", type=Path, help="where; it is made if need be")
    schemas.add_option(command)
    command.add_argument(
        "--database", default="", metavar="URL", help="postgresql://user@host/database in place of the file hub.db"
    )
    command.add_argument("--subject", default="admin", help="who gets the first token (default %(default)s)")
    command.add_argument(
        "--listen", default=LISTEN, metavar="HOST:PORT", help="where it will listen (default %(default)s)"
    )
    answers(command, _init)


def _init(options: argparse.Namespace) -> Report:
    folder: Path = options.folder.absolute()
    if options.database and not options.database.startswith(POSTGRESQL):
        raise ConfigurationError(f"--database begins with {POSTGRESQL[0]}, not {options.database!r}")
    parse_address(options.listen)
    schema = load_served(options.schema)
    where = options.database or str(folder / "hub.db")
    store = store_at(where)
    tokens, unit = folder / "tokens.toml", folder / "atoma-hub.service"
    serve = [
        "hub", "serve", where, "--schema", options.schema, "--tokens", str(tokens), "--listen", options.listen,
    ]  # fmt: skip
    token, table = draw(options.subject, {})
    command = " ".join(map(_of_systemd, [sys.executable, "-m", "atoma", *serve]))
    made = {
        tokens: _TOKENS.format(table=table),
        unit: _UNIT.format(folder=_of_systemd(str(Path.cwd())), command=command),
    }
    _make(folder, made, where, schema, store)
    data = {
        "where": where, "tokens": str(tokens), "unit": str(unit), "subject": options.subject, "token": token, "serve": ["atoma", *serve],
    }  # fmt: skip
    return said(
        data,
        f"{where}: a hub for {count(len(schema.stores), 'store')}",
        f"{tokens}: {options.subject} gets in with this token, which is shown only now:",
        token,
        f"{unit}: for systemd; or start it yourself:",
        f"atoma {shlex.join(serve)}",
    )


def _make(folder: Path, made: dict[Path, str], where: str, schema: Schema, store: HubStore) -> None:
    """Make the files and the database; what was made is removed where the rest cannot be.

    Raises:
        ConfigurationError: Something is there already, or cannot be written.
    """
    taken = [path for path in (*made, Path(where)) if path.exists() or path.is_symlink()]
    if taken:
        raise ConfigurationError(f"{taken[0]} exists; nothing was made, name another folder")
    if where.startswith(POSTGRESQL) and trio.run(held_version, where):
        raise ConfigurationError(
            f"{where} holds a hub; nothing was made: `atoma hub serve` runs it, `atoma hub tokens add` says who gets in, and "
            "`atoma migrate` brings it to another schema"
        )
    done: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in made.items():
            path.touch(OWNER_ONLY, exist_ok=False)
            done.append(path)
            path.write_text(text, encoding="utf-8")
        trio.run(_open, schema, store)
    except BaseException as error:
        for path in done:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigurationError(f"{error.filename or folder}: {error.strerror or error}") from None
        raise


async def _open(schema: Schema, store: HubStore) -> None:
    """Open the database once, which makes it and finds what is wrong with the schema."""
    async with open_for_upkeep(schema, store):
        pass


def _of_systemd(word: str) -> str:
    """``word`` as a unit has it."""
    safe = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{safe}"' if safe != word or not word or any(letter.isspace() for letter in word) else word
