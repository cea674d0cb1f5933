"""Tensors that go from the actor that made them to whoever uses them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions

np = pytest.importorskip("numpy")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the transport shm needs Linux"),
]

SOON_S = 10.0  # within which a taker knows that the holder has died: milliseconds, but it would wait for a minute
PATIENCE_S = 20.0


@umbel.remote(num_cpus=0, enable_tensor_transport=True)
class Actor:
    def __init__(self) -> None:
        self.made: Any = None
        self.kept: Any = None

    def process(self) -> int:
        return os.getpid()

    @umbel.method(tensor_transport="SHM")
    def make(self, count: int = 100_000) -> Any:
        self.made = np.arange(count, dtype=np.int32)
        return self.made

    @umbel.method(tensor_transport="shm")
    def echo(self, value: Any) -> Any:
        return value

    @umbel.method(tensor_transport="shm")
    def nothing(self) -> None:
        return None

    def plain(self) -> Any:
        return {"there": [np.ones((2, 3)), "text"], "too": np.asfortranarray(np.zeros((2, 3)))}

    def is_made(self, value: Any) -> bool:
        return value is self.made

    def total(self, *values: Any) -> int:
        return int(sum(value.sum() for value in values))

    def overwrite(self, value: Any) -> int:
        value += 1
        return int(value.sum())

    def keep(self, boxed: Any) -> None:
        self.kept = boxed

    def read_kept(self) -> int:
        return int(umbel.get(self.kept[0]).sum())

    def drop(self) -> None:
        self.kept = None

    def put(self, count: int) -> Any:
        return [umbel.put({"here": np.ones(count)}, _tensor_transport="shm")]

    def held(self) -> int:
        """How many tensors this process holds for others."""
        from umbel._client import current, values

        engine = current.engine()
        with engine.lock:
            engine.values.drain_drops()
            return sum(
                len(record.payload.tensors)
                for record in engine.values.table.records.values()
                if record.kind == values.HELD
            )

    def fork(self) -> int:
        child = os.fork()
        if not child:
            signal.pause()
            os._exit(0)
        return child

    def files(self) -> int:
        """How many of its open files are tensors in memory."""
        return len(_files_of_tensors(os.getpid()))


@umbel.remote(num_cpus=0)
class AsyncActor:
    @umbel.method(tensor_transport="shm")
    async def make(self) -> Any:
        return np.arange(10)

    async def total(self, value: Any) -> int:
        return int(value.sum())


def _files_of_tensors(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue  # closed meanwhile
        if "umbel-tensors" in target:
            found.append(target)
    return found


def until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came to be so"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def native() -> Iterator[None]:
    umbel.shutdown()
    umbel.init(num_cpus=4, log_to_driver=False)
    yield
    umbel.shutdown()


@pytest.fixture
def pair(native: None) -> tuple[Any, Any]:
    return Actor.remote(), Actor.remote()


def stored_bytes() -> int:
    from umbel._client import current

    return sum(current.engine().values.stored.values())


def test_tensors_go_from_actor_to_actor_and_not_by_the_store(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    made = maker.make.remote(1_000_000)
    assert umbel.get([user.total.remote(made), user.total.remote(made, made)]) == [499_999_500_000, 999_999_000_000]
    assert umbel.cluster_resources()["object_store_memory"] == pytest.approx(
        umbel.available_resources()["object_store_memory"], rel=1e-9
    )
    record = umbel._client.current.engine().values.table.records[made.binary()]  # type: ignore[attr-defined]
    assert record.kind != umbel._client.values.STORED  # type: ignore[attr-defined]
    assert len(str(record.payload)) < 2_000


def test_actor_that_made_a_tensor_gets_the_very_same(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    made = maker.make.remote()
    assert umbel.get([maker.is_made.remote(made), user.is_made.remote(made)]) == [True, False]
    assert umbel.get(maker.files.remote()) == 1  # the copy for the other one


def test_tensors_anywhere_in_a_value_keep_their_form(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    value = umbel.get(maker.plain.remote())
    same = umbel.get(user.echo.remote(maker.plain.options(tensor_transport="shm").remote()))
    assert same["there"][1] == "text"
    for one, other in ((same["there"][0], value["there"][0]), (same["too"], value["too"])):
        assert (one.dtype, one.shape, one.flags.f_contiguous) == (other.dtype, other.shape, other.flags.f_contiguous)
        assert (one == other).all()


@pytest.mark.parametrize(
    "value",
    [
        np.array(3.5),
        np.zeros((0, 4)),
        np.arange(10)[::2],
        np.array(["a", "bcd"]),
        np.array([(1, 2.0)], dtype=[("a", "i1"), ("b", "f8")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.array([{"an": "object"}], dtype=object),
    ],
    ids=lambda value: f"{value.dtype}-{value.shape}",
)
def test_arrays_of_every_sort_arrive_as_they_were(pair: tuple[Any, Any], value: Any) -> None:
    got = umbel.get(pair[0].echo.remote([value, value]))
    assert got[0] is got[1]
    assert (got[0].dtype, got[0].shape) == (value.dtype, value.shape)
    assert (got[0] == value).all()


@pytest.mark.torch
def test_tensors_of_torch_arrive_as_they_were(pair: tuple[Any, Any]) -> None:
    import torch

    tensors = [
        torch.tensor(2.5),
        torch.zeros(0, 3),
        torch.arange(6).reshape(2, 3).t(),
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(2, requires_grad=True),
        torch.tensor([1 + 2j]).conj(),
        torch.nn.Parameter(torch.ones(2)),
        torch.tensor([True, False]),
    ]
    got = umbel.get(pair[1].echo.remote(pair[0].echo.remote(tensors)))
    for one, other in zip(got, tensors, strict=True):
        assert (type(one), one.dtype, one.requires_grad) == (type(other), other.dtype, other.requires_grad)
        assert torch.equal(one.detach(), other.detach().resolve_conj())


def test_who_changes_a_tensor_changes_his_own(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    made = maker.make.remote(10)
    assert umbel.get([user.overwrite.remote(made) for _ in range(2)]) == [55, 55]
    array = umbel.get(made)
    array[:] = 0
    assert umbel.get(user.total.remote(made)) == 45
    assert umbel.get(maker.total.remote(made)) == 45


def test_result_without_tensors_is_an_ordinary_one(pair: tuple[Any, Any]) -> None:
    maker, _ = pair
    assert umbel.get([maker.nothing.remote(), maker.echo.remote([1, {"a": 2}])]) == [None, [1, {"a": 2}]]
    assert umbel.get(maker.held.remote()) == 0


def test_tensors_are_kept_as_long_as_their_object_and_no_longer(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    made = maker.make.remote()
    assert umbel.get(user.total.remote(made)) == 4_999_950_000
    umbel.get(user.keep.remote([made]))
    del made
    assert umbel.get(user.read_kept.remote()) == 4_999_950_000  # a borrower holds it
    assert umbel.get([maker.held.remote(), maker.files.remote()]) == [1, 1]
    umbel.get(user.drop.remote())
    until(lambda: umbel.get([maker.held.remote(), maker.files.remote()]) == [0, 0])


def test_driver_and_actors_can_put_tensors(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    boxed = umbel.get(maker.put.remote(7))
    assert umbel.get(boxed[0])["here"].sum() == 7
    own = np.ones(5)
    ref = umbel.put(own, _tensor_transport="shm")
    assert umbel.get(ref) is own
    assert umbel.get(user.total.remote(ref)) == 5
    assert umbel.get(maker.held.remote()) == 1
    del boxed
    until(lambda: umbel.get(maker.held.remote()) == 0)


def test_actors_with_event_loops_give_and_take(native: None) -> None:
    maker, user = AsyncActor.remote(), AsyncActor.remote()
    made = maker.make.remote()
    assert umbel.get([user.total.remote(made), maker.total.remote(made)]) == [45, 45]


def test_tasks_take_tensors_too(pair: tuple[Any, Any]) -> None:
    @umbel.remote
    def total(value: Any) -> int:
        return int(value.sum())

    assert umbel.get(total.remote(pair[0].make.remote())) == 4_999_950_000


def test_death_of_the_holder_is_an_error_that_names_it(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    made = maker.make.remote()
    umbel.wait([made])
    pid = umbel.get(maker.process.remote())
    os.kill(pid, signal.SIGKILL)
    began_s = time.monotonic()
    for read in (lambda: umbel.get(user.total.remote(made)), lambda: umbel.get(made)):
        with pytest.raises(exceptions.ObjectLostError, match=rf"actor Actor \({maker._actor_id_hex}\).* has died"):
            read()
    assert time.monotonic() - began_s < SOON_S
    assert umbel.get(user.process.remote()) > 0


def test_death_of_the_holder_while_it_is_asked_is_one_too(pair: tuple[Any, Any]) -> None:
    """It is stopped, so the taker waits in the midst of the transfer."""
    maker, user = pair
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


def test_waiting_for_a_holder_that_is_stopped_can_be_cancelled(pair: tuple[Any, Any]) -> None:
    @umbel.remote(num_cpus=0)
    def total(value: Any) -> int:
        return int(value.sum())

    maker, _ = pair
    made = maker.make.remote()
    assert umbel.get(total.remote(made)) == 4_999_950_000  # a worker is there, and knows the function
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
    assert umbel.get(total.remote(made)) == 4_999_950_000


def test_child_that_the_holder_has_forked_does_not_hide_its_death(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    made = maker.make.remote()
    umbel.wait([made])
    child = umbel.get(maker.fork.remote())
    try:
        os.kill(umbel.get(maker.process.remote()), signal.SIGKILL)
        began_s = time.monotonic()
        with pytest.raises(exceptions.ObjectLostError, match="has died"):
            umbel.get(user.total.remote(made))
        assert time.monotonic() - began_s < SOON_S
    finally:
        os.kill(child, signal.SIGKILL)


def test_death_of_a_taker_frees_what_it_borrowed(pair: tuple[Any, Any]) -> None:
    maker, user = pair
    made = maker.make.remote()
    umbel.get(user.keep.remote([made]))
    del made
    assert umbel.get(maker.held.remote()) == 1
    os.kill(umbel.get(user.process.remote()), signal.SIGKILL)
    until(lambda: umbel.get(maker.held.remote()) == 0)


def test_arrays_outlive_the_actor_that_made_them(pair: tuple[Any, Any]) -> None:
    gc.collect()  # what failed tests before this one hold
    until(lambda: _files_of_tensors(os.getpid()) == [])
    array = umbel.get(pair[0].make.remote())
    os.kill(umbel.get(pair[0].process.remote()), signal.SIGKILL)
    assert array.sum() == 4_999_950_000
    assert len(_files_of_tensors(os.getpid())) == 1
    del array
    assert _files_of_tensors(os.getpid()) == []


def test_driver_that_is_killed_leaves_nobody_behind() -> None:
    program = """
import os, signal, numpy as np, umbel

@umbel.remote(num_cpus=0)
class Actor:
    @umbel.method(tensor_transport="shm")
    def make(self):
        return np.ones(100_000)

    def total(self, value):
        return os.getpid(), value.sum()

umbel.init(num_cpus=1, log_to_driver=False)
maker, user = Actor.remote(), Actor.remote()
made = maker.make.remote()
mine = umbel.put(np.ones(100_000), _tensor_transport="shm")
print(*[umbel.get(one.total.remote(ref))[0] for one, ref in ((user, made), (maker, mine))], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    for pid in done.stdout.split():
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("name", ["nccl", "NIXL", "cuda_ipc"])
def test_transports_of_ray_that_are_not_there_say_so(native: None, name: str) -> None:
    with pytest.raises(
        exceptions.UnsupportedFeature, match=f"tensor_transport='{name.lower()}' is not in this version"
    ):
        umbel.method(tensor_transport=name)


def test_unknown_transport_names_those_there_are(native: None) -> None:
    actor = Actor.remote()
    with pytest.raises(
        ValueError, match="Invalid tensor transport: tensor_transport must be 'gloo' or 'shm', got 'pigeon'"
    ):
        actor.plain.options(tensor_transport="pigeon")
    with pytest.raises(
        ValueError, match="Invalid tensor transport: _tensor_transport must be 'gloo' or 'shm', got 'pigeon'"
    ):
        umbel.put(1, _tensor_transport="pigeon")


def test_only_actors_that_enable_it_have_it(native: None) -> None:
    class Plain:
        def one(self) -> int:
            return 1

    class Marked:
        @umbel.method(tensor_transport="shm")
        def one(self) -> Any:
            return np.ones(1)

        @umbel.method(tensor_transport="shm", num_returns=2)
        def two(self) -> Any:
            return 1, 2

    with pytest.raises(ValueError, match="enable_tensor_transport=True"):
        umbel.remote(Plain).remote().one.options(tensor_transport="shm")
    with pytest.raises(ValueError, match="enable_tensor_transport must be True or left out for Marked"):
        umbel.remote(enable_tensor_transport=False)(Marked)
    marked = umbel.remote(Marked).remote()
    assert umbel.get(marked.one.remote()).tolist() == [1.0]
    with pytest.raises(ValueError, match="must have one result, got num_returns=2"):
        marked.two.remote()


PLUGIN = (Path(__file__).resolve().parents[4] / "docs" / "plugins" / "tensor_transports.md").read_text()


def test_transport_of_a_plugin_is_used_by_its_name(tmp_path: Path) -> None:
    """The one of the plugin's page, in a program of its own, so that all its processes find it."""
    (tmp_path / "by_wire.py").write_text(PLUGIN.split("```python\n")[1].split("```")[0])
    about = tmp_path / "umbel_by_wire-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: umbel-by-wire\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[umbel.plugins]\nby-wire = by_wire\n")
    program = """
import array, umbel

@umbel.remote(num_cpus=0)
class Actor:
    @umbel.method(tensor_transport="Wire")
    def make(self):
        self.made = array.array("d", [1.0, 2.0])
        return {"one": self.made}

    def use(self, value):
        return sum(value["one"]), value["one"] is getattr(self, "made", None)

umbel.init(num_cpus=1, log_to_driver=False)
maker, user = Actor.remote(), Actor.remote()
made = maker.make.remote()
print(umbel.get([maker.use.remote(made), user.use.remote(made)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("[(3.0, True), (3.0, False)]\n", 0), done.stderr


def test_inline_engine_has_nothing_to_transfer() -> None:
    umbel.shutdown()
    umbel.init(engine="inline")
    try:
        maker, user = Actor.remote(), Actor.remote()
        assert umbel.get(user.total.remote(maker.make.remote())) == 4_999_950_000
        assert umbel.get(umbel.put(np.ones(3), _tensor_transport="shm")).sum() == 3
    finally:
        umbel.shutdown()
