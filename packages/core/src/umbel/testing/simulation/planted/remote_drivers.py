"""Defects that the world `remote_drivers` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._client import remote_store
from umbel._transport import tunnel
from umbel._wire import channels, conversations, multiplexing, reconnecting
from umbel.testing.simulation.planted.defect import Planted, instead

_MACHINE: Final = "remote_drivers"
_trouble = conversations.Conversation._trouble
_broken = reconnecting.Reconnecting.broken


def _forget_unheard(one: channels.Channel, heard: int) -> list[Any]:
    """Nothing is said again by a new connection."""
    one.acknowledged(heard)
    return []


def _take_late(one: conversations.Conversation, message: Any) -> str:
    """An attempt that was given up takes the place of a later one."""
    one._attempt = 0
    return _trouble(one, message)


def _wait_for_ever(one: conversations.Conversation) -> float | None:
    """Whoever connects has all the time that it wants to say so."""
    one._new = dict.fromkeys(one._new, 1e9)
    return one._links.next_tick_s()


def _lose_patience(one: reconnecting.Reconnecting, at_s: float) -> None:
    """The time without a connection is counted from what was heard last."""
    _broken(one, at_s)
    one.broken_s = one._heard_s


def _drop_unread(one: tunnel.Tunnel, local: Any) -> None:
    """What a process has said before its end is not read when nothing can be written to it."""
    while local.out:
        try:
            sent = local.sock.send(local.out[0])
        except BlockingIOError:
            break
        except OSError:
            one.multiplexer.end(local.stream)
            one._drop(local)
            return
        one.multiplexer.handed_on(local.stream, sent)
        rest = local.out.popleft()[sent:]
        if rest:
            local.out.appendleft(rest)
    if local.is_ending and not local.out:
        one._drop(local)
    else:
        one._watch(local)


def _end_at_once(one: tunnel.Tunnel, event: Any) -> None:
    """The end of a stream comes before its last bytes."""
    if isinstance(event, multiplexing.Ended) and event.stream in one._locals:
        one._drop(one._locals[event.stream])
    else:
        _on_event(one, event)


_on_event = tunnel.Tunnel._on_event


def _attach_anyway(one: tunnel.Tunnel, stream: int, sock: Any) -> None:
    """Though the other side does not want it any more."""
    one.multiplexer.take(stream)
    one._attach(stream, sock)
    one._go_on()


def _boundless(_one: multiplexing.Multiplexer, _stream: int) -> int:
    return multiplexing.WINDOW_BYTES


def _answers_mixed(one: remote_store.Pipeline) -> None:
    """The pieces of a value are put together in another order."""
    while one._asked:
        one._on_answer(*one._asked.pop().answer())


PLANTS: Final[Mapping[str, Planted]] = {
    "frames-not-said-again": instead(_MACHINE, channels.Channel, "linked", _forget_unheard, "Z", "R2"),
    "late-attempts-count": instead(_MACHINE, conversations.Conversation, "_trouble", _take_late, "Z7", "Z2"),
    "unproved-kept-for-ever": instead(_MACHINE, conversations.Conversation, "next_tick_s", _wait_for_ever, "Z2", "R2"),
    "impatient": instead(_MACHINE, reconnecting.Reconnecting, "broken", _lose_patience, "Z7"),
    "last-words-unread": instead(_MACHINE, tunnel.Tunnel, "_write", _drop_unread, "Z1"),
    "end-before-bytes": instead(_MACHINE, tunnel.Tunnel, "_on_event", _end_at_once, "Z1"),
    "attached-in-vain": instead(_MACHINE, tunnel.Tunnel, "attach", _attach_anyway, "Z5"),
    "reading-not-resumed": instead(_MACHINE, tunnel.Tunnel, "_resume", lambda _one: None, "Z2", "Z4", "R2"),
    "boundless": instead(_MACHINE, multiplexing.Multiplexer, "room", _boundless, "more was sent", "Z"),
    "pieces-mixed": instead(_MACHINE, remote_store.Pipeline, "finish", _answers_mixed, "Z6"),
    "orphans-left": instead(_MACHINE, remote_store.RemoteStore, "orphans_of", lambda *_: [], "Z5"),
}
