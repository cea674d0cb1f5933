"""Keeps the control store's records in a control storage, and holds back what depends on them meanwhile.

`Keeping` is the shell of `umbel._control.journal` and `umbel._control.leadership`, on the thread of the daemon's loop, which
never waits for the storage. What it orders of that, somebody else does (`Storing`; `storing.Threads` in a daemon).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from umbel import exceptions
from umbel._control import journal, leadership

if TYPE_CHECKING:
    from umbel._control import kept as kept_module

BODY_BYTES_MAX = 48 << 20  # of a request: with what else is in its commit less than storages take, 64 MiB


Heard: TypeAlias = "journal.Committed | journal.Failed | journal.Fenced | leadership.Event"


class Storing(Protocol):
    """Carries out what takes time. None of these waits."""

    def commit(self, command: journal.Commit) -> None: ...

    def ask(self, command: leadership.Acquire | leadership.Renew) -> None: ...

    @property
    def has_heard(self) -> bool:
        """Whether there is anything to `take`."""

    def take(self) -> list[Heard]:
        """What has come of it meanwhile."""

    def close(self, fencing: int) -> None:
        """Release the lease, unless it is 0, and end."""


class Keeping:
    """Of a head that leads, until it does so no longer."""

    def __init__(
        self,
        kept: kept_module.Kept,
        leader: leadership.Leadership,
        storing: Storing,
        *,
        now_s: Callable[[], float],
        lease_now_s: Callable[[], float],
        on_step_down: Callable[[str], None],
        recovery_s: float,
    ) -> None:
        """lease_now_s: the clock of leases. on_step_down: told once why nothing is done any more. recovery_s: how long nodes
        that lived on have to report after the start."""
        self.kept = kept
        self.recovery_s = recovery_s
        self.journal = journal.Journal(leader.fencing)
        self.leader = leader
        self._storing = storing
        self._now_s = now_s
        self._lease_now_s = lease_now_s
        self._on_step_down = on_step_down
        self._todo: deque[Callable[[], None]] = deque()
        self._is_doing = False

    def withheld(self, node: Any, *, is_first: Callable[[Any], bool]) -> Any:
        """The node, for a service whose records are kept here. is_first: of an actor to be placed, see `_Node`."""
        return _Node(node, self, is_first)

    def keep(self) -> None:
        """Have written what the tables have changed."""
        writes = self.kept.writes()
        if writes:
            self._apply(journal.Recorded(writes, self._now_s()))

    def withhold(self, effect: Callable[[], None]) -> None:
        """Do this when all is there that was kept until now."""
        self._apply(journal.Withheld(effect))

    def may_act(self) -> bool:
        """Asked before each act: the lease may have run out since."""
        if not (self.journal.ended or self.journal.paused or self.leader.may_act(self._lease_now_s())):
            self._lead(leadership.Tick(self._lease_now_s()))
        return not (self.journal.ended or self.journal.paused)

    def trouble(self, size_bytes: int) -> str:
        """Why a request with a body of this size is refused, or ""."""
        if size_bytes > BODY_BYTES_MAX:
            return (
                f"it has {size_bytes} bytes, and what is kept in a control storage at most {BODY_BYTES_MAX}; put large values "
                "into the object store and pass references"
            )
        return f"too much waits for the control storage: {self.reason()}" if self.journal.is_full else ""

    def reason(self) -> str:
        """What is waited for; "" for nothing."""
        return self.journal.reason(self._now_s())

    def next_tick_s(self) -> float | None:
        if self.journal.ended:
            return None
        left_s = self.leader.wake_at_s - self._lease_now_s()
        if left_s <= 0 or self._storing.has_heard:
            return 0.0  # before now, whenever the caller looks what time it is
        wake_s, retry_s = self._now_s() + left_s, self.journal.next_tick_s()
        return wake_s if retry_s is None else min(wake_s, retry_s)

    def tick(self) -> None:
        """Look at what has come, and what is due."""
        for event in self._storing.take():
            if isinstance(event, (journal.Committed, journal.Failed, journal.Fenced)):
                self._apply(event)
            else:
                # It happens now, however long it has lain there: this process may have stood still since.
                self._lead(event._replace(now_s=self._lease_now_s()))
        self._lead(leadership.Tick(self._lease_now_s()))
        self._apply(journal.Ticked(self._now_s()))

    def end(self) -> None:
        """What is withheld stays undone. The lease is given back, so that another one can lead at once."""
        self._storing.close(0 if self.journal.ended or self.journal.paused else self.journal.fencing)

    def _lead(self, event: leadership.Event) -> None:
        if self.journal.ended:
            return
        for command in self.leader.apply(event):
            if isinstance(command, leadership.StepDown):
                self._apply(journal.Paused(command.reason))
            elif isinstance(command, leadership.Lead):
                self._lead_again(command.fencing)
            else:
                self._storing.ask(command)
        if isinstance(event, leadership.Held):
            self._apply(journal.Fenced(self.journal.fencing, f"{event.holder!r} leads"))

    def _lead_again(self, fencing: int) -> None:
        """The numbers of leases tell whether anybody has led meanwhile."""
        if fencing - self.journal.fencing in (0, 1):
            self._apply(journal.Resumed(fencing, self._now_s()))
            self._do_rest()
        else:
            self._apply(journal.Fenced(self.journal.fencing, "another one has led meanwhile"))

    def _apply(self, event: journal.Event) -> None:
        for command in self.journal.apply(event):
            if isinstance(command, journal.Commit):
                self._storing.commit(command)
            elif isinstance(command, journal.StepDown):
                self._todo.clear()
                self._on_step_down(command.reason)
            else:
                self._todo.extend(command.effects)
                self._do_rest()

    def _do_rest(self) -> None:
        """In order; what follows from an effect comes after those that are due already."""
        if self._is_doing:
            return
        self._is_doing = True
        try:
            while self._todo and self.may_act():
                self._todo.popleft()()
        except (exceptions.InternalError, AssertionError):  # as in `orders`
            raise
        except Exception as error:
            raise exceptions.InternalError(f"what was withheld could not be done: {error!r:.300}") from error
        finally:
            self._is_doing = False


class _Node:
    """The daemon, as the control service sees it: what it is told to do is withheld, what it is asked is not.

    A worker for an actor that has had none is looked for at once: that takes longest, nobody is told of it, and when the
    record is not there in the end the worker hosts nothing.
    """

    def __init__(self, node: Any, keeping: Keeping, is_first: Callable[[Any], bool]) -> None:
        self._node = node
        self._keeping = keeping
        self._is_first = is_first
        for name in _ORDERS:
            setattr(self, name, self._withheld(name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def _withheld(self, name: str) -> Callable[..., None]:
        order = getattr(self._node, name)
        withhold = self._keeping.withhold

        def later(*values: Any, **named: Any) -> None:
            withhold(lambda: order(*values, **named))

        return later

    def place_actor(self, spec: Any) -> None:
        if self._is_first(spec) and self._keeping.may_act():
            self._node.place_actor(spec)
        else:
            self._keeping.withhold(lambda: self._node.place_actor(spec))


_ORDERS = (
    "send", "reply", "refuse", "release_actor", "kill_actor", "warn", "reserve_bundles", "commit_bundles",
    "cancel_bundles", "drop_group", "tell_places", "actor_dead",
)  # fmt: skip
