"""Keys of direct writes: what is one, how old it is, and whether its answer may have been forgotten."""

from __future__ import annotations

from datetime import UTC, datetime

from atoma.contracts.limits import IDEM_BYTES
from atoma.errors import RemoteError
from atoma.ports.hub import Facts
from atoma.schema.ids import drawn_ms
from atoma.schema.kinds import is_unicode


def check_key(idem: str) -> None:
    """Raise ``RemoteError`` when ``idem`` cannot be the key of a write."""
    if not idem or not is_unicode(idem) or len(idem.encode()) > IDEM_BYTES:
        raise RemoteError(f"a write needs an idempotency key of 1 to {IDEM_BYTES} bytes", remote_code="MALFORMED")


def check_unspent(facts: Facts) -> None:
    """Refuse a key that does not tell its age and that was used so long ago that its answer is forgotten.

    Raises:
        RemoteError: ``KEY_EXPIRED``.
    """
    if facts.spent:
        text = "this key was used before, and the answer to its write is no longer kept; nothing was applied now: use a new key"
        raise RemoteError(text, remote_code="KEY_EXPIRED")


def check_age(key: str, facts: Facts) -> None:
    """Refuse a key that has no answer and may have had one: nobody can tell what became of its write.

    The age of a key is by the clock of who drew it. A device whose clock is behind by more than answers are kept is told
    so, with both times: what it writes under a key that it draws once its clock is right is taken.

    Raises:
        RemoteError: ``KEY_EXPIRED``.
    """
    check_unspent(facts)
    drawn = drawn_ms(key)
    if drawn is None or drawn >= facts.forgotten_ms:
        return
    text = (
        "the answers to writes as old as this key are forgotten, or were lost when the hub was restored: it was drawn at "
        f"{_date(drawn)}, by the clock of its device, and here it is {_date(facts.now_ms)}. Nobody can tell any more "
        "whether its write was applied, and it is not applied now. If the key is new, the clock of its device is wrong: "
        "set it, and write again under a new key"
    )
    info = {"drawn_ms": str(drawn), "hub_ms": str(facts.now_ms)}
    raise RemoteError(text, remote_code="KEY_EXPIRED", info=info)


def _date(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):  # a key of a far future
        return f"{ms} ms after 1970"
