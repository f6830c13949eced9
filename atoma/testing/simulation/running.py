"""Runs one seed from beginning to end."""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from atoma.ports import Environment
from atoma.testing.simulation.calm import CalmWorld
from atoma.testing.simulation.disks import is_of_a_disk
from atoma.testing.simulation.encounters import Kind
from atoma.testing.simulation.extras import PLAIN, Extras
from atoma.testing.simulation.planted import plant
from atoma.testing.simulation.report import Report, Violation
from atoma.testing.simulation.scheduling import Trace, run_seeded
from atoma.testing.simulation.swarm import Swarm, draw_calm, draw_kept, draw_restores, draw_swarm
from atoma.testing.simulation.world import World


class _Complaints(logging.Handler):
    """Errors that the product logs because it has nobody to raise them to."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first: logging.LogRecord | None = None
        self.disks_fail = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first one."""
        errors = [record.exc_info[1]] if record.exc_info else [*(record.args or ())]
        if not (self.disks_fail and any(isinstance(error, BaseException) and is_of_a_disk(error) for error in errors)):
            self.first = self.first or record


@contextmanager
def _complaints() -> Generator[_Complaints]:
    handler = _Complaints()
    loggers = [logging.getLogger(name) for name in ("atoma", "atoma_stores", "atoma_transports")]
    propagated = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield handler
    finally:
        for logger, propagates in zip(loggers, propagated, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagates


def scratch() -> str | None:
    """A folder in memory where there is one: files there are files, and an fsync costs nothing."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _swarm(dice: random.Random, kind: Kind) -> Swarm:
    swarm = draw_swarm(dice)
    if kind == "calm":
        return draw_calm(swarm, dice)
    if kind == "steady":
        return swarm
    return replace(swarm, kind=kind, restores=(draw_kept if kind == "kept" else draw_restores)(dice))


def simulate(seed: int, planted: str = "", *, kind: Kind = "steady", extras: Extras = PLAIN) -> Report:
    """Run one seed from beginning to end.

    Args:
        seed: Decides everything.
        planted: Name of a bug to plant for this run, see ``PLANTED``.
        kind: ``restored`` adds disasters with files: restores, copies, forgotten clients; ``kept`` has many of them, after which
            rows are kept that nobody decides about; ``calm`` is one restore of the hub, and nothing else.
        extras: What it has beside plain writes.

    Returns:
        What happened; a broken promise is in it, not raised.

    Raises:
        ValueError: A run of this kind cannot have one of the extras.
    """
    extras.check(kind)
    wall_ms = Environment().wall_ms
    began_ms = wall_ms()
    dice = random.Random(seed)
    trace = Trace()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="atoma-", dir=scratch()))
        complaints = stack.enter_context(_complaints())
        complaints.disks_fail = extras.disks > 0
        stack.enter_context(plant(planted))
        swarm = replace(_swarm(dice, kind), extras=extras)
        world = (CalmWorld if kind == "calm" else World)(Path(folder), swarm, dice, trace)
        violation: Violation | None = None
        try:
            run_seeded(world.main, seed, trace)
        except Exception as error:
            violation = Violation("unexpected", type(error).__name__, str(error))
            violation.__cause__ = error
        if complaints.first is not None:
            record = complaints.first
            cause = f": {record.exc_info[1]!r}" if record.exc_info else ""
            violation = violation or Violation("complaint", record.name, record.getMessage() + cause)
    return Report(
        seed,
        planted,
        world.violation or violation,
        world.counts,
        trace.digest,
        world.virtual_s,
        wall_s=(wall_ms() - began_ms) / 1000,
        met=world.encounters.met,
        kind=kind,
        extras=extras,
    )
