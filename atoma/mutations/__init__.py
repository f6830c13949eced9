"""Mutations: what an operation does to a row, and what a row shows while operations on it are pending."""

from __future__ import annotations

from atoma.mutations.deciding import decide, moved_read, mutations_of, queued, replay, rows_of, scope_of
from atoma.mutations.editing import counts, differences, edited, elements, in_edits, misfit, set_text
from atoma.mutations.overlay import RowKey, ops_by_row, rebase, rebase_rows, version_here
from atoma.mutations.stamping import bare, prepared, prepared_elsewhere

__all__ = [
    "RowKey",
    "bare",
    "counts",
    "decide",
    "differences",
    "edited",
    "elements",
    "in_edits",
    "misfit",
    "moved_read",
    "mutations_of",
    "ops_by_row",
    "prepared",
    "prepared_elsewhere",
    "queued",
    "rebase",
    "rebase_rows",
    "replay",
    "rows_of",
    "scope_of",
    "set_text",
    "version_here",
]
