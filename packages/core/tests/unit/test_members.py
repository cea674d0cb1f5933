"""A head's control service and the proxy of a node, with a connection between them that breaks."""

from __future__ import annotations

import random
from typing import Any

import pytest

from umbel._agent import control_proxy
from umbel._base import nodes
from umbel._control import actors, jobs, members, service
from umbel._scheduling import policies
from umbel._wire import channels, frames, node_messages

Message = dict[str, Any]
HEAD, NODE = "aa" * nodes.NODE_ID_BYTES, "bb" * nodes.NODE_ID_BYTES
FOUR = {"CPU": 40_000}
FACTS = {"entrypoint": "program.py", "log_to_driver": False}


def process(node_id: str, number: int) -> str:
    return f"{number:08x}" + node_id[: 2 * nodes.TAG_BYTES] + f"{number:012x}"


class Daemon:
    """What both services need of theirs: it notes what it is told to do."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.told: list[tuple[str, Message, bytes]] = []
        self.placed: list[str] = []
        self.sources: dict[str, str] = {}
        self.killed: list[str] = []
        self.dead: dict[str, Message] = {}
        self.jobs: dict[str, Any] = {}
        self.jobs_of: dict[str, str] = {}
        self.control: Any = None
        self.has: Message = {"CPU": 40_000}
        self.free: Message = {"CPU": 40_000}
        self.others: list[Message] = []  # the dead that are remembered
        self.load: Message = {"tasks": [], "idle": 1}
        self.clock_s = 0.0
        self.orders: list[tuple[Any, ...]] = []
        self.places: list[Message] = []
        self.held: list[Any] = []

    def now_s(self) -> float:
        return self.clock_s

    time_s = now_s

    def send(self, client: str, message: Message, body: bytes = b"") -> None:
        self.told.append((client, message, body))

    def reply(self, client: str, request: int | None, message: Message, body: bytes = b"") -> None:
        if request is not None:
            self.send(client, {"t": "reply", "rq": request, **message}, body)

    def refuse(self, client: str, request: int | None, kind: str, text: str) -> None:
        self.reply(client, request, {"error": {"kind": kind, "text": text}})

    def late_s(self, _actor: str) -> float:
        return 0.0

    def launches_for(self, _lacks: Any) -> str:
        return ""

    def own_load(self) -> Message:
        return self.load

    def placement_policy(self) -> policies.HybridPolicy:
        return policies.HYBRID

    def as_seen(self) -> Message:
        return {"node_id": self.node_id, "total": self.has, "available": self.free, "labels": {}}

    def other_nodes(self) -> list[Message]:
        return self.others

    def job_of(self, client: str) -> tuple[str, Any]:
        job_id = self.jobs_of.get(client, "")
        return job_id, self.jobs.get(job_id)

    def job_environment(self, job_id: str) -> Any:
        return self.jobs.get(job_id)

    def knows_job(self, environment: Any) -> None:
        self.jobs[environment.id] = environment

    def jobs_of_processes(self) -> dict[str, str]:
        return self.jobs_of

    def pid_of(self, worker: str) -> int:
        return int(worker[:8], 16)

    def place_actor(self, spec: Any, source: str = "") -> None:
        self.placed.append(spec.actor)
        self.sources[spec.actor] = source

    def release_actor(self, actor: str, _grace_s: float | None) -> None:
        self.kill_actor(actor, "")

    def kill_actor(self, actor: str, _reason: str, worker: str = "") -> None:
        self.killed.append(worker or actor)
        if actor in self.placed and not worker:
            self.placed.remove(actor)

    def actor_dead(self, actor: str, facts: Message) -> None:
        self.dead[actor] = facts

    def warn(self, _text: str) -> None:
        """Nobody is."""

    def nodes_seen(self) -> list[Any]:
        raise AssertionError("the members see the nodes")

    def driver_of(self, _client: str) -> str:
        return ""

    def reserve_bundles(self, _node: str, group: str, attempt: int, wanted: Any, _depth: int, _job: list[Any]) -> None:
        self.orders.append(("reserve", group, attempt, {index: dict(one) for index, one in wanted.items()}))

    def commit_bundles(self, _node: str, group: str, attempt: int) -> None:
        self.orders.append(("commit", group, attempt))

    def cancel_bundles(self, _node: str, group: str, attempt: int) -> None:
        self.orders.append(("cancel", group, attempt))

    def drop_group(self, _node: str, group: str, _reason: str) -> None:
        self.orders.append(("drop", group))

    def held_bundles(self) -> list[Any]:
        return self.held

    def tell_places(self, _node: str, message: Message) -> None:
        self.places.append(message)

    @property
    def infeasible_timeout_s(self) -> float | None:
        return None

    def answer(self, what: str, _about: str) -> Any:
        return {"actors": self.control.listed, "jobs": self.control.jobs_listed}[what]()

    def answer_query(self, client: str, message: Message) -> None:
        self.reply(client, message["rq"], {"result": "own"})

    def states_of(self, client: str, actor: str) -> list[str]:
        return [
            one["state"] for to, one, _ in self.told if to == client and one["t"] == "actor_state" and one["actor"] == actor
        ]  # fmt: skip

    def answers_to(self, client: str) -> list[Message]:
        return [one for to, one, _ in self.told if to == client and one["t"] == "reply"]


class Cluster:
    """A head and a node. What is said lies in `ways` until it `flow`s; what lies there when a connection breaks is lost."""

    def __init__(self) -> None:
        self.head, self.node = Daemon(HEAD), Daemon(NODE)
        self.members = members.Members(self.head, nodes.tag_of_node(HEAD))
        self.service = self.head.control = service.ActorService(self.members)
        self.members.serve(self.service)
        self.proxy = self.node.control = control_proxy.ControlProxy(self.node)
        self.to_head: list[bytes] = []
        self.to_node: list[bytes] = []
        self.is_linked = False
        self.facts: dict[str, tuple[Message, Message]] = {
            NODE: ({"resources": FOUR, "labels": {}}, {"available": FOUR})
        }
        self.link()

    def sees(self, node_id: str, free: Message, has: Message | None = None) -> None:
        """The head, of another node."""
        self.facts[node_id] = {"resources": has or free, "labels": {}}, {"available": free}
        self.enter(node_id)

    def enter(self, node_id: str) -> members.Member:
        """It is a member, and says how it is."""
        member = self.members.entered(node_id)
        self.members.node_said(node_id, *self.facts[node_id])
        return member

    def link(self) -> None:
        """Both sides hear first what the other has heard."""
        self.cut()
        self.is_linked = True
        member = self.enter(NODE)
        heard, job_ids, heard_there = member.channel.heard, list(member.job_ids), self.proxy.channel.heard
        self.members.linked(NODE, heard_there, lambda *said: self.to_node.append(frames.encode_control(*said)))
        self.proxy.linked(heard, job_ids, lambda *said: self.to_head.append(frames.encode_control(*said)))

    def cut(self) -> None:
        self.is_linked = False
        self.members.unlinked(NODE)
        self.proxy.unlinked()
        self.to_head.clear()
        self.to_node.clear()

    def step(self, chance: random.Random | None = None) -> bool:
        """One message arrives, if one can."""
        ways = [way for way in (self.to_head, self.to_node) if way]
        if not ways:
            return False
        way = chance.choice(ways) if chance is not None else ways[0]
        message, body = frames.decode_control(way.pop(0)[4:], depth_max=node_messages.DEPTH_MAX)
        if way is self.to_head:
            self.members.on_frame(NODE, message, body)
        else:
            self.proxy.on_frame(message, body)
        self.service.table.check()
        return True

    def flow(self) -> None:
        while self.step():
            pass

    def driver(self, number: int = 1) -> str:
        """One of the node."""
        name = process(NODE, number)
        job_id, environment = self.proxy.job_begins(name, number, FACTS)
        self.node.jobs_of[name] = job_id
        self.node.knows_job(environment)
        return name

    def create(self, client: str, number: int, *, name: str = "", request: int | None = None, **more: Any) -> str:
        actor = client + f"{number:016x}"
        message = {
            "t": "create_actor", "actor": actor, "name": name, "namespace": "ns", "get_if_exists": False, "detached": False,
            "max_restarts": 0, "placement": {}, "running": {}, "env": None, "strategy": None, "label_selectors": None,
            "class_name": "C", "meta_size": 4, "depth": 0, "lacks_arguments": False, "call_site": "", "rq": request, **more,
        }  # fmt: skip
        self.say(client, message, b"metacall")
        self.say(client, {"t": "actor_watch", "actor": actor, "rq": None})
        return actor

    def say(self, client: str, message: Message, body: bytes = b"") -> None:
        """A process of either node says this."""
        control = self.proxy if client[8:20] == NODE[:12] else self.service
        control.on[message["t"]](client, "ns", message, body)

    def host(self, actor: str, number: int) -> str:
        """The node has found a worker."""
        self.node.placed.remove(actor)
        worker = process(NODE, number)
        self.proxy.hosted(actor, worker, f"/{worker}", {"GPU": ("0",)})
        return worker

    def ready(self, actor: str, worker: str) -> None:
        self.say(worker, {"t": "actor_ready", "actor": actor, "repr_name": "", "rq": None})


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_an_actor_of_a_nodes_driver_lives_there_and_is_the_heads(cluster: Cluster) -> None:
    driver = cluster.driver()
    actor = cluster.create(driver, 1, name="n", request=7)
    cluster.flow()
    assert cluster.service.table.find("n", "ns") == actor
    assert (cluster.node.placed, cluster.head.placed) == ([actor], [])
    assert cluster.node.answers_to(driver)[0]["existing"] is False
    worker = cluster.host(actor, 9)
    cluster.flow()
    (created,) = [(one, body) for to, one, body in cluster.node.told if to == worker]
    assert (created[0]["t"], created[0]["accelerators"], created[1]) == ("create", {"GPU": ["0"]}, b"call")
    cluster.ready(actor, worker)
    cluster.flow()
    assert cluster.node.states_of(driver, actor)[-1] == "ALIVE"
    other = process(HEAD, 3)
    cluster.say(other, {"t": "actor_watch", "actor": actor, "rq": None})
    assert cluster.head.states_of(other, actor) == ["ALIVE"]
    assert cluster.members.where(worker) == NODE
    assert cluster.members.place_of(cluster.service.facts(actor)) == {"node_id": NODE, "pid": 9}
    cluster.say(other, {"t": "kill_actor", "actor": actor, "no_restart": True, "rq": 1})
    cluster.flow()
    assert cluster.node.killed == [actor]
    assert cluster.node.states_of(driver, actor)[-1] == "DEAD"
    assert cluster.node.dead[actor]["node_id"] == NODE
    cluster.proxy.host_died(actor, worker, "killed")
    cluster.flow()
    assert cluster.members._places.placed == {}
    assert cluster.proxy.listed() == []


def test_who_owns_actors_is_known_at_once(cluster: Cluster) -> None:
    driver = cluster.driver()
    assert not cluster.proxy.owns_actors(driver)
    plain = cluster.create(driver, 1)
    assert cluster.proxy.owns_actors(driver)
    cluster.flow()
    cluster.say(driver, {"t": "kill_actor", "actor": plain, "no_restart": True, "rq": None})
    cluster.flow()
    assert not cluster.proxy.owns_actors(driver)
    detached = cluster.create(driver, 2, detached=True, lacks_arguments=True)
    assert cluster.proxy.owns_actors(driver)
    cluster.say(driver, {"t": "actor_arguments", "actor": detached, "rq": None}, b"call")
    assert not cluster.proxy.owns_actors(driver)


def test_a_name_that_is_taken_leaves_nobody_an_owner(cluster: Cluster) -> None:
    driver = cluster.driver()
    cluster.create(process(HEAD, 1), 1, name="n", request=1)
    cluster.create(driver, 2, name="n", request=2)
    cluster.create(driver, 3, name="n", request=3, get_if_exists=True)
    cluster.flow()
    refused, found = cluster.node.answers_to(driver)
    assert refused["error"]["kind"] == "exists"
    assert found["existing"] is True
    assert not cluster.proxy.owns_actors(driver)


def test_an_actor_that_ends_before_it_has_a_worker_is_forgotten(cluster: Cluster) -> None:
    driver = cluster.driver()
    actor = cluster.create(driver, 1)
    cluster.flow()
    cluster.say(driver, {"t": "actor_unreferenced", "actor": actor, "rq": None})
    cluster.flow()
    assert (cluster.node.placed, cluster.proxy.listed(), cluster.members._places.placed) == ([], [], {})


def test_a_worker_that_was_found_too_late_is_killed(cluster: Cluster) -> None:
    driver = cluster.driver()
    actor = cluster.create(driver, 1)
    cluster.flow()
    worker = cluster.host(actor, 9)
    cluster.say(driver, {"t": "actor_unreferenced", "actor": actor, "rq": None})
    cluster.service.on["kill_actor"](process(HEAD, 1), "ns", {"actor": actor, "no_restart": True, "rq": None}, b"")
    cluster.flow()
    assert actor in cluster.node.killed
    cluster.proxy.host_died(actor, worker, "killed")
    cluster.flow()
    assert (cluster.proxy.listed(), cluster.members._places.placed) == ([], {})


def test_a_node_that_dies_takes_its_owners_and_gives_up_its_hosts(cluster: Cluster) -> None:
    driver, here = cluster.driver(), process(HEAD, 1)
    cluster.service.job_begins(here, 1, FACTS)
    plain = cluster.create(driver, 1)
    lasting = cluster.create(driver, 2, detached=True, max_restarts=1)
    sought = cluster.create(driver, 3, detached=True)
    cluster.flow()
    cluster.say(here, {"t": "actor_watch", "actor": lasting, "rq": None})
    for number, actor in ((8, plain), (9, lasting)):
        cluster.ready(actor, cluster.host(actor, number))
    cluster.flow()
    cluster.members.node_gone(NODE, "it was killed")
    assert cluster.head.placed == [lasting, sought]
    assert cluster.head.states_of(here, lasting) == ["PENDING", "ALIVE", "RESTARTING"]
    found = {one["actor"]: one for one in cluster.service.listed()}
    assert (found[plain]["state"], found[lasting]["reason"]) == ("DEAD", "its node bbbbbbbb is dead: it was killed")
    assert [job.status for job in cluster.service.jobs.listed() if job.driver == driver] == [jobs.FAILED]
    cluster.members.send(driver, {"t": "warn", "text": "nobody hears it"})
    cluster.service.table.check()


def test_jobs_have_numbers_of_their_own_without_asking(cluster: Cluster) -> None:
    here = cluster.service.job_begins(process(HEAD, 1), 1, FACTS)[0]
    cluster.cut()
    for number in range(1, members.JOB_IDS + 1):
        assert cluster.proxy.driver_trouble() == ""
        cluster.driver(number)
    assert "has to wait for the head of its cluster to give it more" in cluster.proxy.driver_trouble()
    cluster.link()
    cluster.flow()
    assert cluster.proxy.driver_trouble() == ""
    cluster.driver(members.JOB_IDS + 1)
    cluster.flow()
    found = [job.id for job in cluster.service.jobs.listed()]
    assert len(set(found)) == members.JOB_IDS + 2
    assert here in found


def test_an_actor_of_a_node_that_is_cut_off_is_waited_for(cluster: Cluster) -> None:
    """Its handle has come by another way, and says that there is one."""
    driver, here = cluster.driver(), process(HEAD, 1)
    cluster.flow()
    cluster.cut()
    actor = cluster.create(driver, 1)
    cluster.say(here, {"t": "actor_watch", "actor": actor, "rq": None})
    cluster.head.clock_s = members.LATE_S
    cluster.service.tick()
    assert cluster.head.states_of(here, actor) == []
    cluster.link()
    cluster.flow()
    assert cluster.head.states_of(here, actor) == ["PENDING"]


def test_an_actor_that_nobody_has_created_is_dead(cluster: Cluster) -> None:
    here = process(HEAD, 1)
    for node_id, late_s in ((HEAD, 0.0), (NODE, members.LATE_S)):
        actor = process(node_id, 5) + "00" * 8
        began_s = cluster.head.clock_s
        cluster.say(here, {"t": "actor_watch", "actor": actor, "rq": None})
        cluster.head.clock_s = began_s + late_s + actors.UNKNOWN_GRACE_S
        cluster.service.tick()
        assert cluster.head.states_of(here, actor) == ["DEAD"]


def test_too_much_that_waits_for_the_head_is_refused(cluster: Cluster) -> None:
    driver = cluster.driver()
    cluster.flow()
    cluster.cut()
    body = bytes(control_proxy.KEPT_BYTES_MAX // 2)
    put = {"t": "kv_put", "space_size": 0, "key_size": 1, "overwrite": True}
    for request in (1, 2, 3):
        cluster.say(driver, {**put, "rq": request}, body)
    (refused,) = cluster.node.answers_to(driver)
    assert (refused["rq"], refused["error"]["kind"]) == (3, "unavailable")
    assert "waits for a connection to the head, to tell it" in refused["error"]["text"]
    actor = cluster.create(driver, 1)
    assert cluster.node.states_of(driver, actor) == ["DEAD"]
    cluster.link()
    cluster.flow()
    cluster.say(driver, {**put, "rq": 4}, b"k")
    cluster.flow()
    assert [one["rq"] for one in cluster.node.answers_to(driver) if "existed" in one] == [1, 2, 4]


def test_questions_about_the_cluster_are_the_heads(cluster: Cluster) -> None:
    driver = cluster.driver()
    actor = cluster.create(driver, 1)
    cluster.say(driver, {"t": "query", "what": "actors", "about": "", "rq": 1})
    cluster.say(driver, {"t": "query", "what": "workers", "about": "", "rq": 2})
    cluster.flow()
    own, found = cluster.node.answers_to(driver)
    assert (own["rq"], own["result"]) == (2, "own")
    assert [one["actor"] for one in found["result"]] == [actor]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_breaks_each_thing_is_done_once(seed: int) -> None:
    """Actors are created, hosted, ready, lost and killed while connections break at any moment."""
    chance = random.Random(seed)
    cluster = Cluster()
    driver = cluster.driver()
    made: list[str] = []
    hosts: dict[str, str] = {}
    calls: dict[str, int] = {}  # constructors, by actor
    killed: set[str] = set()
    workers = iter(range(100, 10_000))
    seen = 0

    def constructors() -> None:
        nonlocal seen
        for to, message, _ in cluster.node.told[seen:]:
            if message["t"] == "create":
                calls[message["actor"]] = calls.get(message["actor"], 0) + 1
                if hosts.get(message["actor"]) == to:
                    cluster.ready(message["actor"], to)
        seen = len(cluster.node.told)

    def hosting() -> None:
        for actor in list(cluster.node.placed):
            hosts[actor] = cluster.host(actor, next(workers))

    def ending() -> None:
        for actor in cluster.node.killed:
            if actor in hosts:
                cluster.proxy.host_died(actor, hosts.pop(actor), "killed")
        cluster.node.killed.clear()

    for _ in range(200):
        what = chance.random()
        if what < 0.1:
            made.append(cluster.create(driver, len(made), max_restarts=chance.choice((0, 2))))
        elif what < 0.15 and made:
            actor = chance.choice(made)
            killed.add(actor)
            cluster.say(driver, {"t": "kill_actor", "actor": actor, "no_restart": True, "rq": None})
        elif what < 0.2 and hosts:
            actor = chance.choice(sorted(hosts))
            cluster.proxy.host_died(actor, hosts.pop(actor), "it crashed")
        elif what < 0.25:
            cluster.cut()
        elif what < 0.3:
            cluster.link()
        elif what < 0.6:
            cluster.step(chance)
        else:
            chance.choice((constructors, hosting, ending))()
    cluster.link()
    for _ in range(20):
        cluster.flow()
        for one in (hosting, constructors, ending):
            one()
    cluster.flow()
    found = {one["actor"]: one for one in cluster.service.listed()}
    assert set(found) == set(made)
    for actor in made:
        one = found[actor]
        assert one["state"] == ("ALIVE" if actor in hosts else "DEAD")
        assert calls.get(actor, 0) <= one["restarts"] + 1
        assert not (actor in killed and actor in hosts)
        assert cluster.node.states_of(driver, actor)[-1] == one["state"]
    assert {hosted["actor"] for hosted in cluster.proxy.listed()} == set(hosts) == set(cluster.members._places.placed)


def test_an_actor_without_room_with_its_creator_goes_where_there_is_some(cluster: Cluster) -> None:
    driver, here = cluster.driver(), process(HEAD, 1)
    cluster.head.jobs_of[here], environment = cluster.service.job_begins(here, 1, FACTS)
    cluster.head.knows_job(environment)
    wanted = {"placement": {"GPU": 10_000}, "running": {"GPU": 10_000}}
    cluster.sees(NODE, {"CPU": 40_000, "GPU": 10_000})
    first, second = cluster.create(here, 1, **wanted), cluster.create(here, 2, **wanted)
    cluster.head.free = cluster.head.has = {"GPU": 20_000}
    third = cluster.create(here, 3, **wanted)
    cluster.flow()
    assert (cluster.node.placed, cluster.head.placed) == ([first, second], [third])  # the second waits there
    assert cluster.node.jobs[environment.id].facts == FACTS
    cluster.ready(first, cluster.host(first, 9))
    cluster.flow()
    assert cluster.head.states_of(here, first)[-1] == "ALIVE"
    fourth = cluster.create(driver, 4, **wanted)
    cluster.flow()
    assert cluster.head.placed == [third, fourth]
    place = cluster.members.place_of(cluster.service.facts(second))
    assert place == {"reason": f"node {NODE} looks for a worker for it", "sought_on": NODE}


def test_a_worker_that_the_nodes_last_beat_does_not_count_takes_its_room_all_the_same(cluster: Cluster) -> None:
    """Before: an actor that was created within a second of another one waited at a full node, while another was idle."""
    one, other = {"placement": {"CPU": 10_000}, "running": {"CPU": 10_000}}, "cc" * nodes.NODE_ID_BYTES
    cluster.head.has = cluster.head.free = {}
    cluster.sees(NODE, {"CPU": 20_000})
    cluster.sees(other, {"CPU": 20_000})
    said: list[Message] = []
    cluster.members.linked(other, 0, lambda message, _body: said.append(message["message"]))
    driver = cluster.driver()
    first, second = cluster.create(driver, 1, **one), cluster.create(driver, 2, **one)
    cluster.flow()
    assert cluster.node.placed == [first, second]
    cluster.host(first, 8)
    cluster.host(second, 9)
    cluster.flow()
    third = cluster.create(driver, 3, **one)
    cluster.flow()
    assert (cluster.node.placed, [told["actor"] for told in said if told["t"] == "place_actor"]) == ([], [third])
    cluster.sees(NODE, {"CPU": 10_000}, {"CPU": 20_000})  # it has counted both, and one of them has ended
    fourth = cluster.create(driver, 4, **one)
    cluster.flow()
    assert cluster.node.placed == [fourth]


def test_an_actor_that_looks_for_a_worker_on_the_head_takes_its_room(cluster: Cluster) -> None:
    """Before: all that were created before the first had a worker waited for the head, while another node was idle."""
    one = {"placement": {"CPU": 10_000}, "running": {"CPU": 10_000}}
    cluster.head.has = cluster.head.free = {"CPU": 20_000}
    here = process(HEAD, 1)
    job_id, environment = cluster.service.job_begins(here, 1, FACTS)
    cluster.head.jobs_of[here], cluster.head.jobs[job_id] = job_id, environment
    first, second, third = (cluster.create(here, number, **one) for number in (1, 2, 3))
    cluster.flow()
    assert (cluster.head.placed, cluster.node.placed) == ([first, second], [third])
    cluster.head.free = {"CPU": 0}
    cluster.service.hosted(first, process(HEAD, 8), "/8", {})
    cluster.service.hosted(second, process(HEAD, 9), "/9", {})
    cluster.head.free = {"CPU": 10_000}  # the first has ended
    fourth = cluster.create(here, 4, **one)
    assert cluster.head.placed == [first, second, fourth]


def test_an_actor_that_waits_at_a_full_node_goes_where_something_has_ended(cluster: Cluster) -> None:
    """Before: it waited there for ever, unless a node came."""
    one, other = {"placement": {"CPU": 10_000}, "running": {"CPU": 10_000}}, "cc" * nodes.NODE_ID_BYTES
    cluster.head.has, cluster.head.free = {"CPU": 10_000}, {}
    cluster.facts[NODE] = {"resources": {"CPU": 10_000}, "labels": {}}, {"available": {}}
    cluster.link()
    cluster.sees(other, {}, {"CPU": 10_000})
    said: list[Message] = []
    cluster.members.linked(other, 0, lambda message, _body: said.append(message["message"]))
    driver = cluster.driver()
    first, second = cluster.create(driver, 1, **one), cluster.create(driver, 2, **one)
    cluster.flow()
    assert cluster.node.placed == [first, second], "nothing is free anywhere"
    cluster.sees(other, {"CPU": 10_000})
    cluster.flow()
    assert [(told["t"], told["actor"]) for told in said] == [("place_actor", first)], "there is room for one"
    assert (cluster.node.placed, cluster.node.killed) == ([second], [first])
    cluster.sees(other, {"CPU": 10_000})  # it has heard of the order by now, and has found no worker yet
    cluster.head.free = {"CPU": 10_000}
    cluster.members.look_at_own()
    cluster.flow()
    assert (cluster.node.placed, cluster.head.placed) == ([], [second])
    cluster.sees(other, {}, {"CPU": 10_000})
    cluster.sees(other, {"CPU": 10_000})
    cluster.flow()
    assert (len(said), cluster.head.placed) == (1, [second]), "each has a place"


def test_better_places_are_looked_for_in_a_part_of_the_time(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many actors wait, and however often nodes say that something has ended."""
    looked: list[float] = []

    def place_anew() -> None:
        looked.append(cluster.head.clock_s)
        cluster.head.clock_s += 0.1

    cluster.create(cluster.driver(), 1, placement={"GPU": 10_000}, running={"GPU": 10_000})
    cluster.flow()
    monkeypatch.setattr(cluster.members._places, "place_anew", place_anew)
    for free in range(1, 60):
        cluster.sees(NODE, {"CPU": free * 100}, FOUR)
        cluster.head.clock_s += 0.1
    assert looked == pytest.approx([0.0, 2.1, 4.3])


def test_what_no_node_can_host_goes_to_one_that_comes(cluster: Cluster) -> None:
    driver = cluster.driver()
    wanted = {"placement": {"GPU": 10_000}, "running": {"GPU": 10_000}}
    actor = cluster.create(driver, 1, **wanted)
    waiting = cluster.create(driver, 2)
    cluster.flow()
    assert cluster.node.placed == [actor, waiting]
    cluster.head.has = cluster.head.free = {"GPU": 10_000}
    cluster.members.linked(NODE, 0, lambda *_said: None)  # any that comes
    cluster.link()
    cluster.flow()
    assert (cluster.node.placed, cluster.node.killed, cluster.head.placed) == ([waiting], [actor], [actor])
    assert [hosted["actor"] for hosted in cluster.proxy.listed()] == [waiting]
    cluster.service.hosted(actor, process(HEAD, 9), "/9", {})
    assert cluster.head.told[-1][1]["t"] == "create"


def test_a_worker_found_where_the_actor_is_no_more_is_not_its_host(cluster: Cluster) -> None:
    actor = cluster.create(cluster.driver(), 1, placement={"GPU": 10_000}, running={"GPU": 10_000})
    cluster.flow()
    worker = cluster.host(actor, 9)
    cluster.head.has = cluster.head.free = {"GPU": 10_000}
    cluster.link()  # what it has said before comes after the head's order
    cluster.flow()
    assert cluster.head.placed == [actor]
    assert cluster.node.killed == [actor]
    cluster.proxy.host_died(actor, worker, "killed")
    cluster.flow()
    assert cluster.service.facts(actor)["state"] == "PENDING"
    assert not [one for to, one, _ in cluster.node.told if to == worker]


def test_what_waits_where_its_node_died_goes_to_the_next_that_comes(cluster: Cluster) -> None:
    here = process(HEAD, 1)
    cluster.head.jobs_of[here], environment = cluster.service.job_begins(here, 1, FACTS)
    cluster.head.knows_job(environment)
    cluster.sees(NODE, {"GPU": 10_000})
    actor = cluster.create(here, 1, placement={"GPU": 10_000}, running={"GPU": 10_000}, max_restarts=1)
    cluster.flow()
    cluster.ready(actor, cluster.host(actor, 9))
    cluster.flow()
    cluster.members.node_gone(NODE, "it was killed")
    assert cluster.head.placed == [actor]
    other = "cc" * nodes.NODE_ID_BYTES
    said: list[Message] = []
    cluster.sees(other, {"GPU": 10_000})
    cluster.members.linked(other, 0, lambda message, _body: said.append(message["message"]))
    assert [(one["t"], one["actor"]) for one in said] == [("place_actor", actor)]
    assert (cluster.head.placed, cluster.head.killed) == ([], [actor])


def test_whatever_a_process_may_say_the_head_takes(cluster: Cluster) -> None:
    """What is passed on is wrapped, and a frame that a side does not take comes again with each connection."""
    env: Message = {}
    for _ in range(frames.DEPTH_MAX - 2):
        env = {"a": env}
    actor = process(NODE, 1) + "00" * 8
    message, _body = frames.decode_control(
        frames.encode_control({"t": "create_actor", "actor": actor, "env": env, "x": ["["] * 2 * frames.DEPTH_MAX})[4:]
    )
    created = cluster.create(cluster.driver(), 1, env=message["env"], x=message["x"])
    cluster.flow()
    assert cluster.node.placed == [created]


def test_labels_that_nobody_can_read_end_the_actor_and_nothing_else(cluster: Cluster) -> None:
    driver = cluster.driver()
    actor = cluster.create(driver, 1, label_selectors=[[["zone", "in("]]])
    cluster.flow()
    assert cluster.node.states_of(driver, actor) == ["DEAD"]
    assert "must be 'v', '!v'" in cluster.service.listed()[0]["reason"]


GROUP = "ab" * 18


def make_group(cluster: Cluster, driver: str, bundles: list[Message], *, detached: bool = False) -> None:
    cluster.say(
        driver,
        {
            "t": "create_group", "group": GROUP, "name": "", "namespace": "ns", "bundles": bundles, "strategy": "PACK",
            "detached": detached, "label_selectors": [], "soft_target": "", "actor": "", "depth": 0, "job": "", "rq": 1,
        },
    )  # fmt: skip
    cluster.flow()


def in_bundle(index: int) -> Message:
    return {"placement_group": GROUP, "bundle_index": index, "captures": False}


def test_bundles_are_reserved_and_committed_on_other_nodes(cluster: Cluster) -> None:
    driver = cluster.driver()
    cluster.head.has = cluster.head.free = {"CPU": 10_000}
    make_group(cluster, driver, [{"CPU": 40_000}])
    assert cluster.node.orders == [("reserve", GROUP, 1, {0: {"CPU": 40_000}})]
    cluster.node.free = {"CPU": 0}
    cluster.proxy.bundles_reserved(GROUP, 1)
    cluster.flow()
    assert cluster.node.orders[1:] == [("commit", GROUP, 1)]
    (listed,) = cluster.service.listed_groups("")
    assert (listed["state"], listed["nodes"]) == ("CREATED", (NODE,))
    # What the head had heard of the node before is older than what it has said with its bundles.
    assert not cluster.members.node_seen(NODE).available
    cluster.sees(NODE, {"CPU": 20_000}, {"CPU": 40_000})
    assert dict(cluster.members.node_seen(NODE).available) == {"CPU": 20_000}
    cluster.say(driver, {"t": "remove_group", "group": GROUP, "rq": 2})
    cluster.flow()
    assert cluster.node.orders[2:] == [("drop", GROUP)]
    assert not cluster.members.node_seen(NODE).available  # it has said so with that


def test_a_node_that_gave_bundles_back_gets_what_waits(cluster: Cluster) -> None:
    """Before its next beat, which may say what the one before the bundles has said."""
    driver = cluster.driver()
    cluster.head.has = cluster.head.free = {"CPU": 10_000}
    make_group(cluster, driver, [{"CPU": 40_000}])
    cluster.node.free = {"CPU": 0}
    cluster.proxy.bundles_reserved(GROUP, 1)
    cluster.flow()
    cluster.node.free = {"CPU": 40_000}
    cluster.say(driver, {"t": "remove_group", "group": GROUP, "rq": 2})
    cluster.flow()
    assert dict(cluster.members.node_seen(NODE).available) == {"CPU": 40_000}


def test_a_node_whose_bundles_end_late_says_so_though_its_beats_have_nothing_new(cluster: Cluster) -> None:
    """Without that, it is taken for full until its next period: a group that was to be spread was put on fewer nodes."""
    driver = cluster.driver()
    cluster.head.has = cluster.head.free = {"CPU": 10_000}
    make_group(cluster, driver, [{"CPU": 40_000}])
    cluster.node.free = {"CPU": 0}
    cluster.proxy.bundles_reserved(GROUP, 1)
    cluster.flow()
    cluster.say(driver, {"t": "remove_group", "group": GROUP, "rq": 2})
    cluster.flow()
    cluster.proxy.look_at_room()
    assert not cluster.step()
    cluster.node.free = {"CPU": 40_000}  # what ran in it has ended
    cluster.proxy.look_at_room()
    cluster.flow()
    assert dict(cluster.members.node_seen(NODE).available) == {"CPU": 40_000}
    for _ in range(control_proxy.ROOM_LOOKS):
        cluster.proxy.look()
    cluster.node.free = {"CPU": 50_000}
    cluster.proxy.look_at_room()
    assert not cluster.step()


def test_what_a_node_has_of_groups_is_restated_to_a_head_that_comes_back(cluster: Cluster) -> None:
    """What was reserved and not committed is given up: the head places that anew."""
    driver = cluster.driver()
    cluster.head.has = cluster.head.free = {"CPU": 10_000}
    make_group(cluster, driver, [{"CPU": 40_000}])
    cluster.proxy.follow_group(GROUP)
    cluster.say(driver, {"t": "group_watch", "group": GROUP, "rq": None})
    cluster.flow()
    cluster.cut()
    cluster.proxy.linked(cluster.proxy.channel.said, [], lambda *_: None, head="one")
    cluster.proxy.unlinked()
    cluster.node.held = [("cd" * 18, 3, [0, 2], True)]
    frames_said: list[Message] = []
    cluster.proxy.linked(0, [], lambda frame, _: frames_said.append(frame), head="another")
    assert cluster.node.orders == [("reserve", GROUP, 1, {0: {"CPU": 40_000}}), ("cancel", GROUP, 1)]
    said = [frame["message"] for frame in frames_said]
    assert [one["t"] for one in said] == ["restate", "bundles_held", "follow_group", "request", "restated"]
    assert said[1] == {"t": "bundles_held", "held": cluster.node.held}
    assert said[2] == {"t": "follow_group", "group": GROUP}
    assert (said[3]["message"]["t"], said[3]["client"]) == ("group_watch", driver)


def test_a_group_ends_with_the_job_of_another_node(cluster: Cluster) -> None:
    driver = cluster.driver()
    make_group(cluster, driver, [{"CPU": 10_000}])
    assert cluster.service.listed_groups("")[0]["owner"] == driver
    cluster.proxy.client_gone(driver)
    cluster.flow()
    assert cluster.service.listed_groups("")[0]["state"] == "REMOVED"


def test_an_actor_in_a_group_waits_for_its_bundle_and_goes_there(cluster: Cluster) -> None:
    driver = cluster.driver()
    cluster.head.has = cluster.head.free = {"CPU": 10_000}
    make_group(cluster, driver, [{"CPU": 40_000}])
    first = cluster.create(driver, 1, strategy=in_bundle(0))
    second = cluster.create(driver, 2, strategy=in_bundle(-1), max_restarts=1)
    cluster.flow()
    assert (cluster.node.placed, cluster.head.placed) == ([], [])
    listed = cluster.service.listed()[0]
    assert f"waits for its placement group {GROUP}" in cluster.members.place_of(listed)["reason"]
    cluster.proxy.bundles_reserved(GROUP, 1)
    cluster.flow()
    assert cluster.node.placed == [first, second]
    # With the node goes the bundle; what restarts waits until that has a place again.
    cluster.sees(NODE, {"CPU": 40_000})
    cluster.members.node_gone(NODE, "it was killed")
    states = {one["actor"]: one["state"] for one in cluster.service.listed()}
    assert states == {first: "DEAD", second: "DEAD"}  # with the driver, which was there
    assert cluster.head.placed == []


def test_what_is_detached_in_a_group_waits_for_another_place(cluster: Cluster) -> None:
    driver = cluster.driver()
    cluster.head.has = cluster.head.free = {"CPU": 20_000}
    make_group(cluster, driver, [{"CPU": 30_000}], detached=True)
    cluster.proxy.bundles_reserved(GROUP, 1)
    actor = cluster.create(driver, 1, detached=True, max_restarts=-1, strategy=in_bundle(0))
    cluster.flow()
    assert cluster.node.placed == [actor]
    cluster.members.node_gone(NODE, "it was killed")
    (listed,) = cluster.service.listed()
    assert (listed["state"], cluster.head.placed) == ("PENDING", [])
    assert cluster.service.listed_groups("")[0]["state"] == "RESCHEDULING"
    cluster.head.has = cluster.head.free = {"CPU": 40_000}
    cluster.members.nodes_changed(())
    assert cluster.head.orders == [("reserve", GROUP, 2, {0: {"CPU": 30_000}})]
    cluster.service.bundles_reserved(GROUP, 2)
    assert cluster.head.placed == [actor]


def test_an_actor_that_waits_here_goes_with_its_group_to_a_node_that_has_come(cluster: Cluster) -> None:
    """The head was alone, and its own agent looked for a worker; the group then found a place elsewhere."""
    cluster.members.node_gone(NODE, "it never was")
    here = process(HEAD, 1)
    cluster.service.job_begins(here, 1, FACTS)
    cluster.head.jobs_of[here] = cluster.service.jobs.listed()[0].id
    cluster.head.jobs[cluster.head.jobs_of[here]] = cluster.service.jobs.listed()[0].environment
    cluster.head.has = cluster.head.free = {"CPU": 10_000}
    make_group(cluster, here, [{"CPU": 40_000}])
    actor = cluster.create(here, 1, strategy=in_bundle(0))
    assert cluster.head.placed == [actor]
    cluster.sees(NODE, {"CPU": 40_000})
    cluster.proxy.channel = channels.Channel()
    cluster.link()
    cluster.flow()
    cluster.proxy.bundles_reserved(GROUP, 1)
    cluster.flow()
    assert (cluster.head.placed, cluster.node.placed) == ([], [actor])


@pytest.mark.parametrize("indices", [(1,), (-1, -1)])
def test_an_actor_that_waits_here_goes_to_its_bundle_though_another_one_is_here(
    cluster: Cluster, indices: tuple[int, ...]
) -> None:
    cluster.members.node_gone(NODE, "it never was")
    here = process(HEAD, 1)
    cluster.service.job_begins(here, 1, FACTS)
    cluster.head.jobs_of[here] = cluster.service.jobs.listed()[0].id
    cluster.head.jobs[cluster.head.jobs_of[here]] = cluster.service.jobs.listed()[0].environment
    cluster.head.has = cluster.head.free = {"CPU": 10_000}
    make_group(cluster, here, [{"CPU": 10_000}, {"CPU": 10_000}])
    actors = [
        cluster.create(here, number, strategy=in_bundle(index), placement={"CPU": 10_000})
        for number, index in enumerate(indices, 1)
    ]
    assert cluster.head.placed == actors
    cluster.sees(NODE, {"CPU": 10_000})
    cluster.proxy.channel = channels.Channel()
    cluster.link()
    cluster.flow()
    cluster.service.bundles_reserved(GROUP, 1)
    cluster.proxy.bundles_reserved(GROUP, 1)
    cluster.flow()
    assert cluster.service.listed_groups("")[0]["nodes"] == (HEAD, NODE)
    assert cluster.node.placed == [actors[-1]]
    assert cluster.head.placed == actors[:-1]


def test_the_node_of_an_actor_is_told_where_its_packages_are(cluster: Cluster) -> None:
    """Whoever has created it has packed them; what is there already needs no source."""
    driver = cluster.driver()
    cluster.head.has = cluster.head.free = {"CPU": 80_000}
    make_group(cluster, driver, [{"CPU": 60_000}])
    cluster.service.bundles_reserved(GROUP, 1)
    env = {"built": {"pip": ["x"]}}
    there = cluster.create(driver, 1, strategy=in_bundle(0), env=env)
    own = cluster.create(driver, 2, env=env)
    cluster.flow()
    assert (cluster.head.placed, cluster.node.placed) == ([there], [own])
    assert (cluster.head.sources, cluster.node.sources) == ({there: NODE}, {own: ""})


def test_what_a_node_does_for_the_environment_of_an_actor_is_told_with_it(cluster: Cluster) -> None:
    actor = cluster.create(cluster.driver(), 1, env={"built": {"pip": ["x"]}})
    cluster.flow()
    cluster.proxy.preparing(actor, "is being built: pip install x")
    cluster.flow()
    told = cluster.members.place_of(cluster.service.listed()[0])["reason"]
    assert told == f"node {NODE} looks for a worker for it, whose runtime environment is being built: pip install x"
    cluster.proxy.preparing(actor, "")
    cluster.flow()
    told = cluster.members.place_of(cluster.service.listed()[0])["reason"]
    assert told == f"node {NODE} looks for a worker for it"
    cluster.proxy.unplaceable(actor, "no x", is_unschedulable=False)
    cluster.flow()
    assert cluster.service.listed()[0]["reason"] == f"on node {NODE}: no x"


def test_an_actor_that_died_while_its_place_was_withheld_is_looked_for_nowhere(cluster: Cluster) -> None:
    """Where records are kept, an order comes when they are, and its actor may be dead by then."""
    driver = cluster.driver()
    actor = cluster.create(driver, 1, max_restarts=1)
    cluster.flow()
    spec = cluster.service.table.actors[actor].spec
    cluster.say(driver, {"t": "kill_actor", "actor": actor, "no_restart": True, "rq": None})
    cluster.flow()
    cluster.members.place_actor(spec)
    cluster.flow()
    assert (cluster.node.placed, cluster.head.placed) == ([], [])


def test_what_a_job_that_has_ended_creates_is_not_placed_elsewhere(cluster: Cluster) -> None:
    here = process(HEAD, 1)
    cluster.head.jobs_of[here] = "07000000"  # of which the head knows nothing any more
    cluster.sees(NODE, {"GPU": 10_000})
    actor = cluster.create(here, 1, placement={"GPU": 10_000}, running={"GPU": 10_000})
    cluster.flow()
    assert (cluster.node.placed, cluster.head.placed) == ([], [actor])


def test_a_node_tells_what_waits_there_only_where_somebody_wants_to_know(cluster: Cluster) -> None:
    cluster.proxy.look()
    cluster.flow()
    assert cluster.members.loads() == {}
    cluster.members.wants_load = True
    cluster.link()
    cluster.flow()
    cluster.proxy.look()
    cluster.flow()
    assert cluster.members.loads() == {NODE: {"t": "load", "tasks": [], "idle": 1}}


def test_what_waits_is_told_when_it_has_changed_and_after_each_new_connection(cluster: Cluster) -> None:
    cluster.members.wants_load = True
    cluster.link()
    cluster.flow()
    cluster.proxy.look()
    assert len(cluster.to_head) == 1
    cluster.flow()
    cluster.proxy.look()
    assert cluster.to_head == []
    cluster.node.load = {"tasks": [[{"CPU": 1}, 3, []]], "idle": 0}
    cluster.proxy.look()
    cluster.flow()
    assert cluster.members.loads()[NODE]["tasks"] == [[{"CPU": 1}, 3, []]]
    cluster.cut()
    cluster.node.load = {"tasks": [], "idle": 5}
    kept = cluster.proxy.channel.kept_count
    cluster.proxy.look()  # it is not kept for later: there will be a newer one
    assert cluster.proxy.channel.kept_count == kept
    cluster.link()
    cluster.flow()
    cluster.proxy.look()
    cluster.flow()
    assert cluster.members.loads()[NODE]["idle"] == 5


def test_what_waited_on_a_node_goes_with_it(cluster: Cluster) -> None:
    cluster.members.wants_load = True
    cluster.link()
    cluster.flow()
    cluster.proxy.look()
    cluster.flow()
    cluster.members.node_gone(NODE, "killed")
    assert cluster.members.loads() == {}


def test_what_waits_for_a_busy_node_goes_to_one_that_comes_and_until_then_is_told(cluster: Cluster) -> None:
    """Before: it waited for the busy node, however many others came."""
    one = {"CPU": 10_000}
    cluster.sees(NODE, {"CPU": 0}, {"CPU": 40_000})
    cluster.head.free = {"CPU": 0}
    driver = process(HEAD, 1)
    job_id, environment = cluster.service.job_begins(driver, 1, FACTS)
    cluster.head.jobs_of[driver], cluster.head.jobs[job_id] = job_id, environment
    actor = cluster.create(driver, 1, placement=one, running=one)
    assert cluster.head.placed == [actor]
    assert cluster.members.waiting_actors() == [[one, 1, []]]
    cluster.sees(NODE, {"CPU": 40_000})
    cluster.link()  # any that comes
    cluster.flow()
    assert (cluster.head.placed, cluster.node.placed) == ([], [actor])
    cluster.host(actor, 9)
    cluster.flow()
    assert cluster.members.waiting_actors() == []


# ---- draining ----


def drains(cluster: Cluster) -> None:
    draining = {"reason": "preemption", "message": "", "deadline_s": None, "waits_for": ""}
    state = {"available": {"CPU": 40_000}, "draining": draining}
    cluster.members.node_said(NODE, {"resources": {"CPU": 40_000}, "labels": {}}, state)
    cluster.members.nodes_changed([{"node_id": NODE, **state}])
    cluster.flow()


def test_an_actor_that_looks_for_a_worker_on_a_node_that_is_drained_looks_elsewhere(cluster: Cluster) -> None:
    actor = cluster.create(cluster.driver(), 1)
    cluster.flow()
    assert (cluster.node.placed, cluster.head.placed) == ([actor], [])
    drains(cluster)
    assert (cluster.node.placed, cluster.head.placed) == ([], [actor])
    drains(cluster)
    assert cluster.head.placed == [actor]


def test_a_new_actor_is_not_placed_on_a_node_that_is_drained(cluster: Cluster) -> None:
    drains(cluster)
    driver = cluster.driver()
    plain = cluster.create(driver, 1)
    built = cluster.create(driver, 2, env={"built": {"pip": ["x"]}})
    cluster.flow()
    assert (cluster.node.placed, cluster.head.placed) == ([], [plain, built])


def test_an_actor_that_has_a_worker_stays_until_its_node_goes_and_its_restart_does_not_count(cluster: Cluster) -> None:
    actor = cluster.create(cluster.driver(), 1, max_restarts=1, detached=True)
    cluster.flow()
    cluster.ready(actor, cluster.host(actor, 7))
    cluster.flow()
    drains(cluster)
    assert cluster.node.killed == []
    cluster.members.node_gone(NODE, "it was drained")
    (listed,) = cluster.service.listed()
    assert (listed["state"], listed["restarts"], listed["preemptions"]) == ("RESTARTING", 1, 1)


def test_a_command_at_a_node_asks_the_head_to_drain_and_hears_the_answer(cluster: Cluster) -> None:
    asked: list[Message] = []

    def drain_node(message: Message, tell: Any) -> None:
        asked.append(message)
        tell(False, "it is not idle")

    cluster.head.drain_node = drain_node  # type: ignore[attr-defined]
    message = {"t": "drain_node", "node": NODE, "reason": "idle", "message": "", "deadline_s": None, "rq": 4}
    cluster.proxy.ask_to_drain("tool", message)
    cluster.flow()
    assert asked == [message]
    assert cluster.node.answers_to("tool") == [
        {"t": "reply", "rq": 4, "result": {"is_accepted": False, "reason": "it is not idle"}}
    ]
    cluster.cut()
    cluster.proxy.ask_to_drain("tool", message)
    assert cluster.node.answers_to("tool")[1]["error"]["kind"] == "unavailable"
