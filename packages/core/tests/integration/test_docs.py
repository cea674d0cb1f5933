"""The code in the README and the getting-started guide runs, and prints what is written there.

Each ```python block is a program. A ```text block right after it is exactly what the program prints. And the links
between the repository's pages lead somewhere.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
PAGES = ("README.md", "docs/getting-started.md")
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


def test_both_pages_have_programs() -> None:
    assert {block.page for block in BLOCKS} == set(PAGES)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{Path(block.page).stem}: {block.heading}" for block in BLOCKS])
def test_program_prints_what_the_page_says(block: Block, tmp_path: Path) -> None:
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
