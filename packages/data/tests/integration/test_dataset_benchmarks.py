"""The side-by-side measurements: that each row still runs, and gives the right answer, on Umbel."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = ROOT / "benchmarks" / "data.py"
ROWS = {
    "": [
        "cold_take",
        "groupby",
        "map_batches",
        "iter_32",
        "iter_256",
        "parquet_filter",
        "parquet_tiny",
        "join",
        "sort",
        "shuffle",
    ],
    "PIL": ["images"],
    "duckdb": ["tpch_q1", "tpch_q3", "tpch_q5", "tpch_q6", "tpch_q12", "tpch_q14"],
}


@pytest.mark.slow
@pytest.mark.parametrize("needed", ROWS)
def test_each_row_gives_the_right_answer_on_little_data(needed: str, tmp_path: Path) -> None:
    """A wrong answer or a row that ends its process is a failure of the program. Answers of TPC-H are those of DuckDB."""
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    kept = tmp_path / "timings.json"
    command = [sys.executable, str(PROGRAM), "--quick", "--rows", ",".join(ROWS[needed]), "--json", str(kept)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(json.loads(kept.read_text())["umbel"]["timings"]) == ROWS[needed]
