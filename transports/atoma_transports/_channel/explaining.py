"""What a caller is told when a handler fails."""

from __future__ import annotations

import logging

from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError
from atoma.ports.tasks import single_error
from atoma_transports._channel.codes import info_of, refusal

logger = logging.getLogger("atoma.transports")


def explain(error: Exception, method: str, trace_id: str) -> ErrorInfo:
    """``error`` for the caller; one that nobody expected goes to the log, and the caller is told no more than that."""
    cause = single_error(error)
    if isinstance(cause, AtomaError):
        return info_of(cause)
    logger.error("%s failed (trace %s)", method, trace_id, exc_info=error)
    return refusal("INTERNAL", "the server failed to answer; its log says why")
