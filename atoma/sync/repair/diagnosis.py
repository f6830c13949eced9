"""What is wrong between this file and the hub, found out when a session opens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from atoma.contracts.replica import RepairReport
from atoma.contracts.sync import OpenReply
from atoma.errors import AtomaError, ClientForked
from atoma.ports.local import LocalTx
from atoma.sync.failures import ClientExpired, HubLostData, WrongHub
from atoma.sync.outbox import next_digest

REPEATED_S = 600
"""Within so many seconds …"""
REPEATED_MAX = 2
"""… so many repairs of one cause are made by themselves; after that the file stalls, and is looked at slowly."""

Cause: TypeAlias = Literal["HUB_LOST_DATA", "CLIENT_FORKED", "CLIENT_EXPIRED", "WRONG_HUB"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why the file does not continue the hub's history.

    Attributes:
        cause: ``HUB_LOST_DATA`` the hub was restored from an older state; ``CLIENT_FORKED`` the file was, or it is a copy
            that has taken its own course; ``CLIENT_EXPIRED`` the hub has forgotten the file; ``WRONG_HUB`` it belongs to
            another hub or principal, and is handed over.
        why: What was seen, for a person.
    """

    cause: Cause
    why: str

    @property
    def error(self) -> AtomaError:
        """What the file is told while it is not repaired."""
        kinds = {kind.code: kind for kind in (HubLostData, ClientForked, ClientExpired, WrongHub)}
        return kinds[self.cause](f"{self.why}; nothing was sent, the outbox is kept")

    @property
    def repeated(self) -> AtomaError:
        """What the file is told when repairs do not help."""
        return type(self.error)(
            f"{self.error}; {REPEATED_MAX} repairs within {REPEATED_S // 60} minutes did not help, so the next one waits: do "
            "several hubs answer under this address? client.sync.repair() makes one now"
        )

    @property
    def waiting(self) -> AtomaError:
        """What the file is told while its repair waits for somebody."""
        call = "adopt_hub" if self.cause == "WRONG_HUB" else "repair"
        return type(self.error)(f"{self.error}; call client.sync.{call}()")


def made_too_often(reports: Iterable[RepairReport], cause: Cause, now_ms: int) -> bool:
    """Whether another repair of ``cause`` would be one too many: two hubs behind one address would go on for ever.

    What the file remembers counts, so that a program that is started again and again waits as well.
    """
    recent = [one for one in reports if one.cause == cause and abs(now_ms - one.at_ms) < REPEATED_S * 1000]
    return len(recent) >= REPEATED_MAX


def diagnose(tx: LocalTx, reply: OpenReply) -> Diagnosis | None:
    """Compare what the hub knows of this client with the file; None when the file continues the hub's history.

    Every case is decided by a digest or by a number: the hub's last mutation of this client, the one after it (whose digest
    is over both), the tail of the chain, a number the file never gave out, or one that has left the outbox too early.
    """
    identity, last = tx.outbox.identity(), reply.last_mid
    if not reply.known:
        return Diagnosis(
            "CLIENT_EXPIRED", "the hub has forgotten this client: it was away for too long, or its user has too many"
        )
    if identity.renew:
        return Diagnosis("CLIENT_FORKED", "this file is a copy, for which a new identity was asked for")
    if last >= identity.next_mid:
        given = identity.next_mid - 1
        return Diagnosis(
            "CLIENT_FORKED",
            f"the hub has decided mutation {last} of this client, the file has given out {given}: it is an older state "
            "or a copy",
        )
    same = tx.outbox.by_mid(last)
    if same is not None and same.digest != reply.last_digest:
        return _forked(last)
    if last == identity.next_mid - 1:
        return _forked(last) if last and identity.tail_digest != reply.last_digest else None
    following = tx.outbox.by_mid(last + 1)
    if following is not None and next_digest(reply.last_digest, following.body) != following.digest:
        return _forked(last)
    missing = tx.outbox.first_missing(last)
    if missing is None:
        return None
    return Diagnosis(
        "HUB_LOST_DATA",
        f"the hub has decided mutations up to {last} only, {missing} has already left the outbox: the hub was "
        "restored from an older state",
    )


def _forked(mid: int) -> Diagnosis:
    return Diagnosis(
        "CLIENT_FORKED",
        f"mutation {mid} of this client is another one at the hub: this file, or a copy of it, has taken its own course",
    )
