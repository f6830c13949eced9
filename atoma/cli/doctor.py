"""``atoma doctor``: one page about a file and what it runs on: what is wrong, and what helps."""

from __future__ import annotations

import argparse
import platform
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from atoma.cli import keys
from atoma.cli.files import WHOSE
from atoma.cli.reports import Exit, Report, answers
from atoma.cli.sync import FileStatus, read_status
from atoma.cli.tokens import TokenFile
from atoma.cli.words import as_json, count, moment, pairs, size
from atoma.contracts.outbox import WaitingWrite
from atoma.errors import ConfigurationError
from atoma.hub.auth import short_tokens
from atoma.ports import Environment
from atoma.sync.waiting import waiting_writes
from atoma.telemetry.support import installed
from atoma_stores.sqlite.device_files import inspect_file
from atoma_stores.sqlite.encryption import Key
from atoma_stores.sqlite.files import Survey, sqlite_version, survey_file, table_definitions

WAL_MAX = 64 * 1024 * 1024
"""A log that is longer than this, and than the file, is not checkpointed any more."""
AHEAD_MS = 60_000
"""What was written so far in the future was written by another clock."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        what: What it is.
        helps: What to do about it.
    """

    what: str
    helps: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings about a file and what it runs on.

    Attributes:
        versions: Of Atoma, Python, SQLite, and the libraries that are installed.
        file: What the file is; None when none was named.
        scopes: How far each scope is, in words.
        waiting: How much waits, by what it is.
        findings: What is not as it should be.
    """

    versions: Mapping[str, str]
    file: Survey | None
    scopes: Mapping[str, str]
    waiting: Mapping[str, int]
    findings: Sequence[Finding]


def add_command(command: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    command.description = (
        "Say what is wrong with a file, and what helps: versions, log, scopes, writes that wait, clocks. Without a file only what "
        f"is installed. Ends with {Exit.FOUND.value} when something is wrong. `atoma check` reads the file through."
    )
    command.add_argument("file", metavar="FILE", nargs="?", help="a device's or a hub's file; it may be open elsewhere")
    keys.add_option(command)
    command.add_argument(
        "--bundle",
        type=Path,
        metavar="ZIP",
        help="write what was found, without a value, an id, a name of a user or a scope, and the definitions of the tables",
    )
    command.add_argument("--tokens", type=Path, metavar="FILE", help="look at the tokens of a hub, too")
    answers(command, _doctor)


def _doctor(options: argparse.Namespace) -> Report:
    path: str | None = options.file
    if path is None and options.bundle is not None:
        raise ConfigurationError("--bundle is about a file: name it")
    key = keys.key_of(options)
    found = _diagnose(path, key)
    if options.tokens is not None and (short := TokenFile(options.tokens).guessable):
        finding = Finding(short_tokens(short), f"give them others in {options.tokens}, and send the hub SIGHUP")
        found = replace(found, findings=[*found.findings, finding])
    if path is not None and options.bundle is not None:
        _write_bundle(options.bundle, found, path, key)
    return Report(found, lambda: _print(found, options.bundle), Exit.FOUND if found.findings else Exit.DONE)


def _diagnose(path: str | None, key: Key | None) -> Diagnosis:
    if path is None:
        return Diagnosis(_versions(), None, {}, {}, ())
    environment = Environment()
    file = survey_file(path, key)
    findings = list(_about_file(file, environment.wall_ms()))
    if file.layout == "hub":
        heads = {scope: f"at {head:,}" for scope, head in file.heads.items()}
        return Diagnosis(_versions(), file, heads, {}, findings)
    _, status = read_status(path, key)
    findings += _about_sync(path, status)
    findings += _about_outbox(path, inspect_file(path, waiting_writes, environment, key), environment.wall_ms())
    scopes = {
        each.scope: f"{each.state} at {each.cursor.seq:,}"
        + (f" of {each.head:,}" if each.head > each.cursor.seq else "")
        for each in status.scopes
    }
    return Diagnosis(_versions(), file, scopes, status.waiting, findings)


def _versions() -> dict[str, str]:
    return {**installed(), "sqlite": sqlite_version()}


def _about_file(file: Survey, now_ms: int) -> Iterator[Finding]:
    mode = Path(file.path).stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH) and platform.system() != "Windows":
        yield Finding("other users of this machine can read the file", f"chmod 600 {file.path}")
    if file.wal_bytes > max(WAL_MAX, file.bytes):
        yield Finding(
            f"its log has {size(file.wal_bytes)}, more than the file: nothing moves it into the file",
            "some program holds a read transaction open; find and restart it",
        )
    if file.latest and file.latest[0].at_ms > now_ms + AHEAD_MS:
        yield _clock(file.latest[0].at_ms)


def _about_sync(path: str, status: FileStatus) -> Iterator[Finding]:
    if status.inbox:
        yield Finding(
            f"{count(len(status.inbox), 'open entry', 'open entries')} in the inbox: the hub refused or cut what was written",
            f"atoma inbox list {path}",
        )
    if status.lost:
        yield Finding(
            f"{count(len(status.lost), 'row')} that the hub has lost, to be decided about", f"atoma sync status {path}"
        )
    if status.identity.renew:
        yield Finding("it takes a new identity at its next contact with the hub", "let its program sync once")
    for scope in status.scopes:
        if scope.state in ("snapshot", "tail"):
            yield Finding(f"scope {scope.scope!r} is not fetched to its end yet", "let its program sync")


def _about_outbox(path: str, waiting: Sequence[WaitingWrite], now_ms: int) -> Iterator[Finding]:
    held = [each for each in waiting if each.state == "held"]
    if held:
        yield Finding(f"{count(len(held), 'write')} held until somebody releases them", f"atoma outbox list {path}")
    failed = next((each for each in waiting if each.attempts and each.why), None)
    if failed is not None:
        tried = count(failed.attempts, "time")
        yield Finding(
            f"the oldest write that waits was sent {tried} in vain: {failed.why}", f"atoma outbox list {path}"
        )
    newest = max((each.written_ms for each in waiting), default=0)
    if newest > now_ms + AHEAD_MS:
        yield _clock(newest)


def _clock(at_ms: int) -> Finding:
    return Finding(
        f"a write in it is of {moment(at_ms)}, which is yet to come by this machine's clock",
        "set the clocks of your machines by a time server",
    )


def _print(found: Diagnosis, bundle: Path | None) -> None:
    file = found.file
    if file is not None:
        print(f"{file.path}: {WHOSE[file.layout]}")
        rows = ", ".join(f"{name} {rows:,}" for name, rows in file.rows.items())
        pairs(
            [
                ("size", f"{size(file.bytes)}, log {size(file.wal_bytes)}"),
                ("version", f"schema {file.version}, format {file.format}"),
                ("rows", rows),
                ("replicates", (", ".join(file.synced) or "nothing") if file.layout == "client" else None),
                ("open in", f"{count(file.programs, 'program')} at most" if file.programs else None),
                ("devices", count(file.clients, "file") if file.layout == "hub" else None),
                *((f"scope {scope}", told) for scope, told in found.scopes.items()),
                ("waiting", ", ".join(f"{number} {name}" for name, number in found.waiting.items()) or None),
            ],
            indent=2,
        )
        print()
    print("installed")
    pairs(found.versions.items(), indent=2)
    print()
    if file is not None and not found.findings:
        print("Nothing is wrong. `atoma check` reads the file through.")
    for finding in found.findings:
        print(f"! {finding.what}\n  → {finding.helps}")
    if bundle is not None:
        print(f"{bundle}: written; look into it before you send it")


# the bundle


def _write_bundle(bundle: Path, found: Diagnosis, path: str, key: Key | None) -> None:
    """Write a zip file of what was found, whole or not at all, and over nothing.

    Raises:
        ConfigurationError: It is there already, or cannot be written.
    """
    try:
        with bundle.open("xb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("doctor.json", msgspec.json.format(msgspec.json.encode(as_json(_redacted(found)))))
            archive.writestr("tables.sql", ";\n".join(table_definitions(path, key)) + ";\n")
    except OSError as error:
        raise ConfigurationError(f"{bundle}: the bundle cannot be written: {error.strerror or error}") from None


def _redacted(found: Diagnosis) -> dict[str, object]:
    """What was found without anything that somebody typed: no scope, no path, no message that may quote a value."""
    file = found.file
    assert file is not None
    return {
        "versions": found.versions,
        "file": {
            "layout": file.layout,
            "format": file.format,
            "version": file.version,
            "bytes": file.bytes,
            "wal_bytes": file.wal_bytes,
            "commit": file.commit,
            "programs": file.programs,
            "rows": file.rows,
            "synced": file.synced,
            "clients": file.clients,
        },
        "scopes": list(found.scopes.values()),
        "waiting": found.waiting,
        "findings": len(found.findings),
    }
