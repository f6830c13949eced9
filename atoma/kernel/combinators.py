"""The combinators of policies: frozen, hashable values that say what is to happen, without doing it.

| combinator | meaning |
|---|---|
| ``node(id)`` | run a registered node |
| ``sequence(a, b, …)`` | one after the other; the first that fails or refuses ends it |
| ``fallback(a, b, …)`` | the next one if the previous one failed (reads: retryably, writes: certainly not sent) |
| ``parallel(a, b, …)`` | all at once; ``answer`` says how many have to succeed |
| ``race(a, b, …)`` | all at once; the first good answer wins, the others are cancelled |
| ``hedge(a, b, delay_s=)`` | b joins if a is late |
| ``merge(a, b, …)`` | all at once, joined into one result by a merge node (queries only) |
| ``timeout(step, …)`` | a budget inside the caller's budget |
| ``retry(step, …)`` | again after a retryable failure, with exponential, fully jittered delays |
| ``breaker(step, …)`` | a circuit breaker: after several failures in a row, calls are refused for a while |
| ``bulkhead(step, …)`` | a limit on concurrent calls and on waiting ones |
| ``atomic(id, …)`` | staging nodes in one local transaction (writes only) |
| ``detach(step)`` | after the answer, in the client's nursery |
| ``verdict(step)`` | if the write is strict, wait for the authority's verdict on what the step wrote (writes only) |
| ``cache(step, …)`` | recent and running query results, shared (queries only) |
| ``when_synced(a, b)`` | a for stores that replicate, b for the others |
| ``refuse(reason)`` | the request is refused |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Final, Literal, TypeAlias, TypeGuard

import msgspec

from atoma.concurrency.backoff import Backoff
from atoma.contracts.checks import is_a
from atoma.contracts.execution import QueryRequest
from atoma.contracts.policy import Combinator
from atoma.errors import ConfigurationError

AnswerRule: TypeAlias = Literal["first", "all"] | int

BACKOFF = Backoff()


class NodeStep(msgspec.Struct, frozen=True):
    """The run of a node; see :func:`node`."""

    id: str

    @property
    def children(self) -> tuple[Combinator, ...]:
        """None."""
        return ()

    @property
    def label(self) -> str:
        """The id."""
        return self.id

    @property
    def nodes(self) -> tuple[str, ...]:
        """The id."""
        return (self.id,)


class _Several(msgspec.Struct, frozen=True):
    """Several children and no node of its own."""

    children: tuple[Combinator, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """None of its own."""
        return ()


class _Around(msgspec.Struct, frozen=True):
    """One child and no node of its own."""

    step: Combinator

    @property
    def children(self) -> tuple[Combinator, ...]:
        """The one child."""
        return (self.step,)

    @property
    def nodes(self) -> tuple[str, ...]:
        """None of its own."""
        return ()


class SequenceStep(_Several, frozen=True):
    """Steps one after the other; see :func:`sequence`."""

    label = "sequence"


class FallbackStep(_Several, frozen=True):
    """A step and its alternatives; see :func:`fallback`."""

    label = "fallback"


class ParallelStep(_Several, frozen=True):
    """Steps all at once; see :func:`parallel`."""

    answer: AnswerRule

    @property
    def label(self) -> str:
        """``parallel`` with its rule."""
        return f"parallel {self.answer if isinstance(self.answer, str) else f'quorum {self.answer}'}"


class RaceStep(_Several, frozen=True):
    """Steps of which the first good answer wins; see :func:`race` and :func:`hedge`."""

    delay_s: float

    @property
    def label(self) -> str:
        """``race``, or ``hedge`` with its delay."""
        return f"hedge {self.delay_s:g} s" if self.delay_s else "race"


class MergeStep(_Several, frozen=True):
    """Steps whose results are joined; see :func:`merge`."""

    by: str
    tolerant: bool

    @property
    def label(self) -> str:
        """``merge`` and the node that does it."""
        return f"merge by {self.by}" + (", tolerant" if self.tolerant else "")

    @property
    def nodes(self) -> tuple[str, ...]:
        """The merge node."""
        return (self.by,)


class TimeoutStep(_Around, frozen=True):
    """A budget of time around a step; see :func:`timeout`."""

    seconds: float

    @property
    def label(self) -> str:
        """``timeout`` with its budget."""
        return f"timeout {self.seconds:g} s"


class RetryStep(_Around, frozen=True):
    """Retries of a step; see :func:`retry`."""

    attempts: int
    backoff: Backoff

    @property
    def label(self) -> str:
        """``retry`` with its bound."""
        return f"retry {self.attempts}×"


class BreakerStep(_Around, frozen=True):
    """A circuit breaker around a step; see :func:`breaker`."""

    failures: int
    window_s: float
    cooldown_s: float

    @property
    def label(self) -> str:
        """``breaker`` with its settings."""
        return f"breaker {self.failures} in {self.window_s:g} s, cooldown {self.cooldown_s:g} s"


class BulkheadStep(_Around, frozen=True):
    """A bound on concurrent runs of a step; see :func:`bulkhead`."""

    limit: int
    queue: int

    @property
    def label(self) -> str:
        """``bulkhead`` with its bounds."""
        return f"bulkhead {self.limit} + {self.queue} waiting"


class AtomicStep(msgspec.Struct, frozen=True):
    """Stages of one local transaction; see :func:`atomic`."""

    ids: tuple[str, ...]

    @property
    def children(self) -> tuple[Combinator, ...]:
        """The staging nodes."""
        return tuple(NodeStep(id) for id in self.ids)

    @property
    def label(self) -> str:
        """``atomic``."""
        return "atomic"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The staging nodes."""
        return self.ids


class DetachStep(_Around, frozen=True):
    """A step behind the answer; see :func:`detach`."""

    label = "detach"


class VerdictStep(_Around, frozen=True):
    """A wait for the authority's verdict; see :func:`verdict`."""

    label = "verdict"


class CacheStep(_Around, frozen=True):
    """A cache in front of a step; see :func:`cache`."""

    ttl_s: float
    key: Callable[[QueryRequest], Hashable] | None

    @property
    def label(self) -> str:
        """``cache`` with its time to live."""
        return f"cache {self.ttl_s:g} s"


class SyncedStep(msgspec.Struct, frozen=True):
    """A choice by whether the store replicates; see :func:`when_synced`."""

    synced: Combinator
    otherwise: Combinator

    @property
    def children(self) -> tuple[Combinator, ...]:
        """Both ways."""
        return (self.synced, self.otherwise)

    @property
    def label(self) -> str:
        """``synced store?``."""
        return "synced store?"

    @property
    def nodes(self) -> tuple[str, ...]:
        """None of its own."""
        return ()


class RefuseStep(msgspec.Struct, frozen=True):
    """A refusal with its reason; see :func:`refuse`."""

    reason: str

    @property
    def children(self) -> tuple[Combinator, ...]:
        """None."""
        return ()

    @property
    def label(self) -> str:
        """``refuse`` and why."""
        return f"refuse: {self.reason}"

    @property
    def nodes(self) -> tuple[str, ...]:
        """None."""
        return ()


OURS: Final = (
    AtomicStep, BreakerStep, BulkheadStep, CacheStep, DetachStep, FallbackStep, MergeStep, NodeStep, ParallelStep,
    RaceStep, RefuseStep, RetryStep, SequenceStep, SyncedStep, TimeoutStep, VerdictStep,
)  # fmt: skip
"""The classes of Atoma's own elements of a policy graph."""


def is_step(value: object) -> TypeGuard[Combinator]:
    """Return whether ``value`` is an element of a policy graph, without the slow check of a Protocol for Atoma's own."""
    return isinstance(value, OURS) or is_a(value, Combinator)


def node(id: str) -> NodeStep:
    """Run the node registered as ``id``.

    Its exceptions are translated by a fixed table; every run leaves one entry in the trail.
    """
    if not is_a(id, str) or not id:
        raise ConfigurationError("node() needs the id of a node")
    return NodeStep(id)


def sequence(*steps: Combinator) -> SequenceStep:
    """Run the steps one after the other; the answer is the last one's.

    The first step that fails, or whose write was partly refused, ends the sequence: later steps are not started. A write that
    fails after an earlier step succeeded is ``WriteUnknown``, unless it was refused. A ``detach`` among the steps (not
    as the first) is started after the previous step and does not change the answer.
    """
    return SequenceStep(_children("sequence", steps))


def fallback(*steps: Combinator) -> FallbackStep:
    """Try the steps in order until one answers.

    A query goes on after a retryable failure. A write goes on only if the previous step certainly sent nothing:
    connection refused, breaker open, overloaded before sending. A refusal is the answer and never falls back. If all
    have failed, ``FallbackExhausted`` holds the errors.
    """
    return FallbackStep(_children("fallback", steps))


def parallel(*steps: Combinator, answer: AnswerRule = "first") -> ParallelStep:
    """Run all steps at the same time; a refusal ends it at once and is the answer.

    Args:
        steps: At least one.
        answer: ``first`` takes the first success and cancels the rest. ``all`` needs every step; one failure cancels
            the rest. A number needs that many successes and cancels the rest. The answer is that of the step that
            completed it.
    """
    if answer not in ("first", "all") and type(answer) is not int:
        raise ConfigurationError(f"parallel() needs answer='first', 'all' or a number, not {answer!r}")
    if isinstance(answer, int) and not 1 <= answer <= len(steps):
        raise ConfigurationError(f"a quorum of {answer} is not possible with {len(steps)} steps")
    return ParallelStep(_children("parallel", steps), answer)


def race(*steps: Combinator) -> RaceStep:
    """Run all steps at the same time; the first good answer wins and the others are cancelled.

    The losers are shown in the trail as cancelled. When all fail: ``FallbackExhausted`` (see :func:`fallback`).
    """
    return RaceStep(_children("race", steps), 0.0)


def hedge(*steps: Combinator, delay_s: float) -> RaceStep:
    """Like :func:`race`, but each further step joins only when the previous ones are late by ``delay_s`` seconds.

    It joins at once if all previous ones have failed in a way that allows a fallback.
    """
    return RaceStep(_children("hedge", steps), _positive("hedge", "delay_s", delay_s))


def merge(*steps: Combinator, by: str = "merge", tolerant: bool = False) -> MergeStep:
    """Run all steps at the same time and let the merge node ``by`` join their results into one. Queries only.

    Args:
        steps: The steps, in the order in which the merge node gets their results.
        by: Id of the merge node; ``merge`` is built in (see :class:`atoma.kernel.merging.MergeNode`), and a plugin
            may register others, or replace it.
        tolerant: Whether to answer from the steps that succeeded if others failed retryably; the trail shows both.
    """
    return MergeStep(_children("merge", steps), by, tolerant)


def timeout(step: Combinator, seconds: float) -> TimeoutStep:
    """Give ``step`` a budget of ``seconds``, or what remains of the caller's deadline if that is less.

    When it runs out, the step is cancelled: ``NodeTimeout`` for a query, ``WriteUnknown`` for a write.
    """
    return TimeoutStep(_step("timeout", step), _positive("timeout", "seconds", seconds))


def retry(step: Combinator, attempts: int = 3, backoff: Backoff = BACKOFF) -> RetryStep:
    """Try again after a retryable failure, with the same idempotency key, at most ``attempts`` times in all.

    The delay is exponential with full jitter, never shorter than the other side asks for; a delay that would exceed
    the budget is not begun. A write that was ambiguous once stays ``WriteUnknown`` unless a later attempt gets a verdict.
    """
    if not is_a(attempts, int) or attempts < 1:
        raise ConfigurationError(f"retry needs at least one attempt, not {attempts!r}")
    if not is_a(backoff, Backoff):
        raise ConfigurationError(f"retry takes backoff=Backoff(seconds), not {backoff!r}")
    return RetryStep(_step("retry", step), attempts, backoff)


def breaker(step: Combinator, failures: int = 5, window_s: float = 60.0, cooldown_s: float = 30.0) -> BreakerStep:
    """Refuse calls with ``CircuitOpen`` for ``cooldown_s`` after ``failures`` failures in a row within ``window_s``.

    Then one call is admitted as a probe: its success closes the breaker, its failure opens it again. A refusal is
    an answer, so it counts as a success; a call that was cancelled, or that a guard below refused, counts as
    neither. Steps that run the same nodes with the same settings share one breaker.
    """
    if failures < 1:
        raise ConfigurationError(f"breaker needs at least one failure, not {failures}")
    _positive("breaker", "window_s", window_s)
    return BreakerStep(_step("breaker", step), failures, window_s, _positive("breaker", "cooldown_s", cooldown_s))


def bulkhead(step: Combinator, limit: int, queue: int = 0) -> BulkheadStep:
    """Allow at most ``limit`` calls at once, and ``queue`` that wait in order; one more fails with ``Overloaded``.

    Steps that run the same nodes with the same bounds share one bulkhead.
    """
    if limit < 1 or queue < 0:
        raise ConfigurationError(f"bulkhead needs limit >= 1 and queue >= 0, not {limit} and {queue}")
    return BulkheadStep(_step("bulkhead", step), limit, queue)


def atomic(*ids: str) -> AtomicStep:
    """Run the staging nodes ``ids`` in one local transaction, with one call to the engine. Writes only."""
    if not ids or len(set(ids)) != len(ids):
        raise ConfigurationError("atomic() needs ids of nodes, each once")
    return AtomicStep(ids)


def detach(step: Combinator) -> DetachStep:
    """Run ``step`` in the client's nursery after the answer; only as a later step of a ``sequence``.

    The number of detached steps is bounded: if too many are running, a write fails with ``Overloaded`` before anything is written, and a query is
    answered without the step. Events report the outcome; closing the client cancels what still runs.
    """
    return DetachStep(_step("detach", step))


def verdict(step: Combinator) -> VerdictStep:
    """If the write is strict, wait for the authority's verdict on what ``step`` wrote. Writes only.

    An optimistic write is answered at the local commit and does not wait. A strict one waits as long as the caller's
    scope, or a ``timeout`` around this step, allows; if either ends the wait, the write stays queued. Entries that the authority
    refuses are refused in the result.
    """
    return VerdictStep(_step("verdict", step))


def cache(step: Combinator, ttl_s: float, key: Callable[[QueryRequest], Hashable] | None = None) -> CacheStep:
    """Answer equal queries from one result for ``ttl_s`` seconds, and share a running query. Queries only.

    Args:
        step: The step that answers if nothing is cached.
        ttl_s: Seconds for which a result may be reused; a commit of this client that changes the store, and a write to it,
            end it at once.
        key: A function whose results are equal for equal requests; None compares store and query.
    """
    return CacheStep(_step("cache", step), _positive("cache", "ttl_s", ttl_s), key)


def when_synced(synced: Combinator, otherwise: Combinator) -> SyncedStep:
    """Choose ``synced`` if the request touches a store that replicates, else ``otherwise``."""
    return SyncedStep(_step("when_synced", synced), _step("when_synced", otherwise))


def refuse(reason: str) -> RefuseStep:
    """Refuse every request that takes this path with ``PolicyNotAllowed``, before anything runs."""
    return RefuseStep(reason)


def subject(step: Combinator) -> str:
    """Return the nodes below a step, joined by ``+``: the name of guards and timeouts."""
    if isinstance(step, AtomicStep):
        return "+".join(step.ids)
    names = list(step.nodes)
    for child in step.children:
        names.extend(name for name in subject(child).split("+") if name and name not in names)
    return "+".join(names)


def _children(name: str, steps: tuple[Combinator, ...]) -> tuple[Combinator, ...]:
    if not steps:
        raise ConfigurationError(f"{name}() needs at least one step")
    for step in steps:
        _step(name, step)
    return steps


def _step(name: str, step: Combinator) -> Combinator:
    if not is_step(step):
        example = f"node({step!r})" if isinstance(step, str) else "node(…)"
        raise ConfigurationError(f"{name}() takes steps such as {example}, not {step!r}")
    return step


def _positive(name: str, argument: str, value: float) -> float:
    if not (is_a(value, int) or is_a(value, float)) or not 0 < value < math.inf:
        raise ConfigurationError(f"{name}() needs {argument} > 0 and finite, not {value!r}")
    return value
