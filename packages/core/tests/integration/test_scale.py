"""A small run of `benchmarks/scale.py`: its head and nodes agree about who is where, and it sees when they do not."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[4]
SMALL = ("--actors=60", "--groups=12", "--tasks=3000", "--keys=30", "--drivers=4", "--window=10", "--leases=40")
LIMIT_S = 120.0  # it takes two seconds


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `benchmarks` is no part of the wheel."""
    monkeypatch.syspath_prepend(str(ROOT))


def test_a_small_cluster_and_a_larger_one_are_measured_and_nothing_is_wrong(tmp_path: pathlib.Path) -> None:
    program, found = str(ROOT / "benchmarks" / "scale.py"), tmp_path / "found.json"
    command = [sys.executable, program, "--nodes=10", "--nodes=25", *SMALL, f"--json={found}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    small, large = json.loads(found.read_text(encoding="utf-8"))
    assert (small["nodes"], large["nodes"]) == (10, 25)
    assert not small["faults"] + large["faults"]
    counts = {row["what"]: row["count"] for row in large["rows"]}
    assert counts["a node joins"] == counts["a heartbeat"] == 25
    assert counts["an actor is created, hosted and ready"] == counts["an actor is killed"] == 60
    assert counts["a placement group of two is made"] == counts["a placement group is removed"] == 12
    assert counts["a task of 10 ms: given out and done, at its owner"] == 3000
    assert [row["what"] for row in small["rows"]] == [row["what"] for row in large["rows"]]
    assert all(row["event_us"] > 0 for row in large["rows"])
    assert "| a node joins | 10, " in done.stdout


def cluster(nodes: int = 3) -> Any:
    """With a driver on the first of them."""
    from benchmarks import scale_cluster

    made = scale_cluster.Cluster()
    for _ in range(nodes):
        made.join(cpus=4)
    return made, scale_cluster.Driver(made, made.nodes[0])


def create(made: Any, driver: Any, number: int = 1, strategy: str | None = None) -> str:
    actor = f"{driver.id}{number:016x}"
    message = {
        "t": "create_actor", "actor": actor, "name": "", "namespace": None, "get_if_exists": False, "detached": False,
        "max_restarts": 0, "placement": {"CPU": 10_000}, "running": {"CPU": 10_000}, "env": None, "strategy": strategy,
        "label_selectors": None, "class_name": "C", "meta_size": 0, "depth": 0, "lacks_arguments": False, "call_site": "",
    }  # fmt: skip
    driver.tell(message)
    driver.tell({"t": "actor_watch", "actor": actor})
    made.network.run()
    return actor


def test_a_cluster_whose_head_and_nodes_agree_has_no_fault() -> None:
    made, driver = cluster()
    actor = create(made, driver)
    assert driver.states == {actor: "ALIVE"}
    assert made.nodes[0].hosts.keys() == {actor}
    made.pass_s(1.0)
    assert made.faults() == []


def test_an_actor_that_only_the_head_knows_is_a_fault() -> None:
    made, driver = cluster()
    actor = create(made, driver)
    _, held = made.nodes[0].workers.pop(made.nodes[0].hosts.pop(actor))
    made.nodes[0].free["CPU"] += held["CPU"]
    assert made.faults() == ["0 actors are hosted, the head knows 1"]


def test_resources_that_are_lost_are_a_fault() -> None:
    made, _ = cluster()
    made.nodes[1].free["CPU"] -= 1
    (fault,) = made.faults()
    assert "node 000000000002 has" in fault


def test_a_node_that_has_gone_without_the_heads_knowing_is_a_fault() -> None:
    made, _ = cluster()
    made.nodes.pop()
    assert made.faults()[0] == "2 nodes live, the head knows 3"


def test_a_task_that_was_done_twice_is_a_fault() -> None:
    from benchmarks import scale_tasks

    queue = scale_tasks.Queue(3, 2, 20, 0.01)
    assert queue.run(float("inf")).faults == []
    queue.done[7] += 1
    assert queue.run(float("inf")).faults[0] == "task 7 was done 2 times"


def test_owners_get_leases_of_all_nodes_and_give_them_back() -> None:
    from benchmarks import scale_tasks

    taken = scale_tasks.Queue(3, 2, 200, 0.01).run(float("inf"))
    assert (taken.count, taken.leases, taken.faults) == (200, 6, [])


def test_actors_that_fit_are_hosted_though_no_node_has_spoken_since_the_first() -> None:
    made, driver = cluster(nodes=6)
    for number in range(6 * 4):
        create(made, driver, number)
    assert [len(node.hosts) for node in made.nodes] == [4] * 6
    views = made.head.members.views
    assert [dict(one.available) for one in views.for_actors.nodes] == [{}] * 7  # the head has nothing
    made.pass_s(1.0)
    create(made, driver, 24)
    assert sum(len(node.sought) for node in made.nodes) == 1
    made.nodes[3].kill_actor(next(iter(made.nodes[3].hosts)), "killed")
    made.pass_s(1.0)
    create(made, driver, 25)
    assert [len(node.hosts) for node in made.nodes] == [4] * 6


# ---- what a decision looks at ----


def operations(do: Callable[[], object]) -> int:
    """How many instructions of the interpreter that takes."""
    count = 0

    def trace(frame: types.FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(before)
    return count


def make_and_remove_group(made: Any, driver: Any, number: int, strategy: str) -> None:
    message = {
        "t": "create_group", "group": f"g{number}", "name": "", "namespace": None, "bundles": [{"CPU": 10_000}] * 3,
        "strategy": strategy, "detached": False, "label_selectors": [], "soft_target": "", "actor": "", "depth": 0,
        "job": driver.job_id,
    }  # fmt: skip
    driver.ask(message)
    driver.tell({"t": "group_watch", "group": f"g{number}"})
    made.network.run()
    assert driver.states[f"g{number}"] == "CREATED"
    driver.ask({"t": "remove_group", "group": f"g{number}"})
    made.network.run()


def test_placing_an_actor_or_a_group_does_not_look_at_every_node() -> None:
    """Before: at all of them for each actor, and several times for each group."""

    def do(made: Any, driver: Any, number: int) -> dict[str, int]:
        found = {}
        for strategy in (None, "SPREAD"):
            number += 1
            found[f"actor {strategy}"] = operations(lambda strategy=strategy: create(made, driver, number, strategy))
            assert driver.states[f"{driver.id}{number:016x}"] == "ALIVE"
        for strategy in ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"):
            number += 1
            found[strategy] = operations(
                lambda strategy=strategy: make_and_remove_group(made, driver, number, strategy)
            )
        return found

    def taken(nodes: int) -> dict[str, int]:
        made, driver = cluster(nodes)
        for number in (100, 200):  # what is placed for the first time is
            do(made, driver, number)
            made.pass_s(1.0)
        found = do(made, driver, 300)
        assert made.faults() == []
        return found

    few, many = taken(15), taken(150)
    assert {what: many[what] > 1.15 * few[what] for what in few} == dict.fromkeys(few, False), (few, many)


def test_asking_for_a_lease_does_not_look_at_every_node() -> None:
    from umbel._model import placement, resources
    from umbel._scheduling import forwarding, policies

    def taken(nodes: int) -> int:
        """Of ten leases, each granted before the next."""
        machine = forwarding.Forwarding("000", policies.HybridPolicy())
        one = resources.ResourceSet({"CPU": 10_000})
        names = [f"{number:03}" for number in range(nodes)]

        def see(name: str) -> None:
            machine.apply(
                forwarding.NodeSeen(
                    placement.NodeView(name, one, one, is_local=name == names[0], is_draining=False), 0.0
                )
            )

        def ask(client: str) -> None:
            (want,) = machine.apply(forwarding.WishChanged(client, "k", (placement.Demand(one),), 1, 0.0))
            machine.apply(
                forwarding.Granted(want.node, client, "k", 0.0),
                forwarding.NodeSeen(placement.NodeView(want.node, one, resources.EMPTY), 0.0),
            )

        for name in names:
            see(name)
        ask("first")
        found = operations(lambda: [ask(f"c{number}") for number in range(10)])
        machine.check()
        return found

    few, many = taken(20), taken(400)
    assert many <= 1.15 * few


def test_what_many_placement_groups_wait_for_is_looked_for_once() -> None:
    from umbel._control import group_events, groups
    from umbel._model import placement, resources

    def taken(waiting: int) -> int:
        """When one more node comes, and none can ever hold what so many groups want."""
        table, one = groups.GroupTable(), resources.ResourceSet({"CPU": 10_000})
        views = [placement.NodeView(f"{number:02}", one, one) for number in range(51)]
        table.apply(group_events.NodesSeen(views[:50], 0.0))
        for number in range(waiting):
            bundles = (one, one.add(one))
            spec = group_events.GroupSpec(f"g{number}", "driver", "", "", bundles, "SPREAD", is_detached=False)
            table.apply(group_events.GroupCreated(spec, "driver", None, 0.0))
        found = operations(lambda: table.apply(group_events.NodeSeen(views[50], 1.0)))
        assert [one.is_infeasible for one in table.listed()] == [True] * waiting
        table.check()
        return found

    few, many = taken(5), taken(50)
    assert (many - few) / 45 < few / 20, (few, many)  # else each is as dear as the first


# ---- nodes that come, go and change ----


def members_of(count: int) -> Any:
    """More than are told at once of each that comes. Two of them read what they are told of others."""
    made, driver = cluster(count)
    made.pass_s(5.0)
    made.pass_s(5.0)
    return made, driver


def test_a_node_that_joins_costs_the_head_no_look_at_every_node() -> None:
    """Before: what it is told of all was put together for it, and all others were told of it by themselves."""

    def taken(nodes: int) -> int:
        made, _ = members_of(nodes)
        made.join(cpus=4)  # a listing is made for it
        found = operations(lambda: made.join(cpus=4))
        made.pass_s(5.0)
        assert made.faults() == []
        return found

    few, many = taken(60), taken(240)
    assert many <= 1.15 * few, (few, many)


def test_a_head_that_looks_who_lives_does_not_look_at_every_node() -> None:
    """Before: once a second at when each was heard."""
    few, many = (operations(members_of(nodes)[0].tick_head) for nodes in (60, 240))
    assert many <= 1.15 * few, (few, many)


def test_of_nodes_that_die_together_all_hear_in_one_frame() -> None:
    """Before: each took a list of all members, or a frame to each where they said goodbye."""
    from umbel._control import nodes as control_nodes

    def taken(nodes: int) -> int:
        names = [f"{number:012x}".ljust(56, "0") for number in range(nodes + 1)]
        facts = [{"node_id": name, "version": "1"} for name in names]
        table = control_nodes.NodeTable(facts[0], {}, health=control_nodes.Health(), now_s=0.0, time_s=0.0)
        for link in range(1, nodes + 1):
            table.apply(control_nodes.NodeJoined(names[link], link, 1, facts[link], {}, "", 0.0))
        now_s = table.next_tick_s
        table.apply(control_nodes.Ticked(now_s))  # all are told who came
        gone = [control_nodes.NodeLeft(names[link], link, "it ends", now_s) for link in range(5, 15)]
        return operations(lambda: [table.apply(one) for one in gone])

    few, many = taken(80), taken(320)
    assert many <= 1.05 * few, (few, many)


def test_the_death_of_a_node_costs_no_look_at_what_is_elsewhere() -> None:
    """Before: at each actor that is on any other node, and at each group."""

    def taken(elsewhere: int) -> int:
        made, driver = cluster(nodes=4)
        for node in made.nodes:
            node.total["CPU"] = node.free["CPU"] = 10_000 * 1_000
        made.pass_s(1.0)
        for number in range(elsewhere):
            create(made, driver, number)
            strategy = ("PACK", "STRICT_PACK")[number % 2]
            make_and_remove_group(made, driver, number, strategy)
        died = made.nodes.pop()
        assert not died.hosts
        return operations(lambda: made.head.members.node_gone(died.node_id, "it was killed"))

    few, many = taken(5), taken(50)
    assert many <= 1.1 * few, (few, many)


def test_news_costs_a_member_no_look_at_every_node() -> None:
    from umbel._agent import membership

    def taken(nodes: int) -> int:
        machine = membership.Membership(now_s=0.0)
        known = tuple(
            {"node_id": f"{number:056x}", "version": "1", "address": "h:1", "alive": number > 40, "reason": "gone", "waiting": 0}
            for number in range(nodes)
        )  # fmt: skip
        machine.apply(membership.Looked({}, 0.0))
        machine.apply(membership.Connected(1, 0.0))
        machine.apply(membership.Welcomed(1, "c", 3.0, 10.0, known, 0.0))
        change = {"node_id": f"{50:056x}", "waiting": 1}
        return operations(lambda: machine.apply(membership.Told(1, (change,), 1.0)))

    few, many = taken(60), taken(600)
    assert many == few


def test_when_a_group_is_due_costs_no_look_at_all_that_wait() -> None:
    """The daemon asks each time that it has done something."""
    from umbel._control import group_events, groups
    from umbel._model import placement, resources

    def taken(waiting: int) -> int:
        table, one = groups.GroupTable(infeasible_timeout_s=60.0), resources.ResourceSet({"CPU": 10_000})
        table.apply(group_events.NodeSeen(placement.NodeView("a", one, one), 0.0))
        for number in range(waiting):
            spec = group_events.GroupSpec(f"g{number}", "driver", "", "", (one.add(one),), "PACK", is_detached=False)
            table.apply(group_events.GroupCreated(spec, "driver", None, float(number)))
        assert table.next_tick_s() == groups.INFEASIBLE_WARNING_S

        def change_one() -> None:
            table.apply(group_events.RemovalWanted("g0", 0.0))
            assert table.next_tick_s() == 1.0 + groups.INFEASIBLE_WARNING_S

        return operations(change_one)

    few, many = taken(20), taken(400)
    assert many <= 1.05 * few, (few, many)


def test_when_a_lease_is_to_be_tried_elsewhere_costs_no_look_at_all_that_were_asked() -> None:
    from umbel._model import placement, resources
    from umbel._scheduling import forwarding, policies

    def taken(nodes: int) -> int:
        machine = forwarding.Forwarding("000", policies.HybridPolicy())
        one = resources.ResourceSet({"CPU": 10_000})
        for number in range(nodes):
            view = placement.NodeView(f"{number:03}", one, one, is_local=number == 0)
            machine.apply(forwarding.NodeSeen(view, 0.0))
        machine.apply(forwarding.WishChanged("c", "k", (placement.Demand(one),), nodes, 0.0))
        assert machine.next_tick_s() == forwarding.PATIENCE_S

        def grant_one() -> None:
            full = placement.NodeView("007", one, resources.EMPTY)
            machine.apply(forwarding.Granted("007", "c", "k", 0.5), forwarding.NodeSeen(full, 0.5))
            assert machine.next_tick_s() == forwarding.PATIENCE_S

        return operations(grant_one)

    few, many = taken(20), taken(400)
    assert many <= 1.15 * few, (few, many)


def test_what_the_autoscaler_decides_costs_no_look_at_each_task_or_node_to_be_launched() -> None:
    """Before: 1.2 s for 1,000,000 tasks that need 125,000 nodes, at each of which it looked."""
    from umbel._autoscaling import autoscaler, demand, events, node_types
    from umbel._model import resources

    def taken(tasks: int) -> int:
        kind = node_types.NodeType("worker", resources.ResourceSet({"CPU": 640_000, "GPU": 80_000}), 1_000_000)
        machine = autoscaler.Autoscaler(node_types.Settings((kind,), 1_000_000, upscaling_speed=10.0))
        for number in range(5):
            has = kind.resources
            machine.apply(events.NodeSeen(f"n{number}", "worker", has, resources.EMPTY, {}, None, 0.0))
        shapes = tuple(
            demand.Shape(resources.ResourceSet({"CPU": cpus * 10_000, "GPU": 10_000}), tasks // 5) for cpus in range(5)
        )
        machine.apply(events.DemandChanged(shapes, (), 0.0))
        return operations(lambda: machine.apply(events.Ticked(0.0)))

    few, many = taken(1_000), taken(1_000_000)
    assert many <= 1.5 * few, (few, many)


def test_when_a_node_is_to_be_dialled_costs_no_look_at_all_nodes() -> None:
    """The daemon asks each time that it has done something."""
    from umbel._agent import lease_links
    from umbel._base import tokens
    from umbel._transport import connection

    def taken(nodes: int) -> int:
        daemon: Any = types.SimpleNamespace(poller=connection.Poller(), now_s=lambda: 0.0, reacher=lambda: None)
        token = tokens.Token(tokens.Role.NODE, bytes(tokens.KEY_BYTES))
        links = lease_links.LeaseLinks(daemon, "aa" * 28, token, daemon, lambda _job: {})
        for number in range(nodes):
            links.add(f"{number:056x}", "127.0.0.1:1")
        found = operations(lambda: [links.next_tick_s(), links.tick()])
        links.close()
        daemon.poller.close()
        return found

    assert taken(400) == taken(20)
