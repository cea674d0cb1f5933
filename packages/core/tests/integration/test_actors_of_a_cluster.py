"""Actors, names, keys and jobs are the cluster's: real daemons, some of which are killed or cut off from their head."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import drivers
import homes
import proxies
import pytest
from heads import asked

from umbel import cluster_utils
from umbel._client import cluster_node

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(180),
]

TIMEOUT_S = 60
BEGIN = """
    import os, sys, time, umbel
    from umbel.experimental import internal_kv as kv

    umbel.init(address=os.environ["SESSION"], namespace="ns", log_to_driver=False)

    def say(*what):
        print(*what, flush=True)

    @umbel.remote(num_cpus=0)
    class Counter:
        def __init__(self, start=0):
            self.count = start

        def add(self, amount=1):
            self.count += amount
            return self.count

        def where(self):
            return umbel.get_runtime_context().get_node_id()

        def pid(self):
            return os.getpid()
"""


class Place:
    """A cluster whose drivers run as processes of their own."""

    def __init__(self, directory: str) -> None:
        self.nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        self._others: list[cluster_utils.ClusterNode] = []
        self._proxies: list[proxies.Proxy] = []
        self._programs = drivers.Programs(directory, BEGIN)

    @property
    def head(self) -> cluster_utils.ClusterNode:
        assert self.nodes.head_node is not None
        return self.nodes.head_node

    def add(self, **wishes: Any) -> cluster_utils.ClusterNode:
        return self.nodes.add_node(**{"num_cpus": 2, **wishes})

    def add_behind_proxy(self) -> tuple[proxies.Proxy, cluster_utils.ClusterNode]:
        proxy = proxies.Proxy(str(self.nodes.address))
        self._proxies.append(proxy)
        place = cluster_node.Place(head=proxy.address, host="127.0.0.1", port=0, token_file=self.nodes.token_file)
        started = cluster_node.start_node(cluster_node.Wishes(num_cpus=2), place, ends_with_starter=True)
        node = cluster_utils.ClusterNode(started.launched, started.address)
        self._others.append(node)
        return proxy, node

    def driver(self, node: cluster_utils.ClusterNode, source: str) -> drivers.Driver:
        return self._programs.start(node, source)

    def says(self, node: cluster_utils.ClusterNode, source: str) -> list[str]:
        """The lines of a driver that ends by itself."""
        return self.driver(node, source).finish(TIMEOUT_S)[0].splitlines()

    def end(self) -> None:
        self._programs.end()
        for node in self._others:
            node._end(is_graceful=False)
        self.nodes.shutdown()
        for proxy in self._proxies:
            proxy.close()


@pytest.fixture
def place() -> Iterator[Place]:
    """Connections are cut off for 2 s."""
    with homes.own_home(UMBEL_HEALTH_CHECK_PERIOD_S="0.5", UMBEL_NODE_RECONNECT_S="4") as home:
        made = Place(home)
        try:
            yield made
        finally:
            made.end()


OWNER = """
    held = Counter.options(name="c", max_restarts=1, **OPTIONS).remote(10)
    say(umbel.get(held.where.remote()))
    sys.stdin.readline()
"""


def owner(options: str = "") -> str:
    return OWNER.replace("**OPTIONS", options)


def test_a_named_actor_is_found_called_and_killed_from_any_node(place: Place) -> None:
    node, third = place.add(), place.add()
    creator = place.driver(node, owner())
    assert creator.line() == node.node_id
    for other in (place.head, third):
        told = place.says(
            other,
            """
    found = umbel.get_actor("c")
    say(umbel.get([found.add.remote() for _ in range(3)]), umbel.get(found.where.remote()))
    say(umbel.util.list_named_actors(all_namespaces=True))
    """,
        )
        assert told[0].endswith(node.node_id)
        assert told[1] == "[{'name': 'c', 'namespace': 'ns'}]"
    # Every node lists it, and says where it is.
    for one in (place.head, node, third):
        (listed,) = [actor for actor in asked(one, "actors") if actor["state"] == "ALIVE"]
        assert (listed["name"], listed["node_id"]) == ("c", node.node_id)
        assert drivers.is_running(listed["pid"])
    told = place.says(
        third,
        """
    found = umbel.get_actor("c")
    say(umbel.get(found.add.remote()))
    umbel.kill(found)
    try:
        umbel.get(found.add.remote(), timeout=30)
    except umbel.exceptions.ActorDiedError as error:
        say("killed by" in str(error))
    try:
        umbel.get_actor("c")
    except ValueError:
        say("free")
    """,
    )
    assert told == ["17", "True", "free"]
    creator.tell()
    creator.finish(TIMEOUT_S)


def test_a_name_is_taken_once_in_the_cluster(place: Place) -> None:
    node = place.add()
    creator = place.driver(place.head, owner())
    assert creator.line() == place.head.node_id
    told = place.says(
        node,
        """
    try:
        Counter.options(name="c").remote()
    except umbel.exceptions.ActorAlreadyExistsError as error:
        say(error)
    same = Counter.options(name="c", get_if_exists=True).remote()
    say(umbel.get(same.add.remote()))
    other = Counter.options(name="c", namespace="other").remote()
    say(umbel.get(other.add.remote()))
    """,
    )
    assert told[0].startswith("an actor called 'c' exists in namespace 'ns'")
    assert told[1:] == ["11", "1"]
    creator.tell()
    creator.finish(TIMEOUT_S)


def test_keys_and_jobs_are_the_clusters(place: Place) -> None:
    node = place.add()
    mine = place.driver(
        node,
        """
    say(kv._internal_kv_put("k", "from there"), umbel.get_runtime_context().get_job_id())
    sys.stdin.readline()
    """,
    )
    was_there, first = mine.line().split()
    assert was_there == "False"
    told = place.says(
        place.head,
        """
    say(kv._internal_kv_get("k").decode(), kv._internal_kv_put("k", "from here"), umbel.get_runtime_context().get_job_id())
    """,
    )
    *words, second = told[0].split()
    assert words == ["from", "there", "True"]
    assert first != second
    for one in (place.head, node):
        found = {job["job_id"]: (job["status"], job["node_id"]) for job in asked(one, "jobs")}
        assert found[first] == ("RUNNING", node.node_id)
        assert found[second][0] == "SUCCEEDED"
    mine.tell()
    mine.finish(TIMEOUT_S)
    drivers.wait_until(
        lambda: {job["job_id"]: job["status"] for job in asked(place.head, "jobs")}[first] == "SUCCEEDED",
        what="the head to hear that the job has ended",
    )


def test_an_actor_restarts_after_its_process_died(place: Place) -> None:
    node = place.add()
    creator = place.driver(node, owner())
    assert creator.line() == node.node_id
    told = place.says(
        place.head,
        """
    found = umbel.get_actor("c")
    umbel.get(found.add.remote())
    old = umbel.get(found.pid.remote())
    os.kill(old, 9)
    for _ in range(100):
        try:
            new = umbel.get(found.pid.remote(), timeout=30)
            if new != old:
                break
        except umbel.exceptions.ActorUnavailableError:
            pass
    say(umbel.get(found.add.remote(), timeout=30))
    os.kill(new, 9)
    while True:
        try:
            umbel.get(found.add.remote(), timeout=30)
        except umbel.exceptions.ActorUnavailableError:  # its connection broke before the head had heard of its death
            pass
        except umbel.exceptions.ActorDiedError as error:
            say("restarts are used up" in str(error))
            break
    """,
    )
    assert told == ["11", "True"]
    creator.tell()
    creator.finish(TIMEOUT_S)


def test_the_death_of_a_node_ends_what_its_drivers_own_and_restarts_what_is_detached(place: Place) -> None:
    node = place.add()
    creator = place.driver(
        node,
        """
    plain = Counter.options(name="plain").remote()
    lasting = Counter.options(name="lasting", lifetime="detached", max_restarts=1).remote(5)
    brittle = Counter.options(name="brittle", lifetime="detached").remote()
    say(umbel.get([one.add.remote() for one in (plain, lasting, brittle)]))
    sys.stdin.readline()
    """,
    )
    assert creator.line() == "[1, 6, 1]"
    watcher = place.driver(
        place.head,
        """
    found = {name: umbel.get_actor(name) for name in ("plain", "lasting", "brittle")}
    say(umbel.get([one.add.remote() for one in found.values()]))
    sys.stdin.readline()
    for name in ("plain", "brittle"):
        while True:
            try:
                umbel.get(found[name].add.remote(), timeout=30)
            except umbel.exceptions.ActorDiedError as error:
                say(name, "is dead:" in str(error))
                break
            except umbel.exceptions.ActorUnavailableError:
                pass  # it is not known yet whether its node is dead
    while True:
        try:
            say(umbel.get(found["lasting"].add.remote(), timeout=30), umbel.get(found["lasting"].where.remote()))
            break
        except umbel.exceptions.ActorUnavailableError:
            pass
    say([one["name"] for one in umbel.util.list_named_actors(all_namespaces=True)])
    """,
    )
    assert watcher.line() == "[2, 7, 2]"
    place.nodes.remove_node(node, allow_graceful=False)
    watcher.tell()
    assert watcher.finish(TIMEOUT_S)[0].splitlines() == [
        "plain True",
        "brittle True",
        f"6 {place.head.node_id}",
        "['lasting']",
    ]
    statuses = [job["status"] for job in asked(place.head, "jobs") if job["node_id"] == node.node_id]
    assert statuses in ([], ["FAILED"])


def test_a_broken_connection_to_the_head_loses_and_doubles_nothing(place: Place) -> None:
    proxy, node = place.add_behind_proxy()
    creator = place.driver(
        node,
        """
    say("begun")
    made = []
    for number in range(24):
        made.append(Counter.options(num_cpus=0, name=f"n{number}" if number % 2 else None).remote(number))
        kv._internal_kv_put(f"k{number}", str(number))
        if number % 4 == 0:
            say("at", number)
            sys.stdin.readline()
    say(sum(umbel.get([one.add.remote() for one in made])))
    say(len(kv._internal_kv_list("k")))
    sys.stdin.readline()
    """,
    )
    assert creator.line() == "begun"
    for number in range(0, 24, 4):
        assert creator.line() == f"at {number}"
        if number == 8:  # for two seconds, and its program runs into it
            proxy.is_shut = True
        creator.tell()
        assert proxy.cut() or number == 12
        if number == 8:
            drivers.pause(2.0)
            proxy.is_shut = False
    assert creator.line() == str(sum(range(1, 25)))
    assert creator.line() == "24"
    living = [one for one in asked(place.head, "actors") if one["state"] == "ALIVE"]
    assert len(living) == 24
    assert sorted(one["name"] for one in living if one["name"]) == sorted(f"n{number}" for number in range(1, 24, 2))
    assert {one["restarts"] for one in living} == {0}
    assert len({one["worker"] for one in living}) == 24
    creator.tell()
    creator.finish(TIMEOUT_S)
    drivers.wait_until(
        lambda: not [one for one in asked(place.head, "actors") if one["state"] != "DEAD"],
        what="what the program owned to end with it",
    )


def test_a_broken_connection_to_an_actor_that_lives_is_made_anew(place: Place) -> None:
    node = place.add()
    creator = place.driver(node, owner())
    assert creator.line() == node.node_id
    told = place.says(
        place.head,
        """
    import socket
    from umbel._client import current

    found = umbel.get_actor("c")
    say(umbel.get(found.add.remote()))
    for link in current.running_engine().links.by_peer.values():
        with socket.socket(fileno=os.dup(link.stream.fileno())) as sock:
            if sock.family == socket.AF_INET:
                sock.shutdown(socket.SHUT_RDWR)
    try:
        umbel.get(found.add.remote(), timeout=30)
    except umbel.exceptions.ActorUnavailableError as error:
        say("unavailable")
    say(umbel.get(found.pid.remote(), timeout=30) > 0)
    """,
    )
    assert told[0] == "11"
    assert told[-1] == "True"
    creator.tell()
    creator.finish(TIMEOUT_S)


def test_what_a_node_cannot_host_ends_with_the_reason(place: Place) -> None:
    node = place.add()
    told = place.says(
        node,
        f"""
    there = umbel.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id={"ab" * 28!r}, soft=False)
    try:
        umbel.get(Counter.options(scheduling_strategy=there).remote().add.remote(), timeout=30)
    except umbel.exceptions.ActorUnschedulableError as error:
        say("which this cluster does not have" in str(error))
    """.replace("umbel.util.scheduling_strategies.", "strategies.").replace(
            "    there", "    from umbel.util import scheduling_strategies as strategies\n    there"
        ),
    )
    assert told == ["True"]


def test_what_waits_for_the_head_says_so_and_a_node_without_it_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_HEAD_LOST_S", "8")
    proxy, node = place.add_behind_proxy()
    waiting = place.driver(
        node,
        """
    say("begun")
    sys.stdin.readline()
    try:
        kv._internal_kv_get("k")
    except umbel.exceptions.LocalNodeDiedError:
        say("ended")
    os._exit(0)
    """,
    )
    assert waiting.line() == "begun"
    proxy.is_shut = True
    assert proxy.cut()
    waiting.tell()
    drivers.wait_until(
        lambda: "waits for a connection to the head, to tell it" in asked(node, "nodes")[0]["control_waits_for"],
        what="the node to say what waits",
    )
    status = subprocess.run(
        [sys.executable, "-m", "umbel.cli", "status", "--session", node.session_dir], check=False, capture_output=True,
        text=True, timeout=TIMEOUT_S,
    ).stdout  # fmt: skip
    assert "Its control service waits for a connection to the head, to tell it" in status
    assert "Not known: the jobs of a cluster are known to its head, to which this node has no connection now" in status
    assert waiting.line() == "ended"
    waiting.finish(TIMEOUT_S)


def test_an_actor_goes_where_it_can_be_hosted(place: Place) -> None:
    node = place.add(resources={"licence": 1}, labels={"zone": "b"})
    wanting = place.driver(
        place.head,
        f"""
    from umbel.util import scheduling_strategies as strategies

    there = strategies.NodeAffinitySchedulingStrategy(node_id={node.node_id!r}, soft=False)
    made = [
        Counter.options(resources={{"licence": 1}}).remote(1),
        Counter.options(label_selector={{"zone": "b"}}).remote(2),
        Counter.options(scheduling_strategy=there).remote(3),
        Counter.remote(umbel.put(4)),
    ]
    say(umbel.get([one.where.remote() for one in made]) == [{node.node_id!r}] * 3 + [{place.head.node_id!r}])
    say(umbel.get([one.add.remote() for one in made]), umbel.get(made[0].add.remote(umbel.put(10))))
    pids = umbel.get([one.pid.remote() for one in made])
    os.kill(pids[1], 9)
    try:
        umbel.get(made[1].add.remote(), timeout=30)
    except umbel.exceptions.ActorDiedError as error:
        say("SIGKILL" in str(error))
    umbel.kill(made[2])
    try:
        umbel.get(made[2].add.remote(), timeout=30)
    except umbel.exceptions.ActorDiedError as error:
        say("kill" in str(error))
    say(pids[0])
    sys.stdin.readline()
    """,
    )
    assert [wanting.line() for _ in range(4)] == ["True", "[2, 3, 4, 5] 12", "True", "True"]
    pid = int(wanting.line())
    assert drivers.is_running(pid)
    wanting.tell()
    wanting.finish(TIMEOUT_S)
    drivers.wait_until(lambda: not drivers.is_running(pid), what="the actor to end with its owner")


def test_a_full_node_has_its_actors_elsewhere(place: Place) -> None:
    node = place.add()
    told = place.says(
        node,
        f"""
    made = [Counter.options(num_cpus=1).remote() for _ in range(4)]
    where = umbel.get([one.where.remote() for one in made])
    say(sorted(where) == sorted([{node.node_id!r}] * 2 + [{place.head.node_id!r}] * 2))
    say(umbel.get([one.add.remote() for one in made]))
    """,
    )
    assert told == ["True", "[1, 1, 1, 1]"]


def test_an_actor_whose_node_died_waits_for_one_that_can_host_it(place: Place) -> None:
    node = place.add(resources={"licence": 1})
    wanting = place.driver(
        place.head,
        """
    held = Counter.options(resources={"licence": 1}, max_restarts=1, max_task_retries=-1).remote(5)
    say(umbel.get(held.add.remote()), umbel.get(held.where.remote()))
    sys.stdin.readline()
    called = held.add.remote()
    say("called")
    say(umbel.get(called, timeout=60), umbel.get(held.where.remote()))
    """,
    )
    assert wanting.line() == f"6 {node.node_id}"
    place.nodes.remove_node(node, allow_graceful=False)
    drivers.wait_until(
        lambda: [one["state"] for one in asked(place.head, "actors")] == ["RESTARTING"], what="the actor to restart"
    )
    wanting.tell()
    assert wanting.line() == "called"
    other = place.add(resources={"licence": 1})
    assert wanting.line() == f"6 {other.node_id}"
    wanting.finish(TIMEOUT_S)


def test_actors_in_a_group_of_a_joined_node_end_with_it(place: Place) -> None:
    node = place.add()
    told = place.says(
        node,
        """
    from umbel.util.placement_group import placement_group, placement_group_table, remove_placement_group
    from umbel.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([{"CPU": 1}], strategy="PACK")
    umbel.get(group.ready(), timeout=30)
    inside = Counter.options(num_cpus=1, scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote()
    outside = Counter.remote()
    (home,) = placement_group_table(group)["bundles_to_node_id"].values()
    say(umbel.get([one.add.remote() for one in (inside, outside)]), umbel.get(inside.where.remote()) == home)
    remove_placement_group(group)
    try:
        for _ in range(1000):  # until it has heard of it, calls may reach it
            umbel.get(inside.add.remote(), timeout=30)
            time.sleep(0.01)
    except umbel.exceptions.ActorPlacementGroupRemoved as error:
        say("removed")
    say(umbel.get(outside.add.remote()))
    """,
    )
    assert told == ["[1, 1] True", "removed", "2"]


def test_an_actor_that_another_node_looks_for_a_worker_for_says_so(place: Place) -> None:
    node = place.add(resources={"licence": 1})
    told = place.says(
        place.head,
        """
    first = Counter.options(resources={"licence": 1}).remote()
    umbel.get(first.add.remote())
    second = Counter.options(resources={"licence": 1}).remote()
    called = second.add.remote()
    for _ in range(1000):
        said = str(umbel.explain(called))
        if "waits for licence" in said:
            break
        time.sleep(0.01)
    say(said)
    umbel.kill(first)
    say(umbel.get(called, timeout=30))
    """,
    )
    assert f"node {node.node_id} looks for a worker for it" in told[0]
    wants = (
        f"needs {{licence: 1}} and waits for licence (0 of 1 free) on node {node.node_id[:8]}, held by 1 task or actor"
    )
    assert f"{wants}; no other node of the cluster has that free now" in told[0]
    assert told[-1] == "1"


@pytest.mark.parametrize("waits", [True, False])
def test_actors_that_fit_into_a_cluster_all_run_however_quickly_they_are_created(place: Place, *, waits: bool) -> None:
    """Before: the head knew only by the next beat that a worker took its room, and an actor waited at a full node, while another
    was idle; and what looked for a worker on the head itself it did not count at all."""
    first, second = place.add(), place.add()
    lines = place.says(
        first,
        f"""
    counters = []
    for _ in range(6):
        counters.append(Counter.options(num_cpus=1).remote())
        if {waits}:
            umbel.get(counters[-1].pid.remote(), timeout={TIMEOUT_S})
    say(*sorted(umbel.get([one.where.remote() for one in counters], timeout={TIMEOUT_S})))
    """,
    )
    assert lines[-1].split() == sorted(2 * [place.head.node_id, first.node_id, second.node_id])


@pytest.mark.parametrize("on_head", [False, True])
def test_an_actor_that_waits_at_a_full_node_goes_where_another_one_ends(place: Place, *, on_head: bool) -> None:
    """Before: it waited where it had been created, for ever, while the node of the one that had ended was idle."""
    node = place.add()
    freed = place.head.node_id if on_head else place.add().node_id
    lines = place.says(
        node,
        f"""
    counters = [Counter.options(num_cpus=1).remote() for _ in range({4 if on_head else 6})]
    nodes = umbel.get([one.where.remote() for one in counters], timeout={TIMEOUT_S})
    late = Counter.options(num_cpus=1).remote()
    try:
        umbel.get(late.where.remote(), timeout=0.5)
    except umbel.exceptions.GetTimeoutError:
        say("waits")
    umbel.kill(counters[nodes.index({freed!r})])
    say(umbel.get(late.where.remote(), timeout={TIMEOUT_S}))
    """,
    )
    assert lines == ["waits", freed]


def test_actors_are_placed_though_every_node_looks_full_for_leases_that_linger(place: Place) -> None:
    """Before: those that were created within half a second of tasks on all nodes might wait at their creator's for ever."""
    first, second = place.add(), place.add()
    lines = place.says(
        first,
        f"""
    @umbel.remote
    def where():
        time.sleep(0.1)
        return umbel.get_runtime_context().get_node_id()

    say(len(set(umbel.get([where.options(scheduling_strategy="SPREAD").remote() for _ in range(6)]))))
    counters = [Counter.options(num_cpus=1, scheduling_strategy="SPREAD").remote() for _ in range(6)]
    say(*sorted(umbel.get([one.where.remote() for one in counters], timeout={TIMEOUT_S})))
    """,
    )
    assert lines[-1].split() == sorted(2 * [place.head.node_id, first.node_id, second.node_id])
