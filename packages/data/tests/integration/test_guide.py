"""The programs of docs/data and of the package's README run, and print what is written there.

Each ```python block is a program. A ```text block right after it is exactly what the program prints, but for times and the
estimated sizes of files. A program that prints has one.
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
_PRINTS = re.compile(r"\bprint\(|\.(show|explain)\(")
_TIME = re.compile(r"\b\d+\.\d+ s\b")
_ESTIMATE = re.compile(r"\babout [\d.]+ ([KMG]i)?B\b")  # of files, which each PyArrow writes a little otherwise
_SLOWEST = re.compile(r"^slowest: .*$", re.MULTILINE)  # of stages that take microseconds, it is chance


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


def settled(text: str) -> str:
    """Without times and estimates, nor, where there are times, the widths of columns, which depend on them."""
    text = _ESTIMATE.sub("about _ B", text)
    if _TIME.search(text) is None:
        return text
    return re.sub(" {2,}", "  ", _SLOWEST.sub("slowest: _", _TIME.sub("_ s", text)))


def test_all_pages_have_programs() -> None:
    assert {block.page for block in BLOCKS} == set(PAGES)


def test_what_is_printed_stands_on_the_page() -> None:
    assert [(one.page, one.heading) for one in BLOCKS if one.output is None and _PRINTS.search(one.program)] == []


def test_only_times_and_estimates_may_differ() -> None:
    table = "stage   wall\nSort    {}\ntotal: 3 rows, in {}\nslowest: {}, busy for {}"
    first = table.format("0.00 s", "12.34 s", "Sort", "0.00 s")
    assert settled(first) == settled(table.format("12.00 s", "0.02 s", "Read", "1.00 s"))
    assert settled(first) != settled(first.replace("3 rows", "4 rows"))
    assert settled("1 parts, about 7 B") == settled("1 parts, about 7.8 KiB") != settled("2 parts, about 7 B")
    assert settled("a   b") == "a   b"


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
        assert settled(done.stdout) == settled(block.output), done.stderr
