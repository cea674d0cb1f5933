"""What the daemon and the control service know of each other: the daemon loads that by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Message = dict[str, Any]


class Control(Protocol):
    """What the agent needs of the control service: it answers actors' messages and is told what becomes of workers."""

    on: dict[str, Callable[[str, str, Message, bytes], None]]

    @property
    def send(self) -> Callable[..., None]:
        """(client, message): when all that the control service has decided so far is kept, where it keeps anything."""

    @property
    def reply(self) -> Callable[..., None]:
        """(client, request, message): likewise."""

    def waits_for(self) -> str: ...

    def job_environments(self) -> list[Any]: ...

    def end(self) -> None: ...

    def hosted(self, actor: str, worker: str, address: str, accelerators: Mapping[str, Sequence[str]]) -> None: ...

    def host_died(self, actor: str, worker: str, reason: str, *, memory: Message | None) -> None: ...

    def unplaceable(self, actor: str, reason: str, *, is_unschedulable: bool) -> None: ...

    def preparing(self, actor: str, text: str) -> None:
        """What is done for the environment of an actor that was to be placed here; "" when that is there."""

    def client_gone(self, client: str, why: str = "") -> None:
        """why: for its job, should it be a driver; "" if nothing is known but that."""

    def next_tick_s(self) -> float | None: ...

    def tick(self) -> None: ...

    def driver_of_job(self, job_id: str) -> str:
        """The process that drives it; "" when it has ended, or is not known here."""

    def owns_actors(self, client: str) -> bool: ...

    def may_restart(self, actor: str) -> bool: ...

    def listed(self) -> list[Message]: ...

    def job_begins(self, driver: str, pid: int, facts: Mapping[str, Any] | None) -> tuple[str, Any]: ...

    def job_leaves(self, driver: str) -> None: ...

    def driver_trouble(self) -> str: ...

    def jobs_listed(self) -> list[Message]: ...

    def events_listed(self) -> list[Message]: ...

    def add_event(self, severity: str, source: str, text: str, **facts: Any) -> None:
        """For `umbel list cluster-events`, see `umbel._control.cluster_events`."""

    def group_trouble(self, group: str) -> str: ...

    def follow_group(self, group: str) -> None: ...

    def bundles_reserved(self, group: str, attempt: int) -> None: ...

    def bundles_refused(self, group: str, attempt: int, reason: str) -> None: ...

    def listed_groups(self, group: str) -> list[Message]: ...

    def look_at_room(self) -> None:
        """Something may have become free on the node, where it is one of several."""


class ActorWish(Protocol):
    """What a node must know of an actor to find a worker for it."""

    @property
    def actor(self) -> str: ...

    @property
    def placement(self) -> Mapping[str, int]: ...

    @property
    def running(self) -> Mapping[str, int]: ...

    @property
    def env(self) -> Any: ...

    @property
    def strategy(self) -> Any: ...

    @property
    def label_selectors(self) -> Any: ...

    @property
    def depth(self) -> int: ...

    @property
    def job(self) -> Any: ...
