"""What the autoscaler says of what it does."""

from __future__ import annotations

from typing import Any

from umbel._agent import scaling
from umbel._autoscaling import autoscaler, demand, events, node_types, report
from umbel._model.resources import ResourceSet

SMALL = node_types.NodeType("small", ResourceSet.from_floats({"CPU": 1}), 3, 1)


def told(*given: events.Event, at_s: float = 0.0) -> tuple[autoscaler.Autoscaler, dict[str, Any]]:
    machine = autoscaler.Autoscaler(node_types.Settings((SMALL,), 3, idle_timeout_s=10.0))
    for event in given:
        machine.apply(event)
    return machine, report.of_machine(machine, at_s)


def cpus(count: float, times: int = 1) -> demand.Shape:
    return demand.Shape(ResourceSet.from_floats({"CPU": count}), times)


def seen(name: str, idle_s: float | None = None) -> events.NodeSeen:
    has = ResourceSet.from_floats({"CPU": 1})
    return events.NodeSeen(name, "small", has, has, {}, idle_s, 0.0)


def test_launches_without_an_answer_are_coming() -> None:
    _, found = told(events.DemandChanged((cpus(1, 2),), (), 0.0), events.Ticked(0.0))
    assert report.in_words(found) == [
        "0 of at most 3 nodes are there or on their way",
        "is launching 1 of small, for 0 s: min_workers is 1",
        "is launching 1 of small, for 0 s: {CPU: 1}, which waits",
    ]


def test_nodes_say_why_they_are_kept_and_what_they_were_launched_for() -> None:
    _, found = told(
        events.Ticked(0.0), events.LaunchAnswered(1, ("n1",), 1.0), seen("n1"), events.Ticked(2.0), at_s=2.0
    )
    assert report.in_words(found) == [
        "1 of at most 3 nodes are there or on their way",
        "small n1 is alive: it is in use (launched for: min_workers is 1)",
    ]


def test_what_could_not_be_launched_and_what_finds_no_room_is_said() -> None:
    machine, _ = told(events.DemandChanged((cpus(9),), (), 0.0), events.Ticked(0.0))
    machine.apply(events.LaunchAnswered(1, (), 1.0, "out of quota"))
    machine.apply(events.Ticked(2.0))
    lines = report.in_words(report.of_machine(machine, 2.0))
    assert "no room for {CPU: 9}, which waits:" in "\n".join(lines) or "no room for {CPU: 9}:" in lines
    assert "small could not be launched, 1 times in a row, and is tried again in 4 s: out of quota" in lines


def answer(machine: autoscaler.Autoscaler, at_s: float) -> dict[str, Any]:
    return {"trouble": "", "age_s": 0.0, "report": {"scaling": report.of_machine(machine, at_s), "troubles": []}}


def lacks(count: float, **labels: str) -> dict[str, Any]:
    return {"needs": {"CPU": int(count * 10_000)}, "labels": [[list(one) for one in labels.items()]] if labels else []}


def test_what_is_done_about_one_demand() -> None:
    machine, _ = told(events.DemandChanged((cpus(1, 2), cpus(9)), (), 0.0), events.Ticked(0.0))
    assert report.about(answer(machine, 7.0), lacks(1)) == "is launching 1 of small for it, for 7 s"
    assert report.about(answer(machine, 0.0), lacks(7)) == ""
    assert report.about(answer(machine, 0.0), lacks(9)) == (
        "launches nothing for it (small: a node of it has {CPU: 1}, less than {CPU: 9})"
    )
    machine.apply(events.LaunchAnswered(2, ("n1",), 1.0))
    assert report.about(answer(machine, 1.0), lacks(1)) == "has launched small n1 for it, which has not joined yet"
    assert report.about({"trouble": "it ended", "age_s": 0.0, "report": None}, lacks(1)) == "does not run: it ended"


def test_what_is_done_about_a_demand_with_labels_is_not_told_of_one_without() -> None:
    gpus = demand.Shape(ResourceSet.from_floats({"GPU": 2}), 2, ((("zone", "a"),),))
    machine, _ = told(events.DemandChanged((cpus(9)._replace(label_selectors=gpus.label_selectors), gpus), (), 0.0))
    machine.apply(events.Ticked(0.0))
    assert report.about(answer(machine, 0.0), lacks(9)) == ""
    assert report.about(answer(machine, 0.0), lacks(9, zone="b")) == ""
    assert report.about(answer(machine, 0.0), lacks(9, zone="a")) == (
        "launches nothing for it (small: its labels are {}, not zone=a)"
    )


def test_what_a_type_lacks_is_told_and_not_what_else_it_has() -> None:
    large = node_types.NodeType("large", ResourceSet.from_floats({"CPU": 8, "object_store_memory": 83886100}), 3, 0)
    machine = autoscaler.Autoscaler(node_types.Settings((large,), 3, idle_timeout_s=10.0))
    gpus = demand.Shape(ResourceSet.from_floats({"CPU": 1, "GPU": 2}))
    machine.apply(events.DemandChanged((gpus,), (), 0.0))
    machine.apply(events.Ticked(0.0))
    assert report.about(answer(machine, 0.0), {"needs": {"CPU": 10_000, "GPU": 20_000}, "labels": []}) == (
        "launches nothing for it (large: a node of it has {CPU: 8, GPU: 0}, less than {CPU: 1, GPU: 2})"
    )


def test_what_is_done_about_a_placement_group() -> None:
    group = demand.Group("abc", (ResourceSet.from_floats({"CPU": 9}),), "PACK")
    machine, _ = told(events.DemandChanged((), (group,), 0.0), events.Ticked(0.0))
    assert report.about(answer(machine, 0.0), {"group": "ab"}) == ""
    assert report.about(answer(machine, 0.0), {"group": "abc"}).startswith("launches nothing for it (small: ")


def test_node_that_goes_says_why_and_one_that_was_not_drained_is_kept_again() -> None:
    machine, _ = told(seen("n1", 0.0), seen("n2", 0.0), events.Ticked(20.0), at_s=20.0)

    def states() -> dict[str, tuple[str, str]]:
        return {one["node"]: (one["state"], one["why"]) for one in report.of_machine(machine, 20.0)["nodes"]}

    (going,) = [name for name, (state, _) in states().items() if state == "draining"]
    assert states()[going][1] == "it is idle for 20 s, and nothing needs it"
    machine.apply(events.DrainAnswered(going, False, 20.0))
    machine.apply(events.Ticked(21.0))
    assert states()[going] == ("alive", "its type's min_workers are 1")  # the other one goes instead


def test_answer_says_whether_it_is_fresh() -> None:
    _, scaling = told()
    said = {"cluster_name": "c", "troubles": ["the launcher cannot say what runs: x"], "scaling": scaling, "at_s": 0.0}
    answer = {"trouble": "", "age_s": 1.0, "report": said}
    assert report.answer_in_words(answer)[0] == "the launcher cannot say what runs: x"
    assert report.answer_in_words({**answer, "age_s": 60.0})[0] == "has said last 60 s ago:"
    assert report.answer_in_words({**answer, "report": None}) == ["has just started"]
    dead = {**answer, "trouble": "its process has ended", "report": None}
    assert report.answer_in_words(dead) == ["does not run: its process has ended"]


def test_what_the_head_tells_of_a_node_that_is_awaited_or_drained() -> None:
    """Before: an awaited node was taken for full, and others were launched for what it could serve."""
    listed = {
        "node_id": "n", "alive": True, "resources": {"CPU": 4}, "available": {"CPU": 1}, "labels": {}, "waiting": 0,
    }  # fmt: skip
    as_told = {
        "node_id": "n",
        "alive": True,
        "total": {"CPU": 4},
        "available": {"CPU": 1},
        "labels": {},
        "idle": 3,
        "draining": "",
    }
    assert scaling._observed_node(listed, {"idle": 3}) == as_told
    awaited = {**listed, "available": {}, "is_awaited": True}
    assert scaling._observed_node(awaited, {}) == {**as_told, "available": {"CPU": 4}, "idle": 0}
    drained = {**listed, "draining": {"reason": "preemption", "message": "spot"}}
    words = "it is being drained (preemption: spot)"
    assert scaling._observed_node(drained, {}) == {**as_told, "available": {}, "idle": 0, "draining": words}
    assert scaling._observed_node({**awaited, **drained}, {})["available"] == {}
