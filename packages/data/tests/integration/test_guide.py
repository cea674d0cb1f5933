"""The programs of docs/data and of the package's README run, and print what is written there.

Each ```python block is a program. A ```text block right after it is exactly what the program prints.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
PAGES = (
    "packages/data/README.md",
    *(f"docs/data/{page.name}" for page in sorted(ROOT.glob("docs/data/*.md")) if page.name != "reference.md"),
)
LIMIT_S = 50  # below pytest's own limit, so that the program's output is shown
OPTIONAL = ("duckdb", "pandas", "PIL", "polars", "torch")
_BLOCK = re.compile(
    r"^```python\n(?P<program>.*?)^```\n(?:\s*^```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
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


def test_all_pages_have_programs() -> None:
    assert {block.page for block in BLOCKS} == set(PAGES)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{Path(block.page).stem}: {block.heading}" for block in BLOCKS])
def test_program_prints_what_the_page_says(block: Block, tmp_path: Path) -> None:
    for library in OPTIONAL:
        if re.search(rf"^(import|from) {library}\b|to_{library}\(", block.program, re.MULTILINE):
            pytest.importorskip(library)
    script = tmp_path / "program.py"
    script.write_text(block.program)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if block.output is not None:
        assert done.stdout == block.output, done.stderr
