"""What a hub's database tells of a row: how it is, and what others did to it since somebody has seen it."""

from __future__ import annotations

from msgspec import Struct

from atoma.contracts.values import RowImage

DIRECT = b""
"""Author of changes that no client pushed: direct writes are foreign to every client."""


class ForeignChange(Struct, frozen=True, gc=False):
    """Somebody else's change of a row: the columns it touched (None for all), and whether it deleted the row."""

    fields: tuple[str, ...] | None
    deleted: bool = False


class TheirChange(Struct, frozen=True, gc=False):
    """What somebody else has made of a row, where the rules of its store ask for more than that it was touched.

    Attributes:
        seq: The sequence of the change.
        author: Client that made it, :data:`DIRECT` for none.
        written_ms: When it was written, by the clock of the device.
        pre: The row before it, None when there was none.
        post: The row after it, None when it was deleted.
    """

    seq: int
    author: bytes
    written_ms: int
    pre: RowImage | None
    post: RowImage | None


class RowFact(Struct, frozen=True, gc=False):
    """A row as it is, and what others did to it since the sequence that was asked about.

    Attributes:
        image: Current image, None when there is no row.
        seq: Sequence of the last change; 0 when nothing is known of it.
        author: Client that made the last change.
        last: Image before the deletion, while the tombstone is kept.
        foreign: Distinct changes by others that the log still holds.
        other_seq: Sequence of the last change by anybody but ``author``, 0 for none; known also where the log is gone.
        theirs: The same changes as ``foreign``, each with what it did, in order; only of stores whose rules look back.
    """

    image: RowImage | None = None
    seq: int = 0
    author: bytes = DIRECT
    last: RowImage | None = None
    foreign: tuple[ForeignChange, ...] = ()
    other_seq: int = 0
    theirs: tuple[TheirChange, ...] = ()
