"""Threads that belong to one database: a queue in, batched wake-ups of the loop out."""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

import trio

from atoma.ports.environment import Environment

T = TypeVar("T")
_log = logging.getLogger("atoma.sqlite")

INTERRUPTED_S = 5.0
INTERRUPT_AGAIN_S = 0.002


def uses_threads(environment: Environment) -> bool:
    """Whether work may be done in threads; on virtual time one that works while the clock jumps would let hours pass."""
    testing = sys.modules.get("trio.testing")
    virtual = testing is not None and isinstance(trio.lowlevel.current_clock(), testing.MockClock)
    return environment.executor == "thread" and not virtual


class Job(Generic[T]):
    """One piece of blocking work with the task that waits for it.

    It is made as ``Job(body)``: ``Job[Body](body)`` costs seven times as much.

    Attributes:
        body: The work.
        full: Whether it has to be on the disk before the answer (writers only).
        on_done: Called with the result on the loop's thread, before the waiting task runs; None for nothing.
        done: Whether it ran.
        value: What it returned.
        error: What it raised, None when it returned.
        task: Who waits for it, None for nobody.
        settled: Set once it has a result, None when nobody waits in this way.
        interrupt: Stops it while it runs, None when it cannot be stopped; set by the thread that takes it.
        taken: A thread has begun with it.
        withdrawn: Its caller has given up before that.
        deadline: When, on Trio's clock, it has to be stopped; ``math.inf`` for never.
        overdue_at: When whoever carries it out counts as stuck.
        seconds: How long it ran.
    """

    __slots__ = (
        "body", "deadline", "done", "error", "full", "interrupt", "on_done", "overdue_at", "seconds", "settled", "taken",
        "task", "value", "withdrawn"
    )  # fmt: skip

    def __init__(
        self,
        body: T,
        *,
        full: bool = False,
        on_done: Callable[[object], None] | None = None,
        deadline: float = math.inf,
        overdue_at: float = math.inf,
    ) -> None:
        self.body = body
        self.full = full
        self.on_done = on_done
        self.done = False
        self.value: object = None
        self.error: BaseException | None = None
        self.task: trio.lowlevel.Task | None = None
        self.settled: trio.Event | None = None
        self.interrupt: Callable[[Job[T]], None] | None = None
        self.taken = False
        self.withdrawn = False
        self.deadline = deadline
        self.overdue_at = overdue_at
        self.seconds = 0.0

    def succeed(self, value: object) -> None:
        """Keep the result."""
        self.value, self.error, self.done = value, None, True

    def fail(self, error: BaseException) -> None:
        """Keep the error."""
        self.value, self.error, self.done = None, error, True

    def unwrap(self) -> object:
        """The value, or raise the error."""
        assert self.done
        error, self.error = self.error, None  # or the traceback, its frames and the job would hold one another
        if error is not None:
            raise error
        return self.value


class JobQueue(Generic[T]):
    """Jobs on their way to one or more workers; a job can be withdrawn until a worker has taken it."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job[T] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._told: Callable[[], None] | None = None

    def tell(self, told: Callable[[], None]) -> None:
        """Call ``told`` whenever something was put in, for a worker without a thread that could wait for it."""
        self._told = told

    def put(self, job: Job[T]) -> None:
        """Hand ``job`` to a worker."""
        self._put(job)

    def stop(self) -> None:
        """Let one worker end once everything before is done."""
        self._put(None)

    def _put(self, job: Job[T] | None) -> None:
        self._jobs.put(job)
        if self._told is not None:
            self._told()

    def withdraw(self, job: Job[T]) -> bool:
        """Take ``job`` out again; False when a thread has begun with it."""
        with self._lock:
            job.withdrawn = not job.taken
            return job.withdrawn

    def take(self, at_most: int, *, wait: bool) -> tuple[list[Job[T]], bool]:
        """Take what is there up to ``at_most``, waiting for the first job or not; also whether the worker has to end."""
        jobs: list[Job[T]] = []
        try:
            job = self._jobs.get(block=wait)
        except Empty:
            return jobs, False
        while job is not None:
            with self._lock:
                if not job.withdrawn:
                    job.taken = True
                    jobs.append(job)
            if len(jobs) >= at_most:
                return jobs, False
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs, False
        return jobs, True


class JobRunner(Protocol[T]):
    """The work of a thread on the jobs it took; every job has a result afterwards."""

    def run(self, jobs: Sequence[Job[T]]) -> None:
        """Run the jobs in order."""
        ...

    def tidy(self) -> None:
        """Do what the callers, who have their answers, need not wait for; must not raise."""
        ...

    def close(self) -> None:
        """Let go of what the thread holds; called in the thread, last."""
        ...


class Worker(Generic[T]):
    """A worker on a queue, until it is told to stop.

    Args:
        name: Name of the thread.
        queue: Where its jobs come from; without a thread it is the only one on it.
        open_runner: Called with its first job; makes what runs the jobs.
        jobs_max: How many jobs it takes at once.
        thread: Work in a thread of its own; else in steps on the loop's thread, each as a callback after the task steps
            that are due: where time is virtual it would jump while a thread works.
    """

    def __init__(
        self,
        name: str,
        queue: JobQueue[T],
        open_runner: Callable[[], JobRunner[T]],
        *,
        jobs_max: int = 1,
        thread: bool,
    ) -> None:
        self.stopped = trio.Event()
        self._name = name
        self._queue = queue
        self._open_runner = open_runner
        self._jobs_max = jobs_max
        self._runner: JobRunner[T] | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True) if thread else None
        if self._thread is None:
            queue.tell(lambda: self._token.run_sync_soon(self._take_turn, False))
        else:
            self._thread.start()

    async def join(self) -> None:
        """Wait until it has ended; something must have told its queue to stop."""
        await self.stopped.wait()
        if self._thread is not None:
            self._thread.join()  # it has nothing left to do but return

    def _main(self) -> None:
        while self._take_turn(True):
            pass

    def _take_turn(self, wait: bool) -> bool:
        """Run what is in the queue, up to so many jobs; False when that was the end."""
        jobs, stop = self._queue.take(self._jobs_max, wait=wait)
        if jobs:
            try:
                self._runner = self._runner or self._open_runner()
                self._runner.run(jobs)
            except BaseException as error:  # the callers must be answered, whatever happens
                for job in jobs:
                    if not job.done:
                        job.fail(error)
            self._token.run_sync_soon(deliver, jobs)
            if self._runner is not None:
                self._runner.tidy()
        if stop:
            self._end()
        return not stop

    def _end(self) -> None:
        try:
            if self._runner is not None:
                self._runner.close()
        except BaseException:
            _log.exception("%s: what its thread holds was not let go of", self._name)
        self._token.run_sync_soon(self.stopped.set)


def deliver(jobs: Sequence[Job[T]]) -> None:
    """Wake the waiting tasks, in order; runs on the loop's thread."""
    for job in jobs:
        if job.on_done is not None and job.error is None:
            try:
                job.on_done(job.value)
            except Exception as error:
                job.fail(error)
        if job.task is not None:
            trio.lowlevel.reschedule(job.task)
        if job.settled is not None:
            job.settled.set()


async def wait_for(job: Job[T], queue: JobQueue[T]) -> object:
    """Hand ``job`` to ``queue`` and wait for its result.

    A caller that is cancelled before a thread has begun takes the job out; later it gets the result, and Trio raises
    at its next checkpoint.
    """

    def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
        return trio.lowlevel.Abort.SUCCEEDED if queue.withdraw(job) else trio.lowlevel.Abort.FAILED

    job.task = trio.lowlevel.current_task()
    queue.put(job)
    await trio.lowlevel.wait_task_rescheduled(abort)
    return job.unwrap()


async def wait_or_interrupt(job: Job[T], queue: JobQueue[T]) -> object:
    """Hand ``job`` to ``queue`` and wait for its result; for work that may be stopped at any point.

    A caller that is cancelled takes the job out, or has it interrupted where it is and waits until it has ended, so
    that nothing of it runs on: at most ``INTERRUPTED_S``.
    """
    job.settled = trio.Event()
    queue.put(job)
    try:
        await job.settled.wait()
    except trio.Cancelled:
        if not queue.withdraw(job):
            await _stop(job, job.settled)
        raise
    return job.unwrap()


async def _stop(job: Job[T], settled: trio.Event) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + INTERRUPTED_S):
        while not settled.is_set():
            if job.interrupt is not None:
                job.interrupt(job)
            with trio.move_on_after(INTERRUPT_AGAIN_S):  # one that came between two statements stopped nothing
                await settled.wait()
