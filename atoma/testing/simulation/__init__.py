"""Deterministic simulation: real clients and a real hub in one thread, on virtual time, under seeded faults.

``simulate(seed)`` runs one seed; ``python -m atoma.testing.simulation --seed N`` does it from a shell. The same seed
gives the same run, step for step, in every process.
"""

from __future__ import annotations

from atoma.testing.simulation.encounters import Fault, Kind, State, apart, can_meet, rarest, seldom, table
from atoma.testing.simulation.extras import Extras
from atoma.testing.simulation.planted import PLANTED, plant
from atoma.testing.simulation.report import Report, Violation, encountered, pace, scarce, total
from atoma.testing.simulation.running import simulate

__all__ = [
    "PLANTED",
    "Extras",
    "Fault",
    "Kind",
    "Report",
    "State",
    "Violation",
    "apart",
    "can_meet",
    "encountered",
    "pace",
    "plant",
    "rarest",
    "scarce",
    "seldom",
    "simulate",
    "table",
    "total",
]
