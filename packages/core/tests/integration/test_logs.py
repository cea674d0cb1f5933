"""Log files of real sessions: found by every kind of id, followed, kept as asked, and gone otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import click.testing
import drivers
import pytest

from umbel.cli.logs import make as make_logs

PRINTING = """
    import os, sys, umbel
    umbel.init(num_cpus=2, log_to_driver=False)

    @umbel.remote
    def work(number):
        print("work", number)
        print("trouble", number, file=sys.stderr)
        return umbel.get_runtime_context().get_task_id(), os.getpid()

    @umbel.remote
    class Speaker:
        def say(self, word):
            print(word)
            return umbel.get_runtime_context().get_actor_id(), umbel.get_runtime_context().get_worker_id()

    def told():
        sys.stdin.readline()
"""


def logs(driver: drivers.Driver, *arguments: str) -> str:
    """What `umbel logs ...` prints, here: starting a process for each takes half a second."""
    return click.testing.CliRunner().invoke(make_logs(), arguments, env={"TMPDIR": driver.directory}).output


def lines(driver: drivers.Driver, *arguments: str) -> list[str]:
    return [line for line in logs(driver, "show", *arguments).splitlines() if not line.startswith("==>")]


def test_what_workers_print_is_found_by_task_actor_worker_process_and_name() -> None:
    source = (
        PRINTING
        + """
    tasks = umbel.get([work.remote(number) for number in range(3)])
    speaker = Speaker.remote()
    actor, worker = umbel.get(speaker.say.remote("hello"))
    print(*tasks[1], actor, worker, flush=True)
    told()
    """
    )
    with drivers.driver(source) as driver:
        task, pid, actor, worker = driver.line().split()
        drivers.wait_until(lambda: len(lines(driver)) == 7, what="all lines to be there")
        assert sorted(lines(driver, task)) == ["trouble 1", "work 1"]
        assert (
            lines(driver, actor)
            == lines(driver, actor[:36])
            == lines(driver, worker[:12])
            == lines(driver, "Speaker")
            == ["hello"]
        )
        assert "work 1" in lines(driver, pid) and "hello" not in lines(driver, pid)
        assert sorted(lines(driver, "work", "--err")) == [f"trouble {number}" for number in range(3)]
        assert len(lines(driver, pid, "--tail", "1")) == 2  # of each of its files
        assert "nothing called 'nobody' has printed anything" in logs(driver, "show", "nobody")
        listed = json.loads(logs(driver, "list", "--json"))
        assert {one["worker"] for one in listed} >= {worker}
        assert [one["actors"] for one in listed if one["worker"] == worker] == [[actor]]
        assert f"worker {worker[:8]} (pid " in logs(driver, "list")
        driver.tell()
        driver.finish()
        driver.expect_nothing_left()


def test_follow_shows_what_comes_until_the_session_ends() -> None:
    source = (
        PRINTING
        + """
    speaker = Speaker.remote()
    umbel.get(speaker.say.remote("first"))
    print("ready", flush=True)
    told()
    umbel.get([speaker.say.remote(word) for word in ("second", "third")])
    umbel.get(Speaker.remote().say.remote("fourth"))
    told()
    """
    )
    with drivers.driver(source) as driver:
        assert driver.line() == "ready"
        drivers.wait_until(lambda: lines(driver))
        follower = subprocess.Popen(
            [sys.executable, "-m", "umbel.cli", "logs", "show", "--follow", "Speaker"],
            env={**os.environ, "TMPDIR": driver.directory},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert follower.stdout is not None
        try:
            seen = [follower.stdout.readline(), follower.stdout.readline()]
            assert [seen[0][:11], seen[1]] == ["==> worker ", "first\n"]
            driver.tell()
            assert [follower.stdout.readline() for _ in range(2)] == ["second\n", "third\n"]
            assert follower.stdout.readline().startswith("==> worker ")
            assert follower.stdout.readline() == "fourth\n"
            driver.tell()
            driver.finish()
            assert follower.wait(drivers.PATIENCE_S) == 0
        finally:
            follower.kill()
            follower.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["shutdown", "driver", "daemon"])
def test_logs_are_kept_after_the_session_where_that_was_asked_for_whatever_ends_it(ending: str) -> None:
    source = (
        PRINTING
        + """
    umbel.get(Speaker.remote().say.remote("last words"))
    print("said", flush=True)
    told()
    """
    )
    with drivers.driver(source, UMBEL_LOG_KEEP_S="3600", UMBEL_LOG_DIR="") as driver:
        assert driver.line() == "said"
        (base,) = os.listdir(driver.directory)
        kept = os.path.join(driver.directory, base, "logs")
        drivers.wait_until(lambda: lines(driver) == ["last words"])
        (session,) = os.listdir(kept)
        if ending == "shutdown":
            driver.tell()
            driver.finish()
        else:
            with open(os.path.join(driver.directory, base, session, "processes")) as file:
                daemon = int(file.readline().split()[0])
            drivers.kill(driver.pid if ending == "driver" else daemon)
            drivers.wait_until(lambda: not os.path.exists(os.path.join(driver.directory, base, session)))
            driver.kill()
        drivers.wait_until(lambda: all(kept in path for path in driver.left_behind()), what="all but the logs to go")
        assert lines(driver, "--session", session[-8:]) == ["last words"]
        assert lines(driver, "Speaker") == ["last words"]
        assert sorted(name.rpartition("-")[0][:7] for name in os.listdir(os.path.join(kept, session))) == [
            "",
            *["worker-"] * 2,
        ]


def test_logs_can_be_switched_off_and_their_files_are_bounded() -> None:
    source = (
        PRINTING
        + """
    speaker = Speaker.remote()
    umbel.get([speaker.say.remote(str(number).rjust(100)) for number in range(5_000)])
    print("said", flush=True)
    told()
    """
    )
    with drivers.driver(source, UMBEL_LOG_BYTES_MAX="0") as driver:
        assert driver.line() == "said"
        assert "no worker of this session has printed anything" in logs(driver, "list")
        assert not os.path.exists(os.path.join(driver.session_dir(), "logs"))
    with drivers.driver(source, UMBEL_LOG_FILE_BYTES_MAX="65536") as driver:
        assert driver.line() == "said"
        drivers.wait_until(lambda: lines(driver)[-1:] == ["4999".rjust(100)])
        directory = os.path.join(driver.session_dir(), "logs")
        at_once = 3 * 65_536  # a pipe full of lines, and the index of as many tasks
        sizes = [os.stat(os.path.join(directory, name)).st_size for name in os.listdir(directory)]
        assert sum(sizes) < 2 * (65_536 + at_once)  # of more than a million bytes
        numbers = [int(line) for line in lines(driver)]
        assert numbers == list(range(numbers[0], 5_000))


def test_logging_configuration_holds_in_the_driver_in_tasks_and_in_actors() -> None:
    source = """
        import json, logging, sys, umbel
        umbel.init(num_cpus=1, log_to_driver=False, logging_config=umbel.LoggingConfig(encoding="JSON", log_level="INFO"))

        @umbel.remote
        def work():
            logging.getLogger("app").info("in a task", extra={"user": 7})
            logging.getLogger("app").debug("not shown")
            return umbel.get_runtime_context().get_task_id()

        @umbel.remote
        class Keeper:
            async def act(self):
                logging.warning("in an actor")
                return umbel.get_runtime_context().get_actor_id()

        keeper = Keeper.options(name="bob").remote()
        print(umbel.get(work.remote()), umbel.get(keeper.act.remote()), umbel.get_runtime_context().get_node_id(), flush=True)
        logging.info("in the driver")
        sys.stdin.readline()
    """
    with drivers.driver(source) as driver:
        task, actor, node = driver.line().split()
        drivers.wait_until(lambda: len(lines(driver)) == 2)
        found = {told["message"]: told for told in map(json.loads, lines(driver))}
        of_task, of_actor = found["in a task"], found["in an actor"]
        assert (of_task["task_id"], of_task["user"], of_task["levelname"]) == (task, 7, "INFO")
        assert (of_actor["actor_id"], of_actor["actor_name"], of_actor["node_id"]) == (actor, "bob", node)
        assert lines(driver, task) == [line for line in lines(driver) if "in a task" in line]
        driver.tell()
        _, errors = driver.finish()
        (own,) = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
        assert (own["message"], own["node_id"]) == ("in the driver", node)


def test_driver_shows_lines_as_before_whosever_they_are() -> None:
    """Marks of tasks are not shown, and cut no line of the driver's output."""
    source = """
        import umbel
        umbel.init(num_cpus=1)

        @umbel.remote
        def work(number):
            print(number, end="")
            print(" is mine")

        umbel.get([work.remote(number) for number in range(5)])
    """
    output, _ = drivers.run(source)
    shown: list[Any] = [line.split(") ", 1) for line in output.splitlines()]
    assert [text for _, text in shown] == [f"{number} is mine" for number in range(5)]
    assert {prefix.split(" pid=")[0] for prefix, _ in shown} == {"(work"}


def test_session_whose_workers_print_nothing_makes_no_file_and_loads_nothing() -> None:
    source = """
        import os, sys, umbel
        context = umbel.init(num_cpus=1)
        check = umbel.remote(lambda: [name for name in sys.modules if "log_files" in name or "logging_config" in name])
        print(umbel.get(check.remote()), [name for name in sys.modules if "logging_config" in name])
        print(os.path.exists(os.path.join(context["session_dir"], "logs")))
    """
    output, _ = drivers.run(source)
    assert output.splitlines() == ["[] []", "False"]
