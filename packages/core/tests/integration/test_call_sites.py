"""Where references were made is recorded when the environment asks for it, on every engine."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import drivers
import pytest

SOURCE = """
    import json, umbel

    umbel.init(num_cpus=2)

    @umbel.remote
    def two():
        return 1, umbel.put(2).call_site()

    @umbel.remote
    def items():
        yield 1
        yield 2

    @umbel.remote
    class Actor:
        def method(self):
            return umbel.put(3)

    actor = Actor.remote()
    made = umbel.put(0)
    result = two.remote()
    first, second = two.options(num_returns=2).remote()
    stream = list(items.remote())
    called = actor.method.remote()
    inner = umbel.get(called)
    print(json.dumps({
        "put": made.call_site(),
        "task": result.call_site(),
        "in_task": umbel.get(result)[1],
        "returns": [first.call_site(), second.call_site()],
        "stream": [one.call_site() for one in stream],
        "method": called.call_site(),
        "borrowed": inner.call_site(),
    }))
"""


def _line_of(text: str) -> int:
    """The number that a traceback gives the first line of SOURCE with `text`."""
    return next(number for number, line in enumerate(SOURCE.splitlines(), 1) if text in line)


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_call_sites_are_lines_of_the_program(engine: str) -> None:
    output, _ = drivers.run(SOURCE, UMBEL_RECORD_CALL_SITES="1", UMBEL_ENGINE=engine)
    told = json.loads(output.splitlines()[-1])

    def at(text: str, function: str = "<module>") -> str:
        return f"<string>:{_line_of(text)} in {function}"

    assert told["put"] == at("made = ")
    assert told["task"] == at("result = ")
    assert told["in_task"] == at("umbel.put(2)", "two")
    assert told["returns"] == [at("first, second = ")] * 2
    assert told["stream"] == [at("stream = ")] * 2
    assert told["method"] == at("called = ")
    # One process knows what another has made only by asking it; the inline engine has one process.
    assert told["borrowed"] == ("" if engine == "native" else at("umbel.put(3)", "method"))


def test_call_sites_are_not_recorded_unless_asked_for() -> None:
    output, _ = drivers.run("import umbel\numbel.init(num_cpus=1)\nprint(repr(umbel.put(1).call_site()))")
    assert output.splitlines()[-1] == "''"


LISTED = """
    import json, os, pathlib, sys, umbel
    from umbel.util import state

    umbel.init(num_cpus=2)

    @umbel.remote(num_cpus=0)
    def quick(_value=None):
        return 1

    @umbel.remote(num_cpus=0)
    def parent():
        return umbel.get(quick.options(name="in_task").remote())

    @umbel.remote(num_cpus=0, max_retries=0)
    def broken():
        raise ValueError("broken")

    @umbel.remote(num_cpus=0)
    def waits(path):
        while not pathlib.Path(path).exists():
            pass

    @umbel.remote(num_cpus=0)
    class Plain:
        def method(self):
            return 1

    @umbel.remote(num_cpus=0)
    class Named:
        def __init__(self, name):
            self.name = name
        def __repr__(self):
            return f"<{self.name}>"
        async def method(self):
            return 1

    same = quick.options(name="same")
    done = [parent.remote()]
    for _ in range(2):
        done.append(same.remote())  # first
        done.append(same.remote())  # second
    failed = broken.remote()
    plain = Plain.remote()
    named = Named.remote("a name")
    waiting = Plain.options(num_cpus=99).remote()
    umbel.get([*done, plain.method.remote(),
               named.method.remote()])
    umbel.wait([failed])
    running = waits.remote(sys.argv[1])
    dead = Named.remote("b")
    umbel.get(dead.method.remote())
    state.list_tasks()  # has its process report before it is killed
    umbel.kill(dead)
    while not state.list_actors(filters=[("state", "=", "DEAD")]) or state.get_task(running).state != "RUNNING":
        pass
    print(json.dumps({
        "tasks": [[one.name, one.state, one.call_site] for one in state.list_tasks(detail=True)],
        "actors": [[one.class_name, one.state, one.repr_name, one.call_site] for one in state.list_actors(detail=True)],
        "brief": state.list_actors()[0].call_site,
    }))
    pathlib.Path(sys.argv[1]).touch()
    umbel.get(running)
"""


@pytest.mark.parametrize("is_on", [True, False])
def test_listings_tell_where_tasks_and_actors_were_made(tmp_path: pathlib.Path, is_on: bool) -> None:
    path = tmp_path / "program.py"
    source = textwrap.dedent(LISTED)
    path.write_text(source)
    done = subprocess.run(
        [sys.executable, str(path), str(tmp_path / "gate")], check=True, capture_output=True, text=True, timeout=60,
        env={**os.environ, "UMBEL_RECORD_CALL_SITES": str(int(is_on))},
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])

    def at(text: str, function: str = "<module>") -> str | None:
        line = next(number for number, line in enumerate(source.splitlines(), 1) if text in line)
        return f"{path}:{line} in {function}" if is_on else None

    assert sorted(told["tasks"], key=str) == sorted(
        [
            ["same", "FINISHED", at("# first")],
            ["same", "FINISHED", at("# first")],
            ["same", "FINISHED", at("# second")],
            ["same", "FINISHED", at("# second")],
            ["in_task", "FINISHED", at('name="in_task"', "parent")],
            ["parent", "FINISHED", at("parent.remote()")],
            ["broken", "FAILED", at("broken.remote()")],
            ["waits", "RUNNING", at("waits.remote(")],
            ["Plain.__init__", "FINISHED", at("plain = ")],
            ["Plain.__init__", "PENDING_NODE_ASSIGNMENT", at("waiting = ")],
            ["Plain.method", "FINISHED", at("plain.method.remote()")],
            ["Named.__init__", "FINISHED", at("named = ")],
            ["Named.__init__", "FINISHED", at("dead = Named")],
            ["Named.method", "FINISHED", at("named.method.remote()")],
            ["Named.method", "FINISHED", at("dead.method.remote()")],
        ],
        key=str,
    )
    assert sorted(told["actors"], key=str) == sorted(
        [
            ["Plain", "ALIVE", "", at("plain = ")],
            ["Named", "ALIVE", "<a name>", at("named = ")],
            ["Plain", "PENDING_CREATION", "", at("waiting = ")],
            ["Named", "DEAD", "<b>", at("dead = Named")],
        ],
        key=str,
    )
    assert told["brief"] is None  # a detail, as with Ray
