"""Defects that the world `collective` finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from umbel.testing.simulation.planted.defect import Planted, instead
from umbel.util.collective import rounds

_break = rounds.Rounds._break


_heard = rounds.Rounds.heard


def _break_in_silence(machine: rounds.Rounds, problem: rounds.Problem) -> list[Any]:
    """Whoever finds the group broken keeps it to himself."""
    return _break(machine, problem)[-1:]


def _deaf_for_ends(machine: rounds.Rounds, news: Iterable[Any]) -> list[Any]:
    """The end of a rank goes unnoticed."""
    return _heard(machine, [(rank, frame) for rank, frame in news if frame is not None])


_ROUNDS: Final = rounds.Rounds


PLANTS: Final[Mapping[str, Planted]] = {
    "broken-in-silence": instead("collective", _ROUNDS, "_break", _break_in_silence, "G3"),
    "ends-unheard": instead("collective", _ROUNDS, "heard", _deaf_for_ends, "G3"),
    "texts-unread": instead("collective", _ROUNDS, "_differ", lambda *_: [], "G1", "G2"),
}
