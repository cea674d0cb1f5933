"""Placement groups where processes die, where nothing fits, and as they are told of."""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import commands
import drivers
import pytest

import umbel
from umbel import exceptions
from umbel._model import reasons
from umbel.util import placement_group, placement_group_table, remove_placement_group, state
from umbel.util.placement_group import PlacementGroup
from umbel.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup

SOON_S = 30.0


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    with umbel.init(num_cpus=2, namespace="here"):
        yield


@umbel.remote(num_cpus=1)
class Member:
    def pid(self) -> int:
        return os.getpid()

    def group(self) -> str | None:
        return umbel.get_runtime_context().get_placement_group_id()

    def make_group(self, **options: Any) -> PlacementGroup:
        group = placement_group([{"CPU": 1}], **options)
        assert group.wait(SOON_S)
        return group


@umbel.remote
def hold(path: str) -> str | None:
    pathlib.Path(f"{path}.{os.getpid()}").touch()
    while not pathlib.Path(path).exists():
        time.sleep(0.005)
    return umbel.get_runtime_context().get_placement_group_id()


@umbel.remote(num_cpus=0.1)
def group_id() -> str | None:
    return umbel.get_runtime_context().get_placement_group_id()


def state_of(group: PlacementGroup) -> str:
    found: str = placement_group_table(group)["state"]
    return found


def holders(path: pathlib.Path) -> list[int]:
    """The processes that run `hold`, once there are some."""
    found = drivers.wait_until(lambda: list(path.parent.glob(f"{path.name}.*")), what="a task to start")
    return [int(one.suffix[1:]) for one in found]


class TestDeaths:
    pytestmark = pytest.mark.slow

    def test_an_actor_that_is_killed_leaves_its_bundle_and_comes_back_to_it(self) -> None:
        group = placement_group([{"CPU": 1}])
        actor = Member.options(max_restarts=1, max_task_retries=1, scheduling_strategy=InGroup(group, 0)).remote()
        first = umbel.get(actor.pid.remote(), timeout=SOON_S)
        drivers.kill(first)
        assert umbel.get(actor.pid.remote(), timeout=SOON_S) != first
        assert umbel.get(actor.group.remote(), timeout=SOON_S) == group.id.hex()
        drivers.kill(umbel.get(actor.pid.remote(), timeout=SOON_S))
        with pytest.raises(exceptions.ActorDiedError):
            umbel.get(actor.pid.remote(), timeout=SOON_S)
        drivers.wait_until(lambda: umbel.available_resources().get(f"CPU_group_0_{group.id.hex()}") == 1.0)
        assert umbel.available_resources()["CPU"] == 1.0

    def test_a_task_whose_worker_is_killed_runs_again_in_its_bundle(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"
        group = placement_group([{"CPU": 1}])
        ref = hold.options(max_retries=1, scheduling_strategy=InGroup(group)).remote(str(gate))
        (first,) = holders(gate)
        drivers.kill(first)
        drivers.wait_until(lambda: len(holders(gate)) == 2, what="the task to run again")
        gate.touch()
        assert umbel.get(ref, timeout=SOON_S) == group.id.hex()

    def test_removal_leaves_no_process_of_the_group(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"
        group = placement_group([{"CPU": 2}])
        actor = Member.options(max_restarts=-1, scheduling_strategy=InGroup(group)).remote()
        pid = umbel.get(actor.pid.remote(), timeout=SOON_S)
        ref = hold.options(max_retries=-1, scheduling_strategy=InGroup(group)).remote(str(gate))
        pids = [pid, *holders(gate)]
        remove_placement_group(group)
        with pytest.raises(exceptions.TaskPlacementGroupRemoved, match="was removed by remove_placement_group"):
            umbel.get(ref, timeout=SOON_S)
        with pytest.raises(exceptions.ActorPlacementGroupRemoved, match="was removed by remove_placement_group"):
            umbel.get(actor.pid.remote(), timeout=SOON_S)
        drivers.wait_until(lambda: not any(map(drivers.is_running, pids)), what="the processes to end")
        drivers.wait_until(lambda: umbel.available_resources().get("CPU") == 2.0)
        (told,) = state.list_tasks(filters=[("name", "=", "hold")], detail=True)
        assert (told.state, told.error_type) == ("FAILED", "TASK_PLACEMENT_GROUP_REMOVED")

    def test_a_group_outlives_a_plain_actor_that_made_it_but_not_a_detached_one(self) -> None:
        """As in Ray: it ends with the job, and where its creator may outlive that, with its creator."""
        plain = Member.options(num_cpus=0).remote()
        detached = Member.options(num_cpus=0, lifetime="detached", name="maker").remote()
        kept = umbel.get(plain.make_group.remote(), timeout=SOON_S)
        gone = umbel.get(detached.make_group.remote(), timeout=SOON_S)
        drivers.kill(umbel.get(plain.pid.remote(), timeout=SOON_S))
        drivers.kill(umbel.get(detached.pid.remote(), timeout=SOON_S))
        drivers.wait_until(lambda: state_of(gone) == "REMOVED", what="the group of the detached actor to go")
        assert state_of(kept) == "CREATED"
        with pytest.raises(exceptions.TaskPlacementGroupRemoved, match="with which it was to end, is gone"):
            umbel.get(gone.ready(), timeout=SOON_S)

    def test_a_detached_group_outlives_the_detached_actor_that_made_it(self) -> None:
        maker = Member.options(num_cpus=0, lifetime="detached", name="maker").remote()
        group = umbel.get(maker.make_group.remote(name="kept", lifetime="detached"), timeout=SOON_S)
        umbel.kill(maker)
        drivers.wait_until(lambda: state.list_actors(filters=[("state", "=", "DEAD")]), what="the actor to die")
        assert state_of(group) == "CREATED"

    def test_nothing_is_left_of_a_driver_that_is_killed_with_a_group(self, tmp_path: pathlib.Path) -> None:
        program = f"""
            import umbel
            from umbel.util import placement_group
            from umbel.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup

            umbel.init(num_cpus=2)
            group = placement_group([{{"CPU": 1}}, {{"CPU": 1}}], lifetime="detached", name="kept")

            @umbel.remote
            def hold():
                import pathlib, time
                pathlib.Path({str(tmp_path / "started")!r}).touch()
                time.sleep(600)

            ref = hold.options(scheduling_strategy=InGroup(group)).remote()
            umbel.get(ref)
        """
        with drivers.driver(program) as driver:
            drivers.wait_until((tmp_path / "started").exists, what="the task to start")
            driver.kill()
            driver.expect_nothing_left()


class TestWaits:
    def test_a_group_that_waits_for_tasks_says_for_whom(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"
        refs = [hold.remote(str(gate)) for _ in range(2)]
        drivers.wait_until(lambda: len(holders(gate)) == 2)
        group = placement_group([{"CPU": 1}, {"CPU": 1}], name="gang")
        inside = hold.options(scheduling_strategy=InGroup(group)).remote(str(gate))
        told = state.explain(group.ready())
        codes = [one.code for one in told.chain()]
        assert codes == [reasons.GROUP, reasons.GROUP, reasons.RESOURCES]
        assert "it needs {CPU: 2} and waits for CPU (0 of 2 free), held by 2 tasks and actors" in str(told)
        story = umbel.explain(inside)
        assert "its placement group has no place on this node yet" in story
        assert "held by 2 tasks and actors" in story
        actor = Member.options(scheduling_strategy=InGroup(group)).remote()
        about_actor = commands.run("explain", actor._actor_id_hex)
        assert "its placement group has no place on this node yet" in about_actor.stdout, about_actor.stderr
        assert "held by 2 tasks and actors" in about_actor.stdout
        del actor
        shown = commands.run("explain", group.id.hex())
        assert f"placement group {group.id.hex()} waits for node" in shown.stdout, shown.stderr
        assert "held by 2 tasks and actors" in shown.stdout
        everything = commands.run("explain").stdout
        assert f"placement group {group.id.hex()}, waiting for" in everything
        gate.touch()
        assert umbel.get(inside, timeout=SOON_S) == group.id.hex()
        umbel.get(refs, timeout=SOON_S)
        assert commands.run("explain", group.id.hex()).stdout.strip() == f"placement group {group.id.hex()} is placed"

    def test_a_get_that_times_out_says_why(self) -> None:
        group = placement_group([{"CPU": 1}] * 2, strategy="STRICT_SPREAD")
        with pytest.raises(exceptions.GetTimeoutError, match=r"one each \(STRICT_SPREAD\), but 1 node is alive"):
            umbel.get(group.ready(), timeout=0.2)

    def test_an_infeasible_group_is_warned_of(self, capfd: pytest.CaptureFixture[str]) -> None:
        group = placement_group([{"CPU": 1}] * 2, strategy="STRICT_SPREAD", name="wide")
        said: list[str] = []

        def warned() -> bool:
            said.append(capfd.readouterr().err)
            return "cannot be placed and waits" in "".join(said)

        drivers.wait_until(warned, what="the warning")
        assert f"Placement group {group.id.hex()} ('wide') cannot be placed and waits: its 2 bundles" in "".join(said)

    def test_an_infeasible_group_fails_after_the_time_that_is_set(self) -> None:
        umbel.shutdown()
        umbel.init(num_cpus=2, infeasible_timeout_s=0.3)
        group = placement_group([{"CPU": 9}])
        inside = hold.options(scheduling_strategy=InGroup(group)).remote("")
        with pytest.raises(exceptions.TaskUnschedulableError, match=r"needs {CPU: 9}.*infeasible_timeout_s"):
            umbel.get(group.ready(), timeout=SOON_S)
        with pytest.raises(exceptions.TaskPlacementGroupRemoved, match="infeasible_timeout_s"):
            umbel.get(inside, timeout=SOON_S)

    def test_who_waits_when_the_daemon_dies_is_told(self) -> None:
        group = placement_group([{"CPU": 9}])
        ref = group.ready()
        daemon = next(one["pid"] for one in _processes() if one["component"] == "daemon")
        drivers.kill(daemon)
        with pytest.raises(exceptions.LocalNodeDiedError):
            umbel.get(ref, timeout=SOON_S)

    def test_a_group_does_not_starve_beside_a_stream_of_tasks(self) -> None:
        @umbel.remote
        def brief() -> None:
            time.sleep(0.01)

        refs = [brief.remote() for _ in range(4_000)]  # for 20 s, at the least
        umbel.get(refs[0], timeout=SOON_S)
        group = placement_group([{"CPU": 2}])
        assert group.wait(SOON_S)
        assert len(umbel.wait(refs, num_returns=len(refs), timeout=0)[1]) > 0, "it only came once all tasks had ended"


def _processes() -> list[dict[str, Any]]:
    from umbel._client import current

    found: list[dict[str, Any]] = current.engine().query("processes")
    return found


class TestListings:
    def test_groups_are_listed(self) -> None:
        group = placement_group([{"CPU": 1}, {"CPU": 0.5}], name="listed", lifetime="detached")
        assert group.wait(SOON_S)
        infeasible = placement_group([{"CPU": 9}])
        (told,) = state.list_placement_groups(filters=[("name", "=", "listed")], detail=True)
        context = umbel.get_runtime_context()
        assert (told.placement_group_id, told.state, told.is_detached) == (group.id.hex(), "CREATED", True)
        assert told.creator_job_id == context.get_job_id()
        assert told.bundles is not None
        assert [one["unit_resources"] for one in told.bundles] == [{"CPU": 1.0}, {"CPU": 0.5}]
        assert {one["node_id"] for one in told.bundles} == {context.get_node_id()}
        found = state.get_placement_group(infeasible.id.hex())
        assert found is not None
        assert (found.state, found.stats["scheduling_state"] if found.stats else "") == ("PENDING", "INFEASIBLE")
        remove_placement_group(infeasible)
        assert {one.state for one in state.list_placement_groups()} == {"CREATED", "REMOVED"}

    def test_the_command_lists_groups(self) -> None:
        group = placement_group([{"CPU": 1}], name="shown")
        assert group.wait(SOON_S)
        done = commands.run("list", "placement-groups", "--format", "json")
        (row,) = json.loads(done.stdout)
        assert (row["placement_group_id"], row["name"], row["state"]) == (group.id.hex(), "shown", "CREATED")
        assert "shown" in commands.run("get", "placement-groups", group.id.hex()).stdout

    def test_actors_are_listed_with_their_group(self) -> None:
        group = placement_group([{"CPU": 1}])
        actor = Member.options(scheduling_strategy=InGroup(group)).remote()
        umbel.get(actor.pid.remote(), timeout=SOON_S)
        (told,) = state.list_actors(detail=True)
        assert told.placement_group_id == group.id.hex()


def test_many_groups_come_and_go() -> None:
    """Nothing is left of them in the daemon but what is remembered, nor in the driver."""
    from umbel._client import current

    for _ in range(20):
        groups = [placement_group([{"CPU": 0.5}]) for _ in range(4)]
        refs = [group_id.options(scheduling_strategy=InGroup(one)).remote() for one in groups]
        assert umbel.get(refs, timeout=SOON_S) == [one.id.hex() for one in groups]
        for one in groups:
            remove_placement_group(one)
    drivers.wait_until(lambda: umbel.available_resources().get("CPU") == 2.0)
    engine = current.engine()
    assert not engine.groups._placed
    later = group_id.options(scheduling_strategy=InGroup(groups[0])).remote()
    with pytest.raises(exceptions.TaskPlacementGroupRemoved):
        umbel.get(later, timeout=SOON_S)
    drivers.wait_until(lambda: len(engine.leases.classes) <= 4, what="the classes of removed groups to go")


@umbel.remote(num_cpus=0)
def remove_it(group: PlacementGroup) -> None:
    remove_placement_group(group)


@pytest.mark.parametrize("is_own", [True, False])
def test_what_was_placed_at_once_is_known_to_be_gone_when_it_is(is_own: bool) -> None:
    """Whoever has made it does not ask whether it is placed."""
    group = placement_group([{"CPU": 1}])
    assert group.wait(0)
    assert umbel.get(group.ready(), timeout=SOON_S) == group
    if is_own:
        remove_placement_group(group)
    else:
        umbel.get(remove_it.remote(group), timeout=SOON_S)
    with pytest.raises(exceptions.TaskPlacementGroupRemoved):
        group.wait(SOON_S)
