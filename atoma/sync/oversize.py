"""A mutation that the hub takes in no request, for its size: it goes to the inbox, and the outbox goes on."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from atoma.contracts.codec import decode
from atoma.contracts.mutations import QUEUED, MutationBody, Origin, PendingMutation
from atoma.contracts.sync import Outcome
from atoma.contracts.values import ErrorInfo
from atoma.sync.outbox import Chain, save_end
from atoma.sync.settle import Refusals, Settlement, keep_refused
from atoma.sync.staging import Opened


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A mutation that is too large by itself, and that the hub has not decided, is refused here, with those that build on it.

    An empty mutation takes the number of each, so that the others keep theirs. Their digests change with what is before them; one
    that may have been sent as it was names that as its origin, so that it has one effect whatever became of that request.

    An offer that is left out is not at the hub. So what would say that everything is goes with it, or rows that others have brought
    back would be taken for deleted ones.

    Attributes:
        mid: The mutation.
        digest: Digest chain after it.
        previous: Digest chain before it.
        error: Why it is not taken.
    """

    mid: int
    digest: bytes
    previous: bytes
    error: ErrorInfo

    def stage(self, at: Opened) -> Settlement:
        """Refuse it, unless another program has done so."""
        tx, work = at.tx, Settlement(at.touched)
        first = tx.outbox.by_mid(self.mid)
        if first is None or first.digest != self.digest:
            return work
        identity = tx.outbox.identity()
        outcome = Outcome(first.mid, "rejected", first.scope, error=self.error)
        keep_refused(tx, first, outcome, work)
        work.dirty.update(dict.fromkeys(tx.outbox.remove({first.lsn: outcome})))
        chain, refusals = Chain(self.mid, self.previous), Refusals(tx)
        is_offer = decode(first.body, MutationBody).recovers is not None
        empty, moved = [_empty(first, at.ids(), chain)], list[PendingMutation]()
        for each in tx.outbox.every():
            if each.mid <= self.mid:
                continue
            body = decode(each.body, MutationBody)
            if refusals.refuse(each, body, work):
                empty.append(_empty(each, at.ids(), chain))
                continue
            if is_offer and body.recovers is not None and body.recovers.last and body.scope == first.scope:
                tx.outbox.remove({each.lsn: None})
                empty.append(_empty(each, at.ids(), chain))
                continue
            if body.recovers is None and identity.may_have_sent(each.mid):
                body = replace(body, origin=body.origin or Origin(identity.client_id, each.mid, each.digest))
            moved.append(chain.append_again(each, body))
        tx.outbox.rewrite(moved)
        for each in empty:
            tx.outbox.add(each, (), limited=False)
        tx.outbox.save_identity(replace(identity, sent_mid=self.mid - 1, sent_digest=self.previous))
        save_end(tx, chain)
        return work


def changes_something(mutation: PendingMutation) -> bool:
    """Whether ``mutation`` is none of those that only have a number."""
    return bool(decode(mutation.body, MutationBody).ops)


def _empty(mutation: PendingMutation, idem: str, chain: Chain) -> PendingMutation:
    """What changes nothing, under the number of ``mutation``."""
    body = decode(mutation.body, MutationBody)
    body = replace(body, idem=idem, ops=(), origin=None, recovers=None, doubtful=False)
    vacant = replace(
        mutation,
        lsn=0,
        kind="outbox",
        idem=idem,
        status=QUEUED,
        ack_seq=0,
        attempts=0,
        next_attempt_ms=0,
        last_error="",
        local=b"",
    )
    return chain.append_again(vacant, body)
