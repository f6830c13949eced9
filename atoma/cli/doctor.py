"""``atoma doctor``: one page about a file and its environment: what is wrong, and what to do."""

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
from atoma_stores.sqlite.encryption import FileKey
from atoma_stores.sqlite.files import FileSurvey, sqlite_version, survey_file, table_definitions

WAL_MAX = 64 * 1024 * 1024
"""Size in bytes above which a write-ahead log that is also larger than the file counts as no longer checkpointed."""
AHEAD_MS = 60_000
"""Milliseconds by which a write may lie in the future before another clock must have dated it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that was found.

    Attributes:
        what: The problem.
        helps: What to do about it.
    """

    what: str
    helps: str


@dataclass(frozen=True, slots=True)
class FileDiagnosis:
    """A diagnosis of a file and of its environment.

    Attributes:
        versions: Of Atoma, Python, SQLite, and the libraries that are installed.
        file: What the file is; None when none was named.
        scopes: The progress of each scope, in words.
        waiting: How many entries wait, by kind.
        findings: The problems that were found.
    """

    versions: Mapping[str, str]
    file: FileSurvey | None
    scopes: Mapping[str, str]
    waiting: Mapping[str, int]
    findings: Sequence[Finding]


def add_command(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    command.description = (
        "Say what is wrong with a file and what to do: versions, log, scopes, waiting writes, clocks. Without a file, say only what "
        f"is installed. The exit code is {Exit.FOUND.value} if something is wrong. `atoma check` reads the whole file."
    )
    command.add_argument("file", metavar="FILE", nargs="?", help="a device's or a hub's file; it may be open elsewhere")
    keys.add_option(command)
    command.add_argument(
        "--bundle",
        type=Path,
        metavar="ZIP",
        help="write a report for others: the findings and the table definitions, without values, ids, or names of users or scopes",
    )
    command.add_argument("--tokens", type=Path, metavar="FILE", help="check this tokens file of a hub, too")
    answers(command, _doctor)


def _doctor(options: argparse.Namespace) -> Report:
    path: str | None = options.file
    if path is None and options.bundle is not None:
        raise ConfigurationError("--bundle needs a file: name it")
    key = keys.key_of(options)
    found = _diagnose(path, key)
    if options.tokens is not None and (short := TokenFile(options.tokens).guessable):
        finding = Finding(short_tokens(short), f"give them new tokens in {options.tokens} and send SIGHUP to the hub")
        found = replace(found, findings=[*found.findings, finding])
    if path is not None and options.bundle is not None:
        _write_bundle(options.bundle, found, path, key)
    return Report(found, lambda: _print(found, options.bundle), Exit.FOUND if found.findings else Exit.DONE)


def _diagnose(path: str | None, key: FileKey | None) -> FileDiagnosis:
    if path is None:
        return FileDiagnosis(_versions(), None, {}, {}, ())
    environment = Environment()
    file = survey_file(path, key)
    findings = list(_about_file(file, environment.wall_ms()))
    if file.layout == "hub":
        heads = {scope: f"at {head:,}" for scope, head in file.heads.items()}
        return FileDiagnosis(_versions(), file, heads, {}, findings)
    _, status = read_status(path, key)
    findings += _about_sync(path, status)
    findings += _about_outbox(path, inspect_file(path, waiting_writes, environment, key), environment.wall_ms())
    scopes = {
        each.scope: f"{each.state} at {each.cursor.seq:,}"
        + (f" of {each.head:,}" if each.head > each.cursor.seq else "")
        for each in status.scopes
    }
    return FileDiagnosis(_versions(), file, scopes, status.waiting, findings)


def _versions() -> dict[str, str]:
    return {**installed(), "sqlite": sqlite_version()}


def _about_file(file: FileSurvey, now_ms: int) -> Iterator[Finding]:
    mode = Path(file.path).stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH) and platform.system() != "Windows":
        yield Finding("other users of this machine can access the file", f"chmod 600 {file.path}")
    if file.wal_bytes > max(WAL_MAX, file.bytes):
        yield Finding(
            f"its write-ahead log has {size(file.wal_bytes)}, more than the file: it is not being checkpointed",
            "a program keeps a read transaction open; find and restart it",
        )
    if file.latest and file.latest[0].at_ms > now_ms + AHEAD_MS:
        yield _clock(file.latest[0].at_ms)


def _about_sync(path: str, status: FileStatus) -> Iterator[Finding]:
    if status.inbox:
        yield Finding(
            f"{count(len(status.inbox), 'open entry', 'open entries')} in the inbox: the hub refused or dropped these changes",
            f"atoma inbox list {path}",
        )
    if status.lost:
        yield Finding(
            f"{count(len(status.lost), 'row')} lost by the hub, waiting for a decision", f"atoma sync status {path}"
        )
    if status.identity.renew:
        yield Finding("it takes a new identity at its next contact with the hub", "let its program sync once")
    for scope in status.scopes:
        if scope.state in ("snapshot", "tail"):
            yield Finding(f"scope {scope.scope!r} is not completely fetched yet", "let its program sync")


def _about_outbox(path: str, waiting: Sequence[WaitingWrite], now_ms: int) -> Iterator[Finding]:
    held = [each for each in waiting if each.state == "held"]
    if held:
        yield Finding(f"{count(len(held), 'write')} held until somebody releases them", f"atoma outbox list {path}")
    failed = next((each for each in waiting if each.attempts and each.why), None)
    if failed is not None:
        tried = count(failed.attempts, "time")
        yield Finding(
            f"the oldest waiting write was sent {tried} without success: {failed.why}", f"atoma outbox list {path}"
        )
    newest = max((each.written_ms for each in waiting), default=0)
    if newest > now_ms + AHEAD_MS:
        yield _clock(newest)


def _clock(at_ms: int) -> Finding:
    return Finding(
        f"a write in it is dated {moment(at_ms)}, which lies in the future by this machine's clock",
        "synchronise the clocks of your machines with a time server",
    )


def _print(found: FileDiagnosis, bundle: Path | None) -> None:
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
        print("Nothing is wrong. `atoma check` reads the whole file.")
    for finding in found.findings:
        print(f"! {finding.what}\n  → {finding.helps}")
    if bundle is not None:
        print(f"{bundle}: written; review it before you send it")


# the bundle


def _write_bundle(bundle: Path, found: FileDiagnosis, path: str, key: FileKey | None) -> None:
    """Write the findings to a new zip file, as a whole or not at all.

    Raises:
        ConfigurationError: It is there already, or cannot be written.
    """
    try:
        with bundle.open("xb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("doctor.json", msgspec.json.format(msgspec.json.encode(as_json(_redacted(found)))))
            archive.writestr("tables.sql", ";\n".join(table_definitions(path, key)) + ";\n")
    except OSError as error:
        raise ConfigurationError(f"{bundle}: the bundle cannot be written: {error.strerror or error}") from None


def _redacted(found: FileDiagnosis) -> dict[str, object]:
    """The findings without anything that somebody typed: no scope, no path, no message that may quote a value."""
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
