"""Who has to do with what, to be asked both ways round."""

from __future__ import annotations

from collections.abc import Iterator


class Pairs:
    """Pairs of a left one and a right one, each once, in the order in which they came."""

    __slots__ = ("_lefts", "_rights")

    def __init__(self) -> None:
        self._rights: dict[str, dict[str, None]] = {}
        self._lefts: dict[str, dict[str, None]] = {}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter([(left, right) for left, rights in self._rights.items() for right in rights])

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair[1] in self._rights.get(pair[0], ())

    def add(self, left: str, right: str) -> None:
        self._rights.setdefault(left, {})[right] = None
        self._lefts.setdefault(right, {})[left] = None

    def discard(self, left: str, right: str) -> None:
        _remove(self._rights, left, right)
        _remove(self._lefts, right, left)

    def lefts(self, right: str) -> list[str]:
        return [*self._lefts.get(right, ())]

    def rights(self, left: str) -> list[str]:
        return [*self._rights.get(left, ())]

    def pop_left(self, left: str) -> list[str]:
        """What it has been paired with."""
        found = self.rights(left)
        for right in found:
            self.discard(left, right)
        return found

    def pop_right(self, right: str) -> list[str]:
        """What it has been paired with."""
        found = self.lefts(right)
        for left in found:
            self.discard(left, right)
        return found


def _remove(others: dict[str, dict[str, None]], one: str, other: str) -> None:
    found = others.get(one, {})
    found.pop(other, None)
    if not found:
        others.pop(one, None)
