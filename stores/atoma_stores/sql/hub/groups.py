"""Write groups: decisions of one or several callers in one transaction, by two batches, facts and effects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from atoma.ports.hub import Decision, Need
from atoma_stores.sql.dialect import Dialect
from atoma_stores.sql.hub.effects import EffectQueries, effects, may_hide_a_violation
from atoma_stores.sql.hub.facts import DECISIONS_MAX, FactQueries, load, look
from atoma_stores.sql.hub.rows import StoreSql
from atoma_stores.sql.hub.state import Run, State, also
from atoma_stores.sql.scripts import Execute, RowRefused, Script

BYTES_MAX = 1 << 20
"""Bytes of a group, if it is not one run alone: all of them are decided at once, and sent in one trip."""
_BEGIN_ONE: Final = Execute("SAVEPOINT hub_decision")
_BEGIN_RUN: Final = Execute("SAVEPOINT hub_run")


def _end(name: str, *, undo: bool) -> list[Execute]:
    released = Execute(f"RELEASE SAVEPOINT {name}")
    return [Execute(f"ROLLBACK TO SAVEPOINT {name}"), released] if undo else [released]


class GroupQueries:
    """The statements of a write group, for one dialect and schema."""

    def __init__(self, dialect: Dialect, stores: Mapping[str, StoreSql]) -> None:
        self.facts = FactQueries(dialect, stores)
        self.effects = EffectQueries(dialect, stores)


class OneByOne(Exception):
    """A group has to be written one decision at a time: the database refuses a row, or would not refuse what one decision did in passing."""


def next_group(runs: Iterable[Run]) -> int:
    """How many of ``runs``, from the first one on, are a group: a bounded number of decisions and of bytes, or one run alone."""
    count = decisions = size = 0
    for run in runs:
        decisions, size = decisions + len(run.decisions), size + run.size
        if count and (decisions > DECISIONS_MAX or size > BYTES_MAX):
            break
        count += 1
    return count


def groups(runs: Sequence[Run]) -> Iterator[Sequence[Run]]:
    """``runs`` as groups, in their order."""
    while runs:
        count = next_group(runs)
        yield runs[:count]
        runs = runs[count:]


def write_group(queries: GroupQueries, runs: Sequence[Run]) -> Script[int]:
    """Decide ``runs`` in order and write what that comes to; the counter of commits then, 0 when nothing was written.

    A run in which a decision raises is dropped alone, with its error.

    Raises:
        OneByOne: It has to be done again with :func:`write_one_by_one`; the caller takes back what was written.
    """
    state = yield from load(queries.facts, _needs(runs))
    for run in runs:
        mark, run.plans, run.error = state.mark(), [], None
        while (need := state.decide(run, mark)) is not None:
            yield from look(queries.facts, state, need)
    if may_hide_a_violation(queries.effects, state.decided):
        raise OneByOne
    batch = effects(queries.effects, state, state.decided)
    if not batch:
        return 0
    try:
        yield batch
    except RowRefused:
        raise OneByOne from None
    return state.commits + 1


def write_one_by_one(queries: GroupQueries, runs: Sequence[Run]) -> Script[int]:
    """:func:`write_group` with a savepoint per decision, so that one that the database refuses is decided again, alone."""
    state = yield from load(queries.facts, _needs(runs))
    commits = 0
    for run in runs:
        mark, before, run.plans, run.error = state.mark(), commits, [], None
        yield [_BEGIN_RUN]
        try:
            for decision, need in zip(run.decisions, run.needs, strict=True):
                commits += yield from _write_one(queries, state, run, decision, need)
                if run.plans[-1].stop:
                    break
        except Exception as error:
            state.undo(mark)
            commits, run.plans, run.error = before, [], error
        yield _end("hub_run", undo=run.error is not None)
    return state.commits + commits if commits else 0


def _write_one(queries: GroupQueries, state: State, run: Run, decision: Decision, need: Need) -> Script[int]:
    """Make and write one decision; how many commits it counts for."""
    mark, violation, again = state.mark(), "", False
    while True:
        plan = state.decide_one(decision, need, run.now_ms, violation, again=again)
        if plan.wants:
            need = also(need, plan)
            yield from look(queries.facts, state, need)
            continue
        batch = effects(queries.effects, state, state.decided[mark[1] :])
        try:
            yield [_BEGIN_ONE, *batch]
        except RowRefused as refused:
            assert not again, "a decision that is refused for a violation writes no row"
            yield _end("hub_decision", undo=True)
            state.undo(mark)
            violation, again = str(refused), bool(violation)
        else:
            yield _end("hub_decision", undo=False)
            _note_stored(state, mark[1])
            run.plans.append(plan)
            return 1 if batch else 0


def _note_stored(state: State, first: int) -> None:
    for decision in state.decided[first:]:
        if decision.plan.client is not None:
            state.note_stored(decision.plan.client.client_id)
        if decision.plan.transaction is not None:
            state.note_stored(decision.plan.transaction.scope)


def _needs(runs: Sequence[Run]) -> list[Need]:
    return [need for run in runs for need in run.needs]
