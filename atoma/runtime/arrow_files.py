"""Rows in files of Arrow and Parquet."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from atoma.contracts.extras import needs_extra
from atoma.errors import ValidationError
from atoma.runtime.table_files import PlainRow, ReadRow, check_columns
from atoma.schema.fields import Field
from atoma.schema.portable import Plain
from atoma.schema.spec import StoreSpec

with needs_extra("parquet"):
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

ROWS_AT_ONCE = 10_000
_BY_COLUMN: Mapping[str, Any] = {"TEXT": pa.string(), "INTEGER": pa.int64(), "REAL": pa.float64(), "BLOB": pa.binary()}


class ArrowWriter:
    """A writer of rows as batches of a Parquet file, or of a file of Arrow's IPC format.

    Args:
        stream: The file.
        spec: The store.
        parquet: Which of the two.
    """

    def __init__(self, stream: IO[bytes], spec: StoreSpec[Any], *, parquet: bool) -> None:
        self._schema = pa.schema(
            [pa.field(field.name, _type_of(field), field.nullable) for field in spec.declared.values()]
        )
        self._writer: Any = pq.ParquetWriter(stream, self._schema) if parquet else pa.ipc.new_file(stream, self._schema)

    def write(self, rows: Sequence[PlainRow]) -> None:
        """Add a batch."""
        columns = [pa.array([row[field.name] for row in rows], field.type) for field in self._schema]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()


def _type_of(field: Field) -> Any:
    """The type of a column: of decimals with a scale and of what columns keep as text it is text, which is exact everywhere."""
    if field.boolean:
        return pa.bool_()
    return pa.string() if field.places is not None else _BY_COLUMN[field.sql_type]


def read_arrow(stream: IO[bytes], spec: StoreSpec[Any], *, parquet: bool) -> Iterator[ReadRow]:
    """The rows of a Parquet file, or of a file of Arrow's IPC format; its lines are counted from 1.

    Raises:
        ValidationError: It is no such file, or names fields that the store does not have.
    """
    line = 0
    try:
        for batch in _batches(stream, spec, parquet=parquet):
            for row in batch.to_pylist():
                line += 1
                yield line, _plain(row, spec)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise ValidationError(f"row {line + 1} of the file cannot be read: {error}", store=spec.name) from None


def _batches(stream: IO[bytes], spec: StoreSpec[Any], *, parquet: bool) -> Iterator[Any]:
    if parquet:
        file = pq.ParquetFile(stream)
        check_columns(file.schema_arrow.names, spec)
        yield from file.iter_batches(ROWS_AT_ONCE)
        return
    reader = pa.ipc.open_file(stream)
    check_columns(reader.schema.names, spec)
    yield from (reader.get_batch(at) for at in range(reader.num_record_batches))


def _plain(row: Mapping[str, object], spec: StoreSpec[Any]) -> PlainRow | ValidationError:
    found: dict[str, Plain] = {}
    for name, value in row.items():
        if value is not None and not isinstance(value, (bool, int, float, str, bytes)):
            if spec.declared[name].places is None:
                kind = type(value).__name__
                return ValidationError(
                    f"{spec.name}.{name}: a column of {kind} values; cast it to text", store=spec.name, field=name
                )
            value = str(value)  # a decimal
        found[name] = value
    return found
