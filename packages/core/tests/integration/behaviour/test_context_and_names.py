"""What a program is told of where it runs, and names that programs written for Ray use."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.usefixtures("engine")
ENV: dict[str, Any] = {"env_vars": {"UMBEL_TEST_COLOUR": "green"}}


@umbel.remote
def environment() -> tuple[str, dict[str, Any]]:
    context = umbel.get_runtime_context()
    return context.get_runtime_env_string(), context.runtime_env


@umbel.remote
class Actor:
    def environment(self) -> tuple[str, dict[str, Any]]:
        context = umbel.get_runtime_context()
        return context.get_runtime_env_string(), context.runtime_env

    def is_canceled(self) -> bool:
        return umbel.get_runtime_context().is_canceled()

    def ids(self) -> tuple[Any, ...]:
        context = umbel.get_runtime_context()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            told = context.get()
            return told, context.job_id, context.node_id, context.task_id, context.actor_id, context.get_task_id()


@umbel.remote
class AsyncActor:
    async def is_canceled(self) -> bool:
        return umbel.get_runtime_context().is_canceled()

    def is_canceled_in_thread(self) -> bool:
        return umbel.get_runtime_context().is_canceled()


@umbel.remote
def count(number: int, fail_at: int = -1) -> Iterator[int]:
    for index in range(number):
        if index == fail_at:
            raise KeyError(index)
        yield index


# Runtime context


def test_runtime_env_is_told_where_it_holds() -> None:
    assert umbel.get_runtime_context().get_runtime_env_string() == "{}"
    assert umbel.get(environment.remote()) == ("{}", {})
    expected = (json.dumps(ENV), ENV)
    assert umbel.get(environment.options(runtime_env=ENV).remote()) == expected
    actor = Actor.options(runtime_env=ENV).remote()
    assert umbel.get(actor.environment.remote()) == expected


def test_accelerators_name_the_gpus_also_where_there_are_none() -> None:
    assert umbel.get_runtime_context().get_accelerator_ids()["GPU"] == []
    assert umbel.get(umbel.remote(lambda: umbel.get_runtime_context().get_accelerator_ids()["GPU"]).remote()) == []


def test_node_labels_have_the_nodes_id() -> None:
    context = umbel.get_runtime_context()
    expected = {"umbel.io/node-id": context.get_node_id()}
    assert context.get_node_labels() == umbel.nodes()[0]["Labels"] == expected
    assert umbel.get(umbel.remote(lambda: umbel.get_runtime_context().get_node_labels()).remote()) == expected


def test_ids_in_hex_are_read_back() -> None:
    context = umbel.get_runtime_context()
    assert umbel.NodeID.from_hex(context.get_node_id()).hex() == context.get_node_id()
    assert umbel.JobID.from_hex(context.get_job_id()) == umbel.JobID.from_int(1)
    assert umbel.WorkerID.from_hex(context.get_worker_id()).hex() == context.get_worker_id()


def test_coroutines_are_not_asked_whether_they_are_cancelled() -> None:
    actor = AsyncActor.remote()
    with pytest.raises(RuntimeError, match="are cancelled by asyncio"):
        umbel.get(actor.is_canceled.remote())
    assert umbel.get(actor.is_canceled_in_thread.remote()) is False
    assert umbel.get(Actor.remote().is_canceled.remote()) is False


def test_older_names_give_ids_as_objects_and_warn() -> None:
    context = umbel.get_runtime_context()
    with pytest.warns(DeprecationWarning, match="get_job_id"):
        assert context.job_id == umbel.JobID.from_hex(context.get_job_id())
    with pytest.warns(DeprecationWarning, match="get_task_id"):
        assert context.task_id is None
    with pytest.warns(DeprecationWarning, match="get_actor_id"):
        assert context.actor_id is None
    with pytest.warns(DeprecationWarning, match="get_placement_group_id"):
        assert context.current_placement_group_id.is_nil()
    with pytest.warns(DeprecationWarning, match="get_accelerator_ids"):
        assert context.get_resource_ids() == context.get_accelerator_ids()
    assert context.should_capture_child_tasks_in_placement_group is False
    actor = Actor.remote()
    told, job, node, task, actor_id, task_hex = umbel.get(actor.ids.remote())
    assert (node.hex(), task.hex(), actor_id) == (context.get_node_id(), task_hex, actor._umbel_actor_id)
    assert told == {
        "job_id": job, "node_id": node, "namespace": context.namespace, "task_id": task, "actor_id": actor_id,
    }  # fmt: skip


def test_session_has_a_name_and_a_folder() -> None:
    context = umbel.get_runtime_context()
    here = Path(context.get_temp_dir(), context.get_session_name())
    assert Path(context.get_temp_dir()).is_dir()
    there = umbel.remote(
        lambda: (umbel.get_runtime_context().get_temp_dir(), umbel.get_runtime_context().get_session_name())
    )
    assert Path(*umbel.get(there.remote())) == here
    assert context.get_session_name()


# References and ids


def test_object_id_is_the_class_of_references() -> None:
    assert umbel.ObjectID is umbel.ObjectRef
    ref = umbel.put(1)
    assert isinstance(ref, umbel.ObjectID)
    assert (len(ref.binary()), ref.call_site()) == (umbel.ObjectRef.size(), "")
    assert ref.job_id().hex() == umbel.get_runtime_context().get_job_id()
    assert umbel.ObjectRef.from_random() != umbel.ObjectRef.from_random()


def test_names_that_come_later_say_so() -> None:
    function = umbel.remote(lambda: 1)
    for owner, name in ((umbel.util, "tpu"),):
        assert not hasattr(owner, name)
        with pytest.raises(exceptions.UnsupportedFeature, match=f"no '{name}': .*this version of Umbel") as info:
            getattr(owner, name)
        assert isinstance(info.value, AttributeError)
    for line in ("import umbel.util.tpu", "from umbel.util import tpu"):
        with pytest.raises(ModuleNotFoundError, match=r"umbel\.util\.tpu is not in this version of Umbel"):
            exec(line, {})
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = umbel.util.nonsense
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = function.nonsense  # type: ignore[attr-defined]  # that is the point


def test_number_of_an_object_may_be_asked_for_by_its_other_names() -> None:
    assert umbel.JobID.from_int(5).int() == 5
    assert umbel.JobID.from_int(5).hex() == "05000000"


# Generators


def test_generators_are_not_sent_to() -> None:
    stream = count.remote(3)
    for name in ("send", "throw", "close", "asend", "athrow", "aclose"):
        assert not hasattr(stream, name)
        with pytest.raises(NotImplementedError, match="runs the generator is another process"):
            getattr(stream, name)

    def inner() -> Iterator[Any]:
        yield from stream

    outer: Any = inner()
    assert umbel.get(next(outer)) == 0
    outer.close()
    assert umbel.get(next(stream)) == 1


def test_next_ready_says_whether_there_is_an_item() -> None:
    stream = count.remote(2)
    umbel.get(stream.completed(), timeout=20)
    assert [stream.next_ready(), umbel.get(next(stream))] == [True, 0]
    assert [stream.next_ready(), umbel.get(next(stream))] == [True, 1]
    assert [stream.next_ready(), stream.is_finished()] == [False, True]
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("fail_at", [-1, 1])
def test_completed_is_ready_at_the_end_whatever_that_is(fail_at: int) -> None:
    """What the generator raised is its last item."""
    stream = count.remote(3, fail_at)
    assert umbel.get(stream.completed(), timeout=20) is None
    *items, last = list(stream)
    assert umbel.get(items) == ([0, 1] if fail_at < 0 else [0])
    if fail_at < 0:
        assert umbel.get(last) == 2
    else:
        with pytest.raises(KeyError):
            umbel.get(last)
    assert umbel.get(stream.completed(), timeout=20) is None


def test_completed_of_what_was_cancelled_is_an_error(signal: Any) -> None:
    @umbel.remote
    def held(signal: Any) -> Iterator[int]:
        yield umbel.get(signal.wait.remote())

    stream = held.remote(signal)
    umbel.cancel(stream)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(stream.completed(), timeout=20)


def test_generators_and_copies() -> None:
    stream = count.remote(2)
    assert iter(stream) is stream
    assert hash(stream) == hash(stream)
    assert "ObjectRefGenerator" in repr(stream)
    for misuse in (pickle.dumps, umbel.put, lambda one: count.remote(one), copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or passed on"):
            misuse(stream)
    assert umbel.get(list(stream)) == [0, 1]


# Arguments


@pytest.mark.parametrize("is_fetched", [True, False])
def test_wait_that_does_not_fetch_is_ready_all_the_same(is_fetched: bool) -> None:
    refs = [umbel.remote(lambda: 1).remote(), umbel.put(bytes(1_000_000))]
    ready, rest = umbel.wait(refs, num_returns=2, timeout=20, fetch_local=is_fetched)
    assert (ready, rest) == (refs, [])
    assert umbel.get(ready[0]) == 1


def test_flags_are_true_or_false() -> None:
    actor, ref = Actor.remote(), umbel.put(1)
    calls: dict[str, Any] = {
        "no_restart": lambda wrong: umbel.kill(actor, no_restart=wrong),
        "force": lambda wrong: umbel.cancel(ref, force=wrong),
        "recursive": lambda wrong: umbel.cancel(ref, recursive=wrong),
        "fetch_local": lambda wrong: umbel.wait([ref], fetch_local=wrong),
    }
    for name, call in calls.items():
        for wrong in ("no", 1, None):
            with pytest.raises(TypeError, match=f"{name} must be True or False, got {wrong!r}.*omit it"):
                call(wrong)
    assert umbel.get(actor.is_canceled.remote()) is False


def test_amounts_are_no_booleans() -> None:
    for options in ({"num_cpus": True}, {"num_gpus": True}, {"memory": True}, {"resources": {"slot": True}}):
        with pytest.raises(TypeError, match="must be a number >= 0, got True of type bool"):
            umbel.remote(**options)(lambda: 1)
    with pytest.raises(TypeError, match="max_retries must be a whole number >= -1, got True of type bool"):
        umbel.remote(max_retries=True)(lambda: 1)
