"""Everything that can keep replication waiting: for every request that it makes, every code that may answer it.

The codes are those of the one table, and what is done about each is what the lanes do; so nothing can be answered that has no row.
Each has a way out that a test walks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from atoma.codes import CODES, HELP, Waits, row
from atoma.contracts.values import ErrorInfo
from atoma.errors import RemoteError, Resync
from atoma.sync.failures import Course, HistoryMoved, SyncCall, course, history_moved, of_this_file

ShownAs: TypeAlias = Waits | Literal["scope", "inbox", ""]
"""Where it is seen: the state in the status meanwhile, ``scope`` one scope alone has the error, ``inbox`` the write is there; empty for
what keeps nothing waiting."""

CALLS: tuple[SyncCall, ...] = get_args(SyncCall)

OTHERS: Mapping[str, str] = MappingProxyType(
    {
        "query": "its caller is told",
        "write": "its caller is told",
        "resolve": "its caller is told",
        "presence": "whoever is present is told; rows go on",
        "appear": "whoever is present is told; rows go on",
    }
)
"""Requests to a hub that replication does not make: who is told when one fails."""


class Condition(Struct, frozen=True):
    """A request that is answered with a code.

    Attributes:
        call: The request.
        code: The code.
        course: What is done about it without anybody's help.
        seen: Where it is seen.
        shown: The code that is seen there.
    """

    call: SyncCall
    code: str
    course: Course
    seen: ShownAs
    shown: str

    @property
    def helps(self) -> str:
        """What helps, for a person."""
        return HELP[row(self.shown).help]


def state_of(error: ErrorInfo, *, session: bool) -> Waits:
    """The state while ``error`` keeps replication waiting, with a session that goes on or without one."""
    waits = row(condition_code(error)).waits
    if session:
        return "online" if waits == "online" else "stalled"
    return "stalled" if waits == "stalled" else "offline"


def condition(call: SyncCall, code: str) -> Condition:
    """What becomes of ``call``, of a device that follows its scopes, when it is answered with ``code``."""
    error = RemoteError("", remote_code=code)
    looked_at = of_this_file(error) if call != "open" else False
    if looked_at or (call == "pull" and history_moved(error)):
        return Condition(call, code, Course.ANEW, "offline", HistoryMoved.code)
    doing = course(call, error)
    info = ErrorInfo(code, "")
    match doing:
        case Course.AGAIN:
            return Condition(call, code, doing, state_of(info, session=True), code)
        case Course.ANEW | Course.SLOWLY:
            return Condition(call, code, doing, state_of(info, session=False), code)
        case Course.SNAPSHOT:
            return Condition(call, code, doing, "scope", Resync.code)
        case Course.ASIDE:
            return Condition(call, code, doing, "scope", code)
        case Course.SMALLER:
            return Condition(call, code, doing, "inbox" if call == "push" else "stalled", code)
        case Course.WITHOUT:
            return Condition(call, code, doing, "", code)


def conditions() -> Iterator[Condition]:
    """Every one: each request with each code of the table."""
    for call in CALLS:
        for code in CODES:
            yield condition(call, code)


def condition_code(error: ErrorInfo) -> str:
    """The code under which ``error`` is a condition: of a hub that is in trouble itself, the trouble."""
    reason = error.info.get("reason", "")
    return reason if reason in CODES and row(reason).waits == "stalled" else error.code


def what_helps(error: ErrorInfo) -> str:
    """What helps against ``error``, for a person."""
    return HELP[row(condition_code(error)).help]
