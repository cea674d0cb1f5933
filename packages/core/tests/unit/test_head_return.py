"""A head that was killed and begins again with its records, and a node that lived on, as lists of what is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from test_members import FACTS, GROUP, HEAD, NODE, Cluster, Daemon, in_bundle, make_group, process

from umbel._base import nodes
from umbel._control import journal, keeping, kept, leadership, members, service
from umbel._wire import frames

NEXT_HEAD, OTHER = "cc" * nodes.NODE_ID_BYTES, "dd" * nodes.NODE_ID_BYTES


class Disk:
    """A `keeping.Storing` that writes when it is told to."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.under_way: list[journal.Commit] = []
        self.heard: list[Any] = []

    def commit(self, command: journal.Commit) -> None:
        self.under_way.append(command)

    def ask(self, _command: Any) -> None:
        """It has the lease."""

    @property
    def has_heard(self) -> bool:
        return bool(self.heard)

    def take(self) -> list[Any]:
        heard, self.heard = self.heard, []
        return heard

    def close(self, fencing: int) -> None:
        """The head is killed."""

    def write(self) -> None:
        done = self.under_way.pop(0)
        for key, value in done.writes.items():
            if value is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = value
        self.heard.append(journal.Committed(done.fencing, done.number, 0.0))


class KeptCluster(Cluster):
    """The head's records are written as long as `writes`."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.writes = True
        self.fencing = 0
        super().__init__()

    def begin(self, node_id: str, awaited: list[str], others: Sequence[dict[str, Any]] = ()) -> None:
        """A head begins with what is written. others: nodes that it knows of."""
        self.fencing += 1
        self.disk.under_way.clear()
        self.disk.heard.clear()
        self.head = Daemon(node_id)
        self.head.others = [*others]
        self.members = members.Members(self.head, nodes.tag_of_node(node_id))
        leader = leadership.Leadership(ttl_s=1e9, now_s=0.0)
        leader.apply(leadership.Tick(0.0))
        leader.apply(leadership.Granted(self.fencing, 0.0, 0.0))
        keeper = keeping.Keeping(
            kept.Kept(self.disk.stored.items(), 0.0), leader, self.disk, now_s=self.head.now_s,
            lease_now_s=self.head.now_s, on_step_down=lambda _reason: None, recovery_s=0.0,
        )  # fmt: skip
        self.service = self.head.control = service.ActorService(self.members, keeper)
        self.members.serve(self.service)
        for environment in self.service.job_environments():
            self.head.knows_job(environment)
        self.members.await_nodes(awaited)
        self.service.tick()

    def link(self) -> None:
        if not self.fencing:
            self.begin(HEAD, [])
        self.cut()
        self.is_linked = True
        member = self.enter(NODE)
        self.write()
        head, heard = self.proxy.heard_of()
        heard_there, job_ids = member.channel.counts, list(member.job_ids)
        heard = heard if head == self.head.node_id else 0
        self.members.linked(NODE, heard, lambda *said: self.to_node.append(frames.encode_control(*said)))
        self.proxy.linked(
            heard_there,
            job_ids,
            lambda *said: self.to_head.append(frames.encode_control(*said)),
            head=self.head.node_id,
        )

    def write(self) -> None:
        while self.disk.under_way:
            self.disk.write()
            self.service.tick()

    def step(self, chance: Any = None) -> bool:
        if self.writes:
            self.write()
        return super().step(chance)

    def return_of_the_head(self) -> None:
        """It was killed; another one has begun, and the node comes back."""
        self.cut()
        self.begin(NEXT_HEAD, [NODE])
        self.writes = True
        self.link()
        self.flow()

    def host_and_call(self, actor: str, number: int) -> str:
        worker = self.host(actor, number)
        self.flow()
        self.ready(actor, worker)
        self.flow()
        return worker

    def state_of(self, actor: str) -> tuple[str, str, int]:
        (found,) = [one for one in self.service.listed() if one["actor"] == actor]
        return found["state"], found["worker"], found["restarts"]

    def calls_in(self, worker: str) -> int:
        return sum(to == worker and one["t"] == "create" for to, one, _ in self.node.told)


@pytest.fixture
def cluster() -> KeptCluster:
    return KeptCluster()


def test_an_actor_whose_node_comes_back_lives_on_and_can_be_killed_there(cluster: KeptCluster) -> None:
    client = cluster.driver()
    actor = cluster.create(client, 1)
    cluster.flow()
    worker = cluster.host_and_call(actor, 2)
    cluster.return_of_the_head()
    assert cluster.state_of(actor) == ("ALIVE", worker, 0)
    assert (cluster.calls_in(worker), cluster.node.killed) == (1, [])
    assert {one["driver"]: one["status"] for one in cluster.service.jobs_listed()} == {client: "RUNNING"}
    cluster.say(client, {"t": "kill_actor", "actor": actor, "no_restart": True, "rq": 5})
    cluster.flow()
    assert cluster.node.killed == [actor]
    assert cluster.node.states_of(client, actor)[-1] == "DEAD"


def test_what_was_said_to_a_head_that_had_not_kept_it_is_said_to_the_next_one(cluster: KeptCluster) -> None:
    client = cluster.driver()
    cluster.flow()
    cluster.writes = False
    actor = cluster.create(client, 1)
    named = cluster.create(client, 2, name="n", request=7)
    cluster.flow()
    assert cluster.node.answers_to(client) == []
    cluster.return_of_the_head()
    assert [one["actor"] for one in cluster.node.answers_to(client)] == [named]
    assert sorted(cluster.node.placed) == sorted([actor, named])  # the search that the head before had begun has ended
    assert cluster.state_of(actor) == ("PENDING", "", 0)


def test_a_worker_that_was_not_recorded_goes_and_takes_with_it_no_search_for_another_one(cluster: KeptCluster) -> None:
    """The creation, said again by another node, comes before the word of the node that has the worker, where it is looked for
    again. Found by the simulated members: nobody looked for a worker, for ever."""
    client, said = process(OTHER, 1), 0

    def say(message: dict[str, Any]) -> None:
        nonlocal said
        said += 1
        cluster.members.on_frame(OTHER, {"t": "said", "number": said, "heard": 0, "message": message}, b"metacall")
        cluster.flow()

    actor = client + f"{1:016x}"
    creation = {
        "t": "create_actor", "actor": actor, "name": "", "namespace": "ns", "get_if_exists": False, "detached": False,
        "max_restarts": 0, "placement": {}, "running": {"CPU": 10_000}, "env": None, "strategy": None,
        "label_selectors": None, "class_name": "C", "meta_size": 4, "depth": 0, "lacks_arguments": False, "call_site": "",
        "rq": None,
    }  # fmt: skip
    request = {"t": "request", "client": client, "namespace": "ns", "job": "01000000", "message": creation}
    cluster.sees(OTHER, {})
    cluster.head.free = {}
    say({"t": "job_begins", "client": client, "pid": 1, "facts": FACTS, "job": "01000000"})
    cluster.writes = False
    say(request)
    first = cluster.host(actor, 2)
    cluster.flow()

    cluster.cut()
    cluster.begin(NEXT_HEAD, [NODE, OTHER])
    cluster.head.free = {}
    cluster.writes, said = True, 0
    cluster.sees(OTHER, {})
    cluster.enter(NODE)
    say({"t": "restate", "hosts": {}, "processes": {client: "01000000"}, "jobs": {"01000000": client}, "asked": {}})
    say(request)
    cluster.link()
    cluster.flow()
    say({"t": "restated", "owned": []})
    assert (cluster.node.killed, cluster.node.placed) == ([first], [actor])
    second = cluster.host_and_call(actor, 3)
    cluster.proxy.host_died(actor, first, "it was killed")
    cluster.flow()
    assert cluster.state_of(actor) == ("ALIVE", second, 0)


def test_a_creation_that_was_kept_and_not_answered_is_answered_and_made_once(cluster: KeptCluster) -> None:
    client = cluster.driver()
    cluster.flow()
    actor = cluster.create(client, 1, name="n", request=7)
    while cluster.to_head:
        cluster.members.on_frame(NODE, *frames.decode_control(cluster.to_head.pop(0)[4:]))
    cluster.write()  # the answer is on its way, and lost
    cluster.return_of_the_head()
    assert [(one["actor"], one["existing"]) for one in cluster.node.answers_to(client)] == [(actor, False)]
    assert cluster.node.placed == [actor]
    assert len(cluster.service.listed()) == 1


def test_a_worker_that_was_found_and_not_recorded_is_let_go_and_another_one_looked_for(cluster: KeptCluster) -> None:
    client = cluster.driver()
    actor = cluster.create(client, 1)
    cluster.flow()
    cluster.writes = False
    worker = cluster.host(actor, 2)
    cluster.flow()
    cluster.return_of_the_head()
    assert cluster.node.killed == [worker]
    assert cluster.node.placed == [actor]
    assert cluster.calls_in(worker) == 0
    cluster.proxy.host_died(actor, worker, "it was killed")
    cluster.flow()
    assert cluster.state_of(actor) == ("PENDING", "", 0)


def test_a_constructor_call_that_was_lost_with_the_head_comes_with_the_devices(cluster: KeptCluster) -> None:
    client = cluster.driver()
    actor = cluster.create(client, 1)
    cluster.flow()
    worker = cluster.host(actor, 2)
    while cluster.to_head:
        cluster.members.on_frame(NODE, *frames.decode_control(cluster.to_head.pop(0)[4:]))
    cluster.write()
    cluster.return_of_the_head()
    assert cluster.calls_in(worker) == 1
    (call,) = [one for to, one, _ in cluster.node.told if to == worker and one["t"] == "create"]
    assert call["accelerators"] == {"GPU": ["0"]}


def test_a_worker_that_ended_while_the_head_was_away_is_told_of_with_its_reason(cluster: KeptCluster) -> None:
    client = cluster.driver()
    actor, other = cluster.create(client, 1), cluster.create(client, 2, max_restarts=1)
    cluster.flow()
    worker, gone = cluster.host_and_call(actor, 3), cluster.host_and_call(other, 4)
    cluster.cut()
    cluster.proxy.host_died(actor, worker, "it ran out of luck")
    cluster.proxy.host_died(other, gone, "it crashed")
    cluster.return_of_the_head()
    (dead,) = [one for one in cluster.service.listed() if one["actor"] == actor]
    assert (dead["state"], dead["reason"]) == ("DEAD", "it ran out of luck")
    assert cluster.state_of(other) == ("RESTARTING", "", 1)
    assert cluster.node.placed == [other]


def test_a_key_that_was_put_and_not_answered_is_not_put_again(cluster: KeptCluster) -> None:
    client, other = cluster.driver(1), cluster.driver(2)
    cluster.flow()
    put = {"t": "kv_put", "space_size": 0, "key_size": 1, "overwrite": True, "rq": 3}
    cluster.say(client, put, b"kold")
    while cluster.to_head:
        cluster.members.on_frame(NODE, *frames.decode_control(cluster.to_head.pop(0)[4:]))
    cluster.write()
    assert cluster.service.kv.get(b"", b"k") == b"old"
    cluster.service.kv.put(b"", b"k", b"new", overwrites=True)  # by another one, which may be done by now
    cluster.service._keep()
    cluster.write()
    cluster.return_of_the_head()
    assert cluster.service.kv.get(b"", b"k") == b"new"
    assert [one["existed"] for one in cluster.node.answers_to(client)] == [False]
    cluster.say(other, {**put, "overwrite": False, "rq": 4}, b"kmine")
    cluster.flow()
    assert [one["existed"] for one in cluster.node.answers_to(other)] == [True]


def test_answers_are_kept_until_the_node_has_heard_them(cluster: KeptCluster) -> None:
    client = cluster.driver()
    for number in range(100):
        key = b"%03d" % number
        put = {"t": "kv_put", "space_size": 0, "key_size": 3, "overwrite": True, "rq": number + 1}
        cluster.say(client, put, key + b"v")
        cluster.flow()
    assert len(cluster.node.answers_to(client)) == 100
    assert sum(key.startswith("answer/") for key in cluster.disk.stored) <= 2
    cluster.proxy.client_gone(client)
    cluster.flow()
    assert [key for key in cluster.disk.stored if key.startswith("answer/")] == []


@pytest.mark.parametrize("request_number", [None, 9])
def test_a_kill_that_allows_restarts_happens_once(cluster: KeptCluster, request_number: int | None) -> None:
    client = cluster.driver()
    actor = cluster.create(client, 1, max_restarts=-1)
    cluster.flow()
    worker = cluster.host_and_call(actor, 2)
    cluster.say(client, {"t": "kill_actor", "actor": actor, "no_restart": False, "rq": request_number})
    while cluster.to_head:
        cluster.members.on_frame(NODE, *frames.decode_control(cluster.to_head.pop(0)[4:]))
    cluster.write()  # that, and its answer, are lost on the way
    cluster.to_node.clear()
    assert cluster.node.killed == []
    cluster.return_of_the_head()
    assert cluster.node.killed == [actor]  # as it was recorded
    cluster.proxy.host_died(actor, worker, "it was killed")
    cluster.flow()
    assert cluster.state_of(actor) == ("RESTARTING", "", 1)
    again = cluster.host_and_call(actor, 3)
    assert cluster.node.killed == [actor]
    assert cluster.state_of(actor) == ("ALIVE", again, 1)
    answered = [one["rq"] for one in cluster.node.answers_to(client)]
    assert answered == ([] if request_number is None else [request_number])


def test_who_watched_is_told_what_has_happened_meanwhile(cluster: KeptCluster) -> None:
    client, owner = cluster.driver(1), cluster.driver(2)
    actor = cluster.create(owner, 1)
    cluster.say(client, {"t": "actor_watch", "actor": actor, "rq": None})
    cluster.flow()
    cluster.host_and_call(actor, 3)
    cluster.cut()
    cluster.proxy.client_gone(owner)
    cluster.return_of_the_head()
    assert cluster.node.states_of(client, actor)[-1] == "DEAD"
    assert actor in cluster.node.dead


def test_nobody_is_given_up_before_all_awaited_nodes_are_back_or_dead(cluster: KeptCluster) -> None:
    third = "dd" * nodes.NODE_ID_BYTES
    client = cluster.driver()
    actor = cluster.create(client, 1, detached=True, max_restarts=1)
    cluster.flow()
    worker = cluster.host_and_call(actor, 2)
    cluster.cut()
    cluster.begin(NEXT_HEAD, [NODE, third])
    cluster.link()
    cluster.flow()
    assert cluster.state_of(actor) == ("ALIVE", worker, 0)
    assert cluster.service.table.is_recovering()
    cluster.members.node_gone(third, "it did not come back")
    assert not cluster.service.table.is_recovering()
    assert cluster.state_of(actor) == ("ALIVE", worker, 0)


def test_an_actor_of_a_node_that_does_not_come_back_restarts_elsewhere(cluster: KeptCluster) -> None:
    client = cluster.driver()
    kept_one, lost = cluster.create(client, 1, detached=True, max_restarts=1), cluster.create(client, 2, max_restarts=1)
    cluster.flow()
    cluster.host_and_call(kept_one, 3)
    cluster.host_and_call(lost, 4)
    cluster.cut()
    cluster.begin(NEXT_HEAD, [NODE])
    cluster.head.others = []
    cluster.members.node_gone(NODE, "it did not come back")
    cluster.write()
    assert cluster.state_of(kept_one) == ("RESTARTING", "", 1)
    assert cluster.head.placed == [kept_one]
    assert cluster.state_of(lost)[0] == "DEAD"
    assert {one["status"] for one in cluster.service.jobs_listed()} == {"FAILED"}


def test_numbers_that_a_node_has_for_jobs_are_not_given_by_the_next_head(cluster: KeptCluster) -> None:
    first = cluster.driver(1)
    cluster.return_of_the_head()
    second = cluster.driver(2)
    cluster.flow()
    own, _ = cluster.service.job_begins("d" * 8, 1, None)
    numbers = [cluster.node.jobs_of[first], cluster.node.jobs_of[second], own]
    assert len(set(numbers)) == 3
    assert {one["job_id"] for one in cluster.service.jobs_listed()} == set(numbers)


def test_the_head_may_be_killed_again_while_nodes_come_back(cluster: KeptCluster) -> None:
    client = cluster.driver()
    actor = cluster.create(client, 1)
    cluster.flow()
    worker = cluster.host_and_call(actor, 2)
    cluster.cut()
    cluster.say(client, {"t": "kv_put", "space_size": 0, "key_size": 1, "overwrite": False, "rq": 3}, b"kmine")
    cluster.begin(NEXT_HEAD, [NODE])
    cluster.link()
    cluster.step()
    cluster.cut()
    cluster.begin("ee" * nodes.NODE_ID_BYTES, [NODE])
    cluster.link()
    cluster.flow()
    assert cluster.state_of(actor) == ("ALIVE", worker, 0)
    assert [one["existed"] for one in cluster.node.answers_to(client)] == [False]
    assert not cluster.service.table.is_recovering()


def head_driver(cluster: KeptCluster) -> str:
    here = process(cluster.head.node_id, 1)
    job_id, environment = cluster.service.job_begins(here, 1, {"entrypoint": "program.py"})
    cluster.head.jobs_of[here] = job_id
    cluster.head.knows_job(environment)
    return here


def test_an_actor_of_a_group_waits_for_the_node_of_its_bundle_to_come_back(cluster: KeptCluster) -> None:
    client = cluster.driver()
    cluster.head.has = cluster.head.free = {"CPU": 10_000}
    make_group(cluster, client, [{"CPU": 40_000}])
    cluster.proxy.bundles_reserved(GROUP, 1)
    cluster.flow()
    cluster.cut()
    cluster.begin(NEXT_HEAD, [NODE])
    actor = cluster.create(head_driver(cluster), 1, strategy=in_bundle(0))
    cluster.write()
    assert (cluster.head.placed, cluster.node.placed) == ([], [])
    cluster.node.held = [(GROUP, 1, [0], True)]
    cluster.link()
    cluster.flow()
    assert (cluster.head.placed, cluster.node.placed) == ([], [actor])


def test_an_actor_that_insists_on_a_node_waits_for_it_to_come_back(cluster: KeptCluster) -> None:
    cluster.cut() if cluster.fencing else cluster.link()
    cluster.cut()
    cluster.begin(NEXT_HEAD, [NODE])
    actor = cluster.create(head_driver(cluster), 1, strategy={"node_id": NODE, "soft": False})
    cluster.write()
    assert (cluster.head.placed, cluster.node.placed) == ([], [])
    (listed,) = cluster.service.listed()
    assert "has not come back since the head started again" in cluster.members.place_of(listed)["reason"]
    cluster.link()
    cluster.flow()
    assert (cluster.head.placed, cluster.node.placed) == ([], [actor])


def test_an_actor_that_insists_on_a_node_hears_that_it_does_not_come_back(cluster: KeptCluster) -> None:
    cluster.cut() if cluster.fencing else cluster.link()
    cluster.cut()
    cluster.begin(NEXT_HEAD, [NODE])
    actor = cluster.create(head_driver(cluster), 1, strategy={"node_id": NODE, "soft": False})
    cluster.write()
    cluster.head.others = []
    cluster.members.node_gone(NODE, "it did not come back")
    cluster.write()
    assert cluster.head.placed == [actor]  # whose agent says that it can never be placed


def test_what_died_with_a_preempted_node_that_did_not_come_back_counts_against_no_restarts(
    cluster: KeptCluster,
) -> None:
    client = cluster.driver()
    once, often = (cluster.create(client, number, detached=True, max_restarts=number - 1) for number in (1, 2))
    cluster.flow()
    cluster.host_and_call(once, 3)
    cluster.host_and_call(often, 4)
    cluster.cut()
    cluster.begin(NEXT_HEAD, [NODE])
    drained = {"reason": "preemption", "message": "spot", "deadline_s": None, "waits_for": ""}
    cluster.head.others = [{"node_id": NODE, "alive": False, "reason": "it was drained", "draining": drained}]
    cluster.members.node_gone(NODE, "it was drained")
    cluster.write()
    listed = {one["actor"]: one for one in cluster.service.listed()}
    assert (listed[once]["state"], listed[once]["cause"]) == ("DEAD", "preempted")
    assert "it was drained" in listed[once]["reason"]
    assert (listed[often]["state"], listed[often]["restarts"], listed[often]["preemptions"]) == ("RESTARTING", 1, 1)


def test_a_head_that_ends_before_it_has_given_up_a_dead_node_leaves_that_to_the_next_one(cluster: KeptCluster) -> None:
    """That the node is dead was kept, and not yet what became of its actors: nobody is awaited."""
    client = cluster.driver()
    actor = cluster.create(client, 1, detached=True, max_restarts=1)
    cluster.flow()
    cluster.host_and_call(actor, 2)
    cluster.cut()
    drained = {"reason": "preemption", "message": "", "deadline_s": None, "waits_for": ""}
    cluster.begin(NEXT_HEAD, [], [{"node_id": NODE, "alive": False, "reason": "it was drained", "draining": drained}])
    cluster.write()
    (listed,) = cluster.service.listed()
    assert (listed["state"], listed["restarts"], listed["preemptions"]) == ("RESTARTING", 1, 1)


def test_answers_to_processes_of_a_node_that_never_came_back_are_forgotten(cluster: KeptCluster) -> None:
    """Before: they were kept for ever."""
    client = cluster.driver()
    cluster.flow()
    put = {"t": "kv_put", "space_size": 0, "key_size": 1, "overwrite": True, "rq": 3}
    cluster.say(client, put, b"kv")
    while cluster.to_head:
        cluster.members.on_frame(NODE, *frames.decode_control(cluster.to_head.pop(0)[4:]))
    cluster.write()
    cluster.cut()
    assert [key for key in cluster.disk.stored if key.startswith("answer/")]
    cluster.begin(NEXT_HEAD, [NODE])
    cluster.head.others = []
    cluster.members.node_gone(NODE, "it did not come back")
    cluster.write()
    assert [key for key in cluster.disk.stored if key.startswith("answer/")] == []


def test_answers_are_kept_for_who_came_back_and_for_who_has_come_since(cluster: KeptCluster) -> None:
    third = "dd" * nodes.NODE_ID_BYTES
    client, other = cluster.driver(1), cluster.driver(2)
    cluster.flow()
    put = {"t": "kv_put", "space_size": 0, "key_size": 1, "overwrite": True, "rq": 3}
    cluster.say(client, put, b"kv")
    while cluster.to_head:
        cluster.members.on_frame(NODE, *frames.decode_control(cluster.to_head.pop(0)[4:]))
    cluster.write()
    cluster.cut()
    cluster.begin(NEXT_HEAD, [NODE, third])
    cluster.link()
    while cluster.to_head:
        cluster.members.on_frame(NODE, *frames.decode_control(cluster.to_head.pop(0)[4:]))
    cluster.say(other, {**put, "rq": 4}, b"kw")
    while cluster.to_head:
        cluster.members.on_frame(NODE, *frames.decode_control(cluster.to_head.pop(0)[4:]))
    cluster.members.node_gone(third, "it did not come back")
    cluster.write()
    assert sum(key.startswith("answer/") for key in cluster.disk.stored) == 2
    cluster.flow()
    assert [one["rq"] for one in cluster.node.answers_to(client) + cluster.node.answers_to(other)] == [3, 4]


def test_a_drain_that_is_said_again_to_the_next_head_keeps_its_deadline(cluster: KeptCluster) -> None:
    """Before: it began anew, as what is said is how much time is left."""
    cluster.link()
    asked: list[dict[str, Any]] = []
    message = {"t": "drain_node", "node": NODE, "reason": "preemption", "message": "", "deadline_s": 60.0, "rq": 4}
    cluster.proxy.ask_to_drain("tool", message)
    cluster.proxy.ask_to_drain("tool", {**message, "deadline_s": None, "rq": 5})
    cluster.proxy.ask_to_drain("tool", {**message, "deadline_s": 5.0, "rq": 6})
    cluster.cut()
    cluster.node.clock_s = 12.5
    cluster.begin(NEXT_HEAD, [NODE])
    cluster.head.drain_node = lambda message, _tell: asked.append(message)  # type: ignore[attr-defined]
    cluster.link()
    cluster.flow()
    assert [one["deadline_s"] for one in asked] == [47.5, None, 0.0]
