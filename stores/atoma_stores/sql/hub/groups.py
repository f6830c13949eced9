"""Write groups: steps of one or several callers in one transaction, by two batches, facts and effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from atoma.ports.hub import Need, Step
from atoma_stores.sql.dialect import Dialect
from atoma_stores.sql.hub.effects import EffectQueries, effects, may_hide_a_violation
from atoma_stores.sql.hub.facts import STEPS_MAX, FactQueries, load, look
from atoma_stores.sql.hub.rows import StoreSql
from atoma_stores.sql.hub.state import Run, State, also
from atoma_stores.sql.scripts import Execute, RowRefused, Script

_BEGIN_STEP: Final = Execute("SAVEPOINT hub_step")
_BEGIN_RUN: Final = Execute("SAVEPOINT hub_run")


def _end(name: str, *, undo: bool) -> list[Execute]:
    released = Execute(f"RELEASE SAVEPOINT {name}")
    return [Execute(f"ROLLBACK TO SAVEPOINT {name}"), released] if undo else [released]


class GroupQueries:
    """The statements of a write group, for one dialect and schema."""

    def __init__(self, dialect: Dialect, stores: Mapping[str, StoreSql]) -> None:
        self.facts = FactQueries(dialect, stores)
        self.effects = EffectQueries(dialect, stores)


class StepByStep(Exception):
    """A group has to be written step by step: the database refuses a row, or would not refuse what one step did in passing."""


def groups(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """``runs`` as groups of a bounded number of steps."""
    group: list[Run] = []
    size = 0
    for run in runs:
        if group and size + len(run.steps) > STEPS_MAX:
            yield group
            group, size = [], 0
        group.append(run)
        size += len(run.steps)
    if group:
        yield group


def write_group(queries: GroupQueries, runs: Sequence[Run]) -> Script[int]:
    """Decide ``runs`` in order and write what that comes to; the counter of commits then, 0 when nothing was written.

    A run in which a step raises is dropped alone, with its error.

    Raises:
        StepByStep: It has to be done again with :func:`write_step_by_step`; the caller takes back what was written.
    """
    state = yield from load(queries.facts, _needs(runs))
    for run in runs:
        mark, run.plans, run.error = state.mark(), [], None
        while (need := state.decide(run, mark)) is not None:
            yield from look(queries.facts, state, need)
    if may_hide_a_violation(queries.effects, state.decided):
        raise StepByStep
    batch = effects(queries.effects, state, state.decided)
    if not batch:
        return 0
    try:
        yield batch
    except RowRefused:
        raise StepByStep from None
    return state.commits + 1


def write_step_by_step(queries: GroupQueries, runs: Sequence[Run]) -> Script[int]:
    """:func:`write_group` with a savepoint per step, so that one that the database refuses is decided again, alone."""
    state = yield from load(queries.facts, _needs(runs))
    commits = 0
    for run in runs:
        mark, before, run.plans, run.error = state.mark(), commits, [], None
        yield [_BEGIN_RUN]
        try:
            for step, need in zip(run.steps, run.needs, strict=True):
                commits += yield from _write_step(queries, state, run, step, need)
                if run.plans[-1].stop:
                    break
        except Exception as error:
            state.undo(mark)
            commits, run.plans, run.error = before, [], error
        yield _end("hub_run", undo=run.error is not None)
    return state.commits + commits if commits else 0


def _write_step(queries: GroupQueries, state: State, run: Run, step: Step, need: Need) -> Script[int]:
    """Decide and write one step; how many commits it counts for."""
    mark, violation, again = state.mark(), "", False
    while True:
        plan = state.decide_step(step, need, run.now_ms, violation, again=again)
        if plan.wants:
            need = also(need, plan)
            yield from look(queries.facts, state, need)
            continue
        batch = effects(queries.effects, state, state.decided[mark[1] :])
        try:
            yield [_BEGIN_STEP, *batch]
        except RowRefused as refused:
            assert not again, "a step that is refused for a violation writes no row"
            yield _end("hub_step", undo=True)
            state.undo(mark)
            violation, again = str(refused), bool(violation)
        else:
            yield _end("hub_step", undo=False)
            _note_stored(state, mark[1])
            run.plans.append(plan)
            return 1 if batch else 0


def _note_stored(state: State, first: int) -> None:
    for step in state.decided[first:]:
        if step.plan.client is not None:
            state.note_stored(step.plan.client.client_id)
        if step.plan.transaction is not None:
            state.note_stored(step.plan.transaction.scope)


def _needs(runs: Sequence[Run]) -> list[Need]:
    return [need for run in runs for need in run.needs]
