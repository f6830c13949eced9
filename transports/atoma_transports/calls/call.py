"""What every call has, in whatever language it is made: an id, a trace, the caller's deadline, and a subject."""

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
"""Both ends watch the deadline; within this margin the caller's own scope speaks."""


def trace_of(message: msgspec.Struct) -> str:
    """The caller's trace in ``message``; empty when it has none."""
    trace_id = getattr(message, "trace_id", "")
    return trace_id if isinstance(trace_id, str) else ""


def budget_now() -> int:
    """Milliseconds from now to the caller's deadline, rounded up; -1 without a deadline."""
    return budget_until(trio.current_effective_deadline())


def budget_until(deadline: float) -> int:
    """Milliseconds from now to ``deadline``, rounded up; -1 for none."""
    if math.isinf(deadline):
        return -1 if deadline > 0 else 0
    return min(BUDGET_MS_MAX, max(0, math.ceil((deadline - trio.current_time()) * 1000)))


def deadline_of(budget_ms: int) -> float:
    """The deadline on this side's clock that a budget stands for; ``math.inf`` for none."""
    return math.inf if budget_ms < 0 else trio.current_time() + budget_ms / 1000


async def leave_to_scope(refused: ErrorInfo) -> None:
    """Wait for the caller's own scope to speak, where both ends have seen the same deadline pass."""
    if refused.code == "TIMEOUT":
        deadline = trio.current_effective_deadline()
        if deadline - trio.current_time() <= DEADLINE_MARGIN_S:
            await trio.sleep_until(deadline)


def check_subject(before: str, now: str) -> None:
    """See that another token is the same subject's; a side that does not say whose it is cannot be compared.

    Raises:
        RemoteError: ``PERMISSION_DENIED``: it is somebody else's.
    """
    if before and now and before != now:
        text = "the new token belongs to another subject, and a connection belongs to one subject: connect again as the other"
        raise RemoteError(text, remote_code="PERMISSION_DENIED")
