"""A policy as data: a name and two graphs of combinators, one for queries and one for writes.

The kernel has the built-in combinators and compiles the graphs; a user's own combinator only has to look like a
:class:`RunnableCombinator`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import msgspec

from atoma.contracts.execution import QueryRequest, QueryResult, WriteRequest, WriteResult

Req = TypeVar("Req", bound=QueryRequest | WriteRequest)
Res = TypeVar("Res", bound=QueryResult | WriteResult)
WriteReach: TypeAlias = Literal["local", "remote", "both", "later"]
"""How far the writes of a policy go on stores that do not replicate.

``local`` stays on this device; ``remote`` asks another machine and is answered by it, or by this one in its place;
``both`` asks another machine and writes here afterwards; ``later`` is answered here and goes to another machine
afterwards.
"""


@runtime_checkable
class Combinator(Protocol):
    """One element of a policy graph: a frozen, hashable value."""

    @property
    def children(self) -> Sequence[Combinator]:
        """The elements below this one, in order."""
        ...

    @property
    def label(self) -> str:
        """Short text for drawings and the trail."""
        ...

    @property
    def nodes(self) -> Sequence[str]:
        """Ids of the nodes that this element itself (not its children) runs."""
        ...


@runtime_checkable
class RunnableCombinator(Combinator, Protocol):
    """A Protocol for a user's own combinator: it decides when its children run, and which answer is given."""

    async def run(self, request: Req, steps: Sequence[Callable[[Req], Awaitable[Res]]]) -> Res:
        """Carry out ``request`` with ``steps``, the compiled children in order.

        A step raises an ``AtomaError`` when it fails. Cancellation must pass through. The steps record the trail and
        the events; an exception of the combinator's own is translated into an ``ExecutionError``. After a step whose
        write may have been carried out, every failure but a refusal is ``WriteUnknown``.
        """
        ...


class Policy(msgspec.Struct, frozen=True):
    """The way in which requests are carried out.

    Attributes:
        name: Unique name.
        query: Graph for queries; None when the policy cannot query.
        write: Graph for writes; None when the policy cannot write.
    """

    name: str
    query: Combinator | None
    write: Combinator | None
