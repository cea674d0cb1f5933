"""Tasks on the inline engine: arguments, results, errors, retries, references, the session.

What it shares with the native engine is tested on both elsewhere; here it is tested in microseconds, and in detail.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel._client import current


@pytest.fixture(autouse=True)
def session() -> Iterator[Any]:
    with umbel.init(engine="inline", num_cpus=4, resources={"slot": 2}, namespace="tests"):
        yield current.engine()


@umbel.remote
def double(x: Any) -> Any:
    return x * 2


def test_task_has_run_when_remote_returns() -> None:
    ref = double.remote(4)
    assert umbel.wait([ref], timeout=0) == ([ref], [])
    assert umbel.get(ref) == 8


def test_references_among_the_arguments_become_values_and_nested_ones_stay() -> None:
    @umbel.remote
    def look(a: Any, *rest: Any, k: Any, box: Any) -> Any:
        return a, rest, k, type(box[0]).__name__, umbel.get(box[0])

    ref = umbel.put("v")
    assert umbel.get(look.remote(ref, 1, ref, k=ref, box=[ref])) == ("v", (1, "v"), "v", "ObjectRef", "v")


def test_arguments_and_results_are_snapshots() -> None:
    @umbel.remote
    def append(items: list[int]) -> list[int]:
        items.append(3)
        return items

    data = [1, 2]
    ref = append.remote(data)
    assert (umbel.get(ref), data) == ([1, 2, 3], [1, 2])
    umbel.get(ref).append(4)
    assert umbel.get(ref) == [1, 2, 3]


def test_arrays_come_back_read_only() -> None:
    numpy = pytest.importorskip("numpy")
    array = umbel.get(umbel.put(numpy.arange(10)))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert umbel.get(umbel.remote(lambda a: a.flags.writeable).remote(array)) is False


def test_function_captures_its_closure_at_the_first_call() -> None:
    settings = {"value": 1}
    read = umbel.remote(lambda: settings["value"])
    settings["value"] = 2
    assert umbel.get(read.remote()) == 2
    settings["value"] = 3
    assert umbel.get(read.remote()) == 2


def test_reference_captured_by_a_function_stays_alive() -> None:
    def make() -> Any:
        ref = umbel.put("kept")
        return umbel.remote(lambda: umbel.get(ref))

    read = make()
    gc.collect()
    assert umbel.get([read.remote(), read.options(num_cpus=2).remote()]) == ["kept", "kept"]


@pytest.mark.parametrize(("count", "expected"), [(0, None), (1, (1, 2)), (2, [1, 2])])
def test_num_returns_decides_what_remote_gives(count: int, expected: Any) -> None:
    refs = umbel.remote(lambda: (1, 2)).options(num_returns=count).remote()
    assert (umbel.get(refs) if refs is not None else None) == expected


@pytest.mark.parametrize("value", [(1,), (1, 2, 3), 5])
def test_wrong_number_of_values_fails_every_return(value: Any) -> None:
    for ref in umbel.remote(lambda: value).options(num_returns=2).remote():
        with pytest.raises(ValueError, match="num_returns=2"):
            umbel.get(ref)


def test_error_is_of_both_classes_and_shows_the_users_frames_only() -> None:
    class Trouble(Exception):
        pass

    def fails() -> None:
        raise Trouble("deep inside")

    with pytest.raises(Trouble, match="deep inside") as info:
        umbel.get(umbel.remote(fails).remote())
    assert isinstance(info.value, exceptions.UmbelTaskError)
    assert "in fails" in str(info.value)
    assert "_client" not in str(info.value)


def test_failed_argument_fails_the_consumer_without_running_it() -> None:
    @umbel.remote
    def fails() -> None:
        raise LookupError("source")

    with pytest.raises(LookupError, match="did not run"):
        umbel.get(double.remote(double.remote(fails.remote())))


def test_exception_that_holds_a_reference_reaches_consumers() -> None:
    """Reading it counts the reference, which must not happen inside the engine's lock."""

    @umbel.remote
    def fails() -> None:
        raise ValueError("with a reference", umbel.put(1))

    with pytest.raises(ValueError, match="with a reference"):
        umbel.get(double.remote(fails.remote()))


def test_get_raises_the_first_known_error_before_all_are_there() -> None:
    @umbel.remote
    class Never:
        async def come(self) -> None:
            import asyncio

            await asyncio.Event().wait()

    @umbel.remote
    def fails() -> None:
        raise ArithmeticError

    never = Never.remote()
    with pytest.raises(ArithmeticError):
        umbel.get([never.come.remote(), fails.remote()])


def test_unpicklable_arguments_captures_and_results_are_type_errors() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        double.remote([lock])
    with pytest.raises(TypeError, match="cannot send"):
        umbel.remote(lambda: lock).remote()
    with pytest.raises(TypeError) as info:
        umbel.get(umbel.remote(lambda: threading.Lock()).remote())
    assert isinstance(info.value, exceptions.UmbelTaskError)


def test_huge_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    umbel.shutdown()
    monkeypatch.setenv("UMBEL_FUNCTION_SIZE_ERROR_THRESHOLD", "1000")
    with umbel.init(engine="inline"):
        data = b"x" * 2000
        with pytest.raises(ValueError, match="allowed are 1000"):
            umbel.remote(lambda: data).remote()


def counting_attempts(ends: list[Any], **options: Any) -> Any:
    """A task that ends, in its attempts, as given: an exception is raised, anything else returned. Attempts are counted
    by the runtime's own number."""

    def attempt() -> Any:
        number = umbel.get_runtime_context().get_attempt_number()
        end = ends[number]
        if isinstance(end, BaseException):
            raise end
        return end, number

    return umbel.remote(attempt).options(**options).remote()


def test_exceptions_are_retried_only_if_asked_for() -> None:
    ends = [KeyError("a"), ValueError("b"), "done"]
    with pytest.raises(KeyError):
        umbel.get(counting_attempts(ends, max_retries=5))
    assert umbel.get(counting_attempts(ends, max_retries=5, retry_exceptions=True)) == ("done", 2)
    with pytest.raises(ValueError, match="b"):
        umbel.get(counting_attempts(ends, max_retries=5, retry_exceptions=[KeyError]))
    with pytest.raises(ValueError, match="b"):
        umbel.get(counting_attempts(ends, max_retries=1, retry_exceptions=True))


def test_sys_exit_counts_as_the_end_of_a_worker() -> None:
    assert umbel.get(counting_attempts([SystemExit(1), SystemExit(0), "done"])) == ("done", 2)
    with pytest.raises(exceptions.WorkerCrashedError, match=r"sys\.exit\(3\)"):
        umbel.get(counting_attempts([SystemExit(3)], max_retries=0))


def test_keyboard_interrupt_of_the_code_itself_is_its_error() -> None:
    with pytest.raises(exceptions.UmbelTaskError) as info:
        umbel.get(counting_attempts([KeyboardInterrupt()]))
    assert isinstance(info.value.cause, KeyboardInterrupt)


def test_nested_tasks_run_to_any_depth() -> None:
    @umbel.remote
    def count_down(n: int) -> int:
        return 0 if n == 0 else 1 + umbel.get(count_down.remote(n - 1))

    assert umbel.get(count_down.remote(40)) == 40


def test_task_that_can_never_run_fails_at_get() -> None:
    for options in ({"num_cpus": 5}, {"resources": {"slot": 3}}, {"num_gpus": 1}, {"accelerator_type": "X"}):
        with pytest.raises(exceptions.TaskUnschedulableError, match="ask for less"):
            umbel.get(double.options(**options).remote(1))
    assert umbel.get(double.options(num_cpus=4, resources={"slot": 2}).remote(1)) == 2


def test_hard_affinity_to_another_node_fails_and_soft_does_not() -> None:
    from umbel.util import scheduling_strategies

    def place(*, soft: bool) -> Any:
        strategy = scheduling_strategies.NodeAffinitySchedulingStrategy("ab" * 16, soft=soft)
        return double.options(scheduling_strategy=strategy).remote(1)

    assert umbel.get(place(soft=True)) == 2
    with pytest.raises(exceptions.TaskUnschedulableError, match="does not exist"):
        umbel.get(place(soft=False))


def test_env_vars_hold_in_their_task_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_TEST_B", "outer")

    @umbel.remote
    def inner() -> Any:
        return os.environ.get("UMBEL_TEST_A"), os.environ.get("UMBEL_TEST_B")

    @umbel.remote(runtime_env={"env_vars": {"UMBEL_TEST_A": "1", "UMBEL_TEST_B": "2"}})
    def outer() -> Any:
        before = umbel.get(inner.remote())
        return before, os.environ["UMBEL_TEST_A"], os.environ["UMBEL_TEST_B"]

    assert umbel.get(outer.remote()) == ((None, "outer"), "1", "2")
    assert (os.environ.get("UMBEL_TEST_A"), os.environ["UMBEL_TEST_B"]) == (None, "outer")


def test_values_are_freed_with_their_last_reference(session: Any) -> None:
    records = session.values.table.records
    ref = umbel.put([umbel.put("inner"), double.remote(3)])
    inner = umbel.get(ref)
    assert len(records) == 3
    del ref
    assert (len(records), umbel.get(inner)) == (2, ["inner", 6])
    del inner
    gc.collect()
    assert len(records) == 0


def test_arguments_are_kept_until_the_task_has_run_and_not_longer(session: Any) -> None:
    @umbel.remote
    class Gate:
        def __init__(self) -> None:
            import asyncio

            self.event = asyncio.Event()

        async def wait(self) -> str:
            await self.event.wait()
            return "open"

        async def open(self) -> None:
            self.event.set()

    gate = Gate.remote()

    @umbel.remote
    def late(box: Any, opened: str) -> Any:
        return umbel.get(box[0]), opened

    result = late.remote([umbel.put("argument")], gate.wait.remote())
    gate.open.remote()
    assert umbel.get(result) == ("argument", "open")
    del result, gate
    gc.collect()
    assert len(session.values.table.records) == 0


def test_reference_pickled_by_other_means_keeps_its_object(session: Any) -> None:
    import pickle

    data = pickle.dumps(umbel.put("kept"))
    gc.collect()
    assert umbel.get(pickle.loads(data)) == "kept"


def test_reference_of_an_earlier_session_is_an_error() -> None:
    import pickle

    ref = umbel.put(1)
    data = pickle.dumps(ref)
    umbel.shutdown()
    with umbel.init(engine="inline"):
        with pytest.raises(exceptions.ObjectLostError, match="another session"):
            umbel.get(ref)
        with pytest.raises(exceptions.OwnerDiedError, match="another session"):
            umbel.get(pickle.loads(data))
        with pytest.raises(exceptions.OwnerDiedError):
            umbel.get(double.remote(ref))


def test_unread_error_is_logged_once_and_a_read_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    def fails(word: str) -> None:
        raise ValueError(word)

    remote = umbel.remote(fails)
    with caplog.at_level(logging.ERROR, logger="umbel"):
        ref = remote.remote("read")
        with pytest.raises(ValueError, match="read"):
            umbel.get(ref)
        del ref
        remote.remote("unread")
        remote.options(num_returns=0).remote("of no return")
        gc.collect()
        umbel.put(1)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "unread" in texts[0]
    assert "of no return" in texts[1]


def test_runtime_context_tells_where_the_code_runs() -> None:
    def look() -> Any:
        context = umbel.get_runtime_context()
        return (
            context.get_task_name(),
            context.get_assigned_resources(),
            context.namespace,
            context.get_actor_id(),
            context.get_task_id(),
            context.get_worker_id(),
        )

    driver = umbel.get_runtime_context()
    ref = umbel.remote(look).options(name="Look", num_cpus=2).remote()
    name, resources, namespace, actor_id, task_id, worker_id = umbel.get(ref)
    assert (name, resources, namespace, actor_id) == ("Look", {"CPU": 2.0}, "tests", None)
    assert task_id == ref.task_id().hex()
    assert worker_id != driver.get_worker_id()
    assert driver.get_task_id() is None


def test_gpus_are_numbered_and_no_others_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")

    def look() -> tuple[list[str], str | None]:
        return umbel.get_runtime_context().get_accelerator_ids()["GPU"], os.environ.get("CUDA_VISIBLE_DEVICES")

    class Looker:
        def look(self) -> tuple[list[str], str | None]:
            return look()

    umbel.shutdown()
    with umbel.init(engine="inline", num_gpus=2):
        ids = umbel.get(umbel.remote(num_gpus=2)(look).remote())
        assert ids[1] == ",".join(ids[0])
        assert len(ids[0]) == 2
        looker = umbel.remote(num_gpus=0.5)(Looker).remote()
        assert umbel.get(looker.look.remote()) == ([ids[0][0]], ids[0][0])
        assert umbel.get(umbel.remote(look).remote()) == ([], "4,6,7")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6,7"


def test_every_thread_of_the_session_ends_with_it() -> None:
    @umbel.remote
    class Plain:
        def hold(self) -> None:
            pass

    class Async:
        async def hold(self) -> None:
            pass

    handles = [Plain.remote(), umbel.remote(Async).remote()]
    umbel.get([h.hold.remote() for h in handles] + [double.remote(1)])
    assert any(t.name.startswith("umbel-inline") for t in threading.enumerate())
    umbel.shutdown()
    assert not [t.name for t in threading.enumerate() if t.name == "umbel-inline"]


def test_calls_after_shutdown_say_so(session: Any) -> None:
    session.shutdown()
    with pytest.raises(exceptions.UmbelSystemError, match="shut down"):
        double.remote(1)


def test_what_waits_at_shutdown_unwinds(monkeypatch: pytest.MonkeyPatch) -> None:
    @umbel.remote
    class Never:
        async def come(self) -> None:
            import asyncio

            try:
                await asyncio.Event().wait()
            finally:
                os.environ["UMBEL_TEST_COROUTINE"] = "unwound"

    @umbel.remote
    def waits(box: Any) -> None:
        try:
            umbel.get(box[0].come.remote())
        finally:
            os.environ["UMBEL_TEST_TASK"] = "unwound"

    for name in ("UMBEL_TEST_COROUTINE", "UMBEL_TEST_TASK"):
        monkeypatch.setenv(name, "")
    ref = waits.remote([Never.remote()])
    umbel.shutdown()
    assert [os.environ["UMBEL_TEST_COROUTINE"], os.environ["UMBEL_TEST_TASK"]] == ["unwound", "unwound"]
    del ref


def test_session_answers_questions(session: Any) -> None:
    umbel.get(double.options(name="measured").remote(1))
    assert umbel.cluster_resources()["CPU"] == 4.0
    assert umbel.available_resources()["slot"] == 2.0
    assert [node["Alive"] for node in umbel.nodes()] == [True]
    assert [event["name"] for event in umbel.timeline() or [] if event["ph"] == "X"] == ["measured"]
    assert session.query("pending") == []
    with pytest.raises(exceptions.UnsupportedFeature, match="workers"):
        session.query("workers")
