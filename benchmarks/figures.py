"""The programs of this folder that have no table of rows in docs/benchmarks.md, one after another, as one page.

    python benchmarks/figures.py [NAME ...] [--peer-python PATH] [--quick] [--write docs/figures.md]

What each prints is shown as it is. --quick measures as little as possible, to see that all of them work. Exit status 1 when one
fails, or misses a bar of its own.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

from benchmarks.compare import PEER_QUIET, hardware

FOLDER = Path(__file__).resolve().parent
LIMIT_S = 3600.0  # for one program; they take minutes


class Program(NamedTuple):
    """peer: the option for an interpreter with Ray, of what is measured beside it. quick: arguments for as little as possible."""

    quick: Sequence[str]
    peer: str = ""


PROGRAMS = {
    "transfer": Program(["--samples", "1"], "--ray"),
    "state": Program(["--tasks", "2000", "--rounds", "2"]),
    "dag": Program(["--seconds", "0.2", "--rounds", "1"], "--compare"),
    "collective": Program(["--quick"]),
    "autoscaling": Program(["--nodes", "100"]),
    "locality": Program(["--bytes", str(8 << 20)]),
    "control_storage": Program(["--records", "10000"]),
}


def run(name: str, arguments: Sequence[str]) -> tuple[str, bool]:
    """What it has printed, and whether it has ended well."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    print(f"{name}: {' '.join(command)}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            command, env={**os.environ, **PEER_QUIET}, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end within {LIMIT_S:g} s", False
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
    return done.stdout.rstrip() or "nothing", done.returncode == 0


def section(name: str, arguments: Sequence[str], said: str, *, is_good: bool) -> str:
    about = (ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or "").partition("\n\n")[0]
    end = "" if is_good else "\nIt has failed, or missed a bar of its own.\n"
    return f"## `{' '.join([f'benchmarks/{name}.py', *arguments])}`\n\n{about}\n\n```text\n{said}\n```\n{end}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROGRAMS)}; all by default")
    parser.add_argument("--peer-python", help="an interpreter that has Ray, for those that are measured beside it")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in PROGRAMS]:
        parser.error(f"{', '.join(unknown)} unknown; allowed: {', '.join(PROGRAMS)}")
    sections, all_good = [], True
    for name in given.names or PROGRAMS:
        program = PROGRAMS[name]
        own = list(program.quick) if given.quick else []
        peer = [program.peer, given.peer_python] if program.peer and given.peer_python else []
        said, is_good = run(name, [*own, *peer])
        shown = [*own, program.peer, "PYTHON"] if peer else own
        sections.append(section(name, shown, said, is_good=is_good))
        print(sections[-1], flush=True)
        all_good = all_good and is_good
    if given.write:
        facts = f"By `nox -s figures`, which measures what [benchmarks](benchmarks.md) has no row for. {hardware()}."
        given.write.write_text("\n".join([f"# Figures\n\n{facts}\n", *sections]))
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())
