"""The coverage-guided programs, one after the other; what they find is printed with the command that shows it again."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.coverage.seeds import read_seeds
from tests.fuzz.decoders import DECODERS
from tests.fuzz.sessions import SESSIONS

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("ATOMA_FUZZ_SECONDS", "60"))
CORPUS = os.environ.get("ATOMA_FUZZ_CORPUS")
PROGRAM = "tests.fuzz.coverage.program"
GRACE_S = 120

NAMES = [*DECODERS, *SESSIONS]


def run(name: str, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", PROGRAM, name, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)


def test_every_program_has_seeds() -> None:
    for name in NAMES:
        assert len(read_seeds(name)) >= 4, name


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_a_program_finds_nothing(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: it has wheels for CPython 3.11 to 3.13 on Linux x86_64")
    corpus = Path(CORPUS) / name if CORPUS else tmp_path / "corpus"
    found = (Path(CORPUS) / f"{name}-found") if CORPUS else tmp_path / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    for data in read_seeds(name):
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    seed = request.config.getoption("--hypothesis-seed")
    done = run(
        name,
        f"-max_total_time={SECONDS}",
        f"-seed={int(seed) % 2**31 if seed and str(seed).isdigit() else 0}",
        "-max_len=2048",
        "-timeout=20",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={found}/",
        str(corpus),
        seconds=SECONDS + GRACE_S,
    )
    if done.returncode:
        inputs = sorted(found.iterdir())
        shown = "\n".join(f"{sys.executable} -m {PROGRAM} {name} {path}\n    {path.read_bytes()!r}" for path in inputs)
        pytest.fail(f"{name}: run this in {ROOT} to see it again:\n{shown}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    assert "DONE" in done.stderr or "Done" in done.stderr, done.stderr[-2000:]
