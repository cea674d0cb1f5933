"""Defects that the world `pulls` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import offers, pulls
from umbel.testing.simulation.planted.defect import Planted, instead

_opened = pulls.PullTable.opened


_told = offers.OfferTable._told


def _trust(machine: pulls.PullTable, *args: Any, **facts: Any) -> list[Any]:
    """Nobody is asked whether what he sent was still right in the end."""
    return _opened(machine, *args, **{**facts, "is_sure": True})


def _keep_unsure(machine: pulls.PullTable, pull: Any) -> list[Any]:
    """What nobody can confirm any more is kept."""
    pull.arrived = dict.fromkeys(pull.arrived, True)
    pull.generation = pull.confirming = ""
    return []


def _insist(table: offers.OfferTable, offer: Any, asked: Any) -> tuple[offers.Holder, ...]:
    """Whoever says that others do not do for him is sent to them again."""
    return _told(table, offer, asked._replace(without=()))


_PULLS: Final = pulls.PullTable


PLANTS: Final[Mapping[str, Planted]] = {
    "unconfirmed": instead("pulls", _PULLS, "opened", _trust, "V1"),
    "unsure-kept": instead("pulls", _PULLS, "_void", _keep_unsure, "V1"),
    "less-urgent-kept": instead("pulls", _PULLS, "_give_up_for", lambda *_: [], "V3"),
    "loss-unheard": instead("pulls", _PULLS, "source_lost", lambda *_, **__: [], "V2", "R2"),
    "dead-kept": instead("pulls", _PULLS, "freed", lambda *_, **__: [], "V6"),
    "sent-away-again": instead("pulls", offers.OfferTable, "_told", _insist, "R2", "V2"),
}
