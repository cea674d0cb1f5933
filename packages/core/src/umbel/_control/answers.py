"""Answers to requests that must not be carried out twice, and that are asked again when a head has ended before it was heard.

A node asks a new head again for what the old one has not answered. Most requests may be carried out again: a creation names its
actor, and a question has no effect. These may not: a value that is put or deleted twice may undo what another one has done
in between, and an actor that is killed twice restarts twice. So their answers are kept, in the same commit as their effect,
until the node has heard them.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

Message = dict[str, Any]


class Answers:
    """By client, and the number of its request."""

    def __init__(self) -> None:
        self.changed: dict[tuple[str, int], None] | None = None  # to be kept anew; None where nobody keeps any
        self._given: dict[str, dict[int, Message]] = {}

    def given(self, client: str, request: int) -> Message | None:
        return self._given.get(client, {}).get(request)

    def clients(self) -> list[str]:
        """To whom any is kept."""
        return list(self._given)

    def keep(self, client: str, request: int, answer: Message) -> None:
        self._given.setdefault(client, {})[request] = answer
        self._changes(client, request)

    def forget(self, client: str, request: int) -> None:
        """It was heard."""
        of_client = self._given.get(client, {})
        if of_client.pop(request, None) is not None:
            self._changes(client, request)
            if not of_client:
                del self._given[client]

    def forget_others(self, client: str, asked: Container[int]) -> None:
        """All but those to what it still asks."""
        for request in [one for one in self._given.get(client, {}) if one not in asked]:
            self.forget(client, request)

    def _changes(self, client: str, request: int) -> None:
        if self.changed is not None:
            self.changed[client, request] = None
