"""Import and export: the rows of a store out of a file and into one, a part at a time, through the store's own reads and writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast, get_args

import msgspec
import trio

from atoma.contracts.progress import Progress
from atoma.contracts.values import RowImage
from atoma.errors import AtomaError, ConfigurationError, ConflictError, QueryError, ValidationError
from atoma.query.builder import Rows
from atoma.runtime.table_files import (
    CsvWriter,
    FileFormat,
    JsonWriter,
    PlainRow,
    ReadRow,
    RowWriter,
    read_csv,
    read_json,
)
from atoma.schema.portable import plain_of, value_of
from atoma.schema.spec import StoreSpec

if TYPE_CHECKING:
    from atoma.runtime.reading import Reading
    from atoma.runtime.results import ManyResult, Page

T = TypeVar("T")
ImportConflict: TypeAlias = Literal["insert", "upsert"]
WriteMany: TypeAlias = "Callable[[Sequence[T], Sequence[Mapping[str, object]]], Awaitable[ManyResult[T]]]"
"""Writes rows, given whole and as the fields that a file has."""
PathLike: TypeAlias = "str | os.PathLike[str]"
AT_ONCE = 500
"""So many rows are read or written in one go, and are in memory."""
_ENDINGS: Mapping[str, FileFormat] = {
    ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "json", ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
SHOWN = 100
"""So many refused lines are in a report; a file of them has all."""


class RejectedLine(msgspec.Struct, frozen=True):
    """A line of a file that was not written.

    Attributes:
        line: Its number, from 1; of CSV the first line of the record, of JSON and Arrow that of the row.
        id: The row's id, as far as it could be read.
        code: Code of the error.
        message: What is wrong, and what to do.
    """

    line: int
    id: str
    code: str
    message: str


class ImportReport(msgspec.Struct, frozen=True):
    """The result of an import.

    Attributes:
        lines: Rows of the file that were looked at.
        written: Rows that were written.
        present: Rows that were there already, just like that.
        rejected: Lines that were not written.
        first: The first 100 of them.
    """

    lines: int
    written: int
    present: int
    rejected: int
    first: tuple[RejectedLine, ...]


# out


async def export_rows(
    reading: Reading,
    spec: StoreSpec[T],
    query: Rows[T],
    path: PathLike,
    format: FileFormat | None,
    progress: Progress | None,
) -> int:
    """See :meth:`atoma.runtime.store.Store.export`."""
    target = Path(path)
    found = _format_of(target, format)
    if query.parts.limit is not None or query.parts.offset or query.parts.include or query.cursor:
        raise QueryError(
            "export() writes every row of a query: it has no limit, offset or cursor, and includes nothing"
        )
    total, done = await reading.count(query, None), 0
    with _new_file(target) as stream:
        writer = await trio.to_thread.run_sync(_open_writer, stream, spec, found)
        page = await reading.query(query.limit(AT_ONCE), None)
        while page.items:
            await trio.to_thread.run_sync(writer.write, _plain_rows(spec, page))
            done += len(page.items)
            if progress is not None:
                progress(done, max(done, total))
            if len(page.items) < AT_ONCE:
                break
            page = await reading.query(query.limit(AT_ONCE).after(page.end), None)
        await trio.to_thread.run_sync(writer.close)
        await trio.to_thread.run_sync(_to_disk, stream)
    return done


def _plain_rows(spec: StoreSpec[T], page: Page[T]) -> list[PlainRow]:
    """The rows of a page; a value that an older rule let in is written like any other."""
    fields = spec.declared.items()
    return [
        {name: plain_of(field, field.literal(getattr(item, name))) for name, field in fields} for item in page.items
    ]


@contextmanager
def _new_file(target: Path) -> Generator[IO[bytes]]:
    """A file that is at ``target`` as a whole when the block ends, or not at all.

    Raises:
        ConfigurationError: Something is there already, or it cannot be written.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        if os.path.lexists(target):
            raise FileExistsError
        with unfinished.open("wb") as stream:
            yield stream
        os.link(unfinished, target)  # unlike a rename it replaces nothing
    except FileExistsError:
        raise ConfigurationError(f"{target} exists; name another file, or remove it") from None
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def _to_disk(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


# in


async def import_rows(
    spec: StoreSpec[T],
    write: WriteMany[T],
    path: PathLike,
    format: FileFormat | None,
    rejected: PathLike | None,
    progress: Progress | None,
) -> ImportReport:
    """See :meth:`atoma.runtime.store.Store.import_`."""
    source = Path(path)
    found = _format_of(source, format)
    lines = written = present = refused = 0
    first: list[RejectedLine] = []
    with _opened(source) as stream, _list_of(rejected) as listed:
        size = max(1, os.fstat(stream.fileno()).st_size)
        rows = await trio.to_thread.run_sync(_read_rows, stream, spec, found)
        while part := await trio.to_thread.run_sync(_take, rows):
            try:
                wrote, there, wrong = await _write(spec, write, part)
            except AtomaError as error:
                error.add_note(
                    f"{source}: the rows of {lines:,} lines were written before, and none of those behind; the same import "
                    "may be repeated, what is there alike is passed over"
                )
                raise
            lines, written, present, refused = lines + len(part), written + wrote, present + there, refused + len(wrong)
            first += wrong[: SHOWN - len(first)]
            if listed is not None and wrong:
                await trio.to_thread.run_sync(_note, listed, wrong)
            if progress is not None:
                progress(min(size, stream.tell()), size)
    return ImportReport(lines, written, present, refused, tuple(first))


def _take(rows: Iterator[ReadRow]) -> list[ReadRow]:
    return list(islice(rows, AT_ONCE))


def _note(stream: IO[bytes], wrong: Sequence[RejectedLine]) -> None:
    stream.write(b"".join(msgspec.json.encode(each) + b"\n" for each in wrong))


async def _write(
    spec: StoreSpec[T], write: WriteMany[T], part: Sequence[ReadRow]
) -> tuple[int, int, list[RejectedLine]]:
    """Write what can be written of ``part``: how many rows were, how many were there alike, and what was refused."""
    wrong: list[RejectedLine] = []
    lines: list[int] = []
    items: list[T] = []
    given: list[Mapping[str, object]] = []
    for line, row in part:
        try:
            if isinstance(row, ValidationError):
                raise row
            values = {name: value_of(spec, name, plain) for name, plain in row.items()}
            items.append(_item(spec, values))
        except ValidationError as error:
            id = "" if isinstance(row, ValidationError) else str(row.get("id") or "")
            wrong.append(RejectedLine(line, id, error.code, str(error)))
        else:
            lines.append(line)
            given.append({name: value for name, value in values.items() if name not in spec.sets.names})
    if not items:
        return 0, 0, wrong
    result = await write(items, given)
    present = 0
    if result.status != "confirmed":
        for line, item, outcome in zip(lines, items, result.items, strict=True):
            if _is_there(spec, item, outcome.error):
                present += 1
            elif outcome.error is not None:
                wrong.append(RejectedLine(line, outcome.id, outcome.error.code, str(outcome.error)))
    wrong.sort(key=lambda each: each.line)
    return len(part) - present - len(wrong), present, wrong


def _item(spec: StoreSpec[T], values: Mapping[str, object]) -> T:
    """The row that a line says; fields that it does not name have their defaults."""
    try:
        return cast("T", cast("Any", spec.model)(**values))
    except (TypeError, ValueError) as error:
        raise ValidationError(f"store {spec.name!r}: no {spec.model.__name__}: {error}", store=spec.name) from None


def _is_there(spec: StoreSpec[T], item: T, error: AtomaError | None) -> bool:
    """Whether a row was refused because it is there already, just like that."""
    if not isinstance(error, ConflictError) or error.current is None:
        return False
    id, image = spec.encode(item)
    current = {name: error.current.get(name) for name in image}
    return error.id == id and spec.is_same(image, cast("RowImage", current))


@contextmanager
def _opened(source: Path) -> Generator[IO[bytes]]:
    try:
        stream = source.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{source} cannot be read: {error.strerror or error}") from error
    with stream:
        yield stream


@contextmanager
def _list_of(rejected: PathLike | None) -> Generator[IO[bytes] | None]:
    """The file for what is refused; a list that stays empty is taken away.

    Raises:
        ConfigurationError: Something is there already, or it cannot be written.
    """
    if rejected is None:
        yield None
        return
    target = Path(rejected)
    try:
        with target.open("xb") as stream:
            yield stream
            empty = not stream.tell()
        if empty:
            target.unlink()
    except FileExistsError:
        raise ConfigurationError(f"{target} exists; name another file for what is refused") from None
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error.strerror or error}") from error


# formats


def _format_of(path: Path, given: FileFormat | None) -> FileFormat:
    """The format that is given, or that the name of the file ends in.

    Raises:
        ConfigurationError: Neither is known.
    """
    known = get_args(FileFormat)
    found = _ENDINGS.get(path.suffix.lower()) if given is None else given
    if found is None or found not in known:
        what = f"{path.name}: its name does not say what it is" if given is None else f"there is no format {given!r}"
        raise ConfigurationError(f"{what}: give format=, one of {', '.join(known)}")
    return found


def _open_writer(stream: IO[bytes], spec: StoreSpec[Any], format: FileFormat) -> RowWriter:
    """What writes rows of ``spec`` in this format.

    Raises:
        ConfigurationError: The format needs an extra that is not installed.
    """
    if format == "csv":
        return CsvWriter(stream, spec)
    if format in ("ndjson", "json"):
        return JsonWriter(stream, spec, lines=format == "ndjson")
    with _extra():
        from atoma.runtime.arrow_files import ArrowWriter

    return ArrowWriter(stream, spec, parquet=format == "parquet")


def _read_rows(stream: IO[bytes], spec: StoreSpec[Any], format: FileFormat) -> Iterator[ReadRow]:
    """The rows of a file.

    Raises:
        ValidationError: It is not in this format, or names fields that the store does not have.
        ConfigurationError: The format needs an extra that is not installed.
    """
    if format == "csv":
        return read_csv(stream, spec)
    if format in ("ndjson", "json"):
        return read_json(stream, spec, lines=format == "ndjson")
    with _extra():
        from atoma.runtime.arrow_files import read_arrow

    return read_arrow(stream, spec, parquet=format == "parquet")


@contextmanager
def _extra() -> Generator[None]:
    try:
        yield
    except ModuleNotFoundError as missing:
        raise ConfigurationError(f"Parquet and Arrow cannot be used: {missing.msg}") from None
