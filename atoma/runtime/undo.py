"""Undo and redo: groups of writes on stacks that lie in the file, turned over through the write path.

What a group did is in the device's history. Undoing it is a new write, which syncs like any other: field by field it puts back
what was there, if the group's value still is, and it carries a guard, so that a change of somebody else that has not come here
yet makes the hub refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from atoma.contracts.checks import is_a
from atoma.contracts.history import Changeset, RowChange, UndoMark, UndoStep
from atoma.contracts.values import RowKey
from atoma.errors import ConfigurationError
from atoma.ports.history import LocalHistory
from atoma.runtime.flows import Core
from atoma.runtime.groups import marking, open_mark
from atoma.runtime.turning import Turning

MAIN = ""
"""The stack of an application that has one."""


@dataclass(frozen=True, slots=True)
class Undone:
    """The result of an undo, or of a redo.

    Attributes:
        label: What the user calls the group.
        rows: Store and id of the rows that it wrote.
        refused: What was left out, because the authority had refused it before: nothing of it is here any more.
        key: What :meth:`atoma.Client.handle` finds the write by; ``""`` when it lies in no outbox.
    """

    label: str
    rows: tuple[RowKey, ...]
    refused: tuple[RowChange, ...] = ()
    key: str = ""


class UndoStack:
    """Groups of writes that can be undone and redone; get one with ``client.undo``.

    It lies in the file, so it is there after a restart. The last 100 groups are kept, as far back as the history goes.

    Args:
        core: What the stores of the client share.
        history: The device's past.
        turning: Writes what turns a group over.
        ids: Draws keys of groups.
        name: Which stack.
    """

    def __init__(
        self, core: Core, history: LocalHistory, turning: Turning, ids: Callable[[], str], name: str = MAIN
    ) -> None:
        self._core = core
        self._history = history
        self._turning = turning
        self._ids = ids
        self._name = name

    def scope(self, name: str) -> UndoStack:
        """Another stack, beside this one: of a document, a window, a tool."""
        if not is_a(name, str):
            raise ConfigurationError(f"a stack is named by text, not by {name!r}")
        return UndoStack(self._core, self._history, self._turning, self._ids, name)

    @contextmanager
    def group(self, label: str) -> Generator[None]:
        """Put what is written in the block, and in the tasks that it starts, on the stack as one group.

        A group within a group of the same stack is a part of that one. The first write of a new group ends what could be redone.
        What another machine decides first is in no group, as is what the hub sends.

        Args:
            label: What the user calls it: ``Move card``.
        """
        if not is_a(label, str):
            raise ConfigurationError(f"a group has a label, which is text, not {label!r}")
        owner = self._core.write_flow
        outer = open_mark(owner)
        if outer is not None and outer.stack == self._name:
            yield
            return
        with marking(owner, UndoMark(self._ids(), self._name, label)):
            yield

    async def undo(self) -> Undone | None:
        """Take the newest group back, as one new write on this device; None when there is nothing to undo.

        Every field that the group has changed must still have the group's value; other fields do not count. All of it is written,
        or nothing. What the authority had refused of the group is left out, and told.

        Raises:
            ConflictError: A field has another value by now, or a row is gone or there again; nothing was written, and the group
                stays where it is. :meth:`discard` takes it off.
            ValidationError: It has more rows of one scope than a write may have.
            PolicyNotAllowed: Another machine decides the writes of a store first.
        """
        return await self._turn(undone=False)

    async def redo(self) -> Undone | None:
        """Bring back what was undone last; None when there is nothing to redo. The same rules as for :meth:`undo`."""
        return await self._turn(undone=True)

    async def discard(self) -> UndoStep | None:
        """Take the newest group that can be undone off the stack, and leave its rows as they are; None when there is none."""
        self._core.guard.check()
        found = await self._history.newest(self._name, undone=False)
        if found is not None:
            await self._history.drop(found.step.key)
        return None if found is None else found.step

    async def steps(self) -> Sequence[UndoStep]:
        """The groups on the stack, the newest first; what is ``undone`` can be redone."""
        self._core.guard.check()
        return await self._history.steps(self._name)

    async def _turn(self, *, undone: bool) -> Undone | None:
        self._core.guard.check()
        found = await self._history.newest(self._name, undone=undone)
        if found is None:
            return None
        step, refused = found.step, tuple(each for one in found.commits for each in one.changes if each.refused)
        mark = UndoMark(step.key, self._name, step.label, "redo" if undone else "undo")
        written = await self._turning.write([_standing(one).inverted() for one in found.commits], mark=mark)
        if not written.rows:
            await self._history.drop(step.key)
        return Undone(step.label, written.rows, refused, written.key)


def _standing(changeset: Changeset) -> Changeset:
    """``changeset`` without what was refused."""
    return changeset.only(lambda change: not change.refused)
