"""The hooks of a store: what an application does to the rows that it writes, and to what it reads elsewhere.

| hook | when | what it may do |
|---|---|---|
| ``before_save(row) -> row`` | in the transaction of the write, once | change the row, or refuse it by raising |
| ``after_save(saved)`` | behind the commit, in a task of the client, at most once | anything; its error is told and harms nobody |
| ``writeback(rows) -> rows`` | before an answer is kept in the cache of a store that does not sync | change rows, leave some out |

They run where a row is written, on the device. A hub does not run them, nothing runs them again when a write is sent once more,
rebased or repaired, and no hook sees what sync brings: there the hub's row is the truth.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeAlias, TypeVar

from atoma.contracts.values import RowImage
from atoma.errors import SchemaError

T = TypeVar("T")

PASSED_MAX = 256
"""So many of the last rows that passed ``before_save`` are remembered, for writes that a policy tries again."""


@dataclass(frozen=True, slots=True)
class Saved(Generic[T]):
    """A row that this client has written.

    Attributes:
        store: The store's name.
        id: The row's id.
        before: The row as it was; None when there was none, or when another machine wrote it and this one cannot tell.
        after: The row as it was written; None when it was deleted.
    """

    store: str
    id: str
    before: T | None
    after: T | None


BeforeSave: TypeAlias = Callable[[T], T]
AfterSave: TypeAlias = Callable[[Saved[T]], Awaitable[None] | None]
WritebackHook: TypeAlias = Callable[[Sequence[T]], Iterable[T]]


class Hooks(Generic[T]):
    """The hooks of one store.

    Args:
        store: Its name.
        before_save: See the table above; so are the others.
        after_save: May be an ``async`` function.
        writeback: Gets the rows of one answer.

    Raises:
        SchemaError: Something is not a function, or one that has to answer at once is ``async``.
    """

    __slots__ = ("_lock", "_passed", "after_save", "before_save", "writeback")

    def __init__(
        self,
        store: str,
        before_save: BeforeSave[T] | None = None,
        after_save: AfterSave[T] | None = None,
        writeback: WritebackHook[T] | None = None,
    ) -> None:
        for name, hook in (("before_save", before_save), ("after_save", after_save), ("writeback", writeback)):
            if hook is not None and not callable(hook):
                raise SchemaError(f"store {store!r}: {name} is a function, not {hook!r}")
            if name != "after_save" and inspect.iscoroutinefunction(hook):
                raise SchemaError(f"store {store!r}: {name} runs within a write or a read: it cannot be async")
        self.before_save = before_save
        self.after_save = after_save
        self.writeback = writeback
        self._passed: OrderedDict[tuple[str, int], tuple[RowImage, RowImage]] = OrderedDict()
        self._lock = Lock()

    def passed(self, key: tuple[str, int], image: RowImage) -> RowImage | None:
        """What ``before_save`` has made of ``image`` already, in an earlier try at the same operation; None for nothing.

        Args:
            key: The key of the write, and the place of the operation in it.
            image: What is to be written: as it was, or as the hook has made it.
        """
        with self._lock:
            known = self._passed.get(key)
        return known[1] if known is not None and image in known else None

    def note_passed(self, key: tuple[str, int], image: RowImage, made: RowImage) -> None:
        """Remember that ``before_save`` has made ``made`` of ``image``."""
        with self._lock:
            self._passed[key] = (image, made)
            while len(self._passed) > PASSED_MAX:
                self._passed.popitem(last=False)
