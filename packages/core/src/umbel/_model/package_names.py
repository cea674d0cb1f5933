"""What packages of runtime environments are called where they travel: a scheme, and the digest of their bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

SCHEME: Final = "umbel-package://"
LIVE: Final = "packages live as long as the nodes that have needed them; give the local path instead"
_NAME = re.compile("[0-9a-f]{32}")
_URI = re.compile(f"{re.escape(SCHEME)}({_NAME.pattern})(?![0-9a-f])")


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def names_in(text: str) -> list[str]:
    """Of the packages whose uris are in it, each once."""
    return list(dict.fromkeys(_URI.findall(text)))


def with_paths(text: str, path_of: Callable[[str], str]) -> str:
    """The text with a path for each uri in it."""
    return _URI.sub(lambda found: path_of(found.group()), text)


def mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"
