"""The group that is open where something is written."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from atoma.contracts.history import UndoMark

OPEN_GROUP: ContextVar[tuple[object, UndoMark] | None] = ContextVar("atoma undo group", default=None)
"""Whose group is open here, and its mark."""


def open_mark(owner: object) -> UndoMark | None:
    """The mark of what is written here by ``owner``; None when none of its groups is open."""
    found = OPEN_GROUP.get()
    return None if found is None or found[0] is not owner else found[1]


@contextmanager
def marking(owner: object, mark: UndoMark) -> Generator[None]:
    """Let what is written by ``owner`` in the block, and in the tasks that it starts, have ``mark``."""
    token = OPEN_GROUP.set((owner, mark))
    try:
        yield
    finally:
        OPEN_GROUP.reset(token)
