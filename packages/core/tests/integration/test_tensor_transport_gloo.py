"""Tensors that go by Gloo from the actor that made them to whoever uses them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions
from umbel.util import collective

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.torch,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets need Linux"),
]

COUNT = 100_000
TOTAL = COUNT * (COUNT - 1) // 2
SOON_S = 10.0  # within which a taker knows that the holder has died: milliseconds, but it would wait for a minute
PATIENCE_S = 30.0
TRANSFERS = 20


@umbel.remote(num_cpus=0, enable_tensor_transport=True)
class Actor:
    def __init__(self) -> None:
        self.made: Any = None

    def process(self) -> int:
        return os.getpid()

    @umbel.method(tensor_transport="GLOO")
    def make(self, count: int = COUNT) -> Any:
        self.made = torch.arange(count)
        return self.made

    @umbel.method(tensor_transport="gloo")
    def echo(self, value: Any) -> Any:
        return value

    @umbel.method(tensor_transport="gloo")
    def nested(self) -> Any:
        return {"layers": [(torch.ones(COUNT), "first"), {"bias": torch.zeros(3)}], "step": 7}

    def plain(self) -> Any:
        return torch.arange(COUNT)

    def is_made(self, value: Any) -> bool:
        return value is self.made

    def total(self, *values: Any) -> int:
        return int(sum(value.sum() for value in values))

    def add_one(self, value: Any) -> int:
        value += 1
        return int(value.sum())

    def take_all_from(self, other: Any) -> int:
        return sum(int(umbel.get(other.make.remote()).sum()) == TOTAL for _ in range(TRANSFERS))

    def put(self) -> Any:
        return [umbel.put(torch.arange(COUNT), _tensor_transport="gloo")]

    def join(self, rank: int) -> None:
        collective.init_collective_group(2, rank, backend="gloo", group_name="own")

    def reduce(self) -> float:
        tensor = torch.ones(3)
        collective.allreduce(tensor, "own")
        return float(tensor.sum())

    def forget_pytorch(self) -> None:
        sys.modules["torch"] = None  # type: ignore[assignment]  # as if it were not installed

    def fork(self) -> int:
        """The exit status of a child that ends as a program does."""
        child = os.fork()
        if not child:
            sys.exit(3)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def ports(self) -> int:
        """How many of its sockets are Gloo's."""
        inodes = {
            fields[9]
            for fields in (line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:])
            if fields[1].endswith("7F", 0, 8)
        }
        links = []
        for entry in Path("/proc/self/fd").iterdir():
            try:
                links.append(os.readlink(entry))
            except OSError:
                continue  # closed meanwhile
        return sum(link.removeprefix("socket:[").removesuffix("]") in inodes for link in links)


@umbel.remote(num_cpus=0, max_concurrency=4)
class Threaded:
    @umbel.method(tensor_transport="gloo")
    def make(self) -> Any:
        return torch.arange(COUNT)

    def total(self, value: Any) -> int:
        return int(value.sum())


@pytest.fixture(scope="module")
def native() -> Iterator[None]:
    umbel.shutdown()
    umbel.init(num_cpus=4, log_to_driver=False)
    yield
    umbel.shutdown()


@pytest.fixture(scope="module")
def pair(native: None) -> tuple[Any, Any]:
    """Each takes seconds to import PyTorch."""
    return Actor.remote(), Actor.remote()


@pytest.fixture
def new_pair(native: None) -> tuple[Any, Any]:
    return Actor.remote(), Actor.remote()


def test_tensors_go_from_actor_to_actor_without_a_group(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    made = maker.make.remote()
    assert umbel.get([user.total.remote(made), user.total.remote(made, made)]) == [TOTAL, 2 * TOTAL]
    assert umbel.get([maker.is_made.remote(made), user.is_made.remote(made)]) == [True, False]
    record = umbel._client.current.engine().values.table.records[made.binary()]  # type: ignore[attr-defined]
    assert len(str(record.payload)) < 2_000


def test_group_of_the_program_goes_on_beside_it(new_pair: tuple[Any, Any]) -> None:
    umbel.get([actor.join.remote(rank) for rank, actor in enumerate(new_pair)])
    maker, user = new_pair
    for _ in range(3):
        assert umbel.get(user.total.remote(maker.make.remote())) == TOTAL
        assert umbel.get([actor.reduce.remote() for actor in new_pair]) == [6.0, 6.0]


def test_tensors_anywhere_in_a_value_arrive(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    for value in (umbel.get(maker.nested.remote()), umbel.get(user.echo.remote(maker.nested.remote()))):
        assert (value["step"], value["layers"][0][1]) == (7, "first")
        assert torch.equal(value["layers"][0][0], torch.ones(COUNT))
        assert torch.equal(value["layers"][1]["bias"], torch.zeros(3))


def test_parameters_and_gradients_arrive_as_they_were(pair: tuple[Any, Any]) -> None:
    tensors = [torch.nn.Parameter(torch.ones(COUNT)), torch.ones(COUNT, requires_grad=True), torch.ones(5).bfloat16()]
    for one, other in zip(umbel.get(pair[0].echo.remote(tensors)), tensors, strict=True):
        assert (type(one), one.dtype, one.requires_grad) == (type(other), other.dtype, other.requires_grad)
        assert torch.equal(one, other)


def test_what_is_no_tensor_of_pytorchs_is_an_ordinary_value(pair: tuple[Any, Any]) -> None:
    np = pytest.importorskip("numpy")
    value = umbel.get(pair[0].echo.remote([1, "text", np.arange(3)]))
    assert (value[:2], value[2].tolist()) == ([1, "text"], [0, 1, 2])


def test_who_changes_a_tensor_changes_his_own(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    made = maker.make.remote()
    assert umbel.get([user.add_one.remote(made) for _ in range(2)]) == [TOTAL + COUNT] * 2
    assert umbel.get([user.total.remote(made), maker.total.remote(made)]) == [TOTAL, TOTAL]


def test_actors_that_take_from_each_other_do_not_wait_in_a_circle(pair: tuple[Any, Any]) -> None:
    one, other = pair
    assert umbel.get([one.total.remote(other.make.remote()), other.total.remote(one.make.remote())]) == [TOTAL, TOTAL]
    threaded = [Threaded.remote(), Threaded.remote()]
    made = [actor.make.remote() for actor in threaded]
    taking = [threaded[index % 2].total.remote(made[1 - index % 2]) for index in range(40)]
    assert umbel.get(taking, timeout=PATIENCE_S) == [TOTAL] * 40


def test_many_takers_at_once(pair: tuple[Any, Any]) -> None:
    takers = [Threaded.remote() for _ in range(3)]
    made = pair[0].make.remote()
    taking = [taker.total.remote(made) for taker in takers for _ in range(5)]
    own: list[int] = []
    threads = [threading.Thread(target=lambda: own.append(int(umbel.get(made).sum()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert umbel.get(taking, timeout=PATIENCE_S) == [TOTAL] * 15
    for thread in threads:
        thread.join()
    assert own == [TOTAL] * 4


def test_transfers_one_after_another_use_one_pair(new_pair: tuple[Any, Any]) -> None:
    maker, user = new_pair
    assert umbel.get(user.take_all_from.remote(maker)) == TRANSFERS
    ports = umbel.get([actor.ports.remote() for actor in new_pair])
    assert umbel.get(user.take_all_from.remote(maker)) == TRANSFERS
    assert (
        umbel.get([actor.ports.remote() for actor in new_pair]) == ports == [2, 2]
    )  # a port to be found at, and the connection


def test_driver_tasks_and_puts_take_part(pair: tuple[Any, Any]) -> None:
    @umbel.remote(num_cpus=0)
    def total(value: Any) -> int:
        return int(value.sum())

    maker, user = pair
    made = maker.make.remote()
    own = torch.arange(COUNT)
    ref = umbel.put(own, _tensor_transport="gloo")
    boxed = umbel.get(maker.put.remote())
    assert umbel.get([total.remote(made), user.total.remote(ref), user.total.remote(boxed[0])]) == [TOTAL] * 3
    assert umbel.get(ref) is own


def test_method_without_it_can_be_called_with_it(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    assert umbel.get(user.total.remote(maker.plain.options(tensor_transport="gloo").remote())) == TOTAL


def test_death_of_the_holder_is_an_error_that_names_it(new_pair: tuple[Any, Any]) -> None:
    maker, user = new_pair
    made = maker.make.remote()
    assert umbel.get(user.total.remote(made)) == TOTAL  # the pair is there
    os.kill(umbel.get(maker.process.remote()), signal.SIGKILL)
    began_s = time.monotonic()
    for read in (lambda: umbel.get(user.total.remote(made)), lambda: umbel.get(made)):
        with pytest.raises(exceptions.ObjectLostError, match=rf"actor Actor \({maker._actor_id_hex}\).* has died"):
            read()
    assert time.monotonic() - began_s < SOON_S
    assert umbel.get(user.total.remote(Actor.remote().make.remote())) == TOTAL


def test_death_of_the_holder_while_it_is_asked_is_one_too(new_pair: tuple[Any, Any]) -> None:
    maker, user = new_pair
    made = maker.make.remote()
    umbel.wait([made])
    pid = umbel.get(maker.process.remote())
    drivers.freeze(pid)
    reading = user.total.remote(made)
    assert umbel.wait([reading], timeout=0.3)[0] == []
    os.kill(pid, signal.SIGKILL)
    began_s = time.monotonic()
    with pytest.raises(exceptions.ObjectLostError, match="has died"):
        umbel.get(reading)
    assert time.monotonic() - began_s < SOON_S


def test_death_of_a_taker_is_nothing_to_the_others(new_pair: tuple[Any, Any]) -> None:
    maker, user = new_pair
    made = maker.make.remote()
    assert umbel.get(user.total.remote(made)) == TOTAL
    os.kill(umbel.get(user.process.remote()), signal.SIGKILL)
    assert umbel.get(Actor.remote().total.remote(made)) == TOTAL


def test_waiting_for_a_holder_that_is_stopped_can_be_cancelled(new_pair: tuple[Any, Any]) -> None:
    @umbel.remote(num_cpus=0)
    def total(value: Any) -> int:
        return int(value.sum())

    maker, _ = new_pair
    made = maker.make.remote()
    assert umbel.get(total.remote(made)) == TOTAL
    pid = umbel.get(maker.process.remote())
    drivers.freeze(pid)
    try:
        reading = total.remote(made)
        assert umbel.wait([reading], timeout=0.3)[0] == []
        umbel.cancel(reading)
        with pytest.raises(exceptions.TaskCancelledError):
            umbel.get(reading, timeout=10)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert umbel.get(total.remote(made)) == TOTAL


def test_children_that_actors_have_forked_end_by_themselves(pair: tuple[Any, Any]) -> None:
    """Gloo's threads are not in them, and would be waited for when a child ends."""
    maker, user = pair
    made = maker.make.remote()
    assert umbel.get(user.total.remote(made)) == TOTAL
    assert umbel.get([actor.fork.remote() for actor in pair], timeout=PATIENCE_S) == [3, 3]
    assert umbel.get(user.total.remote(maker.make.remote())) == TOTAL


def test_forked_child_takes_tensors_in_a_session_of_its_own() -> None:
    output, _ = drivers.run("""
        import os, sys, torch, umbel

        @umbel.remote(num_cpus=0)
        class Actor:
            @umbel.method(tensor_transport="gloo")
            def make(self): return torch.ones(100_000)

            def total(self, value): return value.sum().item()

        def use():
            umbel.init(num_cpus=1, log_to_driver=False)
            actor, own = Actor.remote(), umbel.put(torch.ones(100_000), _tensor_transport="gloo")
            print(len(umbel.get(actor.make.remote())), umbel.get(actor.total.remote(own)), flush=True)

        use()
        torch.set_num_threads(1)  # OpenMP's threads are not in a child
        child = os.fork()
        if not child:
            use()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        umbel.shutdown()
    """)
    assert output == "100000 100000.0\n" * 2


def test_without_pytorch_the_call_says_what_to_install(new_pair: tuple[Any, Any]) -> None:
    maker, user = new_pair
    made = maker.make.remote()
    for actor in new_pair:
        umbel.get(actor.forget_pytorch.remote())
    with pytest.raises(exceptions.PluginError, match=r'needs PyTorch.*run: pip install "umbel\[torch\]"'):
        umbel.get(user.total.remote(made))
    with pytest.raises(exceptions.PluginError, match=r'needs PyTorch.*run: pip install "umbel\[torch\]"'):
        umbel.get(user.echo.remote([1]))


def test_driver_that_used_it_leaves_nobody_behind() -> None:
    output, _ = drivers.run("""
        import torch, umbel

        @umbel.remote(num_cpus=0)
        class Actor:
            @umbel.method(tensor_transport="gloo")
            def make(self): return torch.ones(100_000)

            def total(self, value): return value.sum().item()

        umbel.init(num_cpus=1, log_to_driver=False)
        maker = Actor.remote()
        mine = umbel.put(torch.ones(100_000), _tensor_transport="gloo")
        print(umbel.get(maker.make.remote()).sum().item(), umbel.get(maker.total.remote(mine)))
    """)
    assert output == "100000.0 100000.0\n"
