"""A table of a live query for Tk, which comes with Python.

The client is one of :mod:`atoma.bindings.blocking`, opened around ``mainloop()``: its loop runs in a thread of its own, and the
table is told in Tk's thread what has changed.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from atoma.bindings.viewport import Viewport
from atoma.bindings.window import Column, OfPortal, Window
from atoma.errors import AtomaError
from atoma.query import Rows

try:
    import tkinter
    from tkinter import font, ttk
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "this Python has no tkinter: install your system's package of it (Debian: apt install python3-tk)",
        name=error.name,
    ) from None

__all__ = ["Column", "LiveTable"]

T = TypeVar("T")

POLL_MS = 20
"""How often functions are looked for where Tk cannot wait for a socket: on Windows."""
NOTCH = 120
"""What Windows counts for one step of a wheel."""
NOTCH_ROWS = 3
"""Rows that one step of a wheel scrolls by."""
_kept: set[object] = set()
"""The interpreters of Tk that have had a table. One that is collected in another thread than its own, as the loop of a client
may happen to do, ends the program; these are kept until the program ends."""


class _Post:
    """A post box whose functions are called in Tk's thread, whoever posts them, as long as a widget is there.

    Tk may be called in its own thread only, and sleeps until it has something to do. A byte on a socket wakes it.
    """

    def __init__(self, widget: tkinter.Misc) -> None:
        self._root = widget.nametowidget(".")
        _kept.add(self._root.tk)
        self._waiting: deque[Callable[[], None]] = deque()
        self._closed = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._timer = ""
        if sys.platform == "win32":
            self._poll()
        else:
            self._root.tk.createfilehandler(self._reader, tkinter.READABLE, self._woken)

    def __call__(self, function: Callable[[], None]) -> None:
        """Have a function called soon.

        Raises:
            RuntimeError: The widget is gone.
        """
        if self._closed:
            raise RuntimeError("the table is gone")
        self._waiting.append(function)
        with suppress(OSError):  # it is full, so that Tk wakes anyway, or was closed just now
            self._writer.send(b"\0")

    def close(self) -> None:
        """Call nothing more; in Tk's thread."""
        if self._closed:
            return
        self._closed = True
        if sys.platform == "win32":
            self._root.after_cancel(self._timer)
        else:
            self._root.tk.deletefilehandler(self._reader)
        self._reader.close()
        self._writer.close()

    def _poll(self) -> None:
        self._call_waiting()
        self._timer = self._root.after(POLL_MS, self._poll)

    def _woken(self, file: object, mask: int) -> None:
        with suppress(BlockingIOError):
            self._reader.recv(4096)
        self._call_waiting()

    def _call_waiting(self) -> None:
        for _ in range(len(self._waiting)):
            try:
                self._waiting.popleft()()
            except Exception:  # as Tk does with what its own events call: it would end the main loop
                self._root.report_callback_exception(*sys.exc_info())


class LiveTable(ttk.Frame, Generic[T]):
    """The rows of a query, however many there are, as they are now; memory is that of some hundred.

    The row under the cursor stays under it when others come, go or change their place, and what is shown does not move. It is
    used in Tk's thread only, and ends with its widget.

    It makes two virtual events: ``<<Chosen>>`` when the row under the cursor is chosen, by the enter key or a double click, and
    ``<<Failed>>`` when the query is followed no more; ``error`` says why.

    Args:
        master: The widget that it stands in.
        client: An open client of ``atoma.bindings.blocking`` or ``atoma.bindings.aio``.
        query: Whole rows, without limit and offset.
        columns: What is shown of each.
        key: What tells rows apart; by default their ``id``.

    Attributes:
        error: Why the query is followed no more; None as long as it is.

    Raises:
        QueryError: The query has a limit or an offset.
    """

    def __init__(
        self,
        master: tkinter.Misc,
        client: OfPortal,
        query: Rows[T],
        columns: Sequence[Column[T]],
        *,
        key: Callable[[T], Hashable] | None = None,
    ) -> None:
        super().__init__(master)
        self.error: AtomaError | None = None
        self._columns = tuple(columns)
        self._lines: list[tuple[str, ...]] = []
        self._measured, self._measuring = False, "none yet"
        self._tree = ttk.Treeview(
            self, columns=[str(at) for at in range(len(columns))], show="headings", selectmode="browse"
        )
        self._bar = ttk.Scrollbar(self, command=self._scroll)
        self._lay_out()
        self._post = _Post(self)
        try:
            window = Window(client, query, self._post, key=key)
        except BaseException:
            self._post.close()
            self.destroy()
            raise
        window.failed = self._fail
        self._viewport = Viewport(window, self._draw)
        self.bind("<Destroy>", self._end, add="+")

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self._viewport.window)

    @property
    def cursor_row(self) -> T | None:
        """The row under the cursor; None when there is none, or when it is not there yet."""
        return self._viewport.row

    @property
    def cursor_number(self) -> int:
        """The number of the row under the cursor, counted from 0."""
        return self._viewport.cursor

    def go_to(self, number: int) -> None:
        """Put the cursor on the row with this number; below 0 it is counted from the end."""
        self._viewport.go_to(number)

    def focus_set(self) -> None:
        """Take the keys."""
        self._tree.focus_set()

    def _lay_out(self) -> None:
        character = font.nametofont("TkDefaultFont", root=self).measure("0")
        for at, column in enumerate(self._columns):
            self._tree.heading(str(at), text=column.title, anchor="w")
            self._tree.column(str(at), width=column.width * character, anchor="w")
        self._tree.pack(side="left", fill="both", expand=True)
        self._bar.pack(side="right", fill="y")
        self._tree.bind("<Configure>", lambda event: self._measure_soon())
        self._tree.bind("<Expose>", lambda event: None if self._measured else self._measure_soon())
        for keys, rows in (("<Up>", -1), ("<Down>", 1)):
            self._on(keys, lambda event, rows=rows: self._viewport.step(rows))  # type: ignore[misc]
        for keys, pages in (("<Prior>", -1), ("<Next>", 1)):
            self._on(keys, lambda event, pages=pages: self._viewport.page(pages))  # type: ignore[misc]
        self._on("<Home>", lambda event: self.go_to(0))
        self._on("<End>", lambda event: self.go_to(-1))
        self._on("<Return>", lambda event: self._choose())
        self._on(
            "<MouseWheel>", lambda event: self._roll(-round(event.delta / NOTCH) or (1 if event.delta < 0 else -1))
        )
        self._on("<Button-4>", lambda event: self._roll(-1))  # the wheel under X11
        self._on("<Button-5>", lambda event: self._roll(1))
        self._tree.bind("<Button-1>", self._click)
        self._tree.bind("<Double-Button-1>", self._click_twice)

    def _on(self, sequence: str, action: Callable[[tkinter.Event[ttk.Treeview]], object]) -> None:
        """Do this instead of what the tree would do, which knows the shown rows only."""

        def act(event: tkinter.Event[ttk.Treeview]) -> str:
            action(event)
            return "break"

        self._tree.bind(sequence, act)

    def _click(self, event: tkinter.Event[ttk.Treeview]) -> str | None:
        line = self._tree.identify_row(event.y)
        if not line:
            return None  # a heading, whose edges are moved
        self._tree.focus_set()
        self.go_to(self._viewport.top + int(line))
        return "break"

    def _click_twice(self, event: tkinter.Event[ttk.Treeview]) -> str | None:
        handled = self._click(event)
        if handled:
            self._choose()
        return handled

    def _choose(self) -> None:
        if self.cursor_row is not None:
            self.event_generate("<<Chosen>>")

    def _roll(self, notches: int) -> None:
        self._viewport.scroll_to(self._viewport.top + notches * NOTCH_ROWS)

    def _scroll(self, how: str, amount: str, unit: str = "") -> None:
        """Do what the scroll bar says, in Tk's words."""
        if how == "moveto":
            self._viewport.scroll_to(round(float(amount) * self.row_count))
        else:
            rows = self._viewport.height if unit == "pages" else 1
            self._viewport.scroll_to(self._viewport.top + int(amount) * rows)

    def _measure_soon(self) -> None:
        self.after_cancel(self._measuring)
        self._measured, self._measuring = False, self.after_idle(self._measure)

    def _measure(self) -> None:
        """Find out how many rows there is room for; how high one is, is known once one is drawn."""
        first = self._tree.bbox("0") if self._tree.exists("0") else ""
        if first:
            _, y, _, height = first
            self._measured = True
            self._viewport.resize((self._tree.winfo_height() - y) // height)

    def _draw(self) -> None:
        """Have the shown lines say what they show now; a line that says it already is left alone."""
        viewport, tree = self._viewport, self._tree
        shown = range(viewport.top, min(viewport.top + viewport.height, self.row_count))
        rows = [viewport.window.row(number) for number in shown]
        lines = [tuple(column.line(row) for column in self._columns) for row in rows]
        for gone in range(len(lines), len(self._lines)):
            tree.delete(str(gone))
        for new in range(len(self._lines), len(lines)):
            tree.insert("", "end", iid=str(new))
        for at, line in enumerate(lines):
            if self._lines[at : at + 1] != [line]:
                for place, cell in enumerate(line):
                    tree.set(str(at), str(place), cell)
        self._lines = lines
        under = str(viewport.cursor - viewport.top)
        tree.selection_set([under] if tree.exists(under) else [])
        total = max(1, self.row_count)
        self._bar.set(viewport.top / total, min(1.0, (viewport.top + viewport.height) / total))
        if lines and not self._measured:
            self._measure_soon()

    def _fail(self, error: AtomaError) -> None:
        self.error = error
        self.event_generate("<<Failed>>")

    def _end(self, event: tkinter.Event[tkinter.Misc]) -> None:
        if event.widget is self:
            self.after_cancel(self._measuring)
            self._viewport.window.close()
            self._post.close()
