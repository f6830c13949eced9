"""Rows in files: CSV, JSON lines and JSON, read and written a part at a time; Arrow and Parquet are beside it.

A reader gives each row with the number of its line: what the file says of its fields, or why that cannot be read, which concerns
this row alone. What is wrong with the file as a whole is raised.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Literal, Protocol, TypeAlias

import msgspec

from atoma.errors import ValidationError
from atoma.schema.portable import Plain, from_json, from_text, to_json, to_text
from atoma.schema.spec import StoreSpec

FileFormat: TypeAlias = Literal["csv", "ndjson", "json", "parquet", "arrow"]
PlainRow: TypeAlias = Mapping[str, Plain]
ReadRow: TypeAlias = tuple[int, "PlainRow | ValidationError"]
"""A line's number, and its row, or why it has none."""
ROW_BYTES_MAX = 64 * 1024 * 1024
"""No row of a file is longer; a quote or a bracket that is never closed is seen by that."""
CHUNK = 1 << 16
_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|\r|$)')
_BETWEEN = re.compile(r"[\ufeff \t\r\n,]*")
_PLAIN_CELL = re.compile(r'[^",\r\n]+')


class RowWriter(Protocol):
    """A writer of rows to a file that is open."""

    def write(self, rows: Sequence[PlainRow]) -> None:
        """Add rows."""
        ...

    def close(self) -> None:
        """Write what ends the file."""
        ...


def check_columns(names: Sequence[str], spec: StoreSpec[Any]) -> None:
    """Refuse what is not the columns of a file of ``spec``.

    Raises:
        ValidationError: A name is unknown or there twice, or the id is missing.
    """
    unknown = next((name for name in names if name not in spec.declared), None)
    if unknown is not None:
        raise _wrong(spec, f"there is no field {unknown!r}; there are: {', '.join(spec.columns)}", unknown)
    if "id" not in names or len(set(names)) < len(names):
        raise _wrong(spec, "the id is needed, and each field once", "id")


def _wrong(spec: StoreSpec[Any], what: str, field: str = "") -> ValidationError:
    return ValidationError(f"store {spec.name!r}: {what}", store=spec.name, field=field)


# CSV: RFC 4180 with a header. A value that is missing is an empty cell, and an empty text is "" in quotes.


class CsvWriter:
    """A writer of rows as CSV, below the names of their fields.

    Args:
        stream: The file.
        spec: The store.
    """

    def __init__(self, stream: IO[bytes], spec: StoreSpec[Any]) -> None:
        self._stream, self._fields = stream, spec.declared
        stream.write(_csv_line(spec.columns))

    def write(self, rows: Sequence[PlainRow]) -> None:
        """Add rows."""
        for row in rows:
            self._stream.write(_csv_line([to_text(field, row[name]) for name, field in self._fields.items()]))

    def close(self) -> None:
        """Nothing ends the file."""


def _csv_line(cells: Iterable[str | None]) -> bytes:
    return (",".join(map(_csv_cell, cells)) + "\r\n").encode()


def _csv_cell(text: str | None) -> str:
    if text is None:
        return ""
    return text if _PLAIN_CELL.fullmatch(text) else '"' + text.replace('"', '""') + '"'


def read_csv(stream: IO[bytes], spec: StoreSpec[Any]) -> Iterator[ReadRow]:
    """The rows of CSV; the first line has the names of fields.

    Raises:
        ValidationError: It has not, or a quote is never closed.
    """
    records = _csv_records(stream, spec)
    nothing: tuple[int, list[str | None]] = (1, [])
    _, header = next(records, nothing)
    names = [name or "" for name in header]
    check_columns(names, spec)
    fields = [spec.declared[name] for name in names]
    for line, cells in records:
        if len(cells) != len(names):
            yield line, _wrong(spec, f"the header has {len(names)} cells, and the line {len(cells)}")
            continue
        try:
            found = [from_text(spec.name, field, cell) for field, cell in zip(fields, cells, strict=True)]
        except ValidationError as error:
            yield line, error
        else:
            yield line, dict(zip(names, found, strict=True))


def _csv_records(stream: IO[bytes], spec: StoreSpec[Any]) -> Iterator[tuple[int, list[str | None]]]:
    """Each record with the number of its first line; a cell without quotes and without text is None."""
    number = 0
    for raw in stream:
        number += 1
        first = number
        while raw.count(b'"') % 2:
            more = stream.readline()
            number += 1
            raw += more
            if not more or len(raw) > ROW_BYTES_MAX:
                raise _wrong(spec, f"a quote in line {first} is never closed")
        text = raw.decode("utf-8-sig" if first == 1 else "utf-8", errors="surrogateescape")
        if text.strip("\r\n"):
            yield first, _csv_cells(text)


def _csv_cells(text: str) -> list[str | None]:
    cells: list[str | None] = []
    at = 0
    while True:
        found = _CELL.match(text, at)
        if found is None:  # a quote within a cell that has none around it
            return []
        quoted, bare, end = found.groups()
        cells.append(quoted.replace('""', '"') if quoted is not None else bare or None)
        at = found.end()
        if end != ",":
            return cells if at == len(text) else []


# JSON: an object for each row, in lines or in one array


class JsonWriter:
    """A writer of rows as JSON objects.

    Args:
        stream: The file.
        spec: The store.
        lines: Whether there is one in each line; else they are in one array.
    """

    def __init__(self, stream: IO[bytes], spec: StoreSpec[Any], *, lines: bool) -> None:
        self._stream, self._fields, self._lines = stream, spec.declared, lines
        self._before = b"" if lines else b"[\n"

    def write(self, rows: Sequence[PlainRow]) -> None:
        """Add rows."""
        for row in rows:
            self._stream.write(self._before)
            self._stream.write(
                msgspec.json.encode({name: to_json(field, row[name]) for name, field in self._fields.items()})
            )
            self._before = b"\n" if self._lines else b",\n"

    def close(self) -> None:
        """Write the end of the array."""
        if self._lines:
            self._stream.write(b"\n" if self._before else b"")
        else:
            self._stream.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(ROW_BYTES_MAX):
        yield line


def _array(stream: IO[bytes]) -> Iterator[bytes]:
    """The text of each object of the one array in ``stream``.

    Raises:
        ValidationError: It holds something else.
    """
    scan = json.JSONDecoder().raw_decode
    decode = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape").decode
    buffer, at, ended, begun = "", 0, False, False
    while True:
        at = _BETWEEN.match(buffer, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        found = buffer[at : at + 1]
        if found and not begun:
            if found != "[":
                raise ValidationError("the file is not one JSON array of objects; with a row in each line it is ndjson")
            at, begun = at + 1, True
        elif found == "]":
            return
        else:
            try:
                _, end = scan(buffer, at)
            except (ValueError, RecursionError):
                if ended or len(buffer) - at > ROW_BYTES_MAX:
                    raise ValidationError("the file ends within its JSON array, or is no JSON") from None
                # twice as much each time: a long row is not scanned over and over
                read = stream.read(max(CHUNK, len(buffer) - at))
                buffer, at, ended = buffer[at:] + decode(read, not read), 0, not read
            else:
                yield buffer[at:end].encode(errors="surrogateescape")
                at = end


def read_json(stream: IO[bytes], spec: StoreSpec[Any], *, lines: bool) -> Iterator[ReadRow]:
    """The rows of JSON, an object for each; they are counted from 1.

    Args:
        stream: The file.
        spec: The store.
        lines: Whether there is one in each line; else they are in one array.

    Raises:
        ValidationError: It is no such array.
    """
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    for line, text in enumerate(_lines(stream) if lines else _array(stream), 1):
        if not text.strip():
            continue
        try:
            found = decoder.decode(text)
            check_columns(list(found), spec)
            yield line, {name: from_json(spec.name, spec.declared[name], bytes(raw)) for name, raw in found.items()}
        except msgspec.MsgspecError as error:
            yield line, _wrong(spec, f"this is no JSON object: {error}")
        except (UnicodeError, ValidationError) as error:
            yield line, error if isinstance(error, ValidationError) else _wrong(spec, "this is no Unicode text")
