"""The trail of a request: which node ran, what came of it, and where the answer is therefore from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from atoma.contracts.execution import ExecutionMeta, OperationContext, Source, Step, WriteItemResult


class Trail:
    """The steps of one request, or of one branch of it, in order of completion.

    Attributes:
        steps: The entries.
        source: Where the last step that succeeded has its answer from; None when none has succeeded.
        answered: What a remote node answered a write, item by item; None when none has.
    """

    __slots__ = ("answered", "source", "steps")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.answered: tuple[WriteItemResult, ...] | None = None
        self.source: Source | None = None

    def join(self, branch: Trail) -> None:
        """Add what happened in a branch that has ended."""
        self.steps.extend(branch.steps)
        if branch.source is not None:
            self.source = branch.source
        if branch.answered is not None:
            self.answered = branch.answered

    def meta(self, context: OperationContext, inner: ExecutionMeta) -> ExecutionMeta:
        """The meta data of a result that came about like this; position and cursor are those of ``inner``."""
        source = self.source or "local"
        return replace(inner, source=source, path=tuple(self.steps), trace_id=context.trace_id, policy=context.policy)


def describe_path(path: Sequence[Step]) -> str:
    """The trail as text, one line per step, as logs and the inspector show it."""
    return "\n".join(_line(step) for step in path)


def _line(step: Step) -> str:
    parts = [f"{step.node}: {step.outcome} in {step.seconds * 1000:.3g} ms"]
    if step.attempt > 1:
        parts.append(f"attempt {step.attempt}")
    if step.error:
        parts.append(step.error)
    if step.budget_s != math.inf:
        parts.append(f"budget {step.budget_s:.3g} s")
    if step.note:
        parts.append(step.note)
    return ", ".join(parts)


__all__ = ["Trail", "describe_path"]
