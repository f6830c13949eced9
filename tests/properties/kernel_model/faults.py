"""What goes wrong: the table of failures, as the error classes document them."""

from __future__ import annotations

from dataclasses import dataclass

AGAIN = 3.0
"""Seconds that an overloaded hub asks to wait."""


@dataclass(frozen=True)
class Fault:
    """An error: its code, its class, whether it may be repeated, whether nothing was sent, what it asks to wait.

    ``here``: a guard on this side turned the request away, so that nobody was asked.
    """

    code: str
    kind: str
    again: bool = False
    unsent: bool = False
    wait: float = 0.0
    here: bool = False


class Failed(Exception):
    """A step ended with a fault."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


FAULTS = {
    "notsent": Fault("CONNECT_FAILED", "retryable", again=True, unsent=True),
    "broken": Fault("CHANNEL_BROKEN", "retryable", again=True),
    "busy": Fault("BUSY", "retryable", again=True),
    "later": Fault("OVERLOADED", "retryable", again=True, wait=AGAIN),
    "unavailable": Fault("UNAVAILABLE", "retryable", again=True),
    "slow": Fault("TIMEOUT", "retryable", again=True),
    "conflict": Fault("CONFLICT", "rejected"),
    "denied": Fault("DENIED", "rejected"),
    "full": Fault("DISK_FULL", "fatal"),
}
AMBIGUOUS = ("broken", "unavailable", "slow")
"""After these a write may have been applied; it may be repeated, because its key is the same."""


def fault_of(kind: str, write: bool, remote: bool | None) -> Fault | None:
    """What a node's behaviour means; None for an answer."""
    if kind in ("foreign", "lie", "wrong-count", "wrong-status"):
        if write and (remote or kind.startswith("wrong")):
            return Fault("UNKNOWN_OUTCOME", "unknown")
        return Fault("EXECUTION", "fatal")
    if write and kind in AMBIGUOUS:
        return Fault("UNKNOWN_OUTCOME", "unknown", again=True)
    return FAULTS.get(kind)
