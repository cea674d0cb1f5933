"""The groups that the calling code is a rank of.

A group belongs to an actor, to the driver, or to a task, and is left when that ends: the process of a task goes on to
run others, which must not find themselves in it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, cast

import umbel
from umbel import exceptions, spi
from umbel._base import sessions
from umbel._client import answers, context, current
from umbel._plugins import registry
from umbel.util.collective import peers, place

BY_CONNECTIONS = "shm"  # the backend that needs nothing but the connections that processes have anyway


class Group:
    """One rank of a group. Its operations are called one after another, whichever thread calls them."""

    def __init__(self, conversation: peers.Peers, operations: spi.CollectiveGroup, backend: str) -> None:
        self._peers = conversation
        self._operations = operations
        self._lock = threading.Lock()
        self._is_left = False
        self.name = conversation.group_name
        self.backend = backend
        self.rank = conversation.rank
        self.world_size = conversation.world_size

    def run(self, operation: Callable[[spi.CollectiveGroup], None]) -> None:
        """Raises what the operation does. When that comes in the midst of it, the group is of no more use to anyone."""
        with self._lock:
            if self._is_left:
                raise RuntimeError(f"this process has left the collective group {self.name!r}")
            step_count = self._peers.step_count
            self._peers.thread = threading.get_ident()
            try:
                operation(self._operations)
            except exceptions.CollectiveMismatchError:
                raise  # all ranks have it, and nothing has been touched
            except BaseException as error:
                if self._peers.step_count != step_count:
                    self._peers.give_up(f"{type(error).__name__}: {error}")
                raise
            finally:
                self._peers.thread = 0

    def leave(self) -> None:
        """Idempotent."""
        with self._lock:
            if not self._is_left:
                self._is_left = True
                self._operations.close()
                self._peers.close()

    def __del__(self) -> None:
        self.leave()  # in a forked child too, where it only closes what is the child's


class Membership:
    """The groups of one task, actor or driver, by name."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.groups: dict[str, Group] = {}
        self.declared: dict[str, Any] = {}  # the places that this driver holds open
        self.made: dict[str, Any] = {}  # handles of those made of other actors, see umbel.experimental.collective


class _Members:
    """Whose groups are whose, as long as they live."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_owner: weakref.WeakKeyDictionary[object, Membership] = weakref.WeakKeyDictionary()

    def of(self, owner: object) -> Membership:
        with self._lock:
            return self._by_owner.setdefault(owner, Membership())


_members = _Members()


def membership() -> Membership:
    """That of the calling code: of the task, or else of the actor or driver, that is of the process."""
    session: context.SessionContext = current.engine().session_context
    task = context.current_task.get()
    return _members.of(session if task is None or task.actor is not None else task)


def enter(*, group_name: str, rank: int, world_size: int, backend: str, timeout_s: float) -> Group:
    """Meet the others. Raises CollectiveError, RuntimeError, PluginError."""
    if getattr(current.engine(), "is_remote", False) and backend != BY_CONNECTIONS:
        raise exceptions.UnsupportedFeature(
            f"a program that is connected by umbel:// can be a rank by the backend {BY_CONNECTIONS!r} only, got {backend!r}: "
            "what others need may not get to its machine; use that, or let actors be the ranks"
        )
    backends = registry.installed().collectives
    backends.factory(backend)  # a backend that is not there is an error before anybody waits
    found = place.meet(group_name=group_name, rank=rank, world_size=world_size, backend=backend, timeout_s=timeout_s)
    conversation = peers.Peers(
        found,
        group_name=group_name,
        rank=rank,
        world_size=world_size,
        timeout_s=timeout_s,
        directory=_directory(),
    )
    conversation.thread = threading.get_ident()
    answers.tell_of(current.engine(), conversation)
    try:
        operations = cast(spi.CollectiveGroup, backends.create(backend, conversation))
    except BaseException as error:
        conversation.give_up(f"{type(error).__name__}: {error}")
        conversation.close()
        raise
    finally:
        conversation.thread = 0
    return Group(conversation, operations, backend)


def _directory() -> str:
    session_dir: str = current.engine().session_context.session_dir
    return session_dir if os.path.isdir(session_dir) else sessions.base_dir()


def actor_id() -> str | None:
    """Of the actor that calls, in hex."""
    return umbel.get_runtime_context().get_actor_id()
