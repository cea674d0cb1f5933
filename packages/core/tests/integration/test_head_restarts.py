"""A cluster survives the end of its head, which is killed and started again with its storage: other nodes go on."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator

import drivers
import heads
import many_nodes
import pytest
from heads import Place, asked, living

from umbel import exceptions
from umbel._client import tool

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(180),
]

TIMEOUT_S = heads.TIMEOUT_S
RECONNECT_S = 5.0  # until nodes are with a head that has started again; they dial once a second


@pytest.fixture
def place() -> Iterator[Place]:
    with heads.placed() as made:
        yield made


LOAD = """
    held = Counter.options(name="c", resources={"b": 0.001}).remote(10)
    lost = Counter.options(name="d", lifetime="detached", max_restarts=-1, resources={"b": 0.001}).remote(20)

    @umbel.remote(num_cpus=0, resources={"b": 0.001})
    def square(x):
        return x * x

    is_over, done, troubles = threading.Event(), [0], []

    def work():
        count = 10
        while not is_over.is_set():
            try:
                assert umbel.get([square.remote(i) for i in range(5)], timeout=60) == [i * i for i in range(5)]
                count += 1
                assert umbel.get(held.add.remote(), timeout=60) == count
                done[0] += 1
            except BaseException as error:
                troubles.append(repr(error))
                return

    say(umbel.get(held.where.remote())[1], umbel.get(lost.where.remote())[1], umbel.get_runtime_context().get_job_id())
    kv._internal_kv_put("k", "before")
    worker = threading.Thread(target=work)
    worker.start()
    say("ready")

    def more():
        until_s, begun = time.monotonic() + 60, done[0]
        while done[0] < begun + 3 and not troubles and time.monotonic() < until_s:
            time.sleep(0.01)
        return done[0] >= begun + 3

    sys.stdin.readline()  # there is no head
    say(more(), troubles)
    early = Counter.remote(30)  # waits for nobody
    asks = [
        threading.Thread(target=lambda: kv._internal_kv_put("k", "meanwhile")),
        threading.Thread(target=lambda: Counter.options(name="e", lifetime="detached").remote(40)),
    ]
    for one in asks:
        one.start()
    say("asked")
    sys.stdin.readline()  # there is one again
    for one in asks:
        one.join(60)
    say(more(), troubles)
    say(umbel.get(early.add.remote(), timeout=60), kv._internal_kv_get("k").decode())
    say(umbel.get(umbel.get_actor("e").add.remote(), timeout=60), umbel.get(lost.add.remote(), timeout=60))
    say(umbel.get(held.where.remote())[1], umbel.get(lost.where.remote())[1])
    late = Counter.options(resources={"b": 0.001}).remote(50)
    say(umbel.get(late.add.remote(), timeout=60))
    sys.stdin.readline()
    is_over.set()
    worker.join()
    say(troubles)
"""


def test_tasks_and_actors_of_other_nodes_go_on_while_the_head_is_killed_and_comes_back(place: Place) -> None:
    first, second = place.add(a=1), place.add(b=1)
    cluster = place.head.node_id
    on_head = place.driver(place.head, "say(umbel.get_runtime_context().get_job_id()); sys.stdin.readline()")
    number_on_head = on_head.line()
    numbers = {number_on_head}
    load = place.driver(first, LOAD)
    held, lost, number = load.line().split()
    numbers.add(number)
    assert load.line() == "ready"
    place.kill(place.head)
    load.tell("go")
    assert load.line() == "True []"
    assert load.line() == "asked"
    place.start_head("a")
    up_s = time.monotonic()
    nodes = {place.head.node_id, first.node_id, second.node_id}
    drivers.wait_until(lambda: living(place.head) == nodes, what="the nodes to come back")
    back_s = time.monotonic() - up_s
    print(f"the nodes were back after {back_s:.1f} s")
    assert back_s < RECONNECT_S * many_nodes.slowness([many_nodes.bare_start_s() for _ in range(3)])
    load.tell("go")
    assert load.line() == "True []"
    assert load.line() == "31 meanwhile"
    assert load.line() == "41 21"
    assert load.line().split() == [held, lost]
    assert load.line() == "51"
    # From the other node, and from the head's own.
    for node in (second, place.head):
        told = place.says(
            node,
            """
            say(umbel.get(umbel.get_actor("d").where.remote(), timeout=60)[1], kv._internal_kv_get("k").decode())
            say(umbel.get_runtime_context().get_job_id())
            """,
        )
        assert told[0] == f"{lost} meanwhile"
        assert told[1] not in numbers
        numbers.add(told[1])
    load.tell("go")
    assert load.line() == "[]"
    dead = {one["node_id"] for one in asked(first, "nodes") if not one["alive"]}
    assert dead == {cluster}
    jobs = {one["job_id"]: one["status"] for one in asked(place.head, "jobs")}
    assert (jobs[number_on_head], jobs[number] == "FAILED") == ("FAILED", False)
    assert {one["state"] for one in asked(place.head, "actors") if one["name"] in ("d", "e")} == {"ALIVE"}


def test_a_node_that_died_meanwhile_and_the_heads_own_are_given_up_and_what_was_there_restarts(place: Place) -> None:
    """That node was being drained, which the next head knows: what was there restarts without counting."""
    first, second = place.add(a=1), place.add(b=1)
    owner = place.driver(
        first,
        """
        options = {"lifetime": "detached", "max_restarts": 1}
        there = Counter.options(name="there", **options, resources={"b": 0.001}).remote(1)
        either = umbel.util.scheduling_strategies.NodeAffinitySchedulingStrategy(os.environ["HEAD"], soft=True)
        at_head = Counter.options(name="at head", **options, scheduling_strategy=either).remote(2)
        held = Counter.options(name="held", resources={"b": 0.001}).remote(3)
        say(*(umbel.get(one.where.remote())[0] for one in (there, at_head, held)))
        sys.stdin.readline()

        def restarted(actor):  # calls that were under way have to be made again
            until_s = time.monotonic() + 60
            while True:
                try:
                    return umbel.get(actor.add.remote(), timeout=60), umbel.get(actor.where.remote(), timeout=60)[0]
                except umbel.exceptions.ActorUnavailableError:
                    assert time.monotonic() < until_s

        say(*restarted(at_head))
        try:
            restarted(held)
        except umbel.exceptions.ActorDiedError as error:
            say(error)
        sys.stdin.readline()
        say(*restarted(there))
        """.replace('os.environ["HEAD"]', repr(place.head.node_id)),
    )
    assert owner.line().split() == [second.node_id, place.head.node_id, second.node_id]
    with tool.Tool(place.head.session_dir, answer_s=TIMEOUT_S) as asker:
        assert asker.drain_node(second.node_id, "preemption", "a test") == ""
    place.kill(place.head)
    place.kill(second)
    place.start_head("a")
    owner.tell("go")
    count, node_id = owner.line().split()
    assert (count, node_id in (first.node_id, place.head.node_id)) == ("3", True)
    told = owner.line()
    assert (
        f"its node {second.node_id[:8]} is dead: it did not come back within 6 s after the cluster's head had started"
        in told
    )
    third = place.add(b=1)
    owner.tell("go")
    assert owner.line().split() == ["2", third.node_id]
    listed = {one["name"]: one for one in asked(place.head, "actors")}
    assert {name: (one["restarts"], one["preemptions"]) for name, one in listed.items() if name != "held"} == {
        "there": (1, 1), "at head": (1, 0),
    }  # fmt: skip
    assert (listed["held"]["state"], listed["held"]["cause"]) == ("DEAD", "preempted")
    events = [one["text"] for one in asked(place.head, "cluster_events")]
    assert events[0].endswith("leads the cluster"), "the first head has told it"
    for text in (
        f"node {second.node_id} is being drained (preemption: a test)",
        f"node {place.head.node_id} leads the cluster again, and awaits 2 others",
        f"node {second.node_id} is dead: it did not come back within",
        "actor held is dead: ",
        "actor there restarts, 1 of 1: ",
    ):
        assert any(one.startswith(text) for one in events), (text, events)


def test_tasks_that_insist_on_a_node_that_is_awaited_wait_for_it_and_say_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: they failed, as if there were no such node, when another one was back."""
    first, second = place.add(a=1), place.add(b=1)
    place.kill(place.head)
    drivers.freeze(second.process.pid)
    try:
        monkeypatch.setenv("UMBEL_NODE_RECONNECT_S", str(TIMEOUT_S))
        place.start_head("a")
        driver = place.driver(
            place.head,
            """
            @umbel.remote
            def where():
                return here()

            there = umbel.util.scheduling_strategies.NodeAffinitySchedulingStrategy(os.environ["THERE"], soft=False)
            asked = [where.options(scheduling_strategy=there).remote(), where.options(resources={"b": 1}).remote()]
            until_s = time.monotonic() + 60
            while not all("which has not come back since the head started again" in str(umbel.explain(one)) for one in asked):
                assert time.monotonic() < until_s, [str(umbel.explain(one)) for one in asked]
                time.sleep(0.01)
            sys.stdin.readline()  # another node is back
            say(*umbel.wait(asked, num_returns=2, timeout=0.3)[0])
            say("waits")
            say(*umbel.get(asked, timeout=60))
            """.replace('os.environ["THERE"]', repr(second.node_id)),
        )
        drivers.wait_until(
            lambda: living(place.head) == {place.head.node_id, first.node_id}, what="the other one to be back"
        )
        driver.tell("go")
        assert (driver.line(), driver.line()) == ("", "waits")
    finally:
        second.process.send_signal(signal.SIGCONT)
    assert driver.line().split() == [second.node_id] * 2


def test_a_head_with_another_storage_is_another_cluster_whose_nodes_end_and_say_so(place: Place) -> None:
    node = place.add()
    place.kill(place.head)
    place.start_head("b")
    log = drivers.wait_until(
        lambda: node.process.poll() is not None and node.process.poll(), timeout_s=TIMEOUT_S, what="the node to end"
    )
    assert log != 0
    assert living(place.head) == {place.head.node_id}


def test_of_two_heads_with_one_storage_one_leads_and_the_other_one_follows_it(place: Place) -> None:
    node = place.add(a=1)
    first = place.head
    with pytest.raises(exceptions.UmbelError, match="no control service can begin upon this storage"):
        place.start_head("a", address="127.0.0.1:0")
    assert living(first) == {first.node_id, node.node_id}
    place.says(node, 'kv._internal_kv_put("k", "v")')
    place.kill(first)
    place.start_head("a")
    assert place.says(node, 'say(kv._internal_kv_get("k").decode())') == ["v"]
    drivers.wait_until(lambda: living(place.head) == {place.head.node_id, node.node_id})


@pytest.mark.parametrize("other", ["", ",127.0.0.1:1"])
def test_no_node_is_given_up_while_the_storage_is_away(place: Place, other: str) -> None:
    """For longer than a lease, and than a node may be silent or without a connection. other: where nobody listens."""
    node = place.add(a=1, at=place.address + other)
    load = place.driver(
        node, 'sys.stdin.readline(); kv._internal_kv_put("k", "v"); say(kv._internal_kv_get("k").decode())'
    )
    with contextlib.closing(sqlite3.connect(f"{place.directory}/a.db", isolation_level=None)) as taken:
        taken.execute("BEGIN IMMEDIATE")
        load.tell("go")
        drivers.wait_until(
            lambda: "lease" in asked(place.head, "nodes")[0]["control_waits_for"], what="the lease to run out"
        )
        drivers.pause(8.0)  # 6 s may a node be away here
        taken.execute("ROLLBACK")
    assert load.line() == "v"
    drivers.wait_until(lambda: living(place.head) == {place.head.node_id, node.node_id}, what="the node to be there")
    assert node.process.poll() is None
