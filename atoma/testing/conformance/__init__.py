"""Checks for authors of transports, engines and nodes: what every one of them promises, put to the test.

A check is a promise and the code that breaks when it is not kept. Tables of checks run in any test runner, or in none:
:func:`run_checks` runs a whole table and reports, :func:`check_promise` runs one check inside a Trio test.
"""

from __future__ import annotations

from collections.abc import Mapping

from atoma.testing.conformance.cancelling import cancel_everywhere, cancel_sampled
from atoma.testing.conformance.checks import (
    Check,
    CheckFailed,
    NotChecked,
    Report,
    Site,
    Verdict,
    check_promise,
    run_checks,
)
from atoma.testing.conformance.engines import overlay, units
from atoma.testing.conformance.engines.bench import EngineSite
from atoma.testing.conformance.hosts import TOKEN, HookedHost, TinyHub
from atoma.testing.conformance.nodes import CHECKS as _OF_NODES
from atoma.testing.conformance.nodes import NodeGround, NodeSite
from atoma.testing.conformance.notes import NOTES, NOTES_SCHEMA, Note
from atoma.testing.conformance.sites import (
    Faults,
    Ground,
    MemorySite,
    PipeGround,
    SocketSite,
    TransportSite,
)
from atoma.testing.conformance.transports import calls, cancels, frames, life, losses, streams

TRANSPORT_CHECKS: Mapping[str, Check[TransportSite]] = {
    **calls.CHECKS,
    **streams.CHECKS,
    **cancels.CHECKS,
    **losses.CHECKS,
    **life.CHECKS,
    **frames.CHECKS,
}
"""What every transport promises, whatever carries its bytes."""

ENGINE_CHECKS: Mapping[str, Check[EngineSite]] = {**units.CHECKS, **overlay.CHECKS}
"""What every local engine promises, wherever it keeps its rows."""

NODE_CHECKS: Mapping[str, Check[NodeSite]] = {**_OF_NODES}
"""What every node promises the kernel."""

__all__ = [
    "ENGINE_CHECKS",
    "NODE_CHECKS",
    "NOTES",
    "NOTES_SCHEMA",
    "TOKEN",
    "TRANSPORT_CHECKS",
    "Check",
    "CheckFailed",
    "EngineSite",
    "Faults",
    "Ground",
    "HookedHost",
    "MemorySite",
    "NodeGround",
    "NodeSite",
    "NotChecked",
    "Note",
    "PipeGround",
    "Report",
    "Site",
    "SocketSite",
    "TinyHub",
    "TransportSite",
    "Verdict",
    "cancel_everywhere",
    "cancel_sampled",
    "check_promise",
    "run_checks",
]
