"""What an error means for the rest of a policy: one table, for queries and for writes.

A write has one class more than a query: *unknown*, when nobody can say whether it was applied. Such an error leaves its
node as ``WriteUnknown`` with what happened as its cause.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias, TypeVar, cast

import msgspec
import trio

from atoma.contracts.execution import (
    OperationContext,
    QueryRequest,
    QueryResult,
    StepOutcome,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    CircuitOpen,
    ConnectFailed,
    ExecutionError,
    FallbackExhausted,
    NodeTimeout,
    Overloaded,
    QueryError,
    RemoteError,
    TransportError,
    WriteError,
    WriteUnknown,
    is_retryable,
)
from atoma.kernel.types import Req

Res_contra = TypeVar("Res_contra", bound=QueryResult | WriteResult, contravariant=True)
ErrorClass: TypeAlias = Literal["retryable", "rejected", "fatal", "unknown"]

REFUSALS: Final = frozenset(
    "CONFLICT DENIED PERMISSION_DENIED UNAUTHENTICATED AUTH_EXPIRED INVALID CONSTRAINT NOT_FOUND ALREADY_EXISTS "
    "RESOLVER_FAILED QUOTA DEPENDENCY_REJECTED ABANDONED KEY_EXPIRED REJECTED MALFORMED TOO_LARGE QUERY".split()
)
"""Codes with which the other side has judged the request itself: asking elsewhere would only hide the verdict."""
AMBIGUOUS: Final = frozenset("UNAVAILABLE TIMEOUT INTERNAL".split())
"""Codes after which the other side may or may not have applied a write."""


def classify(error: AtomaError) -> ErrorClass:
    """The class of ``error``: it alone decides about retries and fallbacks."""
    if isinstance(error, WriteUnknown):
        return "unknown"
    if isinstance(error, (WriteError, QueryError, AuthenticationError)):
        return "rejected"
    if isinstance(error, RemoteError) and error.remote_code in REFUSALS:
        return "rejected"
    if isinstance(error, FallbackExhausted):  # raised only when every alternative failed in a way that goes on
        return "retryable"
    return "retryable" if is_retryable(error) else "fatal"


def certainly_not_sent(error: AtomaError) -> bool:
    """Whether nobody outside has seen the request, so that a write may go another way."""
    if isinstance(error, FallbackExhausted):
        return all(isinstance(one, AtomaError) and certainly_not_sent(one) for one in error.attempts)
    if isinstance(error, TransportError):
        return not error.maybe_sent and classify(error) == "retryable"
    return isinstance(error, (ConnectFailed, CircuitOpen, Overloaded))


def repeatable(error: AtomaError) -> bool:
    """Whether the same request may be tried again; an ambiguous write may, because its key is the same."""
    if isinstance(error, WriteUnknown):
        cause = error.__cause__
        return isinstance(cause, AtomaError) and repeatable(cause)
    return classify(error) == "retryable"


def code_of(error: AtomaError) -> str:
    """The stable code of ``error``; the other side's own when that is where it is from."""
    return error.remote_code if isinstance(error, RemoteError) else error.code


def retry_after(error: AtomaError) -> float:
    """Seconds the other side, or a breaker, asks to wait before the next try; 0 when it does not say."""
    if isinstance(error, WriteUnknown) and isinstance(error.__cause__, AtomaError):
        return retry_after(error.__cause__)
    return error.retry_after_s if isinstance(error, (RemoteError, CircuitOpen)) else 0.0


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


class Side(Protocol[Req, Res_contra]):
    """What differs between queries and writes."""

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


class QuerySide:
    """Queries: they change nothing, so they may be tried again and elsewhere."""

    def failed(self, error: Exception, node: str, remote: bool, seconds: float, request: QueryRequest) -> AtomaError:
        """The translated error."""
        return translate(error, node, seconds)

    def judge(self, node: str, result: object, request: QueryRequest) -> tuple[StepOutcome, str]:
        """A result is an answer; a count has to have one."""
        if not isinstance(result, QueryResult):
            raise TypeError(f"it answered a query with a {type(result).__name__}")
        if request.query.count and result.total is None:
            raise ExecutionError(f"{node!r} answered a count without a total")
        return "ok", ""

    def goes_on(self, error: AtomaError) -> bool:
        """After every retryable failure."""
        return classify(error) == "retryable"

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
        return QueryRequest(request.store, request.query, _until(request.context, deadline))


class WriteSide:
    """Writes: they go another way only when certainly nobody has seen them."""

    def failed(self, error: Exception, node: str, remote: bool, seconds: float, request: WriteRequest) -> AtomaError:
        """The translated error, ``WriteUnknown`` when the write may have been applied."""
        ours = translate(error, node, seconds)
        if isinstance(ours, WriteUnknown):
            return ours
        foreign = remote and type(ours) is ExecutionError and ours is not error
        if foreign or _ambiguous(ours):
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
        return WriteRequest(request.entries, request.options, _until(request.context, deadline), request.idem)


def _ambiguous(error: AtomaError) -> bool:
    if isinstance(error, NodeTimeout):
        return True
    if isinstance(error, RemoteError):
        return error.remote_code in AMBIGUOUS
    return isinstance(error, TransportError) and error.maybe_sent


def _unknown(request: WriteRequest, cause: AtomaError) -> WriteUnknown:
    unknown = WriteUnknown(request.idem, f"{code_of(cause)}: {cause}")
    unknown.__cause__ = cause
    return unknown


def _until(context: OperationContext, deadline: float) -> OperationContext:
    return msgspec.structs.replace(context, deadline=deadline)
