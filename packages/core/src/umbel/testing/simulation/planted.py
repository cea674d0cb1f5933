"""Deliberate defects, each of which the simulator must find: a check that nothing finds anything in is no check."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from umbel._agent import bundles as node_bundles
from umbel._agent import (
    control_proxy,
    environments,
    ledger,
    membership,
    offers,
    pulls,
    shortage,
    spill_ledger,
    spool,
    state,
    store_ledger,
)
from umbel._agent import events as agent_events
from umbel._agent import records as agent_records
from umbel._autoscaling import autoscaler, packing, planning
from umbel._autoscaling import events as autoscaling_events
from umbel._base import nodes as node_ids
from umbel._client import memory_kills
from umbel._client.graphs import backends, channels, executions, loop, ring
from umbel._control import actors, answers, groups, journal, keeping, leadership, members, service
from umbel._control import nodes as node_table
from umbel._control.events import ActorState
from umbel._control.storage import in_sqlite
from umbel._history import retention, store
from umbel._model import reasons
from umbel._objects import lineage, ownership, segments, spill_book
from umbel._scheduling import actor_calls, dispatch, forwarding
from umbel._scheduling import bundles as group_bundles
from umbel._wire import channels as channels_of_nodes
from umbel._worker import mailbox
from umbel.testing.simulation.processes import attribute
from umbel.util.collective import rounds


class Planted(NamedTuple):
    """One defect. `machine`: the world that it shows in. `signs`: what the message of the failure may begin with."""

    machine: str
    apply: Callable[[], AbstractContextManager[None]]
    signs: tuple[str, ...]


def _instead(machine: str, owner: Any, name: str, replacement: Any, *signs: str) -> Planted:
    return Planted(machine, lambda: attribute(owner, name, replacement), signs)


# ---- ownership ----

_found_in_value = ownership.ReferenceTable.found_in_value
_task_ended = ownership.ReferenceTable.task_ended
_maybe_free = ownership.ReferenceTable._maybe_free


def _unprotected(table: ownership.ReferenceTable, object_id: bytes, _outer: Any) -> ownership.Record:
    """The value that a reference was read from may go before the owner knows of the borrow."""
    return _found_in_value(table, object_id, None)


def _hasty(table: ownership.ReferenceTable, argument_ids: Iterable[bytes], submitter: bytes) -> list[bytes]:
    """A reply waits for nobody."""
    _task_ended(table, argument_ids, submitter)
    return []


def _careless(table: ownership.ReferenceTable, record: ownership.Record) -> None:
    """What others borrow is freed with the owner's last reference."""
    if not (record.local or record.pins):
        record.borrowers = None
    _maybe_free(table, record)


# ---- the agent ----

_release = ledger.Ledger.release
_end_lease = state.AgentState._end_lease
_is_feasible = state.AgentState._is_feasible


def _keep_devices(book: ledger.Ledger, resources: Mapping[str, int], _accelerators: Any) -> None:
    """Devices are not given back by their ids."""
    _release(book, resources, {})


def _forget_lent(machine: state.AgentState, lease: agent_records.Lease) -> None:
    """The end of a lease forgets that its worker was blocked, and gives its CPU back a second time."""
    lease.is_blocked = False
    _end_lease(machine, lease)


_want = environments.Environments.want


def _hasty_server(machine: environments.Environments, key: str, timeout_s: float | None, at_s: float) -> str:
    """Workers are started without waiting for the build."""
    _want(machine, key, timeout_s, at_s)
    return machine.servers[key].id


_recycle = state.AgentState._recycle


def _recycle_idle_only(machine: state.AgentState, worker: agent_records.Worker, at_s: float) -> list[Any]:
    """Worn-out workers are replaced only once their clients give them back by themselves."""
    if worker.lease is None:
        return _recycle(machine, worker, at_s)
    worker.lease.is_recycled = True
    return []


def _deaf(_machine: state.AgentState, _event: Any) -> list[Any]:
    """The event changes nothing."""
    return []


_add = state.AgentState._add


def _give_up_the_short(machine: state.AgentState, place: agent_records.Place, event: Any) -> agent_records.Demand:
    """Who lacks what others hold now is taken for one that can never be served."""
    demand = _add(machine, place, event)
    if machine.ledger.missing(demand.resources):
        machine._infeasible[place] = demand
    return demand


def _always_starting(_machine: state.AgentState, _demand: agent_records.Demand) -> reasons.Reason:
    """Whoever waits is told that a process starts."""
    return reasons.Reason(reasons.STARTING, "its worker process", "is starting")


def _plain_only(machine: state.AgentState, demand: agent_records.Demand) -> bool:
    """Demands for environments of their own are never served."""
    return not demand.env and _is_feasible(machine, demand)


# ---- actors ----

_bury = actors.ActorTable._bury


def _bury_in_silence(table: actors.ActorTable, actor: actors.Actor, *arguments: Any, **options: Any) -> Any:
    """Nobody is told of a death."""
    actor.watchers.clear()
    return _bury(table, actor, *arguments, **options)


_on_host_died = actors.ActorTable._on_host_died


def _restart_uncounted(table: actors.ActorTable, event: Any) -> Any:
    """Restarts are not counted."""
    actor = table.actors.get(event.actor)
    before = actor.restarts if actor is not None else 0
    commands = _on_host_died(table, event)
    if actor is not None:
        actor.restarts = before
    return commands


# ---- dispatch ----

_lose_lease = dispatch.SchedulingClass.lose_lease
_take_back = dispatch.SchedulingClass.take_back


def _charge_all(cls: dispatch.SchedulingClass, worker: str, started: int) -> tuple[list[Any], list[Any]]:
    """A crash is blamed on every task that the worker had."""
    begun, fresh = _lose_lease(cls, worker, started)
    for task in fresh:
        cls.ready.remove(task)
    return begun + fresh, []


def _charge_none(cls: dispatch.SchedulingClass, worker: str, _started: int) -> tuple[list[Any], list[Any]]:
    """A crash is blamed on no task: what had begun runs again as often as it likes."""
    return _lose_lease(cls, worker, -1)


def _lose_handed_back(cls: dispatch.SchedulingClass, lease: dispatch.Lease, seqs: list[int]) -> list[Any]:
    """Of the tasks that a worker hands back the last is lost."""
    tasks = _take_back(cls, lease, seqs)
    if len(tasks) > 1:
        cls.ready.remove(tasks[-1])
    return tasks


def _keep_too(cls: dispatch.SchedulingClass, lease: dispatch.Lease, seqs: list[int]) -> list[Any]:
    """Tasks that a worker hands back stay on its list as well."""
    kept = dict(lease.inflight)
    tasks = _take_back(cls, lease, seqs)
    lease.inflight.update(kept)
    return tasks


# ---- actor calls ----

_take_sendable = actor_calls.ActorCalls.take_sendable


def _send_backwards(calls: actor_calls.ActorCalls) -> list[Any]:
    """Calls are sent in the wrong order."""
    return _take_sendable(calls)[::-1]


def _retry_for_free(calls: actor_calls.ActorCalls) -> tuple[list[Any], list[Any]]:
    """Every call that was in flight is sent again, whatever its retries."""
    again = list(calls.inflight.values())
    calls.inflight.clear()
    calls.queue.extendleft(reversed(again))
    return [], again


def _forget_waiting(box: mailbox.Mailbox, group: str, is_async: bool) -> list[Any]:
    """The end of a call starts no other."""
    box._lanes[group, is_async].running -= 1
    return []


def _start_all(_box: mailbox.Mailbox, lane: mailbox.Lane) -> list[Any]:
    """A lane has no limit."""
    started = list(lane.waiting)
    lane.waiting.clear()
    lane.running += len(started)
    return started


# ---- collective groups ----

_break = rounds.Rounds._break
_heard = rounds.Rounds.heard


def _break_in_silence(machine: rounds.Rounds, problem: rounds.Problem) -> list[Any]:
    """Whoever finds the group broken keeps it to himself."""
    return _break(machine, problem)[-1:]


def _deaf_for_ends(machine: rounds.Rounds, news: Iterable[Any]) -> list[Any]:
    """The end of a rank goes unnoticed."""
    return _heard(machine, [(rank, frame) for rank, frame in news if frame is not None])


# ---- forwarding ----

_FORWARDING = forwarding.Forwarding


def _leave_with_the_drained(_machine: forwarding.Forwarding, _node: str, _at_s: float) -> list[Any]:
    """What was asked of a node goes on being asked of it when that is drained."""
    return []


def _keep_nobody_out(_machine: state.AgentState, _demand: agent_records.Demand) -> bool:
    """A node that is drained goes on granting."""
    return False


_told_nodes = _FORWARDING._told


def _move_in_silence(machine: Any, wish: Any, before: dict[str, int], **facts: bool) -> list[Any]:
    """The node that something was asked of, and is not any more, is not told."""
    told: list[Any] = _told_nodes(machine, wish, before, **facts)
    return [one for one in told if one.lease_count or one.node == machine._node]


def _never_ask_elsewhere(machine: Any, wish: Any, node: str, at_s: float) -> bool:
    """What waits stays where it is."""
    return False


def _count_twice(_given: Any, _client: str, _key: str, lease_count: int, _heard_count: int) -> int:
    """A grant that crosses a wish is not counted against it."""
    return lease_count


def _take_for_dead(machine: Any, event: forwarding.NodeForgot) -> list[Any]:
    """A node to which the connection broke is taken for dead for a moment."""
    lost = machine._on_node_lost(forwarding.NodeLost(event.view.node_id, event.at_s))
    return [*lost, *machine._on_node_seen(forwarding.NodeSeen(event.view, event.at_s))]


def _lose_wishes(machine: Any, event: forwarding.NodeLost) -> list[Any]:
    """What a lost node was asked for is not asked of others."""
    for wish in [*machine.wishes.values()]:
        wish.count -= wish.on.get(event.node, 0)
        if event.node in wish.on:
            machine._put(wish, event.node, -wish.on[event.node])
        if not wish.count:
            del machine.wishes[wish.client, wish.key]
    machine.nodes.pop(event.node, None)
    machine._left.pop(event.node, None)
    for known in machine._known_at.values():
        known.discard(event.node)
    return []


def _leave_in_silence(machine: Any, event: forwarding.ClientLeft) -> list[Any]:
    """Other nodes do not hear that a process is gone."""
    for place in [place for place in machine.wishes if place[0] == event.client]:
        machine._forget(machine.wishes[place])
    machine._known_at.pop(event.client, None)
    return []


# ---- spilling ----

_client_gone = spill_ledger.SpillLedger.client_gone
_written = spill_ledger.SpillLedger.written
_ledger_tick = store_ledger.StoreLedger.tick


def _ask_no_owner(book: spill_ledger.SpillLedger, client: str) -> list[Any]:
    """What a creator that died had still to say of its values is never asked for."""
    return [command for command in _client_gone(book, client) if not isinstance(command, spill_ledger.AskOwner)]


def _write_nothing_down(
    _book: spill_ledger.SpillLedger, _client: str, _file: str, _entries: Any, _living: Any
) -> list[Any]:
    """A file's values are not entered."""
    return []


def _give_up_all(book: spill_ledger.SpillLedger, client: str, _file: str) -> None:
    """The end of one order is taken for the end of all that its client has."""
    book._writing = {file: writer for file, writer in book._writing.items() if writer != client}


def _refuse_no_file(book: spill_ledger.SpillLedger, *what: Any) -> list[Any]:
    """A file that was given up is not entered, and its writer believes that it is."""
    return _written(book, *what) or []


@contextlib.contextmanager
def _mixed_up() -> Iterator[None]:
    ledger_ = spill_ledger.SpillLedger
    with attribute(ledger_, "given_up", _give_up_all), attribute(ledger_, "written", _refuse_no_file):
        yield


def _die_unsaid(book: spill_book.SpillBook, name: str) -> bool:
    """Nobody is told of the death of a value on disk."""
    book.saved.pop(name, None)
    book.gone.pop(name, None)
    return False


def _refuse_nobody(book: store_ledger.StoreLedger, *, at_s: float) -> list[Any]:
    """A request for room waits for ever."""
    book.has_hope(at_s=at_s)
    return _ledger_tick(book, at_s=at_s)


# ---- history ----

_hand_over = spool.Spool.hand_over


def _tell_once(book: spool.Spool) -> tuple[int, list[bytes]]:
    """Of what is lost a recorder is told that may die before it has written that down."""
    lost, frames = _hand_over(book)
    if lost:
        del book.unconfirmed[-len(frames) - 1]
    return lost, frames


@contextlib.contextmanager
def _apart(_file: store.Store) -> Iterator[None]:
    """Each statement counts by itself: a batch is gone before its rows are there."""
    yield


def _remove_newest(file: store.Store, what: retention.Removal) -> int:
    """What ended last goes first."""
    chosen = "(SELECT owner, seq, attempt FROM tasks ORDER BY ended DESC LIMIT ?)"
    sql = f"DELETE FROM tasks WHERE (owner, seq, attempt) IN {chosen}"
    return file._db.execute(sql, (what.oldest_count,)).rowcount


# ---- memory ----

_decide = shortage.MemoryMonitor._decide


def _kill_the_largest(
    _machine: shortage.MemoryMonitor, uses: list[shortage.Use], _worth: float, _at_s: float
) -> shortage.Use | None:
    """Who holds most goes, whatever it costs and whoever has grown."""
    return max(uses, key=lambda use: use.resident_bytes, default=None)


def _kill_on(machine: shortage.MemoryMonitor, sample: shortage.Sampled) -> list[Any]:
    """The next one goes before the last one's memory is back."""
    machine._leaving.clear()
    return _decide(machine, sample)


def _kill_the_idle(machine: shortage.MemoryMonitor, sample: shortage.Sampled) -> list[Any]:
    """Idle workers are killed as others are."""
    report: dict[str, Any] = {"alone": False, "others": []}
    return [
        shortage.Kill(command.worker, shortage.FREE, report) if isinstance(command, shortage.Dismiss) else command
        for command in _decide(machine, sample)
    ]


def _kill_the_dearest(
    machine: shortage.MemoryMonitor, uses: list[shortage.Use], worth: float, at_s: float
) -> shortage.Use | None:
    """Of those to blame, whoever costs most goes."""
    dearer = [use._replace(cost=shortage.LOST_ACTOR - use.cost) for use in uses]
    victim = _victim(machine, dearer, worth, at_s)
    return next((use for use in uses if victim is not None and use.worker == victim.worker), None)


def _kill_early(_machine: shortage.MemoryMonitor, limit_bytes: int) -> int:
    """A quarter of what may be used is not."""
    return _allowed_bytes(_machine, limit_bytes) * 3 // 4


def _kill_whoever(machine: state.AgentState, event: agent_events.MemoryShort) -> list[Any]:
    """Also who is not in use any more."""
    worker = machine.workers.get(event.worker)
    return machine._kill(worker, event.reason, event.at_s) if worker is not None else []


_victim = shortage.MemoryMonitor._victim
_allowed_bytes = shortage.MemoryMonitor.allowed_bytes


def _use_all(_machine: shortage.MemoryMonitor, limit_bytes: int) -> int:
    """Nothing is kept free."""
    return limit_bytes


def _retry_for_ever(kills: memory_kills.MemoryKills, task: Any, worker: bytes, report: Mapping[str, Any]) -> None:
    """A task that was alone is tried again."""
    _happened(kills, task, worker, {**report, "alone": False})


_happened = memory_kills.MemoryKills.happened


# ---- placement groups ----

_on_reserved = groups.GroupTable._on_reserved
_give_up = groups.GroupTable._give_up
_on_node_lost = groups.GroupTable._on_node_lost
_give_up_bundles = node_bundles.Bundles.give_up


def _commit_at_once(table: groups.GroupTable, event: Any) -> list[Any]:
    """Bundles are committed once one node has reserved its own."""
    group = table.groups.get(event.group)
    if group is not None and group.attempt is not None and event.node in group.attempt.waits_for:
        for node in {*group.attempt.waits_for} - {event.node}:
            table._answered(node, event.group)
        group.attempt.waits_for = {event.node: None}
    return _on_reserved(table, event)


def _give_up_in_silence(table: groups.GroupTable, group: groups.Group, **options: Any) -> list[Any]:
    """Nodes are not told that an attempt was given up."""
    _give_up(table, group, **options)
    return []


def _move_all(table: groups.GroupTable, event: Any) -> list[Any]:
    """With one bundle of a group all of them are placed again."""
    for group in table.groups.values():
        if event.node in group.nodes.values():
            group.nodes = dict.fromkeys(group.nodes, event.node)
    return _on_node_lost(table, event)


def _forget_watchers(_table: groups.GroupTable, group: groups.Group) -> list[Any]:
    """Nobody is told what he waits for."""
    group.watchers = {}
    return []


def _forget_followers(_table: groups.GroupTable, _group: groups.Group) -> list[Any]:
    """Nodes that follow a group hear nothing of what becomes of its bundles."""
    return []


def _match_first_come(demand: Any, able: Mapping[int, Any], free: Mapping[str, Any]) -> dict[int, str] | None:
    """Of STRICT_SPREAD, no bundle makes way for another."""
    found: dict[int, str] = {}
    for index, nodes in able.items():
        left = [one for one in nodes if one not in (*demand.placed.values(), *found.values())]
        fitting = [one for one in left if demand.bundles[index].fits_in(free[one])]
        if not fitting:
            return None
        found[index] = fitting[0]
    return found


def _free_at_once(held: node_bundles.Bundles, group: str, attempt: int | None = None) -> list[Any]:
    """Bundles go back to the node while something runs in them."""
    busy = _give_up_bundles(held, group, attempt)
    for bundle in busy:
        held.ending.remove(bundle)
        held._node.release(bundle.resources, bundle.devices)
    return busy


# ---- compiled graphs ----


def _read_ahead(side: ring.ReaderSide, written: int) -> bool:
    """A reader takes what is not written yet."""
    return written >= side.read


class _Unremoved:
    """`segments` for who has a file removed, and does not."""

    name_of = staticmethod(segments.name_of)

    @staticmethod
    def remove(_path: str) -> None:
        """It stays."""


def _begin_one_more(book: executions.Executions) -> int | None:
    """One execution more is in flight than may be."""
    if book.in_flight > book.in_flight_max:
        return None
    book.submitted += 1
    return book.submitted - 1


def _take_any(book: executions.Executions, _execution: int, _output: int) -> Any:
    """A reference gets whichever result came first."""
    return book._buffered.pop(next(iter(book._buffered)))


def _keep_unsent(_loop: loop._Loop, _step: Any, value: Any, senders: list[channels.Sender]) -> None:
    """A message that the end of the graph has kept from being sent keeps its segment."""
    message = channels.encode(value, _loop._memory.slot_bytes, _loop._engine)
    for sender in senders:
        sender.send(message)


def _close_in_silence(memory: channels.Memory) -> None:
    """Nobody is woken when the channels are closed."""
    memory.halves[0] = 1


def _let_go_at_once(sender: channels.Sender, *, of_all: bool = False) -> None:
    """What a message needs goes before its reader has it."""
    while sender._kept:
        _, kept = sender._kept.popleft()
        if isinstance(kept, channels.Lent):
            kept.give_back()


def _look_at_no_actor(backend: backends.Channels) -> None:
    """The death of an actor goes unnoticed."""
    backend.check_open()


_TABLE: Final = ownership.ReferenceTable
_AGENT: Final = state.AgentState
_MONITOR: Final = shortage.MemoryMonitor
# ---- leadership ----

_apply_event = leadership.Leadership.apply
_commit = in_sqlite.SqliteStorage.commit


def _count_from_the_answer(machine: leadership.Leadership, event: leadership.Event) -> list[leadership.Command]:
    """A lease is taken to begin when it is heard of."""
    if isinstance(event, (leadership.Granted, leadership.Renewed)):
        event = event._replace(asked_at_s=event.now_s)
    return _apply_event(machine, event)


def _commit_unfenced(storage: in_sqlite.SqliteStorage, writes: Any, *, fencing: int, number: int) -> None:
    """Whoever commits is taken to lead."""
    _, lease = storage._lease()
    done = int(str(storage._value("SELECT number FROM leader")))
    is_former = fencing != lease.fencing
    _commit(storage, writes, fencing=lease.fencing, number=done + 1 if is_former else number)


def _commit_again(storage: in_sqlite.SqliteStorage, writes: Any, *, fencing: int, number: int) -> None:
    """What is repeated is done again."""
    done = int(str(storage._value("SELECT number FROM leader")))
    _commit(storage, writes, fencing=fencing, number=done + 1 if number <= done else number)


# ---- values between nodes ----

_opened = pulls.PullTable.opened
_told = offers.OfferTable._told


def _trust(machine: pulls.PullTable, *args: Any, **facts: Any) -> list[Any]:
    """Nobody is asked whether what he sent was still right in the end."""
    return _opened(machine, *args, **{**facts, "is_sure": True})


def _keep_unsure(machine: pulls.PullTable, pull: Any) -> list[Any]:
    """What nobody can confirm any more is kept."""
    pull.arrived = dict.fromkeys(pull.arrived, True)
    pull.generation = pull.confirming = ""
    return []


def _insist(table: offers.OfferTable, offer: Any, asked: Any) -> tuple[offers.Holder, ...]:
    """Whoever says that others do not do for him is sent to them again."""
    return _told(table, offer, asked._replace(without=()))


# ---- the control store's records ----

_record_event = journal.Journal.apply
_on_hosted = actors.ActorTable._on_hosted
_needs_call = actors.needs_call


def _say_at_once(machine: journal.Journal, effect: Any) -> list[Any]:
    """Nothing waits for its record."""
    return [journal.Do((effect,))] if not machine.ended else []


def _say_with_the_one_before(machine: journal.Journal, effect: Any) -> list[Any]:
    """What is said depends on a commit that is collected, and goes with the one under way."""
    batch = machine._under_way
    if batch is None:
        return [journal.Do((effect,))]
    batch.effects.append(effect)
    machine._withheld_count += 1
    return []


def _take_failed_as_done(machine: journal.Journal, event: journal.Event) -> list[Any]:
    """A commit that nobody has confirmed counts."""
    if isinstance(event, journal.Failed):
        event = journal.Committed(event.fencing, event.number, event.at_s)
    return _record_event(machine, event)


def _host_unrecorded(table: actors.ActorTable, event: Any) -> list[Any]:
    """A constructor is called before anybody knows that it is."""
    commands = _on_hosted(table, event)
    if table.changed is not None:
        table.changed.pop(event.actor, None)
    return commands


def _bury_unrecorded(table: actors.ActorTable, actor: actors.Actor, *values: Any) -> list[Any]:
    """The end of an actor is not kept."""
    commands = _bury(table, actor, *values)
    if table.changed is not None:
        table.changed.pop(actor.spec.actor, None)
    return commands


def _forget_call_early(actor: actors.Actor) -> bool:
    """Constructor calls are not kept for restarts."""
    return _needs_call(actor) and actor.state is not ActorState.ALIVE


def _go_on_anyway(shell: keeping.Keeping, fencing: int) -> None:
    """A head goes on though another one has led meanwhile."""
    shell._apply(journal.Resumed(fencing, shell._now_s()))
    shell._do_rest()


def _recover_nobody(table: actors.ActorTable, _event: Any) -> list[Any]:
    """What was under way is not taken up again."""
    table._unreported = None
    return []


_CLASS: Final = dispatch.SchedulingClass
_PULLS: Final = pulls.PullTable
_CALLS: Final = actor_calls.ActorCalls
_ROUNDS: Final = rounds.Rounds
_SCALER: Final = autoscaler.Autoscaler


# ---- nodes ----

_NODES: Any = node_table.NodeTable
_on_link_lost: Callable[..., list[node_table.NodeCommand]] = _NODES._on_link_lost
_on_heartbeat: Callable[..., list[node_table.NodeCommand]] = _NODES._on_heartbeat
_node_dies: Callable[..., list[node_table.NodeCommand]] = _NODES._die
_node_trouble: Callable[..., node_table.Refuse | None] = _NODES._trouble


def _let_the_dead_in(table: node_table.NodeTable, event: node_table.NodeJoined) -> node_table.Refuse | None:
    """A node that was declared dead, and lives, is a member again."""
    found = _node_trouble(table, event)
    if found is None or found.kind != "dead":
        return found
    table.dead.pop(event.node_id, None)
    return None


def _let_twins_in(table: node_table.NodeTable, event: node_table.NodeJoined) -> node_table.Refuse | None:
    """Nobody looks at tags."""
    found = _node_trouble(table, event)
    return None if found is not None and found.kind == "tag" else found


def _lose_any_link(table: node_table.NodeTable, event: node_table.LinkLost) -> list[node_table.NodeCommand]:
    """The end of a connection that a node has given up long ago counts as that of its present one."""
    node = table.alive.get(event.node_id)
    return _on_link_lost(table, event if node is None else event._replace(link=node.link))


def _hear_any_beat(table: node_table.NodeTable, event: node_table.Heartbeat) -> list[node_table.NodeCommand]:
    """What comes late, or twice, counts as news."""
    node = table.alive.get(event.node_id)
    if node is not None:
        node.sequence = event.sequence - 1
    return _on_heartbeat(table, event)


def _die_untold(
    table: node_table.NodeTable, node: node_table.Node, reason: str, now_s: float, *, is_expected: bool
) -> list[node_table.NodeCommand]:
    """Members do not hear of deaths."""
    found = _node_dies(table, node, reason, now_s, is_expected=is_expected)
    return [command for command in found if not isinstance(command, node_table.Publish)]


def _answer_no_drain(table: node_table.NodeTable, now_s: float) -> list[node_table.NodeCommand]:
    """A request that a node does not answer is waited for without end."""
    table._drains = {
        number: one if one.answer_by_s > now_s else one._replace(answer_by_s=now_s + 1e6)
        for number, one in table._drains.items()
    }
    return []


_node_record: Callable[..., dict[str, Any] | None] = _NODES.record


def _keep_no_drain(table: node_table.NodeTable, node_id: str) -> dict[str, Any] | None:
    """That a node is being drained is forgotten with the head."""
    found = _node_record(table, node_id)
    return None if found is None else {**found, "draining": None}


_member_applies = membership.Membership._apply


def _ignore_refusal(machine: membership.Membership, event: membership.Event) -> list[membership.Command]:
    """A node that was told that it is dead goes on."""
    return [] if isinstance(event, membership.Refused) else _member_applies(machine, event)


# ---- the autoscaler ----

_offers_of = planning._offers
_drains_of = planning._drains
_rooms_of = planning._rooms
_on_ticked = autoscaler.Autoscaler._on_ticked
_dry_run = autoscaler.Autoscaler.dry_run


def _forget_the_leaving(now: planning.Situation) -> Any:
    """Nodes that leave count no more, though they are still there."""
    staying = [node for node in now.nodes if node.state not in planning.LEAVING]
    return _offers_of(now._replace(nodes=staying))


def _sure_of_failures(now: planning.Situation) -> Any:
    """What a launcher says that it has not launched is taken for not there."""
    return _offers_of(now._replace(unsure=()))


def _end_unasked(machine: autoscaler.Autoscaler, event: autoscaling_events.Ticked) -> list[Any]:
    """Nodes are ended without asking whether something runs on them now."""
    found = []
    for command in _on_ticked(machine, event):
        is_drain = isinstance(command, autoscaling_events.Drain)
        found.append(autoscaling_events.Terminate(*command) if is_drain else command)
    return found


def _drain_below_min(now: planning.Situation, causes: Mapping[str, str]) -> Any:
    """Only launching looks at min_workers."""
    types = tuple(one._replace(min_workers=0) for one in now.settings.node_types)
    return _drains_of(now._replace(settings=now.settings._replace(node_types=types)), causes)


def _drain_at_once(now: planning.Situation, causes: Mapping[str, str]) -> Any:
    """Whatever is idle goes."""
    types = tuple(one._replace(idle_timeout_s=0.0) for one in now.settings.node_types)
    return _drains_of(now._replace(settings=now.settings._replace(node_types=types)), causes)


def _launch_all(_now: Any, _at_once: Any, wanted: list[packing.Room]) -> tuple[list[packing.Room], list[packing.Room]]:
    """As fast as can be."""
    return wanted, []


def _forget_the_coming(now: planning.Situation, *, is_whole: bool) -> Any:
    """What is on its way is no room yet."""
    alive = [node for node in now.nodes if node.state is planning.NodeState.ALIVE]
    return _rooms_of(now._replace(nodes=alive, outstanding=()), is_whole=is_whole)


def _launch_part_of_a_group(packer: packing.Packer, group: Any, cause: str) -> Any:
    """What was launched for a group that cannot be placed is launched all the same."""
    found = _attempt(packer, group, cause)
    if found is not None and packer.offers.can(packer.offers.all[0]):
        packer.launch(packer.offers.all[0], cause)
    return found


_attempt = packing.Packer._attempt


def _remember_the_question(machine: autoscaler.Autoscaler, now_s: float, *asked: Any) -> Any:
    """A dry run's demand stays."""
    if asked and asked[0]:
        machine._shapes = (*machine._shapes, *asked[0])
    return _dry_run(machine, now_s, *asked)


def _say_nothing_of_size(packer: packing.Packer, shape: Any, *, in_group: bool = False) -> Any:
    """Every type that does not serve is said to be used up."""
    return tuple(packing.Looked(one.name, packing.TYPE_MAX, "none is left") for one in packer.offers.all)


def _count_the_drained(machine: autoscaler.Autoscaler, event: autoscaling_events.NodeSeen) -> Any:
    """A node that others have had drained counts as one that stays."""
    return _on_seen(machine, event._replace(draining=""))


_on_seen = autoscaler.Autoscaler._on_seen


def _keep_the_idle(now: planning.Situation, _causes: Mapping[str, str]) -> Any:
    """Whatever is there is taken for needed."""
    return _drains_of(now, {node.name: "something" for node in now.nodes})


# ---- members ----


def _keep_dead_node(one: members.Members, node_id: str, _reason: str) -> None:
    one._members.pop(node_ids.tag_of_node(node_id).hex(), None)


def _count_void_orders(one: members.Members, _member: members.Member, message: Any) -> Any:
    return one._placed.get(message["actor"])


def _reserve_unkept(one: service.ActorService, count: int) -> int:
    return one.jobs.reserve(count)


PLANTS: Final[Mapping[str, Planted]] = {
    "unprotected-borrow": _instead("ownership", _TABLE, "found_in_value", _unprotected, "O7"),
    "reply-before-ack": _instead("ownership", _TABLE, "task_ended", _hasty, "O7", "O8"),
    "careless-owner": _instead("ownership", _TABLE, "_maybe_free", _careless, "O7", "O8"),
    "grants-not-counted": _instead("ownership", _TABLE, "receive_granted", lambda *_: None, "O7", "O11"),
    "devices-kept": _instead("agent", ledger.Ledger, "release", _keep_devices, "devices and amount", "A"),
    "cpu-given-twice": _instead("agent", _AGENT, "_end_lease", _forget_lent, "more is free", "free and held"),
    "return-unheard": _instead("agent", _AGENT, "_on_lease_returned", _deaf, "A", "R2"),
    "stayed-unheard": _instead("agent", _AGENT, "_on_worker_stayed", _deaf, "A"),
    "worn-out-kept": _instead("agent", _AGENT, "_recycle", _recycle_idle_only, "A16"),
    "build-not-awaited": _instead("agent", environments.Environments, "want", _hasty_server, "A15"),
    "plain-only": _instead("agent", _AGENT, "_is_feasible", _plain_only, "A10", "A17", "A7"),
    "never-given-up": _instead("agent", _AGENT, "_look_at_infeasible", lambda *_: [], "A10"),
    "short-given-up": _instead("agent", _AGENT, "_add", _give_up_the_short, "A10"),
    "always-starting": _instead("agent", _AGENT, "_reason", _always_starting, "A17"),
    "silent-death": _instead(
        "actors", actors.ActorTable, "_bury", _bury_in_silence, "T6", "a process is to do with actors that are dead"
    ),
    "restarts-uncounted": _instead("actors", actors.ActorTable, "_on_host_died", _restart_uncounted, "T5", "T6"),
    "crash-charges-all": _instead("dispatch", _CLASS, "lose_lease", _charge_all, "D4"),
    "crash-charges-none": _instead("dispatch", _CLASS, "lose_lease", _charge_none, "D5", "K6"),
    "hand-back-lost": _instead("dispatch", _CLASS, "take_back", _lose_handed_back, "D", "list.remove"),
    "hand-back-kept": _instead("dispatch", _CLASS, "take_back", _keep_too, "D", "R2"),
    "lineage-kept": _instead("dispatch", lineage.Lineage, "freed", lambda *_: None, "O9"),
    "wrong-order": _instead("mailbox", _CALLS, "take_sendable", _send_backwards, "C1"),
    "retries-for-free": _instead("mailbox", _CALLS, "disconnected", _retry_for_free, "C3"),
    "waiting-forgotten": _instead("mailbox", mailbox.Mailbox, "finished", _forget_waiting, "a lane idles", "C5"),
    "broken-in-silence": _instead("collective", _ROUNDS, "_break", _break_in_silence, "G3"),
    "ends-unheard": _instead("collective", _ROUNDS, "heard", _deaf_for_ends, "G3"),
    "texts-unread": _instead("collective", _ROUNDS, "_differ", lambda *_: [], "G1", "G2"),
    "owner-unasked": _instead("spilling", spill_ledger.SpillLedger, "client_gone", _ask_no_owner, "S6"),
    "spilled-unwritten": _instead("spilling", spill_ledger.SpillLedger, "written", _write_nothing_down, "S4", "S6"),
    "orders-mixed-up": Planted("spilling", _mixed_up, ("S4", "S6")),
    "death-unsaid": _instead("spilling", spill_book.SpillBook, "freed", _die_unsaid, "S6"),
    "refuses-nobody": _instead("spilling", store_ledger.StoreLedger, "tick", _refuse_nobody, "R2", "S5"),
    "committed-at-once": _instead("groups", groups.GroupTable, "_on_reserved", _commit_at_once, "P1"),
    "cancelled-in-silence": _instead("groups", groups.GroupTable, "_give_up", _give_up_in_silence, "P3", "a bundle"),
    "all-moved": _instead("groups", groups.GroupTable, "_on_node_lost", _move_all, "P4"),
    "watchers-untold": _instead("groups", groups.GroupTable, "_publish", _forget_watchers, "P7"),
    "followers-untold": _instead("groups", groups.GroupTable, "_moved", _forget_followers, "P9"),
    "first-come": _instead("groups", group_bundles, "_matched", _match_first_come, "P6"),
    "drop-unheard": _instead("groups", _AGENT, "_on_group_dropped", _deaf, "P"),
    "bundles-free-at-once": _instead("groups", node_bundles.Bundles, "give_up", _free_at_once, "a lease in a", "free"),
    "moved-in-silence": _instead("forwarding", _FORWARDING, "_told", _move_in_silence, "W3"),
    "never-elsewhere": _instead("forwarding", _FORWARDING, "_move", _never_ask_elsewhere, "W5"),
    "crossed-twice": _instead("forwarding", forwarding.Given, "still_wanted", _count_twice, "W3"),
    "lost-with-node": _instead("forwarding", _FORWARDING, "_on_node_lost", _lose_wishes, "W3", "W4", "W5"),
    "taken-for-dead": _instead("forwarding", _FORWARDING, "_on_node_forgot", _take_for_dead, "W2"),
    "asked-of-the-drained": _instead("forwarding", _FORWARDING, "_take_back", _leave_with_the_drained, "W9"),
    "drained-begin": _instead("forwarding", state.AgentState, "_is_kept_out", _keep_nobody_out, "W9"),
    "left-in-silence": _instead("forwarding", _FORWARDING, "_on_client_left", _leave_in_silence, "W"),
    "largest-killed": _instead("shortage", _MONITOR, "_victim", _kill_the_largest, "K"),
    "killed-on": _instead("shortage", _MONITOR, "_decide", _kill_on, "K3"),
    "idle-killed": _instead("shortage", _MONITOR, "_decide", _kill_the_idle, "K2", "K3"),
    "dearest-killed": _instead("shortage", _MONITOR, "_victim", _kill_the_dearest, "K4"),
    "killed-early": _instead("shortage", _MONITOR, "allowed_bytes", _kill_early, "K1"),
    "unused-killed": _instead("agent", _AGENT, "_on_memory_short", _kill_whoever, "A14"),
    "nothing-kept-free": _instead("shortage", _MONITOR, "allowed_bytes", _use_all, "K7"),
    "helpless-unsaid": _instead("shortage", _MONITOR, "_complain", lambda *_: [], "K7"),
    "demand-not-raised": _instead("dispatch", memory_kills.MemoryKills, "_raise_demand", lambda *_: None, "K6"),
    "alone-again": _instead("dispatch", memory_kills.MemoryKills, "happened", _retry_for_ever, "K6"),
    "reads-ahead": _instead("graphs", ring.ReaderSide, "may_read", _read_ahead, "X1", "X4", "R1"),
    "one-too-many": _instead(
        "graphs", executions.Executions, "submit", _begin_one_more, "a channel has no room", "R1", "X"
    ),
    "any-result": _instead("graphs", executions.Executions, "take", _take_any, "X1", "X3", "result"),
    "unsent-kept": _instead("graphs", loop._Loop, "_send", _keep_unsent, "X5"),
    "segment-free-at-once": _instead("graphs", channels.Sender, "let_go", _let_go_at_once, "X"),
    "name-kept": _instead("graphs", backends, "segments", _Unremoved, "X6"),
    "closed-in-silence": _instead("graphs", channels.Memory, "close", _close_in_silence, "X7"),
    "death-of-actor-unseen": _instead("graphs", backends.Channels, "check", _look_at_no_actor, "R2", "X4"),
    "lost-told-once": _instead("history", spool.Spool, "hand_over", _tell_once, "H1"),
    "no-transactions": _instead("history", store.Store, "_transaction", _apart, "H"),
    "newest-removed": _instead("history", store.Store, "_remove", _remove_newest, "H3"),
    "counted-from-answer": _instead("leadership", leadership.Leadership, "apply", _count_from_the_answer, "L4"),
    "no-margin": _instead(
        "leadership", leadership.Leadership, "_valid_s", property(lambda one: one.ttl_s * 0.99), "L4"
    ),
    "clocks-agree": _instead(
        "leadership", leadership.Leadership, "_valid_s", property(lambda one: one.ttl_s * 0.8), "L4"
    ),
    "commits-unfenced": _instead("leadership", in_sqlite.SqliteStorage, "commit", _commit_unfenced, "L"),
    "commits-twice": _instead("leadership", in_sqlite.SqliteStorage, "commit", _commit_again, "L1"),
    "dead-come-back": _instead("nodes", _NODES, "_trouble", _let_the_dead_in, "Y1", "R1"),
    "twins-come-in": _instead("nodes", _NODES, "_trouble", _let_twins_in, "Y4", "two nodes have one tag"),
    "old-links-count": _instead("nodes", _NODES, "_on_link_lost", _lose_any_link, "Y2", "a link neither"),
    "old-beats-count": _instead("nodes", _NODES, "_on_heartbeat", _hear_any_beat, "Y6"),
    "standstill-counted": _instead("nodes", node_table, "LATE_S", 1e9, "Y2"),
    "deaths-untold": _instead("nodes", _NODES, "_die", _die_untold, "Y6"),
    "drains-unanswered": _instead("nodes", _NODES, "_give_up_drains", _answer_no_drain, "Y8"),
    "drains-unkept": _instead("nodes", _NODES, "record", _keep_no_drain, "Y9"),
    "awaited-for-no-time": _instead("nodes", node_table.Health, "return_s", 0.0, "Y2"),
    "told-at-once": _instead("nodes", node_table, "PUBLISH_S", 0.0, "Y5"),
    "refusals-ignored": _instead("nodes", membership.Membership, "_apply", _ignore_refusal, "Y3", "R2"),
    "unconfirmed": _instead("pulls", _PULLS, "opened", _trust, "V1"),
    "unsure-kept": _instead("pulls", _PULLS, "_void", _keep_unsure, "V1"),
    "less-urgent-kept": _instead("pulls", _PULLS, "_give_up_for", lambda *_: [], "V3"),
    "loss-unheard": _instead("pulls", _PULLS, "source_lost", lambda *_, **__: [], "V2", "R2"),
    "dead-kept": _instead("pulls", _PULLS, "freed", lambda *_, **__: [], "V6"),
    "sent-away-again": _instead("pulls", offers.OfferTable, "_told", _insist, "R2", "V2"),
    "said-at-once": _instead("control", journal.Journal, "_withhold", _say_at_once, "J"),
    "said-with-the-one-before": _instead("control", journal.Journal, "_withhold", _say_with_the_one_before, "J1", "J2"),
    "failed-is-done": _instead("control", journal.Journal, "apply", _take_failed_as_done, "J1", "J2"),
    "hosting-unrecorded": _instead("control", actors.ActorTable, "_on_hosted", _host_unrecorded, "J4"),
    "death-unrecorded": _instead("control", actors.ActorTable, "_bury", _bury_unrecorded, "J1"),
    "acts-on": _instead("control", keeping.Keeping, "may_act", lambda _one: True, "J3"),
    "goes-on-anyway": _instead("control", keeping.Keeping, "_lead_again", _go_on_anyway, "J", "R2"),
    "call-not-kept": _instead("control", actors, "needs_call", _forget_call_early, "'a"),
    "nobody-recovered": _instead("control", actors.ActorTable, "_on_recovered", _recover_nobody, "R2", "J4"),
    "not-said-again": _instead("members", channels_of_nodes.Channel, "linked", lambda *_: [], "number", "Q2"),
    "dead-nodes-kept": _instead("members", members.Members, "node_gone", _keep_dead_node, "Q4", "Q2"),
    "jobs-counted-apart": _instead("members", service.ActorService, "reserve_job_ids", lambda *_: 1, "Q1"),
    "void-orders-count": _instead("members", members.Members, "_placed_there", _count_void_orders, "Q", "an actor got"),
    "dead-looked-for": _instead("members", service.ActorService, "lacks_host", lambda *_: True, "'0", "Q"),
    "not-placed-anew": _instead("members", members.Members, "_place_anew", lambda _one: None, "Q2"),
    "bundles-kept-elsewhere": _instead("members", members.Members, "drop_group", lambda *_: None, "Q5"),
    "groups-not-moved": _instead("members", members.Members, "_group_moved", lambda *_: None, "Q2"),
    "vouched-for-at-once": _instead(
        "members", channels_of_nodes.Channel, "counts", property(lambda one: one.heard), "Q"
    ),
    "answers-forgotten": _instead("members", answers.Answers, "keep", lambda *_: None, "Q1"),
    "left-unsaid": _instead("members", control_proxy.ControlProxy, "_left_open", lambda _one: [], "Q"),
    "not-restated": _instead("members", control_proxy.ControlProxy, "_restate", lambda *_: None, "Q"),
    "watches-not-said-again": _instead(
        "members", control_proxy.ControlProxy, "_watched_again", lambda _one: None, "Q2", "Q5"
    ),
    "reserved-unkept": _instead("members", service.ActorService, "reserve_job_ids", _reserve_unkept, "Q1"),
    "recovered-at-once": _instead(
        "members", service.ActorService, "await_nodes", lambda _one: None, "Q", "an actor got"
    ),
    "no-limit": _instead("mailbox", mailbox.Mailbox, "_start", _start_all, "a lane runs", "M1"),
    "leaving-forgotten": _instead("autoscaling", planning, "_offers", _forget_the_leaving, "U1"),
    "failures-believed": _instead("autoscaling", planning, "_offers", _sure_of_failures, "U1", "U2"),
    "ended-unasked": _instead("autoscaling", _SCALER, "_on_ticked", _end_unasked, "U3"),
    "drained-counted": _instead("autoscaling", _SCALER, "_on_seen", _count_the_drained, "U5"),
    "below-min": _instead("autoscaling", planning, "_drains", _drain_below_min, "U2", "U5"),
    "idle-for-no-time": _instead("autoscaling", planning, "_drains", _drain_at_once, "U2"),
    "idle-kept": _instead("autoscaling", planning, "_drains", _keep_the_idle, "U5", "U6", "R2"),
    "coming-forgotten": _instead("autoscaling", planning, "_rooms", _forget_the_coming, "U7"),
    "groups-in-part": _instead("autoscaling", packing.Packer, "_attempt", _launch_part_of_a_group, "U7"),
    "as-fast-as-can-be": _instead("autoscaling", planning, "_by_speed", _launch_all, "U9"),
    "failures-forgotten": _instead("autoscaling", _SCALER, "_fail", lambda *_: None, "U10"),
    "listings-unread": _instead("autoscaling", _SCALER, "_on_listed", _deaf, "U", "R2"),
    "question-remembered": _instead("autoscaling", _SCALER, "dry_run", _remember_the_question, "U8"),
    "reasons-made-up": _instead("autoscaling", packing.Packer, "looked", _say_nothing_of_size, "U6"),
    "rejections-unheard": _instead("autoscaling", _SCALER, "_on_drain_answered", _deaf, "U5", "R2"),
}
