"""The one small store that checks of engines and nodes write to, and requests about it."""

from __future__ import annotations

from dataclasses import dataclass

from atoma.contracts.execution import OperationContext, QueryRequest, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import RowImage, Scalar
from atoma.query.plans import every_row
from atoma.schema import Schema, StoreSpec

CONTEXT = OperationContext("trace-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A row with a column of each kind."""

    id: str
    text: str
    count: int = 0
    weight: float | None = None
    blob: bytes = b""
    board: str = "main"


NOTES = StoreSpec("notes", Note, scope="board")
NOTES_SCHEMA = Schema(NOTES)


def note(text: str = "a", **values: Scalar) -> RowImage:
    """A whole image."""
    return {"text": text, "count": 0, "weight": None, "blob": b"", "board": "main", **values}


def insert(id: str, image: RowImage | None = None) -> Op:
    """A note that must not be there yet."""
    return Op("create", "notes", id, note() if image is None else image, scope="main")


def update(id: str, base_version: int | None = None, **values: Scalar) -> Op:
    """A change of some columns."""
    return Op("patch", "notes", id, values, base_version=base_version)


def delete(id: str) -> Op:
    """The end of a note."""
    return Op("delete", "notes", id)


def unit(
    idem: str, *entries: Op, atomic: bool = False, reads: tuple[tuple[str, str, int | None], ...] = ()
) -> WriteRequest:
    """Entries under a key."""
    return WriteRequest(entries, WriteOptions(atomic=atomic, reads=reads), CONTEXT, idem)


def ask(spec: BoundQuery | None = None) -> QueryRequest:
    """A query of all notes, or as ``spec`` says."""
    return QueryRequest(spec or every_row("notes"), CONTEXT)
