"""Everything that can keep replication waiting, named by the code of the error in the status.

Which codes these are, where each is seen and what helps stands in the table of codes. Each has a way out that a test walks.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from atoma.codes import CODES, HELP, Code, row
from atoma.contracts.values import ErrorInfo

CONDITIONS: Mapping[str, Code] = MappingProxyType({name: code for name, code in CODES.items() if code.waits})
"""Every condition by its code."""


def condition_code(error: ErrorInfo) -> str:
    """The code under which ``error`` is a condition: of a hub that failed, its reason where that is one."""
    reason = error.info.get("reason", "")
    return reason if reason in CONDITIONS else error.code


def what_helps(error: ErrorInfo) -> str:
    """What helps against ``error``, for a person."""
    return HELP[row(condition_code(error)).help]


def is_asked_for(error: ErrorInfo) -> bool:
    """Whether ``error`` is no more than the hub's wish for a pause, of which nothing is wrong."""
    return row(condition_code(error)).waits == "online"
