"""Policies are values that can be compared, refused when they make no sense, and drawn."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import pytest

from atoma.contracts.execution import Step
from atoma.contracts.policy import Combinator, Policy
from atoma.errors import ConfigurationError
from atoma.kernel import (
    Backoff,
    atomic,
    breaker,
    bulkhead,
    cache,
    describe_path,
    detach,
    direct_local,
    explain,
    fallback,
    hedge,
    merge,
    node,
    parallel,
    race,
    remote_first,
    retry,
    sequence,
    timeout,
    verdict,
    when_synced,
)

A, B = node("a"), node("b")
SVG = "{http://www.w3.org/2000/svg}"


def everything() -> Policy:
    query = fallback(
        breaker(bulkhead(retry(timeout(A, 2.5), 4, Backoff(0.2)), 8, 16)), cache(race(A, B), 5), hedge(A, B, delay_s=1)
    )
    write = when_synced(verdict(atomic("local-write", "outbox")), sequence(parallel(A, B, answer=2), detach(B)))
    return Policy("every<thing>", merge(query, parallel(A, answer="all"), tolerant=True), write)


def test_policies_are_values() -> None:
    assert everything() == everything()
    assert hash(everything()) == hash(everything())
    assert remote_first("remote-a") != remote_first("remote-b")
    with pytest.raises(AttributeError):
        direct_local().name = "other"  # type: ignore[misc]


def test_a_policy_is_drawn_as_text() -> None:
    assert (
        explain(everything())
        == """\
policy every<thing>
  query: merge by merge, tolerant
    1: fallback
      1: breaker 5 in 60 s, cooldown 30 s
        bulkhead 8 + 16 waiting
          retry 4×
            timeout 2.5 s
              a
      2: cache 5 s
        race
          1: a
          2: b
      3: hedge 1 s
        1: a
        2: b
    2: parallel all
      a
  write: synced store?
    yes: verdict
      atomic
        1: local-write
        2: outbox
    no: sequence
      1: parallel quorum 2
        1: a
        2: b
      2: detach
        b"""
    )


def test_a_policy_is_drawn_for_mermaid_and_as_svg() -> None:
    assert explain(remote_first("far").query or A, "mermaid") == (
        'flowchart TD\n  s0(["fallback"])\n  s1["far"]\n  s0 -- 1 --> s1\n  s2["local-query"]\n  s0 -- 2 --> s2'
    )
    assert explain(node('#1;<b>"`a&b`"'), "mermaid") == (
        'flowchart TD\n  s0["#35;1;#lt;b#gt;#quot;#96;a#amp;b#96;#quot;"]'
    )
    drawing = ElementTree.fromstring(explain(everything(), "svg"))
    labels: list[str] = []
    words: list[str] = []
    for element in drawing.iter(f"{SVG}text"):
        lines = [line.text or "" for line in element.iter(f"{SVG}tspan")]
        (labels if lines else words).append(" ".join(lines) or element.text or "")
    told = [line.strip() for line in explain(everything()).splitlines()]
    parts = [re.fullmatch(r"(?:(query|write|yes|no|\d+): )?(.*)", line) for line in told]
    assert labels == [part[2] for part in parts if part]
    assert words == [part[1] for part in parts if part and part[1]]
    width, height = float(drawing.attrib["width"]), float(drawing.attrib["height"])
    for box in drawing.iter(f"{SVG}rect"):
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height


def test_the_boxes_of_a_drawing_do_not_lie_on_one_another() -> None:
    drawing = ElementTree.fromstring(explain(everything(), "svg"))
    places = [
        tuple(float(box.attrib[side]) for side in ("x", "y", "width", "height"))
        for box in drawing.iter(f"{SVG}rect")
        if "box" in box.attrib["class"].split()
    ]
    for number, (x, y, width, height) in enumerate(places):
        for other_x, other_y, other_width, other_height in places[:number]:
            apart = x >= other_x + other_width or other_x >= x + width
            assert apart or y >= other_y + other_height or other_y >= y + height


TEXT: Any = "a"
NONE: Any = 5
SENSELESS: list[Callable[[], Combinator | Backoff]] = [
    lambda: node(""), lambda: sequence(), lambda: fallback(), lambda: race(), lambda: merge(), lambda: parallel(),
    lambda: parallel(A, answer=0), lambda: parallel(A, B, answer=3), lambda: hedge(A, delay_s=0),
    lambda: timeout(A, 0), lambda: timeout(A, math.inf), lambda: timeout(A, math.nan), lambda: retry(A, 0),
    lambda: breaker(A, 0), lambda: breaker(A, cooldown_s=0), lambda: breaker(A, window_s=-1), lambda: bulkhead(A, 0),
    lambda: bulkhead(A, 1, -1), lambda: atomic(), lambda: atomic("a", "a"), lambda: cache(A, 0),
    lambda: parallel(A, answer="most"), lambda: parallel(A, answer=True),  # type: ignore[arg-type]
    lambda: node(NONE), lambda: sequence(TEXT), lambda: fallback(A, TEXT), lambda: timeout(TEXT, 1),
    lambda: detach(TEXT), lambda: when_synced(A, TEXT), lambda: timeout(A, TEXT), lambda: retry(A, TEXT),
    lambda: retry(A, 2, TEXT),
    lambda: Backoff(-1), lambda: Backoff(2, max_s=1), lambda: Backoff(factor=0.5), lambda: Backoff(max_s=math.inf), lambda: Backoff(jitter=1.5),
]  # fmt: skip


@pytest.mark.parametrize("make", SENSELESS, ids=range(len(SENSELESS)))
def test_what_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_the_bound_of_a_wait_grows_up_to_its_limit() -> None:
    backoff = Backoff(0.5, 2, 3)
    assert [backoff.bound(tries) for tries in (1, 2, 3, 4, 5000)] == [0.5, 1, 2, 3, 3]


def test_a_trail_is_told_as_text() -> None:
    path = (
        Step("far", "failed", 0.25, 2, 4.75, "UNAVAILABLE", "retry: UNAVAILABLE"),
        Step("near", "ok", 0.000012, note="fallback: UNAVAILABLE"),
    )
    assert describe_path(path) == (
        "far: failed in 250 ms, attempt 2, UNAVAILABLE, budget 4.75 s, retry: UNAVAILABLE\n"
        "near: ok in 0.012 ms, fallback: UNAVAILABLE"
    )
