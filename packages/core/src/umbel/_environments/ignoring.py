"""Which paths a list of patterns leaves out, by the rules of `.gitignore`.

Patterns are relative to the directory of the file that holds them. The last one that matches a path decides; `!` takes a
path back in, but nothing in a directory that is left out. No file is read here.
Source: the manual page gitignore(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Pattern(NamedTuple):
    """One line. regex: matches a whole path below `base`, with "/" between names."""

    regex: re.Pattern[str]
    is_negated: bool
    is_for_directories: bool


class Rules(NamedTuple):
    """The patterns of one file. base: the directory they are for, relative to the root and with a "/" at its end; "" is
    the root itself."""

    base: str
    patterns: tuple[Pattern, ...]


def rules(lines: Iterable[str], base: str = "") -> Rules:
    return Rules(base, tuple(pattern for pattern in map(_pattern, lines) if pattern is not None))


def is_left_out(path: str, is_directory: bool, all_rules: Sequence[Rules]) -> bool:
    """Whether the rules leave `path` out, if its parent is in. all_rules: later ones go before earlier ones."""
    for base, patterns in reversed(all_rules):
        if not path.startswith(base):
            continue
        below = path[len(base) :]
        for pattern in reversed(patterns):
            if (is_directory or not pattern.is_for_directories) and pattern.regex.fullmatch(below):
                return not pattern.is_negated
    return False


def _pattern(line: str) -> Pattern | None:
    text = line.rstrip("\r\n")
    while text.endswith(" ") and not text.endswith("\\ "):
        text = text[:-1]
    if not text or text.startswith("#"):
        return None
    is_negated = text.startswith("!")
    text = text[is_negated:]
    is_for_directories = text.endswith("/")
    text = text.rstrip("/") if is_for_directories else text
    is_anchored = "/" in text
    text = text.removeprefix("/")
    if not text:
        return None
    try:
        regex = re.compile(("" if is_anchored else "(?:.*/)?") + _translated(text), re.DOTALL)
    except re.error:
        return None  # a bad range such as [z-a] matches nothing
    return Pattern(regex, is_negated, is_for_directories)


def _translated(text: str) -> str:
    """The pattern as a regular expression."""
    found = []
    at = 0
    while at < len(text):
        if text.startswith("**/", at) and (at == 0 or text[at - 1] == "/"):
            found.append("(?:.*/)?")
            at += 3
        elif text[at:] == "**" and (at == 0 or text[at - 1] == "/"):
            found.append(".+")
            at += 2
        elif text[at] == "*":
            while text.startswith("*", at):
                at += 1
            found.append("[^/]*")
        elif text[at] == "?":
            found.append("[^/]")
            at += 1
        elif text[at] == "[":
            piece, at = _character_class(text, at)
            found.append(piece)
        elif text[at] == "\\" and at + 1 < len(text):
            found.append(re.escape(text[at + 1]))
            at += 2
        else:
            found.append(re.escape(text[at]))
            at += 1
    return "".join(found)


def _character_class(text: str, start: int) -> tuple[str, int]:
    """The expression for a "[...]" that begins at `start`, and where the text goes on."""
    at = start + 1
    is_negated = text[at : at + 1] in ("!", "^")
    at += is_negated
    members = []
    is_first = True
    while at < len(text) and (text[at] != "]" or is_first):
        is_first = False
        if text.startswith("[:", at) and (end := text.find(":]", at)) > 0:
            members.append(_CLASSES.get(text[at + 2 : end], ""))
            at = end + 2
            continue
        if text[at] == "\\" and at + 1 < len(text):
            at += 1
        members.append("-" if text[at] == "-" else re.escape(text[at]))
        at += 1
    if at >= len(text):
        return re.escape("["), start + 1
    return f"(?!/)[{'^' if is_negated else ''}{''.join(members)}]", at + 1


_CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": " \\t", "digit": "0-9", "lower": "a-z", "space": "\\s",
    "upper": "A-Z", "xdigit": "0-9a-fA-F", "punct": re.escape("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
}  # fmt: skip
