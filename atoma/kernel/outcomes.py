"""The meaning of errors for the rest of a policy, for queries and for writes, by the table of codes.

A write has one class more than a query: *unknown*, when nobody can say whether it was applied. Such an error leaves its
node as ``WriteUnknown`` with what happened as its cause.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias, TypeVar, cast, get_args

import trio
from msgspec.structs import replace

from atoma.contracts.execution import (
    OperationContext,
    QueryRequest,
    QueryResult,
    Source,
    StepOutcome,
    WriteRequest,
    WriteResult,
    as_receipt,
    status_of,
)
from atoma.contracts.failures import code_of, verdict_of
from atoma.contracts.policy import Req
from atoma.contracts.query import Plan
from atoma.errors import (
    AtomaError,
    ExecutionError,
    FallbackExhausted,
    NodeTimeout,
    TransportError,
    WriteUnknown,
    is_retryable,
)
from atoma.query.plans import is_count

Res_contra = TypeVar("Res_contra", bound=QueryResult | WriteResult, contravariant=True)
ErrorClass: TypeAlias = Literal["retryable", "rejected", "fatal", "unknown"]


def classify(error: AtomaError) -> ErrorClass:
    """The class of ``error``: it alone decides about retries and fallbacks."""
    if isinstance(error, WriteUnknown):
        return "unknown"
    if _judged(error):
        return "rejected"
    return "retryable" if is_retryable(error) else "fatal"


def _judged(error: AtomaError) -> bool:
    """Whether the request itself was judged: asking elsewhere would only hide the verdict."""
    return verdict_of(error) in ("refused", "denied")


def certainly_not_sent(error: AtomaError) -> bool:
    """Whether nobody outside has seen the request, so that a write may go another way."""
    if isinstance(error, FallbackExhausted):
        return all(isinstance(one, AtomaError) and certainly_not_sent(one) for one in error.attempts)
    ours = isinstance(error, (TransportError, ExecutionError))
    return ours and verdict_of(error) == "undone" and classify(error) == "retryable"


def repeatable(error: AtomaError) -> bool:
    """Whether the same request may be tried again; an ambiguous write may, because its key is the same."""
    if isinstance(error, WriteUnknown):
        cause = error.__cause__
        return isinstance(cause, AtomaError) and repeatable(cause)
    return classify(error) == "retryable"


def translate(error: Exception, node: str, seconds: float) -> AtomaError:
    """``error`` as one of ours: itself, or a new error with it as the cause."""
    error = _alone(error)
    if isinstance(error, AtomaError):
        return error
    translated: AtomaError
    if isinstance(error, trio.TooSlowError):
        translated = NodeTimeout(node, seconds)
    else:
        translated = ExecutionError(f"{node!r} failed with {type(error).__name__}: {error}")
    translated.__cause__ = error
    return translated


def _alone(error: Exception) -> Exception:
    """The one error inside groups of one, as a nursery makes them."""
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return _alone(group.exceptions[0]) if len(group.exceptions) == 1 else group
    return error


SOURCES: Final = frozenset(get_args(Source))


class Side(Protocol[Req, Res_contra]):
    """The differences between queries and writes."""

    def failed(self, error: Exception, node: str, remote: bool, seconds: float, request: Req) -> AtomaError:
        """What a node's exception means."""
        ...

    def judge(self, node: str, result: object, request: Req) -> tuple[StepOutcome, str]:
        """Outcome and error code of what a node returned; raises when it cannot be a result of ``request``."""
        ...

    def goes_on(self, error: AtomaError) -> bool:
        """Whether a fallback takes the next way after ``error``."""
        ...

    def refused(self, result: Res_contra) -> bool:
        """Whether the result says no, to all of the request or to a part."""
        ...

    def timed_out(self, what: str, seconds: float, request: Req) -> AtomaError:
        """The error of a budget that ran out."""
        ...

    def in_doubt(self, error: AtomaError, request: Req) -> AtomaError:
        """``error`` after something of the request may have been done already."""
        ...

    def until(self, request: Req, deadline: float) -> Req:
        """``request`` with that deadline."""
        ...


def _has_shape(plan: Plan, result: QueryResult) -> bool:
    """Whether ``result`` can be the answer to ``plan``, whose rows are tuples: a count is one number."""
    return not is_count(plan) or (len(result.tuples) == 1 and len(result.tuples[0]) == 1)


class QuerySide:
    """Queries: they change nothing, so they may be tried again and elsewhere."""

    def failed(self, error: Exception, node: str, remote: bool, seconds: float, request: QueryRequest) -> AtomaError:
        """The translated error."""
        return translate(error, node, seconds)

    def judge(self, node: str, result: object, request: QueryRequest) -> tuple[StepOutcome, str]:
        """A result is an answer; a count has to have one."""
        if not isinstance(result, QueryResult):
            raise TypeError(f"it answered a query with a {type(result).__name__}")
        plan = request.query.plan
        if not plan.whole_rows and (result.rows or not _has_shape(plan, result)):
            raise ExecutionError(f"{node!r} answered with rows of another shape than was asked for")
        if result.meta.source not in SOURCES:
            raise ExecutionError(f"{node!r} says that its answer is from {result.meta.source!r}, which is not a source")
        return "ok", ""

    def goes_on(self, error: AtomaError) -> bool:
        """After every retryable failure, and where somebody cannot answer at all: somebody else may."""
        return classify(error) == "retryable" or code_of(error) == "UNSUPPORTED"

    def refused(self, result: QueryResult) -> bool:
        """Never."""
        return False

    def timed_out(self, what: str, seconds: float, request: QueryRequest) -> AtomaError:
        """``NodeTimeout``."""
        return NodeTimeout(what, seconds)

    def in_doubt(self, error: AtomaError, request: QueryRequest) -> AtomaError:
        """The error itself: nothing was changed."""
        return error

    def until(self, request: QueryRequest, deadline: float) -> QueryRequest:
        """The request with that deadline."""
        return replace(request, context=_until(request.context, deadline))


class WriteSide:
    """Writes: they go another way only when certainly nobody has seen them."""

    def failed(self, error: Exception, node: str, remote: bool, seconds: float, request: WriteRequest) -> AtomaError:
        """The translated error, ``WriteUnknown`` when the write may have been applied."""
        ours = translate(error, node, seconds)
        if isinstance(ours, WriteUnknown):
            return ours
        foreign = remote and type(ours) is ExecutionError and ours is not error
        if foreign or verdict_of(ours) == "unknown":
            return _unknown(request, ours)
        return ours

    def judge(self, node: str, result: object, request: WriteRequest) -> tuple[StepOutcome, str]:
        """``rejected`` when every item was refused, ``unknown`` when one is undecided.

        A result that contradicts itself leaves the write in doubt.
        """
        if not isinstance(result, WriteResult):
            raise TypeError(f"it answered a write with a {type(result).__name__}")
        items = result.items
        if len(items) != len(request.entries):
            raise _unknown(
                request, ExecutionError(f"{node!r} answered {len(request.entries)} entries with {len(items)}")
            )
        if result.status != status_of(items):
            raise _unknown(request, ExecutionError(f"{node!r} answered {result.status}, which its items contradict"))
        if result.receipts:
            _check_receipts(node, result, request)
        if result.status == "confirmed":
            return "ok", ""
        if result.status == "undecided":
            return "unknown", "UNDECIDED"
        refusal = next((item.error.code for item in items if item.error is not None), "REJECTED")
        return ("rejected" if result.status == "rejected" else "ok"), refusal

    def goes_on(self, error: AtomaError) -> bool:
        """Only when nothing was sent."""
        return certainly_not_sent(error)

    def refused(self, result: WriteResult) -> bool:
        """When any item was refused."""
        return not all(item.ok for item in result.items)

    def timed_out(self, what: str, seconds: float, request: WriteRequest) -> AtomaError:
        """``WriteUnknown``, caused by ``NodeTimeout``."""
        return _unknown(request, NodeTimeout(what, seconds))

    def in_doubt(self, error: AtomaError, request: WriteRequest) -> AtomaError:
        """``WriteUnknown``, unless the error is a verdict (or says so already)."""
        if classify(error) in ("rejected", "unknown"):
            return error
        return _unknown(request, error)

    def until(self, request: WriteRequest, deadline: float) -> WriteRequest:
        """The request with that deadline; entries and key stay."""
        return replace(request, context=_until(request.context, deadline))


def _check_receipts(node: str, result: WriteResult, request: WriteRequest) -> None:
    if len(result.receipts) != len(result.items):
        count = len(result.receipts)
        raise _unknown(request, ExecutionError(f"{node!r} answered {len(result.items)} entries with {count} receipts"))
    try:
        if len(result.receipts) == 1:
            as_receipt(result.receipts[0])
            return
        for one in {type(one): one for one in result.receipts}.values():  # a class says it for all of them
            as_receipt(one)
    except ExecutionError as error:
        raise _unknown(request, ExecutionError(f"{node!r}: {error}")) from None


def _unknown(request: WriteRequest, cause: AtomaError) -> WriteUnknown:
    unknown = WriteUnknown(request.idem, f"{code_of(cause)}: {cause}")
    unknown.__cause__ = cause
    return unknown


def _until(context: OperationContext, deadline: float) -> OperationContext:
    return replace(context, deadline=deadline)
