"""What became of a direct write: its stored answer, or a fence under its key that makes "never" true from now on.

The fence is kept where answers are kept, for as long, and is decided in the same order as writes are: of a resolve and
a late copy of its write, whichever comes first decides for both.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoma.contracts.execution import ExecutionMeta, Resolution, ResolveRequest, Step, WriteResult, status_of
from atoma.hub.direct import ABANDONED, join_answers, told_items
from atoma.hub.keys import check_age
from atoma.hub.versions import Sees
from atoma.ports.hub import Facts, Need, WritePlan
from atoma.ports.service import Principal
from atoma.schema.schema import Schema


@dataclass(frozen=True, slots=True)
class ResolveDecision:
    """A decision that gives the answer kept under a key; where there is none, it keeps a fence there.

    Attributes:
        principal: Whose key it is; the same key of somebody else is another one.
        key: Key of the whole write.
    """

    principal: Principal
    key: str

    @property
    def need(self) -> Need:
        """What is kept under the key, and under those of the mutations of a unit that was several."""
        place = (self.principal.subject, self.key)
        return Need(answer=place, unit=place)

    def decide(self, facts: Facts) -> WritePlan:
        """The answer, or the fence.

        Raises:
            RemoteError: ``KEY_EXPIRED``: the write may have been decided so long ago that its answer is forgotten.
        """
        if facts.answer is not None:
            return WritePlan(reply=facts.answer)
        if facts.unit:
            return WritePlan(reply=join_answers(facts.unit))
        check_age(self.key, facts)
        return WritePlan(answer=ABANDONED, reply=ABANDONED)


def resolution(
    reply: bytes, request: ResolveRequest, schema: Schema, seconds: float, bytes_max: int, sees: Sees
) -> Resolution:
    """What a decision's reply says to the caller, with as many rows as ``bytes_max`` has room for."""
    meta = ExecutionMeta("remote", (Step("hub", "ok", seconds),), request.context.trace_id)
    if reply == ABANDONED:
        return Resolution(request.idem, meta=meta)
    items = told_items([reply], schema, bytes_max, sees)
    return Resolution(request.idem, WriteResult(status_of(items), items, meta, (None,) * len(items)), meta)
