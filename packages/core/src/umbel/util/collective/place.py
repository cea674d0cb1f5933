"""Where the ranks of a group meet: an actor that is found by the group's name.

A rank's process is told there whether it is the host, and where the host's door is otherwise. The host has made the
actor, and ends it once the group has come together; should the host die, it ends with it. Or a driver has made it, that
has declared the group.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import umbel
from umbel import exceptions
from umbel._client import answers, current, inboxes
from umbel.util.collective import assembly, links, meeting, peers, rounds, waiting

NAME = "umbel.util.collective:"  # and the group's name, in the namespace of the calling code

PLACE_PATIENCE_S = 30.0  # for the actor to start, which is no wait for another rank
CLOSED_S = 0.005  # between two looks whether a place that is over has gone; it goes within milliseconds


class Place(meeting.Meeting):
    """The actor. Its methods are plain ones, so that they run one at a time."""

    def declared(self) -> meeting.Declaration | None:
        return self.declaration


def meet(*, group_name: str, rank: int, world_size: int, backend: str, timeout_s: float) -> links.Connections:
    """To all other ranks. Raises CollectiveError; RuntimeError when the ranks do not fit together."""
    due_s = time.monotonic() + PLACE_PATIENCE_S
    process: bytes = getattr(current.engine(), "process_id", b"")
    with assembly.open_door() as door, _inbox(door.getsockname()) as box:
        me = meeting.Arrival(rank, world_size, backend, door.getsockname(), process)
        while time.monotonic() < due_s:
            actor = open_place(group_name, me)
            try:
                answer = umbel.get(actor.arrive.remote(me), timeout=PLACE_PATIENCE_S)
            except (exceptions.ActorDiedError, exceptions.ActorUnavailableError):
                answer = meeting.Closed()
            if isinstance(answer, meeting.Refuse):
                raise RuntimeError(f"collective group {group_name!r}: {answer.text}")
            if isinstance(answer, meeting.Lead):
                return _lead(actor, door, box, group_name, me, timeout_s)
            if isinstance(answer, meeting.Join):
                try:
                    return _join(answer, group_name, me, timeout_s)
                except ConnectionRefusedError:  # the host has given up or died: whoever comes now begins anew
                    actor.abandon.remote(answer.door)
            time.sleep(CLOSED_S)
    problem = rounds.Problem(rounds.Fault.TIMEOUT, rank, f"rank {rank} found no place within {PLACE_PATIENCE_S:g} s")
    raise peers.error_of(problem, group_name)


@contextlib.contextmanager
def _inbox(name: bytes) -> Iterator[inboxes.Inbox | None]:
    """None where there are no other machines. Left open if it belongs to connections in the end."""
    engine = current.engine()
    has_others = engine.name == "native" and engine.links.remote is not None
    box = engine.inboxes.open(name) if has_others else None
    try:
        yield box
    finally:
        if box is not None and not box.is_owned:
            box.close()


def _lead(
    actor: Any, door: Any, box: inboxes.Inbox | None, group_name: str, me: meeting.Arrival, timeout_s: float
) -> links.Connections:
    host = assembly.Host(
        door,
        box,
        process=me.process,
        group_name=group_name,
        rank=me.rank,
        world_size=me.world_size,
        timeout_s=timeout_s,
    )
    try:
        with _told(_Coming(group_name, me.rank, host.missing)):
            return host.gather()
    finally:
        actor.abandon.remote(me.door)
        if declaration_of(group_name) is None:
            umbel.kill(actor)


def _join(found: meeting.Join, group_name: str, me: meeting.Arrival, timeout_s: float) -> links.Connections:
    """Raises ConnectionRefusedError when the host is not there any more."""
    with _inbox(found.door) as box, _told(_Coming(group_name, me.rank, lambda: None)):
        guest = assembly.Guest(
            box, process=me.process, group_name=group_name, rank=me.rank, world_size=me.world_size, timeout_s=timeout_s
        )
        try:
            return guest.join(found.door)
        except ConnectionRefusedError:  # or it is on another machine
            return guest.join_far(found.process)


class _Coming:
    """A rank of which others have not come. missing: which; None where only the rank that came first knows them."""

    def __init__(self, group_name: str, rank: int, missing: Callable[[], Sequence[int] | None]) -> None:
        self._group_name = group_name
        self._rank = rank
        self._missing = missing
        self._thread = threading.get_ident()
        self._began_s = time.monotonic()

    def wait_now(self) -> answers.Wait:
        for_s = time.monotonic() - self._began_s
        reason = waiting.coming_together(
            group_name=self._group_name, rank=self._rank, awaited=self._missing(), for_s=for_s
        )
        return answers.Wait(self._thread, reason)


@contextlib.contextmanager
def _told(coming: _Coming) -> Iterator[None]:
    """Whoever asks this process is told of the wait."""
    engine = current.engine()
    answers.tell_of(engine, coming)
    try:
        yield
    finally:
        answers.tell_no_more_of(engine, coming)


def open_place(group_name: str, host: meeting.Arrival | None = None) -> Any:
    """The actor, made if there is none. host: the rank that makes it; None for a driver."""
    return umbel.remote(num_cpus=0)(Place).options(name=NAME + group_name, get_if_exists=True).remote(host)


def find_place(group_name: str) -> Any:
    """The actor, or None."""
    try:
        return umbel.get_actor(NAME + group_name)
    except ValueError:
        return None


def declare(group_name: str, declaration: meeting.Declaration) -> tuple[Any, str]:
    """The actor, which lives as long as the caller keeps it, and why the group cannot be declared; "" when it is."""
    due_s = time.monotonic() + PLACE_PATIENCE_S
    while time.monotonic() < due_s:
        actor = open_place(group_name)
        try:
            refused = umbel.get(actor.declare.remote(declaration), timeout=PLACE_PATIENCE_S)
        except (exceptions.ActorDiedError, exceptions.ActorUnavailableError):
            refused = meeting.Closed()
        if isinstance(refused, str):
            return actor, refused
        time.sleep(CLOSED_S)
    return None, f"the place of an earlier group of that name did not go within {PLACE_PATIENCE_S:g} s"


def declaration_of(group_name: str) -> meeting.Declaration | None:
    """What a driver has declared of the group; None when it has not."""
    actor = find_place(group_name)
    if actor is None:
        return None
    try:
        found: meeting.Declaration | None = umbel.get(actor.declared.remote())
    except (exceptions.ActorDiedError, exceptions.ActorUnavailableError):
        return None
    return found
