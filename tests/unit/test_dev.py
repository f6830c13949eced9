"""dev.py: what it asks for, how it makes .venv, how it stops, and what it says when it cannot go on."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.xdist_group("machine")

ROOT = Path(__file__).resolve().parents[2]
FAKE_UV = """#!{python}
import os, sys
with open({log!r}, "a") as log:
    print(*sys.argv[1:], file=log)
if sys.argv[1] == "venv":
    os.makedirs(sys.argv[-1] + "/bin")
    os.symlink({python!r}, sys.argv[-1] + "/bin/python")
sys.exit({code})
"""


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    specification = importlib.util.spec_from_file_location("dev_under_test", ROOT / "dev.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project with nothing but dev.py, its pyproject.toml and a package `atoma` that tells what it was asked."""
    project = tmp_path / "project"
    (project / "atoma").mkdir(parents=True)
    shutil.copy(ROOT / "dev.py", project)
    shutil.copy(ROOT / "pyproject.toml", project)
    (project / "atoma/__main__.py").write_text("import sys; print('asked', *sys.argv[1:]); sys.exit(7)")
    return project


def run_dev(checkout: Path, *arguments: str, installer_exit: int = 0) -> subprocess.CompletedProcess[str]:
    """Run dev.py with an installer that writes down what it is asked and installs nothing."""
    fake = checkout / "fake/uv"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(FAKE_UV.format(python=sys.executable, log=str(checkout / "uv.log"), code=installer_exit))
    fake.chmod(0o755)
    environment = {"PATH": f"{fake.parent}:/usr/bin:/bin", "HOME": str(checkout), "PIP_NO_INDEX": "1"}
    command = [sys.executable, "dev.py", *arguments]
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def installs(checkout: Path) -> list[str]:
    log = checkout / "uv.log"
    return log.read_text().splitlines() if log.exists() else []


def test_an_old_interpreter_can_read_the_file_and_says_what_is_needed() -> None:
    source = (ROOT / "dev.py").read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source, feature_version=(3, 7)))
    old = "import runpy, sys; sys.version_info = (3, 8, 0, 'final', 0); runpy.run_path('dev.py', run_name='__main__')"
    environment = {"PATH": "/nonexistent"}
    outcome = subprocess.run(
        [sys.executable, "-c", old], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("Atoma needs Python 3.11 or newer; this is ")


def test_only_the_standard_library_is_imported() -> None:
    nodes = ast.walk(ast.parse((ROOT / "dev.py").read_text(encoding="utf-8")))
    imported: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


def test_without_a_command_it_explains_itself(checkout: Path) -> None:
    outcome = run_dev(checkout)
    assert outcome.returncode == 0
    for command in ("demo", "test", "check", "bench", "soak", "docs"):
        assert f"\n    {command} " in outcome.stdout


@pytest.mark.parametrize("arguments", [("dmeo",), ("check", "mypi")])
def test_a_mistyped_command_is_refused_before_anything_is_made(checkout: Path, arguments: tuple[str, ...]) -> None:
    outcome = run_dev(checkout, *arguments)
    assert outcome.returncode == 2
    assert arguments[-1] in outcome.stderr
    assert not (checkout / ".venv").exists()


def test_arguments_and_the_exit_code_are_passed_on(checkout: Path) -> None:
    outcome = run_dev(checkout, "demo", "--once", "a b")
    assert (outcome.returncode, outcome.stdout) == (7, "asked demo --once a b\n")


def test_the_environment_is_made_once_and_again_when_packaging_changes(checkout: Path) -> None:
    run_dev(checkout, "demo")
    run_dev(checkout, "demo")
    assert [line.split()[0] for line in installs(checkout)] == ["venv", "pip"]
    project = checkout / "pyproject.toml"
    project.write_text(project.read_text().replace("line-length = 120", "line-length = 119"))
    run_dev(checkout, "demo")
    assert len(installs(checkout)) == 2
    project.write_text(project.read_text().replace('"trio>=', '"trio>=0.1,>='))
    run_dev(checkout, "demo")
    assert [line.split()[0] for line in installs(checkout)] == ["venv", "pip"] * 2


def test_each_command_installs_its_own_group_only(checkout: Path) -> None:
    run_dev(checkout, "demo")
    demo = installs(checkout)[-1]
    assert " airportsdata>" in demo
    assert " pytest>" not in demo
    run_dev(checkout, "test")
    added = installs(checkout)[-1]
    assert " pytest>" in added
    assert " mypy>" not in added
    assert [line.split()[0] for line in installs(checkout)] == ["venv", "pip", "pip"]
    assert json.loads((checkout / ".venv/dev.json").read_text())["groups"] == ["demo", "test"]


def test_a_failed_installation_tries_pip_says_so_and_is_tried_again(checkout: Path) -> None:
    outcome = run_dev(checkout, "demo", installer_exit=3)
    assert outcome.returncode == 1
    assert "dev.py: uv could not; trying pip..." in outcome.stderr
    assert outcome.stderr.splitlines()[-1].startswith("dev.py: the packages could not be installed")
    assert "Traceback" not in outcome.stderr
    assert run_dev(checkout, "demo").returncode == 7


def test_a_terminal_sees_what_the_installation_is_at(dev: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    program = "print('Collecting trio'); print('ERROR: no network'); print('x' * 500); raise SystemExit(3)"
    assert dev.run([sys.executable, "-c", program], dev.show_latest) == 3
    out, err = capfd.readouterr()
    assert out == ""
    first, error, long, cleared = err.split("\r\033[K")[1:]
    assert (first, error, cleared) == ("Collecting trio", "ERROR: no network\n", "")
    assert 0 < len(long) < 500


def test_every_command_that_the_pages_name_exists(dev: ModuleType) -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".ci/run", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"python3 dev\.py (\w+)", text))
    assert {"demo", "test", "check"} <= named <= dev.GROUPS.keys()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_relative_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_a_group_includes_what_it_names(dev: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    demo, everything = dev.requirements(project, "demo"), dev.requirements(project, "dev")
    extras = project["project"]["optional-dependencies"]
    assert {*extras["demo"][1:], *extras["websocket"], *extras["grpc"]} <= set(demo)
    assert not [line for line in everything if line.startswith("atoma-runtime")], "pip would look for it elsewhere"
    for group in project["dependency-groups"]:
        assert set(dev.requirements(project, group)) <= set(everything), group
    assert len(everything) == len(set(everything))


def test_the_tests_run_on_every_core_unless_the_caller_says_otherwise(dev: ModuleType) -> None:
    assert dev.arguments_of("test", ["-k", "outbox"]) == ["-m", "pytest", "-n", "auto", "-k", "outbox"]
    assert dev.arguments_of("test", ["-n", "0"])[-2:] == ["-n", "0"]
    assert "-n" not in dev.arguments_of("test", ["-p", "no:xdist"])


def test_files_of_tests_are_in_memory_where_there_is_room(dev: ModuleType, tmp_path: Path) -> None:
    assert dev.memory_folder("/", room_bytes=0) == ("/" if os.access("/", os.W_OK) else None)
    assert dev.memory_folder("/", room_bytes=1 << 80) is None, "there is too little room"
    assert dev.memory_folder(str(tmp_path), room_bytes=0) is None, "it is on the disk with everything else"
    assert dev.memory_folder(str(tmp_path / "nowhere"), room_bytes=0) is None


def test_soak_draws_a_seed_that_the_caller_can_override(dev: ModuleType) -> None:
    first, second = (dev.arguments_of("soak", ["--hypothesis-seed=7"]) for _ in range(2))
    assert first[-1] == "--hypothesis-seed=7"
    assert first[-2].startswith("--hypothesis-seed=")
    assert first[-2] != second[-2]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
@pytest.mark.parametrize(
    ("sent", "code", "handler"),
    [
        (signal.SIGINT, 130, "signal.signal(signal.SIGINT, lambda *_: sys.exit(0))"),
        (signal.SIGINT, 130, "signal.signal(signal.SIGINT, signal.SIG_DFL)"),
        (signal.SIGTERM, 128 + signal.SIGTERM, "pass"),
    ],
)
def test_a_signal_ends_the_program_within_a_second_without_a_traceback(
    checkout: Path, sent: signal.Signals, code: int, handler: str
) -> None:
    assert run_dev(checkout, "demo").returncode == 7  # .venv is there from now on
    waiting = f"import os, signal, sys, time\n{handler}\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n"
    (checkout / "atoma/__main__.py").write_text(waiting)
    with subprocess.Popen(
        [sys.executable, "dev.py", "demo"], cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(sent)
        try:
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code
    assert errors == ""
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups of this kind")
def test_ctrl_c_in_a_terminal_reaches_the_program_once(checkout: Path) -> None:
    assert run_dev(checkout, "demo").returncode == 7
    handler = "lambda *_: (print('told'), time.sleep(0.1), sys.exit(0))"
    (checkout / "atoma/__main__.py").write_text(
        f"import signal, sys, time\nsignal.signal(signal.SIGINT, {handler})\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "dev.py", "demo"]
    with subprocess.Popen(
        command, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.killpg(process.pid, signal.SIGINT)
        try:
            told, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, told, errors) == (130, "told\n", "")
