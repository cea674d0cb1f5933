"""Who holds what, and why one object is alive: from a program, and by the commands."""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import commands
import drivers
import pytest

import umbel
from umbel import exceptions
from umbel._client import holders
from umbel.util import memory

np = pytest.importorskip("numpy")
HERE = pathlib.Path(__file__).name
CACHE: list[Any] = []


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("UMBEL_RECORD_CALL_SITES", "1")
    with umbel.init(num_cpus=2, object_store_memory=200 << 20):
        yield
    CACHE.clear()


@umbel.remote(num_cpus=0)
class Keeper:
    def keep(self, boxed: list[Any]) -> None:
        self.kept = boxed

    def make(self) -> Any:
        self.own = umbel.put(np.zeros(150_000))
        return self.own.hex()


@umbel.remote(num_cpus=0)
def hold(path: str, _argument: Any = None) -> None:
    while not pathlib.Path(path).exists():
        time.sleep(0.005)


@umbel.remote(num_cpus=0)
def make() -> Any:
    return np.zeros(150_000)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test process has hundreds of thousands of objects, in which a search on a busy machine takes its time."""
    monkeypatch.setattr(holders, "SEARCH_S", 30.0)


def texts(ref: Any) -> list[str]:
    return [str(reason) for reason in memory.why_alive(ref)]


def one_with(found: list[str], *parts: str) -> str:
    (right,) = [text for text in found if all(part in text for part in parts)]
    return right


def test_summary_groups_by_the_line_that_made_the_objects() -> None:
    for _ in range(3):
        CACHE.append(umbel.put(np.ones(150_000)))
    made = make.remote()
    umbel.get(made)
    text = memory.memory_summary(units="MB")
    group = next(line for line in text.splitlines() if "3 objects, 3.4 MB" in line)
    assert HERE in group
    assert "in test_summary_groups_by_the_line_that_made_the_objects" in group
    for ref in (*CACHE, made):
        assert ref.hex() in text
    assert text.index(CACHE[0].hex()) < text.index(made.hex())  # the group with most bytes is first
    assert "4 objects in the object store, 4.6 MB" in text
    assert f"driver (pid {os.getpid()})" in text


def test_summary_of_processes_counts_each_object_once() -> None:
    """The actor borrows one object and owns another."""
    keeper = Keeper.remote()
    ref = umbel.put(np.ones(150_000))
    umbel.get(keeper.keep.remote([ref]))
    own = umbel.get(keeper.make.remote())
    text = memory.memory_summary(group_by="NODE_ADDRESS", sort_by="PID", units="KB")
    assert (text.count(ref.hex()), text.count(own)) == (1, 1)
    actors_part = text[text.index("actor Keeper (pid") :]
    assert own in actors_part
    short = memory.memory_summary(group_by="node_address", num_entries=0)
    assert own not in short
    assert memory.memory_summary(stats_only=True).startswith("2 objects in the object store, ")


@pytest.mark.parametrize(
    ("option", "value"),
    [("group_by", "color"), ("sort_by", 3), ("units", "TB"), ("num_entries", -1), ("num_entries", True)],
)
def test_wrong_arguments_are_refused(option: str, value: Any) -> None:
    with pytest.raises(exceptions.InvalidOption, match=option):
        memory.memory_summary(**{option: value})
    with pytest.raises(exceptions.UnsupportedFeature, match="address"):
        memory.memory_summary(address="elsewhere")
    with pytest.raises(TypeError, match="takes an ObjectRef"):
        memory.why_alive("text")


def test_why_alive_finds_the_variable_and_the_attribute() -> None:
    CACHE.append(umbel.put(np.ones(150_000)))
    keeper = Keeper.remote()
    umbel.get(keeper.keep.remote([CACHE[0]]))
    found = texts(CACHE[0])
    assert "has 1.1 MB (shared)" in found[0]
    assert HERE in found[0]
    driver = one_with(found, "driver (pid", "has 1 reference")
    assert f"list of 1 items, in variable CACHE of module {__name__}" in driver
    one_with(found, "actor Keeper (pid", "has 1 reference", "attribute kept of a Keeper object")


def test_why_alive_finds_locals_views_and_containers() -> None:
    inner = umbel.put(np.ones(150_000))
    view = umbel.get(inner)
    outer = umbel.put({"inside": [inner]})
    found = texts(inner)
    one_with(found, "local variable inner of test_why_alive_finds_locals_views_and_containers")
    one_with(found, "reads its memory in place, in 1 value")
    one_with(found, f"keeps object {outer.hex()}, whose value contains it")
    del view, outer
    assert len(texts(inner)) == 2


def test_a_local_variable_that_is_deleted_keeps_nothing_after_somebody_asked_of_it() -> None:
    ref = umbel.put(np.ones(150_000))
    hexed = ref.hex()
    one_with(texts(ref), "local variable ref of test_a_local_variable")
    del ref
    drivers.wait_until(lambda: hexed not in memory.memory_summary())


def test_why_alive_finds_arguments_of_tasks(tmp_path: pathlib.Path) -> None:
    gate = tmp_path / "gate"
    argument = umbel.put(np.ones(150_000))
    first = hold.remote(str(gate))
    running, waiting = hold.remote(str(gate), argument), [hold.remote(str(gate), [argument, first]) for _ in range(2)]
    later = [hold.options(resources={"licence": 1}).remote(str(gate), argument) for _ in range(2)]

    def told() -> Any:
        found = texts(argument)
        return (
            found if any("1 call of hold, sent" in text or "3 calls of hold, sent" in text for text in found) else None
        )

    found = drivers.wait_until(told)
    one_with(found, "calls of hold, not sent yet")
    gate.touch()
    umbel.get([running, *waiting], timeout=30)
    for ref in later:
        umbel.cancel(ref)


def test_why_alive_tells_what_is_kept_for_good() -> None:
    captured = umbel.put(np.ones(150_000))

    @umbel.remote(num_cpus=0)
    def uses() -> float:
        return float(umbel.get(captured)[0])

    assert umbel.get(uses.remote()) == 1.0
    one_with(texts(captured), "keeps it for good", "pass it as an argument")


def test_memory_command_prints_the_same_and_json() -> None:
    CACHE.append(umbel.put(np.ones(150_000)))
    keeper = Keeper.remote()
    umbel.get(keeper.keep.remote([]))
    done = commands.run("memory")
    assert done.returncode == 0, done.stderr
    assert CACHE[0].hex() in done.stdout
    assert "1.1 MB" in done.stdout
    listed = json.loads(commands.run("memory", "--json").stdout)
    kinds = {entry["object_id"]: (entry["kind"], entry["reference_type"]) for entry in listed["entries"]}
    assert kinds[CACHE[0].hex()] == ("shared", "LOCAL_REFERENCE")
    assert ("actor", "ACTOR_HANDLE") in kinds.values()
    assert commands.run("memory", "--stats-only").stdout.startswith("1 object in the object store, 1.1 MB")
    assert commands.run("memory", "--units", "TB").returncode == 2


def test_explain_command_says_why_an_object_is_alive() -> None:
    CACHE.append(umbel.put(np.ones(150_000)))
    done = commands.run("explain", CACHE[0].hex())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith("is ready")
    assert f"in variable CACHE of module {__name__}" in done.stdout
    gone = CACHE.pop().hex()
    drivers.wait_until(lambda: "not known here any more" in commands.run("explain", gone).stdout)


def test_calls_that_are_kept_to_compute_values_again_are_told() -> None:
    """Of an object that has gone as well, if what was computed from it needs that."""

    @umbel.remote(num_cpus=0)
    def grow(array: Any, _beside: bytes) -> Any:
        return array + 1

    first = make.remote()
    second = grow.remote(first, bytes(50_000))
    umbel.get(second)
    first_id = first.hex()
    del first
    drivers.wait_until(lambda: "not known here any more" in commands.run("explain", first_id).stdout)
    gone = commands.run("explain", first_id).stdout
    assert (
        f"driver (pid {os.getpid()}) keeps the call of make that made it, with 1000 B of arguments, also for 1 other"
        in gone
    )
    assert one_with(texts(second), "keeps the call of", "grow that made it, with 49.", "again if it is lost")
    summary = memory.memory_summary(stats_only=True, units="KB")
    assert f"driver (pid {os.getpid()}) keeps 2 calls to compute lost values again, with 50." in summary


def test_summary_without_the_history_says_what_is_missing() -> None:
    output, _ = drivers.run(
        """
        import os, time, umbel
        from umbel.util import memory, state
        context = umbel.init(num_cpus=1)

        @umbel.remote
        def produce():
            return b"x" * 300_000

        refs = [produce.remote() for _ in range(3)]
        umbel.get(refs)
        kept = umbel.put(b"x" * 300_000)  # no task made it, which only the history would tell
        path = os.path.join(context["session_dir"], "history.db")
        until = time.monotonic() + 20
        while not os.path.exists(path):
            assert time.monotonic() < until
            state.list_tasks()
        os.rename(path, path + ".old")
        os.mkdir(path)  # which nobody can read as a file
        text = memory.memory_summary()
        print("4 objects in the object store" in text, "on disk: 0 B in 0 files" in text)
        print(next(line for line in text.splitlines() if line.startswith("the names of tasks")))
    """,
        UMBEL_RECORD_CALL_SITES="0",
    )
    first, second = output.splitlines()
    assert first == "True True"
    assert second.startswith("the names of tasks that have ended are missing: ")
    assert "history.db" in second


def test_summary_names_every_process_of_the_session(tmp_path: pathlib.Path) -> None:
    """The daemon, its fork server, an environment's, the recorder and the server of metrics, none of which has objects."""
    pytest.importorskip("prometheus_client")
    output, _ = drivers.run(
        """
        import umbel
        from umbel.util import memory, state
        umbel.init(num_cpus=1, _metrics_export_port=0)

        @umbel.remote
        class Own:
            def ready(self): return True

        own = Own.options(runtime_env={"working_dir": DIRECTORY}).remote()
        umbel.get(own.ready.remote())
        state.list_tasks()
        print(memory.memory_summary(stats_only=True))
    """.replace("DIRECTORY", repr(str(tmp_path))),
        UMBEL_RECORD_CALL_SITES="0",
    )
    (line,) = [line for line in output.splitlines() if line.startswith("processes: ")]
    for name in ("daemon", "fork server", "server of an environment", "recorder of the history", "server of metrics", "driver",
                 "actor Own"):  # fmt: skip
        assert line.count(f"{name} (pid ") == 1, line


def test_names_of_tasks_stand_in_for_call_sites() -> None:
    output, _ = drivers.run(
        """
        import time, umbel
        from umbel.util import memory
        umbel.init(num_cpus=1)

        @umbel.remote
        def produce():
            return b"x" * 300_000

        refs = [produce.remote() for _ in range(3)]
        umbel.get(refs)
        until = time.monotonic() + 20  # workers tell what they ran once a second
        while "produce: 3 objects" not in (text := memory.memory_summary()) and time.monotonic() < until:
            time.sleep(0.05)
        print("produce: 3 objects" in text, "call sites are off" in text)
    """,
        UMBEL_RECORD_CALL_SITES="0",
    )
    assert output.split() == ["True", "True"]


def test_process_that_does_not_answer_is_named_and_left_out() -> None:
    output, _ = drivers.run(
        """
        import os, signal, umbel
        from umbel.util import memory
        umbel.init(num_cpus=1)

        @umbel.remote(num_cpus=0)
        class Actor:
            def pid(self):
                return os.getpid()

        actor = Actor.remote()
        pid = umbel.get(actor.pid.remote())
        ref = umbel.put(1)
        memory.ANSWER_S = 0.3
        os.kill(pid, signal.SIGSTOP)
        text = memory.memory_summary()
        os.kill(pid, signal.SIGCONT)
        print(ref.hex() in text, f"actor Actor (pid {pid}) does not answer" in text)
    """
    )
    assert output.split() == ["True", "True"]


def test_inline_engine_says_that_it_does_not_tell() -> None:
    umbel.shutdown()
    umbel.init(engine="inline")
    with pytest.raises(exceptions.UnsupportedFeature, match="inline"):
        memory.memory_summary()
    with pytest.raises(exceptions.UnsupportedFeature, match="inline"):
        memory.why_alive(umbel.put(1))
