"""What patterns leave out; the same as git, where there is git to ask."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from umbel._environments import ignoring


def _left_out(patterns: str, path: str, *, is_directory: bool = False) -> bool:
    return ignoring.is_left_out(path, is_directory, [ignoring.rules(patterns.splitlines())])


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        ("*.log", "a.log", True),
        ("*.log", "b/c/a.log", True),
        ("*.log", "a.log.txt", False),
        ("/a", "a", True),
        ("/a", "b/a", False),
        ("b/a", "b/a", True),
        ("b/a", "c/b/a", False),
        ("**/b/a", "c/b/a", True),
        ("a/**", "a/x/y", True),
        ("a/**", "a", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[ab]x", "ax", True),
        ("[!ab]x", "ax", False),
        ("[a-c]x", "bx", True),
        ("[[:digit:]]x", "7x", True),
        ("[", "[", True),
        (r"\#a", "#a", True),
        ("# a", "# a", False),
        (r"\!a", "!a", True),
        ("a ", "a", True),
        (r"a\ ", "a ", True),
        ("*.log\n!keep.log", "keep.log", False),
        ("!keep.log\n*.log", "keep.log", True),
        ("", "a", False),
        ("/", "a", False),
    ],
)
def test_pattern(patterns: str, path: str, expected: bool) -> None:
    assert _left_out(patterns, path) is expected


def test_pattern_for_directories_leaves_files_alone() -> None:
    assert _left_out("build/", "build", is_directory=True)
    assert not _left_out("build/", "build")


def test_rules_hold_below_their_directory_and_later_ones_decide() -> None:
    outer, inner = ignoring.rules(["*.txt"]), ignoring.rules(["!a.txt", "/b"], "sub/")
    assert ignoring.is_left_out("a.txt", False, [outer, inner])
    assert not ignoring.is_left_out("sub/a.txt", False, [outer, inner])
    assert ignoring.is_left_out("sub/b", False, [outer, inner])
    assert not ignoring.is_left_out("b", False, [outer, inner])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="asks git")
def test_git_decides_the_same(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    names = ["a", "b", "ab", "a.b", "b.log"]
    paths = ["/".join(parts) for length in (1, 2, 3) for parts in itertools.product(names, repeat=length)]
    pieces = ["a", "b", "*", "**", "?", "/", ".", "!", "[ab]", "[!a]", ".log", "\\", "log"]
    chance = random.Random(4)
    for _ in range(60):
        lines = ["".join(chance.choices(pieces, k=chance.randint(1, 5))) for _ in range(chance.randint(1, 3))]
        lines = [line for line in lines if not line.endswith("\\")]  # which git takes for an error, silently
        (tmp_path / ".gitignore").write_text("\n".join(lines) + "\n")
        asked = subprocess.run(
            ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "--stdin"],
            input="\n".join(paths), capture_output=True, text=True, check=False,
        )  # fmt: skip
        rules = [ignoring.rules(lines)]
        ours = {path for path in paths if _is_ignored(path, rules)}
        assert (lines, ours) == (lines, set(asked.stdout.split("\n")) - {""})


def _is_ignored(path: str, rules: list[ignoring.Rules]) -> bool:
    """Whether the path, or a directory that it is in, is left out; nothing in such a directory comes back."""
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts))]
    return any(ignoring.is_left_out(one, True, rules) for one in above) or ignoring.is_left_out(path, False, rules)
