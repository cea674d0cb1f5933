"""The code in the README, the first steps and the guide runs, and prints what is written there.

Each ```python block is a program. A ```text block right after it is exactly what the program prints. And the links
between the repository's pages lead somewhere.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from umbel._base import config as configuration

ROOT = Path(__file__).resolve().parents[4]
PAGES = (
    "README.md",
    "docs/getting-started.md",
    *(f"docs/guide/{page.name}" for page in sorted(ROOT.glob("docs/guide/*.md"))),
)
LIMIT_S = 50  # below pytest's own limit, so that the program's output is shown
_BLOCK = re.compile(
    r"^```python\n(?P<program>.*?)^```\n(?:\s*^```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    page: str
    heading: str
    program: str
    output: str | None


def _blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        for match in _BLOCK.finditer(text):
            headings = _HEADING.findall(_BLOCK.sub("", text[: match.start()]))
            found.append(Block(page, headings[-1], match["program"], match["output"]))
    return found


BLOCKS = _blocks()


def settings() -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of all that the environment may change, as the code has them."""
    shown = configuration._SETTINGS
    (body,) = (node.body for node in ast.walk(ast.parse(inspect.getsource(configuration)))
               if isinstance(node, ast.ClassDef) and node.name == "Config")  # fmt: skip
    meanings = {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    return [(one.variable, _default(one.default), meanings[name]) for name, one in shown.items()]


def _default(value: object) -> str:
    if isinstance(value, bool):
        return "`1`" if value else "`0`"
    return f"`{value}`" if value != "" else "empty"


def test_page_of_settings_is_what_the_code_reads() -> None:
    """To mend it, put in what is printed."""
    rows = "\n".join(f"| `{variable}` | {default} | {meaning} |" for variable, default, meaning in settings())
    page = (ROOT / "docs/settings.md").read_text()
    table = page[page.index("|---|---|---|\n") + len("|---|---|---|\n") :].rstrip("\n")
    print(rows)
    assert table == rows


def test_all_pages_have_programs() -> None:
    assert {block.page for block in BLOCKS} == set(PAGES)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{Path(block.page).stem}: {block.heading}" for block in BLOCKS])
def test_program_prints_what_the_page_says(block: Block, tmp_path: Path) -> None:
    for library in ("numpy", "opentelemetry.sdk"):
        if f"import {library}" in block.program or f"from {library}" in block.program:
            pytest.importorskip(library)
    script = tmp_path / "program.py"
    script.write_text(block.program)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if block.output is not None:
        assert done.stdout == block.output, done.stderr


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []
