"""Who may do what: access per scope."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias, runtime_checkable

from atoma.ports.service import Principal

Access: TypeAlias = Literal["none", "read", "write"]


@runtime_checkable
class Rules(Protocol):
    """Decides what a principal may do in a scope; asked at every call, in the decision itself for writes.

    A pure, quick function of its arguments. If it raises, the call fails as a fault of the hub (a retry may work) and
    nothing is decided.
    """

    def scope_access(self, principal: Principal, scope: str) -> Access:
        """``none``, ``read``, or ``write`` (which includes reading)."""
        ...


class EveryScope:
    """The rules of a hub that was given none: every authenticated principal may read and write every scope."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "EveryScope()"

    def scope_access(self, principal: Principal, scope: str) -> Access:
        """Always ``write``."""
        return "write"
