"""What becomes of each pending mutation: against the words of the rule, over every short outbox."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atoma.contracts.mutations import ACKED, QUEUED, PendingMutation
from atoma.contracts.sync import Outcome, Verdict
from atoma.sync.repair.sorting import sort_outbox

VERDICTS = st.sampled_from(["mine", "another's", "none"])


def mutation(mid: int, status: int) -> PendingMutation:
    return PendingMutation(mid, "outbox", mid, str(mid), "main", 0, b"", b"mine%d" % mid, status, mid * 10)


@given(st.integers(1, 4), st.lists(st.tuples(VERDICTS, st.sampled_from([QUEUED, ACKED])), max_size=6), st.data())
def test_the_outbox_is_sorted_by_what_the_hub_can_tell(
    first: int, kinds: list[tuple[str, int]], data: st.DataObject
) -> None:
    known = data.draw(st.booleans())
    last_mid = data.draw(st.integers(0, first + len(kinds) + 1))
    pending = [mutation(first + place, status) for place, (_, status) in enumerate(kinds)]
    verdicts = {
        one.mid: Verdict(one.digest if kind == "mine" else b"?", Outcome(one.mid, "applied", "main", 7))
        for one, (kind, _) in zip(pending, kinds, strict=True)
        if kind != "none"
    }
    found = sort_outbox(pending, verdicts, last_mid, known=known)
    settled = {one.mid for one, _ in found.settled}
    again = {one.mid: doubtful for one, doubtful in found.again}
    assert settled | again.keys() == {one.mid for one in pending} and not settled & again.keys()
    assert [one.mid for one, _ in found.again] == sorted(again)
    for place, one in enumerate(pending):
        before = [kind for kind, _ in kinds[: place + 1]]
        diverged = "another's" in before
        assert (one.mid in settled) == (kinds[place][0] == "mine" and not diverged)
        if one.mid in again:
            assert again[one.mid] == (not diverged and not (known and one.mid > last_mid))
