"""The suites fail what breaks their contract: each fault here is one that a plugin's author could make."""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from umbel import exceptions, spi
from umbel._control.storage import contract, in_sqlite
from umbel._control.storage.in_sqlite import SqliteStorage
from umbel._environments.interpreters import PyExecutable
from umbel._objects.store import Segment, SharedMemoryStore, View
from umbel._plugins.nvidia import NvidiaManager
from umbel._scheduling.policies import HybridPolicy
from umbel.testing.conformance import (
    AcceleratorConformance,
    ControlStorageConformance,
    NodeLauncherConformance,
    RuntimeEnvConformance,
    SchedulerConformance,
    StoreConformance,
)


@contextlib.contextmanager
def caught(*kinds: type[Exception]) -> Iterator[None]:
    """A suite that fails in here, of itself: a test's time-out is a failure to pytest too."""
    with pytest.raises((AssertionError, pytest.fail.Exception, *kinds)) as told:
        yield
    assert "Timeout" not in str(told.value)


# Schedulers


class Forgetful(HybridPolicy):
    def order(self, waiting: Sequence[spi.WaitingDemand]) -> Sequence[int]:
        return list(super().order(waiting))[:20]


class Gambler(HybridPolicy):
    def order(self, waiting: Sequence[spi.WaitingDemand]) -> Sequence[int]:
        return random.sample(range(len(waiting)), len(waiting))


class Counting(HybridPolicy):
    """Round robin, by a count of its own."""

    def __init__(self) -> None:
        self.count = 0

    def place(self, demand: spi.Demand, view: spi.ClusterView) -> spi.Placement:
        eligible = spi.eligible_nodes(demand, view)
        self.count += 1
        if not eligible.ready:
            return eligible.refusal
        return spi.Placement(eligible.ready[self.count % len(eligible.ready)].node_id, "its turn")


class Careless(HybridPolicy):
    """Looks at nothing but what is free."""

    def place(self, demand: spi.Demand, view: spi.ClusterView) -> spi.Placement:
        for node in view.nodes:
            if demand.resources.fits_in(node.available):
                return spi.Placement(node.node_id, "it fits")
        return spi.Placement(None, "it fits nowhere")


class Nostalgic(HybridPolicy):
    """An actor goes to its creator, whatever that node has."""

    def place(self, demand: spi.Demand, view: spi.ClusterView) -> spi.Placement:
        if demand.is_actor and view.find(demand.near) is not None:
            return spi.Placement(demand.near, "where it comes from")
        return super().place(demand, view)


class Silent(HybridPolicy):
    def place(self, demand: spi.Demand, view: spi.ClusterView) -> spi.Placement:
        found = super().place(demand, view)
        return spi.Placement(found.node_id, "", found.is_feasible)


class Sorting(HybridPolicy):
    def order(self, waiting: Sequence[spi.WaitingDemand]) -> Sequence[int]:
        if isinstance(waiting, list):
            waiting.sort(key=lambda one: one.turn)
        return range(len(waiting))


SCHEDULER_FAULTS: dict[type, str] = {
    Forgetful: "test_every_order_has_each_index_once",
    Gambler: "test_same_question_has_the_same_answer",
    Counting: "test_same_question_has_the_same_answer",
    Careless: "test_leaves_dead_nodes_alone",
    Nostalgic: "test_places_an_actor_only_where_there_is_in_all_what_it_asks_for",
    Silent: "test_waits_for_a_full_node",
    Sorting: "test_changes_nothing_that_it_is_given",
}


@pytest.mark.parametrize("policy", SCHEDULER_FAULTS)
def test_scheduler_suite_catches(policy: type) -> None:
    class Tested(SchedulerConformance):
        descriptor = spi.SchedulerDescriptor("faulty", policy, summary="faulty")

    test = getattr(Tested(), SCHEDULER_FAULTS[policy])
    seeds = [{"seed": seed} for seed in range(50)] if "seed" in inspect.signature(test).parameters else [{}]
    with pytest.raises(AssertionError):
        for arguments in seeds:
            test(**arguments)


# Stores


class Copying(SharedMemoryStore):
    """Gives everybody a copy, so that nothing is shared and nothing is read-only."""

    def open(self, name: str, size_bytes: int, on_release: Callable[[], None] | None = None) -> View:
        return View(name, memoryview(bytearray(super().open(name, size_bytes).buffer)))


class Eager(SharedMemoryStore):
    """Writes over what it frees, whoever looks at it."""

    def free(self, name: str) -> None:
        own = self._own[int(name.rpartition(".")[2])]
        mapping = self._mapping_of(own)
        mapping.view(min(100, own.backed_bytes), keep=mapping)[:] = bytes(100)
        super().free(name)


class Boundless(SharedMemoryStore):
    def __init__(self, directory: str, process_id: str, **_quota: Any) -> None:
        super().__init__(directory, process_id)


class Leaving(SharedMemoryStore):
    def close(self, *, unlink_all: bool = False) -> None:
        pass


class Unaligned(SharedMemoryStore):
    def create(self, size_bytes: int, owner: str | None = None) -> Segment:
        made = super().create(size_bytes + 1, owner)
        made.size_bytes = size_bytes
        made._buffer = made.buffer[1:]
        return made


class Reporting(SharedMemoryStore):
    """Reports the end of a view when it is made."""

    def open(self, name: str, size_bytes: int, on_release: Callable[[], None] | None = None) -> View:
        if on_release is not None:
            on_release()
        return super().open(name, size_bytes)


class Recycling(SharedMemoryStore):
    """Gives the names of evicted values to others."""

    def evict(self, name: str) -> int:
        self.free(name)
        return 1 << 20


class Ruthless(SharedMemoryStore):
    """Evicts what this process looks at."""

    def evict(self, name: str) -> int:
        own = self._own[int(name.rpartition(".")[2])]
        own.views = 0
        return super().evict(name)


class Blind(SharedMemoryStore):
    def viewed(self) -> dict[str, int]:
        return {}


STORE_FAULTS: dict[type, tuple[str, dict[str, object]]] = {
    Copying: ("test_views_are_read_only", {}),
    Eager: ("test_a_view_outlives_freeing_and_reuse", {}),
    Boundless: ("test_capacity_is_kept", {}),
    Leaving: ("test_nothing_is_left_after_close", {}),
    Unaligned: ("test_memory_is_aligned", {"size_bytes": 100}),
    Reporting: ("test_release_is_reported_once_when_the_last_part_of_a_view_is_gone", {}),
    Recycling: ("test_evicted_value_is_gone_for_good", {}),
    Ruthless: ("test_value_that_is_looked_at_here_is_not_evicted", {}),
    Blind: ("test_what_is_looked_at_is_told", {}),
}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path)
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)


@pytest.mark.parametrize("store", STORE_FAULTS)
def test_store_suite_catches(store: type, directory: str) -> None:
    class Tested(StoreConformance):
        descriptor = spi.StoreDescriptor("faulty", store, summary="faulty")

    suite = Tested()
    name, arguments = STORE_FAULTS[store]
    test = getattr(suite, name)
    asked = inspect.signature(test).parameters
    with contextlib.ExitStack() as stack:
        if "directory" in asked:
            arguments = {**arguments, "directory": directory}
        for part, process_id in (("store", "a" * 32), ("spillable", "a" * 32), ("reader", "b" * 32)):
            if part in asked:
                made = suite.open_store(directory, process_id)
                arguments = {**arguments, part: stack.enter_context(contextlib.closing(made))}
        with caught(exceptions.UmbelError):
            test(**arguments)


# Control storages

Write = tuple[str, "bytes | None"]


class Piecemeal(SqliteStorage):
    """One half of the writes after the other, so that who reads meanwhile sees a half."""

    def commit(self, writes: Sequence[Write], *, fencing: int, number: int) -> None:
        half = len(writes) // 2
        super().commit(writes[:half], fencing=fencing, number=number)
        time.sleep(0.05)
        self._db.executemany(in_sqlite._PUT, writes[half:])


class Unfenced(SqliteStorage):
    """Trusts that whoever commits leads."""

    def commit(self, writes: Sequence[Write], *, fencing: int, number: int) -> None:
        super().commit(writes, fencing=self._lease()[1].fencing, number=number)


class Repeating(SqliteStorage):
    """Does again what is repeated."""

    def _refuse_unless_repeated(self, fencing: int, number: int) -> None:
        super()._refuse_unless_repeated(fencing, number)
        self._db.execute("UPDATE records SET value = 'nonsense'")


class Unordered(SqliteStorage):
    """Takes any number."""

    def commit(self, writes: Sequence[Write], *, fencing: int, number: int) -> None:
        self._db.execute("UPDATE leader SET number = ?", (number - 1,))
        super().commit(writes, fencing=fencing, number=number)


class Moving(SqliteStorage):
    """Looks at what there is now, page by page."""

    def load(self) -> Iterator[tuple[str, bytes]]:
        keys = [key for (key,) in self._db.execute("SELECT key FROM records")]
        for key in keys:
            for (value,) in self._db.execute("SELECT value FROM records WHERE key = ?", (key,)):
                yield key, value


class Reused(SqliteStorage):
    """Gives a number again."""

    def acquire(self, holder: str, ttl_s: float) -> spi.Lease:
        lease = super().acquire(holder, ttl_s)
        self._db.execute("UPDATE leader SET fencing = 1")
        return lease._replace(fencing=1)


class Endless(SqliteStorage):
    """Renews what has run out."""

    def renew(self, fencing: int) -> spi.Lease:
        self._db.execute("UPDATE leader SET holder = 'first', until_s = 1e12")
        return super().renew(fencing)


class Stealing(SqliteStorage):
    """Gives the lease to whoever asks."""

    def acquire(self, holder: str, ttl_s: float) -> spi.Lease:
        self._db.execute("UPDATE leader SET holder = ''")
        return super().acquire(holder, ttl_s)


class Shared(SqliteStorage):
    """Everybody's records."""

    def __init__(self, url: str, *, cluster_id: str | None = None, timeout_s: float = 5.0) -> None:
        super().__init__(url, cluster_id=None, timeout_s=timeout_s)


class Patient(SqliteStorage):
    """Waits for a lease to end, whatever happens meanwhile."""

    def watch_leader(self, seen: spi.Lease, timeout_s: float) -> spi.Lease:
        return contract.watch(lambda: seen, seen, min(timeout_s, 0.5))


class Unlocked(SqliteStorage):
    """Opens and closes the file beside SQLite, and with it the locks of whoever has it open in this process."""

    def _make_file(self) -> None:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))


STORAGE_FAULTS = {
    Piecemeal: ControlStorageConformance.test_reader_sees_all_of_a_commit_or_nothing,
    Unfenced: ControlStorageConformance.test_later_lease_has_a_larger_number_and_fences_the_earlier_one,
    Repeating: ControlStorageConformance.test_commit_that_is_repeated_is_done_once,
    Unordered: ControlStorageConformance.test_number_out_of_turn_is_refused_and_nothing_changes,
    Moving: ControlStorageConformance.test_load_is_of_one_moment,
    Reused: ControlStorageConformance.test_who_comes_back_has_another_number,
    Endless: ControlStorageConformance.test_released_lease_cannot_be_renewed,
    Stealing: ControlStorageConformance.test_one_leads_and_others_are_told_who,
    Shared: ControlStorageConformance.test_records_of_another_cluster_are_left_alone,
    Unlocked: ControlStorageConformance.test_who_comes_and_goes_in_another_process_takes_nothing_along,
    Patient: ControlStorageConformance.test_watching_ends_with_the_lease,
}


@pytest.mark.parametrize("storage", STORAGE_FAULTS)
def test_control_storage_suite_catches(storage: type, tmp_path: Path) -> None:
    class Tested(ControlStorageConformance):
        descriptor = spi.ControlStorageDescriptor("faulty", storage, summary="faulty")

    tested: Any = Tested()
    test: Callable[..., None] = STORAGE_FAULTS[storage]
    url = f"sqlite://{tmp_path}/control.db"
    with contextlib.ExitStack() as stack:
        mine, other = (stack.enter_context(contextlib.closing(tested.open(url))) for _ in range(2))
        given = {"storage": mine, "other": other, "url": url, "number": 4, "count": 1}
        wanted = {name: value for name, value in given.items() if name in inspect.signature(test).parameters}
        if "storage" not in wanted:
            wanted["url"] = f"sqlite://{tmp_path}/another.db"
        with caught(exceptions.UmbelError):
            test(tested, **wanted)


# Node launchers


class Launcher:
    """One that keeps its promises, of nodes that are names in a cloud of names."""

    cloud: dict[str, tuple[str, str]]  # the cluster and the type of each; anew for each test

    def __init__(self, cluster: str, *, address: str, token_file: str, config: Mapping[str, Any]) -> None:
        self.cluster = cluster

    def check(self, spec: spi.NodeSpec) -> None:
        if spec.config:
            raise exceptions.InvalidOption(f"no config is known here, got {spec.config}; remove it")

    def launch(self, spec: spi.NodeSpec, count: int) -> Sequence[str]:
        names = [self.name() for _ in range(count)]
        self.cloud.update((name, (self.cluster, spec.type_name)) for name in names)
        return names

    def name(self) -> str:
        return f"n{random.getrandbits(64)}"

    def terminate(self, instances: Sequence[str]) -> None:
        for name in instances:
            if self.cloud.get(name, ("", ""))[0] == self.cluster:
                del self.cloud[name]

    def running(self) -> Mapping[str, str]:
        return {name: kind for name, (cluster, kind) in list(self.cloud.items()) if cluster == self.cluster}

    def close(self) -> None:
        pass


class Lagging(Launcher):
    """Its listings are those of before."""

    def __init__(self, cluster: str, **options: Any) -> None:
        super().__init__(cluster, **options)
        self.seen: Mapping[str, str] = {}

    def running(self) -> Mapping[str, str]:
        before, self.seen = self.seen, super().running()
        return before


class OnItsOwn(Launcher):
    """What it has launched is known to it alone."""

    def __init__(self, cluster: str, **options: Any) -> None:
        super().__init__(cluster, **options)
        self.cloud = {}


class Numbering(Launcher):
    """Names of what is gone are given again."""

    def name(self) -> str:
        return next(name for name in map("n{}".format, range(99)) if name not in self.cloud)

    def launch(self, spec: spi.NodeSpec, count: int) -> Sequence[str]:
        return [name for _ in range(count) for name in super(Numbering, self).launch(spec, 1)]


class Strict(Launcher):
    """What is gone cannot be ended."""

    def terminate(self, instances: Sequence[str]) -> None:
        for name in instances:
            del self.cloud[name]


class Sweeping(Launcher):
    """Ends all that there are."""

    def terminate(self, instances: Sequence[str]) -> None:
        if instances:
            super().terminate(list(self.running()))


class Everybodys(Launcher):
    """Other clusters' nodes are its own."""

    def running(self) -> Mapping[str, str]:
        return {name: kind for name, (_, kind) in self.cloud.items()}


class Trusting(Launcher):
    def check(self, spec: spi.NodeSpec) -> None:
        pass


class Odd(Launcher):
    def name(self) -> str:
        return f"{super().name()}/"


class Mixing(Launcher):
    """Keeps what it is asked for in a place that all its calls share."""

    def __init__(self, cluster: str, **options: Any) -> None:
        super().__init__(cluster, **options)
        self.asked = threading.Barrier(2)

    def launch(self, spec: spi.NodeSpec, count: int) -> Sequence[str]:
        self.asked.wait(timeout=60)
        self.wanted = spec
        self.asked.wait(timeout=60)
        return super().launch(self.wanted, count)


LAUNCHER_FAULTS: dict[type[Launcher], str] = {
    Lagging: "test_what_was_launched_runs",
    OnItsOwn: "test_another_launcher_of_the_cluster_goes_on",
    Numbering: "test_names_are_not_given_again",
    Strict: "test_what_is_gone_can_be_ended_again",
    Sweeping: "test_only_what_is_named_is_ended",
    Everybodys: "test_nodes_of_other_clusters_are_none_of_ours",
    Trusting: "test_a_bad_configuration_is_refused_before_anything_starts",
    Odd: "test_names_are_labels",
    Mixing: "test_launches_at_the_same_time_make_different_nodes",
}


def run_launcher_suite(kind: type[Launcher], name: str) -> None:
    kind.cloud = {}
    descriptor = spi.NodeLauncherDescriptor("tested", kind, summary="tested")
    suite = type("Tested", (NodeLauncherConformance,), {"descriptor": descriptor, "joins": False})()

    def make(cluster: str = "mine") -> Any:
        return suite.make(cluster, address="", token_file="", config={})

    wanted = {"launcher": make(), "make_launcher": make, "head": None}
    test = getattr(suite, name)
    parameters = inspect.signature(test).parameters
    test(**{name: value for name, value in wanted.items() if name in parameters})


@pytest.mark.parametrize("kind", LAUNCHER_FAULTS)
def test_launcher_suite_catches(kind: type[Launcher]) -> None:
    name = LAUNCHER_FAULTS[kind]
    run_launcher_suite(Launcher, name)
    with caught(KeyError, exceptions.InvalidOption):
        run_launcher_suite(kind, name)


# Accelerators


class Deaf(NvidiaManager):
    def set_visible_ids(self, ids: Sequence[str]) -> None:
        pass


class Showing(NvidiaManager):
    """Takes an empty sequence for no limit."""

    def set_visible_ids(self, ids: Sequence[str]) -> None:
        if ids:
            super().set_visible_ids(ids)


class Greedy(NvidiaManager):
    resource_name = "CPU"


ACCELERATOR_FAULTS: dict[type, tuple[str, dict[str, object]]] = {
    Deaf: ("test_visible_ids_are_those_that_were_set", {"ids": ["0"]}),
    Showing: ("test_visible_ids_are_those_that_were_set", {"ids": []}),
    Greedy: ("test_resource_is_named_and_its_own", {}),
}


@pytest.mark.parametrize("manager", ACCELERATOR_FAULTS)
def test_accelerator_suite_catches(manager: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    class Tested(AcceleratorConformance):
        descriptor = spi.AcceleratorDescriptor("faulty", manager, summary="faulty")

    name, arguments = ACCELERATOR_FAULTS[manager]
    with pytest.raises(AssertionError):
        getattr(Tested(), name)(manager=manager(), **arguments)


# Fields of runtime_env


class Unsettled(PyExecutable):
    """What it has checked is no longer valid."""

    def validate(self, value: Any) -> str:
        return " " + super().validate(value)


class Growing(PyExecutable):
    """What it has packed changes when it is packed again."""

    def pack(self, value: str, _packing: Any) -> str:
        return value + " -u"


class Lenient(PyExecutable):
    def validate(self, value: Any) -> str:
        return str(value)


class AtOdds(PyExecutable):
    conflicts = ("faulty",)


class Relative(PyExecutable):
    def build(self, value: str, build: Any) -> None:
        build.workers.cwd = "here"


class Worded(PyExecutable):
    def build(self, value: str, build: Any) -> None:
        build.workers.interpreter = value


RUNTIME_ENV_FAULTS: dict[type, str] = {
    Unsettled: "test_what_is_valid_is_json_and_valid_again",
    Growing: "test_packing_is_json_the_same_every_time_and_unchanged_by_packing_again",
    Lenient: "test_bad_values_are_refused_in_words",
    AtOdds: "test_priority_is_a_number_and_conflicts_are_other_fields",
    Relative: "test_build_says_how_workers_start_or_what_is_missing",
    Worded: "test_build_says_how_workers_start_or_what_is_missing",
}


class _Build:
    def __init__(self) -> None:
        self.workers = spi.WorkerSetup()


@pytest.mark.parametrize("plugin", RUNTIME_ENV_FAULTS)
def test_runtime_env_suite_catches(plugin: type) -> None:
    class Tested(RuntimeEnvConformance):
        descriptor = spi.RuntimeEnvDescriptor("faulty", plugin, summary="faulty")
        bad_values = (5,)

    given = {"plugin": plugin(), "good_values": ["python"], "packing": None, "build": _Build()}
    test = getattr(Tested(), RUNTIME_ENV_FAULTS[plugin])
    wanted = {name: value for name, value in given.items() if name in inspect.signature(test).parameters}
    with caught():
        test(**wanted)


# Descriptors


def test_suite_without_a_descriptor_says_so() -> None:
    class Tested(SchedulerConformance):
        pass

    with pytest.raises(pytest.fail.Exception, match="must set `descriptor` to the scheduler descriptor of your hook"):
        Tested().make()


def test_suite_takes_what_the_runtime_takes_and_no_more() -> None:
    class Tested(SchedulerConformance):
        descriptor = spi.SchedulerDescriptor("Bad Name", object, spi_version=1)

    with pytest.raises(AssertionError):
        Tested().test_descriptor_is_accepted()
    with pytest.raises(AssertionError):
        Tested().test_descriptor_has_a_summary_of_one_line()
    with pytest.raises(exceptions.PluginError, match="lacks order, place of spi"):
        Tested().test_orders_an_empty_queue()
