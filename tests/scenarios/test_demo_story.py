"""The demo's story over every transport: two devices, a hub, cables that are pulled, and three equal files at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atoma.demo.wiring import TRANSPORTS


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_story_holds_over(transport: str, tmp_path: Path) -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "atoma",
            "demo",
            "--once",
            "--rows",
            "1000",
            "--transport",
            transport,
            "--dir",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "COLUMNS": "100"},
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Both devices and the hub are equal, and every conflict is accounted for." in told.stdout
    assert "✗" not in told.stdout
    assert told.stderr == ""
