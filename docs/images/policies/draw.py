"""Draws the built-in policies for ``docs/explanation/policies.md``: ``python docs/images/policies/draw.py``.

A test compares the drawings here with what this makes.
"""

from pathlib import Path

from atoma.kernel import direct_local, direct_remote, explain, hybrid, local_first, remote_first, sync_queue

REMOTE = "remote-websocket"
POLICIES = [
    direct_local(),
    direct_remote(REMOTE),
    local_first(REMOTE),
    remote_first(REMOTE),
    sync_queue(),
    hybrid(REMOTE),
]


def drawings() -> dict[str, str]:
    """File name → SVG."""
    return {f"{policy.name}.svg": explain(policy, "svg") + "\n" for policy in POLICIES}


if __name__ == "__main__":
    for name, drawing in drawings().items():
        Path(__file__).with_name(name).write_text(drawing, encoding="utf-8")
