"""The example programs run as they are and print what they promise; none of them reaches into a private place."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
TESTS = Path(__file__).resolve().parents[1]
PROGRAMS = sorted(FOLDER.rglob("*.py"))
DRIVEN = {
    "inspection": ["scenarios/examples/test_inspection.py"],
    "sensors": ["scenarios/examples/test_sensors.py", "browser/test_example_pages.py"],
    "kanban": ["scenarios/examples/test_kanban.py", "browser/test_example_pages.py"],
}
"""Applications, by their folder: tests work them as their users do."""
PROMISED = {
    "bindings/under_asyncio.py": """\
open: nothing
open: Make tea
refused: CONFLICT
open: nothing
nothing more
""",
    "bindings/without_a_loop.py": """\
1 reading(s), the highest from the roof
3 reading(s), the highest from the oven
nothing more
""",
    "policies/own_policy.py": """\
policy patient
  query: fallback
    1: breaker 3 in 60 s, cooldown 30 s
      retry 3×
        timeout 2 s
          remote-memory
    2: local-query
  write: timeout 5 s
    remote-memory
with a hub: [300] remote
without: [300] local
without: [300] local
local-query: ok
breaker: [('breaker', 'open')]
""",
    "policies/own_node.py": """\
['Lisbon', 'Tokyo', 'Berlin'] ['catalogue']
Airport(id='NRT', city='Tokyo')
['Lisboa'] [('catalogue', 'failed'), ('local-query', 'ok')]
""",
    "policies/own_combinator.py": """\
policy comparing
  query: compare
    1: local-query
    2: remote-memory
they disagree about ['EUR']
[1.5] ['local-query', 'remote-memory']
nothing to compare with: CONNECT_FAILED
[1.5] local
""",
    "policies/own_transport.py": """\
accepted as number 1
[1.5] remote-unix
""",
    "quickstart/observable.py": """\
0 of 0 done
0 of 2 done
1 of 2 done
""",
    "quickstart/quickstart.py": """\
— together
Bob has Make tea (todo)
— the hub is away
Ada has Make green tea (todo)
Bob has Make coffee (doing), Write it down (todo)
— the hub is back
Ada has Make green tea (doing), Write it down (todo)
Bob has Make green tea (doing), Write it down (todo)
Bob's inbox: 'Make coffee' gave way to 'Make green tea' (MERGED)
""",
}


def name_of(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def test_every_example_has_its_promise_or_is_driven() -> None:
    left = {name_of(path) for path in PROGRAMS} - PROMISED.keys()
    assert {name.partition("/")[0] for name in left} == DRIVEN.keys()
    for folder, tests in DRIVEN.items():
        assert all(folder in (TESTS / test).read_text(encoding="utf-8") for test in tests)


@pytest.mark.parametrize("program", [FOLDER / name for name in PROMISED], ids=name_of)
def test_an_example_prints_what_it_promises(program: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "utf8", "-W", "error", str(program), str(tmp_path)]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == PROMISED[name_of(program)]
    assert ended.stderr == ""


@pytest.mark.parametrize("program", PROGRAMS, ids=name_of)
def test_an_example_uses_public_names_only(program: Path) -> None:
    imports = [
        node for node in ast.walk(ast.parse(program.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)
    ]
    names = [
        part for node in imports for part in [*(node.module or "").split("."), *(alias.name for alias in node.names)]
    ]
    assert [name for name in names if name.startswith("_") and name != "__future__"] == []
