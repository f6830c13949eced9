"""Where a table stands over its rows: which one is at its top and which under the cursor, whatever comes, goes and moves."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

from atoma.bindings.splicing import Edit, shifted
from atoma.bindings.window import Window

T = TypeVar("T")


class Viewport(Generic[T]):
    """The part of a window that a table shows, for toolkits whose own tables cannot do it.

    The cursor stays on its row, and what is shown does not move when others write above it. It is used in the host's place.

    Args:
        window: The rows; the viewport is told of their edits.
        draw: Draws the table, after every change.

    Attributes:
        top: The number of the row that is shown first.
        cursor: The number of the row under the cursor.
        height: How many rows are shown.
    """

    def __init__(self, window: Window[T], draw: Callable[[], object]) -> None:
        self.window = window
        self.top = 0
        self.cursor = 0
        self.height = 1
        self._draw = draw
        window.editing = self._edited
        window.changed = self._settle

    @property
    def row(self) -> T | None:
        """The row under the cursor; None when there is none, or when it is not there yet."""
        return self.window.row(self.cursor)

    def go_to(self, number: int) -> None:
        """Put the cursor on the row with this number, and show it; below 0 it is counted from the end."""
        total = len(self.window)
        if not total:
            return
        self.cursor = max(0, min(number + total if number < 0 else number, total - 1))
        self.window.marked = self.cursor
        if not self.top <= self.cursor < self.top + self.height:
            self.top = self.cursor if self.cursor < self.top else self.cursor - self.height + 1
        self._show()

    def step(self, by: int) -> None:
        """Move the cursor by rows; it stops at the first and at the last one."""
        self.go_to(max(0, self.cursor + by))

    def page(self, by: int) -> None:
        """Move the cursor by so many times what is shown."""
        self.step(by * self.height)

    def scroll_to(self, top: int) -> None:
        """Show the rows from this number on; the cursor stays where it is."""
        self.top = top
        self._show()

    def resize(self, height: int) -> None:
        """Show so many rows."""
        self.height = max(1, height)
        self._show()

    @contextmanager
    def _edited(self, edit: Edit) -> Generator[None]:
        if self.top:  # whoever looks at the first row wants to see a new one before it
            self.top = shifted(self.top, (edit,))
        self.cursor = shifted(self.cursor, (edit,)) if self.cursor or self.top else 0
        yield

    def _settle(self) -> None:
        if self.window.marked is None:
            self.window.marked = min(self.cursor, max(0, len(self.window) - 1))
        else:
            self.cursor = self.window.marked
        self._show()

    def _show(self) -> None:
        self.top = max(0, min(self.top, len(self.window) - self.height))
        self.window.show(self.top, self.height)
        self._draw()
