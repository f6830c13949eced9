"""The table of planted violations: every plant still applies, and every promise has one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.architecture.test_promises import NOT_YET, rows
from tests.campaigns.plants.plant import Plant, plants, unplanted
from tests.campaigns.plants.table import EXCUSED
from tests.campaigns.workbench import ROOT

HERE = Plant("A00", "atoma.hub.lineage:Made.up", "x == 1", "x != 1", why="an example")
SOURCE = "def f(x):\n    return x == 1\n\n\nclass C:\n    def f(self, x):\n        return x == 1\n"


def test_every_plant_still_applies() -> None:
    stale = []
    for plant in plants():
        try:
            plant.source()
        except LookupError as error:
            stale.append(error.args[0])
    assert stale == []


def test_no_two_plants_are_the_same() -> None:
    keys = [plant.key for plant in plants()]
    assert len(set(keys)) == len(keys)


def test_a_plant_changes_its_own_place_only(tmp_path: Path) -> None:
    (tmp_path / "atoma/hub").mkdir(parents=True)
    (tmp_path / "atoma/hub/lineage.py").write_text(SOURCE)
    planted = replace(HERE, where="atoma.hub.lineage:C.f").source(tmp_path)
    assert planted == SOURCE.replace("        return x == 1", "        return x != 1")


@pytest.mark.parametrize("where", ["atoma.hub.lineage:g", "atoma.hub.nowhere:f", "atoma.hub.lineage"])
def test_a_plant_that_no_longer_applies_is_an_error(tmp_path: Path, where: str) -> None:
    (tmp_path / "atoma/hub").mkdir(parents=True)
    (tmp_path / "atoma/hub/lineage.py").write_text(SOURCE)
    with pytest.raises(LookupError, match="A00"):
        replace(HERE, where=where).source(tmp_path)


def test_a_row_without_a_plant_or_a_reason_is_named() -> None:
    assert unplanted({"A00": "", "A01": "", "A02": ""}, [HERE], {"A01": "a reason"}) == ["A02"]
    assert not set(EXCUSED) & {plant.row for plant in plants()}, "a row that has a plant needs no reason"


def test_every_promise_that_is_kept_has_a_plant_or_a_reason() -> None:
    kept = {
        row: cell for row, cell in rows(ROOT / "docs/internals/acceptance.md").items() if not cell.startswith(NOT_YET)
    }
    assert len(kept) > 70
    assert unplanted(kept, plants(), EXCUSED) == []


@pytest.mark.parametrize("row", ["A08", "A14", "A21", "A22", "A31", "A52", "A63", "A65", "A74"])
def test_a_row_whose_proof_was_weak_is_broken_in_three_ways(row: str) -> None:
    assert len(plants(row=row)) >= 3
