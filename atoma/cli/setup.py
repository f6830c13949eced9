"""``atoma hub init``: creates what ``atoma hub serve`` needs and overwrites nothing."""

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
# Who is admitted: a table for each subject, the name by which the hub knows a user:
#
#     [ada]
#     token = "sha256:…"                          # atoma hub tokens add FILE ada
#     scopes = {{ red = "write", blue = "read" }}   # write, read or none; without scopes: write in every scope
#
# A token may stand here itself in place of its digest. On SIGHUP a running hub reads the file again.

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
    """Add the description and the arguments of the command."""
    command.description = (
        "Create what a hub needs: its database for your schema, a TOML file that says who is admitted, with one token, and a unit for "
        "systemd. Existing files are never overwritten."
    )
    command.add_argument("folder", metavar="FOLDER", type=Path, help="the folder; it is created if necessary")
    schemas.add_option(command)
    command.add_argument(
        "--database", default="", metavar="URL", help="postgresql://user@host/database instead of the file hub.db"
    )
    command.add_argument("--subject", default="admin", help="who receives the first token (default %(default)s)")
    command.add_argument(
        "--listen", default=LISTEN, metavar="HOST:PORT", help="where the hub will listen (default %(default)s)"
    )
    answers(command, _init)


def _init(options: argparse.Namespace) -> Report:
    folder: Path = options.folder.absolute()
    if options.database and not options.database.startswith(POSTGRESQL):
        raise ConfigurationError(f"--database must begin with {POSTGRESQL[0]}, not {options.database!r}")
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
        f"{tokens}: {options.subject} is admitted with this token, which is shown only now:",
        token,
        f"{unit}: the unit for systemd; or start the hub yourself:",
        f"atoma {shlex.join(serve)}",
    )


def _make(folder: Path, made: dict[Path, str], where: str, schema: Schema, store: HubStore) -> None:
    """Create the files and the database; if one of them cannot be created, the others are removed.

    Raises:
        ConfigurationError: One of them exists already or cannot be written.
    """
    taken = [path for path in (*made, Path(where)) if path.exists() or path.is_symlink()]
    if taken:
        raise ConfigurationError(f"{taken[0]} exists already; nothing was created. Name another folder")
    if where.startswith(POSTGRESQL) and trio.run(held_version, where):
        raise ConfigurationError(
            f"{where} already holds a hub; nothing was created: `atoma hub serve` runs it, `atoma hub tokens add` admits users, and "
            "`atoma migrate` migrates it to another schema"
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
    """Open the database once, which creates it and finds faults of the schema."""
    async with open_for_upkeep(schema, store):
        pass


def _of_systemd(word: str) -> str:
    """Return ``word`` as it is written in a unit of systemd."""
    safe = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{safe}"' if safe != word or not word or any(letter.isspace() for letter in word) else word
