"""The notebook of ``examples/notebook`` is run from its first cell to its last, by Jupyter's own kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install nbclient ipykernel polars")
pytest.importorskip("polars", reason="polars is not installed: pip install polars")
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: it comes with nbclient")

NOTEBOOK = Path(__file__).parents[3] / "examples/notebook/readings.ipynb"
pytestmark = [
    pytest.mark.xdist_group("machine"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning"),  # Jupyter's own
]


def test_every_cell_runs_and_shows_what_it_is_there_for(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [cell.outputs for cell in notebook.cells if cell.cell_type == "code" and cell.outputs] == []
    nbclient.NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [
        output.data["text/plain"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output
    ]
    assert shown[0] == "48"
    assert "cellar" in shown[1] and "31.0" in shown[1]
    assert "12" in shown[2] and "22.5" in shown[2]
    assert shown[3] == "[('oven', 180.0)]"
    assert (tmp_path / "readings.db").exists()
