"""Planned faults between a hub and its database, for tests of the code that has to handle them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from atoma_stores.postgres.codes import ConnectionLost
from atoma_stores.sql.scripts import Batch, Execute

Moment: TypeAlias = Literal["before", "after"]


class Faults(Protocol):
    """A layer of faults between a hub and its database."""

    def before(self, batch: Batch) -> Batch:
        """Return what is sent in place of ``batch``; may raise :class:`~atoma_stores.postgres.codes.ConnectionLost`."""
        ...

    def after(self, batch: Batch) -> None:
        """Called after ``batch`` was carried out and answered; may raise as if the answer had not arrived."""
        ...


class _None:
    def before(self, batch: Batch) -> Batch:
        return batch

    def after(self, batch: Batch) -> None:
        return


NO_FAULTS: Faults = _None()


@dataclass(slots=True)
class FaultPlan:
    """One fault at a time, on the trips that ``concerns`` picks.

    Attributes:
        concerns: Says whether a fault may hit the batch.
        skip: Number of those trips that succeed before the fault.
        lost: Whether the connection is lost before the trip is sent, or after it was carried out.
        state: The SQLSTATE that the server raises, …
        at: … before the statement of that number.
        lasting: Whether the fault repeats, and does not happen only once.
        hit: Number of faults so far.
        sizes: Number of statements of each trip that was concerned.
    """

    concerns: Callable[[Batch], bool] = lambda batch: True
    skip: int = 0
    lost: Moment | None = None
    state: str = ""
    at: int = 0
    lasting: bool = False
    hit: int = 0
    sizes: list[int] = field(default_factory=list[int])

    def heal(self) -> None:
        """Let everything work again, and reset the counts."""
        self.skip, self.lost, self.state, self.at, self.lasting, self.hit = 0, None, "", 0, False, 0
        self.sizes.clear()

    def before(self, batch: Batch) -> Batch:
        """Lose the connection, or have the server raise."""
        if not self.concerns(batch):
            return batch
        self.sizes.append(len(batch))
        if self.lost == "before" and self._is_due():
            raise ConnectionLost("planned: before the batch was sent")
        if self.state and self._is_due():
            raising = Execute(f"DO $do$ BEGIN RAISE EXCEPTION 'planned' USING ERRCODE = '{self.state}'; END $do$")
            return [*batch[: self.at], raising, *batch[self.at :]]
        return batch

    def after(self, batch: Batch) -> None:
        """Lose the connection after the batch was carried out."""
        if self.lost == "after" and self.concerns(batch) and self._is_due():
            raise ConnectionLost("planned: after the batch was done")

    def _is_due(self) -> bool:
        self.skip -= 1
        if self.skip >= 0 or (self.skip < -1 and not self.lasting):
            return False
        self.hit += 1
        return True
