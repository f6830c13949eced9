"""What SQL that a program wrote itself answers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from atoma.contracts.values import Scalar


class SqlAnswer(msgspec.Struct, frozen=True):
    """The rows of a statement.

    Attributes:
        columns: The names of their columns.
        rows: What stands in them.
        reads: The stores that were read, with the fields of each, as SQLite tells.
        commit: The commit that the rows are at.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]
    reads: Mapping[str, frozenset[str]]
    commit: int


__all__ = ["SqlAnswer"]
