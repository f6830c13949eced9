"""What the bench holds figures to."""

from __future__ import annotations

import pytest

from benchmarks.attack_cases import table
from benchmarks.measure import Row


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


def test_each_attack_has_one_line_that_says_whether_both_bars_are_met() -> None:
    rows: list[Row] = []
    for name, held in (("mild", 19.0), ("hard", 21.0)):
        rows.append(Row(name, "the loop, held by one step: longest", held, "ms", bar="≤ 20 ms"))
        rows.append(Row(name, "p99", 49.0, "ms", bar="≤ 50 ms"))
        for variant in ("p50", "worst", "a newcomer's connection: worst", "CPU of the hub, during"):
            rows.append(Row(name, variant, 1.0, "ms"))
    found = table(rows)
    assert [str(column.header) for column in found.columns][1:4] == ["step ≤ 20 ms", "p50", "p99 ≤ 50 ms"]
    assert list(found.columns[0].cells) == ["mild", "hard"]
    assert [str(cell).rpartition("]")[2] for cell in found.columns[-1].cells] == ["yes", "NO"]
