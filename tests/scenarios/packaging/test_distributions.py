"""What the wheel and the source distribution hold, and what they say about themselves."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

from atoma.contracts.extras import DISTRIBUTION
from tests.scenarios.packaging.kit import ROOT, build, output

pytestmark = pytest.mark.xdist_group("packaging")

SOURCES = {"atoma": "atoma", "atoma_stores": "stores/atoma_stores", "atoma_transports": "transports/atoma_transports"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


def said(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [path for path in archive.namelist() if path.endswith(f".dist-info/{name}")]
        return archive.read(path).decode()


def metadata(wheel: Path) -> Message:
    return HeaderParser().parsestr(said(wheel, "METADATA"))


def modules(wheel: Path) -> dict[str, bytes]:
    """What the wheel installs beside its own description."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def test_a_wheel_holds_the_three_packages_with_all_their_files_and_nothing_else(wheel: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *SOURCES.values()]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    ).stdout.splitlines()
    wanted = {
        package + name.removeprefix(source)
        for name in listed
        for package, source in SOURCES.items()
        if name.startswith(source) and (ROOT / name).is_file()
    }
    assert set(modules(wheel)) == wanted
    assert {f"{package}/py.typed" for package in SOURCES} <= wanted


def test_a_wheel_says_what_it_is_and_needs(wheel: Path) -> None:
    about = metadata(wheel)
    assert (about["Name"], about["Version"]) == (DISTRIBUTION, PROJECT["version"])
    assert about["License-Expression"] == "Apache-2.0"
    assert said(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert said(wheel, "entry_points.txt").split() == ["[console_scripts]", "atoma", "=", "atoma.cli:main"]
    needs = [str(line) for line in about.get_all("Requires-Dist", [])]
    always = {re.split(r"[<>=]", line)[0] for line in needs if "extra ==" not in line}
    assert always == {"trio", "apsw", "reactivex", "msgspec"}, "a program without a hub needs no more"
    assert set(about.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])


def test_a_wheel_from_the_source_distribution_is_the_same(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    again = build(source, "wheel", tmp_path / "again")
    assert modules(again) == modules(wheel)
    assert metadata(again).items() == metadata(wheel).items()


PROGRAM = """
import sys
sys.path[:0] = {paths}
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {gone}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Gone())
try:
    import {module}
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("atoma_transports.websocket", "trio_websocket", "websocket"),
        ("atoma_transports.http", "h11", "http"),
        ("atoma_transports.grpc.transport", "grpclib", "grpc"),
        ("atoma_stores.postgres", "psycopg", "postgres"),
        ("atoma.bindings.asgi", "wsproto", "websocket"),
    ],
)
def test_a_part_without_its_library_says_what_to_install(
    module: str, library: str, extra: str, wheel: Path, tmp_path: Path
) -> None:
    program = PROGRAM.format(paths=[str(wheel)], gone=[library], module=module)
    told = output([sys.executable, "-c", program], tmp_path)
    assert told == f"ModuleNotFoundError {library} is not installed: pip install 'atoma-runtime[{extra}]'\n"


@pytest.mark.parametrize("module", ["atoma_stores.sqlite", "atoma_transports.memory"])
def test_a_namesake_that_replaced_the_package_is_named(module: str, wheel: Path, tmp_path: Path) -> None:
    """The feed parser ``atoma`` installs a file over ours; what is left of ours says so."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "atoma" / "__init__.py").write_text("def parse_rss_file(name): ...\n", encoding="utf-8")
    told = output([sys.executable, "-c", PROGRAM.format(paths=[str(tmp_path)], gone=[], module=module)], tmp_path)
    assert told.startswith("ImportError another distribution has replaced the package 'atoma'")
    assert "pip uninstall atoma" in told
