"""Mutations: what an operation does to a row, and what a row shows while operations on it are pending."""

from __future__ import annotations

from atoma.mutations.deciding import decide, moved_read, mutations_of, queued, replay, rows_of, scope_of
from atoma.mutations.editing import (
    arriving,
    columns_of,
    counts,
    differences,
    edited,
    elements,
    in_edits,
    joins,
    misfit,
    set_text,
    texts_joined,
    too_many_texts,
    with_texts,
)
from atoma.mutations.overlay import ops_by_row, rebase, rebase_rows, version_here
from atoma.mutations.stamping import bare, prepared, prepared_elsewhere

__all__ = [
    "arriving",
    "bare",
    "columns_of",
    "counts",
    "decide",
    "differences",
    "edited",
    "elements",
    "in_edits",
    "joins",
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
    "texts_joined",
    "too_many_texts",
    "version_here",
    "with_texts",
]
