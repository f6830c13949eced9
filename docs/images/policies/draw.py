"""Draws the built-in policies, and three examples, for ``docs/explanation/policies.md``: ``python docs/images/policies/draw.py``.

A test compares the drawings here with what this makes.
"""

from pathlib import Path

from atoma.contracts.policy import Policy
from atoma.kernel import (
    Backoff,
    breaker,
    bulkhead,
    cache,
    cache_and_network,
    cache_only,
    direct_local,
    direct_remote,
    explain,
    fallback,
    hedge,
    hybrid,
    local_first,
    merge,
    network_only,
    node,
    parallel,
    race,
    remote_first,
    retry,
    sync_queue,
    timeout,
)

REMOTE = "remote-websocket"
POLICIES = [
    direct_local(),
    direct_remote(REMOTE),
    local_first(REMOTE),
    remote_first(REMOTE),
    remote_first(REMOTE, name="remote-first-10s", seconds=10),
    sync_queue(),
    hybrid(REMOTE),
    cache_only(),
    network_only(REMOTE),
    cache_and_network(REMOTE),
    Policy("patient", query=cache(retry(timeout(node(REMOTE), 2), 3, Backoff(0.05)), 5), write=None),
    Policy("sparing", query=fallback(bulkhead(breaker(node(REMOTE)), 8, 16), node("local-query")), write=None),
    Policy(
        "together",
        query=merge(
            node("local-query"),
            race(node("remote-here"), node("remote-there")),
            hedge(node("remote-fast"), node("remote-sure"), delay_s=0.2),
            parallel(node("remote-1"), node("remote-2"), node("remote-3"), answer=2),
            tolerant=True,
        ),
        write=None,
    ),
]


def drawings() -> dict[str, str]:
    """File name → SVG."""
    return {f"{policy.name}.svg": explain(policy, "svg") + "\n" for policy in POLICIES}


if __name__ == "__main__":
    for name, drawing in drawings().items():
        Path(__file__).with_name(name).write_text(drawing, encoding="utf-8")
