"""An empty answer is an answer: nothing goes on to the next node because of it."""

from __future__ import annotations

from typing import Any

import pytest

from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.policy import Policy
from atoma.kernel import fallback, hedge, merge, node, race, sequence

pytestmark = pytest.mark.virtual_time


class Empty:
    """A remote node that has no rows."""

    remote = True

    async def query(self, request: QueryRequest) -> QueryResult:
        return QueryResult(())


EMPTY, LOCAL = node("remote-empty"), node("local-query")
POLICIES = [
    Policy("fallback", fallback(EMPTY, LOCAL), None),
    Policy("race", race(EMPTY), None),
    Policy("hedge", hedge(EMPTY, LOCAL, delay_s=1), None),
    Policy("merge", merge(EMPTY), None),
    Policy("sequence", sequence(LOCAL, EMPTY), None),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
async def test_an_empty_answer_is_given(open_house: Any, policy: Policy) -> None:
    async with open_house(*POLICIES, nodes={"remote-empty": Empty()}) as house:
        read = await house.query(policy.name)
        assert read.rows == ()
        assert read.meta.source == "remote"
        assert read.meta.path[-1].node in ("remote-empty", "merge")
        assert house.nodes["local-query"].requests == [] or policy.name == "sequence"
