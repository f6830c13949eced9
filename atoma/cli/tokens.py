"""The file that says who is admitted, in TOML; a hub reads it again on SIGHUP, and ``atoma hub tokens …`` changes it.

Comments and order stay as they are: a table is appended or removed, and the result is
checked before it replaces the file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from atoma.cli.reports import Report, answers, commands_of, said
from atoma.cli.words import count
from atoma.errors import ConfigurationError, StoreError
from atoma.hub import StaticTokenVerifier, token_digest
from atoma.hub.auth import is_digest
from atoma.hub.rules import Access
from atoma.ports.service import Peer, Principal
from atoma_stores.sqlite.copies import whole_file

_EXAMPLE = '[ada]\ntoken = "a long secret"  # or its digest: atoma hub tokens add\nscopes = { red = "write", blue = "read" }  # without: every scope'


class TokenFile:
    """A verifier and rules from a file, which has a table for each subject: ``token`` and, unless every scope is allowed, ``scopes``.

    Args:
        path: The file.

    Raises:
        ConfigurationError: The file cannot be read, or has another form.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.read()

    def read(self) -> None:
        """Read the file again; if it cannot be used, what was read before stays in force.

        Raises:
            ConfigurationError: The file cannot be used.
        """
        tokens: dict[str, str] = {}
        scopes: dict[str, Mapping[str, Access]] = {}
        for subject, table in self._tables().items():
            token, known = table.get("token"), table.keys() <= {"token", "scopes"}
            if not known or not isinstance(token, str) or not token:
                raise self._wrong(f"[{subject}] must have a token, may have scopes, and nothing else")
            if token in tokens:
                raise self._wrong(f"[{subject}] has the same token as [{tokens[token]}]")
            tokens[token] = subject
            if "scopes" in table:
                scopes[subject] = self._scopes_of(subject, table["scopes"])
        if not tokens:
            raise self._wrong("it admits nobody")
        self._verifier, self._scopes = StaticTokenVerifier(tokens), scopes

    @property
    def guessable(self) -> Sequence[str]:
        """The subjects whose tokens are so short that they can be guessed."""
        return self._verifier.guessable

    @property
    def subjects(self) -> Mapping[str, Mapping[str, object]]:
        """The file's entry for each subject, as of now."""
        return self._tables()

    async def verify(self, token: str, peer: Peer) -> Principal:
        """Return the principal of the token.

        Raises:
            AuthenticationError: There is no such token.
        """
        return await self._verifier.verify(token, peer)

    def scope_access(self, principal: Principal, scope: str) -> Access:
        """Return what the file says about the scope; ``write`` for a subject without ``scopes``."""
        found = self._scopes.get(principal.subject)
        return "write" if found is None else found.get(scope, "none")

    def _tables(self) -> Mapping[str, Mapping[str, object]]:
        try:
            found = tomllib.loads(self._path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise self._wrong(str(error)) from None
        if not all(isinstance(table, dict) for table in found.values()):
            raise self._wrong("it must have a table for each subject, and nothing else")
        return cast("Mapping[str, Mapping[str, object]]", found)

    def _scopes_of(self, subject: str, scopes: object) -> Mapping[str, Access]:
        words = get_args(Access)
        if not isinstance(scopes, dict) or not all(
            word in words for word in cast("dict[str, object]", scopes).values()
        ):
            raise self._wrong(f"[{subject}] scopes must be a table of scopes, each {', '.join(words)}")
        return cast("Mapping[str, Access]", scopes)

    def _wrong(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}: {what}; for example\n{_EXAMPLE}")


# atoma hub tokens

TOKEN_BYTES = 32
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_RELOAD = "A running hub reads the file again on SIGHUP: systemctl reload atoma-hub"


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of ``atoma hub tokens``."""
    commands = commands_of(parser)
    add = commands.add_parser(
        "add",
        help="draw a token for a user",
        description="Draw a token for a user, print it once, and write its digest to the file, which is created if necessary.",
    )
    _add_file(add)
    add.add_argument("subject", metavar="SUBJECT", help="the name by which the hub knows the user")
    add.add_argument(
        "--scope",
        action="append",
        default=[],
        metavar="NAME=ACCESS",
        help=f"ACCESS is {', '.join(get_args(Access))}; may be repeated; without it, every scope may be written",
    )
    answers(add, _add)
    listed = commands.add_parser("list", help="list who is admitted, and to which scopes; no token is shown")
    _add_file(listed)
    answers(listed, _list)
    revoke = commands.add_parser("revoke", help="revoke the token of a user")
    _add_file(revoke)
    revoke.add_argument("subject", metavar="SUBJECT", help="the name by which the hub knows the user")
    answers(revoke, _revoke)


def _add_file(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", type=Path, help="the TOML file that `atoma hub serve --tokens` takes")


def _add(options: argparse.Namespace) -> Report:
    path: Path = options.file
    known: Mapping[str, object] = TokenFile(path).subjects if path.exists() else {}
    if options.subject in known:
        raise ConfigurationError(f"{path}: {options.subject} already has a token; revoke it first")
    token, table = draw(options.subject, dict(map(_scope, options.scope)))
    before = path.read_text(encoding="utf-8") if known else ""
    _replace(path, f"{before.rstrip()}\n\n{table}".lstrip(), {**known, **_read(path, table)})
    data = {"file": str(path), "subject": options.subject, "token": token}
    return said(
        data, f"{path}: {options.subject} is admitted with this token, which is shown only now:", token, _RELOAD
    )


def draw(subject: str, scopes: Mapping[str, str]) -> tuple[str, str]:
    """Return a new token, and the table of the file that admits it.

    Raises:
        ConfigurationError: No hub would admit a subject of that name.
    """
    Principal(subject)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    lines = [f"[{_key(subject)}]", f'token = "{token_digest(token)}"']
    if scopes:
        lines.append(
            f"scopes = {{ {', '.join(f'{_key(name)} = {json.dumps(word)}' for name, word in scopes.items())} }}"
        )
    return token, "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _scope(text: str) -> tuple[str, str]:
    name, equals, word = text.rpartition("=")
    if not equals or not name or word not in get_args(Access):
        raise ConfigurationError(
            f"--scope takes a scope and {' or '.join(get_args(Access))}, as in red=write, not {text!r}"
        )
    return name, word


def _list(options: argparse.Namespace) -> Report:
    path: Path = options.file
    found = [
        {
            "subject": subject,
            "scopes": table.get("scopes"),
            "digest": is_digest(str(table["token"])),
        }
        for subject, table in TokenFile(path).subjects.items()
    ]

    def show() -> None:
        print(f"{path}: {count(len(found), 'subject')}")
        for each in found:
            scopes = cast("Mapping[str, str] | None", each["scopes"])
            where = "every scope" if scopes is None else ", ".join(f"{name} {word}" for name, word in scopes.items())
            print(
                f"  {each['subject']}  {where or 'no scope'}{'' if each['digest'] else '  (the token itself is in the file)'}"
            )

    return Report(found, show)


def _revoke(options: argparse.Namespace) -> Report:
    path: Path = options.file
    kept = dict(TokenFile(path).subjects)
    if kept.pop(options.subject, None) is None:
        raise ConfigurationError(f"{path}: there is no {options.subject}; see `atoma hub tokens list`")
    if not kept:
        raise ConfigurationError(
            f"{path}: {options.subject} is the last subject, and a hub must admit somebody; add another one first"
        )
    _replace(path, _without(path.read_text(encoding="utf-8"), options.subject), kept)
    data = {"file": str(path), "subject": options.subject, "left": len(kept)}
    return said(data, f"{path}: {options.subject} is no longer admitted, {count(len(kept), 'subject')} left", _RELOAD)


def _without(text: str, subject: str) -> str:
    """Return ``text`` without the table of ``subject`` and the tables below it."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            inside = subject in _header(line)
        if not inside:
            kept.append(line)
    return "".join(kept)


def _header(line: str) -> Mapping[str, object]:
    try:
        return tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return {}  # part of something else


def _replace(path: Path, text: str, meant: Mapping[str, object]) -> None:
    """Replace the file with ``text``, which must say what is ``meant``, as a whole or not at all.

    Raises:
        ConfigurationError: The text says something else, or cannot be written.
    """
    if _read(path, text) != meant:
        raise ConfigurationError(f"{path}: this command cannot edit a file written in that way; edit it yourself")
    try:
        with whole_file(str(path), "it cannot be written") as unfinished:
            Path(unfinished).write_text(text, encoding="utf-8")
            if path.exists():  # whoever could read it still can: the hub may run as another user
                was = path.stat()
                with contextlib.suppress(PermissionError):
                    os.chown(unfinished, was.st_uid, was.st_gid)
                os.chmod(unfinished, was.st_mode & 0o777)
    except StoreError as error:
        raise ConfigurationError(str(error)) from None


def _read(path: Path, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}; edit it yourself") from None
