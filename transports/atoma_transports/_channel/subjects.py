"""A connection belongs to one subject: the one rule for whoever goes on with another token."""

from __future__ import annotations

from atoma.errors import RemoteError


def check_subject(before: str, now: str) -> None:
    """See that another token is the same subject's; a side that does not say whose it is cannot be compared.

    Raises:
        RemoteError: ``PERMISSION_DENIED``: it is somebody else's.
    """
    if before and now and before != now:
        text = "the new token is another subject's, and a connection belongs to one: connect anew as the other"
        raise RemoteError(text, remote_code="PERMISSION_DENIED")
