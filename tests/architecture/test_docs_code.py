"""Every Python block of README and docs runs as pasted, and prints what the page says that it prints.

The blocks of one page are one program, run in a fresh folder. Comments, each on the line before a block, say more:
`<!-- not run: REASON -->` leaves a block out; `<!-- prints -->` before a text block says that it is part of the output.
A story has files: `<!-- file: NAME -->` writes a block to one, and the lines of a block with `<!-- runs -->` are started.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?:[ ]*<!--[ ]*(?P<note>[^\n]*?)[ ]*-->\n+)?(?P<indent>[ ]*)(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<body>.*?)"
    r"^(?P=indent)(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
SECONDS_MAX = 60


def program(text: str) -> str:
    """The Python blocks of a page as one program in which every line keeps its number."""
    lines = [""] * (text.count("\n") + 1)
    for block in FENCE.finditer(text):
        first = text.count("\n", 0, block.start("body"))
        body = [line.removeprefix(block["indent"]) for line in block["body"].splitlines()]  # of a list, or a tab
        if (named := re.fullmatch(r"file: (\S+)", block["note"] or "")) is not None:
            lines[first - 1] = (
                f"__import__('pathlib').Path({named[1]!r}).write_text({block['body']!r}, encoding='utf-8')"
            )
        elif block["note"] == "runs":
            lines[first : first + len(body)] = [started(line) for line in body]
        elif block["language"] in ("python", "py") and not not_run(block["note"]):
            lines[first : first + len(body)] = body
    return "\n".join(lines)


def started(line: str) -> str:
    """A line of a shell as a statement that starts it, and fails when it does."""
    python, *arguments = line.split()
    assert python == "python", f"only programs in Python are started, not {line!r}"
    return f"__import__('subprocess').run([__import__('sys').executable, *{arguments!r}], check=True, timeout={SECONDS_MAX})"


def not_run(note: str | None) -> bool:
    return re.fullmatch(r"not run: \S.*", note or "") is not None


def promised_output(text: str) -> list[str]:
    return [block["body"].strip() for block in FENCE.finditer(text) if block["note"] == "prints"]


def run_page(text: str, folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    script = folder / name
    script.write_text(program(text), encoding="utf-8")
    command = [sys.executable, "-X", "utf8", str(script)]
    limit_s = SECONDS_MAX * (1 + sum(block["note"] == "runs" for block in FENCE.finditer(text)))
    # two versions of a file within a second, and of one size, are one to Python where it keeps what it has compiled
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=limit_s)


def check_page(text: str, folder: Path, name: str) -> None:
    """Run a page; its output holds what it promises, in that order."""
    outcome = run_page(text, folder, name)
    assert outcome.returncode == 0, outcome.stderr
    rest = outcome.stdout
    for promised in promised_output(text):
        assert promised in rest, f"{name} promises {promised!r}; it printed {outcome.stdout!r}"
        rest = rest.partition(promised)[2]


PAGES_WITH_CODE = [page for page in PAGES if program(page.read_text(encoding="utf-8")).strip()]


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_as_pasted(page: Path, tmp_path: Path) -> None:
    check_page(page.read_text(encoding="utf-8"), tmp_path, f"{page.stem}.py")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_is_left_out_only_for_a_stated_reason(page: Path) -> None:
    notes = [block["note"] for block in FENCE.finditer(page.read_text(encoding="utf-8")) if block["note"]]
    assert [note for note in notes if note.startswith("not run") and not not_run(note)] == []


def test_a_page_that_fails_or_prints_something_else_is_seen(tmp_path: Path) -> None:
    good = "# T\n\n```python\nn = 1\n```\ntext\n\n```python\nprint(n + 1)\n```\n\n<!-- prints -->\n```text\n2\n```\n"
    check_page(good, tmp_path, "good.py")
    with pytest.raises(AssertionError, match="promises"):
        check_page(good.replace("text\n2\n", "text\n3\n"), tmp_path, "wrong.py")
    with pytest.raises(AssertionError, match=r'bad\.py", line 9'):
        check_page(good.replace("n + 1", "m + 1"), tmp_path, "bad.py")


def test_a_block_that_is_not_run_is_left_out() -> None:
    assert program("<!-- not run: needs a display -->\n```python\nboom()\n```\n").strip() == ""
    assert program("<!-- not run: -->\n```python\nboom()\n```\n").strip() == "boom()"


def hooks_of_the_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    assert spec is not None and spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


def test_the_search_finds_pages_by_other_words_and_leaves_out_decisions() -> None:
    hooks = hooks_of_the_build()
    assert [page for page in hooks.ALSO_CALLED if not (ROOT / "docs" / page).is_file()] == []

    def meta_of(source: str) -> dict[str, object]:
        page = SimpleNamespace(file=SimpleNamespace(src_uri=source), meta={})
        assert hooks.on_page_markdown("# Title", page=page, config={}, files=[]) == "# Title"
        meta: dict[str, object] = page.meta
        return meta

    assert meta_of("adr/0001-record-decisions.md") == {"search": {"exclude": True}}
    assert "foreign key" in str(meta_of("how-to/relate.md")["tags"])
    assert meta_of("how-to/index.md") == {}


def test_the_pages_for_assistants_are_those_that_there_are() -> None:
    hooks = hooks_of_the_build()
    listed = set(re.findall(r"\]\(([\w/-]+)\.html\)", hooks.pages_for_assistants(ROOT / "docs", "a runtime")))
    there = {
        f"{page.parent.name}/{page.stem}"
        for section in hooks.SECTIONS
        for page in (ROOT / "docs" / section).glob("*.md")
    }
    assert listed == {page for page in there if not page.endswith("/index")}


def test_a_page_with_files_starts_them_in_order_and_a_file_that_fails_is_seen(tmp_path: Path) -> None:
    files = "<!-- file: n.py -->\n```python\nn = 1\n```\n\n<!-- file: m.py -->\n```python\nimport n\nprint(n.n)\n```\n"
    page = f"{files}\n<!-- runs -->\n```sh\npython m.py\n```\n\n<!-- prints -->\n```text\n1\n```\n"
    check_page(page, tmp_path, "story.py")
    later = "\n<!-- file: n.py -->\n```python\nn = m\n```\n\n<!-- runs -->\n```sh\npython m.py\n```\n"
    with pytest.raises(AssertionError, match="NameError"):
        check_page(page + later, tmp_path, "story.py")


RENDERED = sorted(
    {name for page in PAGES for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M)}
)


@pytest.mark.parametrize("name", RENDERED)
def test_a_docstring_on_a_page_draws_its_tables_as_markdown(name: str) -> None:
    assert not re.search(r"^\s*={4,}|^\.\. |\]_", importlib.import_module(name).__doc__ or "", re.M)
