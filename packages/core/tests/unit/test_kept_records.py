"""What of the tables is written, and what a service that starts again makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from umbel import exceptions
from umbel._control import actors, group_events, groups, jobs, kept, nodes, records
from umbel._control import events as ev
from umbel._control.events import ActorSpec, ActorState, Cause
from umbel._model import placement, resources

FACTS = {"entrypoint": "python program.py", "sys_path": ["/here"]}
REASON = "its node ended"


class Disk:
    """Tables, and what has been written of them."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.tables = kept.Kept([], 0.0)

    def write(self) -> list[str]:
        """The keys, sorted."""
        writes = self.tables.writes()
        for key, value in writes.items():
            if value is None:
                del self.stored[key]
            else:
                self.stored[key] = value
        return sorted(writes)

    def start_again(self) -> kept.Kept:
        """Without what has not been written."""
        self.tables = kept.Kept(self.stored.items(), 100.0)
        return self.tables


@pytest.fixture
def disk() -> Disk:
    return Disk()


def spec(actor: str = "a", *, name: str = "", max_restarts: int = 0, **more: Any) -> ActorSpec:
    detached = more.pop("is_detached", True)
    owner = more.pop("owner", "driver")
    return ActorSpec(
        actor,
        owner,
        name,
        "ns",
        "Counter",
        detached,
        max_restarts,
        {"CPU": 1},
        {},
        {"x": 1},
        None,
        [[["a", "b"]]],
        2,
        **more,
    )


def create(disk: Disk, made: ActorSpec, *, lacks_arguments: bool = False) -> None:
    disk.tables.classes[made.actor] = b"class of " + made.actor.encode("utf-8", "replace")
    if not lacks_arguments:
        disk.tables.calls[made.actor] = b"call of " + made.actor.encode("utf-8", "replace")
    disk.tables.actors.apply(ev.ActorCreated(made, False, None, 0.0, lacks_arguments))


def make_alive(disk: Disk, made: ActorSpec, worker: str = "w") -> None:
    create(disk, made)
    table = disk.tables.actors
    table.apply(ev.ActorHosted(made.actor, worker, f"/{worker}", 0.0), ev.ActorReady(made.actor, worker, 0.0, "me"))


def recover(tables: kept.Kept) -> list[ev.ActorCommand]:
    commands = tables.actors.apply(ev.Recovered(REASON, 100.0))
    tables.actors.check()
    return commands


# ---- encoding ----


def test_record_is_a_line_of_json_and_a_body() -> None:
    book = records.Book()
    assert book.put("a", {"x": 1}, b"\nbody\n") == {"a": b'{"v":1,"parts":1,"x":1}\n\nbody\n'}
    assert list(records.Book().read([("a", b'{"v":1,"parts":1,"x":1}\n\nbody\n')])) == [("a", ({"x": 1}, b"\nbody\n"))]


def test_large_body_is_written_in_parts_which_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PART_BYTES", 4)
    book = records.Book()
    stored = book.put("a", {}, b"0123456789")
    assert sorted(stored) == ["a", "a#1", "a#2"]
    read = records.Book()
    assert list(read.read((key, value or b"") for key, value in stored.items())) == [("a", ({}, b"0123456789"))]
    for one in (book, read):
        writes = one.put("a", {}, b"01234")
        assert [(key, value is None) for key, value in writes.items()] == [("a", False), ("a#1", False), ("a#2", True)]
        assert one.delete("a") == {"a": None, "a#1": None}
        assert one.delete("a") == {}
    with pytest.raises(exceptions.StorageMismatch, match="a part is missing"):
        list(records.Book().read([("a", stored["a"] or b"")]))


def test_reader_takes_its_version_and_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [("a", records.Book().put("a", {"x": 1})["a"] or b"")]
    monkeypatch.setattr(records, "VERSION", 2)
    second = [("a", records.Book().put("a", {"x": 1, "new": 2})["a"] or b"")]
    assert list(records.Book().read(first)) == [("a", ({"x": 1}, b""))]
    monkeypatch.setattr(records, "VERSION", 3)
    assert list(records.Book().read(second))
    with pytest.raises(exceptions.StorageMismatch, match=r"has version 1, this version of Umbel reads 2 to 3"):
        list(records.Book().read(first))
    monkeypatch.setattr(records, "VERSION", 1)
    with pytest.raises(exceptions.StorageMismatch, match="has version 2"):
        list(records.Book().read(second))


@pytest.mark.parametrize("value", [b"", b"x", b"[]\n", b"{}\n", b'{"v":1}\n', b'{"v":1,"parts":1}'])
def test_what_is_no_record_is_refused(value: bytes) -> None:
    with pytest.raises(exceptions.StorageMismatch):
        list(records.Book().read([("a", value)]))


# ---- actors ----


def test_actor_comes_back_as_it_was(disk: Disk) -> None:
    made = spec(name="n", max_restarts=3, call_site="file.py:1")
    make_alive(disk, made)
    disk.write()
    tables = disk.start_again()
    actor = tables.actors.actors["a"]
    assert actor.spec == made
    assert (actor.state, actor.worker, actor.address, actor.repr_name) == (ActorState.ALIVE, "w", "/w", "me")
    assert tables.actors.find("n", "ns") == "a"
    assert (tables.classes, tables.calls) == ({"a": b"class of a"}, {"a": b"call of a"})


def test_change_of_state_writes_only_the_state(disk: Disk) -> None:
    made = spec(max_restarts=1)
    create(disk, made)
    assert disk.write() == ["actor/a/call", "actor/a/class", "actor/a/spec", "actor/a/state"]
    disk.tables.actors.apply(ev.ActorHosted("a", "w", "/w", 0.0))
    assert disk.write() == ["actor/a/state"]
    disk.tables.actors.apply(ev.ActorReady("a", "w", 0.0))
    assert disk.write() == ["actor/a/state"]
    assert disk.write() == []
    disk.tables.actors.apply(ev.ActorWatched("x", "a", 0.0), ev.Ticked(9.0))
    assert disk.write() == []


def test_constructor_call_goes_when_it_cannot_be_needed_again(disk: Disk) -> None:
    make_alive(disk, spec())
    disk.write()
    assert "actor/a/call" not in disk.stored


def test_actor_that_was_being_placed_is_placed_again(disk: Disk) -> None:
    create(disk, spec())
    disk.write()
    assert recover(disk.start_again()) == [ev.Place(spec())]


def test_actor_that_may_have_been_constructed_is_not_constructed_twice(disk: Disk) -> None:
    """It may not restart: what its constructor does happens once at most."""
    create(disk, spec())
    disk.tables.actors.apply(ev.ActorHosted("a", "w", "/w", 0.0))
    disk.write()
    tables = disk.start_again()
    forget, happened = recover(tables)
    assert forget == ev.Forget("a")
    assert happened[:3] == ("ERROR", "ACTORS", "actor Counter is dead: its node ended")
    dead = tables.actors.dead("a")
    assert dead is not None
    assert (dead.state, dead.cause, dead.reason) == (ActorState.DEAD, Cause.CRASHED, REASON)


@pytest.mark.parametrize(("max_restarts", "state"), [(0, "DEAD"), (2, "RESTARTING"), (-1, "RESTARTING")])
def test_living_actor_whose_worker_nobody_reports_restarts_or_is_dead(
    disk: Disk, max_restarts: int, state: str
) -> None:
    made = spec(name="n", max_restarts=max_restarts)
    make_alive(disk, made)
    disk.write()
    tables = disk.start_again()
    commands = recover(tables)
    assert (ev.Place(made) in commands) == (state == "RESTARTING")
    (listed,) = tables.actors.listed()
    assert (listed.state.value, listed.restarts) == (state, int(state == "RESTARTING"))
    assert (tables.actors.find("n", "ns") is None) == (state == "DEAD")
    disk.write()
    again = disk.start_again()
    assert again.actors.listed() == tables.actors.listed()


def test_restarts_are_counted_over_all_lives_of_the_service(disk: Disk) -> None:
    made = spec(max_restarts=1)
    make_alive(disk, made)
    disk.write()
    recover(disk.start_again())
    disk.tables.actors.apply(ev.ActorHosted("a", "w2", "/w2", 0.0), ev.ActorReady("a", "w2", 0.0))
    disk.write()
    recover(disk.start_again())
    dead = disk.tables.actors.dead("a")
    assert dead is not None
    assert dead.reason == f"{REASON}; its 1 restarts are used up"


def test_actor_whose_worker_is_reported_lives_on(disk: Disk) -> None:
    make_alive(disk, spec(name="n"))
    disk.write()
    tables = disk.start_again()
    hosts = {"w": ev.Hosting("a", ev.Stage.READY)}
    assert tables.actors.apply(ev.HostsReported("node", hosts, ["w"], 100.0)) == []
    assert recover(tables) == []
    assert tables.actors.actors["a"].state is ActorState.ALIVE
    assert tables.actors.apply(ev.ActorWatched("x", "a", 101.0))[0].worker == "w"  # type: ignore[union-attr]


def test_constructor_call_that_never_arrived_is_sent_again_and_an_end_that_was_missed_is_noticed(disk: Disk) -> None:
    for actor in ("a", "b", "c"):
        create(disk, spec(actor))
        disk.tables.actors.apply(ev.ActorHosted(actor, f"w{actor}", "/w", 0.0))
    disk.write()
    tables = disk.start_again()
    stages = {"wa": ev.Stage.UNCALLED, "wb": ev.Stage.CONSTRUCTING, "wc": ev.Stage.READY}
    hosts = {worker: ev.Hosting(worker[1], stage) for worker, stage in stages.items()}
    assert tables.actors.apply(ev.HostsReported("node", hosts, list(hosts), 100.0)) == [
        ev.Create("a", "wa", reconstructed=0),
        ev.Forget("c"),
    ]
    assert recover(tables) == []
    assert [one.state.value for one in tables.actors.listed()] == ["PENDING", "PENDING", "ALIVE"]


def test_worker_of_an_actor_that_is_not_known_or_was_never_called_there_is_killed(disk: Disk) -> None:
    create(disk, spec())
    disk.write()
    tables = disk.start_again()
    hosts = {"w": ev.Hosting("a", ev.Stage.UNCALLED), "x": ev.Hosting("unknown", ev.Stage.READY)}
    commands = tables.actors.apply(ev.HostsReported("node", hosts, ["w", "x"], 100.0))
    assert [(type(one), one[0]) for one in commands] == [(ev.Kill, "a"), (ev.Kill, "unknown")]
    assert recover(tables) == [ev.Place(spec())]


def test_actor_that_needs_its_owner_ends_unless_that_is_reported(disk: Disk) -> None:
    for actor, owner in (("a", "gone"), ("b", "there"), ("c", "gone")):
        make_alive(disk, spec(actor, owner=owner, is_detached=actor == "c", max_restarts=-1), worker=f"w{actor}")
    disk.write()
    tables = disk.start_again()
    hosts = {f"w{actor}": ev.Hosting(actor, ev.Stage.READY) for actor in "abc"}
    tables.actors.apply(ev.HostsReported("node", hosts, ["there"], 100.0))
    assert [type(one) for one in recover(tables)] == [ev.Forget, ev.Kill]
    assert sorted(tables.actors.actors) == ["b", "c"]


def test_actor_whose_owner_had_not_sent_its_arguments_ends_with_it(disk: Disk) -> None:
    create(disk, spec(), lacks_arguments=True)
    disk.write()
    tables = disk.start_again()
    assert tables.actors.awaits_arguments("a", "driver")
    recover(tables)
    assert tables.actors.dead("a") is not None


def test_what_happens_before_all_are_reported_is_not_done_again_after(disk: Disk) -> None:
    """Its worker's end is heard of, and then its node's report would have been late."""
    made = spec(max_restarts=-1)
    make_alive(disk, made)
    make_alive(disk, spec("b"), worker="wb")
    disk.write()
    tables = disk.start_again()
    assert ev.Place(made) in tables.actors.apply(ev.HostDied("a", "w", "crashed", 100.0))
    tables.actors.apply(ev.ActorKilled("b", True, 100.0), ev.ActorCreated(spec("c", owner="new"), False, None, 100.0))
    assert recover(tables) == []
    assert tables.actors.actors["a"].restarts == 1
    assert tables.actors.apply(ev.HostsReported("node", {}, [], 101.0), ev.Recovered("again", 101.0)) == []


def test_dead_actor_keeps_its_reason_and_nothing_else(disk: Disk) -> None:
    create(disk, spec(name="n"))
    disk.tables.actors.apply(ev.ActorHosted("a", "w", "/w", 0.0))
    disk.write()
    disk.tables.errors["a"] = b"why"
    disk.tables.actors.apply(ev.ActorInitFailed("a", "w", 0.0))
    disk.write()
    assert sorted(disk.stored) == ["actor/a/error", "actor/a/spec", "actor/a/state"]
    tables = disk.start_again()
    (told,) = tables.actors.apply(ev.ActorWatched("x", "a", 0.0))
    assert isinstance(told, ev.Publish)
    assert (told.state, told.cause) == (ActorState.DEAD, Cause.INIT_FAILED)
    assert tables.errors == {"a": b"why"}


def test_dead_that_are_forgotten_leave_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors, "DEAD_KEPT_MAX", 2)
    for actor in ("c", "a", "b"):
        create(disk, spec(actor))
        disk.write()
    for actor in ("b", "c", "a"):
        disk.tables.actors.apply(ev.ActorKilled(actor, True, 0.0))
        disk.write()
    assert {key.split("/")[1] for key in disk.stored} == {"c", "a"}
    assert [one.actor for one in disk.start_again().actors.listed()] == ["c", "a"]  # in the order of their deaths
    monkeypatch.setattr(actors, "DEAD_KEPT_MAX", 1)
    disk.start_again()
    disk.write()
    assert {key.split("/")[1] for key in disk.stored} == {"a"}


def test_ids_of_clients_making_are_keys_whatever_they_are(disk: Disk) -> None:
    names = ["x" * 5_000, "a/b#c", "\ud800", "é"]
    for name in names:
        create(disk, spec(name))
    assert all(len(key.encode()) < 200 for key in disk.write())
    assert list(disk.start_again().actors.actors) == names


# ---- jobs ----


def test_jobs_that_ran_have_failed_and_numbers_go_on(disk: Disk) -> None:
    disk.tables.jobs.begin("d1", 11, FACTS, 1.0)
    disk.tables.jobs.begin("d2", 12, FACTS, 2.0)
    disk.tables.jobs.begin("d3", 13, {**FACTS, "priority": 4}, 2.0)
    disk.tables.jobs.leaves("d1")
    disk.tables.jobs.gone("d1", 3.0)
    disk.write()
    tables = disk.start_again()
    tables.jobs.begin("new", 14, FACTS, 5.0)
    tables.jobs.recovered({"d3"}, 5.0)
    disk.write()
    found = {one.id: (one.status, one.driver) for one in disk.start_again().jobs.listed()}
    assert found == {
        "01000000": (jobs.SUCCEEDED, "d1"),
        "02000000": (jobs.FAILED, "d2"),
        "03000000": (jobs.RUNNING, "d3"),
        "04000000": (jobs.RUNNING, "new"),
    }
    assert disk.tables.jobs.scheduling_of("03000000") == ["03000000", 4, 1.0, False]
    assert "control service" in next(one.message for one in disk.tables.jobs.listed() if one.driver == "d2")


def test_number_of_a_job_is_never_used_again(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though all are forgotten."""
    monkeypatch.setattr(jobs, "ENDED_KEPT_MAX", 0)
    disk.tables.jobs.begin("d", 1, FACTS, 1.0)
    disk.write()
    disk.tables.jobs.gone("d", 2.0)
    disk.write()
    assert sorted(disk.stored) == ["jobs"]
    assert disk.start_again().jobs.begin("e", 1, FACTS, 3.0).id == "02000000"


def test_what_workers_of_a_job_are_like_is_kept_while_an_actor_of_it_lives(disk: Disk) -> None:
    job = disk.tables.jobs.begin("d", 1, FACTS, 1.0)
    disk.write()
    make_alive(disk, spec(max_restarts=-1, job=job.environment, job_id=job.id))
    disk.write()
    disk.tables.jobs.gone("d", 2.0)
    disk.write()
    tables = disk.start_again()
    kept_job = tables.actors.actors["a"].spec.job
    assert (kept_job.id, kept_job.facts) == (job.id, FACTS)
    assert tables.job_environments() == [kept_job]
    tables.actors.apply(ev.ActorKilled("a", True, 3.0))
    disk.write()
    assert "job/01000000/workers" not in disk.stored
    assert disk.start_again().job_environments() == []


def test_what_workers_of_a_job_of_another_node_are_like_is_kept_with_its_actors(disk: Disk) -> None:
    elsewhere = jobs.JobEnvironment("01000000@abababababab", FACTS)
    make_alive(disk, spec("a", job_id=elsewhere.id, job=elsewhere))
    disk.write()
    again = disk.start_again()
    assert [(one.id, one.facts) for one in again.job_environments()] == [(elsewhere.id, FACTS)]
    assert again.actors.actors["a"].spec.job.facts == FACTS
    again.actors.apply(ev.ActorKilled("a", True, 101.0))
    disk.write()
    assert not [key for key in disk.stored if key.startswith("job/")]


def test_what_workers_of_a_job_are_like_goes_with_it_when_it_has_no_actors(disk: Disk) -> None:
    job = disk.tables.jobs.begin("d", 1, FACTS, 1.0)
    create(disk, spec(job=job.environment, job_id=job.id))
    disk.write()
    disk.tables.actors.apply(ev.ActorKilled("a", True, 3.0))
    disk.write()
    assert "job/01000000/workers" in disk.stored
    disk.tables.jobs.gone("d", 2.0)
    disk.write()
    assert "job/01000000/workers" not in disk.stored


# ---- the key-value store ----


def test_keys_come_back_and_go(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PART_BYTES", 4)
    table = disk.tables.kv
    table.put(b"", b"a\xff\x00", b"1" * 10, overwrites=True)
    table.put(b"ns", b"a", b"2", overwrites=True)
    table.put(b"n", b"sa", b"3", overwrites=True)
    disk.write()
    tables = disk.start_again()
    assert tables.kv.get(b"", b"a\xff\x00") == b"1" * 10
    assert (tables.kv.get(b"ns", b"a"), tables.kv.get(b"n", b"sa")) == (b"2", b"3")
    assert tables.kv.delete(b"", b"a", is_prefix=True) == 1
    tables.kv.put(b"ns", b"a", b"2", overwrites=True)
    writes = disk.write()
    assert len(writes) == 3  # a value in three parts has gone, and nothing else has changed
    assert disk.start_again().kv.keys(b"", b"") == []


# ---- placement groups ----


def group_spec(group: str = "g", *, name: str = "", is_detached: bool = True, owner: str = "driver") -> Any:
    bundle = resources.ResourceSet({"CPU": 10_000})
    return group_events.GroupSpec(group, owner, name, "ns", (bundle, bundle), "PACK", is_detached, ({"a": "b"}, {}))


def view(node: str = "n1") -> placement.NodeView:
    room = resources.ResourceSet({"CPU": 40_000})
    return placement.NodeView(node, room, room, {"a": "b"})


def with_groups(tables: kept.Kept) -> groups.GroupTable:
    table = groups.GroupTable()
    tables.take_groups(table)
    return table


def make_group(disk: Disk, made: Any) -> groups.GroupTable:
    table = disk.tables.groups or with_groups(disk.tables)
    table.apply(group_events.NodeSeen(view(), 0.0), group_events.GroupCreated(made, "driver", 1, 0.0))
    table.apply(group_events.BundlesReserved("n1", made.group, 1, 1.0))
    table.apply(group_events.BundlesCommitted("n1", made.group, 1, 2.0))
    return table


def test_group_comes_back_and_is_placed_again_where_its_node_is_gone(disk: Disk) -> None:
    made = group_spec(name="pg")
    make_group(disk, made)
    assert disk.write() == ["group/g/spec", "group/g/state"]
    table = with_groups(disk.start_again())
    (listed,) = table.listed()
    assert (listed.state.value, listed.nodes, listed.ready_after_s) == ("CREATED", ("n1", "n1"), 2.0)
    assert table.spec("g") == made
    assert table.find("pg", "ns") == "g"
    assert table.apply(group_events.NodeSeen(view("n2"), 101.0)) == []
    happened, reserve = table.apply(group_events.Recovered(102.0))
    assert happened[:2] == ("WARNING", "PLACEMENT_GROUPS")
    assert isinstance(reserve, group_events.Reserve) and (reserve.node, reserve.attempt) == ("n2", 2)
    table.check()
    assert table.listed()[0].state.value == "RESCHEDULING"
    assert disk.write() == ["group/g/state"]


def test_attempt_under_way_is_made_again_by_another_number(disk: Disk) -> None:
    """What a node answers to the old one is void."""
    table = with_groups(disk.tables)
    table.apply(group_events.NodeSeen(view(), 0.0), group_events.GroupCreated(group_spec(), "driver", 1, 0.0))
    disk.write()
    table = with_groups(disk.start_again())
    held = {"g": [group_events.HeldBundles(1, [0, 1], is_committed=False)]}
    reported = table.apply(group_events.BundlesReported(view(), held, 100.0))
    assert reported == [group_events.Cancel("n1", "g", 1)]
    (reserve,) = table.apply(group_events.Recovered(101.0))
    assert isinstance(reserve, group_events.Reserve)
    assert reserve.attempt == 2
    assert table.apply(group_events.BundlesReserved("n1", "g", 1, 102.0)) == [group_events.Cancel("n1", "g", 1)]
    table.check()


@pytest.mark.parametrize("is_committed", [True, False])
def test_group_whose_node_reports_its_bundles_stays(disk: Disk, is_committed: bool) -> None:
    make_group(disk, group_spec())
    disk.write()
    table = with_groups(disk.start_again())
    held = {
        "g": [group_events.HeldBundles(1, [0, 1], is_committed)],
        "unknown": [group_events.HeldBundles(3, [0], is_committed=True)],
    }
    commands = table.apply(group_events.BundlesReported(view(), held, 100.0))
    assert [(type(one), one[1]) for one in commands] == [
        *([] if is_committed else [(group_events.Commit, "g")]),
        (group_events.Drop, "unknown"),
    ]
    assert table.apply(group_events.Recovered(101.0)) == []
    table.check()
    assert table.listed()[0].state.value == "CREATED"


def test_of_two_attempts_that_a_node_reports_the_one_that_never_was_whole_is_given_up(disk: Disk) -> None:
    """The node had committed a bundle that was placed again, and others of that attempt had not. Else it is reserved twice."""
    make_group(disk, group_spec())
    disk.write()
    table = with_groups(disk.start_again())
    table.groups["g"].nodes = {0: "n1"}
    table.groups["g"].state = group_events.GroupState.RESCHEDULING
    table._unplaced["g"] = table.groups["g"]
    table.groups["g"].reason = "its node was lost"
    held = [group_events.HeldBundles(1, [0], is_committed=True), group_events.HeldBundles(2, [1], is_committed=True)]
    commands = table.apply(group_events.BundlesReported(view(), {"g": held}, 100.0))
    assert commands == [group_events.Cancel("n1", "g", 2)]
    assert table.groups["g"].nodes == {0: "n1"}
    table.check()


def test_bundles_that_a_node_does_not_report_are_placed_again(disk: Disk) -> None:
    make_group(disk, group_spec())
    disk.write()
    table = with_groups(disk.start_again())
    table.apply(group_events.BundlesReported(view(), {}, 100.0))
    table.check()
    (reserve,) = table.apply(group_events.Recovered(101.0))
    assert isinstance(reserve, group_events.Reserve)
    table.check()


def test_removed_group_keeps_its_reason(disk: Disk) -> None:
    make_group(disk, group_spec(name="pg")).apply(group_events.RemovalWanted("g", 3.0))
    disk.write()
    table = with_groups(disk.start_again())
    assert table.ended("g") == (group_events.Cause.REMOVED, "it was removed by remove_placement_group()")
    assert table.find("pg", "ns") is None


def test_groups_that_are_forgotten_leave_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "REMOVED_KEPT_MAX", 0)
    table = make_group(disk, group_spec())
    disk.write()
    table.apply(group_events.RemovalWanted("g", 3.0))
    disk.write()
    assert disk.stored == {}


def test_records_hold_no_pickles_but_in_bodies(disk: Disk) -> None:
    """A look at them shows what they are."""
    make_alive(disk, spec(name="n", max_restarts=1))
    disk.write()
    lines = {key: json.loads(value.partition(b"\n")[0]) for key, value in disk.stored.items()}
    assert lines["actor/a/spec"]["name"] == "n"
    assert lines["actor/a/state"]["state"] == "ALIVE"
    assert {line["v"] for line in lines.values()} == {records.VERSION}


def test_worker_that_was_being_killed_is_killed_by_the_next_service(disk: Disk) -> None:
    make_alive(disk, spec(max_restarts=-1))
    disk.write()
    disk.tables.actors.apply(ev.ActorKilled("a", is_final=False, at_s=0.0))
    assert disk.write() == ["actor/a/state"]
    table = disk.start_again().actors
    hosts = {"w": ev.Hosting("a", ev.Stage.READY)}
    assert table.apply(ev.HostsReported("n", hosts, ["w", "driver"], 0.0)) == [
        ev.Kill("a", "it was killed by umbel.kill()")
    ]
    table.apply(ev.HostDied("a", "w", "it was killed", 0.0))
    assert table.actors["a"].kill_reason == ""


def test_answers_come_back_and_go(disk: Disk) -> None:
    disk.tables.answers.keep("c1", 3, {"existed": True})
    disk.tables.answers.keep("c1", 4, {})
    disk.tables.answers.keep("c2", 3, {"count": 2})
    assert disk.write() == ["answer/c1/3", "answer/c1/4", "answer/c2/3"]
    answers = disk.start_again().answers
    assert (answers.given("c1", 3), answers.given("c2", 3), answers.given("c2", 4)) == (
        {"existed": True},
        {"count": 2},
        None,
    )
    answers.forget_others("c1", [4])
    answers.forget("c2", 3)
    answers.forget("c2", 3)
    assert disk.write() == ["answer/c1/3", "answer/c2/3"]
    assert sorted(disk.stored) == ["answer/c1/4"]


def test_numbers_of_jobs_that_others_may_give_are_kept(disk: Disk) -> None:
    assert disk.tables.jobs.reserve(64) == 1
    assert disk.write() == ["jobs"]
    assert disk.start_again().jobs.reserve(1) == 65


def node_table(node_id: str, now_s: float = 0.0) -> nodes.NodeTable:
    facts = {"node_id": node_id, "version": "1", "address": "h:1", "labels": {}, "resources": {}}
    state = {"available": {}, "waiting": 0}
    return nodes.NodeTable(facts, state, health=nodes.Health(), now_s=now_s, time_s=1000.0 + now_s)


def test_nodes_and_the_clusters_id_come_back(disk: Disk) -> None:
    first, second, a, b = (f"{letter}{0:055x}" for letter in "12ab")
    table = node_table(first)
    assert disk.tables.take_nodes(table) == []
    facts = {"version": "1", "address": "h:2", "labels": {}, "resources": {}}
    for number, node_id in enumerate((a, b), 1):
        table.apply(nodes.NodeJoined(node_id, number, 1, {"node_id": node_id, **facts}, table.head.state, "", 0.0))
    table.apply(nodes.NodeLeft(b, 2, "umbel stop", 1.0))
    assert disk.write() == sorted(["cluster", f"node/{first}", f"node/{a}", f"node/{b}"])
    again = node_table(second, 50.0)
    assert disk.start_again().take_nodes(again) == [a]
    again.check()
    assert again.cluster == first
    told = {one["node_id"]: (one["alive"], one["address"], one["reason"]) for one in again.listed()}
    assert told == {
        second: (True, "h:1", ""), a: (True, "h:2", ""), b: (False, "h:2", "umbel stop"),
        first: (False, "h:1", nodes.HEAD_ENDED),
    }  # fmt: skip
    disk.write()
    third = node_table("3" + "0" * 55)
    assert disk.start_again().take_nodes(third) == [a]
    assert [one for one in (first, second) if one not in third.dead] == []
