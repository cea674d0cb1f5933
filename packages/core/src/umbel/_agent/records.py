"""What the agent remembers of workers, leases and demands. Data only; `state` says what may happen to it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from umbel._agent import bundles
from umbel._agent import events as ev
from umbel._agent.ledger import added
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
        "accelerators", "actor", "bundle", "client", "depth", "is_blocked", "is_reclaimed", "is_recycled", "job", "keeps",
        "key", "kinds", "reclaimed_s", "resources", "worker",
    )  # fmt: skip

    def __init__(
        self,
        worker: str,
        demand: Demand,
        resources: Mapping[str, int],
        accelerators: Mapping[str, tuple[str, ...]],
        bundle: bundles.Bundle | None = None,
    ) -> None:
        self.worker = worker
        self.client = demand.client
        self.actor = demand.actor
        self.key = demand.key
        self.depth = demand.depth
        self.job = demand.job
        self.kinds = demand.kinds
        self.resources = resources
        self.accelerators = accelerators
        self.bundle = bundle  # of which it holds them; None for the node itself
        self.is_blocked = False
        self.is_reclaimed = False  # asked back for others who wait
        self.reclaimed_s = 0.0  # when
        self.is_recycled = False  # asked back so that its worker can be replaced
        self.keeps = ""  # why what runs there, which was asked back, cannot be stopped: it may take long


class Worker:
    """What the agent knows of one worker process."""

    __slots__ = (
        "ask_again_s",
        "build_key",
        "deadline_s",
        "ended_group",
        "env",
        "has_run_tasks",
        "id",
        "is_intended",
        "is_lost",
        "is_preempted",
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
        self.ended_group = ""  # the placement group with which it was to end, if that is why
        self.is_intended = False  # its end is wanted: by its lease holder, or as its actor or that holder is gone
        self.is_preempted = False  # this agent killed it for a job of higher priority
        self.is_retired = False  # nobody may use it again
        self.is_lost = False  # its connection has closed, so its process should be gone soon


class Demand:
    """A wish for workers, by a client (`count` leases) or an actor (one worker); or by a placement group for `bundles`."""

    __slots__ = (
        "actor", "attempt", "build_key", "build_timeout_s", "bundle_index", "bundles", "busy_since_s", "client", "count", "depth",
        "env", "fails_when_busy", "group", "is_claim", "is_warned_of", "job", "key", "kinds", "label_selectors", "lacking",
        "place", "placement", "promised", "refusal", "resources", "short_since_s", "since_s", "source", "strategy", "turn",
    )  # fmt: skip

    def __init__(self, place: Place, event: ev.DemandChanged | ev.ActorWanted | ev.BundlesWanted, turn: int) -> None:
        self.place = place
        self.client, self.actor, self.key = place
        self.depth = event.depth
        self.job = event.job
        self.count = event.lease_count if isinstance(event, ev.DemandChanged) else 1
        self.group, self.bundle_index = "", -1  # where it is to run, or whose bundles it is for; "" for no group
        self.bundles: Mapping[int, Mapping[str, int]] = {}  # for a group: what it wants, by index
        self.attempt = 0
        self.label_selectors: Any = None
        self.fails_when_busy = False  # it is not to wait for what others have
        self.is_claim = isinstance(event, ev.DemandChanged) and event.is_claim  # of what other jobs have to give up
        self.strategy: str | Mapping[str, Any] | None
        self.build_timeout_s: float | None
        if isinstance(event, ev.BundlesWanted):
            self.strategy = self.build_timeout_s = None
            self.env = self.refusal = self.build_key = self.source = ""
            self.group, self.attempt, self.bundles = event.group, event.attempt, event.bundles
            self.resources: Mapping[str, int] = added(event.bundles.values())
            self.placement: Mapping[str, int] = self.resources
        else:
            self.env = event.env
            self.refusal = event.refusal
            self.build_key = event.build_key
            self.build_timeout_s = event.build_timeout_s
            self.source = event.source
            self.strategy = event.strategy
            self.label_selectors = event.label_selectors
            if isinstance(event.strategy, dict):
                self.group = event.strategy.get("placement_group", "")
                self.bundle_index = event.strategy.get("bundle_index", -1)
                self.fails_when_busy = not self.actor and bool(event.strategy.get("fails_when_busy"))
            self.resources = event.resources if isinstance(event, ev.DemandChanged) else event.running
            self.placement = event.resources if isinstance(event, ev.DemandChanged) else event.placement
        self.kinds = tuple(name for name, amount in self.resources.items() if amount)  # names of what it needs
        self.since_s = event.at_s
        self.short_since_s: float | None = None  # since when it has lacked resources that others hold
        self.busy_since_s: float | None = None  # the same, of one that is not to wait, as far as that was looked at
        # Of it, as was told last, less what was granted since. Of a new claim nothing was, but of one before it may have been.
        self.promised = -1 if self.is_claim else 0
        self.turn = turn  # of when it was last served: the one that waited longest comes first
        self.lacking: dict[str, int] = {}  # what this node can never give it
        self.is_warned_of = False  # that it can never be served


Place = tuple[str, str, str]  # (client, actor, key) of a demand


class Pending(NamedTuple):
    """Why a demand waits, for `query`, warnings and `umbel explain`. group: the placement group that wants bundles, or ""."""

    client: str
    actor: str
    key: str
    lease_count: int
    depth: int
    resources: Mapping[str, int]
    since_s: float
    why: reasons.Reason
    env: str
    group: str = ""
