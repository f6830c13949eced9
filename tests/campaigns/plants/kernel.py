"""Ways to break the execution kernel: A27–A45."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

PLANTS: Final[tuple[Plant, ...]] = (
    Plant(
        "A27",
        "atoma.kernel.topology:node_roles",
        "return tuple(role for role, kind in kinds if isinstance(node, kind))",
        "return tuple(role for role, kind in kinds[:2] if isinstance(node, kind))",
        why="the topology hides that a node stages or merges",
    ),
    Plant(
        "A28",
        "atoma_stores.local:LocalQueryNode.query",
        "return await self._database.read(request.query)",
        "found = await self._database.read(request.query)\n"
        "        return QueryResult(found.rows[::-1], found.tuples, found.meta)",
        why="the local node turns the order of the rows round",
    ),
    Plant(
        "A29",
        "atoma_stores.local:_write",
        "return _refused(op, effect, row)",
        "return WriteItemResult(op.id, ok=True)",
        why="a refused entry is reported as written",
    ),
    Plant(
        "A30",
        "atoma.sync.outbox:Chain.append",
        "self.next_mid += 1",
        "self.next_mid += 2",
        why="the numbers of mutations have gaps",
    ),
    Plant(
        "A32",
        "atoma.client.context:Planes._add",
        "if name in table:",
        'if name in table and kind != "policy":',
        why="a second policy of the same name replaces the first",
    ),
    Plant(
        "A33",
        "atoma.kernel.policy:direct_local",
        "node(LOCAL_QUERY), node(LOCAL_WRITE)",
        "fallback(node(LOCAL_QUERY), node(SINGLE_REMOTE)), node(LOCAL_WRITE)",
        why="direct-local may ask another machine",
    ),
    Plant(
        "A34",
        "atoma.kernel.policy:direct_remote",
        "node(remote), node(remote)",
        "fallback(node(remote), node(LOCAL_QUERY)), node(remote)",
        why="without the hub direct-http answers from this device in silence",
    ),
    Plant(
        "A35",
        "atoma.kernel.policy:local_first",
        "sequence(node(LOCAL_WRITE), afterwards)",
        "sequence(node(LOCAL_WRITE), node(remote))",
        why="local-first waits for the other side before it answers",
    ),
    Plant(
        "A36",
        "atoma.kernel.policy:remote_first",
        "query=fallback(far, node(LOCAL_QUERY))",
        "query=fallback(node(LOCAL_QUERY), far)",
        why="remote-first asks this device first",
    ),
    Plant(
        "A36",
        "atoma.runtime.flows:ResolveFlow.resolve",
        "if queued is not None:",
        "if False:",
        why="a write in the outbox cannot be resolved",
        tests=(
            "tests/scenarios/sync/test_three_states.py"
            "::test_a_write_that_outlasted_the_time_of_its_policy_is_followed_to_the_verdict",
        ),
    ),
    Plant(
        "A36",
        "atoma.kernel._steps:run_verdict",
        'if request.options.confirm != "strict" or not any(map(as_receipt, result.receipts)):',
        "if not any(map(as_receipt, result.receipts)):",
        why="an optimistic remote-first write on a synced store waits for the hub",
    ),
    Plant(
        "A36",
        "atoma.kernel.policy:remote_first",
        "return step if seconds is None else timeout(step, seconds)",
        "return step",
        why="the time limit of the ready-made policy is none",
    ),
    Plant(
        "A37",
        "atoma.kernel.policy:_queued",
        "return atomic(LOCAL_WRITE, OUTBOX)",
        "return atomic(LOCAL_WRITE)",
        why="a write on a synced store is never queued",
    ),
    Plant(
        "A38",
        "atoma.kernel._steps:run_retry",
        "if tries >= spec.attempts or not repeatable(failure):",
        "if tries >= spec.attempts:",
        why="a refusal is tried again",
    ),
    Plant(
        "A38",
        "atoma.kernel._steps:run_retry",
        "delay = backoff.wait_s(tries, random, retry_after_s(failure))",
        "delay = backoff.bound(tries)",
        why="retries wait without jitter and not as long as they are asked to",
    ),
    Plant(
        "A39",
        "atoma.kernel._steps:run_timeout",
        "with trio.move_on_after(seconds):",
        "with trio.move_on_after(seconds * 2):",
        why="a budget is twice what the policy says",
    ),
    Plant(
        "A40",
        "atoma.kernel._concurrent:_run_until",
        "nursery.cancel_scope.cancel()",
        "pass",
        why="branches that nobody waits for run to their end",
    ),
    Plant(
        "A41",
        "atoma.kernel.guards:Breaker.enter",
        'if self.state == "open" or self._probing:',
        'if self.state == "open":',
        why="a half-open breaker lets everybody through",
    ),
    Plant(
        "A42",
        "atoma.kernel._steps:run_retry",
        "events.emit(RetryScheduled(execution.trace_id, what, tries + 1, delay, code))",
        "pass",
        why="retries are not told",
    ),
    Plant(
        "A43",
        "atoma.kernel.topology:TopologyCheck._check_selected",
        "elif name in self.unavailable:",
        "elif name in self.unavailable and False:",
        why="a default policy whose node is missing passes the start-up check",
    ),
    Plant(
        "A44",
        "atoma_stores.local:LocalWriteNode.stage",
        "tx.unit.report(index, _write(tx, index, entries[index], request.idem))",
        "tx.unit.report(index, _write(tx, index, entries[start], request.idem))",
        why="of several refused entries the first one speaks for all",
    ),
    Plant(
        "A45",
        "atoma.kernel._steps:run_fallback",
        'current = execution.noted(f"fallback: {code}")',
        "current = execution",
        why="a fallback leaves no note in the trail",
    ),
    Plant(
        "A45",
        "atoma.runtime.results:WriteHandle.meta",
        "return self._meta if settled is None else settled",
        "return self._meta",
        why="the handle of a settled write still has the trail of before",
    ),
    Plant(
        "A45",
        "atoma.runtime.optimism:LayeredWrites._asked_again",
        "unit.path += path_of(error)",
        "pass",
        why="a try that failed is not in the trail of the write",
    ),
)
