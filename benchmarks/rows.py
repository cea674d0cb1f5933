"""The rows that run inside a runtime: what each one does, written once for every module with this API.

The runtime is one node with 2 CPUs, or, for the rows on another node, a cluster of two such nodes (`benchmarks/runtimes.py`).

Each function builds a workload on the module it is given. Remote functions and classes are made inside, so that they
travel by value and no worker has to find this file. Every builder checks a result first: a fast wrong answer is not a
result. Where Ray's own microbenchmark has the row (tasks, actors, put, get, wait, 10,000 refs), the definition is its.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.measure import Workload
from benchmarks.runtimes import THERE

MIB = 1 << 20
BATCH = 1_000  # calls in flight in the pipelined rows
SMALL = b"ok"

Builder = Callable[[ModuleType], Workload]


def expect(got: object, wanted: object) -> None:
    """A benchmark of wrong results must not produce a number."""
    if got != wanted:
        raise ValueError(f"the workload gave {got!r}, but {wanted!r} is right; fix that before timing it")


def expect_elsewhere(rt: ModuleType, node_id: str) -> None:
    """What is measured as another node's work must not be done by the driver's."""
    if node_id == rt.get_runtime_context().get_node_id():
        raise ValueError(f"the workload ran on the driver's node {node_id}, but has to run on the other one")


# ---------------------------------------------------------------------------------------------------------------- tasks


def tasks_sync(rt: ModuleType) -> Workload:
    noop = _noop_task(rt)
    return Workload(lambda: rt.get(noop.remote()))


def tasks_pipelined(rt: ModuleType) -> Workload:
    noop = _noop_task(rt)
    return Workload(lambda: rt.get([noop.remote() for _ in range(BATCH)]), units=BATCH)


def tasks_pipelined_10kb(rt: ModuleType) -> Workload:
    @rt.remote
    def size(payload: bytes) -> int:
        return len(payload)

    payload = os.urandom(10_000)
    expect(rt.get(size.remote(payload)), 10_000)
    return Workload(lambda: rt.get([size.remote(payload) for _ in range(BATCH)]), units=BATCH)


def nested(rt: ModuleType) -> Workload:
    parents, children = 2, 500
    noop = _noop_task(rt)

    @rt.remote
    def parent(count: int) -> int:
        return len(rt.get([noop.remote() for _ in range(count)]))

    expect(rt.get(parent.remote(3)), 3)
    return Workload(lambda: rt.get([parent.remote(children) for _ in range(parents)]), units=parents * children)


def chain(rt: ModuleType) -> Workload:
    length = 200

    @rt.remote
    def successor(number: int) -> int:
        return number + 1

    def run() -> int:
        ref: Any = 0
        for _ in range(length):
            ref = successor.remote(ref)
        return int(rt.get(ref))

    expect(run(), length)
    return Workload(run, units=length)


def tree_reduce(rt: ModuleType) -> Workload:
    leaves = 512

    @rt.remote
    def add(left: int, right: int) -> int:
        return left + right

    def run() -> int:
        level: list[Any] = list(range(leaves))
        while len(level) > 1:
            level = [add.remote(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
        return int(rt.get(level[0]))

    expect(run(), leaves * (leaves - 1) // 2)
    return Workload(run, units=leaves - 1)


def task_1mib(rt: ModuleType) -> Workload:
    array = np.zeros(MIB, dtype=np.uint8)

    @rt.remote
    def increment(values: Any) -> Any:
        return values + 1

    expect(int(rt.get(increment.remote(array)).sum()), MIB)
    return Workload(lambda: rt.get(increment.remote(array)))


def generator(rt: ModuleType) -> Workload:
    @rt.remote(num_returns="streaming")
    def count_up(stop: int) -> Iterator[int]:
        number = 0
        while number < stop:  # not `yield from range`: Ray 2.60 sends into the generator, and a range cannot receive
            yield number
            number += 1

    def run() -> int:
        return sum(rt.get(ref) for ref in count_up.remote(BATCH))

    expect(run(), BATCH * (BATCH - 1) // 2)
    return Workload(run, units=BATCH)


def _noop_task(rt: ModuleType) -> Any:
    @rt.remote
    def noop() -> bytes:
        return SMALL

    expect(rt.get(noop.remote()), SMALL)
    return noop


# --------------------------------------------------------------------------------------------------------------- actors


def actor_sync(rt: ModuleType) -> Workload:
    actor = _plain_actor(rt).remote()
    expect(rt.get(actor.call.remote()), SMALL)
    return Workload(lambda: rt.get(actor.call.remote()), close=lambda: rt.kill(actor))


def actor_pipelined(rt: ModuleType) -> Workload:
    actor = _plain_actor(rt).remote()
    expect(rt.get(actor.call.remote()), SMALL)
    return Workload(
        lambda: rt.get([actor.call.remote() for _ in range(BATCH)]), units=BATCH, close=lambda: rt.kill(actor)
    )


def actor_many_to_many(rt: ModuleType) -> Workload:
    """Two callers, each with calls in flight to the same two actors."""
    width, calls = 2, 500
    plain = _plain_actor(rt)

    @rt.remote(num_cpus=0)
    class Caller:
        def __init__(self, actors: list[Any]) -> None:
            self.actors = actors

        def drive(self, count: int) -> int:
            return len(rt.get([actor.call.remote() for actor in self.actors for _ in range(count)]))

    actors = [plain.remote() for _ in range(width)]
    callers = [Caller.remote(actors) for _ in range(width)]
    expect(rt.get([caller.drive.remote(1) for caller in callers]), [width] * width)

    def close() -> None:
        for actor in callers + actors:
            rt.kill(actor)

    return Workload(
        lambda: rt.get([caller.drive.remote(calls) for caller in callers]), units=width * width * calls, close=close
    )


def async_actor_sync(rt: ModuleType) -> Workload:
    actor = _async_actor(rt).remote()
    expect(rt.get(actor.call.remote()), SMALL)
    return Workload(lambda: rt.get(actor.call.remote()), close=lambda: rt.kill(actor))


def async_actor_pipelined(rt: ModuleType) -> Workload:
    actor = _async_actor(rt).remote()
    expect(rt.get(actor.call.remote()), SMALL)
    return Workload(
        lambda: rt.get([actor.call.remote() for _ in range(BATCH)]), units=BATCH, close=lambda: rt.kill(actor)
    )


def actor_churn(rt: ModuleType) -> Workload:
    count = 10
    plain = _plain_actor(rt)

    def run() -> None:
        actors = [plain.remote() for _ in range(count)]
        expect(rt.get([actor.call.remote() for actor in actors]), [SMALL] * count)
        for actor in actors:
            rt.kill(actor)

    return Workload(run, units=count)


def group_churn(rt: ModuleType) -> Workload:
    """One at a time, each asked for until it is gone: to remove a group may be no more than to ask for it."""
    util = importlib.import_module(f"{rt.__name__}.util")

    def state(group: Any) -> str:
        return str(util.placement_group_table(group)["state"])

    def make() -> Any:
        group = util.placement_group([{"CPU": 0.01}])
        expect(group.wait(30), True)
        return group

    def remove(group: Any) -> None:
        util.remove_placement_group(group)
        while state(group) != "REMOVED":
            pass

    group = make()
    expect((state(group), util.placement_group_table(group)["bundles"]), ("CREATED", {0: {"CPU": 0.01}}))
    remove(group)
    return Workload(lambda: remove(make()))


def _plain_actor(rt: ModuleType) -> Any:
    @rt.remote(num_cpus=0)
    class Plain:
        def call(self) -> bytes:
            return SMALL

    return Plain


def _async_actor(rt: ModuleType) -> Any:
    @rt.remote(num_cpus=0)
    class Async:
        async def call(self) -> bytes:
            return SMALL

    return Async


# -------------------------------------------------------------------------------------------------------------- objects


def put_small(rt: ModuleType) -> Workload:
    expect(rt.get(rt.put(0)), 0)
    return Workload(lambda: rt.put(0))


def get_small(rt: ModuleType) -> Workload:
    ref = rt.put(0)
    expect(rt.get(ref), 0)
    return Workload(lambda: rt.get(ref))


def put_1mib(rt: ModuleType) -> Workload:
    array = np.ones(MIB, dtype=np.uint8)
    expect(int(rt.get(rt.put(array)).sum()), MIB)
    return Workload(lambda: rt.put(array))


def put_256mib(rt: ModuleType) -> Workload:
    """In decimal gigabytes per second, in turn with a copy of the same bytes to memory that is already mapped."""
    array = np.ones(256 * MIB, dtype=np.uint8)
    destination = np.zeros_like(array)
    expect(int(rt.get(rt.put(array))[-1]), 1)
    return Workload(lambda: rt.put(array), units=array.nbytes / 1e9, reference=lambda: np.copyto(destination, array))


def get_1mib(rt: ModuleType) -> Workload:
    ref = rt.put(np.ones(MIB, dtype=np.uint8))
    expect(int(rt.get(ref).sum()), MIB)
    return Workload(lambda: rt.get(ref))


def wait_1k(rt: ModuleType) -> Workload:
    noop = _noop_task(rt)

    def run() -> None:
        remaining = [noop.remote() for _ in range(BATCH)]
        while remaining:
            _ready, remaining = rt.wait(remaining)

    return Workload(run)


def get_10k_refs(rt: ModuleType) -> Workload:
    count = 10_000

    @rt.remote
    def make(count: int) -> list[Any]:
        return [rt.put(1) for _ in range(count)]

    holder = make.remote(count)
    refs = rt.get(holder)
    expect((len(refs), rt.get(refs[0]), rt.get(refs[-1])), (count, 1, 1))
    del refs
    return Workload(lambda: rt.get(holder))


# ---------------------------------------------------------------------------------------------------------- other nodes


def remote_tasks_sync(rt: ModuleType) -> Workload:
    noop = _noop_task_there(rt)
    return Workload(lambda: rt.get(noop.remote()))


def remote_tasks_pipelined(rt: ModuleType) -> Workload:
    noop = _noop_task_there(rt)
    return Workload(lambda: rt.get([noop.remote() for _ in range(BATCH)]), units=BATCH)


def remote_actor_sync(rt: ModuleType) -> Workload:
    actor = _actor_there(rt)
    return Workload(lambda: rt.get(actor.call.remote()), close=lambda: rt.kill(actor))


def remote_actor_pipelined(rt: ModuleType) -> Workload:
    actor = _actor_there(rt)
    return Workload(
        lambda: rt.get([actor.call.remote() for _ in range(BATCH)]), units=BATCH, close=lambda: rt.kill(actor)
    )


def transfer_256mib(rt: ModuleType) -> Workload:
    """Decimal gigabytes per second of a task that has an array of the driver's node as its argument.

    Every task gets a new array, because a node keeps what it has copied; that the driver puts it is not timed.
    """
    array = np.ones(256 * MIB, dtype=np.uint8)
    refs: list[Any] = []
    rounds = 0

    @rt.remote(resources={THERE: 1})
    def read(values: Any) -> tuple[int, str]:
        return int(values[-1]), rt.get_runtime_context().get_node_id()

    @rt.remote(resources={THERE: 1})
    def total(values: Any) -> int:
        return int(values.sum())

    def prepare() -> None:
        nonlocal rounds
        rounds += 1
        array[-1] = rounds % 256  # a copy of an earlier array would be seen
        refs[:] = [rt.put(array)]

    def run() -> str:
        last, node_id = rt.get(read.remote(refs[0]))
        expect(last, rounds % 256)
        return str(node_id)

    prepare()
    expect(rt.get(total.remote(refs[0])), array.nbytes)
    expect_elsewhere(rt, run())
    return Workload(run, units=array.nbytes / 1e9, close=refs.clear, prepare=prepare)


def _noop_task_there(rt: ModuleType) -> Any:
    @rt.remote(resources={THERE: 1})
    def noop() -> bytes:
        return SMALL

    @rt.remote(resources={THERE: 1})
    def node_id() -> str:
        return str(rt.get_runtime_context().get_node_id())

    expect(rt.get(noop.remote()), SMALL)
    expect_elsewhere(rt, rt.get(node_id.remote()))
    return noop


def _actor_there(rt: ModuleType) -> Any:
    @rt.remote(num_cpus=0, resources={THERE: 1})
    class There:
        def call(self) -> bytes:
            return SMALL

        def node_id(self) -> str:
            return str(rt.get_runtime_context().get_node_id())

    actor = There.remote()
    expect(rt.get(actor.call.remote()), SMALL)
    expect_elsewhere(rt, rt.get(actor.node_id.remote()))
    return actor


BUILDERS: dict[str, Builder] = {
    builder.__name__: builder
    for builder in (
        tasks_sync,
        tasks_pipelined,
        tasks_pipelined_10kb,
        nested,
        chain,
        tree_reduce,
        task_1mib,
        actor_sync,
        actor_pipelined,
        actor_many_to_many,
        async_actor_sync,
        async_actor_pipelined,
        put_small,
        get_small,
        put_1mib,
        put_256mib,
        get_1mib,
        wait_1k,
        get_10k_refs,
        actor_churn,
        group_churn,
        generator,
        remote_tasks_sync,
        remote_tasks_pipelined,
        remote_actor_sync,
        remote_actor_pipelined,
        transfer_256mib,
    )
}
