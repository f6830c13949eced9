"""A table of a live query for Textual; needs the extra ``textual``.

The client is one of :mod:`atoma.bindings.aio`, opened where the application is run or when it is mounted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import ClassVar, Generic, TypeVar

from atoma.bindings.viewport import Viewport
from atoma.bindings.window import Column, OfPortal, Window
from atoma.contracts.extras import needs_extra
from atoma.errors import AtomaError
from atoma.query import Rows

with needs_extra("textual"):
    from rich.cells import set_cell_size
    from rich.segment import Segment
    from rich.style import Style
    from textual import events
    from textual.binding import Binding, BindingType
    from textual.geometry import Size
    from textual.message import Message
    from textual.scroll_view import ScrollView
    from textual.strip import Strip

__all__ = ["Column", "LiveTable"]

T = TypeVar("T")
R = TypeVar("R")

HEAD = 1
"""Lines of the table that hold the titles."""


class _Called(Message):
    """A function that the loop of a client wants to be called here."""

    bubble = False

    def __init__(self, function: Callable[[], None]) -> None:
        super().__init__()
        self.function = function


class LiveTable(ScrollView, Generic[T]):
    """The rows of a query, however many there are, as they are now; memory is that of some hundred.

    The row under the cursor stays under it when others come, go or change their place, and what is shown does not move.

    Args:
        client: An open client of ``atoma.bindings.aio`` or ``atoma.bindings.blocking``.
        query: Whole rows, without limit and offset.
        columns: What is shown of each.
        key: What tells rows apart; by default their ``id``.
        id: The widget's id.
        classes: Its CSS classes.

    Raises:
        QueryError: The query has a limit or an offset.
    """

    DEFAULT_CSS = "LiveTable { height: 1fr; }"
    COMPONENT_CLASSES: ClassVar[set[str]] = {"live-table--head", "live-table--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "step(-1)", "Up", show=False),
        Binding("down", "step(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "go(0)", "First", show=False),
        Binding("end", "go(-1)", "Last", show=False),
        Binding("enter", "choose", "Choose", show=False),
    ]

    class Chosen(Message, Generic[R]):
        """A row was chosen, by the enter key or a click on the row under the cursor.

        Attributes:
            table: Where.
            row: Which.
        """

        def __init__(self, table: LiveTable[R], row: R) -> None:
            super().__init__()
            self.table, self.row = table, row

    class Failed(Message):
        """The query is followed no more.

        Attributes:
            error: Why.
        """

        def __init__(self, error: AtomaError) -> None:
            super().__init__()
            self.error = error

    def __init__(
        self,
        client: OfPortal,
        query: Rows[T],
        columns: Sequence[Column[T]],
        *,
        key: Callable[[T], Hashable] | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.can_focus = True
        self._columns = tuple(columns)
        self._open = lambda: Window(client, query, self._post_function, key=key)
        self._viewport: Viewport[T] | None = None

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return 0 if self._viewport is None else len(self._viewport.window)

    @property
    def cursor_row(self) -> T | None:
        """The row under the cursor; None when there is none, or when it is not there yet."""
        return None if self._viewport is None else self._viewport.row

    @property
    def cursor_number(self) -> int:
        """The number of the row under the cursor, counted from 0."""
        return 0 if self._viewport is None else self._viewport.cursor

    def go_to(self, number: int) -> None:
        """Put the cursor on the row with this number; below 0 it is counted from the end."""
        if self._viewport is not None:
            self._viewport.go_to(number)

    def action_step(self, by: int) -> None:
        """Move the cursor by rows."""
        if self._viewport is not None:
            self._viewport.step(by)

    def action_page(self, by: int) -> None:
        """Move the cursor by what is shown."""
        if self._viewport is not None:
            self._viewport.page(by)

    def action_go(self, number: int) -> None:
        """Move the cursor to a row; see :meth:`go_to`."""
        self.go_to(number)

    def action_choose(self) -> None:
        """Tell that the row under the cursor is chosen."""
        row = self.cursor_row
        if row is not None:
            self.post_message(self.Chosen(self, row))

    def render_line(self, y: int) -> Strip:
        """Draw a line; Textual calls it."""
        if y < HEAD:
            style = self.get_component_rich_style("live-table--head") + Style(bold=True)
            return self._line([column.title for column in self._columns], style)
        number = self.scroll_offset.y + y - HEAD
        if self._viewport is None or number >= self.row_count:
            return Strip.blank(self.size.width, self.rich_style)
        row = self._viewport.window.row(number)
        cells = [column.line(row) for column in self._columns]
        return self._line(cells, self.rich_style + Style(reverse=number == self._viewport.cursor))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Fetch what is scrolled to; Textual calls it."""
        super().watch_scroll_y(old_value, new_value)
        if self._viewport is not None and self._viewport.top != round(new_value):
            self._viewport.scroll_to(round(new_value))

    def on_mount(self) -> None:
        """Begin to follow the query; Textual calls it."""
        window = self._open()
        window.failed = lambda error: self.post_message(self.Failed(error))
        self._viewport = Viewport(window, self._draw)

    def on_unmount(self) -> None:
        """End it; Textual calls it."""
        if self._viewport is not None:
            self._viewport.window.close()

    async def on_click(self, event: events.Click) -> None:
        """Move the cursor to a row that is clicked; Textual calls it."""
        number = self.scroll_offset.y + event.y - HEAD
        if event.y < HEAD or number >= self.row_count:
            return
        if number == self.cursor_number:
            self.action_choose()
        self.go_to(number)

    def on_resize(self) -> None:
        """Fetch what is shown now; Textual calls it."""
        if self._viewport is not None:
            self._viewport.resize(self.size.height - HEAD)

    def on__called(self, message: _Called) -> None:
        """Call what the loop of the client posted; Textual calls it."""
        message.function()

    def _post_function(self, function: Callable[[], None]) -> None:
        if not self.post_message(_Called(function)):
            raise RuntimeError("the table is gone")

    def _line(self, cells: Sequence[str], style: Style) -> Strip:
        segments = [
            Segment(set_cell_size(cell, column.width - 1) + " ", style)
            for cell, column in zip(cells, self._columns, strict=True)
        ]
        return Strip(segments).crop_extend(self.scroll_offset.x, self.scroll_offset.x + self.size.width, style)

    def _draw(self) -> None:
        if self._viewport is None:
            return
        self.virtual_size = Size(sum(column.width for column in self._columns), self.row_count + HEAD)
        if self._viewport.top != round(self.scroll_y):
            self.scroll_to(y=self._viewport.top, animate=False, immediate=True)
        self.refresh()
