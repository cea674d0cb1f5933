"""Why something waits, followed from process to process until the story ends.

Each process knows a part: an owner what its task waits for, a worker what runs there and what that waits for in turn,
the agent why there is no worker. This module asks one after the other. It has no lock and no state; `Asker` does the
asking, for a driver, a worker or the command line.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from umbel import exceptions
from umbel._base import nodes
from umbel._client import answers, refs
from umbel._client import reasons as local
from umbel._model import reasons
from umbel._objects import ownership

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

Reason = reasons.Reason
PENDING = ownership.PENDING
ANSWER_S = 1.0  # a process answers within milliseconds, unless it is stopped or holds the interpreter's lock in C
TIMEOUT_ANSWER_S = 0.1  # whoever has run out of time is not held up for long
CAUSES_TOLD_MAX = 1_000  # then the watchdog begins anew
HOPS_MAX = 30  # objects asked about for one story; a longer one is cut, which says enough
# Of those that run ahead of a call, or whose results are waited for until one is there, so many are followed to see whether
# one can end; more are not called a deadlock. One less than a process tells.
WAYS_MAX = answers.WAITS_TOLD_MAX - 1
_ROOMLESS = (reasons.INFEASIBLE, reasons.RESOURCES, reasons.GROUP)  # what another node might help
_ADVICE = (
    "let one of them return without waiting, or give an actor a larger max_concurrency or async methods so that it can "
    "answer meanwhile"
)


class Asker(Protocol):
    """Whom an inquiry asks by."""

    def ask(self, process: str, what: str, about: str) -> dict[str, Any]:
        """The answer of a process, of this node or another. Raises UmbelError when it is gone or does not answer."""

    def query(self, what: str, about: str = "", *, node: str = "") -> Any:
        """The agent's answer, or that of the agent of another node, of which this is the tag. Raises UmbelError."""

    def gather(self, what: str, abouts: Mapping[str, str], limit_s: float) -> dict[str, dict[str, Any]]:
        """The answers of the agents of several nodes, by id: {"result"}, or {"error": {"kind", "text"}} within that time.
        abouts: by node, what it is to be asked about. Raises UmbelError."""

    @property
    def is_here(self) -> bool:
        """Whether the files of the node that is asked can be read."""

    @property
    def process(self) -> str:
        """The id of a process on that node, or what begins as such an id."""


def story(asker: Asker, process: str, object_id: str) -> Reason:
    """Why the object is not there, beginning with what `process`, which has a reference to it, knows of it."""
    return told_on(asker, _bound(_chapters(asker, process, object_id, frozenset(), iter(range(HOPS_MAX)))))


def _bound(chapters: Iterable[Reason]) -> Reason:
    """One story of at least one chapter."""
    return functools.reduce(Reason.followed_by, chapters)


def of_actor(asker: Asker, listed: Mapping[str, Any]) -> Reason:
    """What an actor does or waits for. listed: what the agent says of it."""
    actor, state = listed["actor"], listed["state"]
    facts = {"actor": actor, "state": state, "worker": listed["worker"]}
    told = Reason(reasons.ACTOR, f"actor {listed['class_name']} {actor}", f"is {state}", facts=facts)
    if listed["reason"]:
        told = told._replace(text=f"is {state}: {listed['reason']}")
        return told_on(asker, _bound([told, *_at_agent(asker, "", facts)])) if listed.get("sought_on") else told
    if not listed["worker"]:
        return told_on(asker, _bound([told, *_at_agent(asker, "", facts)]))
    doing = list(_through_worker(asker, listed["worker"], "", frozenset(), iter(range(HOPS_MAX)), is_told=False))
    if not doing:
        return told._replace(code=reasons.READY, text=f"is {state} and runs nothing")
    return told_on(asker, _bound([told, *doing]))


def of_process(asker: Asker, process: str) -> list[Reason]:
    """What a driver or worker runs, and what its other threads and coroutines wait for. Raises UmbelError when it does not
    answer."""
    answer = asker.ask(process, "task", "")
    pid = answer["pid"]
    own = Reason(reasons.RUNNING, f"process {process}", f"has pid {pid}", facts={"pid": pid})
    found = [[own, _told_by(process, why)] for why in answer["beside"]]
    for one in answer["waiting"]:
        waits = own._replace(text=f"{own.text}, and waits" + (f" at {one['at']}" if one["at"] else ""))
        found.append([waits, *_chapters(asker, process, one["waits"][0], frozenset(), iter(range(HOPS_MAX)))])
    for one in answer["running"]:
        runs = _of_running(asker, process, answer, one, is_own=True, is_told=False)
        found.append([own, runs, *_behind_running(asker, process, one, frozenset(), iter(range(HOPS_MAX)))])
    return [told_on(asker, _bound(chapters)) for chapters in found]


def told_on(asker: Asker, told: Reason) -> Reason:
    """A story of whose end others know more, with that: a graph's actors of a value, the agent of the store, the autoscaler of
    what lacks room."""
    told = _through_autoscaler(asker, _through_transfer(asker, _through_graph(asker, told)))
    if told.last().code != reasons.ROOM:
        return told
    from umbel._client import store_full

    return told.followed_by(store_full.reason(asker, _node_of(told.last())))


def _told_by(process: str, told: Mapping[str, Any]) -> Reason:
    """What a process has told. If its node's daemon knows more, it is said which process that was."""
    reason = Reason.from_json(told)
    *before, last = reason.chain()
    if last.code not in (reasons.TRANSFER, reasons.ROOM):
        return reason
    return _bound([*(one._replace(because=None) for one in before), last._replace(facts={**last.facts, "at": process})])


def _node_of(reason: Reason) -> str:
    """The tag of the node on which somebody told this; "" for the one that is asked."""
    return nodes.tag_in(reason.facts.get("at", ""))


def _through_transfer(asker: Asker, told: Reason) -> Reason:
    """A story that ends with a value of another node, with what the daemon knows of its copy on the node where it is wanted."""
    last = told.last()
    if last.code != reasons.TRANSFER or "transfer" not in last.facts:
        return told
    try:
        found = asker.query("transfer", last.facts["transfer"], node=_node_of(last))
    except exceptions.UmbelError as error:
        return told.followed_by(Reason(reasons.UNKNOWN, "the node's daemon", f"does not say how far it is: {error}"))
    return told if found is None else told.followed_by(Reason.from_json(found))


def _through_autoscaler(asker: Asker, told: Reason) -> Reason:
    """A story that ends with what has no room, with what the autoscaler does about it, if there is one."""
    last = told.last()
    group = last.facts.get("group", "")
    lacks = last.facts.get("lacks") or ({"group": group} if group else None)
    if last.code not in _ROOMLESS or lacks is None:
        return told
    try:
        text = asker.query("launches", json.dumps(lacks))
    except exceptions.UmbelError:  # the head is out of reach, which others say
        return told
    if last.code == reasons.INFEASIBLE and text == "":
        text = "has not decided about it yet"
    return told.followed_by(last._replace(subject="the autoscaler", text=text, advice="")) if text else told


def _through_graph(asker: Asker, told: Reason) -> Reason:
    """A story that ends with a value of a compiled graph that somebody waits for, told on through the graph's actors."""
    seen: set[str] = set()
    while True:
        end = told.last()
        actor = end.facts.get("actor", "") if end.code == reasons.GRAPH else ""
        if not actor or actor in seen:
            return told
        seen.add(actor)
        worker = _worker_of(asker, actor)
        if not worker:
            return told
        try:
            beside = asker.ask(worker, "task", "")["beside"]
        except exceptions.UmbelError as error:
            return told.followed_by(Reason(reasons.UNKNOWN, "that actor", f"does not say what it does: {error}"))
        more = next((one for one in beside if one["facts"].get("graph") == end.facts["graph"]), None)
        if more is None:
            return told
        told = told.followed_by(_told_by(worker, more))


def _chapters(
    asker: Asker, process: str, object_id: str, seen: frozenset[tuple[str, str]], hops: Iterator[int]
) -> Iterator[Reason]:
    """seen: the objects, and the tasks and calls, that wait for this object, each with the process that was asked about it.
    hops: one for each question that may be asked yet."""
    if (process, object_id) in seen:
        yield Reason(reasons.DEADLOCK, f"object {object_id}", "is waited for by itself: a deadlock", _ADVICE)
        return
    if next(hops, None) is None:
        return
    seen |= {(process, object_id)}
    try:
        reason = _told_by(process, asker.ask(process, "explain", object_id)["reason"])
    except exceptions.UmbelError as error:
        yield Reason(reasons.UNKNOWN, f"process {process[:8]}", f"does not say why: {error}")
        return
    yield reason
    last = reason.last()
    facts = last.facts
    if "segment" in facts:
        yield from _where(asker, process, facts["segment"])
        return
    if last.code == reasons.ACTOR:
        facts = {**facts, "worker": _worker_of(asker, facts["actor"]), "task": ""}
    if last.code == reasons.ELSEWHERE:
        if facts["owner"] != process:
            yield from _chapters(asker, facts["owner"], facts["object"], seen, hops)
    elif last.code == reasons.NODE and facts.get("process", process) != process:
        yield from _chapters(asker, facts["process"], object_id, seen, hops)
    elif facts.get("worker"):
        is_told = last.code == reasons.RUNNING
        yield from _through_worker(asker, facts["worker"], facts["task"], seen, hops, is_told=is_told)
    else:
        yield from _at_agent(asker, process, facts)


def _where(asker: Asker, process: str, segment: str) -> Iterator[Reason]:
    """Of a value that is on the node of this process: whether it has to be read from disk first."""
    found = asker.query("where", segment, node=nodes.tag_in(process))
    file, readers = found["file"], found["readers"]
    if readers:
        text = f"is on disk, and is being read back from {file} by process {', '.join(one[:8] for one in readers)}"
        yield Reason(reasons.RESTORING, "its value", text, facts=found)
    elif file:
        text = f"was moved to disk, to {file}, and is read back when it is needed"
        yield Reason(reasons.ON_DISK, "its value", text, facts=found)


def _through_worker(
    asker: Asker, worker: str, task: str, seen: frozenset[tuple[str, str]], hops: Iterator[int], *, is_told: bool
) -> Iterator[Reason]:
    """What a task or call that was sent to a worker waits for; nothing if it has just ended. task: "" for whatever runs
    there. is_told: that it runs there was said."""
    try:
        answer = asker.ask(worker, "task", task)
    except exceptions.UmbelError as error:
        yield Reason(reasons.UNKNOWN, f"worker {worker[:8]}", f"does not say what it does: {error}")
        return
    running = answer["running"]
    own = [one for one in running if one["task"] == task]
    ahead = own or [one for one in running if one["is_ahead"]][: None if task else 1]
    if not ahead and not task:
        yield from (_told_by(worker, why) for why in answer["beside"][:1])
    # One of them has to end, so only if none can is it a deadlock. Those that wait for nothing are told of first.
    ahead.sort(key=lambda one: bool(one["waits"] or one["why"]))

    def way(one: dict[str, Any]) -> list[Reason]:
        if (worker, one["task"]) in seen:
            return [
                Reason(reasons.DEADLOCK, one["name"], "waits for itself: a deadlock", _ADVICE, {"task": one["task"]})
            ]
        reason = _of_running(asker, worker, answer, one, is_own=bool(own), is_told=is_told)
        return [reason, *_behind_running(asker, worker, one, seen, hops)]

    yield from _way_out(map(way, ahead), len(ahead))


def _way_out(ways: Iterable[list[Reason]], count: int) -> list[Reason]:
    """Of as many stories, of which one has to go on: the first that can. It is a deadlock only if none can."""
    shut: list[Reason] = []
    for way in itertools.islice(ways, WAYS_MAX):
        if not way or way[-1].last().code != reasons.DEADLOCK:  # without an end, enough was asked
            return way
        shut = shut or way
    return shut if count <= WAYS_MAX else shut[:1]


def _behind_running(
    asker: Asker, worker: str, one: Mapping[str, Any], seen: frozenset[tuple[str, str]], hops: Iterator[int]
) -> list[Reason]:
    """The objects' part of what one that runs waits for."""
    if one["why"] is not None:
        return []
    waits = one["waits"][: 1 if one["needs_all"] else None]
    seen |= {(worker, one["task"])}
    return _way_out((list(_chapters(asker, worker, object_id, seen, hops)) for object_id in waits), len(waits))


def _of_running(
    asker: Asker, worker: str, answer: Mapping[str, Any], one: dict[str, Any], *, is_own: bool, is_told: bool
) -> Reason:
    """What an answer says of one that runs. is_own: it is the one that was asked about, which is not behind it."""
    pid, at, waits = answer["pid"], one["at"], one["waits"] and one["why"] is None
    if is_own and is_told:
        subject, text = "it", f"is at {at or 'work outside of the program'} (pid {pid})"
    else:
        where = local.worker_in_words(worker, asker.process)
        subject, text = one["name"], f"has run for {one['for_s']:.1f} s on {where} (pid {pid})"
        if at:
            text += f", at {at}"
        if not is_own and answer["queued"]:
            text += f", with {answer['queued']} behind it"
    if waits:
        text += ", and waits there"
    facts = {key: value for key, value in one.items() if key != "why"} | {"worker": worker, "pid": pid}
    because = _told_by(worker, one["why"]) if one["why"] is not None else None
    return Reason(reasons.RUNNING if is_own else reasons.QUEUED, subject, text, facts=facts, because=because)


def _worker_of(asker: Asker, actor: str) -> str:
    """The worker in which an actor is, or is being made; empty when there is none."""
    listed = asker.query("actors")
    return next((str(one["worker"]) for one in listed if one["actor"] == actor and one["state"] != "DEAD"), "")


def of_group(asker: Asker, group: str) -> Reason:
    """Why a placement group is as it is."""
    try:
        listed = next(iter(asker.query("placement_groups", group)), None)
    except exceptions.UmbelSystemError as error:  # the head of the cluster is away
        return Reason(
            reasons.UNKNOWN, f"placement group {group}", f"cannot be looked at: {error}", facts={"group": group}
        )
    if listed is None:
        return Reason(reasons.UNKNOWN, f"placement group {group}", "is not known (any more)", facts={"group": group})
    told = Reason.from_json(listed["why"])
    if told.code != reasons.GROUP:
        return told
    waiting = next((one for one in asker.query("pending") if one["group"] == group), None)
    return told if waiting is None else told.followed_by(Reason.from_json(waiting["why"]))


def _at_agent(asker: Asker, process: str, facts: Any) -> Iterator[Reason]:
    actor, key = facts.get("actor", ""), facts.get("key", "")
    if facts.get("group"):
        yield of_group(asker, facts["group"])
        return
    if not actor and not key:
        return
    actors = asker.query("actors") if actor else ()
    listed: dict[str, Any] = next((one for one in actors if one["actor"] == actor), {})
    sought_on = listed.get("sought_on", "")
    for entry in asker.query("pending", node=nodes.tag_text(sought_on) if actor else nodes.tag_in(process)):
        if entry["actor"] == actor if actor else (entry["client"], entry["key"]) == (process, key):
            why = Reason.from_json(entry["why"])
            if sought_on:
                yield Reason(reasons.ACTOR, f"node {sought_on}", "looks for a worker for it", facts={"node": sought_on})
            yield why
            if why.code == reasons.GROUP:
                yield of_group(asker, why.facts["group"])
            elif why.code == reasons.NODE:
                yield from _at_lessors(asker, why, process, key)
            return
    if listed.get("reason"):  # it may wait for what only its creator has
        yield Reason(reasons.ACTOR, "the actor", f"waits: {listed['reason']}", facts={"actor": actor})
        if listed.get("awaits_group"):
            yield of_group(asker, listed["awaits_group"])


def _at_lessors(asker: Asker, why: Reason, process: str, key: str) -> Iterator[Reason]:
    """What a worker waits for that is asked of other nodes: what the first of them says that has heard of it."""
    for node in why.facts.get("nodes", ()):
        try:
            pending = asker.query("pending", node=nodes.tag_text(node))
        except exceptions.UmbelError as error:
            yield Reason(reasons.UNKNOWN, f"node {node[:8]}", f"does not say what it waits for: {error}")
            return
        for entry in pending:
            if (entry["client"], entry["key"]) == (process, key):
                told = Reason.from_json(entry["why"])
                facts = dict(told.facts)
                if facts.pop("lacks", None) and "lacks" in why.facts:  # with the labels, which that node was not told
                    facts["lacks"] = why.facts["lacks"]
                yield told._replace(subject=f"on node {node[:8]}, {told.subject}".rstrip(), facts=facts)
                return


class EngineAsker:
    """Asks on behalf of a driver or worker."""

    def __init__(
        self, engine: NativeEngine, *, timeout_s: float = ANSWER_S, query_timeout_s: float | None = None
    ) -> None:
        """query_timeout_s: for the agent, if longer than for other processes."""
        self._engine = engine
        self._timeout_s = timeout_s
        self._query_timeout_s = query_timeout_s or timeout_s

    def ask(self, process: str, what: str, about: str) -> dict[str, Any]:
        question = {"what": what, "about": about}
        if process == self._engine.process_id.hex():
            answer = self._engine.answers.to(question)
        else:
            message = {"t": "ask", "whom": process, **question}
            try:
                answer = self._engine._ask(message, timeout_s=self._timeout_s)["result"]
            except exceptions.GetTimeoutError:
                what = local.worker_in_words(process, self.process).replace("worker", "process", 1)
                raise exceptions.GetTimeoutError(f"{what} has not answered within {self._timeout_s:g} s") from None
        return _checked(answer)

    def query(self, what: str, about: str = "", *, node: str = "") -> Any:
        return self._engine.query(what, about=about, node=node, timeout_s=self._query_timeout_s)

    def gather(self, what: str, abouts: Mapping[str, str], limit_s: float) -> dict[str, dict[str, Any]]:
        message = {"t": "gather", "what": what, "abouts": dict(abouts), "limit_s": limit_s}
        return dict(self._engine._ask(message, timeout_s=limit_s + self._query_timeout_s)["result"])

    @property
    def process(self) -> str:
        return self._engine.process_id.hex()

    @property
    def is_here(self) -> bool:
        return not self._engine.is_remote


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise exceptions.UmbelSystemError(answer["error"])
    return answer


def of_target(engine: NativeEngine, target: Any) -> Reason:
    """What a reference waits for, or the next item of a generator, asked from process to process. Raises TypeError for
    anything else."""
    if isinstance(target, refs.GraphRef):
        return told_on(EngineAsker(engine), target.explain())
    with engine.lock:
        if isinstance(target, refs.ObjectRefGenerator):
            stream = engine.stream_of(target)
            found = stream.reason()
            if found is not None:
                return found
            target = stream.completed
        object_id = local.pending_id(engine, target)
    return story(EngineAsker(engine), engine.process_id.hex(), object_id.hex())


def of_timeout(engine: NativeEngine, record: ownership.Record) -> Reason:
    """Why a record is still pending, for somebody whose time is up. No lock."""
    try:
        asker = EngineAsker(engine, timeout_s=TIMEOUT_ANSWER_S)
        return story(asker, engine.process_id.hex(), record.object_id.hex())
    except exceptions.UmbelError:
        return local.of_record(record)


def watch(engine: NativeEngine, wanted: Sequence[ownership.Record], waited_s: float, told: set[Any]) -> set[Any]:
    """Say on standard error what somebody has waited for so long, unless that cause was told. Returns those told."""
    fetching = engine.values.fetching
    pending = [
        record
        for record in wanted
        if record.kind == PENDING or (fetching is not None and fetching.is_under_way(record))
    ]
    if not pending:
        return told
    reason = of_timeout(engine, pending[0])
    end = reason.last()
    cause = (end.code, end.facts.get("task") or end.facts.get("actor") or end.subject or end.text)
    if end.code == reasons.READY or cause in told:
        return told
    sys.stderr.write(
        f"umbel: still waiting after {waited_s:g} s for {len(pending)} of {len(wanted)} objects; the first is {reason}\n"
    )
    return {cause} if len(told) >= CAUSES_TOLD_MAX else told | {cause}
