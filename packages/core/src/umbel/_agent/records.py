"""What the agent remembers of workers, leases and demands. Data only; `state` says what may happen to it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from umbel._agent import events as ev
from umbel._model import reasons

START_TIMEOUT_S = 60.0  # importing a large program on a busy machine takes tens of seconds; more is a hang


class WorkerState(Enum):
    STARTING = "starting"  # forked, has not introduced itself
    IDLE = "idle"
    LEASED = "leased"
    ACTOR = "actor"
    LEAVING = "leaving"  # asked to exit; may still say that it must stay
    DYING = "dying"  # killed; its exit has not been reported


class Lease:
    """One worker's use by one holder. Exactly one of `client` and `actor` is set."""

    __slots__ = (
        "accelerators", "actor", "client", "depth", "is_blocked", "is_reclaimed", "is_recycled", "key", "resources",
        "worker",
    )  # fmt: skip

    def __init__(
        self, worker: str, demand: Demand, resources: Mapping[str, int], accelerators: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.worker = worker
        self.client = demand.client
        self.actor = demand.actor
        self.key = demand.key
        self.depth = demand.depth
        self.resources = resources
        self.accelerators = accelerators
        self.is_blocked = False
        self.is_reclaimed = False  # asked back for others who wait
        self.is_recycled = False  # asked back so that its worker can be replaced


class Worker:
    """What the agent knows of one worker process."""

    __slots__ = (
        "ask_again_s",
        "build_key",
        "deadline_s",
        "env",
        "has_run_tasks",
        "id",
        "is_intended",
        "is_lost",
        "is_retired",
        "lease",
        "made_s",
        "reason",
        "since_s",
        "state",
    )

    def __init__(self, id: str, env: str, at_s: float, build_key: str = "") -> None:
        self.id = id
        self.env = env
        self.build_key = build_key  # of the environment that was built for it; "" for none
        self.state = WorkerState.STARTING
        self.made_s = at_s
        self.since_s = at_s  # when it came into this state
        self.deadline_s: float | None = at_s + START_TIMEOUT_S  # killed then, unless something happens before
        self.ask_again_s: float | None = None  # when to repeat the request to exit
        self.lease: Lease | None = None
        self.has_run_tasks = False
        self.reason = ""  # why this agent killed it, if it did
        self.is_intended = False  # its end is wanted: by its lease holder, or as its actor or that holder is gone
        self.is_retired = False  # nobody may use it again
        self.is_lost = False  # its connection has closed, so its process should be gone soon


class Demand:
    """A wish for workers, by a client (`count` leases) or an actor (one worker)."""

    __slots__ = (
        "actor", "build_key", "build_timeout_s", "client", "count", "depth", "env", "is_warned_of", "key", "lacking",
        "place", "placement", "refusal", "resources", "short_since_s", "since_s", "strategy", "turn",
    )  # fmt: skip

    def __init__(self, place: Place, event: ev.DemandChanged | ev.ActorWanted, turn: int) -> None:
        self.place = place
        self.client, self.actor, self.key = place
        self.depth = event.depth
        self.env = event.env
        self.build_key = event.build_key
        self.build_timeout_s = event.build_timeout_s
        self.refusal = event.refusal
        self.strategy = event.strategy
        self.count = event.lease_count if isinstance(event, ev.DemandChanged) else 1
        self.resources = event.resources if isinstance(event, ev.DemandChanged) else event.running
        self.placement = event.resources if isinstance(event, ev.DemandChanged) else event.placement
        self.since_s = event.at_s
        self.short_since_s: float | None = None  # since when it has lacked resources that others hold
        self.turn = turn  # of when it was last served: the one that waited longest comes first
        self.lacking: dict[str, int] = {}  # what this node can never give it
        self.is_warned_of = False  # that it can never be served


Place = tuple[str, str, str]  # (client, actor, key) of a demand


class Pending(NamedTuple):
    """Why a demand waits, for `query`, warnings and `umbel explain`."""

    client: str
    actor: str
    key: str
    lease_count: int
    depth: int
    resources: Mapping[str, int]
    since_s: float
    why: reasons.Reason
    env: str
