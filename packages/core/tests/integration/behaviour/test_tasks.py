"""Tasks: arguments, returns, options, nesting, cancellation. Numbers are those of the list of semantics."""

from __future__ import annotations

import os
from typing import Any

import pytest

import umbel
from umbel import exceptions

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.usefixtures("engine")


@umbel.remote
def add(a: Any, b: Any = 0, *rest: Any, c: Any = 0, **named: Any) -> Any:
    return a + b + sum(rest) + c + sum(named.values())


@umbel.remote
def increment(x: int) -> int:
    return x + 1


def test_arguments_of_every_kind_arrive() -> None:
    assert umbel.get(add.remote(1)) == 1
    assert umbel.get(add.remote(1, 2, 3, 4, c=5, z=6)) == 21
    assert umbel.get(add.remote(b=1, a=umbel.put(2), c=umbel.put(3), z=umbel.put(4))) == 10


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1,), {"a": 2}), ((), {"b": 1})], ids=["none", "twice", "missing"]
)
def test_a_wrong_call_fails_at_the_caller(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match="add"):
        add.remote(*args, **kwargs)


def test_a_keyword_may_have_any_name() -> None:
    keywords = umbel.remote(lambda **given: given)
    assert umbel.get(keywords.remote(self=1, args=2)) == {"self": 1, "args": 2}
    assert umbel.get(keywords.options(num_cpus=0.5).remote(self=1)) == {"self": 1}


def test_top_level_references_become_values_and_nested_ones_do_not() -> None:
    """15"""

    @umbel.remote
    def look(top: Any, box: Any) -> Any:
        return top, type(box[0]).__name__, umbel.get(box[0])

    ref = umbel.put("v")
    assert umbel.get(look.remote(ref, [ref])) == ("v", "ObjectRef", "v")


def test_arguments_are_snapshots() -> None:
    """25"""

    @umbel.remote
    def read(ready: Any, items: list[int]) -> list[int]:
        return items

    items = [1, 2]
    ref = read.remote(increment.remote(0), items)
    items.append(3)
    assert umbel.get(ref) == [1, 2]


def test_large_arguments_and_results() -> None:
    @umbel.remote
    def double(array: Any, *, scale: Any) -> Any:
        return array * scale

    assert umbel.get(double.remote(np.ones(500_000), scale=np.full(1, 2.0))).sum() == 1_000_000


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 2)), (2, [1, 2])])
def test_num_returns_decides_what_remote_gives(count: int, expected: Any) -> None:
    @umbel.remote
    def pair() -> tuple[int, int]:
        return 1, 2

    assert umbel.get(pair.options(num_returns=count).remote()) == expected


def test_no_returns_give_none_and_still_run(marks: Any, eventually: Any) -> None:
    @umbel.remote(num_returns=0)
    def effect() -> None:
        marks.add("ran")

    assert effect.remote() is None
    assert eventually(marks.all) == ["ran"]


def test_a_chain_and_a_diamond() -> None:
    ref = increment.remote(0)
    for _ in range(30):
        ref = increment.remote(ref)
    assert umbel.get(add.remote(increment.remote(ref), increment.remote(ref))) == 64


def test_tasks_start_tasks_deeper_than_there_are_cpus() -> None:
    """35"""

    @umbel.remote
    def down(n: int) -> int:
        return 0 if n == 0 else 1 + umbel.get(down.remote(n - 1))

    assert umbel.get(down.remote(9)) == 9


def test_what_options_returns_travels_to_tasks_and_keeps_them() -> None:
    @umbel.remote
    def name() -> str | None:
        return umbel.get_runtime_context().get_task_name()

    @umbel.remote
    class Actor:
        def name(self) -> str | None:
            return umbel.get_runtime_context().get_task_name()

    renamed, idle = name.options(name="other"), Actor.options(num_cpus=0)
    method = idle.remote().name.options(name="third")

    @umbel.remote
    def call() -> list[str | None]:
        return umbel.get([renamed.remote(), idle.remote().name.remote(), method.remote()])

    assert umbel.get(call.remote()) == ["other", "Actor.name", "third"]


def test_the_closure_is_captured_at_the_first_call() -> None:
    """27"""
    settings = {"value": 1}

    @umbel.remote
    def read() -> int:
        return settings["value"]

    settings["value"] = 2
    assert umbel.get(read.remote()) == 2
    settings["value"] = 3
    assert umbel.get(read.remote()) == 2


def test_functions_of_one_name_stay_apart() -> None:
    """28"""
    made = []
    for i in range(3):

        @umbel.remote
        def same(i: int = i) -> int:
            return i

        made.append(same)
    assert umbel.get([f.remote() for f in made]) == [0, 1, 2]


def test_a_direct_call_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"increment\.remote"):
        increment(1)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"num_cpus": -1}, "-1"), ({"num_cpus": "2"}, "'2'"), ({"num_gpus": 1.5}, "1.5"), ({"memory": -5}, "-5"),
        ({"resources": {"CPU": 1}}, "CPU"), ({"resources": [1]}, "resources"), ({"num_returns": -1}, "-1"),
        ({"num_returns": "lots"}, "lots"), ({"max_retries": -2}, "-2"), ({"retry_exceptions": 5}, "5"),
        ({"retry_exceptions": [5]}, "5"), ({"max_calls": 2}, "max_calls"), ({"name": 5}, "5"),
        ({"max_restarts": 1}, "max_restarts"), ({"num_cpu": 1}, "num_cpus"), ({"runtime_env": {"env_vars": {"A": 1}}},
        "env_vars"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_are_refused_and_named(options: Any, word: str) -> None:
    with pytest.raises((ValueError, TypeError), match=word):
        increment.options(**options)


def test_async_functions_are_refused() -> None:
    async def nope() -> None: ...

    with pytest.raises(ValueError, match=r"async def .*nope"):
        umbel.remote(nope)


@pytest.mark.parametrize(
    "wrong", [lambda: umbel.remote(), lambda: umbel.remote(5), lambda: umbel.remote(1, num_cpus=2)]
)
def test_the_decorator_refuses_misuse(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"umbel\.remote"):
        wrong()


def test_options_leave_the_original_alone() -> None:
    @umbel.remote
    def pair() -> tuple[int, int]:
        return 1, 2

    changed = pair.options(num_returns=2)
    assert umbel.get(changed.remote()) == [1, 2]
    assert umbel.get(pair.remote()) == (1, 2)


def test_a_remote_function_can_be_passed() -> None:
    @umbel.remote
    def apply(function: Any, x: int) -> Any:
        return umbel.get(function.remote(x))

    assert umbel.get(apply.remote(increment, 1)) == 2


def test_cancelling_a_waiting_task_keeps_it_from_running(signal: Any, marks: Any) -> None:
    """50"""

    @umbel.remote
    def run(_: Any) -> None:
        marks.add()

    ref = run.remote(signal.wait.remote())
    umbel.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(ref, timeout=20)
    umbel.get(signal.send.remote())
    assert umbel.get(increment.remote(1)) == 2
    assert marks.all() == []


def test_cancelling_fails_what_depends_on_it(signal: Any) -> None:
    """53"""
    held = increment.remote(signal.wait.remote())
    dependent = increment.remote(held)
    umbel.cancel(held)
    with pytest.raises(exceptions.UmbelError):
        umbel.get(dependent, timeout=20)
    umbel.get(signal.send.remote())


def test_cancelling_a_finished_task_does_nothing() -> None:
    ref = increment.remote(1)
    assert umbel.get(ref) == 2
    umbel.cancel(ref)
    assert umbel.get(ref) == 2


@pytest.mark.parametrize("bad", [5, None, "x"])
def test_cancel_takes_references_only(bad: Any) -> None:
    with pytest.raises(TypeError, match="cancel"):
        umbel.cancel(bad)


def test_a_task_knows_where_it_runs() -> None:
    @umbel.remote(name="told", num_cpus=2)
    def tell() -> Any:
        context = umbel.get_runtime_context()
        return (
            context.get_task_name(), context.get_task_id(), context.get_actor_id(), context.get_node_id(),
            context.get_job_id(), context.get_assigned_resources(),
        )  # fmt: skip

    ref = tell.remote()
    name, task_id, actor_id, node_id, job_id, resources = umbel.get(ref)
    here = umbel.get_runtime_context()
    assert name == "told"
    assert task_id == ref.task_id().hex()
    assert actor_id is None
    assert (node_id, job_id) == (here.get_node_id(), here.get_job_id())
    assert resources == {"CPU": 2.0}
    assert here.get_task_id() is None


def test_environment_variables_of_a_task() -> None:
    """39"""

    @umbel.remote
    def read() -> Any:
        import os

        return os.environ.get("UMBEL_TEST_COLOUR")

    assert umbel.get(read.options(runtime_env={"env_vars": {"UMBEL_TEST_COLOUR": "green"}}).remote()) == "green"
    assert umbel.get(read.remote()) is None


def test_environment_variable_of_a_task_may_append_to_what_it_is() -> None:
    @umbel.remote
    def read() -> Any:
        return os.environ["HOME"], os.environ["UMBEL_TEST_COLOUR"]

    env = {"env_vars": {"HOME": "${HOME}:more", "UMBEL_TEST_COLOUR": "${UMBEL_TEST_UNSET}green"}}
    assert umbel.get(read.options(runtime_env=env).remote()) == (f"{os.environ['HOME']}:more", "green")


def test_a_long_chain_of_quick_tasks() -> None:
    umbel.get([increment.remote(i) for i in range(50)])  # known to be quick: from here on inputs are not waited for
    ref = increment.remote(0)
    for _ in range(500):
        ref = increment.remote(ref)
    assert umbel.get(ref) == 501


def test_an_error_runs_down_a_chain_of_quick_tasks(marks: Any) -> None:
    @umbel.remote
    def step(x: int, fail_at: int = -1) -> int:
        if x == fail_at:
            raise ValueError(f"step {x}")
        return x + 1

    umbel.get([step.remote(i) for i in range(50)])
    ref = step.remote(0)
    for _ in range(60):
        ref = step.remote(ref, 30)
    with pytest.raises(ValueError, match="step 30"):
        umbel.get(ref)


def test_a_chain_through_large_values() -> None:
    @umbel.remote
    def grow(data: bytes) -> bytes:
        return data + b"x" * 700

    umbel.get([grow.remote(b"") for _ in range(50)])
    ref = grow.remote(b"")
    for _ in range(299):
        ref = grow.remote(ref)
    assert len(umbel.get(ref)) == 300 * 700


def test_cancelling_the_middle_of_a_chain_fails_what_follows() -> None:
    umbel.get([increment.remote(i) for i in range(50)])
    refs = [increment.remote(0)]
    for _ in range(100):
        refs.append(increment.remote(refs[-1]))
    umbel.cancel(refs[50])
    try:
        assert umbel.get(refs[-1], timeout=20) == 101  # it had run already
    except exceptions.UmbelError:
        with pytest.raises(exceptions.UmbelError):
            umbel.get(refs[50], timeout=20)
    assert umbel.get(refs[0]) == 1
    assert umbel.get(increment.remote(1), timeout=20) == 2
