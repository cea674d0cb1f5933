"""What the processes of this node want of values that lie on others: whom to ask for them, and who is told.

Made, and loaded, when the first value is wanted here or another node wants one of this one. A process says which value it
wants, and is told the segment of this node's store that a copy of it lies in; it may look at that until it says that it wants
it no more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from umbel._agent import left_values, pull_commands, value_service
from umbel._agent.hub import Client, Hub, Message
from umbel._agent.store_service import StoreService
from umbel._base import nodes, tokens
from umbel._model import reasons
from umbel._objects import segments
from umbel._transport import connection

if TYPE_CHECKING:
    from umbel._agent.other_nodes import OtherNodes


class Daemon(Protocol):
    """What this needs of the daemon that it runs in."""

    poller: connection.Poller
    hub: Hub
    store: StoreService

    def now_s(self) -> float: ...


class _Wish(NamedTuple):
    """number: which its process gave it, and is told again."""

    number: int
    segment: str
    size_bytes: int
    priority: pull_commands.Priority


class ValueWants:
    """The wishes of this node's processes. Each of them is known by its client and the value's key."""

    def __init__(self, daemon: Daemon, others: OtherNodes, node_id: str, token: tokens.Token) -> None:
        self._daemon = daemon
        self._others = others
        self._node_ids: dict[bytes, str] = {}  # by tag
        self._wishes: dict[tuple[str, str], _Wish] = {}
        self._copied: dict[str, dict[str, set[bytes]]] = {}  # owner -> key -> tags of the nodes that have copies
        self.on: dict[str, Callable[[Client, Message, bytes], None]] = {
            "want_value": self._on_want, "unwant_value": self._on_unwanted, "value_copied": self._on_copied,
            "value_freed": lambda client, message, _body: self._freed(client.id, message["key"]),
            "left_freed": lambda _client, message, _body: self.left_values.freed(message["segment"]),
            "values_kept": lambda client, message, _body: self.left_values.kept(client.id, message["segments"]),
        }  # fmt: skip
        self.values = value_service.ValueService(
            daemon.poller, daemon.store, node_id, token, self, address=others.address, now_s=daemon.now_s,
            reacher=others.reacher(),
        )  # fmt: skip
        self.left_values = left_values.LeftValues(
            daemon.store, others.directory.own_tag, self._place_of, self.values.mover.tell, daemon.now_s
        )

    # ---- what processes say ----

    def _on_want(self, client: Client, message: Message, _body: bytes) -> None:
        priority = pull_commands.Priority(min(message["priority"], max(pull_commands.Priority)))
        wish = _Wish(message["n"], message["segment"], message["bytes"], priority)
        self._wishes[client.id, message["key"]] = wish
        self._want(client.id, message["key"], wish)

    def _on_unwanted(self, client: Client, message: Message, _body: bytes) -> None:
        self._wishes.pop((client.id, message["key"]), None)
        self.values.mover.unwanted(message["key"], client.id)

    def _on_copied(self, client: Client, message: Message, _body: bytes) -> None:
        """A node has a copy of a value that this process owns."""
        with contextlib.suppress(ValueError):  # it has no such tag
            tag = bytes.fromhex(message["node"])
            self._copied.setdefault(client.id, {}).setdefault(message["key"], set()).add(tag)

    def _freed(self, client: str, key: str) -> None:
        """Nobody needs the value any more. A node that cannot be told drops its copy when it has kept it for long enough."""
        for tag in self._copied.get(client, {}).pop(key, ()):
            if tag == self._others.directory.own_tag:
                self.values.mover.freed(key)
                continue
            node, address = self._place_of(tag)
            if address:
                self.values.mover.tell_freed(key, node, address)

    def client_gone(self, client: str) -> None:
        for wish in [wish for wish in self._wishes if wish[0] == client]:
            del self._wishes[wish]
        self.values.mover.asker_gone(client)
        for key in [*self._copied.get(client, ())]:
            self._freed(client, key)
        self._copied.pop(client, None)

    def reason(self, key: str) -> reasons.Reason | None:
        return self.values.mover.reason(key)

    def _want(self, client: str, key: str, wish: _Wish) -> None:
        try:
            creator, _, _ = segments.parts_of(wish.segment)
            tag = nodes.tag_of_process(bytes.fromhex(creator))
            bytes.fromhex(key.partition(".")[0])
        except ValueError as error:
            self.failed(client, key, pull_commands.Code.LOST, str(error))
            return
        node, address = self._place_of(tag)
        sources = {node: (address, wish.segment)} if address else {}  # it has died: others may have copies
        self.values.mover.want(key, wish.size_bytes, sources, asker=client, priority=wish.priority)

    def _place_of(self, tag: bytes) -> tuple[str, str]:
        """(id, address) of another node; "" where it is no member."""
        if tag not in self._node_ids:
            listed = self._others.link.listed()
            self._node_ids = {nodes.tag_of_node(one["node_id"]): one["node_id"] for one in listed}
        node = self._node_ids.get(tag, "")
        return node, self._others.directory.address_of(tag) if node else ""

    # ---- what became of them ----

    def delivered(self, asker: str, object_id: str, segment: str, size_bytes: int) -> None:
        wish = self._wishes.get((asker, object_id))
        if wish is not None:
            told = {"t": "value_here", "key": object_id, "n": wish.number, "segment": segment}
            self._daemon.hub.send(asker, told)

    def failed(self, asker: str, object_id: str, code: str, text: str) -> None:
        wish = self._wishes.pop((asker, object_id), None)
        if wish is not None and code == pull_commands.Code.UNREACHABLE:
            # Its node is a member still: it can be reached again, or will be declared dead.
            self._wishes[asker, object_id] = wish
            self._want(asker, object_id, wish)
        elif wish is not None:
            told = {
                "t": "value_failed",
                "key": object_id,
                "n": wish.number,
                "code": pull_commands.Code(code).value,
                "text": text,
            }
            self._daemon.hub.send(asker, told)

    def ask_owner(self, object_id: str) -> None:
        mover, tag = self.values.mover, _owner_tag(object_id)
        if tag == self._others.directory.own_tag:
            mover.owner_told(object_id, self._copies_of(object_id))
            return
        node, address = self._place_of(tag)
        if address:
            message = {"t": "who_has", "object": object_id, "as": mover.node, "at": self._others.address}
            mover.tell(node, address, message)
        else:
            mover.owner_told(object_id, {})

    def who_has(self, object_id: str, node: str, address: str) -> None:
        found = [one for one in self._copies_of(object_id).items() if one[0] != node]
        self.values.mover.tell(node, address, {"t": "holders", "object": object_id, "nodes": found})

    def _copies_of(self, object_id: str) -> dict[str, str]:
        """By id, the addresses of nodes that have copies of a value that a process of this one owns, itself included."""
        owner = object_id[: 2 * nodes.PROCESS_ID_BYTES]
        places = [self._place_of(tag) for tag in self._copied.get(owner, {}).get(object_id, ())]
        return {node: address for node, address in places if address}

    def left(self, owner: str, names: list[str]) -> None:
        self.left_values.on_asked(owner, names)

    def needless(self, names: list[str]) -> None:
        self.left_values.on_needless(names)
        self._others.left_values_gone()

    # ---- for the daemon ----

    def next_tick_s(self) -> float | None:
        due = (self.values.next_tick_s(), self.left_values.next_tick_s())
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        self.values.tick()
        self.left_values.tick()

    def node_died(self, node_id: str) -> None:
        """What its processes owned is dead too, wherever it lies."""
        mover, tag = self.values.mover, nodes.tag_of_node(node_id)
        mover.node_dead(node_id)
        for key in [*mover.pulls.pulls, *mover.pulls.copies]:
            if _owner_tag(key) == tag:
                mover.freed(key)


def _owner_tag(key: str) -> bytes:
    return nodes.tag_of_process(bytes.fromhex(key.partition(".")[0]))
