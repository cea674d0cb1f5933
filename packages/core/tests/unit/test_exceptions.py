"""Errors: the tree of classes, their journey between processes, and a task's error as an instance of its cause's
class."""

from __future__ import annotations

import asyncio
import builtins
import copy
import dataclasses
import inspect
import logging
import os
import pathlib
import pickle
import subprocess
import sys
import threading
from typing import Any

import cloudpickle
import pytest

from umbel import exceptions
from umbel.exceptions import UmbelTaskError, dump_error, load_error

CLASSES = [getattr(exceptions, name) for name in exceptions.__all__]


class Trouble(Exception):
    pass


class Coded(Exception):
    code = 500

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint

    def __reduce__(self) -> Any:
        return _coded, (self.code, self.hint)

    @property
    def doubled(self) -> int:
        return self.code * 2


def _coded(code: int, hint: str) -> Coded:
    return Coded(code, hint=hint)


class Slotted(Exception):
    __slots__ = ("place",)

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


class OneWay(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("one way")


class Stubborn(Exception):
    def __init__(self) -> None:
        super().__init__("stubborn thing")
        self.lock = threading.Lock()


class Final(Exception):
    def __init_subclass__(cls, **kwargs: object) -> None:
        raise TypeError("no children please")


class HidesArgs(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]  # that is the point
        raise RuntimeError("nobody reads my args")

    def __str__(self) -> str:
        return "hidden"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    value: int


@dataclasses.dataclass
class Unhashable(Exception):
    value: int


class WithProcess(Exception):
    """As psutil's errors: has a `pid` of its own."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


class Counted(Exception):
    """Counts how often it is rebuilt."""

    rebuilt_count = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_counted, self.args


def rebuild_counted(text: str) -> Counted:
    Counted.rebuilt_count += 1
    return Counted(text)


def caught(error: BaseException, function_name: str = "work", **fields: Any) -> UmbelTaskError:
    """What a worker makes of `error`."""
    try:
        raise error
    except BaseException as one:
        return UmbelTaskError.from_exception(one, function_name, **fields)


def received(error: UmbelTaskError) -> UmbelTaskError:
    """What `get` raises in another process."""
    loaded = load_error(dump_error(error))
    assert isinstance(loaded, UmbelTaskError)
    return loaded.as_instanceof_cause()


# ---------------------------------------------------------------------------------------------------------------------
# The tree.


def test_all_lists_every_class_of_the_module() -> None:
    found = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == "umbel.exceptions"
    }
    assert found == set(exceptions.__all__)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_is_an_umbel_error_that_says_something_by_itself(cls: type[exceptions.UmbelError]) -> None:
    assert issubclass(cls, exceptions.UmbelError)
    assert str(cls())
    assert cls.__doc__


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("GetTimeoutError", (TimeoutError,)),
        ("ActorAlreadyExistsError", (ValueError,)),
        ("ActorHandleNotFoundError", (ValueError,)),
        ("InvalidOption", (ValueError,)),
        ("InvalidOptionType", (ValueError, TypeError)),
        ("UnsupportedFeature", (NotImplementedError,)),
        ("ReferenceCountingAssertionError", (exceptions.ObjectLostError, AssertionError)),
        ("UmbelChannelTimeoutError", (exceptions.UmbelChannelError, TimeoutError)),
        ("UmbelChannelError", (exceptions.UmbelSystemError,)),
        ("InternalError", (exceptions.UmbelSystemError,)),
        ("ActorDiedError", (exceptions.UmbelActorError,)),
        ("ActorUnavailableError", (exceptions.UmbelActorError,)),
        ("OwnerDiedError", (exceptions.ObjectLostError,)),
        ("ObjectFreedError", (exceptions.ObjectLostError,)),
        ("ObjectReconstructionFailedError", (exceptions.ObjectLostError,)),
        ("PluginConflict", (exceptions.PluginError,)),
        ("CollectiveRankDiedError", (exceptions.CollectiveError,)),
        ("CollectiveTimeoutError", (exceptions.CollectiveError, TimeoutError)),
        ("CollectiveMismatchError", (exceptions.CollectiveError, ValueError)),
    ],
)
def test_class_relations(name: str, bases: tuple[type, ...]) -> None:
    assert all(issubclass(getattr(exceptions, name), base) for base in bases)


FIELDS: dict[str, dict[str, Any]] = {
    "InvalidOption": {"option": "num_cpus"},
    "InvalidOptionType": {"option": "num_cpus"},
    "PluginError": {"plugin": "p"},
    "PluginConflict": {"plugin": "p"},
    "TaskCancelledError": {"task_id": "ab"},
    "CollectiveError": {"group_name": "default", "rank": 1},
    "CollectiveRankDiedError": {"group_name": "default", "rank": 1},
    "CollectiveTimeoutError": {"group_name": "default", "rank": 1},
    "CollectiveMismatchError": {"group_name": "default", "rank": 1},
    "RpcError": {"rpc_code": 14},
    "UmbelActorError": {"actor_id": "ab", "preempted": True, "actor_init_failed": True},
    "ActorDiedError": {"actor_id": "ab", "preempted": True, "actor_init_failed": True},
    "ActorUnavailableError": {"actor_id": "ab", "preempted": True, "actor_init_failed": False},
    "ObjectLostError": {"object_id": "ab", "owner": "cd"},
    "ObjectReconstructionFailedError": {"object_id": "ab", "owner": "cd", "reason": "put"},
}


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", [2, 5])
def test_every_class_keeps_type_text_and_fields_on_a_journey(cls: Any, protocol: int) -> None:
    error = cls("what happened", **FIELDS.get(cls.__name__, {}))
    error.note = "added later"
    for journey in (
        lambda one: pickle.loads(pickle.dumps(one, protocol)),
        lambda one: cloudpickle.loads(cloudpickle.dumps(one, protocol)),
        lambda one: load_error(dump_error(one)),
        copy.copy,
    ):
        twin = journey(error)
        assert type(twin) is cls
        assert (str(twin), twin.args) == (str(error), error.args)
        assert {**vars(twin), "cause": None} == {**vars(error), "cause": None}


def test_subclass_with_another_constructor_travels_too() -> None:
    class Mine(exceptions.UmbelError):
        def __init__(self, left: int, *, right: int) -> None:
            super().__init__(f"{left}/{right}")
            self.right = right

    twin = cloudpickle.loads(cloudpickle.dumps(Mine(1, right=2)))
    assert (type(twin), str(twin), twin.right) == (Mine, "1/2", 2)


def test_invariant_error_names_the_things_concerned() -> None:
    error = exceptions.InternalError("slots went negative", node="n1", free=-1)
    assert str(error).startswith("slots went negative, node=n1, free=-1 (a bug in Umbel")
    assert error.ids == {"node": "n1", "free": "-1"}


def test_unknown_reason_of_a_failed_reconstruction_is_refused() -> None:
    with pytest.raises(exceptions.InternalError, match="reason=bad luck"):
        exceptions.ObjectReconstructionFailedError(reason="bad luck")


def test_importing_the_module_loads_nothing_heavy() -> None:
    heavy = ["traceback", "pickle", "cloudpickle", "logging", "asyncio"]
    code = f"import sys, umbel.exceptions; print(*set({heavy}) & set(sys.modules))"
    package = os.path.dirname(os.path.dirname(exceptions.__file__))
    # -S: what the environment's .pth files import is not ours. The package's own __init__ is left out for the same
    # reason.
    stub = "import sys, types; m = types.ModuleType('umbel'); m.__path__ = [sys.argv[1] + '/umbel']; "
    stub += "sys.modules['umbel'] = m; "
    done = subprocess.run(
        [sys.executable, "-S", "-c", stub + code, package], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


# ---------------------------------------------------------------------------------------------------------------------
# A task's error.


def test_error_is_of_both_classes_here_and_after_a_journey() -> None:
    for one in (caught(Trouble("a", 2)).as_instanceof_cause(), received(caught(Trouble("a", 2)))):
        assert isinstance(one, Trouble)
        assert isinstance(one, UmbelTaskError)
        assert type(one).__name__ == "UmbelTaskError(Trouble)"
        assert one.args == ("a", 2)
        assert (type(one.cause), one.cause.args) == (Trouble, ("a", 2))


def test_class_is_made_once_and_each_error_anew() -> None:
    error = caught(Trouble("x"))
    one, other = error.as_instanceof_cause(), error.as_instanceof_cause()
    assert type(one) is type(other)
    assert one is not other
    assert one != other


def test_text_is_the_remote_traceback() -> None:
    error = received(caught(Trouble("needle"), "function_with_a_name", pid=12, node_ip="10.0.0.1", actor_id="ab"))
    lines = str(error).splitlines()
    assert lines[0] == "function_with_a_name() failed (pid=12, node=10.0.0.1, actor=ab):"
    assert lines[1] == "Traceback (most recent call last):"
    assert __file__ in lines[2]
    assert lines[-1].endswith("Trouble: needle")
    assert repr(error) == "UmbelTaskError(Trouble)(Trouble('needle'))"
    assert str(caught(Trouble("x"), "Read->Map(f)")).startswith("Read->Map(f) failed:\n")


def test_text_has_what_the_error_was_chained_to() -> None:
    try:
        try:
            {}["root"]  # type: ignore[index]  # it is to fail
        except KeyError as error:
            raise ValueError("wrapped") from error
    except ValueError as error:
        text = str(UmbelTaskError.from_exception(error, "f"))
    assert "KeyError: 'root'" in text
    assert "direct cause" in text
    assert text.rstrip().endswith("ValueError: wrapped")


def test_attributes_of_the_cause_are_visible() -> None:
    error: Any = received(caught(Coded(17, hint="look")))
    assert (error.code, error.hint, error.doubled, str(error.cause)) == (17, "look", 34, "code 17")
    error.code = 18
    assert (error.code, error.cause.code) == (18, 17)
    with pytest.raises(AttributeError, match="no_such"):
        _ = error.no_such


def test_slots_of_the_cause_are_visible() -> None:
    error: Any = received(caught(Slotted("here")))
    assert error.place == "here"


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: os.stat("/no/such/file"), ("errno", "strerror", "filename")),
        (lambda: b"\xff".decode(), ("encoding", "object", "start", "end", "reason")),
        (lambda: compile("a b", "file.py", "exec"), ("msg", "filename", "lineno", "text")),
        (lambda: __import__("no_such_module_anywhere"), ("name", "path", "msg")),
        (lambda: next(iter([])), ("value",)),
        (lambda: [].no_such, ("name", "obj")),  # type: ignore[attr-defined]  # it is to fail
    ],
)
def test_attributes_of_builtin_errors_are_kept(make: Any, names: tuple[str, ...]) -> None:
    try:
        make()
    except Exception as original:
        error = caught(original).as_instanceof_cause()
        assert isinstance(error, type(original))
        assert [getattr(error, name) for name in names] == [getattr(original, name) for name in names]
        assert error.args == original.args


def test_attribute_of_the_cause_wins_over_a_field_of_the_same_name() -> None:
    error: Any = received(caught(WithProcess(7), pid=12))
    assert error.pid == 7
    assert "(pid=12)" in str(error)
    assert "(pid=12)" in str(pickle.loads(pickle.dumps(error)))


def test_instance_travels_as_itself() -> None:
    error: Any = received(caught(Coded(17, hint="look"), pid=12, task_id="ab"))
    for protocol in range(2, 6):
        twin = pickle.loads(pickle.dumps(error, protocol))
        assert type(twin) is type(error)
        assert (str(twin), twin.code, twin.pid, twin.task_id) == (str(error), 17, 12, "ab")
    assert load_error(dump_error(error)).__class__ is type(error)
    assert error.__class__ is type(copy.deepcopy(error))


def test_local_class_travels_by_value() -> None:
    class Local(Exception):
        pass

    assert isinstance(received(caught(Local("x"))), Local)


def test_error_of_a_nested_task_is_wrapped_once() -> None:
    inner = received(caught(Trouble("inner"), "leaf"))
    outer = received(caught(inner, "middle"))
    assert type(outer).__name__ == "UmbelTaskError(Trouble)"
    assert (type(outer.cause), outer.cause.args) == (Trouble, ("inner",))
    assert outer.function_name == "middle"
    assert "middle() failed" in str(outer)
    assert "leaf() failed" in str(outer)


def test_constructor_never_keeps_a_task_error_as_cause() -> None:
    inner = caught(Trouble("inner"))
    assert UmbelTaskError("f", "text", inner.as_instanceof_cause()).cause is inner.cause


def failed_input(upstream: BaseException, *names: str) -> bytes:
    """What owners make of `upstream`: the first of these tasks took it as its argument, the next the result of that."""
    data = dump_error(upstream)
    for name in names:
        data = exceptions.dump_failed_input(data, name, task_id="ab", actor_id="cd")
    return data


def test_failed_input_passes_the_class_on_and_says_so() -> None:
    error = load_error(failed_input(caught(Trouble("source"), "fail", pid=7), "consume", "consume_more"))
    assert isinstance(error, UmbelTaskError)
    assert isinstance(error.as_instanceof_cause(), Trouble)
    assert (type(error.cause), error.cause.args) == (Trouble, ("source",))
    assert (error.function_name, error.task_id, error.actor_id, error.pid) == ("consume_more", "ab", "cd", None)
    because = "did not run, because an argument of it could not be computed:"
    assert error.traceback_str.startswith(
        f"consume_more() {because}\nconsume() {because}\nfail() failed (pid=7):\nTraceback (most recent call last):\n"
    )
    assert error.traceback_str.endswith("Trouble: source")


def test_failed_input_may_be_an_error_of_the_runtime() -> None:
    error = load_error(failed_input(exceptions.WorkerCrashedError("its worker died"), "consume"))
    assert isinstance(error, UmbelTaskError)
    assert isinstance(error.as_instanceof_cause(), exceptions.WorkerCrashedError)
    assert str(error) == (
        "consume() failed (actor=cd):\nconsume() did not run, because an argument of it could not be computed:\n"
        "umbel.exceptions.WorkerCrashedError: its worker died"
    )


def test_failed_input_is_made_without_the_code_of_its_cause() -> None:
    """An owner makes it while it holds its lock."""
    first = dump_error(caught(Counted("x")))
    Counted.rebuilt_count = 0
    data = exceptions.dump_failed_input(first, "consume", task_id="ab")
    assert exceptions.summary_of_dump(data).startswith("umbel.exceptions.UmbelTaskError: consume() did not run")
    assert exceptions.first_of_failed_input(data) == first
    assert exceptions.first_of_failed_input(first) is None
    assert Counted.rebuilt_count == 0
    assert isinstance(load_error(data), UmbelTaskError)
    assert Counted.rebuilt_count == 1


def test_failed_inputs_in_a_row_have_a_bound() -> None:
    names = [f"step{index}" for index in range(1_000)]
    data = failed_input(caught(Trouble("source"), "fail"), *names)
    assert len(data) < len(failed_input(caught(Trouble("source"), "fail"), *names[:20])) + 100
    lines = str(load_error(data)).splitlines()
    assert lines[1].startswith("step999() did not run")
    assert [line for line in lines if line.startswith("...")] == ["... (984 more tasks did not run) ..."]
    assert len([line for line in lines if line.startswith("step")]) == 17  # the heading is one of them
    assert "step0() did not run" in str(load_error(data))
    assert "Trouble: source" in str(load_error(data))


def test_failed_input_with_much_data_is_shared_by_those_who_fail_with_it() -> None:
    first = dump_error(caught(Trouble("x" * 1_000_000)))
    assert exceptions.dump_failed_input(first, "consume", task_id="ab") is first


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_exception_group_keeps_its_members() -> None:
    group_class: Any = vars(builtins)["ExceptionGroup"]
    error: Any = received(caught(group_class("several", [ValueError("one"), KeyError("two")])))
    assert isinstance(error, group_class)
    assert isinstance(error, UmbelTaskError)
    assert error.message == "several"
    assert [type(one) for one in error.exceptions] == [ValueError, KeyError]
    matched, rest = error.split(ValueError)
    assert [len(matched.exceptions), len(rest.exceptions)] == [1, 1]
    assert "ValueError: one" in str(error)


def test_class_that_cannot_be_subclassed_falls_back_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="umbel"):
        for _ in range(3):
            error = received(caught(Final("sealed")))
            assert type(error) is UmbelTaskError
            assert type(error.cause) is Final
            assert "sealed" in str(error)
    assert len([record for record in caplog.records if "no children please" in record.getMessage()]) == 1


def test_class_that_hides_its_args_is_still_caught() -> None:
    error = caught(HidesArgs("x")).as_instanceof_cause()
    assert isinstance(error, HidesArgs)
    assert "hidden" in str(error)


def test_dataclass_without_a_hash_as_an_error() -> None:
    error: Any = received(caught(Unhashable(3)))
    assert isinstance(error, Unhashable)
    assert error.value == 3
    assert len({error}) == 1


def test_frozen_dataclass_as_an_error() -> None:
    error: Any = UmbelTaskError("f", "text", Frozen(3)).as_instanceof_cause()  # Python itself cannot unpickle a Frozen
    assert isinstance(error, Frozen)
    assert error.value == 3
    error.__traceback__ = None  # contextlib does so


@pytest.mark.parametrize("cause", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_what_would_end_or_cancel_the_reader_does_not(cause: BaseException) -> None:
    error = received(caught(cause))
    assert type(error) is UmbelTaskError
    assert type(error.cause) is type(cause)


@pytest.mark.parametrize("cause", [Exception("plain"), exceptions.UmbelError("ours")])
def test_cause_of_a_base_class_needs_no_class_of_its_own(cause: Exception) -> None:
    error = received(caught(cause))
    assert type(error) is UmbelTaskError
    assert str(error.cause) == str(cause)


def test_error_of_the_runtime_in_a_task_keeps_class_and_fields() -> None:
    error: Any = received(caught(exceptions.ActorDiedError("gone", actor_id="ab", actor_init_failed=True)))
    assert isinstance(error, exceptions.ActorDiedError)
    assert (error.actor_id, error.actor_init_failed, error.preempted) == ("ab", True, False)


def test_error_can_be_raised_again_and_again() -> None:
    error = load_error(dump_error(caught(IndexError("again"))))
    assert isinstance(error, UmbelTaskError)
    for _ in range(3):
        with pytest.raises(IndexError, match="again"):
            raise error.as_instanceof_cause()
    assert error.__traceback__ is None


# ---------------------------------------------------------------------------------------------------------------------
# What cannot travel.


def test_cause_that_cannot_be_pickled_becomes_its_text() -> None:
    error = received(caught(Stubborn()))
    assert type(error) is UmbelTaskError
    assert type(error.cause) is exceptions.UmbelError
    assert "Stubborn: stubborn thing" in str(error.cause)
    assert "stubborn thing" in str(error)
    for text in (str(error), str(error.cause)):
        assert "cannot pickle" in text
        assert "the part at fault is .lock (_thread.lock)" in text


def test_part_of_a_cause_that_cannot_be_pickled_is_named_among_its_arguments() -> None:
    error = received(caught(ValueError("held", {"guard": threading.Lock()})))
    assert "the part at fault is .args[1]['guard'] (_thread.lock)" in str(error)


def test_error_that_cannot_even_be_looked_at_keeps_its_text() -> None:
    class Hostile(Exception):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"no {name}")

        def __reduce__(self) -> Any:
            raise TypeError("not to be pickled")

    assert "not to be pickled" in str(received(caught(Hostile("hostile thing"))))


def test_cause_that_cannot_be_unpickled_becomes_readable() -> None:
    error = received(caught(OneWay(1, 2)))
    assert isinstance(error, exceptions.UnserializableException)
    assert isinstance(error, UmbelTaskError)
    for text in (str(error), str(error.cause)):
        assert "OneWay: one way" in text
        assert "cannot be unpickled: TypeError" in text


def test_cause_that_only_the_reader_cannot_rebuild_costs_only_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dump_error(caught(Coded(17, hint="look"), "work", pid=12))
    monkeypatch.delattr(sys.modules[__name__], "_coded")  # as where the module is another version
    error = load_error(data)
    assert isinstance(error, UmbelTaskError)
    assert type(error.cause) is exceptions.UnserializableException
    assert "Coded: code 17" in str(error.cause)
    assert "work() failed (pid=12)" in str(error)
    assert "Coded: code 17" in str(error)


def test_pickle_inside_of_other_values_is_as_robust() -> None:
    error = UmbelTaskError("f", "text", Stubborn())
    twin = pickle.loads(pickle.dumps([error]))[0]
    assert "stubborn thing" in str(twin.cause)


@pytest.mark.parametrize("error", [ValueError("just a value"), SystemExit(3), exceptions.NodeDiedError("n1")])
def test_any_error_may_be_sent(error: BaseException) -> None:
    twin = load_error(dump_error(error))
    assert (type(twin), twin.args) == (type(error), error.args)


def test_any_error_that_cannot_travel_arrives_as_text() -> None:
    assert "Stubborn: stubborn thing" in str(load_error(dump_error(Stubborn())))
    unread = load_error(dump_error(OneWay(1, 2)))
    assert type(unread) is exceptions.UnserializableException
    assert "OneWay: one way" in str(unread)


class Liar(Exception):
    def __reduce__(self) -> Any:
        return list, ()


def test_exception_that_unpickles_as_something_else_is_reported() -> None:
    assert isinstance(load_error(dump_error(Liar("x"))), exceptions.UnserializableException)
    assert "Liar" in str(caught(Liar("x")).cause)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("I do not speak")


def test_exception_that_cannot_print_itself_is_still_reported() -> None:
    error = received(caught(Mute()))
    assert isinstance(error, Mute)
    assert "Mute" in str(error)


# ---------------------------------------------------------------------------------------------------------------------
# The text of a traceback.


def run_as_if_in(path: str, source: str) -> BaseException:
    names: dict[str, Any] = {}
    exec(compile(source, path, "exec"), names)
    try:
        names["run"]()
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


def test_frames_of_umbel_are_left_out() -> None:
    package = os.path.dirname(exceptions.__file__)
    user = run_as_if_in("/home/user/job.py", "def run():\n    raise ValueError('mine')")

    def body() -> None:
        raise user

    names: dict[str, Any] = {"body": body}
    exec(compile("def execute():\n    body()", package + "/_worker/execute.py", "exec"), names)
    try:
        names["execute"]()
    except ValueError as error:
        text = exceptions.format_remote_traceback(error)
    assert "/home/user/job.py" in text
    assert "_worker/execute.py" not in text


OURS = """
def refuse():
    raise ValueError(
        'two, got one'
    )

def stumble():
    None.missing

def break_down():
    raise InternalError('cannot be')

def read():
    return pickle.loads(b"cumbel.exceptions\\nabsent\\n.")

def explain():
    try:
        cloudpickle.dumps(lock)
    except TypeError as error:
        raise TypeError('no locks') from error
"""


def text_from(path: pathlib.Path, function: str) -> str:
    """The traceback of a function of `OURS`, where the directory of `path` is ours."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(OURS)
    names: dict[str, Any] = {
        "InternalError": exceptions.InternalError,
        "cloudpickle": cloudpickle,
        "lock": threading.Lock(),
        "pickle": pickle,
    }
    exec(compile(OURS, str(path), "exec"), names)
    try:
        names[function]()
    except Exception as error:
        error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # without the frame of this file
        return exceptions.format_remote_traceback(error, skip_frames_in=str(path.parent))
    raise AssertionError(f"{function} raised nothing")


def test_no_frames_are_shown_of_an_error_that_we_raise_ourselves(tmp_path: pathlib.Path) -> None:
    assert text_from(tmp_path / "ours.py", "refuse") == "ValueError: two, got one"
    text = text_from(tmp_path / "ours.py", "explain")
    assert text.startswith("TypeError: cannot pickle '_thread.lock' object\n")
    assert text.endswith("\nTypeError: no locks")
    assert "File" not in text and "Traceback" not in text


def test_no_frames_are_shown_of_a_value_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    text = text_from(tmp_path / "_objects" / "serialization.py", "read")
    assert text.startswith("AttributeError: ")
    assert "File" not in text and "Traceback" not in text


@pytest.mark.parametrize("function", ["stumble", "break_down"])
def test_our_frames_are_shown_where_we_are_at_fault(tmp_path: pathlib.Path, function: str) -> None:
    text = text_from(tmp_path / "ours.py", function)
    assert text.startswith("Traceback (most recent call last):\n")
    assert "ours.py" in text and f"in {function}" in text


def test_text_has_a_bound() -> None:
    text = str(caught(ValueError("x" * 3_000_000)))
    assert len(text) < 300_000
    assert "characters left out" in text
    assert text.startswith("work() failed")
