"""`umbel explain ID`: why a task, actor, placement group, object or node waits, and what would help."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import click

from umbel import exceptions
from umbel._autoscaling import report
from umbel._base import nodes as node_ids
from umbel._client import cluster_view, inquiry, memory_report, tool
from umbel._model import ids, node_labels, reasons
from umbel.cli import node

Reason = reasons.Reason
LOOK_S = 15.0  # for all nodes; one that does not answer costs a third of it
NODE_DIGITS_MIN = 4  # of a node's id; less may be any word
_RESULT = "00000000"  # the index of a task's first result, whose object stands for the task


def make() -> click.Command:
    @click.command("explain")
    @click.argument("about", metavar="[ID]", required=False)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON: the reasons as nested objects.")
    @node.option
    def explain(about: str | None, as_json: bool, session: str | None) -> None:
        """Why something waits, and what would unblock it.

        ID is the hexadecimal id of an object, task, placement group or process, that of an actor or node or its beginning, the
        name of an actor, or a process id; without one, everything that waits in the cluster is listed. Of an object that is
        there, it says why it is alive.
        """
        with node.connect(session) as asker:
            try:
                found = story(asker, about) if about else waiting(cluster_view.Cluster(asker, LOOK_S))
            except exceptions.UmbelError as error:
                raise click.ClickException(str(error)) from error
        if as_json:
            click.echo(json.dumps([reason.as_json() for reason in found], indent=2))
            return
        for reason in found:
            for depth, one in enumerate(reason.chain()):
                click.echo("  " * depth + str(one._replace(because=None)))

    return explain


def waiting(cluster: cluster_view.Cluster, only: str = "") -> list[Reason]:
    """What waits, of each node in the order in which it will be served. only: the node of which; "" for all."""
    asker = cluster.node.asker
    found = []
    for node_id, entry in cluster.pending():
        if only not in ("", node_id):
            continue
        why = Reason.from_json(entry["why"])
        what = f"actor {entry['actor']}" if entry["actor"] else _tasks(entry)
        if entry["group"]:
            what = f"placement group {entry['group']},"
        if node_id != cluster.own_id:
            what = f"on node {node_id[:8]}, {what}"
        waited = f"waiting for {entry['waiting_s']:.1f} s"
        own = Reason(why.code, what, waited, facts={"client": entry["client"]})
        found.append(own.followed_by(why))
    for node_id, owners in cluster.query("owners").items():
        for driver in (one["id"] for one in owners if one["is_driver"] and only in ("", node_id)):
            with contextlib.suppress(exceptions.UmbelError):  # it does not answer, or has gone
                found += inquiry.of_process(asker, driver)
    found += [Reason(reasons.UNKNOWN, "", text) for text in cluster.node.missing]
    if only:
        return found or [Reason(reasons.READY, "nothing", "waits there")]
    found += [Reason.from_json(one["why"]) for one in unplaceable(asker)]
    found += _of_autoscaler(asker)
    return found or [Reason(reasons.READY, "nothing", "waits" if len(cluster.facts) > 1 else "waits at this node")]


def unplaceable(asker: inquiry.Asker) -> list[dict[str, Any]]:
    """The placement groups that no node can hold, of which no demand was made. Raises UmbelSystemError."""
    return [one for one in asker.query("placement_groups") if one["why"]["code"] == reasons.INFEASIBLE]


def _of_autoscaler(asker: inquiry.Asker, node: str = "") -> list[Reason]:
    """What it launches and why, what it finds no room for, and why it keeps each node; or this node. Nothing of a cluster that
    launches none."""
    try:
        answer = asker.query("autoscaler")
    except exceptions.UmbelError:  # the head is out of reach, which the node itself says
        return []
    if answer is None:
        return []
    scaling = answer["report"]["scaling"] if answer["report"] is not None else None
    if node:
        kept = [one for one in scaling["nodes"] if one["node"] == node] if scaling is not None else []
        return [Reason(reasons.READY, "the autoscaler:", report.node_in_words(one)) for one in kept]
    return [Reason(reasons.READY, "the autoscaler:", line) for line in report.answer_in_words(answer)]


def _tasks(entry: dict[str, Any]) -> str:
    where = " in a runtime environment" if entry["env"] else ""
    return f"{entry['count']} {'task' if entry['count'] == 1 else 'tasks'} with {entry['needs']}{where},"


def story(asker: tool.Tool, about: str) -> list[Reason]:
    """Raises UmbelSystemError for an id that nobody knows."""
    text = about.lower()
    cluster = cluster_view.Cluster(asker, LOOK_S)
    nodes = [one for one in cluster.facts if one["node_id"].startswith(text)] if len(text) >= NODE_DIGITS_MIN else []
    if nodes and len(text) == len(nodes[0]["node_id"]):  # before anything that only the head knows
        return _of_node(asker, cluster, nodes[0])
    owner = text[: 2 * ids.WorkerID.SIZE]
    if len(text) == 2 * ids.ObjectID.SIZE:
        return _of_object(asker, owner, text)
    processes = [one["id"] for one in _of_all(cluster, "owners") if text in (one["id"], str(one["pid"]))]
    if processes:  # several nodes may have one with this pid
        return [reason for process in processes for reason in _of_process(asker, process)]
    if asker.query("placement_groups", text):
        return [inquiry.told_on(asker, inquiry.of_group(asker, text))]
    actors = _actors_called(asker, about)
    if len(nodes) + len(actors) > 1:
        raise exceptions.UmbelSystemError(
            f"{len(nodes)} nodes and {len(actors)} actors are called {about!r}, or begin with it; give more of the id"
        )
    if nodes:
        return _of_node(asker, cluster, nodes[0])
    if actors:
        return [inquiry.of_actor(asker, actors[0])]
    if len(text) == 2 * ids.TaskID.SIZE:
        return [inquiry.story(asker, owner, text + _RESULT)]
    raise exceptions.UmbelSystemError(
        f"nothing here is called {about!r}; give the id of an object ({2 * ids.ObjectID.SIZE} digits), of a task "
        f"({2 * ids.TaskID.SIZE}), of an actor or node or its beginning, of a placement group or process, or an actor's name"
        + "".join(f"; {text}" for text in cluster.node.missing)
    )


def _actors_called(asker: tool.Tool, about: str) -> list[dict[str, Any]]:
    """Those whose ids begin so, or, where there are none, that have this name: the living ones, if any."""
    listed = asker.query("actors")
    by_id = [one for one in listed if one["actor"].startswith(about.lower())]
    by_name = [one for one in listed if one["name"] == about]
    return by_id or [one for one in by_name if one["state"] != "DEAD"] or by_name[-1:]


def _of_node(asker: tool.Tool, cluster: cluster_view.Cluster, facts: dict[str, Any]) -> list[Reason]:
    node_id, is_alive = facts["node_id"], facts["alive"]
    if node_id == cluster.own_id:
        return waiting(cluster, node_id if len(cluster.facts) > 1 else "")
    called = facts["labels"].get(node_labels.INSTANCE_ID, "")
    found = [_of_other_node(facts), *(waiting(cluster, node_id) if is_alive else [])]
    return [*found, *(_of_autoscaler(asker, called) if called and is_alive else [])]


def _of_process(asker: tool.Tool, process: str) -> list[Reason]:
    nothing = Reason(reasons.READY, f"process {process}", "runs nothing and waits for nothing")
    return inquiry.of_process(asker, process) or [nothing]


def _of_all(cluster: cluster_view.Cluster, what: str) -> list[dict[str, Any]]:
    """What the nodes list, each with its "node_id"."""
    return [{**one, "node_id": node_id} for node_id, told in cluster.query(what).items() for one in told]


def _of_other_node(facts: dict[str, Any]) -> Reason:
    what = f"node {facts['node_id'][:8]} at {node_ids.address_in_words(facts['address'])}"
    if not facts["alive"]:
        return Reason(reasons.READY, what, f"is dead: {facts['reason']}")
    suspicion, draining = facts.get("suspicion"), facts.get("draining")
    if draining and not suspicion:
        text = f"is being drained ({draining['reason']}), and begins nothing any more"
        waits_for = draining["waits_for"]
        return Reason(reasons.READY, what, f"{text}; it still has {waits_for}" if waits_for else text)
    return Reason(reasons.READY, what, f"is suspected: {suspicion}" if suspicion else "is alive")


def _of_object(asker: tool.Tool, owner: str, object_id: str) -> list[Reason]:
    """Why it is not there yet, or else why it is alive; of one that has gone, what is still kept for others."""
    told = inquiry.story(asker, owner, object_id)
    if told.code == reasons.READY:
        return [told, *memory_report.why_alive(asker, object_id)]
    if told.code == reasons.UNKNOWN:
        with contextlib.suppress(exceptions.UmbelError):  # its owner may be what does not answer
            return [told, *memory_report.why_alive(asker, object_id)]
    return [told]


def workers_about(asker: tool.Tool, about: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """The workers that an id means, each with its "node_id": of a worker or actor or the beginning of one, of a task, or a
    process id; None for all. And what is not known, in words."""
    cluster = cluster_view.Cluster(asker, LOOK_S)
    listed = _of_all(cluster, "workers")
    return (_meant(asker, listed, about.lower()) if about is not None else listed), cluster.node.missing


def _meant(asker: tool.Tool, listed: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    by_name = [
        one for one in listed if one["worker"].startswith(text) or (one["actor"] and one["actor"].startswith(text))
    ]
    by_pid = [one for one in listed if str(one["pid"]) == text]
    if by_pid or by_name or len(text) != 2 * ids.TaskID.SIZE:
        return by_pid or by_name
    reason = inquiry.story(asker, text[: 2 * ids.WorkerID.SIZE], text + _RESULT)
    runs_on = {one.facts.get("worker") for one in reason.chain() if one.facts.get("task") == text}
    return [one for one in listed if one["worker"] in runs_on]
