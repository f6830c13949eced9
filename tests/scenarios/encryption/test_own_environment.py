"""The build of apsw that encrypts, beside everything else that is installed here: both builds own one package."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from atoma.errors import ConfigurationError, StoreCorrupt, WrongKey
from atoma.ports import Environment
from atoma_stores.sqlite import SQLiteEngine, change_key
from tests.architecture.test_docs_code import check_page
from tests.scenarios.encryption.device import KEY, SCHEMA

ROOT = Path(__file__).resolve().parents[3]
SECONDS_MAX = 500
PAGE = ROOT / "docs" / "how-to" / "encrypt.md"

plain_build = pytest.mark.skipif(hasattr(apsw, "mc_version"), reason="the installed apsw encrypts")
pytestmark = pytest.mark.xdist_group("encryption")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the build of apsw that encrypts, for ``PYTHONPATH``."""
    folder = tmp_path_factory.mktemp("encrypting")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder),
        "apsw-sqlite3mc",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("apsw-sqlite3mc does not come from the package index")
    if done.returncode:
        pytest.skip(f"apsw-sqlite3mc cannot be installed here: {done.stderr[-300:]}")
    return folder


def run_with(build: Path, command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{build}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS_MAX,
    )  # fmt: skip


def passes(build: Path, *tests: str) -> None:
    """The tests pass there, and are not skipped."""
    done = run_with(build, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", *tests], ROOT)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "the installed apsw does not encrypt" not in done.stdout


def test_files_are_encrypted_as_promised(build: Path) -> None:
    passes(build, "tests/scenarios/encryption/test_encrypted_files.py")


@pytest.mark.soak
def test_without_a_key_the_build_does_what_the_plain_one_does(build: Path) -> None:
    passes(build, "tests/unit/stores", "tests/conformance/engines", "tests/scenarios/kill/test_kill.py")


def test_the_page_runs_there(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(build))
    text = PAGE.read_text(encoding="utf-8").replace("<!-- not run: the tests run it where apsw encrypts -->\n", "")
    check_page(text, tmp_path, "encrypt.py")


# with the plain build


@plain_build
def test_a_key_asks_for_the_build_that_encrypts(tmp_path: Path) -> None:
    for ask in (
        lambda: SQLiteEngine(tmp_path / "app.db", key=KEY),
        lambda: change_key(tmp_path / "app.db", old=None, new=KEY),
    ):
        with pytest.raises(ConfigurationError, match=r"pip uninstall apsw\n +pip install .*apsw-sqlite3mc"):
            ask()
    assert not list(tmp_path.iterdir())


@plain_build
@pytest.mark.parametrize(
    ("header", "error"), [(True, WrongKey), (False, StoreCorrupt)], ids=["encrypted", "something else"]
)
async def test_an_encrypted_file_is_called_so(header: bool, error: type[Exception], tmp_path: Path) -> None:
    held = bytearray(random.Random(1).randbytes(8192))
    if header:
        held[16:24] = bytes((16, 0, 2, 2, 32, 64, 32, 32))  # as the cipher leaves it
    (tmp_path / "app.db").write_bytes(held)
    with pytest.raises(error):
        async with SQLiteEngine(tmp_path / "app.db").open_database(SCHEMA, Environment(), frozenset()):
            pass
    assert (tmp_path / "app.db").read_bytes() == held
