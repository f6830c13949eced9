"""Mutations: what an operation does to a row, and what a row shows while operations on it are pending."""

from __future__ import annotations

from atoma.mutations.deciding import decide, moved_read, mutations_of, queued, replay, rows_of, scope_of
from atoma.mutations.overlay import RowKey, ops_by_row, rebase, rebase_rows, version_here

__all__ = [
    "RowKey",
    "decide",
    "moved_read",
    "mutations_of",
    "ops_by_row",
    "queued",
    "rebase",
    "rebase_rows",
    "replay",
    "rows_of",
    "scope_of",
    "version_here",
]
