"""Values of functions: a function is followed by what it has read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import TypeAlias

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma.contracts.raw import Question, RawReads, SqlAnswer
from atoma.errors import QueryError
from atoma.ports.live import Ask, Change, Reset, ResultRow, Update
from atoma_stores.changes import StoreDelta
from atoma_stores.live.operators.operator import Deltas, Operator

Concerned: TypeAlias = Callable[[Question, RawReads], tuple[Mapping[str, object], Operator]]
"""Returns the stores by which a question is followed, and the operator that knows whether a change concerns it; what a
statement reads is in its answer."""


class _Asked:
    """A question of a function that waits for the answer."""

    def __init__(self, question: Question) -> None:
        self.question = question

    def __await__(self) -> Generator[_Asked, QueryResult, QueryResult]:
        return (yield self)


async def _ask(question: Question) -> QueryResult:
    return await _Asked(question)


class FunctionOperator:
    """The operator of a function that reads.

    The function runs within one round: each of its reads is a read of the round, so all of them see one state of the
    database. It waits for nothing else, so it needs no task.

    Args:
        body: Makes the function's coroutine, which awaits nothing but the reads that it is given.
        plan: Plans how one of its questions is followed.
    """

    def __init__(self, body: Callable[[Ask], Coroutine[object, QueryResult, object]], plan: Concerned) -> None:
        self._body = body
        self._plan = plan
        self._running: Coroutine[object, QueryResult, object] | None = None
        self._question: Question | None = None
        self._read: dict[str, list[Operator]] = {}
        self._failure: Exception | None = None
        self._commit = 0
        self._stale = True
        self._told: tuple[ResultRow, ...] = ()
        self._value: tuple[ResultRow, ...] = ()

    @property
    def lacks(self) -> bool:
        """See ``Operator``."""
        return self._stale

    @property
    def stale(self) -> bool:
        """See ``Operator``."""
        return self._stale

    def concerns(self, store: str, delta: StoreDelta, *, settled: bool) -> StoreDelta:
        """See ``Operator``."""
        if self._stale or not settled:
            return delta  # it is not known what it will read
        found: dict[str, tuple[object, object]] = {}
        for operator in self._read.get(store, ()):
            found.update(operator.concerns(store, delta, settled=settled))
        return {id: delta[id] for id in found}

    def apply(self, deltas: Deltas) -> None:
        """See ``Operator``."""
        if any(deltas.values()):
            self.forget()

    def forget(self) -> None:
        """See ``Operator``."""
        self._stale = True
        self._end()

    def reads(self) -> Sequence[Question]:
        """See ``Operator``."""
        if self._running is None:
            self._read, self._failure = {}, None
            self._running = self._body(_ask)
            self._go_on(None)
        return () if self._question is None else (self._question,)

    def load(self, results: Sequence[QueryResult]) -> None:
        """See ``Operator``."""
        for result in results:
            if self._commit not in (0, result.meta.commit):  # the state with which it began could not be held
                self._end()
                return
            self._commit = result.meta.commit
            if isinstance(result, SqlAnswer) and self._question is not None:
                self._note(self._question, result.reads)
            self._go_on(result)
        if self._failure is not None:
            raise self._failure

    def _go_on(self, result: QueryResult | None) -> None:
        """Run the function until its next read, or to its end."""
        assert self._running is not None
        self._question = None
        try:
            asked = self._running.send(result)  # type: ignore[arg-type]  # None starts it
            if not isinstance(asked, _Asked):
                raise QueryError("a live function awaits its reads, and nothing else")
            self._question = asked.question
            if isinstance(asked.question, BoundQuery):
                self._note(asked.question, {})
        except StopIteration as end:
            self._value = ((end.value,),)
            self._end()
            self._stale = False
        except Exception as error:
            self._end()
            self._failure = error

    def _note(self, question: Question, reads: RawReads) -> None:
        stores, operator = self._plan(question, reads)
        for store in stores:
            self._read.setdefault(store, []).append(operator)

    def _end(self) -> None:
        running, self._running, self._question, self._commit = self._running, None, None, 0
        if running is not None:
            running.close()

    def collect(self) -> tuple[Change[ResultRow], ...]:
        """See ``Operator``; an equal value is not a change."""
        told, self._told = self._told, self._value
        if not told:
            return (Reset(self._value),)
        if told == self._value:
            self._value = self._told = told
            return ()
        return (Update(0, self._value[0]),)

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """See ``Operator``."""
        return self._value

    @property
    def shown(self) -> int:
        """See ``Operator``."""
        return len(self._value)

    @property
    def held(self) -> int:
        """See ``Operator``."""
        return len(self._value)
