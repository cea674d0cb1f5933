"""Waits that are neither for a task nor in `get` have a reason too: for room in the store, for the reader of a stream."""

from __future__ import annotations

import asyncio
import os
import pathlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import commands
import drivers
import pytest

import umbel
from umbel._model import reasons
from umbel.util import state

np = pytest.importorskip("numpy")

HERE = pathlib.Path(__file__).name
MIB = 1 << 20


@pytest.fixture
def session() -> Iterator[None]:
    with umbel.init(num_cpus=2):
        yield


@umbel.remote(num_cpus=0, _generator_backpressure_num_objects=2)
def items(count: int) -> Iterator[int]:
    yield from range(count)


@umbel.remote(num_cpus=0)
class Streamer:
    @umbel.method(_generator_backpressure_num_objects=2)
    def items(self, count: int) -> Iterator[int]:
        yield from range(count)


@umbel.remote(num_cpus=0)
class AsyncStreamer:
    @umbel.method(_generator_backpressure_num_objects=2)
    async def items(self, count: int) -> AsyncIterator[int]:
        for index in range(count):
            yield index


@umbel.remote(num_cpus=0)
def zeros(size_bytes: int) -> Any:
    return np.zeros(size_bytes, np.uint8)


def story_with(ref: Any, code: str) -> state.Reason:
    """The story of a reference, once that is among its reasons."""
    told: list[state.Reason] = []

    def is_told() -> bool:
        told.append(state.explain(ref))
        return code in [one.code for one in told[-1].chain()]

    try:
        drivers.wait_until(is_told)
    except AssertionError:
        raise AssertionError(f"the story stayed another one: {told[-1]}") from None
    return told[-1]


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("kind", ["task", "actor", "async actor"])
def test_generator_says_that_it_waits_for_its_reader(kind: str) -> None:
    if kind == "task":
        stream = items.remote(5)
    else:
        stream = (Streamer if kind == "actor" else AsyncStreamer).remote().items.remote(5)
    reason = story_with(stream.completed(), reasons.READER)
    assert "waits for its reader" in reason.last().text
    assert reason.last().facts["unread"] == 2
    assert reason.last().facts["reader"] == umbel.get_runtime_context().get_worker_id()
    assert "<string>" not in str(reason)
    assert [umbel.get(ref, timeout=30) for ref in stream] == list(range(5))
    assert state.explain(stream.completed()).code == reasons.READY


@pytest.mark.parametrize("who", ["task", "driver"])
def test_who_waits_for_room_in_the_store_says_so_and_who_has_it(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_AUTOMATIC_OBJECT_SPILLING_ENABLED", "0")
    with umbel.init(num_cpus=2, object_store_memory=80 * MIB):
        driver = umbel.get_runtime_context().get_worker_id()
        held = [umbel.put(np.zeros(50 * MIB, np.uint8))]
        if who == "task":
            ref = zeros.remote(50 * MIB)
            reason = story_with(ref, reasons.ROOM)
            assert "<string>" not in str(reason)
            told = str(reason)
        else:
            putting = threading.Thread(target=lambda: held.append(umbel.put(np.zeros(50 * MIB, np.uint8))))
            putting.start()
            told = drivers.wait_until(lambda: "in the store" in (out := commands.run("explain").stdout) and out)
            assert HERE in told
        assert "more bytes in the store" in told
        assert f"driver {driver[:8]} (pid" in told
        held.clear()
        if who == "task":
            assert umbel.get(ref, timeout=30).nbytes == 50 * MIB
        else:
            putting.join(30)
            assert len(held) == 1


@umbel.remote(num_cpus=0)
def hold(path: str) -> str:
    while not pathlib.Path(path).exists():
        time.sleep(0.005)
    return "released"


@umbel.remote(num_cpus=0)
def wait_for(path: str) -> str:
    return umbel.get(hold.remote(path))


async def await_all(refs: list[Any]) -> Any:
    return await asyncio.gather(*refs)


def explained(about: str, *wanted: str) -> str:
    """What the command tells, once it has all that is wanted."""
    told: str = drivers.wait_until(
        lambda: all(one in (out := commands.run("explain", about).stdout) for one in wanted) and out,
        what=f"{commands.run('explain', about)} to tell {wanted}",
    )
    return told


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("wait", [umbel.get, lambda refs: asyncio.run(await_all(refs))], ids=["get", "await"])
def test_process_tells_what_its_threads_and_coroutines_wait_for(wait: Any, tmp_path: pathlib.Path) -> None:
    ref = wait_for.remote(str(tmp_path / "gate"))
    waiting = threading.Thread(target=wait, args=([ref],), name="waiting")
    driver = umbel.get_runtime_context().get_worker_id()
    assert "runs nothing and waits for nothing" in commands.run("explain", driver).stdout
    waiting.start()
    for about in (driver, str(os.getpid())):
        told = explained(about, "in hold")
        assert f"process {driver} has pid {os.getpid()}, and waits at" in told
        assert "the result of wait_for" in told
    workers = [one.facts["worker"] for one in state.explain(ref).chain() if "worker" in one.facts]
    told = explained(workers[0], "wait_for has run for", "in wait_for, and waits there", "in hold")
    assert f"process {workers[0]} has pid" in told
    (tmp_path / "gate").touch()
    waiting.join(30)
    assert not waiting.is_alive()
    assert "runs nothing and waits for nothing" in commands.run("explain", driver).stdout
