"""What the autoscaler of a cluster does about what no node has, put behind the reason that somebody is given for it.

The cluster's head knows that; another node asks it. Loaded when something cannot be had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from umbel._base import nodes

Message = dict[str, Any]


class Daemon(Protocol):
    """What is needed of the daemon that this is in."""

    scaling: Any  # a `scaling.Scaling`; None where no autoscaler runs
    others: Any  # an `other_nodes.OtherNodes`

    @property
    def queries(self) -> Any:
        """A `queries.Queries`."""


def told_on(daemon: Daemon, reason: str, lacks: Mapping[str, Any] | None, then: Callable[[str], None]) -> None:
    """Have `then` told the reason, with what the autoscaler does about it if there is one: at once, or when the head has said so,
    or does not. lacks: see `umbel._autoscaling.report.about`; None for what no other node could help."""

    def answered(answer: Message) -> None:
        then(reason + in_words(answer["result"]) if "result" in answer else reason)

    if lacks is None:
        then(reason)
    elif daemon.scaling is not None:
        then(reason + in_words(daemon.scaling.about(lacks)))
    elif head := daemon.others.scaling_head():
        message = {"t": "query", "what": "launches", "about": json.dumps(lacks)}
        daemon.queries.pass_on(nodes.tag_text(head), message, answered)
    else:
        then(reason)


def in_words(said: str) -> str:
    """As the end of a reason. said: what the autoscaler does; "" before it has looked, which it does once in a period."""
    return f": the autoscaler {said or 'has not decided about it yet'}"
