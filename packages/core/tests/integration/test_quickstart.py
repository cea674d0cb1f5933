"""The program that the README names runs, checks itself and says what it found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[4] / "examples" / "quickstart.py"
FILES = 60  # of some 700: every step of the program, in a few seconds
LIMIT_S = 120


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_quickstart_agrees_with_a_serial_run(engine: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--files", str(FILES), "--engine", engine],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{FILES} files" in done.stdout
    assert "both runs agree" in done.stdout
    assert "Traceback" not in done.stderr
