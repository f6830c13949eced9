"""What the bench holds figures to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.attack_cases import table
from benchmarks.hub_cases import Cost, delays_of
from benchmarks.hub_scaling import FILE, Point, charts
from benchmarks.measure import Row
from benchmarks.plots import draw


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("c", "v", 50.0, "ms", bar="≤ 50 ms"), True),
        (Row("c", "v", 50.1, "ms", 0.1, "x", "≤ 50 ms"), False),
        (Row("c", "v", 384.0, "µs", 1.3, "x", "T1 ≤ 1.3×"), True),
        (Row("c", "v", 1.0, "µs", 2.65, "x", "T1 ≤ 2×"), False),
        (Row("c", "v", 2_000.0, "rows/s", bar="S1 ≥ 2,000"), True),
        (Row("c", "v", 1_999.0, "rows/s", bar="S1 ≥ 2,000"), False),
        (Row("c", "v", 3.8, "µs", 1.54, "x", "K1 ≤ 1.5× or ≤ +4 µs"), True),
        (Row("c", "v", 4.2, "µs", 1.4, "x", "K1 ≤ 1.5× or ≤ +4 µs"), True),
        (Row("c", "v", 4.2, "µs", 1.6, "x", "K1 ≤ 1.5× or ≤ +4 µs"), False),
        (Row("c", "v", 1.0, "ms"), None),
    ],
)
def test_a_bar_is_met_or_not_by_the_figure_or_by_the_ratio(row: Row, met: bool | None) -> None:
    assert row.met is met


def test_each_attack_has_one_line_that_says_whether_all_bars_are_met() -> None:
    rows: list[Row] = []
    for name, held in (("mild", 19.0), ("hard", 21.0)):
        rows.append(Row(name, "the loop, held by one step: longest", held, "ms", bar="≤ 20 ms"))
        rows.append(Row(name, "p99", 49.0, "ms", bar="≤ 50 ms"))
        for variant in ("p50", "worst", "a newcomer's connection: worst", "memory of the hub, more than before"):
            rows.append(Row(name, variant, 1.0, "ms"))
        rows.append(Row(name, "CPU of the hub, during", 1.0, "%"))
    found = table(rows)
    assert [str(column.header) for column in found.columns][1:4] == ["step ≤ 20 ms", "p50", "p99 ≤ 50 ms"]
    assert list(found.columns[0].cells) == ["mild", "hard"]
    assert [str(cell).rpartition("]")[2] for cell in found.columns[-1].cells] == ["yes", "NO"]


def test_a_hint_counts_for_every_answer_that_it_says_as_much_as() -> None:
    told = [("a", 1, 10.0), ("a", 3, 11.0), ("b", 1, 12.0)]
    hints = [("a", 0, 9.0), ("a", 2, 10.5), ("b", 1, 11.9), ("a", 3, 11.25)]
    assert delays_of(told, hints) == [0.5, 0.25, 0.0]
    with pytest.raises(AssertionError, match="b has reached 2, and another process never heard of it"):
        delays_of([("b", 2, 12.0)], hints)


def test_what_was_measured_of_hubs_is_drawn_and_nothing_else(tmp_path: Path) -> None:
    points = [Point(FILE, "scopes", count, Cost(100.0, us, 40.0, 10.0)) for count, us in ((1, 160.0), (64, 260.0))]
    file = tmp_path / "points.json"
    file.write_text(json.dumps({"points": [asdict(point) for point in points]}))
    found = charts(file)
    assert list(found) == ["hub-scopes"]
    assert [(line.name, list(line.points)) for line in found["hub-scopes"].lines] == [(FILE, [(1, 200.0), (64, 300.0)])]
    assert draw(found["hub-scopes"]).count("<circle") == 2
