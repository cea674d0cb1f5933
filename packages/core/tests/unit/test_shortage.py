"""Who has to go when memory is short, as lists of what was seen."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._agent import shortage
from umbel._agent.shortage import Dismiss, Gone, Kill, MemoryMonitor, Sampled, Use

MIB = 1 << 20
LIMIT = 1_000 * MIB
ALLOWED = 950 * MIB


class Node:
    """Looks at a node with a limit of 1,000 MiB, of which 950 may be used."""

    def __init__(self) -> None:
        self.monitor = MemoryMonitor(threshold=0.95)
        self.at_s = 0.0

    def look(self, used_mib: float, *uses: Use, after_s: float = 0.1) -> list[Any]:
        self.at_s += after_s
        sample = Sampled(int(used_mib * MIB), LIMIT, "these use", uses, 1e-4, self.at_s)
        return self.monitor.apply(sample)

    def gone(self, worker: str) -> None:
        assert self.monitor.apply(Gone(worker, self.at_s)) == []


def task(worker: str, mib: float, *, number: int = 1, allowed_mib: int = 0, cost: int = shortage.RETRIED) -> Use:
    return Use(worker, int(mib * MIB), "driver", "", number, allowed_mib * MIB, cost)


def actor(worker: str, mib: float, *, cost: int = shortage.RESTARTED) -> Use:
    return Use(worker, int(mib * MIB), "", f"actor-{worker}", -1, 0, cost)


def idle(worker: str, mib: float) -> Use:
    return Use(worker, int(mib * MIB))


def killed(commands: list[Any]) -> list[str]:
    assert all(isinstance(command, Kill) for command in commands)
    return [command.worker for command in commands]


@pytest.fixture
def node() -> Node:
    return Node()


def test_nothing_happens_while_there_is_enough(node: Node) -> None:
    assert node.look(500, task("a", 400), task("b", 20)) == []
    assert node.look(950, task("a", 850), task("b", 20)) == []


def test_worker_that_grew_is_killed_and_not_the_oldest_or_the_largest(node: Node) -> None:
    """The actor has held its 500 MiB for an hour; the task has grown now."""
    node.look(600, actor("model", 500))
    node.look(620, actor("model", 500), task("hog", 20), after_s=3_600)
    node.look(800, actor("model", 500), task("hog", 200))
    assert killed(node.look(960, actor("model", 500), task("hog", 360))) == ["hog"]


def test_hog_is_killed_among_modest_ones(node: Node) -> None:
    modest = [task(f"m{index}", 60) for index in range(5)]
    node.look(200, task("hog", 20), *(task(f"m{index}", 20) for index in range(5)))
    assert killed(node.look(960, *modest, task("hog", 500))) == ["hog"]


def test_first_look_counts_what_a_worker_has_beyond_a_fresh_one(node: Node) -> None:
    """It has grown before anybody looked."""
    node.look(300, task("old", 200))
    assert killed(node.look(970, task("old", 210), task("new", 600))) == ["new"]


def test_growth_of_the_past_fades(node: Node) -> None:
    node.look(100, task("early", 20), task("late", 20))
    node.look(500, task("early", 420), task("late", 20))
    node.look(520, task("early", 420), task("late", 40), after_s=300)
    assert killed(node.look(960, task("early", 420), task("late", 480))) == ["late"]


def test_memory_that_was_given_back_is_no_growth(node: Node) -> None:
    node.look(100, task("tidy", 20), task("grows", 20))
    node.look(600, task("tidy", 400), task("grows", 100))
    node.look(300, task("tidy", 20), task("grows", 200))
    assert killed(node.look(960, task("tidy", 100), task("grows", 300))) == ["grows"]


def test_task_within_its_memory_is_spared_while_others_exceed_theirs(node: Node) -> None:
    node.look(100, task("asked", 20, allowed_mib=700), task("silent", 20))
    assert killed(node.look(960, task("asked", 650, allowed_mib=700), task("silent", 200))) == ["silent"]


def test_task_within_its_memory_goes_when_nobody_else_is_to_blame(node: Node) -> None:
    node.look(100, task("asked", 20, allowed_mib=700), task("silent", 20))
    assert killed(node.look(960, task("asked", 650, allowed_mib=700), task("silent", 22))) == ["asked"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (shortage.FREE, shortage.RETRIED),
        (shortage.RETRIED, shortage.RESTARTED),
        (shortage.RESTARTED, shortage.LOST_TASK),
        (shortage.LOST_TASK, shortage.LOST_ACTOR),
    ],
)
def test_among_the_guilty_the_cheapest_goes(node: Node, first: int, second: int) -> None:
    node.look(100, task("a", 20, cost=first), task("b", 20, cost=second))
    assert killed(node.look(960, task("a", 300, cost=first), task("b", 500, cost=second))) == ["a"]


def test_cheapest_is_not_killed_for_the_guilt_of_another(node: Node) -> None:
    node.look(100, task("a", 20), task("b", 20, cost=shortage.LOST_TASK))
    assert killed(node.look(960, task("a", 100), task("b", 700, cost=shortage.LOST_TASK))) == ["b"]


def test_kill_takes_effect_before_the_next(node: Node) -> None:
    def look(after_s: float = 0.1) -> list[Any]:
        return node.look(960, task("b", 400), task("c", 300), after_s=after_s)

    node.look(100, task("a", 20), task("b", 20), task("c", 20))
    assert killed(node.look(990, task("a", 450), task("b", 390), task("c", 290))) == ["a"]
    assert look() == []  # it is dying, and its memory not back
    node.gone("a")
    assert killed(look()) == ["b"]


def test_process_that_does_not_die_is_not_waited_for_for_ever(node: Node) -> None:
    node.look(100, task("a", 20), task("b", 20))
    assert killed(node.look(990, task("a", 450), task("b", 440))) == ["a"]
    assert killed(node.look(990, task("b", 440), after_s=shortage.TAKE_EFFECT_S + 0.1)) == ["b"]


def test_idle_workers_are_asked_to_leave_first(node: Node) -> None:
    node.look(100, task("a", 20), idle("spare", 20))
    assert node.look(960, task("a", 500), idle("spare", 300)) == [Dismiss("spare")]
    assert node.look(960, task("a", 500), idle("spare", 300)) == []
    assert killed(node.look(960, task("a", 500), idle("spare", 300), after_s=shortage.DISMISSED_S)) == ["a"]


def test_who_has_not_grown_is_left_alone_for_a_while(node: Node) -> None:
    """Another session is the cause, whose own monitor will kill."""
    node.look(500, actor("ours", 100))
    node.look(500, actor("ours", 100), after_s=600)
    assert node.look(960, actor("ours", 100)) == []
    assert node.look(960, actor("ours", 100), after_s=1.0) == []
    assert node.look(700, actor("ours", 100)) == []
    assert node.look(960, actor("ours", 100)) == []
    assert killed(node.look(960, actor("ours", 100), after_s=shortage.PATIENCE_S)) == ["ours"]


def test_who_holds_little_is_never_killed(node: Node) -> None:
    small = task("a", 15), task("b", 15)
    assert node.look(999, *small) == []
    assert node.look(999, *small, after_s=10.0) == [shortage.Helpless(999 * MIB, LIMIT, "these use")]
    assert node.look(999, *small, after_s=10.0) == []
    assert node.look(999, *small, after_s=shortage.COMPLAINT_S) == [shortage.Helpless(999 * MIB, LIMIT, "these use")]


def test_many_small_workers_are_worth_killing_together(node: Node) -> None:
    """No one of a hundred holds a fiftieth of the memory."""
    node.look(200, *(task(f"w{index}", 1) for index in range(100)))
    assert len(killed(node.look(960, *(task(f"w{index}", 9) for index in range(100))))) == 1


def test_report_says_how_it_came(node: Node) -> None:
    node.look(100, task("a", 20), task("b", 30))
    node.look(400, task("a", 200), task("b", 30))
    (kill,) = node.look(970, task("a", 700), task("b", 30))
    assert kill.cost == shortage.RETRIED
    assert kill.report == {
        "source": "these use",
        "used_bytes": 970 * MIB,
        "limit_bytes": LIMIT,
        "allowed_bytes": ALLOWED,
        "worker": "a",
        "resident_bytes": 700 * MIB,
        "peak_bytes": 700 * MIB,
        "growth_bytes": kill.report["growth_bytes"],
        "demand_bytes": 0,
        "alone": True,
        "curve": [[0.0, 20 * MIB], [0.1, 200 * MIB], [0.2, 700 * MIB]],
        "others": [{"worker": "b", "actor": "", "bytes": 30 * MIB}],
        "outside_bytes": 240 * MIB,
    }
    assert 678 * MIB < kill.report["growth_bytes"] <= 680 * MIB


@pytest.mark.parametrize(
    ("used_mib", "uses", "is_alone"),
    [
        (960, (task("a", 600), task("b", 250)), False),  # b took part
        (960, (task("a", 400),), False),  # others than ours hold most
        (960, (task("a", 600), task("b", 20), task("c", 15)), True),
    ],
)
def test_who_is_alone_is_told_so(node: Node, used_mib: int, uses: tuple[Use, ...], is_alone: bool) -> None:
    node.look(100, *(task(use.worker, 10) for use in uses))
    (kill,) = node.look(used_mib, *uses)
    assert (kill.worker, kill.report["alone"]) == ("a", is_alone)


def test_peak_is_that_of_the_task_that_runs(node: Node) -> None:
    node.look(100, task("a", 20, number=1))
    node.look(500, task("a", 400, number=1))
    node.look(100, task("a", 50, number=2))
    (kill,) = node.look(960, task("a", 350, number=2))
    assert kill.report["peak_bytes"] == 350 * MIB
    assert [size // MIB for _, size in kill.report["curve"]] == [20, 400, 50, 350]


def test_curve_has_a_bound_and_keeps_both_ends(node: Node) -> None:
    for step in range(10_000):
        node.look(100, task("a", 20 + step / 100))
    (kill,) = node.look(960, task("a", 800))
    curve = kill.report["curve"]
    assert len(curve) <= shortage.CURVE_POINTS_MAX + 1
    assert curve[0] == [0.0, 20 * MIB]
    assert curve[-1] == [1_000.0, 800 * MIB]
    assert curve == sorted(curve)


def test_looks_are_rare_while_there_is_plenty_and_frequent_when_it_is_short(node: Node) -> None:
    def wait_s(used_mib: int) -> float:
        node.look(used_mib, task("a", 10))
        return (node.monitor.look_again_s() or 0.0) - node.at_s

    assert wait_s(100) == pytest.approx(850 / 4096 / 2)
    assert wait_s(940) == pytest.approx(shortage.LOOK_S_MIN)
    big = MemoryMonitor(threshold=0.95)
    big.apply(Sampled(1 << 30, 64 << 30, "", (task("a", 10),), 1e-4, 0.0))
    assert big.look_again_s() == shortage.LOOK_S_MAX


def test_nobody_looks_while_no_worker_is_in_use(node: Node) -> None:
    node.look(100, idle("a", 20))
    assert node.monitor.look_again_s() is None


def test_looking_has_a_bounded_share_of_a_core() -> None:
    monitor = MemoryMonitor(threshold=0.95)
    for at_s, used_bytes, wait_s in (
        (1.0, 1 << 30, 0.01 / shortage.COST_SHARE_CALM),
        (2.0, 8 << 30, shortage.LOOK_S_MAX),  # it grows
        (3.0, 8 << 30, 0.01 / shortage.COST_SHARE_CALM),
        (4.0, 62 << 30, 0.01 / shortage.COST_SHARE_MAX),
    ):
        monitor.apply(Sampled(used_bytes, 64 << 30, "", (task("a", 10),), 0.01, at_s))
        assert (monitor.look_again_s() or 0.0) - at_s == pytest.approx(wait_s, abs=0.05)


def test_reserve_is_bounded_on_large_machines() -> None:
    monitor = MemoryMonitor(threshold=0.95)
    assert monitor.allowed_bytes(1_000) == 950
    assert monitor.allowed_bytes(1 << 40) == (1 << 40) - shortage.RESERVE_BYTES_MAX


def test_report_of_one_that_the_system_killed(node: Node) -> None:
    assert node.monitor.report_of("a", 0.0) is None
    node.look(800, task("a", 700))
    report = node.monitor.report_of("a", node.at_s + 0.5)
    assert report is not None
    assert (report["worker"], report["resident_bytes"]) == ("a", 700 * MIB)
    assert node.monitor.report_of("b", node.at_s + 0.5) is None


def test_one_that_was_killed_when_there_was_plenty_was_not_killed_for_memory() -> None:
    """The system counts what it kills anywhere on the machine: elsewhere a control group may have reached its limit."""
    monitor = MemoryMonitor(threshold=0.95)
    monitor.apply(Sampled(2 << 30, 24 << 30, "these use", (task("a", 19),), 1e-4, 10.0))
    assert monitor.report_of("a", 11.0) is None
    assert monitor.report_of("a", 13.0) is not None  # time enough to fill it
