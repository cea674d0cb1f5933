"""Groups of actors, tasks and the driver that reduce, broadcast and exchange tensors."""

from __future__ import annotations

import array
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import commands
import drivers
import pytest

import umbel
from umbel import exceptions
from umbel.experimental import collective as groups_of_actors
from umbel.util import collective, state

np = pytest.importorskip("numpy")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the backend shm needs Linux"),
]

SOON_S = 1.0  # within which the others know that a rank has died
PATIENCE_MS = 20_000  # of groups in which nobody is late
SHORT_MS = {"shm": 1_500, "gloo": 2_000}  # of groups in which somebody stops: time enough to make the group
LARGE = 4_000_000  # elements, more than a socket takes


def gloo(*others: Any) -> Any:
    """The parameters of a test, the first of which is the backend."""
    return pytest.param("gloo", *others, marks=pytest.mark.torch)


@umbel.remote(num_cpus=0)
class Rank:
    def __init__(self) -> None:
        self.pid = os.getpid()

    def process(self) -> int:
        return self.pid

    def imported(self, backend: str) -> bool:
        """PyTorch takes seconds, for which the others would wait."""
        return collective.is_backend_available(backend)

    def init(self, world_size: int, rank: int, *, timeout_ms: int = PATIENCE_MS, **options: Any) -> int:
        collective.init_collective_group(world_size, rank, gloo_timeout=timeout_ms, **options)
        return collective.get_rank(options.get("group_name", "default"))

    def allreduce(self, value: float, count: int = 4, group_name: str = "default", op: Any = None) -> Any:
        tensor = np.full(count, float(value))
        collective.allreduce(tensor, group_name, *([] if op is None else [op]))
        assert (tensor == tensor[0]).all()
        return float(tensor[0])

    def loop(self, count: int) -> None:
        """Until something goes wrong."""
        tensor = np.ones(count)
        while True:
            collective.allreduce(tensor, op=collective.ReduceOp.MAX)

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        return getattr(collective, name)(*args, **options)

    def receive(self, count: int, rank: int, group_name: str) -> float:
        tensor = np.zeros(count)
        collective.recv(tensor, rank, group_name)
        return float(tensor.sum())

    def left(self, group_name: str = "default") -> tuple[bool, int, int]:
        collective.destroy_collective_group(group_name)
        return (
            collective.is_group_initialized(group_name),
            collective.get_rank(group_name),
            collective.get_collective_group_size(group_name),
        )


@pytest.fixture(scope="module", params=["native", "inline"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    umbel.shutdown()
    umbel.init(num_cpus=4, engine=request.param, log_to_driver=False)
    yield request.param
    umbel.shutdown()


@pytest.fixture(scope="module")
def native() -> Iterator[None]:
    umbel.shutdown()
    umbel.init(num_cpus=4, log_to_driver=False)
    yield
    umbel.shutdown()


def group(world_size: int, **options: Any) -> list[Any]:
    ranks = [Rank.remote() for _ in range(world_size)]
    umbel.get([one.imported.remote(options.get("backend", "shm")) for one in ranks], timeout=30)
    made = umbel.get([one.init.remote(world_size, rank, **options) for rank, one in enumerate(ranks)], timeout=30)
    assert made == list(range(world_size))
    return ranks


def failures(refs: list[Any], kind: type[exceptions.CollectiveError]) -> list[exceptions.CollectiveError]:
    """The error of each call, all of which must fail so."""
    found = []
    for ref in refs:
        with pytest.raises(kind) as info:
            umbel.get(ref, timeout=30)
        found.append(info.value)
    return found


# On both engines


def test_actors_reduce_small_and_large_tensors(engine: str) -> None:
    ranks = group(2)
    for count in (4, 200_000):
        assert umbel.get([one.allreduce.remote(rank + 1, count) for rank, one in enumerate(ranks)]) == [3.0, 3.0]
    op = collective.ReduceOp.PRODUCT
    assert umbel.get([one.allreduce.remote(rank + 3, op=op) for rank, one in enumerate(ranks)]) == [12.0, 12.0]
    assert umbel.get([one.left.remote() for one in ranks]) == [(False, -1, -1)] * 2


def test_group_of_a_name_can_be_made_again(engine: str) -> None:
    ranks = [Rank.remote() for _ in range(2)]
    for _ in range(3):
        umbel.get([one.init.remote(2, rank, group_name="again") for rank, one in enumerate(ranks)], timeout=30)
        assert umbel.get([one.allreduce.remote(1, 4, "again") for one in ranks]) == [2.0, 2.0]
        umbel.get([one.left.remote("again") for one in ranks])


def test_driver_declares_a_group_that_actors_join_when_they_use_it(engine: str) -> None:
    ranks = [Rank.remote() for _ in range(2)]
    collective.create_collective_group(ranks, 2, [1, 0], group_name="declared", gloo_timeout=PATIENCE_MS)
    with pytest.raises(RuntimeError, match="there is a group of that name already"):
        collective.create_collective_group(ranks, 2, [1, 0], group_name="declared")
    assert umbel.get([one.allreduce.remote(value, 4, "declared") for one, value in zip(ranks, (2, 3), strict=True)]) == [
        5.0, 5.0,
    ]  # fmt: skip
    assert umbel.get([one.call.remote("get_rank", "declared") for one in ranks]) == [1, 0]
    umbel.get([one.left.remote("declared") for one in ranks])
    collective.destroy_collective_group("declared")
    collective.create_collective_group(ranks, 2, [0, 1], group_name="declared", gloo_timeout=PATIENCE_MS)
    collective.destroy_collective_group("declared")


def test_group_of_actors_is_made_and_ended_by_the_driver(engine: str) -> None:
    ranks = [Rank.remote() for _ in range(2)]
    made = groups_of_actors.create_collective_group(ranks[::-1], backend="shm", name="made")
    assert (made.name, made.backend, [made.get_rank(one) for one in (*ranks, Rank.remote())]) == (
        "made",
        "SHM",
        [1, 0, -1],
    )
    assert umbel.get([one.allreduce.remote(value, 4, "made") for one, value in zip(ranks, (2, 3), strict=True)]) == [
        5.0, 5.0,
    ]  # fmt: skip
    other = groups_of_actors.create_collective_group(ranks[:1], backend="shm")
    assert groups_of_actors.get_collective_groups(ranks) == [made]
    assert groups_of_actors.get_collective_groups(ranks[:1], "shm") == [made, other]
    assert groups_of_actors.get_collective_groups(ranks[:1], "gloo") == []
    with pytest.raises(ValueError, match="'made' already"):
        groups_of_actors.create_collective_group(ranks, backend="shm", name="made")
    groups_of_actors.destroy_collective_group(made)
    assert umbel.get([one.call.remote("is_group_initialized", "made") for one in ranks]) == [False, False]
    groups_of_actors.destroy_all_collective_groups()
    assert umbel.get(ranks[0].call.remote("is_group_initialized", other.name)) is False
    assert groups_of_actors.get_collective_groups([]) == []
    with pytest.raises(ValueError, match="no group 'made' was made here"):
        groups_of_actors.destroy_collective_group("made")


def test_what_is_no_group_of_actors_is_refused(engine: str) -> None:
    rank = Rank.remote()
    with pytest.raises(TypeError, match="handles to actors, got 5"):
        groups_of_actors.create_collective_group([rank, 5], backend="shm")
    with pytest.raises(ValueError, match="once"):
        groups_of_actors.create_collective_group([rank, rank], backend="shm")
    with pytest.raises(exceptions.PluginError, match="nccl"):
        groups_of_actors.create_collective_group([rank], backend="nccl")
    with pytest.raises(TypeError, match="its name, got 5"):
        groups_of_actors.destroy_collective_group(5)  # type: ignore[arg-type]


def test_group_is_ended_although_an_actor_of_it_is_dead(engine: str) -> None:
    ranks = [Rank.remote() for _ in range(2)]
    made = groups_of_actors.create_collective_group(ranks, backend="shm")
    umbel.kill(ranks[0])
    groups_of_actors.destroy_collective_group(made)
    assert umbel.get(ranks[1].call.remote("is_group_initialized", made.name)) is False


def test_mismatch_is_told_at_all_ranks_and_the_group_goes_on(engine: str) -> None:
    ranks = group(2)
    calls = [ranks[0].allreduce.remote(1, 4), ranks[1].allreduce.remote(1, 5)]
    first, second = failures(calls, exceptions.CollectiveMismatchError)
    told = "rank 0 called allreduce(sum) of float64 (4,); rank 1 called allreduce(sum) of float64 (5,)"
    assert told in str(first)
    assert told in str(second)
    assert umbel.get([one.allreduce.remote(1) for one in ranks]) == [2.0, 2.0]


def test_misuse_is_told_at_once(engine: str) -> None:
    (one,) = group(1)
    assert umbel.get(one.allreduce.remote(7)) == 7.0
    for call, kind, words in (
        (("init_collective_group", 1, 0), RuntimeError, "is initialized here already, as rank 0"),
        (("init_collective_group", 0, 0, "shm", "x"), ValueError, "world_size must be at least 1"),
        (("init_collective_group", 2, 2, "shm", "x"), ValueError, "rank must be from 0 to 1"),
        (("init_collective_group", 2, "1", "shm", "x"), TypeError, "rank must be a whole number"),
        (("init_collective_group", 1, 0, "nccl", "x"), exceptions.PluginError, "must be one of gloo, shm, got 'nccl'"),
        (("init_collective_group", 1, 0, "shm", ""), ValueError, "group_name must be"),
        (("init_collective_group", 1, 0, "shm", "x", 0), ValueError, "gloo_timeout must be more than 0"),
        (("allreduce", [1.0]), TypeError, "tensor must be a numpy array"),
        (("allreduce", np.zeros(3), "default", "sum"), TypeError, "op must be a ReduceOp"),
        (("allreduce", np.zeros(3), "nowhere"), RuntimeError, "'nowhere' is not initialized in this process"),
        (("broadcast", np.zeros(3), 1), ValueError, "is from 0 to 0, got 1"),
        (("send", np.zeros(3), 0), RuntimeError, "dst_rank must be another rank"),
        (("allgather", [], np.zeros(3)), RuntimeError, "one tensor for each rank, 1 in all, got 0"),
        (("allreduce_multigpu", []), exceptions.UnsupportedFeature, "a rank of its own"),
        (("register_collective_backend", "x", object), exceptions.UnsupportedFeature, "umbel_collectives"),
    ):
        with pytest.raises(kind, match=words):
            umbel.get(one.call.remote(*call), timeout=30)
    assert umbel.get(one.allreduce.remote(7)) == 7.0


def test_ranks_that_do_not_fit_together_are_refused(engine: str) -> None:
    first, second, third = (Rank.remote() for _ in range(3))
    begun = first.init.remote(2, 0, group_name="odd")
    with pytest.raises(RuntimeError, match="two processes came as rank 0") as info:
        umbel.get([second.init.remote(2, 0, group_name="odd"), begun], timeout=30)
    assert "collective group 'odd'" in str(info.value)
    umbel.get(third.init.remote(2, 1, group_name="odd"), timeout=30)


def test_rank_that_never_comes_is_named(engine: str) -> None:
    lonely = Rank.remote()
    (error,) = failures([lonely.init.remote(3, 1, timeout_ms=300)], exceptions.CollectiveTimeoutError)
    assert "ranks 0, 2 did not come within 0.3 s" in str(error)


# What one engine shows


@pytest.mark.usefixtures("native")
def why_collective(ref: Any) -> state.Reason:
    """The story of a call, once it ends in its group."""
    return drivers.wait_until(lambda: (r := state.explain(ref)).last().code == "collective" and r)


def test_rank_that_waits_for_others_says_for_whom(native: None) -> None:
    ranks = group(2, group_name="slow")
    ref = ranks[0].allreduce.remote(1, group_name="slow")
    told = why_collective(ref)
    in_words = (
        r"it is in allreduce\(sum\) of float64 \(4,\) in group 'slow' as rank 0, and waits for rank 1, for \d+\.\d s"
    )
    assert re.search(f"Rank.allreduce has run for .* in allreduce: {in_words}$|: {in_words}$", str(told)), str(told)
    assert {name: told.last().facts[name] for name in ("group", "rank", "awaited")} == {
        "group": "slow", "rank": 0, "awaited": [1],
    }  # fmt: skip
    assert re.search(in_words, commands.run("explain", ranks[0]._actor_id.hex()).stdout)
    assert re.search(in_words, commands.run("stack", ranks[0]._actor_id.hex()).stdout)
    assert umbel.get([ref, ranks[1].allreduce.remote(2, group_name="slow")], timeout=30) == [3.0, 3.0]
    assert "runs nothing" in commands.run("explain", ranks[0]._actor_id.hex()).stdout
    umbel.get([one.left.remote("slow") for one in ranks], timeout=30)


def test_rank_that_receives_says_from_whom(native: None) -> None:
    ranks = group(2, group_name="pair")
    ref = ranks[0].receive.remote(4, 1, "pair")
    assert "it is in recv of float64 (4,) from rank 1 in group 'pair' as rank 0, and waits for rank 1" in str(
        why_collective(ref)
    )
    assert umbel.get([ranks[1].call.remote("send", np.ones(4), 0, "pair"), ref], timeout=30) == [None, 4.0]
    umbel.get([one.left.remote("pair") for one in ranks], timeout=30)


def test_coroutine_that_waits_in_its_group_holds_all_others_up_and_says_so(native: None) -> None:
    @umbel.remote(num_cpus=0)
    class Both:
        async def init(self, rank: int) -> None:
            collective.init_collective_group(2, rank, group_name="loop")

        async def reduce(self) -> None:
            collective.allreduce(np.zeros(1), "loop")

        async def other(self) -> None:
            pass

    both = [Both.remote() for _ in range(2)]
    umbel.get([one.init.remote(rank) for rank, one in enumerate(both)], timeout=30)
    ref = both[0].reduce.remote()
    why_collective(ref)
    other = both[0].other.remote()
    assert "it is in allreduce(sum) of float64 (1,) in group 'loop' as rank 0, and waits for rank 1, for " in str(
        why_collective(other)
    )
    umbel.get([ref, other, both[1].reduce.remote()], timeout=30)


def test_rank_of_which_others_have_not_come_says_so(native: None) -> None:
    ranks = [Rank.remote() for _ in range(3)]
    first = ranks[0].init.remote(3, 0, group_name="late")
    assert "it joins group 'late' as rank 0, and waits for ranks 1, 2, for " in str(why_collective(first))
    second = ranks[1].init.remote(3, 1, group_name="late")
    assert "it joins group 'late' as rank 1, and waits for the others, for " in str(why_collective(second))
    drivers.wait_until(lambda: "waits for rank 2, for " in str(state.explain(first)))
    third = ranks[2].init.remote(3, 2, group_name="late")
    assert umbel.get([first, second, third], timeout=30) == [0, 1, 2]
    umbel.get([one.left.remote("late") for one in ranks], timeout=30)


def test_driver_and_tasks_are_ranks_too() -> None:
    @umbel.remote(num_cpus=1)
    def work(rank: int) -> float:
        assert not collective.is_group_initialized("mixed")  # a task before this one, in this process, was in it
        collective.init_collective_group(3, rank, group_name="mixed", gloo_timeout=PATIENCE_MS)
        tensor = np.full(3, float(rank))
        collective.allreduce(tensor, "mixed")
        collective.barrier("mixed")
        return float(tensor[0])

    for _ in range(3):
        refs = [work.remote(rank) for rank in (1, 2)]
        collective.init_collective_group(3, 0, group_name="mixed", gloo_timeout=PATIENCE_MS)
        tensor = array.array("d", [10.0, 10.0, 10.0])
        collective.allreduce(tensor, "mixed")
        collective.barrier("mixed")
        assert tensor.tolist() == [13.0, 13.0, 13.0]
        assert umbel.get(refs, timeout=30) == [13.0, 13.0]
        with pytest.raises(exceptions.CollectiveRankDiedError, match=r"rank [12] has left it"):
            collective.barrier("mixed")  # the tasks have ended, and with them their part in it
        collective.destroy_collective_group("mixed")


@pytest.fixture(params=["shm", gloo()])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(("backend", "count"), [("shm", 16), ("shm", 300_000), gloo(300_000)])
def test_killed_rank_is_an_error_at_all_others_at_once(backend: str, count: int) -> None:
    ranks = group(3, backend=backend)
    victim = umbel.get(ranks[1].process.remote())
    running = [one.loop.remote(count) for one in ranks]
    drivers.pause(0.1)  # into the midst of it
    drivers.kill(victim)
    began_s = time.monotonic()
    errors = failures([running[0], running[2]], exceptions.CollectiveRankDiedError)
    assert time.monotonic() - began_s < SOON_S
    assert [error.rank for error in errors] == [1, 1]
    assert all("rank 1 died" in str(error) and "allreduce(max)" in str(error) for error in errors)
    with pytest.raises(exceptions.CollectiveRankDiedError):
        umbel.get(ranks[0].allreduce.remote(1), timeout=30)
    # The others make a new group, of the same name, without it.
    umbel.get([ranks[0].left.remote(), ranks[2].left.remote()])
    umbel.get([ranks[0].init.remote(2, 0, backend=backend), ranks[2].init.remote(2, 1, backend=backend)], timeout=30)
    assert umbel.get([ranks[0].allreduce.remote(1), ranks[2].allreduce.remote(2)]) == [3.0, 3.0]


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("is_host", [True, False])
def test_rank_killed_while_the_group_comes_together_is_an_error_at_once(backend: str, is_host: bool) -> None:
    host, guest = Rank.remote(), Rank.remote()
    pids = umbel.get([host.process.remote(), guest.process.remote()])
    first = host.init.remote(3, 0, group_name="gathering", backend=backend)
    drivers.wait_until(lambda: "umbel.util.collective:gathering" in umbel.util.list_named_actors())
    second = guest.init.remote(3, 1, group_name="gathering", backend=backend)
    drivers.wait_until(lambda: _is_at_the_door(pids[1]))
    began_s = time.monotonic()
    drivers.kill(pids[0] if is_host else pids[1])
    (error,) = failures([second if is_host else first], exceptions.CollectiveRankDiedError)
    assert time.monotonic() - began_s < SOON_S
    assert "died while the group came together" in str(error)


def _is_at_the_door(pid: int) -> bool:
    """Whether this process has told the host who it is, and waits for the others."""
    stacks = commands.run("stack", "--all", str(pid)).stdout
    return re.search(r"assembly\.py:\d+ in join\n.*\n.*selectors\.py:\d+ in select", stacks) is not None


@pytest.mark.usefixtures("native")
def test_stopped_rank_is_an_error_in_time(backend: str) -> None:
    """It is alive, so that only time can tell."""
    ranks = group(2, backend=backend, timeout_ms=SHORT_MS[backend])
    pid = umbel.get(ranks[1].process.remote())
    drivers.freeze(pid)
    try:
        (error,) = failures([ranks[0].allreduce.remote(1)], exceptions.CollectiveTimeoutError)
        waited = f"rank 0 waited {SHORT_MS[backend] / 1000:g} s in allreduce(sum) of float64 (4,) for rank 1;"
        assert waited in str(error)
    finally:
        os.kill(pid, signal.SIGCONT)
    (error,) = failures([ranks[1].allreduce.remote(1)], exceptions.CollectiveTimeoutError)
    assert "rank 0 waited" in str(error)


@pytest.mark.usefixtures("native")
def test_cancelled_operation_ends_the_group_at_all_ranks() -> None:
    @umbel.remote
    def wait_in_it() -> None:
        collective.init_collective_group(2, 0, group_name="cancelled", gloo_timeout=PATIENCE_MS)
        collective.barrier("cancelled")

    other = Rank.remote()
    waiting = wait_in_it.remote()
    umbel.get(other.init.remote(2, 1, group_name="cancelled"), timeout=30)
    drivers.pause(0.1)  # into the barrier; under load it may not have come so far, which makes no difference
    umbel.cancel(waiting)
    with pytest.raises(exceptions.CollectiveError) as info:
        for _ in range(2):  # in the first one rank 0 may have taken part
            umbel.get(other.call.remote("barrier", "cancelled"), timeout=30)
    assert info.value.rank == 0


@pytest.mark.usefixtures("native")
def test_forked_child_does_not_hide_the_death_of_its_parent() -> None:
    class Forking:
        def init(self, rank: int) -> int:
            collective.init_collective_group(2, rank, group_name="forking", gloo_timeout=PATIENCE_MS)
            if rank == 0:
                return 0
            child = os.fork()
            if not child:
                time.sleep(60)
                os._exit(0)
            return child

        def barrier(self) -> None:
            collective.barrier("forking")

        def process(self) -> int:
            return os.getpid()

    ranks = [umbel.remote(num_cpus=0)(Forking).remote() for _ in range(2)]
    _, child = umbel.get([one.init.remote(rank) for rank, one in enumerate(ranks)], timeout=30)
    try:
        waiting = ranks[0].barrier.remote()
        drivers.kill(umbel.get(ranks[1].process.remote()))
        failures([waiting], exceptions.CollectiveRankDiedError)
    finally:
        drivers.kill(child)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("role", ["send", "recv"])
def test_cancelled_task_does_not_wait_for_the_other_end_of_its_pair(backend: str, role: str) -> None:
    """Rank 1 has agreed, and is stopped: rank 0 waits within the backend."""

    @umbel.remote
    def wait_in_it() -> None:
        collective.init_collective_group(2, 0, backend, group_name="pair", gloo_timeout=PATIENCE_MS)
        getattr(collective, role)(np.zeros(LARGE), 1, "pair")

    class Stopping:
        def stop(self) -> None:
            collective.init_collective_group(2, 1, backend, group_name="pair", gloo_timeout=PATIENCE_MS)
            method = "receive" if role == "send" else "send"
            peers = collective.get_group_handle("pair")._peers
            agree = getattr(peers, method)

            def agree_and_stop(*args: Any, **options: Any) -> None:
                setattr(peers, method, agree)
                agree(*args, **options)
                os.kill(os.getpid(), signal.SIGSTOP)

            setattr(peers, method, agree_and_stop)
            getattr(collective, "recv" if role == "send" else "send")(np.zeros(LARGE), 0, "pair")

        def process(self) -> int:
            return os.getpid()

    other = umbel.remote(num_cpus=0)(Stopping).remote()
    pid = umbel.get(other.process.remote(), timeout=30)
    waiting = wait_in_it.remote()
    stopped = other.stop.remote()
    drivers.wait_until(lambda: drivers.thread_states(pid) == {"T"}, what="rank 1 to stop")
    began_s = time.monotonic()
    umbel.cancel(waiting)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(waiting, timeout=30)
    assert time.monotonic() - began_s < SOON_S
    os.kill(pid, signal.SIGCONT)
    failures([stopped], exceptions.CollectiveError)


def test_driver_that_has_lost_a_rank_ends_as_ever(backend: str) -> None:
    """It is in the group to the end, which Gloo's threads could hold up."""
    output, errors = drivers.run(
        """
        import numpy as np, os, signal, umbel
        from umbel import exceptions
        from umbel.util import collective

        umbel.init(num_cpus=1, log_to_driver=False)

        @umbel.remote(max_retries=0)
        def rank():
            collective.init_collective_group(2, 1, os.environ["BACKEND"])
            collective.allreduce(np.ones(2_000_000))
            os.kill(os.getpid(), signal.SIGKILL)

        running = rank.remote()
        collective.init_collective_group(2, 0, os.environ["BACKEND"])
        tensor = np.ones(2_000_000)
        collective.allreduce(tensor)
        try:
            collective.allreduce(tensor)
        except exceptions.CollectiveRankDiedError as error:
            print("rank", error.rank, "died")
        """,
        timeout_s=45.0,  # two processes import PyTorch
        BACKEND=backend,
    )
    assert (output, errors) == ("rank 1 died\n", "umbel: started a private native session with 1 CPU\n")


@pytest.mark.parametrize(("backend", "victim"), [("shm", "driver"), ("shm", "daemon"), ("shm", "rank"), gloo("driver")])
def test_nothing_is_left_after_a_kill(backend: str, victim: str) -> None:
    source = """
        import numpy as np, os, umbel
        from umbel.util import collective

        umbel.init(num_cpus=2, log_to_driver=False)

        @umbel.remote
        class Rank:
            def run(self, rank):
                collective.init_collective_group(2, rank, os.environ["BACKEND"])
                tensor = np.ones(300_000)
                collective.allreduce(tensor)
                print(os.getpid(), file=open(os.environ["PIDS"], "a"), flush=True)
                while True:
                    collective.allreduce(tensor, op=collective.ReduceOp.MAX)

        ranks = [Rank.remote() for _ in range(2)]
        running = [one.run.remote(rank) for rank, one in enumerate(ranks)]
        print("running", flush=True)
        umbel.wait(running, num_returns=2)
        print("over", flush=True)
    """
    directory = drivers.tempfile.mkdtemp(prefix="u", dir="/tmp")
    path = os.path.join(directory, "pids")
    try:
        with drivers.driver(source, PIDS=path, BACKEND=backend) as driver:
            assert driver.line() == "running"
            pids = drivers.wait_until(lambda: _lines(path, 2))
            if victim == "driver":
                driver.kill()
            elif victim == "daemon":
                drivers.kill(driver.daemon_pids()[0])
            else:
                drivers.kill(int(pids[0]))
                assert driver.line() == "over"
                driver.finish()
            driver.expect_nothing_left()
            drivers.wait_until(lambda: not any(drivers.is_running(int(pid)) for pid in pids))
    finally:
        drivers.shutil.rmtree(directory)


def _lines(path: str, count: int) -> list[str]:
    """All of them, once there are so many."""
    try:
        with open(path) as file:
            found = file.read().split()
    except FileNotFoundError:
        return []
    return found if len(found) >= count else []
