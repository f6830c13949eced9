"""The parts that every call has, whatever protocol carries it: an id, a trace, the caller's deadline, and a subject."""

from __future__ import annotations

import math

import msgspec
import trio

from atoma.contracts.values import ErrorInfo
from atoma.errors import RemoteError

ID_MAX = 2**53
BUDGET_MS_MAX = 2**40
TRACE_LENGTH_MAX = 200
DEADLINE_MARGIN_S = 0.25
"""Both ends watch the deadline; within this margin the caller's own scope is left to end the call."""


def trace_of(message: msgspec.Struct) -> str:
    """Return the caller's trace in ``message``; empty if it has none."""
    trace_id = getattr(message, "trace_id", "")
    return trace_id if isinstance(trace_id, str) else ""


def budget_now() -> int:
    """Return the milliseconds from now to the caller's deadline, rounded up; -1 without a deadline."""
    return budget_until(trio.current_effective_deadline())


def budget_until(deadline: float) -> int:
    """Return the milliseconds from now to ``deadline``, rounded up; -1 for none."""
    if math.isinf(deadline):
        return -1 if deadline > 0 else 0
    return min(BUDGET_MS_MAX, max(0, math.ceil((deadline - trio.current_time()) * 1000)))


def deadline_of(budget_ms: int) -> float:
    """Return the deadline, on this side's clock, that a budget stands for; ``math.inf`` for none."""
    return math.inf if budget_ms < 0 else trio.current_time() + budget_ms / 1000


async def leave_to_scope(refused: ErrorInfo) -> None:
    """Wait for the caller's own scope to end the call, if both ends have seen the same deadline pass."""
    if refused.code == "TIMEOUT":
        deadline = trio.current_effective_deadline()
        if deadline - trio.current_time() <= DEADLINE_MARGIN_S:
            await trio.sleep_until(deadline)


def check_subject(before: str, now: str) -> None:
    """Check that another token belongs to the same subject; a server that names no subject cannot be compared.

    Raises:
        RemoteError: ``PERMISSION_DENIED``: it belongs to another subject.
    """
    if before and now and before != now:
        text = "the new token belongs to another subject, and a connection belongs to one subject: connect again as the other"
        raise RemoteError(text, remote_code="PERMISSION_DENIED")
