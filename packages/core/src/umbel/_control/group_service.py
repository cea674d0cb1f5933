"""Messages about placement groups, as events for their table; its commands, as messages and as wishes to the node.

Made by the actors' service with the first message about a group: most sessions have none, and start without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from umbel import exceptions
from umbel._base import orders
from umbel._control import cluster_events, groups
from umbel._control import group_events as ev
from umbel._model import node_labels, placement, resources
from umbel._scheduling import bundles

Message = dict[str, Any]
_ADVICE = "umbel.util.placement_group_table() lists all"


class Node(Protocol):
    """What the groups' service needs of the daemon that it runs in."""

    @property
    def infeasible_timeout_s(self) -> float | None: ...

    def now_s(self) -> float: ...

    def send(self, client: str, message: Message, body: bytes = b"") -> None: ...

    def reply(self, client: str, request: int | None, message: Message, body: bytes = b"") -> None: ...

    def refuse(self, client: str, request: int | None, kind: str, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def launches_for(self, lacks: Mapping[str, Any]) -> str:
        """What is done to have nodes with what no node has, as the end of a reason; "" for nothing."""

    def as_seen(self) -> Message:
        """Its "node_id", "total" and "available" resources in units, and "labels"."""

    def nodes_seen(self) -> Sequence[placement.NodeView]:
        """Living nodes: at least those that are other than when this was asked last."""

    def node_seen(self, node: str) -> placement.NodeView | None:
        """node: "" for this one."""

    def is_here(self, client: str) -> bool:
        """Whether it is a process of this node, which ends with it."""

    def driver_of(self, client: str) -> str:
        """The driver whose job a process works for; "" if that is gone."""

    def reserve_bundles(
        self, node: str, group: str, attempt: int, wanted: Mapping[int, Mapping[str, int]], depth: int, job: list[Any]
    ) -> None:
        """`bundles_reserved` or `bundles_refused` is called when that is decided."""

    def commit_bundles(self, node: str, group: str, attempt: int) -> None:
        """`bundles_committed` is called when another node has done it."""

    def cancel_bundles(self, node: str, group: str, attempt: int) -> None: ...

    def drop_group(self, node: str, group: str, reason: str) -> None: ...

    def tell_places(self, node: str, message: Message) -> None:
        """Where the bundles of a group are that the node follows: "group_places"."""


class GroupService:
    """The shell of the table of groups. `on` says which messages are for it: (client, its namespace, message)."""

    def __init__(
        self,
        node: Node,
        *,
        is_detached: Callable[[str], bool],
        on_ended: Callable[[str, str], None],
        scheduling_of: Callable[[str], list[Any]],
        remember: Callable[[cluster_events.Happened], None],
        keep: Callable[[], None] = lambda: None,
    ) -> None:
        """is_detached: of an actor. on_ended: told of a group that has ended, and why. remember: what has happened.
        scheduling_of: a job, what its groups are placed by, see `jobs.Jobs.scheduling_of`. keep: what has changed of it all."""
        self._keep = keep
        self._scheduling_of = scheduling_of
        self.table = groups.GroupTable(
            infeasible_timeout_s=node.infeasible_timeout_s, launches=lambda group: node.launches_for({"group": group})
        )
        self.on: dict[str, Callable[[str, str, Message], None]] = {
            "create_group": self._on_create,
            "remove_group": self._on_remove,
            "group_watch": self._on_watch,
            "get_group": self._on_get,
        }
        self._node = node
        self._own_id = ""  # once it was asked for
        self._remember = remember
        self._is_detached = is_detached
        self._answers: list[ev.AnswerCreate] = []  # to be given once all is done that can be at once
        do: dict[type, Callable[[Any], None]] = {
            ev.Reserve: self._reserve,
            ev.Commit: self._commit,
            ev.Cancel: lambda one: node.cancel_bundles(*one),
            ev.Drop: lambda one: node.drop_group(*one),
            ev.Tell: self._tell,
            ev.GroupEnded: lambda one: on_ended(one.group, one.reason),
            ev.Publish: self._publish,
            ev.AnswerCreate: self._answers.append,
            ev.RefuseCreate: lambda one: node.refuse(one.client, one.request, "exists", one.reason),
            ev.Warn: self._warn,
        }
        self._orders = orders.Orders(do)

    def _decide(self, *events: ev.GroupEvent) -> None:
        """Apply events, and carry out the commands in order, those that follow from carrying out others after the rest."""
        commands: list[ev.GroupCommand] = []
        for command in self.table.apply(*events):
            if isinstance(command, cluster_events.Happened):
                self._remember(command)
            else:
                commands.append(command)
        self._keep()
        if self._orders.carry_out(commands):
            while self._answers:
                self._answer(self._answers.pop(0))

    # ---- messages ----

    def _answer(self, one: ev.AnswerCreate) -> None:
        """Whoever can be told when it is over hears by this that the group is CREATED, and need not ask."""
        group = self.table.groups.get(one.group)
        is_known = group is not None and group.creator == one.client and group.state is ev.GroupState.CREATED
        self._node.reply(one.client, one.request, {"state": ev.GroupState.CREATED.value} if is_known else {})

    def _on_create(self, client: str, namespace: str, message: Message) -> None:
        trouble = _trouble_of(message)
        if trouble:
            self._node.refuse(client, message["rq"], "invalid", trouble)
            return
        actor = message["actor"]
        # As Ray has it: with the job, for a process is used for many tasks; with an actor that may outlive all jobs.
        owner = actor if actor and self._is_detached(actor) else self._node.driver_of(client)
        if not owner and not message["detached"]:
            text = "its job, with which the group was to end, has ended; pass lifetime='detached', and remove it"
            self._node.refuse(client, message["rq"], "invalid", text)
            return
        spec = ev.GroupSpec(
            group=message["group"],
            owner=owner,
            name=message["name"],
            namespace=message["namespace"] or namespace,
            bundles=tuple(resources.ResourceSet(one) for one in message["bundles"]),
            strategy=message["strategy"],
            is_detached=message["detached"],
            label_selectors=tuple(message["label_selectors"]),
            soft_target=message["soft_target"],
            depth=message["depth"],
            job=message["job"],
        )
        now_s = self._node.now_s()
        self._look(now_s)
        self._decide(ev.GroupCreated(spec, client, message["rq"], now_s, self._node.is_here(client)))

    def _look(self, now_s: float) -> None:
        self._decide(ev.NodesSeen(self._node.nodes_seen(), now_s))

    def _on_remove(self, client: str, _namespace: str, message: Message) -> None:
        self._decide(ev.RemovalWanted(message["group"], self._node.now_s(), client))
        self._node.reply(client, message["rq"], {})

    def _on_watch(self, client: str, _namespace: str, message: Message) -> None:
        self._decide(ev.GroupWatched(client, message["group"], self._node.now_s()))

    def _on_get(self, client: str, namespace: str, message: Message) -> None:
        """By id, or by name."""
        group = message["group"] or self.table.find(message["name"], message["namespace"] or namespace)
        spec = self.table.spec(group) if group else None
        if spec is None:
            what = f"named {message['name']!r} in namespace {message['namespace'] or namespace!r}"
            what = f"with the id {group}" if message["group"] else what
            self._node.refuse(client, message["rq"], "missing", f"there is no placement group {what}; {_ADVICE}")
        else:
            self._node.reply(
                client, message["rq"], {"group": spec.group, "bundles": [dict(one) for one in spec.bundles]}
            )

    # ---- what the node and others report ----

    def bundles_reserved(self, node: str, group: str, attempt: int) -> None:
        """node: "" for this one; so below."""
        now_s, view = self._node.now_s(), self._node.node_seen(node)
        self._decide(ev.BundlesReserved(self._id(node), group, attempt, now_s, view))

    def bundles_refused(self, node: str, group: str, attempt: int, reason: str) -> None:
        self._decide(ev.BundlesRefused(self._id(node), group, attempt, reason, self._node.now_s()))

    def bundles_committed(self, node: str, group: str, attempt: int) -> None:
        self._decide(ev.BundlesCommitted(node, group, attempt, self._node.now_s()))

    def bundles_reported(self, node: str, held: Iterable[tuple[str, int, Collection[int], bool]]) -> None:
        """A node that lived on while this service was away says what it holds: group, attempt, indices, and whether that is
        committed. To be called before `recovered`."""
        by_group: dict[str, list[ev.HeldBundles]] = {}
        for group, attempt, indices, is_committed in held:
            by_group.setdefault(group, []).append(ev.HeldBundles(attempt, indices, is_committed))
        view = self._node.node_seen(node)
        if view is not None:
            self._decide(ev.BundlesReported(view, by_group, self._node.now_s()))

    def _id(self, node: str) -> str:
        if not node:
            self._own_id = self._own_id or str(self._node.as_seen()["node_id"])
        return node or self._own_id

    def follow(self, node: str, group: str) -> None:
        self._decide(ev.GroupFollowed(self._id(node), group, self._node.now_s()))

    def nodes_changed(self) -> None:
        """There may be more room somewhere, or another node."""
        if self.table.has_unplaced():
            self._look(self._node.now_s())

    def node_gone(self, node: str) -> None:
        """For good."""
        self._decide(ev.NodeLost(node, self._node.now_s()))

    def owner_gone(self, owner: str) -> None:
        """A process, or an actor."""
        self._decide(ev.OwnerGone(owner, self._node.now_s()))

    def recovered(self, is_there: Callable[[str], bool]) -> None:
        """Who has not been reported is gone. is_there: of a process or an actor."""
        now_s = self._node.now_s()
        self._look(now_s)
        for owner in list(self.table.awaited_owners):
            if not is_there(owner):
                self._decide(ev.OwnerGone(owner, now_s))
        self._decide(ev.Recovered(now_s))

    def next_tick_s(self) -> float | None:
        return self.table.next_tick_s()

    def tick(self) -> None:
        self.nodes_changed()  # whether it is time to look elsewhere depends on what there is
        self._decide(ev.Ticked(self._node.now_s()))

    def listed(self, group: str) -> list[Message]:
        """This group, or all for "", for queries."""
        return [
            {
                **one._asdict(),
                "state": one.state.value,
                "bundles": [dict(bundle) for bundle in one.bundles],
                "why": one.why.as_json(),
            }
            for one in self.table.listed(group)
        ]

    # ---- commands ----

    def _reserve(self, command: ev.Reserve) -> None:
        spec = self.table.spec(command.group)
        self._node.reserve_bundles(*command, self._scheduling_of(spec.job if spec is not None else ""))

    def _commit(self, command: ev.Commit) -> None:
        self._node.commit_bundles(*command)
        if command.node == self._id(""):
            self.bundles_committed(*command)

    def _tell(self, command: ev.Tell) -> None:
        is_gone = command.state is ev.GroupState.REMOVED
        message = {
            "t": "group_places", "group": command.group, "nodes": list(command.nodes), "reason": command.reason,
            "bundles": [dict(one) for one in command.bundles], "is_gone": is_gone,
        }  # fmt: skip
        self._node.tell_places(command.node, message)

    def _warn(self, command: ev.Warn) -> None:
        self._node.warn(command.text)
        self._remember(cluster_events.Happened(cluster_events.WARNING, cluster_events.GROUPS, command.text, {}))
        self._keep()

    def _publish(self, command: ev.Publish) -> None:
        self._node.send(
            command.client,
            {
                "t": "group_state",
                "group": command.group,
                "state": command.state.value,
                "reason": command.reason,
                "unschedulable": command.cause is ev.Cause.UNSCHEDULABLE,
            },
        )


def _trouble_of(message: Message) -> str:
    """What the table could not read of a group; whoever makes one checks that too, but the daemon must not end by it."""
    if message["strategy"] not in bundles.STRATEGIES:
        return f"strategy must be one of {', '.join(bundles.STRATEGIES)}, got {message['strategy']!r:.100}"
    if len(message["label_selectors"]) not in (0, len(message["bundles"])):
        return f"label_selectors must be none or one for each bundle, got {len(message['label_selectors'])}"
    try:
        for selector in message["label_selectors"]:
            node_labels.checked("label_selectors", selector)
    except exceptions.InvalidOption as error:
        return str(error)
    return ""
